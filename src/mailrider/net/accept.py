"""Accepting from a socket that other processes accept from as well: one connection a turn, by `Turns`.

An event loop's own server would take all that wait, and leave nothing to the others.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from mailrider.clock import Clock, Timer
    from mailrider.net.turns import Turns

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
