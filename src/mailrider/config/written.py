"""The way back: values as text of the language."""

from __future__ import annotations

from mailrider.config.expand import is_expanded
from mailrider.config.lexer import Token, TokenKind, tokens

_NEVER_PLAIN = frozenset('"#{}\\$')


class UnwritableError(ValueError):
    """No argument can be this text."""


def quoted(text: str) -> str:
    """A text as one argument: between quotes where it would be more than a plain word.

    What is read from it is the text, character by character, in whatever file it stands. Raises `UnwritableError` if
    the language cannot hold it: characters that cannot be seen, what would be expanded, or an odd number of backslashes
    before a quote or at the end, where the last of them would take the quote for text.
    """
    between = '"' + text.replace('"', '\\"') + '"'
    if is_expanded(text) or not _is_utf8(text) or list(tokens(between)) != [Token(TokenKind.STRING, text, 0)]:
        raise UnwritableError(f"no argument can be this text: {text!a}")
    is_plain = _NEVER_PLAIN.isdisjoint(text) and list(tokens(text)) == [Token(TokenKind.WORD, text, 0)]
    return text if is_plain else between


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
