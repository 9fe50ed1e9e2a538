"""One judgement after one handshake: does what the peer proved satisfy what is required?

The order of the questions is the specification:

1. Does DANE speak? Then it alone decides the certificate, whatever PKIX says (RFC 7672 2.2, RFC 8461 2).
2. If not, a certificate that PKIX verifies for the MX host makes the channel `authenticated`.
3. TLS without either is `encrypted`; no TLS is `none`.
4. Both levels must reach the minimum; the refusal names who demanded it.

`Judge` holds what never changes for a target, how its roots and TLSA records are compared, and the verdicts that were
reached, so that the same chain is not verified for every message; it has no clock and does no I/O. A verdict is known
by everything that it rests on but the time: the digest of the chain, and the name or the records. It is given again
only within the moments for which it is known to hold, so a certificate that expires within the hour is refused from
that second on; a clock that jumps back is noticed too.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.model.bounded_map import BoundedMap
from mailrider.model.domain import Domain
from mailrider.model.security import (
    Mechanism,
    Refusal,
    Security,
    TLSLevel,
    Verdict,
)
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.model.value import value
from mailrider.x509.verify import TimedVerdict

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from datetime import datetime

    from mailrider.model.security import DANETrust, MXLevel, PeerEvidence, Requirement, TLSEvidence

MAX_VERDICTS = 1024  # a large sender has connections to some hundred hosts; 1 MB, 64 MB with absurd TLSA records
MAX_AGE = timedelta(hours=1)  # no verdict is older, whatever its dates allow


@value
class Judgement:
    """What a connection is worth for one next hop: its levels, the verdict that counted, and the refusal, if any.

    `verdict` is None without TLS. `reason`: why the levels are what they are, for people. `problems`: what is wrong
    with the certificate, or why there is none.
    """

    security: Security
    verdict: Verdict | None
    refusal: Refusal | None
    reason: str = "no TLS"
    problems: tuple[TLSProblem, ...] = ()


_OF_CERTIFICATES = frozenset(
    {TLSProblemKind.WRONG_NAME, TLSProblemKind.EXPIRED, TLSProblemKind.NOT_YET_VALID, TLSProblemKind.NOT_TRUSTED}
)


class Judge:
    """Judges connections; `verify_pkix` and `match_dane` are pure. Used from one thread."""

    def __init__(
        self,
        verify_pkix: Callable[[Sequence[bytes], tuple[Domain, ...], datetime], TimedVerdict],
        match_dane: Callable[[Sequence[bytes], DANETrust, datetime], TimedVerdict],
        max_verdicts: int = MAX_VERDICTS,
    ) -> None:
        self._verify_pkix = verify_pkix
        self._match_dane = match_dane
        self._verdicts: BoundedMap[Hashable, TimedVerdict] = BoundedMap(max_verdicts)  # the one used last at the end

    def judge(self, requirement: Requirement, admitted: MXLevel, evidence: PeerEvidence, now: datetime) -> Judgement:
        """Levels and verdict of a connection for a next hop whose candidate was admitted at `admitted`."""
        verdict = self._verdict(requirement, evidence, now)
        tls = evidence.tls
        reason = "no TLS" if verdict is None else _said(verdict)
        problems = verdict.problems if verdict is not None else _problem_in_clear(evidence)
        if tls is None:
            security = Security(admitted)
        elif verdict is not None and verdict.ok:
            security = Security(admitted, TLSLevel.AUTHENTICATED, verdict.mechanism, tls.version, tls.cipher)
        else:
            security = Security(admitted, TLSLevel.ENCRYPTED, None, tls.version, tls.cipher)
        refusal = _refusal(requirement, security, evidence, verdict, problems)
        return Judgement(security, verdict, refusal, reason, problems)

    def verdicts(self, requirement: Requirement, evidence: PeerEvidence, now: datetime) -> tuple[Verdict, ...]:
        """What every mechanism says of the certificate, the one that counts first; for people, who want to compare."""
        first = self._verdict(requirement, evidence, now)
        if first is None or evidence.tls is None:
            return ()
        if first.mechanism is Mechanism.DANE and isinstance(evidence.host, Domain):
            return first, self._pkix_verdict(evidence.tls, evidence.host, now)
        return (first,)

    def _verdict(self, requirement: Requirement, evidence: PeerEvidence, now: datetime) -> Verdict | None:
        if evidence.tls is None:
            return None
        if requirement.dane is not None:
            return self._dane_verdict(evidence.tls, requirement.dane, now)
        if not isinstance(evidence.host, Domain):
            # An address proves nothing about a name: at most `encrypted`.
            text = "an address literal has no name that a certificate could prove"
            return Verdict(False, Mechanism.PKIX, text, (TLSProblem(TLSProblemKind.NO_NAME, text),))
        return self._pkix_verdict(evidence.tls, evidence.host, now)

    def _pkix_verdict(self, tls: TLSEvidence, host: Domain, now: datetime) -> Verdict:
        key = (tls.chain_digest, host.ascii)
        return self._known(key, now) or self._keep(key, self._verify_pkix(tls.chain, (host,), now), now)

    def _dane_verdict(self, tls: TLSEvidence, trust: DANETrust, now: datetime) -> Verdict:
        key = (tls.chain_digest, trust)
        return self._known(key, now) or self._keep(key, self._match_dane(tls.chain, trust, now), now)

    def _known(self, key: Hashable, now: datetime) -> Verdict | None:
        """The verdict that was reached before, if it still holds."""
        known = self._verdicts.get(key)
        if known is None or not known.since <= now < known.until:
            return None
        self._verdicts.move_to_end(key)
        return known.verdict

    def _keep(self, key: Hashable, judged: TimedVerdict, now: datetime) -> Verdict:
        since, until = max(judged.since, now - MAX_AGE), min(judged.until, now + MAX_AGE)
        self._verdicts[key] = TimedVerdict(judged.verdict, since, until)
        return judged.verdict


def _refusal(
    requirement: Requirement,
    security: Security,
    evidence: PeerEvidence,
    verdict: Verdict | None,
    problems: tuple[TLSProblem, ...],
) -> Refusal | None:
    # A server that cannot do TLS for now may prove itself next time; one whose certificate fails is what it is.
    for_now = evidence.tls is None and evidence.clear_for_now
    if requirement.dane is not None and (verdict is None or not verdict.ok):
        return Refusal("dane", 451, "4.7.1", f"DANE: {_why(evidence, verdict)}", for_now, problems)
    if security.mx_level < requirement.min_mx:
        text = f"MX level {security.mx_level}, {requirement.mx_reason} demands {requirement.min_mx}"
        return Refusal(requirement.mx_reason, 451, "4.7.0", text, problems=(TLSProblem(TLSProblemKind.MX_LEVEL, text),))
    if security.tls_level < requirement.min_tls:
        text = (
            f"TLS level {security.tls_level}, {requirement.tls_reason} demands {requirement.min_tls}: "
            f"{_why(evidence, verdict)}"
        )
        return Refusal(requirement.tls_reason, 451, "4.7.1", text, for_now, problems)
    return None


def _problem_in_clear(evidence: PeerEvidence) -> tuple[TLSProblem, ...]:
    return () if evidence.clear_because is None else (evidence.clear_because,)


def _why(evidence: PeerEvidence, verdict: Verdict | None) -> str:
    return evidence.clear_reason if verdict is None else _said(verdict)


def _said(verdict: Verdict) -> str:
    """Its reason where nothing around it says that it is about a certificate."""
    is_about_certificate = any(each.kind in _OF_CERTIFICATES for each in verdict.problems)
    if verdict.mechanism is Mechanism.DANE or not is_about_certificate:
        return verdict.reason
    return f"the server's certificate cannot be trusted: {verdict.reason}"
