"""Which characters may stand in text that goes on the wire, into a log or onto a terminal; and lines of old formats.

SMTP with SMTPUTF8 lets nearly all of Unicode into addresses and replies. Some characters do harm wherever they turn up,
and no value here carries them:

- control characters, C1 included (RFC 5321 4.1.2 for ASCII, RFC 5198 2 for the rest), among them CR, LF and NUL;
- U+2028 and U+2029, which are line ends to many programs (RFC 5198 2 advises against them);
- explicit bidirectional embeddings, overrides and isolates: they reorder the text around them, and no address needs
  them (RFC 8264 4.2.3). U+200C to U+200F, which some scripts do need, are fine;
- surrogates: no encoding has them; Python makes them from octets that were not UTF-8.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def without_case(text: str) -> str:
    """The text in lower case, to be compared, where no letter of another alphabet becomes one of ASCII.

    The sign of Kelvin is no k: who has the one in his name is not who has the other (CVE-2019-19844).
    """
    if text.isascii():
        return text.lower()
    return "".join(each if each.lower().isascii() and not each.isascii() else each.lower() for each in text)


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line with those that continue it, as files of sendmail and Postfix have it; with the number of the first.

    What continues a line begins with white space. Comments and empty lines are nothing, also in between.
    """
    pieces: list[str] = []
    start = 0
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        if line[0] not in " \t" or not pieces:
            if pieces:
                yield start, " ".join(pieces)
            pieces, start = [], number
        pieces.append(bare)
    if pieces:
        yield start, " ".join(pieces)


def json_line(value: object) -> str:
    """JSON that stays one line whoever reads it: readable, but for unsafe characters, which are escaped."""
    return UNSAFE.sub(_escape, json.dumps(value, ensure_ascii=False))


def visible(text: str) -> str:
    """Text for a terminal: no character of it can move the cursor, change colours or title, or reorder the rest. Line
    ends and tabs stay."""
    return UNSAFE.sub(_spell_out, text)


def _spell_out(unsafe: re.Match[str]) -> str:
    return "".join(each if each in "\n\t" else each.encode("unicode_escape").decode() for each in unsafe[0])


def _escape(unsafe: re.Match[str]) -> str:
    return "".join(f"\\u{ord(character):04x}" for character in unsafe[0])


def cut(text: str, octets: int) -> str:
    """The text, or as much from its beginning as fits into so many octets of UTF-8, in whole characters."""
    if len(text) <= octets and text.isascii():
        return text
    # A surrogate, which UTF-8 cannot hold, becomes a question mark.
    return text[:octets].encode("utf-8", "replace")[:octets].decode("utf-8", "ignore")


MAX_NAMED = 5  # words that an error names: who gets more reads none of them


def few(words: Iterable[str]) -> str:
    """Words that could be meant, with commas: the first of them, and how many more there are."""
    known = list(words)
    more = len(known) - MAX_NAMED
    return ", ".join(known) if more <= 0 else f"{', '.join(known[:MAX_NAMED])} and {more} more"
