"""`mx_auth dnssec`: hosts that an authenticated answer named have MX level `dnssec`.

The whole answer counts: CNAMEs, the MX set, or the proof that there is none. We validate nothing ourselves; the
resolver did (`dns.servers` says when it is believed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.model.security import MXLevel
from mailrider.policy.base import Admission, DestinationPolicy, ReadyPolicy

if TYPE_CHECKING:
    from mailrider.model.route import Candidate, Candidates

NAME = "dnssec"

_SIGNED = Admission(MXLevel.DNSSEC)


class DNSSECPolicy(ReadyPolicy, DestinationPolicy):
    """The policy `dnssec` of a target; it is all of its stages, since it holds nothing."""

    name = NAME

    async def bind(self, candidates: Candidates, message: str = "") -> DNSSECPolicy | None:
        """Itself if the candidates are authentic, else nothing."""
        return self if candidates.authentic else None

    async def admit(self, _: Candidate) -> Admission:
        """Every candidate was named by the authentic answer."""
        return _SIGNED
