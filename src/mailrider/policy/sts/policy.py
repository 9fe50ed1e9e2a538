"""`mx_auth mtasts`: what the recipient domain's MTA-STS policy demands (RFC 8461 4, 5).

- A host that matches the policy's patterns has MX level `mtasts`, in testing mode too.
- Mode enforce: a host that does not match is refused, after the policy was fetched once more in this attempt; the
  channel must be authenticated.
- Mode testing: nothing is refused; what would have been is an event.
- No policy, or mode none: nothing to say. If there may be one that we could not get, that is a doubt, which only
  matters to a message that needs the level (REQUIRETLS).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mailrider.model.domain import Domain
from mailrider.model.event import TestingPolicyMissed
from mailrider.model.security import NO_REQUIREMENT, MXLevel, Refusal, Requirement, TLSLevel
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.model.tls_session import STSSeen
from mailrider.mtasts.policy import STSMode, match_mx
from mailrider.mtasts.record import STSRecord
from mailrider.policy.base import NOTHING_TO_SAY, Admission, DestinationPolicy, PreparedPolicy
from mailrider.policy.sts.lookup import policy_seen

if TYPE_CHECKING:
    from mailrider.clock import Clock
    from mailrider.model.domain import NextHop
    from mailrider.model.event import Emit
    from mailrider.model.route import Candidate, Candidates, Host
    from mailrider.policy.sts.lookup import PolicyLookup
    from mailrider.policy.sts.source import PolicySource

NAME = "mtasts"

_ENFORCED = Requirement(min_tls=TLSLevel.AUTHENTICATED, tls_reason=NAME)
_TESTED = Requirement(wanted_tls=TLSLevel.AUTHENTICATED)


class STSPolicies:
    """The policy `mtasts` of a target."""

    name = NAME

    def __init__(self, source: PolicySource, clock: Clock, emit: Emit) -> None:
        self.source = source
        self.emit = emit
        self._clock = clock

    def prepare(self, next_hop: NextHop) -> PreparedPolicy:
        """Start looking for the domain's policy; the mail domain's own, never that of a CNAME's target."""
        if not isinstance(next_hop, Domain):
            return NOTHING_TO_SAY
        at_once = self.source.peek(next_hop)
        task = None if at_once is not None else asyncio.ensure_future(self.source.lookup(next_hop))
        return PreparedSTS(self, next_hop, self._clock.monotonic(), at_once, task)


@dataclass(slots=True)
class PreparedSTS(PreparedPolicy):
    """A lookup under way, or done already."""

    policies: STSPolicies
    domain: Domain
    began: float
    at_once: PolicyLookup | None
    task: asyncio.Task[PolicyLookup] | None

    async def bind(self, _: Candidates, message: str = "") -> BoundSTS | None:
        """The domain's policy; None if it has none."""
        lookup = self.at_once if self.task is None else await self.task
        if lookup is None or (lookup.policy is None and not lookup.is_uncertain):
            return None
        return BoundSTS(self.policies, self.domain, lookup, self.began, message)

    def cancel(self) -> None:
        """Nobody waits for the policy any more."""
        if self.task is not None:
            self.task.cancel()


class BoundSTS(DestinationPolicy):
    """The policy of one domain, for one attempt. `lookup` is the evidence."""

    def __init__(self, policies: STSPolicies, domain: Domain, lookup: PolicyLookup, began: float, message: str) -> None:
        self.lookup = lookup
        self._source, self._emit = policies.source, policies.emit
        self._domain = domain
        self._began = began
        self._message = message
        self._asked_again = False

    @property
    def mode(self) -> STSMode | None:
        """The mode in force."""
        return None if self.lookup.policy is None else self.lookup.policy.mode

    def matches(self, candidate: Candidate) -> bool:
        """Whether the policy names the host."""
        policy, host = self.lookup.policy, candidate.host
        return policy is not None and isinstance(host, Domain) and match_mx(policy, host)

    def seen(self, candidate: Candidate) -> STSSeen | None:
        """The policy as TLS reports show it, or why it could not be had; None where none is known to be announced."""
        if self.lookup.policy is not None:
            shown = policy_seen(self.lookup.policy)
            return shown if self.matches(candidate) else replace(shown, names_host=False)
        is_announced = isinstance(self.lookup.record, STSRecord) and self.lookup.is_uncertain
        problem = self.lookup.problem
        return STSSeen(() if problem is None else problem.lines, problem=problem) if is_announced else None

    async def admit(self, candidate: Candidate) -> Admission:
        """RFC 8461 4.1, 5: an enforced policy excludes hosts that it does not name."""
        if self.mode is STSMode.ENFORCE and not self.matches(candidate) and not self._asked_again:
            # RFC 8461 5.1: the domain may just have changed its servers.
            self._asked_again = True
            self.lookup = await self._source.refetch(self._domain, since=self._began)
        if self.lookup.policy is None:
            return Admission(MXLevel.NONE, self.lookup.problem)
        if self.matches(candidate):
            return Admission(MXLevel.MTASTS)
        reason = f"{candidate.host} is not among the MX hosts of the domain's MTA-STS policy"
        if self.mode is STSMode.ENFORCE:
            # If the policy could not be fetched again, the domain may have named the host meanwhile.
            doubt = self.lookup.problem
            text = reason if doubt is None else f"{reason}; {doubt}"
            problem = TLSProblem(TLSProblemKind.MX_NOT_IN_POLICY, reason)
            refusal = Refusal(NAME, 451, "4.7.0", text, for_now=doubt is not None, problems=(problem,))
            return Admission(MXLevel.NONE, refusal=refusal)
        self._emit(TestingPolicyMissed(self._domain, str(candidate.host), None, reason, message=self._message))
        return Admission(MXLevel.NONE, self.lookup.problem)

    async def requirement(self, host: Host) -> Requirement | Refusal:
        """RFC 8461 4.2: an enforced policy demands a certificate that is valid for the host."""
        match self.mode:
            case STSMode.ENFORCE:
                return _ENFORCED
            case STSMode.TESTING:
                return _TESTED
            case _:
                return NO_REQUIREMENT

    async def tls_failed(self) -> None:
        """The id is checked again after a TLS failure; the next candidate meets a new policy."""
        self.lookup = await self._source.recheck_id(self._domain)
