"""Text to tokens: words, quoted strings, braces, ends of lines.

- Spaces and tabs separate; a line end ends a directive, unless a backslash stands right before it.
- `#` at the start of an argument position begins a comment that goes to the end of the line, inside a word it is text.
- `"..."` is one argument and may span lines; `\\"` inside is a quote, any other backslash is itself.
- `{` and `}` by themselves are braces; in a longer word they are text. `{}` is both.

Every character belongs to exactly one token or is passed over; nothing here raises. What is wrong becomes an `ERROR`
token, whose text is the message, and reading goes on behind it.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class TokenKind(enum.Enum):
    """What a token is."""

    WORD = enum.auto()
    STRING = enum.auto()
    OPEN = enum.auto()
    CLOSE = enum.auto()
    END = enum.auto()  # of a line
    ERROR = enum.auto()


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text; a string's `text` is without its quotes. `offset` is that of its first character."""

    kind: TokenKind
    text: str
    offset: int


# The alternatives cover every text: whatever no other takes is a word, or the quote of an unclosed string.
# No possessive groups: Python before 3.11.5 matches them wrongly (python/cpython#106052), Debian 12 has 3.11.2.
_TOKEN = re.compile(
    r"""
      (?P<space> (?:[ \t]++ | \\(?:\n|\Z))+ | \#[^\n]*+ )
    | (?P<end> \n (?:[ \t\n]++ | \#[^\n]*+)* )
    | (?P<string> "(?:[^"\\]++|\\.)*" )
    | (?P<quote> "[^\n]* )
    | (?P<word> (?:[^\ \t\n\\]++|\\(?!\n|\Z))+ )
    """,
    re.VERBOSE | re.DOTALL,
)
# Nothing that cannot be seen: control characters, and in words also the spaces that no keyboard has.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
_UNSEEN_IN_WORD = re.compile(r"[\x00-\x1f\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]")
GLUED = "expected a space behind the closing quote"
UNCLOSED = "this quote is never closed"
_BRACES = {"{": (TokenKind.OPEN,), "}": (TokenKind.CLOSE,), "{}": (TokenKind.OPEN, TokenKind.CLOSE)}


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a text whose line ends are LF."""
    first_long_string: Token | None = None
    for match in _TOKEN.finditer(text):
        offset, content = match.start(), match[0]
        match match.lastgroup:
            case "end":
                yield Token(TokenKind.END, content, offset)
            case "string":
                token = Token(TokenKind.STRING, content[1:-1].replace('\\"', '"'), offset)
                yield token
                yield from _errors_in_string(text, match.end(), token, content)
                if first_long_string is None and "\n" in content:
                    first_long_string = token
            case "quote":
                yield Token(TokenKind.ERROR, _unclosed(text, first_long_string), offset)
            case "word":
                yield from _word(content, offset)
            case _:
                pass


def _word(content: str, offset: int) -> Iterator[Token]:
    if content in _BRACES:
        for place, kind in enumerate(_BRACES[content]):
            yield Token(kind, content, offset + place)
        return
    yield Token(TokenKind.WORD, content, offset)
    for unseen in _UNSEEN_IN_WORD.finditer(content):
        yield _unseen_error(unseen[0], offset + unseen.start())


def _errors_in_string(text: str, end: int, token: Token, content: str) -> Iterator[Token]:
    for unseen in _UNSEEN.finditer(content):
        yield _unseen_error(unseen[0], token.offset + unseen.start())
    if end < len(text) and text[end] not in " \t\n\\":
        yield Token(TokenKind.ERROR, GLUED, end)


def _unseen_error(char: str, offset: int) -> Token:
    return Token(TokenKind.ERROR, f"this character cannot be seen (U+{ord(char):04X}); remove it", offset)


def _unclosed(text: str, suspect: Token | None) -> str:
    if suspect is None:
        return UNCLOSED
    line = text.count("\n", 0, suspect.offset) + 1
    return f"{UNCLOSED}; or one is missing in the string over several lines that begins in line {line}"


def word_length(text: str, offset: int) -> int:
    """How many characters the token at `offset` has in its own line."""
    match = _TOKEN.match(text, offset)
    return len(match[0].split("\n", 1)[0]) if match else 0
