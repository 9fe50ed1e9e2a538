"""The operator's limits in force: who may pass, who waits, who is told when to come again.

    with limiter.passage(envelope, emit, patience) as passage:  # one message
        async with passage.to(next_hop) as held_back:           # each of its next hops
            if held_back is None: ...

A `Limiter` is one `limits` block, with its `Gate`s (`delivery.limits.windows`); all who refer to a named block have
the same `Limiter` (`Limiters`). What always holds:

- a message passes all gates that concern it at once, or none: nothing is taken while anything is closed;
- the scopes `all`, `ip` and `source` count a message once, when its first next hop passes; `destination` counts it once
  for each next hop;
- a message that is inside a block passes it freely: an endpoint and the target that it gives a message to at once may
  refer to the same block, and it neither counts twice nor waits for itself;
- whatever was taken and can be given back is given back once, when the block ends, however it ends;
- those who wait at a gate pass it in order; nobody waits longer than `patience`, nor at all if that is known to be
  in vain. Being held back is no failure: `HeldBack.eligible_at` says when to try again.

No task; one timer a block.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from mailrider.delivery.limits.windows import UNKNOWN, ConcurrencyGate, Gate, RateGate
from mailrider.delivery.settings import Concurrency
from mailrider.errors import ConfigError
from mailrider.model.event import LimitReached
from mailrider.model.ip import client_key
from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from types import TracebackType

    from mailrider.clock import Clock, Timer
    from mailrider.delivery.settings import Limit, LimitsSettings
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Emit

PATIENCE = 5.0
"""Seconds that a direct send waits; a queue does not wait, it comes again."""
COME_AGAIN = 1.0
"""Seconds until a queue should ask again where a message has to wait for others to be done: nobody knows how long."""

_inside: ContextVar[frozenset[Limiter]] = ContextVar("limits that the message at hand has passed", default=frozenset())

THROTTLED = Reply.make(451, "4.4.5", "Too many messages at the moment")


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Not now: a limit of `scope` for `key` is used up; nothing was tried, and may be from `eligible_at` on."""

    scope: str
    key: str
    eligible_at: datetime


class Toll(NamedTuple):
    """What a message has to pass: a gate, with its own key."""

    gate: Gate
    scope: str
    key: str


class Passage:
    """One message on its way through the gates of a block."""

    def __init__(self, limiter: Limiter, envelope: Envelope, emit: Emit, patience: float) -> None:
        self.emit = emit
        self.patience = patience
        self._limiter = limiter
        self._outer = _inside.get()
        self._is_free = limiter in self._outer
        self._unpaid = [] if self._is_free else limiter.tolls_of(envelope)
        self._paid: list[Toll] = []

    def to(self, next_hop: NextHop) -> Claim:
        """The claim of one next hop: to be entered with `async with`."""
        own = [] if self._is_free else self._limiter.tolls("destination", next_hop.ascii)
        return Claim(self._limiter, self, own)

    def due(self) -> list[Toll]:
        """What the message itself still has to pay."""
        return self._unpaid

    def pay(self) -> None:
        """It has passed, whatever further next hops do."""
        self._paid, self._unpaid = self._paid + self._unpaid, []

    def __enter__(self) -> Passage:
        _inside.set(self._outer | {self._limiter})
        return self

    def __exit__(self, *_: object) -> None:
        _inside.set(self._outer)
        paid, self._paid = self._paid, []
        self._limiter.give_back(paid)


class Claim:
    """One next hop of a message; entering it waits until it may go, and gives None, or why it may not."""

    __slots__ = ("_limiter", "_own", "_paid", "answer", "at", "deadline", "passage")

    answer: asyncio.Future[HeldBack | None]  # while it waits
    deadline: float

    def __init__(self, limiter: Limiter, passage: Passage, own: list[Toll]) -> None:
        self.passage = passage
        self.at: Toll | None = None
        self._limiter = limiter
        self._own = own
        self._paid = False

    def tolls(self) -> list[Toll]:
        """What is to be passed now; that of the message falls away once another next hop has passed."""
        return self.passage.due() + self._own

    def pay(self) -> None:
        """It has passed."""
        self.passage.pay()
        self._paid = True

    async def __aenter__(self) -> HeldBack | None:
        return await self._limiter.enter(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Give back what it took, if it passed."""
        if self._paid:
            self._paid = False
            self._limiter.give_back(self._own)


class Limiter:
    """One `limits` block in force."""

    def __init__(self, settings: LimitsSettings, clock: Clock, before: Limiter | None = None) -> None:
        """`before`: the block in whose place this one comes. Lines that are the same keep what they have counted."""
        self.settings = settings
        self._clock = clock
        self._gates: dict[str, tuple[Gate, ...]] = {}
        old = {} if before is None else {s: (lines, before._gates[s]) for s, lines in _by_scope(before.settings)}
        for scope, lines in _by_scope(settings):
            known = zip(*old[scope], strict=True) if scope in old else ()
            self._gates[scope] = _gates(lines, tuple(known))
        self._queues: dict[Toll, OrderedDict[Claim, None]] = {}
        # What is to be looked at, and when: the first in line at a gate that opens by itself, or a claim's patience.
        self._agenda: list[tuple[float, int, Toll | Claim]] = []
        self._on_agenda: set[Toll] = set()
        self._order = itertools.count()
        self._timer: Timer | None = None
        self._timer_at = UNKNOWN

    @property
    def slots(self) -> int | None:
        """How many messages may be under way at once in all; None if nothing says so."""
        concurrencies = [limit.maximum for limit in self.settings.all if isinstance(limit, Concurrency)]
        return min(concurrencies, default=None)

    def passage(self, envelope: Envelope, emit: Emit, patience: float = PATIENCE) -> Passage:
        """A message that wants to pass; `patience` in seconds, 0: it does not wait at all."""
        return Passage(self, envelope, emit, patience)

    def tolls_of(self, envelope: Envelope) -> list[Toll]:
        """The gates of the message itself, whoever it goes to."""
        domain = envelope.sender.domain
        source = "" if domain is None else domain.ascii
        client = None if envelope.client is None else client_key(envelope.client)
        return [*self.tolls("all", ""), *self.tolls("ip", client), *self.tolls("source", source)]

    def tolls(self, scope: str, key: str | None) -> list[Toll]:
        """The gates of a scope, for one key; none for a message that has no such key (no client's address)."""
        return [] if key is None else [Toll(gate, scope, key) for gate in self._gates[scope]]

    # Entering ---------------------------------------------------------------------------------------------------------

    async def enter(self, claim: Claim) -> HeldBack | None:
        """None once the claim has passed; or why it is held back."""
        now = self._clock.monotonic()
        obstacle = self._obstacle(claim, now)
        if obstacle is None:
            self._pass(claim, now)
            return None
        opens_at = self._opens_at(claim, now)
        claim.passage.emit(LimitReached(obstacle.scope, obstacle.key, 0.0 if opens_at == UNKNOWN else opens_at - now))
        claim.deadline = now + claim.passage.patience
        if claim.deadline <= now or self._is_in_vain(claim, now):
            return self._held_back(claim, obstacle, now)
        return await self._wait(claim, obstacle, now)

    async def _wait(self, claim: Claim, obstacle: Toll, now: float) -> HeldBack | None:
        claim.answer = asyncio.get_running_loop().create_future()
        self._queue_up(claim, obstacle, now)
        self._note(claim.deadline, claim)
        try:
            return await claim.answer
        except BaseException:
            # Cancelled: it stands in line still, or has passed in this very turn.
            self._withdraw(claim)
            claim.leave()
            raise

    def give_back(self, tolls: list[Toll]) -> None:
        """Those who passed are done; whoever waits for that may go on."""
        for toll in tolls:
            toll.gate.give_back(toll.key)
        now = self._clock.monotonic()
        for toll in tolls:
            if toll in self._queues:
                self._serve(toll, now)

    # Decisions --------------------------------------------------------------------------------------------------------

    def _obstacle(self, claim: Claim, now: float) -> Toll | None:
        """The first gate that is closed for the claim, or has somebody else waiting; None: all are open."""
        for toll in claim.tolls():
            queue = self._queues.get(toll)
            if queue and next(iter(queue)) is not claim:
                return toll
            if toll.gate.opens_at(toll.key, now) > now:
                return toll
        return None

    def _opens_at(self, claim: Claim, now: float) -> float:
        """When all gates may be open, at the earliest; `UNKNOWN` if that depends on others alone."""
        moments = [toll.gate.opens_at(toll.key, now) for toll in claim.tolls()]
        known = max((moment for moment in moments if moment < UNKNOWN), default=now)
        return UNKNOWN if known <= now and UNKNOWN in moments else known

    def _is_in_vain(self, claim: Claim, now: float) -> bool:
        """Whether the claim's patience is known to end before it may pass."""
        return claim.deadline < self._opens_at(claim, now) < UNKNOWN

    def _held_back(self, claim: Claim, obstacle: Toll, now: float) -> HeldBack:
        opens_at = self._opens_at(claim, now)
        if opens_at == UNKNOWN or opens_at <= now:
            opens_at = now + COME_AGAIN
        eligible_at = self._clock.now() + timedelta(seconds=opens_at - now)
        return HeldBack(obstacle.scope, obstacle.key, eligible_at)

    @staticmethod
    def _pass(claim: Claim, now: float) -> None:
        for toll in claim.tolls():
            toll.gate.take(toll.key, now)
        claim.pay()

    def _serve(self, toll: Toll, now: float) -> None:
        """Let pass whoever stands in line at a gate and may; who meets another closed gate waits there."""
        while queue := self._queues.get(toll):
            claim = next(iter(queue))
            obstacle = self._obstacle(claim, now)
            if obstacle == toll:
                self._note_opening(toll, now)
                return
            self._withdraw(claim)
            if claim.answer.done():
                continue
            if obstacle is None:
                self._pass(claim, now)
                claim.answer.set_result(None)
            elif self._is_in_vain(claim, now):
                claim.answer.set_result(self._held_back(claim, obstacle, now))
            else:
                self._queue_up(claim, obstacle, now)

    # Queues and time --------------------------------------------------------------------------------------------------

    def _queue_up(self, claim: Claim, toll: Toll, now: float) -> None:
        claim.at = toll
        self._queues.setdefault(toll, OrderedDict())[claim] = None
        self._note_opening(toll, now)

    def _withdraw(self, claim: Claim) -> None:
        """Take it out of its queue, if it stands in one."""
        if claim.at is None:
            return
        queue = self._queues[claim.at]
        del queue[claim]
        if not queue:
            del self._queues[claim.at]
        claim.at = None

    def _note_opening(self, toll: Toll, now: float) -> None:
        opens_at = toll.gate.opens_at(toll.key, now)
        if opens_at < UNKNOWN and toll not in self._on_agenda:
            self._on_agenda.add(toll)
            self._note(opens_at, toll)

    def _note(self, when: float, what: Toll | Claim) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), what))
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._clock.call_at(when, self._tick)
            self._timer_at = when

    def _tick(self) -> None:
        self._timer, self._timer_at = None, UNKNOWN
        now = self._clock.monotonic()
        for what in self._due(now):
            if isinstance(what, Toll):
                self._on_agenda.discard(what)
                self._serve(what, now)
            elif what.at is not None and not what.answer.done():
                what.answer.set_result(self._held_back(what, what.at, now))
                self._withdraw(what)
        if self._agenda:
            when, _, what = heapq.heappop(self._agenda)
            self._note(when, what)

    def _due(self, now: float) -> Iterator[Toll | Claim]:
        while self._agenda and self._agenda[0][0] <= now:
            yield heapq.heappop(self._agenda)[2]


def _by_scope(settings: LimitsSettings) -> tuple[tuple[str, tuple[Limit, ...]], ...]:
    return (
        ("all", settings.all),
        ("ip", settings.ip),
        ("source", settings.source),
        ("destination", settings.destination),
    )


def _gates(limits: Sequence[Limit], before: Sequence[tuple[Limit, Gate]]) -> tuple[Gate, ...]:
    """A gate for each line of a scope. `before`: the lines in whose place these come, with their gates.

    A rate that is the same goes on counting where it was. Those who are inside a concurrency stay inside, also if the
    line has another number now: that one holds for whoever comes next.
    """
    left = list(before)
    gates: list[Gate] = []
    for limit in limits:
        same = next((each for each in left if each[0] == limit), None)
        if same is None and isinstance(limit, Concurrency):
            same = next((each for each in left if isinstance(each[0], Concurrency) and each[0] not in limits), None)
        if same is not None:
            left.remove(same)
        gates.append(_gate(limit, None if same is None else same[1]))
    return tuple(gates)


def _gate(limit: Limit, before: Gate | None) -> Gate:
    if isinstance(limit, Concurrency):
        return ConcurrencyGate(limit.maximum, before if isinstance(before, ConcurrencyGate) else None)
    return RateGate(limit.burst, limit.period.total_seconds()) if before is None else before


class Limiters:
    """The limits of a configuration: all who refer to a block of the same name share it.

    `successor` gives those of the configuration that comes in the place of this one: what it does not change goes on
    counting. A block is the same if it has the same name; one without a name, if it has the same owner.
    """

    def __init__(self, clock: Clock, before: Limiters | None = None, *, by_owner: bool = False) -> None:
        """`by_owner`: remember blocks without a name, too."""
        self._clock = clock
        self._by_owner = by_owner
        self._before: dict[tuple[str, str], Limiter] = {} if before is None else before._blocks
        self._blocks: dict[tuple[str, str], Limiter] = {}

    def successor(self) -> Limiters:
        """The limits of the next configuration, before any of its blocks is known."""
        return Limiters(self._clock, self, by_owner=self._by_owner)

    def limiter(self, settings: LimitsSettings | None, owner: str = "") -> Limiter | None:
        """The block in force; None where nothing is limited. Raises `ConfigError` for two blocks of one name.

        `owner` says whose a block without a name is.
        """
        if settings is None:
            return None
        if settings.name is None and not (self._by_owner and owner):
            return Limiter(settings, self._clock)
        key = ("name", settings.name) if settings.name is not None else ("owner", owner)
        if key not in self._blocks:
            self._blocks[key] = self._renewed(settings, self._before.get(key))
        known = self._blocks[key]
        if known.settings != settings:
            raise ConfigError(f"there are two different limits of the name {settings.name or owner}")
        return known

    def _renewed(self, settings: LimitsSettings, before: Limiter | None) -> Limiter:
        if before is not None and before.settings == settings:
            return before
        return Limiter(settings, self._clock, before)
