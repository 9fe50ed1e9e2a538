"""`target.remote`: one attempt to bring a message to the recipients' own mail servers, domain by domain."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from mailrider.delivery.destination import Destination
from mailrider.delivery.job import AttemptRules, DestinationLike, Job
from mailrider.delivery.message import MessageDelivery, route
from mailrider.delivery.settings import EightBit
from mailrider.model.domain import Domain
from mailrider.net.address_guard import AddressGuard
from mailrider.policy.requiretls import ORDINARY, WAIVED, message_security
from mailrider.policy.sts.policy import STSPolicies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from mailrider.clock import Clock
    from mailrider.delivery.destination import Routing
    from mailrider.delivery.job import Connections
    from mailrider.delivery.limits.rules import Limiter
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.dkim.sign import DKIMSigning
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Emit
    from mailrider.policy.base import Policy
    from mailrider.policy.requiretls import MessageSecurity
    from mailrider.policy.sts.lookup import PolicyLookup
    from mailrider.settings.types import IPAddress
    from mailrider.smtp.content import Content

MAX_JUDGED = 10_000  # addresses of which it is remembered whether they are prohibited


class RemoteDelivery(MessageDelivery):
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
        """`signing`: see `MessageDelivery`. `reports_tls`: see `AttemptRules`.

        `report_networks`: those that TLS reports may go to although they are not public.
        """
        reports_tls = reports_tls and settings.tlsrpt
        is_strict = settings.eight_bit is EightBit.STRICT
        prohibits = lru_cache(MAX_JUDGED)(settings.prohibits)  # most mail goes where other mail just went
        rules = AttemptRules(is_strict, settings.local_ip, prohibits, reports_tls)
        super().__init__(rules, clock, emit, limiter, signing)
        self.settings = settings
        # Where a TLS report goes is a stranger's word.
        self._report_guard = AddressGuard.beside(settings.prohibited_addresses, report_networks)
        self._report_rules = replace(rules, prohibits=self._prohibits_reports, reports_tls=False)
        self.routing = routing
        self._policies = policies
        self._evidence = evidence
        self._connections = connections

    def _prohibits_reports(self, address: IPAddress) -> bool:
        return bool(self._report_guard.refusal(address))

    async def look_again(self, envelope: Envelope, content: Content) -> None:
        """Check whether the domains have new MTA-STS policies: before the last attempt at a message (RFC 8461 5.1)."""
        for policy in await self._policies_for(self.security(envelope, content)):
            if isinstance(policy, STSPolicies):
                for next_hop in route(envelope).groups:  # one in a queue, which has a job for each
                    if isinstance(next_hop, Domain):
                        await policy.source.recheck_id(next_hop)

    def security(self, envelope: Envelope, content: Content) -> MessageSecurity:
        """See `MessageDelivery`."""
        settings = self.settings
        if envelope.tls_report:
            return WAIVED
        fields = content.header_fields("TLS-Required") if settings.requiretls_override else ()
        if not fields and not envelope.requiretls:
            return ORDINARY
        return message_security(
            envelope, fields, override=settings.requiretls_override, relaxed=settings.relaxed_requiretls
        )

    async def destination(
        self, next_hop: NextHop, security: MessageSecurity, message: str = "", *, waits_for_all: bool = False
    ) -> Destination:
        """A next hop, with the policies that bind a message of that security; `message` is its id."""
        policies = await self._policies_for(security)
        demanded = security.requirement
        return Destination(next_hop, self.routing, policies, demanded, message, waits_for_all=waits_for_all)

    async def _policies_for(self, security: MessageSecurity) -> Sequence[Policy]:
        if security.gathers_evidence:
            return await self._evidence()
        return self._policies if security.policies_bind else ()

    async def destination_and_connections(self, next_hop: NextHop, job: Job) -> tuple[DestinationLike, Connections]:
        """See `MessageDelivery`."""
        return await self.destination(next_hop, job.security, job.envelope.id), self._connections

    def rules_for(self, envelope: Envelope) -> AttemptRules:
        """See `MessageDelivery`."""
        return self._report_rules if envelope.tls_report else self.rules

    async def sts_policy(self, next_hop: NextHop) -> PolicyLookup | None:
        """What is known of the MTA-STS policy of a next hop, in force or not; None for an address."""
        for policy in await self._evidence():
            if isinstance(policy, STSPolicies) and isinstance(next_hop, Domain):
                return await policy.source.lookup(next_hop)
        return None
