"""Which job runs next: fair among destinations, gentle to those in trouble. Pure: time is an argument.

Each destination has a state: its jobs in memory, how many run, and its *window*, the most that may run at once. The
destinations that can start a job take turns, so that a large queue for one delays nobody.

There are two circles of turns: of destinations where the last attempt ended soon, and of *newcomers*, of which that is
not known. The circles take turns as well: a thousand new names delay nobody who is known. `queue.places` says who holds
a place.

A window begins with 1 and grows with each message that a server dealt with, so that a destination which hangs holds
one place and not all of them; nobody's grows beyond three quarters of all places. A destination that cannot be
reached is closed for a while, longer each time, but not longer than the schedule has a message wait; then one message
tries. When it gets through, the window grows again from 1: what has gathered is released gradually.

What has a destination in common is said by a `DestinationOf`; by it messages become jobs (`jobs_of`).
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mailrider.model.outcome import Deferred, TryResult
from mailrider.queue.message import FRESH, ROUTE_TARGET, LeasedJob
from mailrider.queue.places import AttemptPlaces
from mailrider.queue.retry import DEFAULT_SCHEDULE, Schedule
from mailrider.queue.settle import UNREACHABLE

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.outcome import AttemptReport, Outcome
    from mailrider.model.reply import Reply
    from mailrider.queue.message import NewMessage
    from mailrider.queue.places import RunningAttempt

FIRST_PAUSE: Final = 30.0  # seconds that a destination rests after it could not be reached, doubled each time
LONGEST_PAUSE: Final = 900.0
JITTER: Final = 0.1
AHEAD: Final = 2  # jobs in memory for each place of a window, so that none waits for the store
CONTENT_OCTETS: Final = 64 * 1024 * 1024  # of content that is kept in memory for the next attempts
MAX_DESTINATIONS: Final = 10_000  # remembered without having jobs; 400 bytes each

# A server that came this far speaks to us; what it says then is about the message.
_SPOKE: Final = frozenset({TryResult.MAIL, TryResult.RCPT, TryResult.DATA, TryResult.FINAL, TryResult.DELIVERED})
_NETWORK: Final = 4  # the subject of enhanced codes about the network and routing (RFC 3463 3.5)


class DestinationHealth(enum.Enum):
    """What an attempt says about the destination."""

    TOOK = "a server dealt with the message"
    UNREACHABLE = "no server could be reached"
    UNKNOWN = "nothing"


@dataclass(slots=True, eq=False)
class DestinationState:
    """A destination. `closed_until` is a monotonic moment, `reason` why it is closed, as far as it is known here.
    `is_quick`: the last attempt there ended soon."""

    destination: str
    ready: deque[LeasedJob] = field(default_factory=deque)
    running: int = 0
    window: int = 1
    failures: int = 0
    is_quick: bool = False
    closed_until: float = 0.0
    reason: Reply = UNREACHABLE

    @property
    def is_plain(self) -> bool:
        """True if forgetting it would change nothing."""
        return not self.ready and not self.running and not self.failures


class Fairness:
    """The jobs in memory. `fast`: the places that it has; `schedule`: when messages are tried again."""

    def __init__(self, fast: int, rng: random.Random, schedule: Schedule = DEFAULT_SCHEDULE) -> None:
        self.places = AttemptPlaces(fast)
        self._schedule = schedule
        self.ready = 0
        self.octets = 0  # of content, of what waits and what runs
        self._ready_newcomers = 0
        self._rng = rng
        self._widest = max(1, fast * 3 // 4)
        self._states: OrderedDict[str, DestinationState] = OrderedDict()
        self._known: OrderedDict[str, DestinationState] = OrderedDict()
        self._newcomers: OrderedDict[str, DestinationState] = OrderedDict()
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
    def space(self) -> int:
        """How many octets of content may come into memory."""
        return CONTENT_OCTETS - self.octets

    def has_room(self, jobs: Sequence[LeasedJob], now: float) -> bool:
        """True if all these jobs may come into memory, with their content."""
        if len(jobs) > self.most_ready - self.ready or sum([job.info.size for job in jobs]) > self.space:
            return False
        return all(self.room(job.destination, now) > 0 for job in jobs)

    def room(self, destination: str, now: float) -> int:
        """How many more jobs of a destination may come into memory."""
        state = self._states.get(destination)
        if state is None:
            return max(0, min(1 + AHEAD, self._space(is_quick=False)))
        if now < state.closed_until:
            return 0
        return max(0, min(state.window * AHEAD + 1 - len(state.ready), self._space(is_quick=state.is_quick)))

    def _space(self, *, is_quick: bool) -> int:
        """Newcomers have half of the memory: they may have to wait long for a place."""
        space = self.most_ready - self.ready
        return space if is_quick else min(space, self.most_ready // 2 - self._ready_newcomers)

    def reopens(self, destination: str, now: float) -> float | None:
        """When a closed destination is tried again; None if it is open."""
        state = self._states.get(destination)
        return state.closed_until if state is not None and now < state.closed_until else None

    def offer(self, job: LeasedJob, now: float) -> None:
        """A leased job is ready."""
        state = self._state(job.destination)
        state.ready.append(job)
        self.ready += 1
        if not state.is_quick:
            self._ready_newcomers += 1
        if job.content is not None:
            self.octets += job.info.size
        self._place(state, now)

    def _learn(self, state: DestinationState, *, is_quick: bool) -> None:
        """The other kind than it was known as."""
        self._ready_newcomers += -len(state.ready) if is_quick else len(state.ready)
        self._leave_turns(state)
        state.is_quick = is_quick

    def _leave_turns(self, state: DestinationState) -> None:
        (self._known if state.is_quick else self._newcomers).pop(state.destination, None)

    def _state(self, destination: str) -> DestinationState:
        state = self._states.get(destination)
        if state is None:
            state = self._states[destination] = DestinationState(destination)
            self._forget_some()
        return state

    def _forget_some(self) -> None:
        """Keep the number of destinations bounded: the oldest go first, but none that has jobs."""
        for _ in range(len(self._states) - MAX_DESTINATIONS):
            name, state = next(iter(self._states.items()))
            self._states.move_to_end(name)
            if not state.ready and not state.running:
                del self._states[name]

    def _place(self, state: DestinationState, now: float) -> None:
        """Into its circle of turns, at the end, if a job of it can be started."""
        if state.ready and state.running < state.window and now >= state.closed_until:
            (self._known if state.is_quick else self._newcomers).setdefault(state.destination, state)

    def take(self, now: float) -> RunningAttempt | None:
        """Start a job; None if there is no place or no job."""
        places = self.places
        while (self._known or self._newcomers) and places.running < places.fast:
            turns = self._next_turns()
            if turns is None:
                return None
            _, state = turns.popitem(last=False)
            if not state.ready or state.running >= state.window or now < state.closed_until:
                continue
            job = state.ready.popleft()
            self.ready -= 1
            if not state.is_quick:
                self._ready_newcomers -= 1
            state.running += 1
            self._is_newcomers_turn = state.is_quick
            self._place(state, now)
            return places.begin(job, now, is_newcomer=not state.is_quick)
        return None

    def _next_turns(self) -> OrderedDict[str, DestinationState] | None:
        may_be_new = bool(self._newcomers) and self.places.takes_newcomers(others_wait=bool(self._known))
        if self._known and not (may_be_new and self._is_newcomers_turn):
            return self._known
        return self._newcomers if may_be_new else None

    def finish(
        self, attempt: RunningAttempt, health: DestinationHealth, now: float, reply: Reply = UNREACHABLE
    ) -> tuple[float | None, list[RunningAttempt]]:
        """An attempt has ended. If that closes its destination: for how many seconds; and who moved to slow places."""
        self.octets -= attempt.octets
        moved = self.places.end(attempt, now)
        if moved:
            self.leave_memory(moved)
        state = self._states[attempt.job.destination]
        state.running -= 1
        if health is not DestinationHealth.UNKNOWN or attempt.has_lasted:
            is_quick = health is DestinationHealth.TOOK and not attempt.has_lasted
            if state.is_quick is not is_quick:
                self._learn(state, is_quick=is_quick)
        pause = None
        if health is DestinationHealth.TOOK:
            state.failures = 0
            state.closed_until = 0.0
            state.window = min(state.window + 1, self._widest)
        elif health is DestinationHealth.UNREACHABLE:
            state.reason, pause = reply, self._close(state, now)
        self._place(state, now)
        if state.is_plain and state.window == 1:
            del self._states[state.destination]
        return pause, moved

    def _close(self, state: DestinationState, now: float) -> float | None:
        state.window = 1
        if now < state.closed_until:  # another one that was under way says the same
            return None
        state.failures += 1
        retry = self._schedule.delay(state.failures).total_seconds()
        pause = min(FIRST_PAUSE * 2.0 ** min(state.failures - 1, 16), LONGEST_PAUSE, retry)
        pause *= self._rng.uniform(1 - JITTER, 1 + JITTER)
        state.closed_until = now + pause
        self._leave_turns(state)
        return pause

    def down_because(self, destination: str) -> Reply | None:
        """Why it could not be reached the last time; None if it could."""
        state = self._states.get(destination)
        return state.reason if state is not None and state.failures > 0 else None

    def count_down(self, now: float) -> int:
        """How many destinations are down. One whose mail would have been tried again by now has no mail left."""
        longest = max(self._schedule.longest, self._schedule.initial).total_seconds()
        return sum(1 for state in self._states.values() if state.failures and now < state.closed_until + longest)

    def runs_low(self, destination: str) -> bool:
        """True if it has no more jobs in memory than will be started soon."""
        state = self._states.get(destination)
        return state is None or len(state.ready) <= state.window // 2

    @property
    def has_few_quick(self) -> bool:
        """True if what is in memory is mostly for newcomers."""
        return self.ready - self._ready_newcomers < self.places.fast // 2

    def wants_refill(self, destination: str) -> bool:
        """True if it runs low, and there is memory for it."""
        state = self._states.get(destination)
        return self.runs_low(destination) and self._space(is_quick=state is not None and state.is_quick) > 0

    def withdraw(self, destination: str | None = None) -> list[LeasedJob]:
        """Take the jobs that wait in memory out again, without their content, of one destination or of all."""
        states = list(self._states.values()) if destination is None else [self._state(destination)]
        jobs: list[LeasedJob] = []
        for state in states:
            jobs += state.ready
            self.ready -= len(state.ready)
            if not state.is_quick:
                self._ready_newcomers -= len(state.ready)
            state.ready.clear()
            self._leave_turns(state)
        for job in jobs:
            if job.content is not None:
                self.octets -= job.info.size
                job.content = None
        return jobs

    def leave_memory(self, moved: Sequence[RunningAttempt]) -> None:
        """Attempts that moved to slow places: the memory that was theirs is for others."""
        for attempt in moved:
            self.octets -= attempt.octets
            attempt.octets = 0

    def resize(self, fast: int) -> None:
        """So many fast places from now on."""
        self.places.resize(fast)
        self._widest = max(1, fast * 3 // 4)
        for state in self._states.values():
            state.window = min(state.window, self._widest)

    def rest(self, destination: str, seconds: float, now: float) -> None:
        """Another process found a destination out of reach: it is closed for at least so long."""
        state = self._state(destination)
        state.window = 1
        state.reason = state.reason if state.failures else UNREACHABLE
        state.failures = max(state.failures, 1)
        state.closed_until = max(state.closed_until, now + seconds)
        self._leave_turns(state)

    def resume(self, destination: str, now: float) -> None:
        """Another process found that a destination takes mail again; what has gathered is released gradually."""
        if (state := self._states.get(destination)) is not None:
            state.failures, state.closed_until = 0, 0.0
            self._place(state, now)

    def reopen(self, now: float) -> None:
        """Try every closed destination again: an operator said so."""
        for state in self._states.values():
            state.closed_until = 0.0
        self.refresh(now)

    def refresh(self, now: float) -> None:
        """Destinations whose pause is over take turns again."""
        for state in self._states.values():
            self._place(state, now)


def judge_destination(report: AttemptReport) -> DestinationHealth:
    """What an attempt says about the whole destination, beyond its own message."""
    outcomes = report.outcomes
    if any(each.result in _SPOKE for outcome in outcomes for each in outcome.tries):
        return DestinationHealth.TOOK
    if all(map(_says_unreachable, outcomes)):
        return DestinationHealth.UNREACHABLE
    return (
        DestinationHealth.UNKNOWN
        if any(isinstance(outcome, Deferred) for outcome in outcomes)
        else DestinationHealth.TOOK
    )


def _says_unreachable(outcome: Outcome) -> bool:
    if not isinstance(outcome, Deferred) or outcome.eligible_at is not None:
        return False
    return bool(outcome.tries) or outcome.reply.status.subject == _NETWORK


# Messages become jobs -------------------------------------------------------------------------------------------------


class DestinationOf:
    """What a recipient's mail has to share with another's to be scheduled together: by default the domain."""

    def __call__(self, recipient: Recipient) -> str:
        domain = recipient.mailbox.domain
        return "" if domain is None else domain.ascii

    def by(self, route: str) -> DestinationOf:
        """The same for messages that go by a route. Another one than the target's may lead to other servers."""
        return self if route == ROUTE_TARGET else _ByRoute(route)


class _ByRoute(DestinationOf):
    """`bounce/example.org`: that the target's servers cannot be reached says nothing about it."""

    def __init__(self, route: str) -> None:
        self._route = route

    def __call__(self, recipient: Recipient) -> str:
        return f"{self._route}/{super().__call__(recipient)}"


BY_DOMAIN: Final = DestinationOf()


def jobs_of(message: NewMessage, destination_of: DestinationOf, lease: int) -> list[LeasedJob]:
    """A new message as jobs, all of them fresh."""
    envelope = message.envelope
    destination_of = destination_of.by(message.route)
    recipients = envelope.recipients
    if len(recipients) == 1:
        ids = (message.id + 1,)
        destination = destination_of(recipients[0])
        return [_job(message, destination, envelope, ids, lease)]
    groups: dict[str, list[int]] = {}
    for index, recipient in enumerate(recipients):
        groups.setdefault(destination_of(recipient), []).append(index)
    return [
        _job(message, destination, envelope.only(indices), tuple(message.id + 1 + index for index in indices), lease)
        for destination, indices in groups.items()
    ]


def _job(message: NewMessage, destination: str, envelope: Envelope, ids: tuple[int, ...], lease: int) -> LeasedJob:
    progress = (FRESH,) * len(ids)
    return LeasedJob(
        message.id,
        destination,
        envelope,
        ids,
        progress,
        message.created,
        message.info,
        lease,
        message.route,
        message.content,
    )
