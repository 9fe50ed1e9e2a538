"""Time, as an argument.

Everything that waits, expires or is stamped asks a `Clock`, so that tests can own time. Three readings:

- `now()`: aware UTC datetime, for stamps and for what survives a restart; may jump;
- `monotonic()`: seconds, for deadlines and intervals; never jumps back;
- `call_at(when, callback)`: run `callback` once `monotonic()` has reached `when`.

`Deadline` bounds a block of code by a clock. It is the only way that this project bounds an await; lint bans
`asyncio.timeout`, `loop.time` and `loop.call_later` elsewhere.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Timer(Protocol):
    """A pending callback."""

    def cancel(self) -> None:
        """Forget the callback; harmless if it already ran."""


class Clock(Protocol):
    """What the engine knows of time."""

    def now(self) -> datetime:
        """The wall clock: aware, UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary origin; never goes back."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Run `callback` when `monotonic()` has reached `when` (seconds)."""

    async def sleep(self, seconds: float) -> None:
        """Wait; zero or less yields once."""


# uvloop's timers count whole milliseconds from a reading cut to one, and round the interval: up to 1.5 ms early.
_GRAIN = 0.0015


class SystemClock:
    """The real time, on the running event loop; nothing runs early, and what is due already at the loop's next turn."""

    __slots__ = ()

    def now(self) -> datetime:
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)  # asked ten times for a message: without a detour

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        # A loop's own time need not be time.monotonic (uvloop caches it), so the interval is what is handed over.
        return asyncio.get_running_loop().call_later(_not_early(when - time.monotonic()), callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(_not_early(seconds))


def _not_early(seconds: float) -> float:
    return seconds + _GRAIN if seconds > 0 else 0.0


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


class Deadline:
    """Bound a block by a clock: `async with Deadline(clock, when): ...` raises `TimeoutError` past `when`.

    `when` is a `clock.monotonic()` reading, or None for no bound. Cancellation from outside stays cancellation, as
    with `asyncio.timeout`.
    """

    __slots__ = ("_cancelling", "_clock", "_expired", "_task", "_timer", "_when")

    def __init__(self, clock: Clock, when: float | None) -> None:
        self._clock = clock
        self._when = when
        self._expired = False
        self._timer: Timer | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    async def __aenter__(self) -> Self:
        self._task = task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a Deadline needs a task to bound")
        self._cancelling = task.cancelling()
        if self._when is not None:
            self._timer = self._clock.call_at(self._when, partial(self._expire, task))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._expired or self._task is None:
            return
        # uncancel() takes back our own request; if another one is outstanding the cancellation was not (only) ours.
        ours_alone = self._task.uncancel() <= self._cancelling
        if ours_alone and exc_type is not None and issubclass(exc_type, asyncio.CancelledError):
            raise TimeoutError from exc

    def _expire(self, task: asyncio.Task[object]) -> None:
        self._expired = True
        task.cancel()


def after(clock: Clock, seconds: float) -> Deadline:
    """A `Deadline` that many seconds from now."""
    return Deadline(clock, clock.monotonic() + seconds)
