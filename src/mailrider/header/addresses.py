"""Lists of addresses, as From, Sender, To, Cc and Bcc hold them (RFC 5322 3.4, RFC 6532, RFC 6854). Pure.

One parser for all that reads them. It is our own: the one of Python's `email` package reads the same field in different
ways at different patch levels, and who may send as whom depends on it. It accepts what means the same to every reader,
and refuses the rest:

- accepted: `a@x`, `A <a@x>`, `a@x (comment, with comma)`, groups, quoted strings, empty places between commas, a name
  without a domain (`root`), display names in another character set;
- refused: two addresses without a comma, a quote, comment or bracket that is not closed or not opened, comments and
  white space within an address, a route (`<@a:b@x>`), a group whose name looks like an address (`b@y: a@x;`), and an
  encoded word within an address, which some readers decode (RFC 2047 5 forbids it).

A display name without quotes may hold something like an address (`b@y <a@x>`). The address is the one in the angle
brackets, but some readers take the other one; so it is given too, as `shown`.

The work is proportional to the length of the text, whatever stands in it; nothing recurses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mailrider.errors import InvalidValue
from mailrider.model.address import Mailbox
from mailrider.model.text import without_case
from mailrider.model.value import value

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of a field that says who wrote a message. It is read before the message is accepted: far more than people write.
MAX_AUTHORS_FIELD: Final = 8192  # octets
MAX_AUTHORS: Final = 100  # addresses

# RFC 5322 3.2.3, RFC 6532 3.2; with dots wherever they stand, as some phones write them. No control characters.
_ATOM: Final = r"[^\x00-\x20\"(),:;<>@\[\\\]\x7f-\x9f\ud800-\udfff]++"
_PLAIN: Final = r'[^"\\\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]*+'
_QUOTED: Final = rf'"{_PLAIN}(?:\\[ -~\t]{_PLAIN})*"'
# In names, octets of other character sets than UTF-8, as surrogates: RFC 5322 never allowed them, but old programs
# write them. In some sets a backslash may be the second half of a letter, and then it is not certain what it escapes.
_HIGH: Final = r"\udc80-\udcff"
_NO_OCTET: Final = r"\ud800-\udc7f\udd00-\udfff"
_NAME_ATOM: Final = rf"[^\x00-\x20\"(),:;<>@\[\\\]\x7f-\x9f{_NO_OCTET}]++"
_NAME_PLAIN: Final = rf'[^"\\\x00-\x08\x0a-\x1f\x7f-\x9f{_NO_OCTET}]*+'
_NAME_QUOTED: Final = rf'"{_NAME_PLAIN}(?:(?<![{_HIGH}])\\[ -~\t]{_NAME_PLAIN})*"'
_LITERAL: Final = r"\[[^\[\]\\\x00-\x20\x7f-\x9f\ud800-\udfff]*+\]"
_TOKEN = re.compile(
    rf"(?P<space>[ \t\r\n]++)|(?P<address>(?:{_QUOTED}|{_ATOM})@(?:{_ATOM}|{_LITERAL}))|(?P<quoted>{_NAME_QUOTED})"
    rf"|(?P<atom>{_NAME_ATOM})|(?P<literal>{_LITERAL})|(?P<special>[<>,:;(])"
)
_OCTETS = re.compile(f"[{_HIGH}]")
_ENCODED_WORD = re.compile(r"=\?[^?]+\?[BbQq]\?")
_MISLEADING = re.compile("[@<>]")  # in a local part some readers take for the address what stands in its quotes
_IN_COMMENT = re.compile(r"[^()\\]++|\\.|[()]", re.DOTALL)

_WORDS: Final = frozenset({"address", "quoted", "atom", "literal"})


@value
class Address:
    """One address of a list, as it stands there: `text` without angle brackets, `root` if it has no domain.

    `shown`: what looks like an address in the display name before it, and stands there without quotes.
    """

    text: str
    shown: tuple[str, ...] = ()


def parse_addresses(text: str) -> list[Address]:
    """All addresses of a list, those of groups too. Raises `InvalidValue` for what cannot be read for certain."""
    return list(_AddressListParser(text).addresses())


def parse_authors(field: bytes) -> list[Mailbox]:
    """Everybody whom a From or Sender field may name to a reader, at least one.

    Raises `InvalidValue` unless that is certain.
    """
    if len(field) > MAX_AUTHORS_FIELD:
        raise InvalidValue(f"it is longer than {MAX_AUTHORS_FIELD} octets")
    found = parse_addresses(field.decode("utf-8", "surrogateescape"))
    if not found:
        raise InvalidValue("it names nobody")
    if len(found) > MAX_AUTHORS:
        raise InvalidValue(f"it has more than {MAX_AUTHORS} addresses")
    for each in found:
        if any(without_case(shown) != without_case(each.text) for shown in each.shown):
            raise InvalidValue("its display name looks like another address")
    authors = [Mailbox.parse(each.text) for each in found]
    if any(_MISLEADING.search(each.local_part) for each in authors):
        raise InvalidValue("what stands in quotes before an @ looks like another address")
    return authors


class _AddressListParser:
    """Takes a list from the left, one token at a time."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._kind = self._text = ""
        self._advance()

    def _advance(self) -> None:
        """The next token; `end` behind the last one."""
        self._kind, self._text = next(self._tokens, ("end", ""))

    def addresses(self) -> Iterator[Address]:
        in_group = False
        while self._kind != "end":
            words = self._words()
            if self._kind == ":":
                if in_group or not words or _shown(words):
                    raise InvalidValue("not a list of addresses: a colon that begins no group")
                in_group = True
                self._advance()
                continue
            if self._kind == "<":
                yield from self._in_brackets(words)
            elif words:
                yield _alone(words)
            if self._kind == ";" and in_group:
                in_group = False
                self._advance()
            if self._kind not in (",", "end"):
                raise InvalidValue(f"not a list of addresses: {self._text!r} where a comma belongs")
            self._advance()

    def _words(self) -> list[tuple[str, str]]:
        words: list[tuple[str, str]] = []
        while self._kind in _WORDS:
            words.append((self._kind, self._text))
            self._advance()
        return words

    def _in_brackets(self, name: list[tuple[str, str]]) -> Iterator[Address]:
        self._advance()
        inside = self._words()
        if self._kind != ">":
            raise InvalidValue("not a list of addresses: an angle bracket is not closed")
        self._advance()
        if self._kind in _WORDS:
            raise InvalidValue("not a list of addresses: text behind an angle bracket")
        if inside:  # `<>` names nobody
            yield Address(_alone(inside).text, _shown(name))


def _shown(name: list[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(text for kind, text in name if kind != "quoted" and "@" in text)


def _alone(words: list[tuple[str, str]]) -> Address:
    if len(words) != 1 or words[0][0] == "literal":
        raise InvalidValue("not a list of addresses: words without an address, or two addresses without a comma")
    if _OCTETS.search(words[0][1]):
        raise InvalidValue("not a list of addresses: octets that are no UTF-8 in an address")
    if _ENCODED_WORD.search(words[0][1]):
        raise InvalidValue("not a list of addresses: an encoded word within an address")
    return Address(words[0][1])


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Words and special characters; white space and comments only divide them."""
    at, before = 0, ""
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise InvalidValue(f"not a list of addresses: {text[at]!r} where none belongs")
        kind, at = match.lastgroup, match.end()
        if kind in _WORDS:
            if before in _WORDS and "address" in (before, kind):
                raise InvalidValue("not a list of addresses: something touches an address")
            yield kind, match[0]
        elif match[0] == "(":
            at = _behind_comment(text, at)
        elif kind == "special":
            yield match[0], match[0]
        before = kind


def _behind_comment(text: str, at: int) -> int:
    """Where the comment ends of which the opening parenthesis stands before `at`; comments nest (RFC 5322 3.2.2)."""
    depth = 1
    while depth:
        match = _IN_COMMENT.match(text, at)
        if match is None:
            raise InvalidValue("not a list of addresses: a comment is not closed")
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        at = match.end()
    return at
