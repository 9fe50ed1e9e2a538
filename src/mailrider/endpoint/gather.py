"""A message while it arrives: mended, measured and kept within bounds.

Small content stays in memory, and larger content goes to a file without a name, which is gone with the process. What
all connections hold in memory together is bounded too (`Memory`); who finds it used up is asked to come again. What
cannot be accepted is dropped at once, and the rest of it as it comes.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from mailrider.model.reply import Reply
from mailrider.smtp.content import CHUNK, Content, Mender

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INLINE: Final = 256 * 1024  # octets of a message that stay in memory: as many as a queue keeps in a row
MEMORY: Final = 64 * 1024 * 1024  # octets of all unfinished messages of an endpoint in memory

NO_MEMORY: Final = Reply.make(452, "4.3.1", "Too much mail at once, try again later")
NO_SPACE: Final = Reply.make(452, "4.3.1", "Insufficient system storage")


@dataclass(slots=True)
class Memory:
    """Room in memory that connections share."""

    left: int = MEMORY

    def take(self, octets: int) -> bool:
        """True if there was room for so many octets more; they are to be given back."""
        if octets > self.left:
            return False
        self.left -= octets
        return True

    def give_back(self, octets: int) -> None:
        """Room that is free again."""
        self.left += octets


class Gatherer:
    """One message. `close` it whatever happens; the content is there until then."""

    def __init__(self, memory: Memory, spool: Path | None, max_header: int) -> None:
        """`spool`: the directory for large messages; None: the system's."""
        self.fault: Reply | None = None
        """What the message must be refused with, whatever else may come."""
        self.size = 0
        """Octets that arrived."""
        self._memory = memory
        self._spool = spool
        self._max_header = max_header
        self._taken = 0
        self._mender = Mender()
        self._header_size = 0  # of the mended header, which stands at the beginning; 0: still unknown, or empty
        self._pieces: list[bytes] = []
        self._kept = 0
        self._file: IO[bytes] | None = None

    @property
    def header(self) -> bytes:
        """The header, mended, once the message is complete."""
        return self._mender.header

    def feed(self, octets: bytes) -> None:
        """Take the next octets of the message."""
        self.size += len(octets)
        if self.fault is not None:
            return
        if self._file is None and not self._memory.take(len(octets)):
            self._fail(NO_MEMORY)
            return
        self._taken += len(octets) if self._file is None else 0
        if mended := self._mender.feed(octets):
            self._keep(mended)
        # Nothing comes out before the header is complete; all that waits until then is header.
        header = len(self._mender.header) or (self.size if not self._kept else 0)
        if header > self._max_header and self.fault is None:
            self._fail(Reply.make(552, "5.3.4", f"The header is larger than {self._max_header} octets"))

    def _keep(self, octets: bytes) -> None:
        self._kept += len(octets)
        try:
            if self._file is not None:
                _write(self._file, octets)
                return
            self._pieces.append(octets)
            if self._kept > INLINE:
                self._move_to_file()
        except OSError:
            self._fail(NO_SPACE)

    def _move_to_file(self) -> None:
        # Without buffer of its own: what is written is in the kernel's hands, and ENOSPC comes at once.
        self._file = tempfile.TemporaryFile(dir=self._spool, buffering=0)  # noqa: SIM115 # closed in close()
        for piece in self._pieces:
            _write(self._file, piece)
        self._pieces = []
        self._release()

    def _fail(self, reply: Reply) -> None:
        self.fault = reply
        self._mender = Mender()
        self._pieces = []
        self.close()

    def finish(self) -> None:
        """The message is complete: `header` and `fault` are final, and `content` can be asked for."""
        if self.fault is None:
            if rest := self._mender.finish():
                self._keep(rest)
            if len(self._mender.header) > self._max_header and self.fault is None:
                self._fail(Reply.make(552, "5.3.4", f"The header is larger than {self._max_header} octets"))

    def content(self, header: bytes) -> Content:
        """The message with that header in the place of its own; readable until `close`."""
        mender = self._mender
        size = mender.size - len(mender.header) + len(header)
        eight_bit = mender.eight_bit or not header.isascii()
        if self._file is None or size <= INLINE:
            body = b"".join(self._pieces) if self._file is None else self._read_whole(self._file)
            octets = header + body[len(mender.header) :]
            return Content(size, eight_bit, len(header), True, octets)
        file, skip = self._file, len(mender.header)
        return Content.stored(
            lambda: _pieces_of(file, header, skip), size=size, eight_bit=eight_bit, header_size=len(header)
        )

    def _read_whole(self, file: IO[bytes]) -> bytes:
        return os.pread(file.fileno(), self._kept, 0)

    def _release(self) -> None:
        self._memory.give_back(self._taken)
        self._taken = 0

    def close(self) -> None:
        """Forget everything that is held."""
        self._release()
        self._pieces = []
        if self._file is not None:
            self._file.close()
            self._file = None


def _write(file: IO[bytes], octets: bytes) -> None:
    view = memoryview(octets)
    while view:  # a disk that is nearly full takes a part first
        view = view[file.write(view) :]


def _pieces_of(file: IO[bytes], header: bytes, at: int) -> Iterator[bytes]:
    yield header
    # By position: the same message may be read by several at once.
    while piece := os.pread(file.fileno(), CHUNK, at):
        yield piece
        at += len(piece)
