"""The operator's limits in force: who may pass, who waits, who is told when to come again.

    with limiter.ticket(envelope, emit, handover) as ticket:  # one message
        async with ticket.to(next_hop) as held_back:           # each of its next hops
            if held_back is None: ...

A `Limiter` is one `limits` block: it knows which of its lines concern a message; who passes when is decided by the book
of limits (`delivery.limits.book`), of this process or of the supervisor. All who refer to a named block have the same
`Limiter` (`delivery.limits.shares`). What always holds:

- a message passes all lines that concern it at once, or none: nothing is taken while anything is closed;
- the scopes `all`, `ip` and `source` count a message once, when its first next hop passes; `destination` counts it once
  for each next hop;
- a message that is inside a block passes it freely (`Handover.passed`): an endpoint and the target that it gives a
  message to at once may refer to the same block, and it neither counts twice nor waits for itself;
- whatever was taken and can be given back is given back once, when the block ends, however it ends;
- nobody waits longer than `patience`. Being held back is no failure: `HeldBack.eligible_at` says when to try again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.delivery.limits.waiter import LimitWaiter
from mailrider.delivery.settings import Concurrency
from mailrider.model.event import LimitReached, LimitsUncounted
from mailrider.model.handover import DIRECT
from mailrider.model.ip import client_key
from mailrider.model.outcome import Deferred
from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from mailrider.clock import Clock
    from mailrider.delivery.limits.lines import AskLater, Need
    from mailrider.delivery.limits.waiter import Counts
    from mailrider.delivery.settings import LimitsSettings
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Emit
    from mailrider.model.handover import Handover

THROTTLED = Reply.make(451, "4.4.5", "Too many messages at the moment")
_MEANT = {"all": "all messages", "ip": "client", "source": "sender domain", "destination": "destination"}
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
        """What it means to a recipient; its reply names the limit, for those who look into a queue or the log."""
        reply = self.reply
        if self.scope:
            text = f"{reply.text}: our limit for {_MEANT[self.scope]} {self.key}".rstrip()
            reply = Reply.make(reply.code, str(reply.status), text)
        return Deferred(recipient, reply, eligible_at=self.eligible_at)


class MessageTicket:
    """One message on its way through the lines of a block."""

    def __init__(self, limiter: Limiter, envelope: Envelope, emit: Emit, handover: Handover) -> None:
        self.emit = emit
        self.message = envelope.id
        self.patience = handover.patience
        self.due: list[Need] = []
        """What the message itself still has to pass."""
        self.waiting: set[Ticket] = set()
        """Its next hops that wait."""
        self._limiter = limiter
        self._is_free = limiter in handover.passed
        if not self._is_free:
            self.due = limiter.needs_of(envelope)
        self._passed: list[Need] = []

    def to(self, *next_hops: NextHop) -> Ticket:
        """The ticket of a next hop, or of several together: to be entered with `async with`."""
        own: list[Need] = []
        if not self._is_free:
            for next_hop in next_hops:
                own += self._limiter.needs("destination", next_hop.ascii)
        return Ticket(self._limiter, self, own)

    def let_pass(self) -> None:
        """The message has passed; next hops of it that wait have only their own lines to pass."""
        count = len(self.due)
        if count:
            self._passed, self.due = self.due, []
            for ticket in list(self.waiting):
                ticket.shorten(count)

    def __enter__(self) -> MessageTicket:
        return self

    def __exit__(self, *_: object) -> None:
        passed, self._passed = self._passed, []
        self._limiter.leave(passed)


class Ticket:
    """One next hop of a message, or several; entering it waits until it may go, and gives None, or why it may not."""

    __slots__ = ("_has_passed", "_limiter", "_own", "_waiter", "ticket")

    def __init__(self, limiter: Limiter, ticket: MessageTicket, own: list[Need]) -> None:
        self.ticket = ticket
        self._limiter = limiter
        self._own = own
        self._has_passed = False
        self._waiter: LimitWaiter | None = None

    def let_pass(self) -> None:
        """The next hop has passed, and the message with it."""
        self._has_passed = True
        self.ticket.let_pass()

    def shorten(self, count: int) -> None:
        """The message has passed with another next hop: so many lines need not be passed any more."""
        if self._waiter is not None:
            self._waiter.shorten(count)

    async def __aenter__(self) -> HeldBack | None:
        whole, limiter = self.ticket, self._limiter
        needs = whole.due + self._own
        if not needs or limiter.takes(needs):
            self.let_pass()
            return None
        self._waiter = limiter.waiter(needs)
        whole.waiting.add(self)
        try:
            return await limiter.enter(self._waiter, self)
        except BaseException:
            self.leave()  # it may have passed in this very turn
            raise
        finally:
            self._waiter = None
            whole.waiting.discard(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Give back what it took, if it passed."""
        if self._has_passed:
            self._has_passed = False
            self._limiter.leave(self._own)


class Limiter:
    """One `limits` block in force."""

    def __init__(
        self, settings: LimitsSettings, clock: Clock, counts: Counts, lines: Mapping[str, Sequence[str]]
    ) -> None:
        """`counts`: who counts. `lines`: the names of its lines there, by scope."""
        self.settings = settings
        self._clock = clock
        self._counts = counts
        self._lines = lines
        self._is_uncounted = False
        self._scopes = {line: scope for scope, names in lines.items() for line in names}

    @property
    def slots(self) -> int | None:
        """How many messages may be under way at once in all; None if nothing says so."""
        concurrencies = [limit.maximum for limit in self.settings.all if isinstance(limit, Concurrency)]
        return min(concurrencies, default=None)

    def ticket(self, envelope: Envelope, emit: Emit, handover: Handover = DIRECT) -> MessageTicket:
        """A message that wants to pass, given like that: what it has passed, and how long it may wait."""
        return MessageTicket(self, envelope, emit, handover)

    def needs_of(self, envelope: Envelope) -> list[Need]:
        """What the message itself has to pass, whoever it goes to."""
        domain = envelope.sender.domain
        source = "" if domain is None else domain.ascii
        client = None if envelope.client is None else client_key(envelope.client)
        return [*self.needs("all", ""), *self.needs("ip", client), *self.needs("source", source)]

    def needs(self, scope: str, key: str | None) -> list[Need]:
        """The lines of a scope, for one key; none for a message that has no such key (no client's address)."""
        return [] if key is None else [(line, key) for line in self._lines[scope]]

    def takes(self, needs: Sequence[Need]) -> bool:
        """True if it passes them all at once."""
        return self._counts.take(needs)

    def leave(self, needs: Sequence[Need]) -> None:
        """Whoever passed them is done."""
        if needs:
            self._counts.leave(needs)

    def waiter(self, needs: Sequence[Need]) -> LimitWaiter:
        """Who wants to pass them, and has to wait."""
        return LimitWaiter(self._counts, needs)

    async def enter(self, waiter: LimitWaiter, ticket: Ticket) -> HeldBack | None:
        """None once the ticket has passed; or why it is held back. The first that is in its way is an event."""
        whole = ticket.ticket
        is_told = False

        def tell(need: Need, seconds: float) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                whole.emit(LimitReached(self._scopes[need[0]], need[1], seconds, message=whole.message))

        answer = await waiter.enter(whole.patience, tell, ticket.let_pass)
        was_told, self._is_uncounted = self._is_uncounted, answer is not None and answer.is_unanswered
        if self._is_uncounted and not was_told and answer is not None:  # and not for each message that waits then
            whole.emit(LimitsUncounted(answer.seconds, message=whole.message))
        return None if answer is None else self._held_back(answer, tell)

    def _held_back(self, answer: AskLater, tell: Callable[[Need, float], None]) -> HeldBack:
        eligible_at = self._clock.now() + timedelta(seconds=answer.seconds)
        if answer.is_unanswered:
            return HeldBack("", "", eligible_at, UNCOUNTED)
        tell(answer.need, answer.seconds)
        line, key = answer.need
        return HeldBack(self._scopes[line], key, eligible_at)
