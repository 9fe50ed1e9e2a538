"""Which job runs next: fair among destinations, gentle to those in trouble. Pure: time is an argument.

Each destination has a lane: its jobs in memory, how many run, and its *window*, the most that may run at once. Lanes
that can start a job stand in a ring and take turns, so that a large queue for one delays nobody.

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

from mailrider.queue.retry import DEFAULT_SCHEDULE, Schedule

if TYPE_CHECKING:
    import random

    from mailrider.queue.message import Job

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
    """A destination. `closed_until` is a monotonic moment."""

    destination: str
    ready: deque[Job] = field(default_factory=deque)
    running: int = 0
    window: int = 1
    failures: int = 0
    closed_until: float = 0.0

    @property
    def is_plain(self) -> bool:
        """True if forgetting it would change nothing."""
        return not self.ready and not self.running and not self.failures


class Lanes:
    """The jobs in memory. `places`: the most that run at once; `schedule`: when messages are tried again."""

    def __init__(self, places: int, rng: random.Random, schedule: Schedule = DEFAULT_SCHEDULE) -> None:
        self.places = places
        self._schedule = schedule
        self.ready = 0
        self.running = 0
        self._rng = rng
        self._widest = max(1, places * 3 // 4)
        self._lanes: OrderedDict[str, Lane] = OrderedDict()
        self._ring: OrderedDict[str, Lane] = OrderedDict()

    @property
    def most_ready(self) -> int:
        """How many jobs may be in memory."""
        return max(64, 4 * self.places)

    @property
    def is_idle(self) -> bool:
        """True if nothing runs and nothing waits in memory."""
        return not self.running and not self.ready

    @property
    def has_more(self) -> bool:
        """True if there may be a job to start."""
        return bool(self._ring)

    def room(self, destination: str, now: float) -> int:
        """How many more jobs of a destination may come into memory."""
        lane = self._lanes.get(destination)
        if lane is None:
            return min(1 + AHEAD, self._space())
        if now < lane.closed_until:
            return 0
        return max(0, min(lane.window * AHEAD + 1 - len(lane.ready), self._space()))

    def _space(self) -> int:
        return self.most_ready - self.ready

    def reopens(self, destination: str, now: float) -> float | None:
        """When a closed destination is tried again; None if it is open."""
        lane = self._lanes.get(destination)
        return lane.closed_until if lane is not None and now < lane.closed_until else None

    def offer(self, job: Job, now: float) -> None:
        """A leased job is ready."""
        lane = self._lane(job.destination)
        lane.ready.append(job)
        self.ready += 1
        self._place(lane, now)

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
        """Into the ring, at its end, if a job of it can be started."""
        if lane.ready and lane.running < lane.window and now >= lane.closed_until:
            self._ring.setdefault(lane.destination, lane)

    def take(self, now: float) -> Job | None:
        """The job to start, which counts as running from now on; None if there is no place or no job."""
        while self._ring and self.running < self.places:
            _, lane = self._ring.popitem(last=False)
            if not lane.ready or lane.running >= lane.window or now < lane.closed_until:
                continue
            job = lane.ready.popleft()
            self.ready -= 1
            lane.running += 1
            self.running += 1
            self._place(lane, now)
            return job
        return None

    def finish(self, job: Job, verdict: Verdict, now: float) -> float | None:
        """A job has ended. If that closes its destination: for how many seconds."""
        lane = self._lanes[job.destination]
        lane.running -= 1
        self.running -= 1
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
        return pause

    def _close(self, lane: Lane, now: float) -> float | None:
        lane.window = 1
        if now < lane.closed_until:  # another one that was under way says the same
            return None
        lane.failures += 1
        retry = self._schedule.delay(lane.failures).total_seconds()
        pause = min(FIRST_PAUSE * 2.0 ** min(lane.failures - 1, 16), LONGEST_PAUSE, retry)
        pause *= self._rng.uniform(1 - JITTER, 1 + JITTER)
        lane.closed_until = now + pause
        self._ring.pop(lane.destination, None)
        return pause

    def is_down(self, destination: str) -> bool:
        """True if it could not be reached the last time."""
        lane = self._lanes.get(destination)
        return lane is not None and lane.failures > 0

    def runs_low(self, destination: str) -> bool:
        """True if it has no more jobs in memory than will be started soon."""
        lane = self._lanes.get(destination)
        return lane is None or len(lane.ready) <= lane.window // 2

    def withdraw(self, destination: str | None = None) -> list[Job]:
        """Take the jobs that wait in memory out again, of one destination or of all."""
        lanes = list(self._lanes.values()) if destination is None else [self._lane(destination)]
        jobs: list[Job] = []
        for lane in lanes:
            jobs += lane.ready
            lane.ready.clear()
            self._ring.pop(lane.destination, None)
        self.ready -= len(jobs)
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
