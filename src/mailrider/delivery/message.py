"""One attempt at a message: at each of its next hops, within limits. The same for `target.remote`, `smtp` and `lmtp`.

A target says which next hops there are, what the message demands there, and makes the `Attempt`. Next hops are tried
concurrently, and one's failure never changes another's. Always an `AttemptReport` with an outcome for each recipient,
never an exception for a mail reason.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING

from mailrider.delivery.attempt import Attempt
from mailrider.delivery.attempt_record import BUG, CLOSED
from mailrider.delivery.job import AttemptRules, Connections, DestinationLike, Job
from mailrider.errors import ShuttingDown
from mailrider.model.event import Bug, RecipientAttempted, RecipientSettled, discard
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import QUARANTINED, AttemptReport, Deferred, Failed
from mailrider.model.reply import Reply
from mailrider.model.value import value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.clock import Clock
    from mailrider.delivery.limits.rules import HeldBack, Limiter, MessageTicket
    from mailrider.dkim.sign import DKIMSigning
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Emit
    from mailrider.model.handover import Handover, Watcher
    from mailrider.model.outcome import Outcome
    from mailrider.policy.requiretls import MessageSecurity
    from mailrider.smtp.content import Content

NO_DOMAIN = Reply.make(550, "5.1.1", "The recipient has no domain, so there is no server to send it to")
MAX_PARALLEL_NEXT_HOPS = 100  # of one message: a mailing list must not take every socket at once

_UNLIMITED = nullcontext()


@value
class Route:
    """Where an envelope goes: indices of its recipients by next hop, and the outcomes that need no delivery."""

    groups: dict[NextHop, list[int]]
    settled: dict[int, Outcome]


def route(envelope: Envelope, to_all: NextHop | None = None) -> Route:
    """The next hops of an envelope's recipients, or the one for all; a quarantined message has none."""
    groups: dict[NextHop, list[int]] = {}
    settled: dict[int, Outcome] = {}
    for index, recipient in enumerate(envelope.recipients):
        next_hop = to_all or recipient.mailbox.domain
        if envelope.quarantined:
            settled[index] = Failed(recipient, QUARANTINED)
        elif next_hop is None:
            settled[index] = Failed(recipient, NO_DOMAIN)
        else:
            groups.setdefault(next_hop, []).append(index)
    return Route(groups, settled)


class MessageDelivery(ABC):
    """Delivers messages. `next_hop` None: each recipient's domain is one. `session_codes`: see `Transaction`."""

    next_hop: NextHop | None = None
    is_lmtp = False
    session_codes: frozenset[int] = frozenset()

    def __init__(
        self,
        rules: AttemptRules,
        clock: Clock,
        emit: Emit,
        limiter: Limiter | None = None,
        signing: DKIMSigning | None = None,
    ) -> None:
        """`signing`: what signs messages on their way out."""
        self.rules = rules
        self._clock = clock
        self._emit = emit
        self._limiter = limiter
        self._signing = signing

    @abstractmethod
    def security(self, envelope: Envelope, content: Content) -> MessageSecurity:
        """What the message itself demands or waives."""

    @abstractmethod
    async def destination_and_connections(self, next_hop: NextHop, job: Job) -> tuple[DestinationLike, Connections]:
        """The hosts of a next hop, and the connections to them."""

    def rules_for(self, _: Envelope) -> AttemptRules:
        """The rules of attempts at a message."""
        return self.rules

    def attempt(
        self,
        job: Job,
        recipients: Sequence[Recipient],
        destination: DestinationLike,
        connections: Connections,
        watcher: Watcher | None = None,
    ) -> Attempt:
        """An attempt at one next hop, over those connections."""
        return Attempt(
            job,
            recipients,
            destination,
            connections,
            self.rules_for(job.envelope),
            self._clock,
            self._emit,
            watcher,
            lmtp=self.is_lmtp,
            session_codes=self.session_codes,
            slots=None if self._limiter is None else self._limiter.slots,
        )

    async def deliver(self, envelope: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        """One attempt. The report has the envelope's order."""
        signed: tuple[str, ...] = ()
        if self._signing is not None:
            given, content = content, await self._signing.modify(content)
            signed = content.signed_by if content is not given else ()
        job = Job(envelope, content, self.security(envelope, content))
        plan = route(envelope, self.next_hop)
        outcomes, groups, limiter = plan.settled, plan.groups, self._limiter
        with _UNLIMITED if limiter is None else limiter.ticket(envelope, self._emit, handover) as ticket:
            if len(groups) == 1:
                # No task where there is one next hop.
                ((next_hop, indices),) = groups.items()
                attempted = [(indices, await self._attempt(job, next_hop, indices, ticket, handover))]
            else:
                attempted = await self._attempt_all(job, groups, ticket, handover)
        for indices, results in attempted:
            outcomes.update(zip(indices, results, strict=True))
        report = AttemptReport(tuple([outcomes[index] for index in range(len(envelope.recipients))]))
        if signed:
            report = report.signed_by(signed)
        if self._emit is not discard:
            self._tell(envelope, report, handover.watcher)
        return report

    def _tell(self, envelope: Envelope, report: AttemptReport, watcher: Watcher | None) -> None:
        settled = RecipientSettled if watcher is None else RecipientAttempted
        sender = envelope.sender.text
        for outcome in report.outcomes:
            domain = self.next_hop or outcome.recipient.mailbox.domain
            self._emit(settled(domain, sender, outcome, message=envelope.id))

    async def _attempt_all(
        self, job: Job, groups: dict[NextHop, list[int]], ticket: MessageTicket | None, handover: Handover
    ) -> list[tuple[list[int], tuple[Outcome, ...]]]:
        slots = asyncio.Semaphore(MAX_PARALLEL_NEXT_HOPS)

        async def attempt(item: tuple[NextHop, list[int]]) -> tuple[list[int], tuple[Outcome, ...]]:
            async with slots:
                return item[1], await self._attempt(job, *item, ticket, handover)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(item)) for item in groups.items()]
        return [task.result() for task in tasks]

    async def _attempt(
        self, job: Job, next_hop: NextHop, indices: list[int], ticket: MessageTicket | None, handover: Handover
    ) -> tuple[Outcome, ...]:
        recipients: Sequence[Recipient] = job.envelope.recipients
        if len(indices) < len(recipients):
            recipients = [recipients[index] for index in indices]
        outcomes: tuple[Outcome, ...] | None = None
        try:
            if ticket is None:
                outcomes = await self._run(job, next_hop, recipients, handover)
            else:
                outcomes = await self._run_within_limits(job, next_hop, recipients, ticket, handover)
        except ShuttingDown:
            outcomes = tuple(Deferred(recipient, CLOSED) for recipient in recipients)
        except Exception as error:
            # Around an attempt, as in it: deferred, never a bounce; and no other domain is to suffer from it.
            self._emit(Bug(f"delivery to {next_hop}", error, message=job.envelope.id))
        return outcomes or tuple(Deferred(recipient, BUG) for recipient in recipients)

    async def _run(
        self, job: Job, next_hop: NextHop, recipients: Sequence[Recipient], handover: Handover
    ) -> tuple[Outcome, ...]:
        destination, connections = await self.destination_and_connections(next_hop, job)
        return await self.attempt(job, recipients, destination, connections, handover.watcher).run()

    async def _run_within_limits(
        self,
        job: Job,
        next_hop: NextHop,
        recipients: Sequence[Recipient],
        ticket: MessageTicket,
        handover: Handover,
    ) -> tuple[Outcome, ...]:
        """All recipients whose domains may pass go together; the others come again."""
        domains = [each.mailbox.domain or next_hop for each in recipients]
        held_back: dict[NextHop, HeldBack] = {}
        until = self._clock.monotonic() + handover.patience
        left = sorted(set(domains), key=lambda each: each.ascii)
        results: tuple[Outcome, ...] = ()
        while left:
            # All together, so that it holds nothing while it waits; then without the one that is in the way.
            ticket.patience = max(0.0, until - self._clock.monotonic())
            async with ticket.to(*left) as answer:
                if answer is None:
                    going = [each for each, domain in zip(recipients, domains, strict=True) if domain not in held_back]
                    results = await self._run(job, next_hop, going, handover)
                    break
            closed = [each for each in left if answer.scope != "destination" or each.ascii == answer.key]
            held_back.update(dict.fromkeys(closed, answer))
            left = [each for each in left if each not in held_back]
        outcomes = iter(results)
        return tuple(
            held_back[domain].deferred(recipient) if domain in held_back else next(outcomes)
            for recipient, domain in zip(recipients, domains, strict=True)
        )
