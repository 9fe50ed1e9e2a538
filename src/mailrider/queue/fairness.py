"""Which job runs next: fair among destinations, gentle to those in trouble. Pure: time is an argument.

Each destination has a lane: its jobs in memory, how many run, and its *window*, the most that may run at once. Lanes
that can start a job stand in a ring and take turns, so that a large queue for one delays nobody.

Lanes where the last attempt ended soon, and those of which that is not known (*newcomers*), each have a ring, and the
rings take turns as well: a thousand new names delay nobody who is known. `queue.places` says who holds a place.

A window begins with 1 and grows with each message that a server dealt with, so that a destination which hangs holds
one place and not all of them; nobody's grows beyond three quarters of all places. A destination that cannot be
reached is closed for a while, longer each time, but not longer than the schedule has a message wait; then one message
tries. When it gets through, the window grows again from 1: what has gathered is released gradually.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mailrider.queue.places import Places
from mailrider.queue.retry import DEFAULT_SCHEDULE, Schedule

if TYPE_CHECKING:
    import random

    from mailrider.queue.message import Job
    from mailrider.queue.places import Stay

FIRST_PAUSE: Final = 30.0  # seconds that a destination rests after it could not be reached, doubled each time
LONGEST_PAUSE: Final = 900.0
JITTER: Final = 0.1
AHEAD: Final = 2  # jobs in memory for each place of a window, so that none waits for the store
MAX_LANES: Final = 10_000  # remembered without having jobs; 400 bytes each


class Verdict(enum.Enum):
    """What an attempt says about the destination."""

    TOOK = "a server dealt with the message"
    UNREACHABLE = "no server could be talked to"
    UNKNOWN = "nothing"


@dataclass(slots=True, eq=False)
class Lane:
    """A destination. `closed_until` is a monotonic moment. `is_quick`: the last attempt there ended soon."""

    destination: str
    ready: deque[Job] = field(default_factory=deque)
    running: int = 0
    window: int = 1
    failures: int = 0
    is_quick: bool = False
    closed_until: float = 0.0

    @property
    def is_plain(self) -> bool:
        """True if forgetting it would change nothing."""
        return not self.ready and not self.running and not self.failures


class Lanes:
    """The jobs in memory. `fast`: the places that it has; `schedule`: when messages are tried again."""

    def __init__(self, fast: int, rng: random.Random, schedule: Schedule = DEFAULT_SCHEDULE) -> None:
        self.places = Places(fast)
        self._schedule = schedule
        self.ready = 0
        self._ready_newcomers = 0
        self._rng = rng
        self._widest = max(1, fast * 3 // 4)
        self._lanes: OrderedDict[str, Lane] = OrderedDict()
        self._ring: OrderedDict[str, Lane] = OrderedDict()
        self._newcomers: OrderedDict[str, Lane] = OrderedDict()
        self._is_newcomers_turn = False

    @property
    def most_ready(self) -> int:
        """How many jobs may be in memory."""
        return max(64, 4 * self.places.fast)

    @property
    def is_idle(self) -> bool:
        """True if nothing runs and nothing waits in memory."""
        return not self.places.running and not self.places.running_slow and not self.ready

    @property
    def has_more(self) -> bool:
        """True if there may be a job to start."""
        return bool(self._ring or self._newcomers)

    def room(self, destination: str, now: float) -> int:
        """How many more jobs of a destination may come into memory."""
        lane = self._lanes.get(destination)
        if lane is None:
            return max(0, min(1 + AHEAD, self._space(is_quick=False)))
        if now < lane.closed_until:
            return 0
        return max(0, min(lane.window * AHEAD + 1 - len(lane.ready), self._space(is_quick=lane.is_quick)))

    def _space(self, *, is_quick: bool) -> int:
        """Newcomers have half of the memory: they may have to wait long for a place."""
        space = self.most_ready - self.ready
        return space if is_quick else min(space, self.most_ready // 2 - self._ready_newcomers)

    def reopens(self, destination: str, now: float) -> float | None:
        """When a closed destination is tried again; None if it is open."""
        lane = self._lanes.get(destination)
        return lane.closed_until if lane is not None and now < lane.closed_until else None

    def offer(self, job: Job, now: float) -> None:
        """A leased job is ready."""
        lane = self._lane(job.destination)
        lane.ready.append(job)
        self._count(lane, 1)
        self._place(lane, now)

    def _count(self, lane: Lane, jobs: int) -> None:
        self.ready += jobs
        if not lane.is_quick:
            self._ready_newcomers += jobs

    def _learn(self, lane: Lane, *, is_quick: bool) -> None:
        if lane.is_quick is not is_quick:
            self._ready_newcomers += -len(lane.ready) if is_quick else len(lane.ready)
            self._leave_ring(lane)
            lane.is_quick = is_quick

    def _leave_ring(self, lane: Lane) -> None:
        (self._ring if lane.is_quick else self._newcomers).pop(lane.destination, None)

    def _lane(self, destination: str) -> Lane:
        lane = self._lanes.get(destination)
        if lane is None:
            lane = self._lanes[destination] = Lane(destination)
            self._forget_some()
        return lane

    def _forget_some(self) -> None:
        """Keep the number of lanes bounded: the oldest go first, but none that has jobs."""
        for _ in range(len(self._lanes) - MAX_LANES):
            name, lane = next(iter(self._lanes.items()))
            self._lanes.move_to_end(name)
            if not lane.ready and not lane.running:
                del self._lanes[name]

    def _place(self, lane: Lane, now: float) -> None:
        """Into its ring, at the end, if a job of it can be started."""
        if lane.ready and lane.running < lane.window and now >= lane.closed_until:
            (self._ring if lane.is_quick else self._newcomers).setdefault(lane.destination, lane)

    def take(self, now: float) -> Stay | None:
        """Start a job; None if there is no place or no job."""
        while self.places.has_fast:
            ring = self._next_ring()
            if ring is None:
                return None
            _, lane = ring.popitem(last=False)
            if not lane.ready or lane.running >= lane.window or now < lane.closed_until:
                continue
            job = lane.ready.popleft()
            self._count(lane, -1)
            lane.running += 1
            self._is_newcomers_turn = lane.is_quick
            self._place(lane, now)
            return self.places.begin(job, now, is_newcomer=not lane.is_quick)
        return None

    def _next_ring(self) -> OrderedDict[str, Lane] | None:
        may_be_new = bool(self._newcomers) and self.places.takes_newcomers(others_wait=bool(self._ring))
        if self._ring and not (may_be_new and self._is_newcomers_turn):
            return self._ring
        return self._newcomers if may_be_new else None

    def finish(self, stay: Stay, verdict: Verdict, now: float) -> tuple[float | None, list[Stay]]:
        """An attempt has ended. If that closes its destination: for how many seconds; and who moved to slow places."""
        moved = self.places.end(stay, now)
        lane = self._lanes[stay.job.destination]
        lane.running -= 1
        if verdict is not Verdict.UNKNOWN or stay.has_lasted:
            self._learn(lane, is_quick=verdict is Verdict.TOOK and not stay.has_lasted)
        pause = None
        match verdict:
            case Verdict.TOOK:
                lane.failures = 0
                lane.closed_until = 0.0
                lane.window = min(lane.window + 1, self._widest)
            case Verdict.UNREACHABLE:
                pause = self._close(lane, now)
            case Verdict.UNKNOWN:
                pass
        self._place(lane, now)
        if lane.is_plain and lane.window == 1:
            del self._lanes[lane.destination]
        return pause, moved

    def _close(self, lane: Lane, now: float) -> float | None:
        lane.window = 1
        if now < lane.closed_until:  # another one that was under way says the same
            return None
        lane.failures += 1
        retry = self._schedule.delay(lane.failures).total_seconds()
        pause = min(FIRST_PAUSE * 2.0 ** min(lane.failures - 1, 16), LONGEST_PAUSE, retry)
        pause *= self._rng.uniform(1 - JITTER, 1 + JITTER)
        lane.closed_until = now + pause
        self._leave_ring(lane)
        return pause

    def is_down(self, destination: str) -> bool:
        """True if it could not be reached the last time."""
        lane = self._lanes.get(destination)
        return lane is not None and lane.failures > 0

    def count_down(self, now: float) -> int:
        """How many destinations are down. One whose mail would have been tried again by now has no mail left."""
        longest = max(self._schedule.longest, self._schedule.initial).total_seconds()
        return sum(1 for lane in self._lanes.values() if lane.failures and now < lane.closed_until + longest)

    def runs_low(self, destination: str) -> bool:
        """True if it has no more jobs in memory than will be started soon."""
        lane = self._lanes.get(destination)
        return lane is None or len(lane.ready) <= lane.window // 2

    @property
    def has_few_quick(self) -> bool:
        """True if what is in memory is mostly for newcomers."""
        return self.ready - self._ready_newcomers < self.places.fast // 2

    def is_hungry(self, destination: str) -> bool:
        """True if it runs low, and there is memory for it."""
        lane = self._lanes.get(destination)
        return self.runs_low(destination) and self._space(is_quick=lane is not None and lane.is_quick) > 0

    def withdraw(self, destination: str | None = None) -> list[Job]:
        """Take the jobs that wait in memory out again, of one destination or of all."""
        lanes = list(self._lanes.values()) if destination is None else [self._lane(destination)]
        jobs: list[Job] = []
        for lane in lanes:
            jobs += lane.ready
            self._count(lane, -len(lane.ready))
            lane.ready.clear()
            self._leave_ring(lane)
        return jobs

    def reopen(self, now: float) -> None:
        """Try every closed destination again: an operator said so."""
        for lane in self._lanes.values():
            lane.closed_until = 0.0
            self._place(lane, now)

    def refresh(self, now: float) -> None:
        """Lanes whose pause is over come back into the ring."""
        for lane in self._lanes.values():
            self._place(lane, now)
