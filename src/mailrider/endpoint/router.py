"""The way of a message through an endpoint: by its sender to a branch, by its recipients to the routes of that.

All is open when it is put together (`app.endpoints`): no settings are looked at here.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mailrider.delivery.limits.rules import THROTTLED
from mailrider.endpoint.pipeline.check import examine
from mailrider.model.handover import DIRECT, Handover
from mailrider.model.outcome import AttemptReport, Deferred, outcome_for
from mailrider.model.reply import Reply
from mailrider.settings.pipeline import fitting

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from mailrider.clock import Clock
    from mailrider.delivery.limits.rules import Limiter
    from mailrider.endpoint.pipeline.check import Arrival, Check
    from mailrider.endpoint.pipeline.route import PipelineDeliverer
    from mailrider.model.address import Mailbox, ReversePath
    from mailrider.model.domain import Domain
    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Emit
    from mailrider.settings.pipeline import Match
    from mailrider.smtp.content import Content

# RFC 5321 4.5.3.1.10: clients send it again for the recipients that were too many.
ON_ITS_OWN: Final = Reply.make(452, "4.5.3", "Send it to this recipient in a transaction of its own")


@dataclass(frozen=True, slots=True)
class Branch:
    """What holds for mail of some senders: the checks before its routes, and who is postmaster.

    A message that a check refuses is refused for all its recipients.
    """

    pipeline: PipelineDeliverer
    checks: Sequence[Check]
    postmaster: Mailbox
    emit: Emit

    def deliver(
        self, envelope: Envelope, content: Content, handover: Handover, arrival: Arrival
    ) -> Coroutine[Any, Any, AttemptReport]:
        """What passes the checks goes to the pipeline."""
        look = self._check if self.checks else self.pipeline.deliver
        return look(envelope, content, handover, arrival)

    async def _check(self, envelope: Envelope, content: Content, handover: Handover, arrival: Arrival) -> AttemptReport:
        found = await examine(self.checks, envelope, content, arrival, self.emit)
        if (refusal := found.refusal) is not None:
            return AttemptReport(tuple(outcome_for(each, refusal) for each in envelope.recipients))
        return await self.pipeline.deliver(envelope, content, handover, arrival)


class Router:
    """The sink of an endpoint: the part of its pipeline that is the sender's, with limits, checks and signatures before
    it."""

    def __init__(
        self,
        sources: Sequence[tuple[Sequence[Match], Branch]],
        others: Branch,
        limiter: Limiter | None,
        hostname: Domain,
        clock: Clock,
        emit: Emit,
        *,
        answers_each: bool = False,
    ) -> None:
        self._sources = sources
        self._others = others
        self._limiter = limiter
        self._hostname = hostname
        self._clock = clock
        self._emit = emit
        self._answers_each = answers_each

    def _branch(self, sender: ReversePath) -> Branch:
        return fitting(self._sources, sender.mailbox, self._others)

    def judge(self, sender: ReversePath, mailbox: Mailbox, first: Mailbox | None = None) -> Reply | None:
        """Why a recipient is refused; None if it is not. `first`: the one that the transaction has already."""
        pipeline = self._branch(sender).pipeline
        if (refusal := pipeline.refusal(mailbox)) is not None:
            return refusal
        if first is None or self._answers_each or pipeline.companions(sender, first, mailbox):
            return None
        return ON_ITS_OWN

    def postmaster(self, sender: ReversePath) -> Mailbox:
        """Whom `RCPT TO:<postmaster>` means."""
        return self._branch(sender).postmaster

    def deliver(self, envelope: Envelope, content: Content, arrival: Arrival) -> Coroutine[Any, Any, AttemptReport]:
        """See `MessageSink`."""
        branch = self._branch(envelope.sender)
        if self._limiter is None:
            return branch.deliver(envelope, content, DIRECT, arrival)
        return self._deliver_within(self._limiter, branch, envelope, content, arrival)

    async def _deliver_within(
        self, limiter: Limiter, branch: Branch, envelope: Envelope, content: Content, arrival: Arrival
    ) -> AttemptReport:
        domains = {each.mailbox.domain or self._hostname for each in envelope.recipients}
        async with AsyncExitStack() as stack:
            ticket = stack.enter_context(limiter.ticket(envelope, self._emit))
            until = self._clock.monotonic() + DIRECT.patience
            # In one order, so that no two messages wait for each other; and one patience for all domains together.
            for domain in sorted(domains, key=lambda each: each.ascii):
                ticket.patience = max(0.0, until - self._clock.monotonic())
                if await stack.enter_async_context(ticket.to(domain)) is not None:
                    return AttemptReport(tuple(Deferred(each, THROTTLED) for each in envelope.recipients))
            return await branch.deliver(envelope, content, Handover(frozenset({limiter})), arrival)
