"""The operator's limits in force: who may pass, who waits, who is told when to come again.

    with limiter.ticket(envelope, emit, handover) as ticket:  # one message
        async with ticket.to(next_hop) as held_back:           # each of its next hops
            if held_back is None: ...

A `Limiter` is one `limits` block, with its `Window`s (`delivery.limits.windows`); all who refer to a named block have
the same `Limiter` (`delivery.limits.shares`). What always holds:

- a message passes all windows that concern it at once, or none: nothing is taken while anything is closed;
- the scopes `all`, `ip` and `source` count a message once, when its first next hop passes; `destination` counts it once
  for each next hop;
- a message that is inside a block passes it freely (`Handover.passed`): an endpoint and the target that it gives a
  message to at once may refer to the same block, and it neither counts twice nor waits for itself;
- whatever was taken and can be given back is given back once, when the block ends, however it ends;
- those who wait at a window pass it in order; nobody waits longer than `patience`, nor at all if that is known to be
  in vain. Being held back is no failure: `HeldBack.eligible_at` says when to try again.

No task; one timer a block.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from mailrider.clock import Alarm
from mailrider.delivery.limits.windows import UNKNOWN, ConcurrencyWindow, RateWindow, Window
from mailrider.delivery.settings import Concurrency
from mailrider.model.event import LimitReached
from mailrider.model.handover import DIRECT
from mailrider.model.ip import client_key
from mailrider.model.outcome import Deferred
from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from types import TracebackType

    from mailrider.clock import Clock
    from mailrider.delivery.settings import Limit, LimitsSettings
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Emit
    from mailrider.model.handover import Handover

COME_AGAIN = 1.0
"""Seconds until a queue should ask again where a message has to wait for others to be done: nobody knows how long."""

THROTTLED = Reply.make(451, "4.4.5", "Too many messages at the moment")
UNCOUNTED = Reply.make(451, "4.3.0", "Limits cannot be checked at the moment")


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Not now: a limit of `scope` for `key` is used up; nothing was tried, and may be from `eligible_at` on.

    Without a scope: nobody could count, for all that was asked together; so says the `reply`.
    """

    scope: str
    key: str
    eligible_at: datetime
    reply: Reply = THROTTLED

    def deferred(self, recipient: Recipient) -> Deferred:
        """What it means to a recipient of a queue."""
        return Deferred(recipient, self.reply, eligible_at=self.eligible_at)


class KeyedRule(NamedTuple):
    """What a message has to pass: a window, with its own key."""

    window: Window
    scope: str
    key: str


class MessageTicket:
    """One message on its way through the windows of a block."""

    def __init__(self, limiter: Limiter, envelope: Envelope, emit: Emit, handover: Handover) -> None:
        self.emit = emit
        self.message = envelope.id
        self.patience = handover.patience
        self._limiter = limiter
        self._is_free = limiter in handover.passed
        self._due = [] if self._is_free else limiter.rules_of(envelope)
        self._passed: list[KeyedRule] = []

    def to(self, *next_hops: NextHop) -> Ticket:
        """The ticket of a next hop, or of several together: to be entered with `async with`."""
        own: list[KeyedRule] = []
        if not self._is_free:
            for next_hop in next_hops:
                own += self._limiter.rules("destination", next_hop.ascii)
        return Ticket(self._limiter, self, own)

    def due(self) -> list[KeyedRule]:
        """What the message itself still has to pass."""
        return self._due

    def let_pass(self) -> None:
        """It has passed, whatever further next hops do."""
        self._passed, self._due = self._passed + self._due, []

    def __enter__(self) -> MessageTicket:
        return self

    def __exit__(self, *_: object) -> None:
        passed, self._passed = self._passed, []
        self._limiter.give_back(passed)


class Ticket:
    """One next hop of a message, or several; entering it waits until it may go, and gives None, or why it may not."""

    __slots__ = ("_limiter", "_own", "_passed", "answer", "at", "deadline", "ticket")

    answer: asyncio.Future[HeldBack | None]  # while it waits
    deadline: float

    def __init__(self, limiter: Limiter, ticket: MessageTicket, own: list[KeyedRule]) -> None:
        self.ticket = ticket
        self.at: KeyedRule | None = None
        self._limiter = limiter
        self._own = own
        self._passed = False

    def rules(self) -> list[KeyedRule]:
        """What is to be passed now; that of the message falls away once another next hop has passed."""
        return self.ticket.due() + self._own

    def let_pass(self) -> None:
        """It has passed."""
        self.ticket.let_pass()
        self._passed = True

    async def __aenter__(self) -> HeldBack | None:
        return await self._limiter.enter(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Give back what it took, if it passed."""
        if self._passed:
            self._passed = False
            self._limiter.give_back(self._own)


class Limiter:
    """One `limits` block in force."""

    def __init__(self, settings: LimitsSettings, clock: Clock, before: Limiter | None = None) -> None:
        """`before`: the block in whose place this one comes. Lines that are the same keep what they have counted."""
        self.settings = settings
        self._clock = clock
        self._windows = self._open_windows(before)
        self._queues: dict[KeyedRule, OrderedDict[Ticket, None]] = {}
        # What is to be looked at, and when: the first in line at a window that opens by itself, or a ticket's patience.
        self._agenda: list[tuple[float, int, KeyedRule | Ticket]] = []
        self._on_agenda: set[KeyedRule] = set()
        self._order = itertools.count()
        self._alarm = Alarm(clock, self._tick)

    def _open_windows(self, before: Limiter | None) -> dict[str, tuple[Window, ...]]:
        """Those of each scope."""
        windows: dict[str, tuple[Window, ...]] = {}
        old = {} if before is None else {s: (lines, before._windows[s]) for s, lines in by_scope(before.settings)}
        for scope, lines in by_scope(self.settings):
            known = zip(*old[scope], strict=True) if scope in old else ()
            windows[scope] = _windows(lines, tuple(known))
        return windows

    @property
    def slots(self) -> int | None:
        """How many messages may be under way at once in all; None if nothing says so."""
        concurrencies = [limit.maximum for limit in self.settings.all if isinstance(limit, Concurrency)]
        return min(concurrencies, default=None)

    def ticket(self, envelope: Envelope, emit: Emit, handover: Handover = DIRECT) -> MessageTicket:
        """A message that wants to pass, given like that: what it has passed, and how long it may wait."""
        return MessageTicket(self, envelope, emit, handover)

    def rules_of(self, envelope: Envelope) -> list[KeyedRule]:
        """The windows of the message itself, whoever it goes to."""
        domain = envelope.sender.domain
        source = "" if domain is None else domain.ascii
        client = None if envelope.client is None else client_key(envelope.client)
        return [*self.rules("all", ""), *self.rules("ip", client), *self.rules("source", source)]

    def rules(self, scope: str, key: str | None) -> list[KeyedRule]:
        """The windows of a scope, for one key; none for a message that has no such key (no client's address)."""
        return [] if key is None else [KeyedRule(window, scope, key) for window in self._windows[scope]]

    # Entering ---------------------------------------------------------------------------------------------------------

    async def enter(self, ticket: Ticket) -> HeldBack | None:
        """None once the ticket has passed; or why it is held back."""
        now = self._clock.monotonic()
        obstacle = self._obstacle(ticket, now)
        if obstacle is None:
            self._pass(ticket, now)
            return None
        opens_at = self._opens_at(ticket, now)
        seconds = 0.0 if opens_at == UNKNOWN else opens_at - now
        whole = ticket.ticket
        whole.emit(LimitReached(obstacle.scope, obstacle.key, seconds, message=whole.message))
        ticket.deadline = now + ticket.ticket.patience
        if ticket.deadline <= now or self._is_in_vain(ticket, now):
            return self._held_back(ticket, obstacle, now)
        return await self._wait(ticket, obstacle, now)

    async def _wait(self, ticket: Ticket, obstacle: KeyedRule, now: float) -> HeldBack | None:
        ticket.answer = asyncio.get_running_loop().create_future()
        self._queue_up(ticket, obstacle, now)
        self._note(ticket.deadline, ticket)
        try:
            return await ticket.answer
        except BaseException:
            # Cancelled: it stands in line still, or has passed in this very turn.
            self._withdraw(ticket)
            ticket.leave()
            raise

    def give_back(self, rules: list[KeyedRule]) -> None:
        """Those who passed are done; whoever waits for that may go on."""
        for rule in rules:
            rule.window.give_back(rule.key)
        now = self._clock.monotonic()
        for rule in rules:
            if rule in self._queues:
                self._serve(rule, now)

    # Decisions --------------------------------------------------------------------------------------------------------

    def _obstacle(self, ticket: Ticket, now: float) -> KeyedRule | None:
        """The first window that is closed for the ticket, or has somebody else waiting; None: all are open."""
        for rule in ticket.rules():
            queue = self._queues.get(rule)
            if queue and next(iter(queue)) is not ticket:
                return rule
            if rule.window.opens_at(rule.key, now) > now:
                return rule
        return None

    def _opens_at(self, ticket: Ticket, now: float) -> float:
        """When all windows may be open, at the earliest; `UNKNOWN` if that depends on others alone."""
        moments = [rule.window.opens_at(rule.key, now) for rule in ticket.rules()]
        known = max((moment for moment in moments if moment < UNKNOWN), default=now)
        return UNKNOWN if known <= now and UNKNOWN in moments else known

    def _is_in_vain(self, ticket: Ticket, now: float) -> bool:
        """Whether the ticket's patience is known to end before it may pass."""
        return ticket.deadline < self._opens_at(ticket, now) < UNKNOWN

    def _held_back(self, ticket: Ticket, obstacle: KeyedRule, now: float) -> HeldBack:
        opens_at = self._opens_at(ticket, now)
        if opens_at == UNKNOWN or opens_at <= now:
            opens_at = now + COME_AGAIN
        eligible_at = self._clock.now() + timedelta(seconds=opens_at - now)
        return HeldBack(obstacle.scope, obstacle.key, eligible_at)

    @staticmethod
    def _pass(ticket: Ticket, now: float) -> None:
        for rule in ticket.rules():
            rule.window.take(rule.key, now)
        ticket.let_pass()

    def _serve(self, rule: KeyedRule, now: float) -> None:
        """Let pass whoever stands in line at a window and may; who meets another closed window waits there."""
        while queue := self._queues.get(rule):
            ticket = next(iter(queue))
            obstacle = self._obstacle(ticket, now)
            if obstacle == rule:
                self._note_opening(rule, now)
                return
            self._withdraw(ticket)
            if ticket.answer.done():
                continue
            if obstacle is None:
                self._pass(ticket, now)
                ticket.answer.set_result(None)
            elif self._is_in_vain(ticket, now):
                ticket.answer.set_result(self._held_back(ticket, obstacle, now))
            else:
                self._queue_up(ticket, obstacle, now)

    # Queues and time --------------------------------------------------------------------------------------------------

    def _queue_up(self, ticket: Ticket, rule: KeyedRule, now: float) -> None:
        ticket.at = rule
        self._queues.setdefault(rule, OrderedDict())[ticket] = None
        self._note_opening(rule, now)

    def _withdraw(self, ticket: Ticket) -> None:
        """Take it out of its queue, if it stands in one."""
        if ticket.at is None:
            return
        queue = self._queues[ticket.at]
        del queue[ticket]
        if not queue:
            del self._queues[ticket.at]
        ticket.at = None

    def _note_opening(self, rule: KeyedRule, now: float) -> None:
        opens_at = rule.window.opens_at(rule.key, now)
        if opens_at < UNKNOWN and rule not in self._on_agenda:
            self._on_agenda.add(rule)
            self._note(opens_at, rule)

    def _note(self, when: float, what: KeyedRule | Ticket) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), what))
        self._alarm.set(when)

    def _tick(self) -> None:
        now = self._clock.monotonic()
        for what in self._due(now):
            if isinstance(what, KeyedRule):
                self._on_agenda.discard(what)
                self._serve(what, now)
            elif what.at is not None and not what.answer.done():
                what.answer.set_result(self._held_back(what, what.at, now))
                self._withdraw(what)
        if self._agenda:
            when, _, what = heapq.heappop(self._agenda)
            self._note(when, what)

    def _due(self, now: float) -> Iterator[KeyedRule | Ticket]:
        while self._agenda and self._agenda[0][0] <= now:
            yield heapq.heappop(self._agenda)[2]


def by_scope(settings: LimitsSettings) -> tuple[tuple[str, tuple[Limit, ...]], ...]:
    """The lines of a block."""
    return (
        ("all", settings.all),
        ("ip", settings.ip),
        ("source", settings.source),
        ("destination", settings.destination),
    )


def _windows(limits: Sequence[Limit], before: Sequence[tuple[Limit, Window]]) -> tuple[Window, ...]:
    """A window for each line of a scope. `before`: the lines in whose place these come, with their windows.

    A rate that is the same goes on counting where it was. Those who are inside a concurrency stay inside, also if the
    line has another number now: that one holds for whoever comes next.
    """
    left = list(before)
    windows: list[Window] = []
    for limit in limits:
        same = next((each for each in left if each[0] == limit), None)
        if same is None and isinstance(limit, Concurrency):
            same = next((each for each in left if isinstance(each[0], Concurrency) and each[0] not in limits), None)
        if same is not None:
            left.remove(same)
        windows.append(_window(limit, None if same is None else same[1]))
    return tuple(windows)


def _window(limit: Limit, before: Window | None) -> Window:
    if isinstance(limit, Concurrency):
        return ConcurrencyWindow(limit.maximum, before if isinstance(before, ConcurrencyWindow) else None)
    return RateWindow(limit.burst, limit.period.total_seconds()) if before is None else before
