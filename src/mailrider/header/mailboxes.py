"""Fields that are written from their parts: names before addresses, lists of them, and text, folded. Pure.

A name is a phrase, a quoted string or encoded words (RFC 5322 3.2.5, RFC 2047 5), so that every reader sees it as it
was given, and nothing in it is taken for a further address.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mailrider.header.fields import compose_field
from mailrider.header.words import encode_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH: Final = 78  # characters of a line: RFC 5322 2.1.1
_LONGEST_WORD: Final = 200  # characters; longer ones, which no line can be folded at, become encoded words
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")  # RFC 5322 3.2.3


def mailbox(name: str, address: str, *, used: int = 0, utf8: bool = False) -> list[str]:
    """The pieces of a mailbox, between which a line may be folded. `used`: see `encode_words`; `utf8`: see `phrase`."""
    if not name:
        return [address if address.isascii() and address else f"<{address}>"]
    return [*phrase(name, used=used, utf8=utf8), f"<{address}>"]


def phrase(name: str, *, used: int = 0, utf8: bool = False) -> Sequence[str]:
    """The pieces of a name. `utf8`: it may stand there in UTF-8 (RFC 6532)."""
    if not _is_plain(name, utf8=utf8):
        return encode_words(name, used, always=True)
    if not _PHRASE.fullmatch(name) or name != " ".join(name.split()):
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        name = f'"{escaped}"'
    return _words(name)


def text(given: str, *, used: int = 0, utf8: bool = False, longest: int = _LONGEST_WORD) -> Sequence[str]:
    """The pieces of a text such as a subject; in it, a line end is white space. `longest`: characters of a word."""
    given = re.sub(r"[\r\n\0]+", " ", given).strip()
    return _words(given) if _is_plain(given, utf8=utf8, longest=longest) else encode_words(given, used, always=True)


def _is_plain(given: str, *, utf8: bool, longest: int = _LONGEST_WORD) -> bool:
    """True if it can stand there as it is: readers would decode what looks like an encoded word."""
    is_text = (utf8 or given.isascii()) and given.isprintable() and "=?" not in given
    return is_text and all(len(word) <= longest for word in given.split(" "))


def _words(given: str) -> list[str]:
    return re.split(r" (?=[^ ])", given)


def compose_folded(name: str, pieces: Iterable[str]) -> str:
    """A field with these pieces, a space between two of them, on as many lines as that takes."""
    lines: list[str] = []
    line, room = "", WIDTH - len(name) - 2
    for piece in pieces:
        if line and len(line) + 1 + len(piece) > room:
            lines.append(line)
            line, room = piece, WIDTH - 1
        else:
            line = f"{line} {piece}" if line else piece
    return compose_field(name, *lines, line)
