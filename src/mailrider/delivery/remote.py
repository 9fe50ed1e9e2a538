"""`target.remote`: one attempt to bring a message to the recipients' own mail servers.

Recipients are grouped by domain; domains are attempted concurrently, and one's failure never changes another's. Always
an `AttemptReport` with an outcome for each recipient, never an exception for a mail reason.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from mailrider.delivery.attempt import BUG, CLOSED, Attempt, AttemptRules, Job
from mailrider.delivery.destination import Destination
from mailrider.delivery.settings import EightBit
from mailrider.errors import ShuttingDown
from mailrider.model.domain import Domain
from mailrider.model.event import Bug, RecipientAttempted, RecipientSettled, discard
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import QUARANTINED, AttemptReport, Deferred, Failed
from mailrider.model.reply import Reply
from mailrider.model.value import value
from mailrider.net.guard import AddressGuard
from mailrider.policy.requiretls import WAIVED, message_security
from mailrider.policy.sts.policy import STSPolicies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from mailrider.clock import Clock
    from mailrider.delivery.attempt import Connections
    from mailrider.delivery.destination import Routing
    from mailrider.delivery.limits.rules import Limiter, MessageTicket
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.dkim.sign import DKIMSigning
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Emit
    from mailrider.model.handover import Handover, Watcher
    from mailrider.model.outcome import Outcome
    from mailrider.policy.base import Policy
    from mailrider.policy.requiretls import MessageSecurity
    from mailrider.policy.sts.lookup import PolicyLookup
    from mailrider.settings.types import IPAddress
    from mailrider.smtp.content import Content

NO_DOMAIN = Reply.make(550, "5.1.1", "The recipient has no domain, so there is no server to send it to")
MAX_PARALLEL_NEXT_HOPS = 100  # of one message: a mailing list must not take every socket at once

_UNLIMITED = nullcontext()


@value
class Route:
    """Where an envelope goes: indices of its recipients by next hop, and the outcomes that need no delivery."""

    groups: dict[NextHop, list[int]]
    settled: dict[int, Outcome]


def route(envelope: Envelope) -> Route:
    """The next hops of an envelope's recipients; a quarantined message has none."""
    groups: dict[NextHop, list[int]] = {}
    settled: dict[int, Outcome] = {}
    for index, recipient in enumerate(envelope.recipients):
        if envelope.quarantined:
            settled[index] = Failed(recipient, QUARANTINED)
        elif recipient.mailbox.domain is None:
            settled[index] = Failed(recipient, NO_DOMAIN)
        else:
            groups.setdefault(recipient.mailbox.domain, []).append(index)
    return Route(groups, settled)


class RemoteDelivery:
    """Delivers messages. `policies` are those of `mx_auth`; `evidence` gives those that REQUIRETLS asks in any case."""

    def __init__(
        self,
        settings: RemoteSettings,
        routing: Routing,
        policies: Sequence[Policy],
        evidence: Callable[[], Awaitable[Sequence[Policy]]],
        connections: Connections,
        clock: Clock,
        emit: Emit,
        limiter: Limiter | None = None,
        signing: DKIMSigning | None = None,
        *,
        reports_tls: bool = False,
        report_networks: Iterable[IPv4Network | IPv6Network] = (),
    ) -> None:
        """`signing`: what signs messages on their way out. `reports_tls`: see `AttemptRules`.

        `report_networks`: those that TLS reports may go to although they are not public.
        """
        self.settings = settings
        self._rules = AttemptRules(
            settings.eight_bit is EightBit.STRICT,
            settings.local_ip,
            settings.prohibits,
            reports_tls and settings.tlsrpt,
        )
        # Where a TLS report goes is a stranger's word.
        self._report_guard = AddressGuard.beside(settings.prohibited_addresses, report_networks)
        self._report_rules = replace(self._rules, prohibits=self._prohibits_reports, reports_tls=False)
        self.routing = routing
        self._policies = policies
        self._evidence = evidence
        self._connections = connections
        self._clock = clock
        self._emit = emit
        self._limiter = limiter
        self._signing = signing

    def _prohibits_reports(self, address: IPAddress) -> bool:
        return bool(self._report_guard.refusal(address))

    async def deliver(self, envelope: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        """One attempt. The report has the envelope's order."""
        signed: tuple[str, ...] = ()
        if self._signing is not None:
            given, content = content, await self._signing.modify(content)
            signed = content.signed_by if content is not given else ()
        job = Job(envelope, content, self.security(envelope, content))
        plan = route(envelope)
        outcomes: dict[int, Outcome] = dict(plan.settled)
        limiter, groups, watcher = self._limiter, plan.groups, handover.watcher
        with _UNLIMITED if limiter is None else limiter.ticket(envelope, self._emit, handover) as ticket:
            if len(groups) == 1:
                # No task where there is one next hop.
                ((next_hop, indices),) = groups.items()
                attempted = [(indices, await self._attempt(job, next_hop, indices, ticket, watcher))]
            else:
                attempted = await self._attempt_all(job, groups, ticket, watcher)
        for indices, results in attempted:
            outcomes.update(zip(indices, results, strict=True))
        report = AttemptReport(tuple([outcomes[index] for index in range(len(envelope.recipients))]))
        if signed:
            report = report.signed_by(signed)
        if self._emit is not discard:
            settled = RecipientSettled if watcher is None else RecipientAttempted
            for outcome in report:
                sender, domain = str(envelope.sender), outcome.recipient.mailbox.domain
                self._emit(settled(domain, sender, outcome, message=envelope.id))
        return report

    async def look_again(self, envelope: Envelope, content: Content) -> None:
        """Check whether the domains have new MTA-STS policies: before the last attempt at a message (RFC 8461 5.1)."""
        for policy in await self._policies_for(self.security(envelope, content)):
            if isinstance(policy, STSPolicies):
                for next_hop in route(envelope).groups:  # one in a queue, which has a job for each
                    if isinstance(next_hop, Domain):
                        await policy.source.recheck_id(next_hop)

    def security(self, envelope: Envelope, content: Content) -> MessageSecurity:
        """What the message itself demands or waives."""
        settings = self.settings
        if envelope.tls_report:
            return WAIVED
        fields = content.header_fields("TLS-Required") if settings.requiretls_override else ()
        return message_security(
            envelope, fields, override=settings.requiretls_override, relaxed=settings.relaxed_requiretls
        )

    async def destination(self, next_hop: NextHop, security: MessageSecurity, message: str = "") -> Destination:
        """A next hop, with the policies that bind a message of that security; `message` is its id."""
        policies = await self._policies_for(security)
        return Destination(next_hop, self.routing, policies, security.requirement, message)

    async def _policies_for(self, security: MessageSecurity) -> Sequence[Policy]:
        if security.gathers_evidence:
            return await self._evidence()
        return self._policies if security.policies_bind else ()

    async def _attempt_all(
        self, job: Job, groups: dict[NextHop, list[int]], ticket: MessageTicket | None, watcher: Watcher | None
    ) -> list[tuple[list[int], tuple[Outcome, ...]]]:
        slots = asyncio.Semaphore(MAX_PARALLEL_NEXT_HOPS)

        async def attempt(item: tuple[NextHop, list[int]]) -> tuple[list[int], tuple[Outcome, ...]]:
            async with slots:
                return item[1], await self._attempt(job, *item, ticket, watcher)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(item)) for item in groups.items()]
        return [task.result() for task in tasks]

    async def _attempt(
        self,
        job: Job,
        next_hop: NextHop,
        indices: list[int],
        ticket: MessageTicket | None,
        watcher: Watcher | None,
    ) -> tuple[Outcome, ...]:
        recipients: Sequence[Recipient] = job.envelope.recipients
        if len(indices) < len(recipients):
            recipients = [recipients[index] for index in indices]
        outcomes: tuple[Outcome, ...] | None = None
        try:
            if ticket is None:
                outcomes = await self._run(job, next_hop, recipients, watcher)
            else:
                async with ticket.to(next_hop) as held_back:
                    if held_back is None:
                        outcomes = await self._run(job, next_hop, recipients, watcher)
                    else:
                        outcomes = tuple(map(held_back.deferred, recipients))
        except ShuttingDown:
            outcomes = tuple(Deferred(recipient, CLOSED) for recipient in recipients)
        except Exception as error:
            # Around an attempt, as in it: deferred, never a bounce; and no other domain is to suffer from it.
            self._emit(Bug(f"delivery to {next_hop}", error, message=job.envelope.id))
        return outcomes or tuple(Deferred(recipient, BUG) for recipient in recipients)

    async def _run(
        self, job: Job, next_hop: NextHop, recipients: Sequence[Recipient], watcher: Watcher | None
    ) -> tuple[Outcome, ...]:
        destination = await self.destination(next_hop, job.security, job.envelope.id)
        return await self.attempt(job, recipients, destination, self._connections, watcher).run()

    def attempt(
        self,
        job: Job,
        recipients: Sequence[Recipient],
        destination: Destination,
        connections: Connections,
        watcher: Watcher | None = None,
    ) -> Attempt:
        """An attempt at one next hop, over those connections."""
        slots = None if self._limiter is None else self._limiter.slots
        rules = self._report_rules if job.envelope.tls_report else self._rules
        return Attempt(job, recipients, destination, connections, rules, self._clock, self._emit, watcher, slots=slots)

    async def sts_policy(self, next_hop: NextHop) -> PolicyLookup | None:
        """What is known of the MTA-STS policy of a next hop, in force or not; None for an address."""
        for policy in await self._evidence():
            if isinstance(policy, STSPolicies) and isinstance(next_hop, Domain):
                return await policy.source.lookup(next_hop)
        return None
