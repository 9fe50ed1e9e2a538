"""What a policy is: it is asked before the connection is made, and answers with data.

For one attempt at one next hop a `Policy` gives a `PreparedPolicy`, whose lookups start beside the MX lookup; once the
candidates are known, `bind` gives a `DestinationPolicy`, or None if it has nothing to say. That one is asked about
each candidate in turn:

- `admit`: may this host be used at all, and what MX level does it have? Levels fold by maximum, one refusal is enough
  (`fold`).
- `requirement`: what must the connection prove, and which SNI? Requirements fold with `model.security.strictest`.

A policy never looks at a connection; `policy.judge` does that, for all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mailrider.model.security import NO_REQUIREMENT, MXLevel

if TYPE_CHECKING:
    from typing import Self

    from mailrider.model.domain import NextHop
    from mailrider.model.route import Candidate, Candidates, Host
    from mailrider.model.security import Refusal, Requirement
    from mailrider.model.tls_problem import TLSProblem


@dataclass(frozen=True, slots=True)
class Admission:
    """The MX level that a candidate is awarded.

    `doubt` says what failed for now that might have made it higher; it matters only where the level does not suffice.
    `refusal`, where several policies are taken together: the first no among them.
    """

    level: MXLevel
    doubt: TLSProblem | None = None
    refusal: Refusal | None = None


NOT_AWARDED = Admission(MXLevel.NONE)


def fold(one: Admission, other: Admission) -> Admission:
    """Both at once: the higher level, and the first doubt and refusal."""
    return Admission(max(one.level, other.level), one.doubt or other.doubt, one.refusal or other.refusal)


class DestinationPolicy:
    """A policy, bound to the candidates of one next hop for one attempt. This one says nothing."""

    async def admit(self, candidate: Candidate) -> Admission:
        """The MX level that this policy awards to the candidate, or why it may not be used."""
        return NOT_AWARDED

    async def requirement(self, host: Host) -> Requirement | Refusal:
        """What a connection to the host must prove, or why there must be none."""
        return NO_REQUIREMENT

    async def tls_failed(self) -> None:
        """TLS failed with a candidate: the policy may look again, for the sake of the next one."""


class PreparedPolicy:
    """A policy whose lookups for a domain are under way. This one has none, and nothing to say about any candidate."""

    async def bind(self, candidates: Candidates, message: str = "") -> DestinationPolicy | None:
        """The policy for these candidates; None if it has nothing to say about them. `message`: whose attempt it is."""
        return None

    def cancel(self) -> None:
        """Give up what is under way: the candidates could not be found."""


class ReadyPolicy(PreparedPolicy):
    """A policy that has nothing to look up before the candidates are known."""

    def prepare(self, _: NextHop) -> Self:
        """Itself."""
        return self


NOTHING_TO_SAY = PreparedPolicy()


class Policy(Protocol):
    """A policy as configured; lives as long as its target."""

    @property
    def name(self) -> str:
        """The policy's name, as in `mx_auth`."""

    def prepare(self, next_hop: NextHop) -> PreparedPolicy:
        """Start what can be started before the candidates are known; an address literal binds as well."""
