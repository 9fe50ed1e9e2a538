"""The log of a worker, on its way to the supervisor's: a pipe that is read a few times a second, line by line.

Whatever several workers write stays in whole lines, since one process alone writes them on. The pipe is large, and left
alone for a moment after each reading, so that a busy worker does not wake its supervisor for every line. The moments of
all workers are the same, so that many wake it no more often than one.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.clock import Clock, Timer

SIZE: Final = 1 << 20  # octets of the pipe, if the system grants them; some 4,000 lines
MOMENT: Final = 1 / 16  # seconds between two readings, at most; a power of two, so that sums of it are exact
MAX_LINE: Final = 1 << 20  # octets; what is longer is cut


def make_pipe() -> tuple[int, int]:
    """The descriptors to read from and to write to; neither is inherited by accident."""
    reads, writes = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reads, False)
    with suppress(OSError):  # the user has too many large pipes
        fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, SIZE)
    return reads, writes


class LogRelay:
    """Writes whole lines on, until the other end is closed. `ended` is set then."""

    def __init__(self, descriptor: int, clock: Clock, write: Callable[[str], object]) -> None:
        """The descriptor is this object's from now on."""
        self.ended = asyncio.Event()
        self._descriptor = descriptor
        self._clock = clock
        self._write = write
        self._rest = b""
        self._timer: Timer | None = None
        self._loop = asyncio.get_running_loop()
        self._watch()

    def _watch(self) -> None:
        self._loop.add_reader(self._descriptor, self._ready)

    def _ready(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._look()

    def _look(self) -> None:
        self._timer = None
        octets = self._read()
        if octets is None:
            self._watch()
        elif octets:
            self._take(octets)
            next_moment = self._clock.monotonic() // MOMENT + 1
            self._timer = self._clock.call_at(next_moment * MOMENT, self._look)
        else:
            self._end()

    def _read(self) -> bytes | None:
        """What is there: empty at the end, None if there is nothing yet."""
        try:
            return os.read(self._descriptor, SIZE)
        except BlockingIOError:
            return None

    def _take(self, octets: bytes) -> None:
        whole, newline, self._rest = (self._rest + octets).rpartition(b"\n")
        if len(self._rest) > MAX_LINE:
            whole, newline, self._rest = whole + newline + self._rest, b"\n", b""
        self._pass_on(whole + newline)

    def _pass_on(self, octets: bytes) -> None:
        if octets:
            self._write(octets.decode("utf-8", "backslashreplace"))

    def _end(self) -> None:
        self._pass_on(self._rest + b"\n" if self._rest else b"")
        os.close(self._descriptor)
        self.ended.set()

    def close(self) -> None:
        """Read what is there, and no more."""
        if self.ended.is_set():
            return
        if self._timer is None:
            self._loop.remove_reader(self._descriptor)
        else:
            self._timer.cancel()
        while octets := self._read():
            self._take(octets)
        self._end()
