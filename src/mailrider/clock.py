"""Time, as an argument.

Everything that waits, expires or is stamped asks a `Clock`, so that tests can own time. Three readings:

- `now()`: aware UTC datetime, for stamps and for what survives a restart; may jump;
- `monotonic()`: seconds, for deadlines and intervals; never jumps back;
- `call_at(when, callback)`: run `callback` once `monotonic()` has reached `when`.

`Alarm` is one timer for the earliest of several moments. `Patience` is how long a peer may take. `QueueClock` is a
clock whose `now()` does not jump.

`Deadline` bounds a block of code by a clock. It is the only way that this project bounds an await; lint bans
`asyncio.timeout`, `loop.time` and `loop.call_later` elsewhere.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


NEVER: Final = float("inf")
"""A reading of the monotonic clock that never comes."""

STRETCH: Final = 65536
"""Octets of content for which a peer may take as long as for a command."""

SKEW: Final = 2.0
"""Seconds by which the wall clock may be put right at a time without having jumped."""
OFF: Final = timedelta(hours=4)
"""The longest time that counts for a machine that was off: the longest retry time."""
NO_SHIFT: Final = timedelta(0)


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


def is_cancelled() -> bool:
    """True if the task that runs is; a `CancelledError` in another one came from something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


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


class Alarm:
    """Calls `ring` once, at the earliest of the moments that it was set to; then it can be set again."""

    __slots__ = ("_clock", "_ring", "_timer", "at")

    def __init__(self, clock: Clock, ring: Callable[[], object]) -> None:
        self.at = NEVER
        """When it rings, by the monotonic clock."""
        self._clock = clock
        self._ring = ring
        self._timer: Timer | None = None

    def set(self, when: float) -> None:
        """Ring at that moment of the monotonic clock, or at an earlier one that it was set to already."""
        if when < self.at:
            self.cancel()
            self._timer = self._clock.call_at(when, self._go_off)
            self.at = when

    def cancel(self) -> None:
        """Wait for nothing."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.at = None, NEVER

    def _go_off(self) -> None:
        self._timer, self.at = None, NEVER
        self._ring()


class Patience:
    """How long a peer may take. One timer: it is not moved for each command, but set again when it ends.

    Each command has so many seconds in all, and so has every `STRETCH` of content; while *we* work the time rests. So
    who is silent, who sends one octet a second, and who does not read what we say is found. `is_working`: we work, and
    the peer waits. `is_over`: it has taken too long.
    """

    __slots__ = ("_clock", "_deadline", "_ended", "_progress", "_seconds", "_timer", "is_over", "is_working")

    def __init__(self, clock: Clock, seconds: float, ended: Callable[[], object]) -> None:
        """`ended` is called when the peer has taken more than so many seconds; its time begins with `restart`."""
        self._clock = clock
        self._seconds = seconds
        self._ended = ended
        self._deadline = 0.0
        self._progress = 0  # octets of content since the time began
        self._timer: Timer | None = None
        self.is_working = False
        self.is_over = False

    def restart(self) -> None:
        """The peer has got somewhere: its time begins anew."""
        self._progress = 0
        self._deadline = self._clock.monotonic() + self._seconds
        if self._timer is None:
            self._timer = self._clock.call_at(self._deadline, self._look_at_clock)

    def note_content(self, octets: int) -> None:
        """Note that so many octets of content have arrived."""
        self._progress += octets
        if self._progress >= STRETCH:
            self.restart()

    def stop(self) -> None:
        """The connection has ended; nobody is told any more."""
        self._ended = _nothing  # no cycle is left behind
        if self._timer is not None:
            self._timer.cancel()

    def _look_at_clock(self) -> None:
        now = self._clock.monotonic()
        if self.is_working:
            self._deadline = now + self._seconds
        if now < self._deadline:
            self._timer = self._clock.call_at(self._deadline, self._look_at_clock)
            return
        self.is_over = True
        self._ended()


def _nothing() -> None:
    pass


# A clock that does not jump -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TimeAnchor:
    """At that moment of queue time the wall clock and, in that boot, the steady clock said so much."""

    boot: str
    at: datetime
    wall: datetime
    monotonic: float

    def elapsed(self, boot: str, wall: datetime, monotonic: float) -> timedelta:
        """How much time has passed since."""
        if boot and boot == self.boot and monotonic >= self.monotonic:
            return timedelta(seconds=monotonic - self.monotonic)
        return min(max(wall - self.wall, NO_SHIFT), OFF)


class QueueClock:
    """A `Clock` that counts the time that really passed, for everything that a queue keeps.

    A machine may start in the wrong year and be put right minutes later; the age of a message and the moment of its
    next attempt must not jump with its clock. So a queue keeps a time of its own. It is the wall clock's as long as
    that goes on as it should; a jump moves the wall clock and not the queue's. The difference (`shift`) is kept in
    memory, and an *anchor* in the store says for the next process what queue time it was at which moment:

    - of the same boot: the system's steady clock tells how long ago that is;
    - of another boot: nobody knows how long the machine was off. What the wall clock says is believed as far as it is
      not negative and not more than some hours.

    `shift`: how much the wall clock is ahead of it. People see moments of the wall clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shift = NO_SHIFT
        self._lock = threading.Lock()
        self._offset = clock.now().timestamp() - clock.monotonic()
        self._wall: Callable[[], datetime] = clock.now
        self.monotonic: Callable[[], float] = clock.monotonic

    def now(self) -> datetime:
        """See `Clock`: queue time."""
        wall = self._wall()
        if abs(wall.timestamp() - self.monotonic() - self._offset) > SKEW:
            wall = self._jumped()
        return wall - self._shift if self._shift else wall

    def _jumped(self) -> datetime:
        """Stores ask in threads of their own, and a jump counts once."""
        with self._lock:
            wall = self._clock.now()
            offset = wall.timestamp() - self.monotonic()
            if abs(offset - self._offset) > SKEW:
                self._shift += timedelta(seconds=offset - self._offset)
                self._offset = offset
            return wall

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """See `Clock`."""
        return self._clock.call_at(when, callback)

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await self._clock.sleep(seconds)

    @property
    def shift(self) -> timedelta:
        """How much the wall clock is ahead of queue time."""
        self.now()
        return self._shift

    def anchor(self, boot: str) -> TimeAnchor:
        """For those who come later."""
        now = self.now()
        return TimeAnchor(boot, now, now + self._shift, self.monotonic())

    def go_on_from(self, anchor: TimeAnchor | None, boot: str) -> None:
        """Take over the time of those who were there before; None: it begins as the wall clock's."""
        shift = NO_SHIFT
        if anchor is not None:
            wall = self._clock.now()
            shift = wall - anchor.at - anchor.elapsed(boot, wall, self.monotonic())
        self._offset = self._clock.now().timestamp() - self.monotonic()
        self._shift = shift if abs(shift.total_seconds()) > SKEW else NO_SHIFT


def shift_of(clock: Clock) -> timedelta:
    """How much the wall clock is ahead of what that clock shows."""
    return clock.shift if isinstance(clock, QueueClock) else NO_SHIFT
