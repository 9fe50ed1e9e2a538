"""Encoded words: how text beyond ASCII stands in a header field (RFC 2047, RFC 2231 5). Pure.

Reading and writing are our own, because Python's `email` package differs between patch levels, decodes what is text
already, and raises for some of what strangers write.

- `decode_words` takes any text and never raises. What cannot be decoded stays as it is. Its work is proportional to the
  length of the text; the caller bounds that.
- `encode_words` gives text that every reader decodes to exactly what was given, and that holds neither CR nor LF. Text
  that only looks like an encoded word is encoded too, so that nobody decodes it.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH: Final = 76  # characters of a line that has encoded words, and 75 of a word: RFC 2047 2
_OPENING: Final = "=?utf-8?q?"
_CLOSING: Final = "?="

_WORD = re.compile(r"=\?([A-Za-z0-9._:+-]{1,40})(?:\*[A-Za-z0-9-]{0,40})?\?([BbQq])\?")
_PLAIN = re.compile(r"[A-Za-z0-9!*+/-]")  # RFC 2047 5 (3): what every kind of field may hold

# Charsets by the names that mail uses, in lower case, and the codec that reads them. Codecs are never looked up by a
# name that a stranger wrote: some are no charsets, some need time that grows with the square of the length, and a name
# that Python does not know makes it search the disk.
_SAME_NAME: Final = (
    *("utf-8", "utf-7", "utf-16", "utf-16be", "utf-16le", "us-ascii", "koi8-r", "koi8-u", "tis-620"),
    *(f"iso-8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)),
    *(f"windows-{page}" for page in range(1250, 1259)),
    *(f"cp{page}" for page in (437, 850, 852, 855, 862, 866, 874, 932, 949, *range(1250, 1259))),
    *("gbk", "gb18030", "big5", "big5-hkscs", "euc-jp", "shift_jis", "iso-2022-jp", "euc-kr", "iso-2022-kr"),
)
_OTHER_NAMES: Final = {
    "utf8": "utf-8",
    "ascii": "us-ascii",
    "ansi_x3.4-1968": "us-ascii",
    "unknown-8bit": "utf-8",
    "latin1": "iso-8859-1",
    "latin-1": "iso-8859-1",
    "iso-8859-8-i": "iso-8859-8",
    "gb2312": "gb18030",  # which holds it; mail that says gb2312 often has more
    "gb_2312-80": "gb18030",
    "hz-gb-2312": "hz",
    "x-sjis": "cp932",
    "x-gbk": "gbk",
    "ks_c_5601-1987": "cp949",
    "iso-2022-jp-1": "iso-2022-jp-1",
    "iso-2022-jp-2": "iso-2022-jp-2",
    "macintosh": "mac-roman",
}
CODECS: Final = {name: name for name in _SAME_NAME} | _OTHER_NAMES


def decode_words(text: str) -> str:
    """The text as people see it. White space between two encoded words is not shown (RFC 2047 6.2)."""
    pieces: list[str] = []
    run: list[bytes] = []  # octets of adjacent words of one codec: a character may be split between two
    codec, at = "", 0
    for start, end, its_codec, octets in _words(text):
        between = text[at:start]
        is_adjacent = bool(codec) and not between.strip(" \t\r\n")
        if not is_adjacent or its_codec != codec:
            pieces.append(_text(run, codec))
            run = []
        if not is_adjacent:
            pieces.append(between)
        run.append(octets)
        codec, at = its_codec, end
    return "".join((*pieces, _text(run, codec), text[at:]))


def _text(run: list[bytes], codec: str) -> str:
    return b"".join(run).decode(codec, "replace") if run else ""


def _words(text: str) -> Iterator[tuple[int, int, str, bytes]]:
    """The encoded words in a text: where each begins and ends, its codec, and its octets."""
    at = 0
    while (opening := _WORD.search(text, at)) is not None:
        closing = text.find(_CLOSING, opening.end())
        if closing < 0:
            return
        at = closing + len(_CLOSING)
        codec = CODECS.get(opening[1].lower())
        octets = _octets(opening[2], text[opening.end() : closing])
        if codec is not None and octets is not None:
            yield opening.start(), at, codec, octets


def _octets(encoding: str, text: str) -> bytes | None:
    """What an encoded word holds; None if it is not encoded as it says."""
    octets = text.encode("utf-8", "replace")
    if encoding in "Qq":
        return binascii.a2b_qp(octets, header=True)
    try:
        return binascii.a2b_base64(octets + b"==")  # many leave the padding out
    except binascii.Error:
        return None


def encode_words(text: str, used: int = 0, *, always: bool = False) -> tuple[str, ...]:
    """The text as lines of a field, to be folded before each but the first.

    `used`: columns that stand before it in the first line. Text in printable ASCII stays as it is, in one line, unless
    it is `always` encoded.
    """
    if not always and text.isascii() and text.isprintable() and "=?" not in text:
        return (text,)
    lines: list[str] = []
    word, room = _OPENING, WIDTH - used - len(_CLOSING)
    for character in text:
        encoded = _encoded(character)
        if len(word) + len(encoded) > room and word != _OPENING:
            lines.append(word + _CLOSING)
            word, room = _OPENING, WIDTH - 1 - len(_CLOSING)  # a folded line begins with a space
        word += encoded
    return (*lines, word + _CLOSING)


def _encoded(character: str) -> str:
    if character == " ":
        return "_"
    if _PLAIN.fullmatch(character):
        return character
    return "".join(f"={octet:02X}" for octet in character.encode("utf-8", "replace"))
