"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.clock import Timer


class _FakeTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """A clock that stands still until it is told to move; for tests, ours and our users'.

    `await clock.advance(seconds)` moves both readings, runs what has become due in order, and lets the tasks that it
    woke run before it returns. `jump(delta)` moves the wall clock alone, as a wrong NTP server does.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._monotonic = 1000.0
        self._timers: list[tuple[float, int, _FakeTimer]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        timer = _FakeTimer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        if when <= self._monotonic:  # due already: as with the real clock it does not wait for time to pass
            asyncio.get_running_loop().call_soon(self._run_due)
        return timer

    def _run_due(self) -> None:
        while self._timers and self._timers[0][0] <= self._monotonic:
            _, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.Event()
        timer = self.call_at(self._monotonic + seconds, woken.set)
        try:
            await woken.wait()
        finally:
            timer.cancel()

    def jump(self, delta: timedelta) -> None:
        """Move the wall clock without letting any time pass."""
        self._now += delta

    @property
    def pending(self) -> int:
        """How many callbacks are waiting; zero means that nothing leaked."""
        return sum(1 for _, _, timer in self._timers if timer.callback is not None)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass; zero or more."""
        if seconds < 0:
            raise ValueError("time does not go back")
        until = self._monotonic + seconds
        await _settle()
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            self._move(max(when, self._monotonic))
            if timer.callback is not None:
                timer.callback()
                await _settle()
        self._move(until)
        await _settle()

    def _move(self, monotonic: float) -> None:
        self._now += timedelta(seconds=monotonic - self._monotonic)
        self._monotonic = monotonic


async def _settle(turns: int = 20) -> None:
    """Give every task that was just woken, and those that it wakes in turn, a chance to run."""
    for _ in range(turns):
        await asyncio.sleep(0)
