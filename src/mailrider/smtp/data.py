"""The receiving end of DATA: where content ends, and what it was before dots were stuffed (RFC 5321 4.1.1.4, 4.5.2).

`DataDecoder` takes the octets behind the 354 as they come and gives the content piece by piece; it holds back at most
four octets. CRLF.CRLF ends the content, and nothing else does, however other servers may read it: where two servers
disagree on the end, one message becomes two ("SMTP smuggling", CVE-2023-51764 to -51766). So whatever some server
might take for the end, and is not, makes the message *dubious*. It is read to its true end, which keeps the dialogue in
step, and given no further octets of; the reply to it has to be a refusal. Dubious are

- a dot behind a bare LF or a bare CR;
- a dot at the beginning of a line with a bare LF, a bare CR or a NUL behind it;
- a NUL at the beginning of a line (some servers drop it, and see the dot that follows).

The same holds for a message that is larger than `limit`: read to its end, not kept. Bare line ends elsewhere are let
through as they are; who stores or sends the content mends them (`smtp.content`).

Content in chunks (BDAT) needs no end, but others may get it by DATA: `ChunkInspector` holds the same to be dubious.
"""

from __future__ import annotations

import re
from typing import Final

_CR: Final = 0x0D
# A regular expression that begins with two fixed octets is found in half of the time that `bytes.find` takes.
_LINE_DOT: Final = re.compile(rb"\n\.").search
_CR_DOT: Final = re.compile(rb"\r\.").search
_SUSPECT: Final = (b"\r", b"\n", b"\0")  # behind a dot that begins a line
_END: Final = b"\n.\r\n"
_TELLING: Final = b".\r\n\0"  # what decides about the octets before it

_HIDDEN_DOT: Final = re.compile(rb"(?:\A|[\r\n])\0+\.").search  # a message begins where a line does

# What may grow into something that matters when more arrives, longest first; held back until it is clear.
_UNDECIDED: Final = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\n", b"\r")


class DataDecoder:
    """Decodes one message's DATA.

    `size`: octets of content so far, those not given out included. `is_oversize`, `dubious` (a reason, for people):
    the message must be refused. After the end `ended` is True, and `trailing` holds what was received behind it.
    """

    __slots__ = ("_held", "_limit", "_skip", "dubious", "ended", "size", "trailing")

    def __init__(self, limit: int | None = None) -> None:
        """`limit`: the most octets of content to give out; None for no limit."""
        self.size = 0
        self.dubious = ""
        self.ended = False
        self.trailing = b""
        self._limit = limit
        # DATA's own line end, which is not content: a dot may follow it, and even the end.
        self._held = b"\r\n"
        self._skip = 2

    @property
    def is_oversize(self) -> bool:
        """True if the content is larger than the limit."""
        return self._limit is not None and self.size > self._limit

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; returns the content that they complete. Not to be called after the end."""
        octets = self._behind_held(data)
        first, last = _dots(octets)
        pieces, start, stop = self._lines_with_dots(octets, first, last)
        self.dubious = self.dubious or _other_fault(octets, first, min(last, stop), stop)
        if not self.ended:
            stop -= len(next(filter(octets.endswith, _UNDECIDED), b""))
        self._held = octets[stop:]
        self._skip = max(0, start - stop)
        pieces.append(octets[start:stop])
        content = b"".join(pieces)
        self.size += len(content)
        return b"" if self.dubious or self.is_oversize else content

    def _behind_held(self, data: bytes) -> bytes:
        """The next octets, with what was held back before them; not copied if nothing of that matters any more."""
        if self._skip == len(self._held) and data and data[0] not in _TELLING:
            self._skip = 0
            return data
        return self._held + data

    def _lines_with_dots(self, octets: bytes, first: int, last: int) -> tuple[list[bytes], int, int]:
        """Looks at every dot behind an LF: the content before the last of them, where it goes on, where it stops."""
        pieces: list[bytes] = []
        start = self._skip
        line_end = _line_dot(octets, first, last)
        while line_end >= 0:
            dot = line_end + 1
            after = octets[dot + 1 : dot + 3]
            if after == b"\r\n" and line_end and octets[line_end - 1] == _CR:
                self.ended = True
                self.trailing = octets[dot + 3 :]
                return pieces, start, dot
            fault = _dot_fault(octets, line_end)
            if fault:
                self.dubious = self.dubious or fault
            elif after in (b"", b"\r"):
                break
            else:
                pieces.append(octets[start:dot])
                start = dot + 1
            line_end = _line_dot(octets, dot + 1, last)
        return pieces, start, len(octets)


class ChunkInspector:
    """Looks at one message's content that comes as it is, in chunks. `dubious`: as for `DataDecoder`."""

    __slots__ = ("_held", "dubious")

    def __init__(self) -> None:
        self.dubious = ""
        self._held = b"\r\n"  # content begins where a line does

    def feed(self, data: bytes) -> None:
        """Look at the next octets."""
        octets = self._held + data
        first, last = _dots(octets)
        line_end = _line_dot(octets, first, last)
        while line_end >= 0 and not self.dubious:
            self.dubious = _dot_fault(octets, line_end)
            line_end = _line_dot(octets, line_end + 2, last)
        stop = len(octets) - len(next(filter(octets.endswith, _UNDECIDED), b""))
        self.dubious = self.dubious or _other_fault(octets, first, min(last, stop), stop)
        self._held = octets[stop:]


def _dot_fault(octets: bytes, line_end: int) -> str:
    """Why the dot behind the LF at `line_end` is dubious; nothing if it is not, or if that cannot be said yet."""
    if line_end == 0 or octets[line_end - 1] != _CR:
        return "a bare LF before a dot"
    after = octets[line_end + 2 : line_end + 4]
    if after[:1] in _SUSPECT and after not in (b"\r\n", b"\r"):
        return "a bare CR, a bare LF or a NUL behind the dot that begins a line"
    return ""


def _dots(octets: bytes) -> tuple[int, int]:
    """Between which octets anything can be found that ends in a dot; the dot of the end of data does not count.

    A search for one octet that is not there costs next to nothing, and most of what makes a message large is base64,
    which holds no dot.
    """
    end = len(octets) - len(_END) if octets.endswith(_END) else len(octets)
    return max(0, octets.find(b".") - 1), octets.rfind(b".", 0, end) + 1


def _line_dot(octets: bytes, at: int, last: int) -> int:
    """Where the next LF is, from `at` on, that a dot stands behind; -1 if there is none. `last`: see `_dots`."""
    found = _LINE_DOT(octets, at, last)
    if found is not None:
        return found.start()
    end = len(octets) - len(_END)
    return end if end >= at and octets.endswith(_END) else -1


def _other_fault(octets: bytes, first: int, last: int, stop: int) -> str:
    if _CR_DOT(octets, first, last):
        return "a bare CR before a dot"
    # A bare CR ends a line too, once it is mended.
    if b"\0" in octets and (octets.find(b"\n\0", 0, stop) >= 0 or octets.find(b"\r\0", 0, stop) >= 0):
        return "a NUL at the beginning of a line"
    return ""


def sending_fault(octets: bytes) -> str:
    """Why a message must not be sent; empty if it may. Some servers drop each NUL, and then see a lone dot, the end.

    Dots that begin a line as we see it are stuffed, and harmless; bare line ends are mended before.
    """
    if b"\0" in octets and _HIDDEN_DOT(octets):
        return "a NUL before the dot that begins a line"
    return ""
