"""The policies that need no lookup: `dnssec` awards an MX level, `local_policy` demands least levels.

`mx_auth dnssec`: hosts that an authenticated answer named have MX level `dnssec`. The whole answer counts: CNAMEs, the
MX set, or the proof that there is none. We validate nothing here; the resolver did (`dns.servers` says when it is
believed). `mx_auth local_policy`: the least levels that the operator wants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.model.security import MXLevel, Requirement
from mailrider.policy.base import Admission, DestinationPolicy, ReadyPolicy

if TYPE_CHECKING:
    from mailrider.model.route import Candidate, Candidates, Host
    from mailrider.policy.settings import LocalPolicy

_SIGNED = Admission(MXLevel.DNSSEC)


class LocalMinimum(ReadyPolicy, DestinationPolicy):
    """The policy `local_policy` of a target; the same for every destination."""

    name = "local_policy"

    def __init__(self, settings: LocalPolicy) -> None:
        self._requirement = Requirement(
            min_mx=settings.min_mx_level, min_tls=settings.min_tls_level, mx_reason=self.name, tls_reason=self.name
        )

    async def bind(self, _: Candidates, message: str = "") -> LocalMinimum:
        """The minimum binds every candidate."""
        return self

    async def requirement(self, _: Host) -> Requirement:
        """The requirement that both minimums make."""
        return self._requirement


class DNSSECPolicy(ReadyPolicy, DestinationPolicy):
    """The policy `dnssec` of a target; it is all of its stages, since it holds nothing."""

    name = "dnssec"

    async def bind(self, candidates: Candidates, message: str = "") -> DNSSECPolicy | None:
        """Itself if the candidates are authentic, else nothing."""
        return self if candidates.authentic else None

    async def admit(self, _: Candidate) -> Admission:
        """Every candidate was named by the authentic answer."""
        return _SIGNED
