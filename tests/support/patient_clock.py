"""A clock for timers that a silent server is to meet, and that a busy machine must not.

What a peer may take is bounded by real time, of which a loaded machine takes what it likes: between two turns of our
event loop seconds may pass. Here a turn counts for `LONGEST` at most. So two ends on one loop, which get on with each
turn, have hundreds of turns for each second; and who is silent is found as soon as by the real clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST: Final = 0.01
"""Seconds that a turn of the event loop counts for, however long it was."""
TICK: Final = 0.004
"""Seconds between two looks at what is due."""


class _Timer:
    """A callback that waits."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class PatientClock:
    """See the module. It never goes faster than the real one, which `read` asks."""

    def __init__(self, read: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._last = self._time = read()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()
        self._is_ticking = False

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        now = self._read()
        self._time += min(now - self._last, LONGEST)
        self._last = now
        return self._time

    def call_at(self, when: float, callback: Callable[[], object]) -> _Timer:
        timer = _Timer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        if when <= self.monotonic():
            asyncio.get_running_loop().call_soon(self._run_due)
        self._keep_ticking()
        return timer

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.Event()
        timer = self.call_at(self.monotonic() + seconds, woken.set)
        try:
            await woken.wait()
        finally:
            timer.cancel()

    def _keep_ticking(self) -> None:
        if self._timers and not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._is_ticking = False
        try:
            self._run_due()
        finally:
            self._keep_ticking()

    def _run_due(self) -> None:
        now = self.monotonic()
        while self._timers and (self._timers[0][0] <= now or self._timers[0][2].callback is None):
            _, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()
