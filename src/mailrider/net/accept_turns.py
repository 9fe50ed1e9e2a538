"""Whose turn it is to accept: workers of one daemon that share their listening sockets.

How many sessions each has stands in a page of memory that all of them map: a state and a number for each, in a slot
that only its worker writes; what a dead one has left there is cleared by the supervisor. Who has `k` sessions more than
the least loaded waits `k` milliseconds before he accepts, at most 50, so that others come first; then he takes the
connection in any case: a worker that hangs keeps nobody out. Who cannot take mail now waits a second while others can.

`SharedAccept` accepts so, one connection a turn. An event loop's own server would take all that wait, and leave nothing
to the others.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from mailrider.clock import Clock, Timer


SLOTS: Final = 1024  # workers at once, those included that end beside their successors
AWAY, TAKES, REFUSES = range(3)
"""States: no worker that accepts, one that takes mail, one whose store cannot take any."""

STEP: Final = 0.001  # seconds for each session more than the least loaded has
MOST: Final = 0.050  # seconds
REFUSED: Final = 1.0  # seconds that others have, when mail would be refused here

_USED: Final = 0  # where the number of slots that may be in use stands
_SIZE: Final = 4 * (1 + 2 * SLOTS)


def pause_before(sessions: int, state: int, others: Iterable[tuple[int, int]]) -> float:
    """Seconds to leave to others before we accept; `others` are states and numbers of sessions."""
    takers = [number for each, number in others if each == TAKES]
    if not takers:
        return 0.0
    if state == REFUSES:
        return REFUSED
    return min(MOST, max(0, sessions - min(takers)) * STEP)


class Page:
    """The shared page, mapped into memory. `descriptor` is for workers to inherit."""

    def __init__(self, descriptor: int) -> None:
        """Map a page that is there; the descriptor is this object's from now on."""
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, _SIZE)
        self._numbers = memoryview(self._map).cast("i")

    @classmethod
    def create(cls) -> Page:
        """A page with nobody on it."""
        descriptor = os.memfd_create("mailrider sessions", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _SIZE)
        return cls(descriptor)

    def close(self) -> None:
        """Not to be used any more."""
        self._numbers.release()
        self._map.close()
        os.close(self.descriptor)

    # For the supervisor ----------------------------------------------------------------------------------------------

    def clear(self, slot: int) -> None:
        """Nobody is in that slot."""
        self.write(slot, AWAY, 0)

    def announce(self, slots: int) -> None:
        """No slot from that number on is in use."""
        self._numbers[_USED] = slots

    # For workers -----------------------------------------------------------------------------------------------------

    def read(self) -> list[tuple[int, int]]:
        """States and sessions of all slots that may be in use."""
        numbers = self._numbers[1 : 1 + 2 * self._numbers[_USED]].tolist()
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    def write(self, slot: int, state: int, sessions: int) -> None:
        """What the worker in a slot has."""
        self._numbers[1 + 2 * slot] = state
        self._numbers[2 + 2 * slot] = sessions


class Turns:
    """A worker's part of the shared page."""

    def __init__(self, page: Page, slot: int) -> None:
        self.sessions = 0
        self._page = page
        self._slot = slot
        self._is_here = False
        self._refuses = False

    @property
    def _state(self) -> int:
        return AWAY if not self._is_here else REFUSES if self._refuses else TAKES

    def come(self) -> None:
        """Accept from now on."""
        self._is_here = True
        self._write()

    def leave(self) -> None:
        """Accept no more; those who are connected stay counted."""
        self._is_here = False
        self._write()

    def refuse(self, refuses: bool) -> None:
        """Mail would be refused here, or would not any more."""
        self._refuses = refuses
        self._write()

    def begin(self) -> None:
        """Count one session more."""
        self.sessions += 1
        self._write()

    def end(self) -> None:
        """Count one session less."""
        self.sessions -= 1
        self._write()

    def pause(self) -> float:
        """Seconds to wait before the next one is accepted."""
        others = self._page.read()
        del others[self._slot : self._slot + 1]
        return pause_before(self.sessions, self._state, others)

    def _write(self) -> None:
        self._page.write(self._slot, self._state, self.sessions)


REST: Final = 1.0  # seconds without accepting, if the system has no more descriptors or memory
_TAKEN: Final = (BlockingIOError, InterruptedError, ConnectionAbortedError)
_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class SharedAccept:
    """Accepts until it is stopped. `factory` makes the protocol of a connection, which calls `Turns.end` at its end."""

    def __init__(
        self, listening: socket.socket, turns: Turns, clock: Clock, factory: Callable[[], asyncio.Protocol]
    ) -> None:
        """`listening` is this object's from now on."""
        self._socket = listening
        self._turns = turns
        self._clock = clock
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._timer: Timer | None = None
        self._beginning: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self._watch()

    def stop(self) -> None:
        """Accept no more."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._timer is None:
            self._loop.remove_reader(self._socket.fileno())
        else:
            self._timer.cancel()
        self._socket.close()

    async def begun(self) -> None:
        """Wait until what was accepted has its protocol."""
        await asyncio.gather(*self._beginning)

    def _watch(self) -> None:
        self._timer = None
        self._loop.add_reader(self._socket.fileno(), self._ready)

    def _ready(self) -> None:
        pause = self._turns.pause()
        if pause > 0:
            self._rest(pause, self._take_in_any_case)
        else:
            self._take()

    def _rest(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._timer = self._clock.call_at(self._clock.monotonic() + seconds, then)

    def _take_in_any_case(self) -> None:
        self._watch()
        self._take()

    def _take(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except _TAKEN:
            return  # by another worker, or its client is gone
        except OSError as error:
            if error.errno not in _SHORT:
                context = {"message": "a listening socket fails", "exception": error}
                self._loop.call_exception_handler(context)
            self._rest(REST, self._watch)
            return
        self._turns.begin()
        task = self._loop.create_task(self._begin(accepted))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._factory, accepted)
        except OSError:  # it is gone already
            self._turns.end()
            accepted.close()
