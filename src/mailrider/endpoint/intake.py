"""A message while it arrives: mended, measured and kept within bounds.

Small content stays in memory, and larger content goes to a file without a name, which is gone with the process. What
all connections hold together, in memory and on disk, is bounded (`IntakeSpace`), and no client can hold more than it
leaves to the others. Where there is no room in memory the content goes to disk early; where there is none on disk, or
the header is not complete, the client is asked to come again. What cannot be accepted is dropped at once, and the rest
of it as it comes.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final

from mailrider.model.reply import Reply
from mailrider.smtp.content import CHUNK, Content, Mender

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INLINE: Final = 256 * 1024  # octets of a message that stay in memory: as many as a queue keeps in a row
MEMORY: Final = 64 * 1024 * 1024  # octets of all unfinished messages of an endpoint in memory
DISK: Final = 2 * 1024 * 1024 * 1024  # and on disk, where nobody says otherwise
SMALL: Final = 4096  # octets below which pieces are joined: an object each would cost many times as much
_JOINED: Final = 16 * 1024  # octets of joined pieces that make one

NO_MEMORY: Final = Reply.make(452, "4.3.1", "Too much mail at once, try again later")
NO_SPACE: Final = Reply.make(452, "4.3.1", "Insufficient system storage")


@dataclass(slots=True)
class Memory:
    """Octets that clients share. None may hold more than it leaves for all others together.

    So one client alone gets half, and whoever comes behind `n` greedy ones still finds a part of `n + 2` and can
    use it: it is never used up.
    """

    left: int = MEMORY
    _held: dict[str, int] = field(default_factory=dict)

    def take(self, octets: int, client: str = "") -> bool:
        """True if there was room for so many octets more of this client; they are to be given back."""
        if not octets:
            return True
        held = self._held.get(client, 0) + octets
        if held > self.left - octets:
            return False
        self.left -= octets
        self._held[client] = held
        return True

    def give_back(self, octets: int, client: str = "") -> None:
        """Room that is free again."""
        if octets:
            self.left += octets
            held = self._held[client] - octets
            if held:
                self._held[client] = held
            else:
                del self._held[client]


@dataclass(frozen=True, slots=True)
class IntakeSpace:
    """What unfinished messages may take: in memory, and on disk below `spool` (None: the system's temporary folder)."""

    memory: Memory
    disk: Memory
    spool: Path | None = None


class Intake:
    """One message of one client. `close` it whatever happens; the content is there until then."""

    def __init__(self, room: IntakeSpace, max_header: int, client: str = "") -> None:
        self.fault: Reply | None = None
        """What the message must be refused with, whatever else may come."""
        self.size = 0
        """Octets that arrived."""
        self.header = b""
        """The header, mended, once the message is complete."""
        self._room = room
        self._client = client
        self._max_header = max_header
        self._taken = 0  # of the memory
        self._on_disk = 0
        self._mender = Mender()
        self._pieces: list[bytes] = []
        self._tail = bytearray()  # small pieces, behind the others
        self._kept = 0
        self._file: IO[bytes] | None = None

    def feed(self, octets: bytes) -> None:
        """Take the next octets of the message."""
        self.size += len(octets)
        if self.fault is not None or not self._make_room(len(octets)):
            return
        mended = self._mender.feed(octets)
        if self._mender.header_is_cut:
            self._refuse_header()
            return
        if mended:
            header = len(self._mender.header)  # which the mender keeps as well; a small one is not worth the counting
            if not self._kept and header > SMALL and not self._make_room(header):
                return
            self._keep(mended)
        # Nothing comes out before the header is complete; all that waits until then is header.
        header = len(self._mender.header) or (self.size if not self._kept else 0)
        if header > self._max_header and self.fault is None:
            self._refuse_header()

    def _refuse_header(self) -> None:
        self._fail(Reply.make(552, "5.3.4", f"The header is larger than {self._max_header} octets"))

    def _make_room(self, octets: int) -> bool:
        """Take memory for so many octets, unless they go to disk; False if there is none: the message has failed."""
        if self._file is not None:
            return True
        if self._room.memory.take(octets, self._client):
            self._taken += octets
            return True
        if self._kept:
            return self._move_to_file()
        self._fail(NO_MEMORY)
        return False

    def _keep(self, octets: bytes) -> None:
        self._kept += len(octets)
        if self._file is not None:
            self._write_to(self._file, octets)
            return
        if len(octets) < SMALL and self._pieces:
            self._tail += octets
            if len(self._tail) >= _JOINED:
                self._end_tail()
        else:
            if self._tail:
                self._end_tail()
            self._pieces.append(octets)
        if self._kept > INLINE:
            self._move_to_file()

    def _end_tail(self) -> None:
        self._pieces.append(bytes(self._tail))
        self._tail.clear()

    def _move_to_file(self) -> bool:
        """Go on in a file; False if that cannot be: the message has failed."""
        if self._tail:
            self._end_tail()
        pieces, self._pieces = self._pieces, []
        try:
            # Without buffer of its own: what is written is in the kernel's hands, and ENOSPC comes at once.
            self._file = tempfile.TemporaryFile(dir=self._room.spool, buffering=0)  # noqa: SIM115 # closed in close()
        except OSError:
            self._fail(NO_SPACE)
            return False
        self._release(len(self._mender.header))
        return all(self._write_to(self._file, piece) for piece in pieces)

    def _write_to(self, file: IO[bytes], octets: bytes) -> bool:
        if not self._room.disk.take(len(octets), self._client):
            self._fail(NO_MEMORY)
            return False
        self._on_disk += len(octets)
        try:
            _write(file, octets)
        except OSError:
            self._fail(NO_SPACE)
            return False
        return True

    def _fail(self, reply: Reply) -> None:
        self.fault = reply
        self._mender = Mender()
        self.close()

    def finish(self) -> None:
        """The message is complete: `header` and `fault` are final, and `content` can be asked for."""
        if self.fault is None:
            if rest := self._mender.finish():
                self._keep(rest)
            if len(self._mender.header) > self._max_header and self.fault is None:
                self._refuse_header()
        self.header = self._mender.header

    def content(self, header: bytes, between: bytes = b"") -> Content:
        """The message with that header in the place of its own; readable until `close`. To be asked for once.

        `between` stands behind it, before what arrived behind the header.
        """
        mender = self._mender
        head = header + between
        size = mender.size - len(mender.header) + len(head)
        eight_bit = mender.eight_bit or not header.isascii()
        if self._file is None or size <= INLINE:
            body = self._joined() if self._file is None else self._read_whole(self._file)
            octets = b"".join((head, memoryview(body)[len(mender.header) :]))
            return Content(size, eight_bit, len(header), True, octets)
        file, skip = self._file, len(mender.header)
        return Content.stored(
            lambda: _pieces_of(file, head, skip), size=size, eight_bit=eight_bit, header_size=len(header)
        )

    def _joined(self) -> bytes:
        """What is in memory, for its last use: it is not kept twice."""
        if self._tail:
            self._end_tail()
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def _read_whole(self, file: IO[bytes]) -> bytes:
        return os.pread(file.fileno(), self._kept, 0)

    def _release(self, but: int = 0) -> None:
        self._room.memory.give_back(self._taken - but, self._client)
        self._taken = but

    def close(self) -> None:
        """Forget everything that is held."""
        self._release()
        self._pieces = []
        self._tail = bytearray()
        if self._file is not None:
            self._room.disk.give_back(self._on_disk, self._client)
            self._on_disk = 0
            self._file.close()
            self._file = None


def _write(file: IO[bytes], octets: bytes) -> None:
    view = memoryview(octets)
    while view:  # a disk that is nearly full takes a part first
        view = view[file.write(view) :]


def _pieces_of(file: IO[bytes], head: bytes, at: int) -> Iterator[bytes]:
    yield head
    # By position: the same message may be read by several at once.
    while piece := os.pread(file.fileno(), CHUNK, at):
        yield piece
        at += len(piece)
