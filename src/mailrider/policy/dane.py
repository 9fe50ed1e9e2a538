"""`mx_auth dane`: what the TLSA records of a host demand (RFC 7672 2.2).

The host's addresses must be signed before TLSA is asked for (RFC 7672 2.2.1); where DNS did not say whether they are,
the host is refused. Base domains: the fully expanded name, if the whole CNAME chain is authenticated, then the
original; the first with an authenticated, non-empty set decides.

| what DNS says at a base domain | what follows |
|---|---|
| an authenticated set with usable records | the certificate must match one |
| an authenticated set without a usable record | TLS, unauthenticated (RFC 7672 2.2) |
| nothing, or nothing authenticated | the next base domain; after the last: DANE is silent |
| the lookup failed | the host is refused: somebody may be hiding the records (RFC 7672 2.1.2) |
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from mailrider.dane.tlsa import select_usable
from mailrider.dns.answer import LookupFailed
from mailrider.dns.cache import weigh
from mailrider.dns.resolver import lookup_tlsa
from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.model.event import LookupDidFail, discard
from mailrider.model.security import NO_REQUIREMENT, DANETrust, Refusal, Requirement, TLSARecord, TLSLevel
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.model.tls_session import DANESeen
from mailrider.policy.base import DestinationPolicy, ReadyPolicy

if TYPE_CHECKING:
    from mailrider.dns.answer import Answer, MalformedTLSA
    from mailrider.dns.resolver import Resolver
    from mailrider.model.domain import NextHop
    from mailrider.model.event import Emit
    from mailrider.model.route import Candidate, Candidates, Host

NAME = "dane"
# Places in the cache of a set whose meaning is remembered: real ones take one. 4,096 hostile ones would be 300 MB.
MAX_REMEMBERED = 4

_UNUSABLE = TLSProblem(TLSProblemKind.NO_USABLE_TLSA, "none of the host's TLSA records can be used")


class DANEPolicies(ReadyPolicy):
    """The policy `dane` of a target; `port` is where its MX hosts listen."""

    name = NAME

    def __init__(self, resolver: Resolver, port: int, emit: Emit = discard) -> None:
        self.emit = emit
        self._resolver = resolver
        self._port = port

    async def bind(self, candidates: Candidates, message: str = "") -> BoundDANE:
        """DANE for these candidates."""
        return BoundDANE(self, candidates, message)

    async def lookup(self, base: Domain) -> Answer[TLSARecord | MalformedTLSA] | None:
        """The TLSA answer at a base domain; None where the name would be too long to exist. Raises `LookupFailed`."""
        try:
            name = tlsa_name(base, self._port)
        except InvalidValue:
            return None
        return await lookup_tlsa(self._resolver, name)


@dataclass(frozen=True, slots=True)
class TLSALookup:
    """What DNS said about the TLSA records of one base domain; None if their name would be too long to exist."""

    base: Domain
    result: Answer[TLSARecord | MalformedTLSA] | LookupFailed | None


class BoundDANE(DestinationPolicy):
    """DANE for the candidates of one next hop. `lookups` is the evidence: what was asked for which host, and found."""

    def __init__(self, policy: DANEPolicies, candidates: Candidates, message: str) -> None:
        self.lookups: dict[Candidate, list[TLSALookup]] = {}
        self._policy = policy
        self._candidates = candidates
        self._message = message

    async def requirement(self, host: Host) -> Requirement | Refusal:
        """What the host's TLSA records demand."""
        name = host.candidate.host
        if host.doubt:
            reason = f"it is not known whether {name} is signed: {host.doubt}"
            return self._refuse(host, TLSProblem(TLSProblemKind.TLSA_LOOKUP_FAILED, reason), name, "CNAME")
        if not host.signed or not isinstance(name, Domain):
            return NO_REQUIREMENT
        lookups = self.lookups[host.candidate] = []
        for base in base_domains(name, host):
            try:
                answer = await self._policy.lookup(base)
            except LookupFailed as error:
                lookups.append(TLSALookup(base, error))
                problem = TLSProblem(TLSProblemKind.TLSA_LOOKUP_FAILED, str(error), error.failure)
                return self._refuse(host, problem, error.name, error.record_type)
            lookups.append(TLSALookup(base, answer))
            if answer is not None and answer.authentic and answer.records:
                names = reference_names(base, name, self._candidates)
                demand = _remembered if weigh(answer) <= MAX_REMEMBERED else _requirement
                return demand(answer.records, base, names)
        return NO_REQUIREMENT

    def seen(self, candidate: Candidate) -> DANESeen | None:
        """The TLSA set that decides for the host, as TLS reports show it; None if there is none."""
        for lookup in self.lookups.get(candidate, ()):
            answer = lookup.result
            if answer is not None and not isinstance(answer, LookupFailed) and answer.authentic and answer.records:
                shown = tuple(str(each) for each in answer.records if isinstance(each, TLSARecord))
                return DANESeen(str(lookup.base), shown, bool(select_usable(answer.records).usable))
        return None

    def _refuse(self, host: Host, problem: TLSProblem, name: NextHop, record_type: str) -> Refusal:
        """RFC 7672 2.1.2: who can make a lookup fail must not make DANE go away."""
        consequence = f"{host.candidate.host} is not used"
        self._policy.emit(LookupDidFail(str(name), record_type, problem.text, consequence, message=self._message))
        return Refusal(NAME, 451, "4.7.1", problem.text, for_now=True, problems=(problem,))


@lru_cache(maxsize=4096)
def tlsa_name(base: Domain, port: int) -> Domain:
    """Where the records of a base domain stand (RFC 6698 3). Raises `InvalidValue` if that is no name."""
    return Domain.parse(f"_{port}._tcp.{base}")


def base_domains(name: Domain, host: Host) -> tuple[Domain, ...]:
    """The TLSA base domains of a host, in the order in which they are asked (RFC 7672 2.2.2)."""
    if host.canonical is not None and host.canonical_authentic and host.canonical != name:
        return host.canonical, name
    return (name,)


def reference_names(base: Domain, name: Domain, candidates: Candidates) -> tuple[Domain, ...]:
    """The names of which a DANE-TA certificate must carry one (RFC 7672 3.2.2).

    The next hop and its CNAME expansion count only if the MX answer was authenticated: otherwise an attacker could lead
    the mail to a host of a zone that he has certificates for.
    """
    names = [base, name]
    if candidates.authentic:
        names += [each for each in (candidates.next_hop, candidates.canonical) if isinstance(each, Domain)]
    return tuple(dict.fromkeys(names))


def _requirement(
    records: tuple[TLSARecord | MalformedTLSA, ...], base: Domain, names: tuple[Domain, ...]
) -> Requirement:
    usable = select_usable(records).usable
    if not usable:
        # RFC 7672 2.2: somebody promised TLS, in a way that we cannot check.
        # The SNI stays the MX host: RFC 7672 8.1 wants the base domain where the records choose the certificate.
        return Requirement(min_tls=TLSLevel.ENCRYPTED, tls_reason=NAME, problem=_UNUSABLE)
    trust = DANETrust(usable, base, names)
    return Requirement(min_tls=TLSLevel.AUTHENTICATED, dane=trust, sni=base, tls_reason=NAME)


_remembered = lru_cache(maxsize=4096)(_requirement)
