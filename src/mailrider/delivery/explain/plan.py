"""The delivery plan for a next hop, with its evidence, made by the code that delivers.

`Explainer` walks the same `Destination` as an attempt, for three kinds of message: an ordinary one, one with REQUIRETLS
and one with `TLS-Required: No`. Unless told not to connect, it then makes a dry
run of a whole `Attempt` for each (`dry_run`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mailrider.delivery.connection.connect import ConnectRequest
from mailrider.delivery.connection.unusable import Unusable
from mailrider.delivery.explain.dry_run import DryRun
from mailrider.delivery.job import Job
from mailrider.delivery.mx import HostNotFound, Unroutable
from mailrider.dns.answer import LookupFailed, RecordType
from mailrider.dns.proof import SIGNED_NAME
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.security import Mechanism, Refusal
from mailrider.policy.dane import BoundDANE
from mailrider.policy.requiretls import ORDINARY, WAIVED, message_security
from mailrider.policy.sts.policy import BoundSTS
from mailrider.smtp.content import Content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.delivery.connection.connect import Connector
    from mailrider.delivery.destination import Destination
    from mailrider.delivery.mx import Address
    from mailrider.delivery.remote import RemoteDelivery
    from mailrider.model.domain import NextHop
    from mailrider.model.outcome import Outcome, Try
    from mailrider.model.reply import Reply
    from mailrider.model.route import Candidate, Candidates, Host
    from mailrider.model.security import MXLevel, PeerEvidence, Requirement, Verdict
    from mailrider.policy.dane import TLSALookup
    from mailrider.policy.judge import Judgement
    from mailrider.policy.sts.lookup import PolicyLookup
    from mailrider.smtp.capabilities import Capabilities

_CONTENT = Content.inspect(b"Subject: dry_run\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Demand:
    """What one kind of message meets at a candidate before any connection.

    `requirement` is what a connection must prove; None where `refusal` says that there would be none.
    """

    mx_level: MXLevel
    requirement: Requirement | None
    refusal: Refusal | None


@dataclass(frozen=True, slots=True)
class Contact:
    """One address of a candidate: what the server proved, or why it could not be used.

    `judgements` by kind of message, and `problems` of the kinds that get no connection to be judged. `verdicts` is what
    DANE, where it speaks, and PKIX say of the certificate. `notes` are events on the way, such as a fallback.
    """

    address: Address
    prohibited: bool = False
    problem: Reply | None = None
    evidence: PeerEvidence | None = None
    capabilities: Capabilities | None = None
    judgements: dict[str, Judgement] = field(default_factory=dict)
    problems: dict[str, Reply] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[Try, ...] = ()


@dataclass(frozen=True, slots=True)
class CandidatePlan:
    """One candidate: its addresses or why it has none, its TLSA lookups, demands by kind of message, contacts.

    `sts_match`: whether the domain's MTA-STS policy names it; None without one. `is_ourselves`: it and all of equal or
    worse preference are never tried.
    """

    candidate: Candidate
    is_ourselves: bool
    host: Host | HostNotFound
    sts_match: bool | None
    tlsa: tuple[TLSALookup, ...]
    demands: dict[str, Demand]
    contacts: tuple[Contact, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that a postmaster may want to see about a next hop.

    `outcomes` by kind of message: what an attempt would end in now; a delivered one means that the message would be
    offered there. Empty if nothing was connected. `dnssec_off` says why the resolver cannot tell what is authentic,
    `validated_by` who can; `resolver_fault` what is wrong with it if it cannot look up anything: then nothing else here
    says much.
    """

    next_hop: NextHop
    candidates: Candidates | None
    unroutable: Reply | None
    sts: PolicyLookup | None
    plans: tuple[CandidatePlan, ...]
    outcomes: dict[str, Outcome]
    dnssec_off: str
    resolver_fault: str = ""
    validated_by: str = ""


class Explainer:
    """Makes explanations with a target's own parts."""

    def __init__(self, delivery: RemoteDelivery, connector: Connector) -> None:
        self._delivery = delivery
        self._connector = connector

    async def explain(self, next_hop: NextHop, *, connect: bool) -> Explanation:
        """The plan for `next_hop`; with `connect` its servers are called."""
        kinds = self._kinds(next_hop)
        destinations = {
            kind: await self._delivery.destination(next_hop, job.security, waits_for_all=True)
            for kind, job in kinds.items()
        }
        candidates, unroutable = None, None
        try:
            for destination in destinations.values():
                candidates = await destination.find()
        except Unroutable as error:
            unroutable = error.reply
        outcomes: dict[str, Outcome] = {}
        plans: list[CandidatePlan] = []
        async with DryRun(self._connector) as dry_run:
            if candidates is not None:
                for group in candidates.groups:
                    plans += [await self._plan(each, destinations, dry_run if connect else None) for each in group]
            if connect or unroutable:
                outcomes = {kind: await self._try_dry(job, next_hop, dry_run) for kind, job in kinds.items()}
        sts = next((each.lookup for each in destinations["requiretls"].policies if isinstance(each, BoundSTS)), None)
        resolver = self._delivery.routing.resolver
        sts = sts or await self._delivery.sts_policy(next_hop)
        fault = await self._resolver_fault() if _has_failed(unroutable, plans) else ""
        return Explanation(
            next_hop,
            candidates,
            unroutable,
            sts,
            tuple(plans),
            outcomes,
            resolver.dnssec_off,
            fault,
            resolver.validated_by,
        )

    async def _resolver_fault(self) -> str:
        """Why the resolver cannot look up a name that has nothing to do with this one; empty if it can."""
        try:
            await self._delivery.routing.resolver.lookup(SIGNED_NAME, RecordType.MX, fresh=True)
        except LookupFailed as error:
            return str(error)
        return ""

    def _kinds(self, next_hop: NextHop) -> dict[str, Job]:
        settings = self._delivery.settings
        recipient = Recipient(Mailbox("postmaster", next_hop))
        sender = ReversePath(Mailbox("postmaster", settings.hostname))
        plain = Envelope(sender, (recipient,))
        demanding = Envelope(sender, (recipient,), requiretls=True)
        relaxed = settings.relaxed_requiretls
        required = message_security(demanding, (), override=False, relaxed=relaxed)
        waived = WAIVED if settings.requiretls_override else ORDINARY
        return {
            "ordinary": Job(plain, _CONTENT, ORDINARY),
            "requiretls": Job(demanding, _CONTENT, required),
            "tls_required_no": Job(plain, _CONTENT, waived),
        }

    async def _try_dry(self, job: Job, next_hop: NextHop, dry_run: DryRun) -> Outcome:
        destination = await self._delivery.destination(next_hop, job.security)
        attempt = self._delivery.attempt(job, job.envelope.recipients, destination, dry_run)
        (outcome,) = await attempt.run()
        return outcome

    async def _plan(
        self, candidate: Candidate, destinations: dict[str, Destination], dry_run: DryRun | None
    ) -> CandidatePlan:
        thorough = destinations["requiretls"]
        host = await thorough.host(candidate)
        is_ourselves = await thorough.usable_group((candidate,)) is None
        demands = {kind: await _demand(destination, candidate, host) for kind, destination in destinations.items()}
        tlsa: tuple[TLSALookup, ...] = ()
        sts_match: bool | None = None
        for policy in thorough.policies:
            if isinstance(policy, BoundDANE):
                tlsa = tuple(policy.lookups.get(candidate, ()))
            elif isinstance(policy, BoundSTS) and policy.lookup.policy is not None:
                sts_match = policy.matches(candidate)
        contacts: list[Contact] = []
        if dry_run is not None and not is_ourselves and not isinstance(host, HostNotFound):
            numbers = range(len(host.addresses))
            contacts = [await self._contact(host, number, destinations, demands, dry_run) for number in numbers]
        return CandidatePlan(candidate, is_ourselves, host, sts_match, tlsa, demands, tuple(contacts))

    async def _contact(
        self,
        host: Host,
        number: int,
        destinations: dict[str, Destination],
        demands: dict[str, Demand],
        dry_run: DryRun,
    ) -> Contact:
        address, left = host.addresses[number], len(host.addresses) - number
        if self._delivery.settings.prohibits(address):
            return Contact(address, prohibited=True)
        notes: list[Try] = []
        judgements: dict[str, Judgement] = {}
        problems: dict[str, Reply] = {}
        verdicts: dict[Mechanism, Verdict] = {}
        seen: Contact = Contact(address)
        for kind, demand in demands.items():
            if demand.requirement is None:
                continue
            destination = destinations[kind]
            budget = destination.budget(host.candidate)
            level = demand.mx_level
            call = ConnectRequest(
                destination.next_hop, host.candidate, address, demand.requirement, level, budget, notes.append, left
            )
            session = await dry_run.contact(call)
            if isinstance(session, Unusable):
                problems[kind] = session.reply
                if seen.evidence is None:
                    seen = Contact(address, problem=session.reply)
                continue
            judgements[kind] = self._connector.judge(call, session)
            verdicts |= {verdict.mechanism: verdict for verdict in self._connector.verdicts(call, session)}
            if seen.evidence is None or seen.evidence.tls is None:
                seen = Contact(address, evidence=session.evidence, capabilities=session.capabilities)
        return replace(
            seen,
            judgements=judgements,
            problems=problems,
            verdicts=tuple(verdicts[each] for each in (Mechanism.DANE, Mechanism.PKIX) if each in verdicts),
            notes=tuple(notes),
        )


def _has_failed(unroutable: Reply | None, plans: Sequence[CandidatePlan]) -> bool:
    """True if a lookup failed, be it that of the MX, an address, or TLSA records."""
    hosts = [plan.host.reply for plan in plans if isinstance(plan.host, HostNotFound)]
    if any(reply is not None and reply.is_transient for reply in (unroutable, *hosts)):
        return True
    return any(isinstance(lookup.result, LookupFailed) for plan in plans for lookup in plan.tlsa)


async def _demand(destination: Destination, candidate: Candidate, host: Host | HostNotFound) -> Demand:
    admission = await destination.admit(candidate)
    if admission.refusal is not None:
        return Demand(admission.level, None, admission.refusal)
    if isinstance(host, HostNotFound):
        return Demand(admission.level, None, None)
    requirement = await destination.requirement(host)
    if isinstance(requirement, Refusal):
        return Demand(admission.level, None, requirement)
    return Demand(admission.level, requirement, None)
