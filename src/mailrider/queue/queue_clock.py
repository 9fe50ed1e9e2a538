"""Queue time: a clock that counts the time that really passed, for everything that a store keeps.

A machine may start in the wrong year and be put right minutes later; the age of a message and the moment of its next
attempt must not jump with its clock. So a queue keeps a time of its own. It is the wall clock's as long as that goes
on as it should; a jump moves the wall clock and not the queue's. The difference (`shift`) is kept in memory, and an
*anchor* in the store says for the next process what queue time it was at which moment:

- of the same boot: the system's steady clock tells how long ago that is;
- of another boot: nobody knows how long the machine was off. What the wall clock says is believed as far as it is not
  negative and not more than some hours.

People see moments of the wall clock: `to_wall`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from mailrider.model.outcome import AttemptReport, Deferred

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from mailrider.clock import Clock, Timer

SKEW: Final = 2.0  # seconds by which the wall clock may be put right at a time without having jumped
OFF: Final = timedelta(hours=4)  # the longest time that counts for a machine that was off: the longest retry time

NO_SHIFT: Final = timedelta(0)


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
    """A `Clock` that shows queue time. `shift`: how much the wall clock is ahead of it."""

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


@runtime_checkable
class KeepsTime(Protocol):
    """A store with a time of its own: all that is stored is in it, and so is what its user asks."""

    @property
    def clock(self) -> QueueClock:
        """That time."""


def in_queue_time(clock: Clock, report: AttemptReport) -> AttemptReport:
    """A report whose moments (`eligible_at`) are those of the wall clock, by that clock."""
    for each in report.outcomes:
        if isinstance(each, Deferred) and each.eligible_at is not None:
            break
    else:
        return report
    shift = shift_of(clock)
    if not shift:
        return report
    return AttemptReport(
        tuple(
            replace(each, eligible_at=each.eligible_at - shift)
            if isinstance(each, Deferred) and each.eligible_at is not None
            else each
            for each in report
        )
    )


def shift_of(clock: Clock) -> timedelta:
    """How much the wall clock is ahead of what that clock shows."""
    return clock.shift if isinstance(clock, QueueClock) else NO_SHIFT
