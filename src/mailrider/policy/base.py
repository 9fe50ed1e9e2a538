"""What a policy is: it speaks before the connection is made, and says data.

For one attempt at one next hop a `Policy` gives a `Prepared`, whose lookups start beside the MX lookup; once the
candidates are known, `bind` gives a `DestinationPolicy`, or None if it has nothing to say. That one is asked about
each candidate in turn:

- `admit`: may this host be used at all, and what MX level does it have? Levels fold by maximum, one refusal is enough.
- `requirement`: what must the connection prove, and which SNI? Requirements fold with `model.security.strictest`.

A policy never looks at a connection; `policy.judge` does that, for all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mailrider.model.security import MXLevel

if TYPE_CHECKING:
    from mailrider.model.domain import Domain
    from mailrider.model.route import Candidate, Candidates, Host
    from mailrider.model.security import Refusal, Requirement


@dataclass(frozen=True, slots=True)
class Admission:
    """The MX level that a candidate is awarded.

    `doubt` says what failed for now that might have made it higher; it matters only where the level does not suffice.
    """

    level: MXLevel
    doubt: str = ""


NOT_AWARDED = Admission(MXLevel.NONE)


class DestinationPolicy(Protocol):
    """A policy, bound to the candidates of one next hop for one attempt."""

    async def admit(self, candidate: Candidate) -> Admission | Refusal:
        """The MX level that this policy awards to the candidate, or why it may not be used."""

    async def requirement(self, host: Host) -> Requirement | Refusal:
        """What a connection to the host must prove, or why there must be none."""

    async def tls_failed(self) -> None:
        """TLS failed with a candidate: the policy may look again, for the sake of the next one."""


class Prepared(Protocol):
    """A policy whose lookups for a domain are under way."""

    async def bind(self, candidates: Candidates) -> DestinationPolicy | None:
        """The policy for these candidates; None if it has nothing to say about them."""

    def cancel(self) -> None:
        """Give up what is under way: the candidates could not be found."""


class Policy(Protocol):
    """A policy as configured; lives as long as its target."""

    @property
    def name(self) -> str:
        """As in `mx_auth`."""

    def prepare(self, domain: Domain) -> Prepared:
        """Start what can be started before the candidates are known."""
