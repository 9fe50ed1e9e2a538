"""The content of a message on its way into DATA or BDAT (RFC 5321 2.3.7, 4.1.1.4, 4.5.2; RFC 3030).

`Content` is a message that was looked at once. It knows what MAIL needs to say (`size`, `eight_bit`) and gives the
octets that go on the wire, piece by piece: `chunks` for BDAT, `stuffed` for DATA. Both are *mended* on the fly, so
that what leaves is always made of lines that end in CRLF:

- a bare LF becomes CRLF everywhere; a bare CR becomes CRLF in the body and a space in the header (a new line there
  could become a field that nobody wrote);
- a final CRLF is added if the last line has no end. An empty message stays empty: it has no line.

A message that is clean already is never changed and never copied as a whole; one that is not is mended in slices, so
that memory stays flat however large it is and to however many servers it goes at once. The octets come from bytes, or
from a supply that gives them in chunks, again for each transaction. A supply may have to be awaited (a queue's store):
then `pieces` and `stuffed_pieces` do what `chunks` and `stuffed` do, and the header is known from the beginning.

Nothing else in a message is touched, ever: signatures must survive.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from io import IncrementalNewlineDecoder
from typing import Final, cast

from mailrider.errors import LocalError
from mailrider.header.fields import (
    MAX_HEADER,
    HeaderFault,
    header_cut,
    header_end,
    header_fault,
    header_fields,
)

CHUNK: Final = 65536  # octets in a piece: what must be taken within one command time-out
END_OF_DATA: Final = b".\r\n"  # behind content that is empty or ends in CRLF: RFC 5321 4.1.1.4

_LF: Final = 0x0A
_DOT: Final = 0x2E
_LINE_DOT: Final = re.compile(rb"\n\.").search  # half of the time that `bytes.find` takes

Octets = bytes | memoryview
Supply = Callable[[], Iterable[bytes]]  # each call begins the same message anew
AwaitedSupply = Callable[[], AsyncIterator[bytes]]  # as well


class IncompleteContent(LocalError):
    """What is kept of a message ended before its last octet."""


@dataclass(slots=True, eq=False)
class Content:
    """A message as it will be sent; made by `inspect`, `stored` or `awaited`, and not to be changed.

    `size` and `header_size` count octets after mending and before dot-stuffing; the header is what precedes the first
    empty line. `is_clean`: the source needs no mending. `signed_by`: the domains and selectors of signatures that were
    put in front of it last. `beginning`: of content that has to be awaited, its header and at least two octets more.
    """

    size: int
    eight_bit: bool
    header_size: int
    is_clean: bool
    source: bytes | Supply | AwaitedSupply
    _header: bytes | None = None
    signed_by: tuple[str, ...] = ()
    beginning: bytes | None = None

    @classmethod
    def inspect(cls, message: bytes) -> Content:
        """A message in memory, which is kept, not copied. About 1 ms for a MiB."""
        if not is_clean(message):
            return cls._mended(message)
        end = header_end(message)
        header_size = header_cut(message) if end < 0 else end
        return cls(len(message), not message.isascii(), header_size, True, message)

    @classmethod
    def stored(cls, supply: Supply, *, size: int, eight_bit: bool, header_size: int) -> Content:
        """A message in chunks that was mended when it was stored, with what was known of it then."""
        return cls(size, eight_bit, header_size, True, supply)

    @classmethod
    def awaited(
        cls, supply: AwaitedSupply, beginning: bytes, *, size: int, eight_bit: bool, header_size: int
    ) -> Content:
        """Content of which each chunk has to be awaited. `beginning`: at least the header and the two octets behind."""
        header = beginning[:header_size]
        return cls(size, eight_bit, header_size, True, supply, header, beginning=beginning)

    @classmethod
    def _mended(cls, message: bytes) -> Content:
        mender = Mender()
        for piece in _slices(message, CHUNK):
            mender.feed(piece)
        mender.finish()
        clean = not mender.changed
        return cls(mender.size, mender.eight_bit, len(mender.header), clean, message, mender.header)

    @property
    def header(self) -> bytes:
        """The header as it will be sent, without the empty line; at most `MAX_HEADER`, mending aside."""
        if self._header is None:
            if isinstance(self.source, bytes) and self.is_clean:
                self._header = self.source[: self.header_size]
            else:
                self._header = bytes(next(self.chunks(self.header_size))) if self.header_size else b""
        return self._header

    @property
    def header_is_utf8(self) -> bool:
        """True if the header itself needs SMTPUTF8 (RFC 6532): it is UTF-8, and not ASCII.

        Octets of another character set, such as Latin-1, were never allowed in a header, and SMTPUTF8 does not allow
        them either: they travel as they always did.
        """
        return self.eight_bit and not self.header.isascii() and _is_utf8(self.header)

    @property
    def header_is_cut(self) -> bool:
        """True if what is known of the header is not all that others read there: it does not end in `MAX_HEADER`."""
        if self.size <= MAX_HEADER or self.header_size == self.size:
            return False
        return not self.first(self.header_size + 2).endswith(b"\r\n")

    def header_fields(self, name: str) -> list[bytes]:
        """The values of all header fields of that name, in order, unfolded and trimmed."""
        return header_fields(self.header, name)

    def header_fault(self) -> HeaderFault | None:
        """Why the header cannot be read, for a clear word to whoever wrote it; None if it can."""
        if self.header_is_cut:
            line = self.header.count(b"\n") + 1
            return HeaderFault(line, f"a header has no more than {MAX_HEADER} octets")
        return header_fault(self.header)

    def chunks(self, size: int = CHUNK) -> Iterator[Octets]:
        """The mended message in pieces of exactly `size` octets, the last one less; nothing for an empty message.

        Not for content that has to be awaited.
        """
        if isinstance(self.source, bytes) and self.is_clean:
            return _slices(self.source, size)
        return _regrouped(self._octets(size), size)

    def _octets(self, size: int) -> Iterator[Octets]:
        if self.is_awaited:
            raise LocalError("this content has to be awaited")
        octets = 0
        supply = cast("Supply", self.source)
        for piece in _mended_pieces(self.source, size) if isinstance(self.source, bytes) else supply():
            octets += len(piece)
            yield piece
        self._expect_all(octets)

    def _expect_all(self, octets: int) -> None:
        """A message whose supply ended early must not get its end of data: it would be delivered, cut off."""
        if octets < self.size:
            raise IncompleteContent(f"the message has {self.size} octets, and {octets} came out of where it is kept")

    @property
    def is_awaited(self) -> bool:
        """True if its octets have to be awaited."""
        return self.beginning is not None

    async def pieces(self, size: int = CHUNK) -> AsyncIterator[Octets]:
        """As `chunks`, of any content."""
        if not self.is_awaited:
            for piece in self.chunks(size):
                yield piece
            return
        regrouped, octets = _Regrouped(size), 0
        async for chunk in cast("AwaitedSupply", self.source)():
            octets += len(chunk)
            for piece in regrouped.feed(chunk):
                yield piece
        self._expect_all(octets)
        if regrouped.rest:
            yield regrouped.rest

    async def stuffed_pieces(self, size: int = CHUNK) -> AsyncIterator[Octets]:
        """As `stuffed`, of any content."""
        stuffer, last = DotStuffer(), b""
        async for piece in self.pieces(size):
            if last:
                yield last
            last = stuffer.feed(piece)
        yield last + END_OF_DATA

    async def loaded(self) -> Content:
        """The same content, in memory."""
        if not self.is_awaited:
            return self
        octets = b"".join([piece async for piece in self.pieces()])
        return Content(self.size, self.eight_bit, self.header_size, True, octets, signed_by=self.signed_by)

    def first(self, octets: int) -> bytes:
        """The first octets; of content that has to be awaited, not more than two behind its header."""
        if self.beginning is not None:
            return self.beginning[:octets]
        return bytes(next(self.chunks(octets), b""))

    def stuffed(self, size: int = CHUNK) -> Iterator[Octets]:
        """The message as DATA wants it, dots stuffed, the final dot included; in one piece if it is small."""
        if isinstance(self.source, bytes) and self.is_clean:
            if len(self.source) <= size:
                return iter((DotStuffer().feed(self.source) + END_OF_DATA,))
            if self.source[0] != _DOT and not _has_line_dots(self.source):
                return _ended(_slices(self.source, size))
        stuffer = DotStuffer()
        return _ended(map(stuffer.feed, self.chunks(size)))


class Mender:
    """Mends a message chunk by chunk, and takes note of what `Content` has to know.

    `feed` gives what is ready, possibly nothing: a CR at the end of a chunk waits for the next one, and the header
    waits until it is complete. `finish` gives the rest. After that `size`, `eight_bit`, `header` (mended) and
    `changed` (the message was not clean) are final. `header_is_cut`: see `Content`.
    """

    __slots__ = ("_head", "_held", "_line_open", "changed", "eight_bit", "header", "header_is_cut", "size")

    def __init__(self) -> None:
        self.size = 0
        self.eight_bit = False
        self.changed = False
        self.header = b""
        self.header_is_cut = False
        self._head: bytearray | None = bytearray()  # the beginning, until the header is complete
        self._held = b""  # a CR that may be the first half of CRLF
        self._line_open = False  # what was given out last does not end in a line end

    def feed(self, chunk: Octets) -> bytes:
        """Take the next octets; returns what can be given out, the same object where nothing had to be done."""
        octets = bytes(chunk)
        if not octets.isascii():
            self.eight_bit = True
        if self._head is None:
            return self._body(octets)
        if not self._head and (end := header_end(octets)) >= 0:
            return self._split(octets, end)
        seen = len(self._head)
        self._head += octets
        end = header_end(self._head, seen)
        if end >= 0:
            return self._split(bytes(self._head), end)
        if len(self._head) <= MAX_HEADER:
            return b""
        self.header_is_cut = True
        return self._split(bytes(self._head), header_cut(self._head))

    def finish(self) -> bytes:
        """The message is complete; returns what was held back, and the final CRLF if it was missing."""
        rest = b"" if self._head is None else self._split(bytes(self._head), len(self._head))
        if self._held or self._line_open:
            self._held, self._line_open = b"", False
            self.changed = True
            self.size += 2
            rest += b"\r\n"
        return rest

    def _split(self, head: bytes, end: int) -> bytes:
        """The header is complete: it is mended, and what stands behind it is body."""
        self._head = None
        raw = head[:end]
        header = raw.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
        if header and not header.endswith(b"\r\n"):
            header += b"\r\n"
        self.header = header
        self.changed = header != raw
        if not self.changed and head and not head.endswith(b"\r") and not _has_bare(head):
            # Nothing is copied where nothing has to be done.
            self._line_open = head[-1] != _LF
            self.size += len(head)
            return head
        self.size += len(header)
        return header + self._body(head[end:])

    def _body(self, octets: bytes) -> bytes:
        if self._held:
            octets = self._held + octets
            self._held = b""
        if octets.endswith(b"\r"):
            self._held = b"\r"
            octets = octets[:-1]
        if not octets:
            return b""
        if _has_bare(octets):
            self.changed = True
            octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        self._line_open = octets[-1] != _LF
        self.size += len(octets)
        return octets


class DotStuffer:
    """Doubles the dot that begins a line (RFC 5321 4.5.2), chunk by chunk, in mended content.

    Behind the last chunk belongs `END_OF_DATA`.
    """

    __slots__ = ("_line_begins",)

    def __init__(self) -> None:
        self._line_begins = True

    def feed(self, chunk: Octets) -> bytes:
        """The chunk with its dots stuffed; the same object where it has none to stuff."""
        octets = bytes(chunk)
        if not octets:
            return octets
        # Content is mended, so that every LF is the end of a line; to look for CRLF too would miss split ones.
        stuffed = octets.replace(b"\n.", b"\n..") if _has_line_dots(octets) else octets
        if self._line_begins and octets[0] == _DOT:
            stuffed = b"." + stuffed
        self._line_begins = octets[-1] == _LF
        return stuffed


def is_clean(message: bytes) -> bool:
    """True if every CR and LF is part of a CRLF, and the last line, if there is any, has its end."""
    return not _has_bare(message) and (message.endswith(b"\r\n") or not message)


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _has_bare(octets: bytes) -> bool:
    # It takes note of the kinds of line ends that it sees, in one go: four times as fast as to count them, and fifty
    # times as fast as a regular expression.
    line_ends = IncrementalNewlineDecoder(None, translate=False)
    for start in range(0, len(octets), CHUNK):
        line_ends.decode(octets[start : start + CHUNK].decode("latin-1"), final=start + CHUNK >= len(octets))
    return line_ends.newlines not in _CLEAN


_CLEAN: Final = (None, "\r\n")


def _has_line_dots(octets: bytes) -> bool:
    """True if a dot stands behind an LF. Only as much is looked at as lies between the first dot and the last one."""
    return _LINE_DOT(octets, max(0, octets.find(b".") - 1), octets.rfind(b".") + 1) is not None


def _ended(pieces: Iterable[Octets]) -> Iterator[Octets]:
    """Pieces of stuffed content, the last of them with the final dot behind it."""
    last: Octets = b""
    for piece in pieces:
        if last:
            yield last
        last = piece
    yield b"".join((last, END_OF_DATA))


def _mended_pieces(message: bytes, size: int) -> Iterator[Octets]:
    mender = Mender()
    for piece in _slices(message, size):
        yield mender.feed(piece)
    yield mender.finish()


def _slices(octets: bytes, size: int) -> Iterator[Octets]:
    if 0 < len(octets) <= size:
        return iter((octets,))
    view = memoryview(octets)
    return (view[start : start + size] for start in range(0, len(octets), size))


def _regrouped(pieces: Iterable[Octets], size: int) -> Iterator[Octets]:
    regrouped = _Regrouped(size)
    for piece in pieces:
        yield from regrouped.feed(piece)
    if regrouped.rest:
        yield regrouped.rest


class _Regrouped:
    """Pieces of any size made pieces of one; `rest` is what makes none yet."""

    __slots__ = ("_size", "rest")

    def __init__(self, size: int) -> None:
        self._size = size
        self.rest: Octets = b""

    def feed(self, piece: Octets) -> Iterator[Octets]:
        """The pieces that are whole now."""
        octets = memoryview(b"".join((self.rest, piece)) if self.rest else piece)
        whole = len(octets) - len(octets) % self._size
        self.rest = octets[whole:]
        return (octets[start : start + self._size] for start in range(0, whole, self._size))
