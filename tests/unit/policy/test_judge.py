"""The judge as a table: what is required, what the host was admitted at, what the peer proved, and what follows.

PKIX and DANE are played by two functions here, so that a row says what they found. The verdicts themselves are proved
in tests/unit/x509 and tests/unit/dane.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.model.domain import AddressLiteral, Domain, NextHop
from mailrider.model.security import (
    NO_REQUIREMENT,
    DANETrust,
    Mechanism,
    MXLevel,
    PeerEvidence,
    Requirement,
    TLSARecord,
    TLSEvidence,
    TLSLevel,
    Verdict,
    strictest,
)
from mailrider.model.tls_problem import TLSProblemKind
from mailrider.policy.judge import Judge, Judgement
from mailrider.x509.verify import TimedVerdict
from tests.support.problems import problem

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
MX = Domain("mx.example.net")
TRUST = DANETrust((TLSARecord(3, 1, 1, bytes(32)),), MX, (MX,))

NOTHING = NO_REQUIREMENT
ENCRYPTED = Requirement(min_tls=TLSLevel.ENCRYPTED, tls_reason="local_policy")
AUTHENTICATED = Requirement(min_tls=TLSLevel.AUTHENTICATED, tls_reason="mtasts")
DANE = Requirement(min_tls=TLSLevel.AUTHENTICATED, dane=TRUST, sni=MX, tls_reason="dane")
DNSSEC = Requirement(min_mx=MXLevel.DNSSEC, mx_reason="local_policy")

CLEAR = "in clear"
FOR_NOW = "in clear, for now"


@dataclass(frozen=True)
class Row:
    """`pkix` and `dane` are what the two would say of the certificate; `peer` CLEAR means that there was none."""

    requirement: Requirement
    pkix: bool | None
    dane: bool | None
    tls: str  # the TLS level that follows
    by: str | None = None  # the mechanism that counted
    refused: tuple[str, str] | None = None  # by whom, and with what
    admitted: MXLevel = MXLevel.NONE


N, E, A = "none", "encrypted", "authenticated"
NO_TLS = None, None
TABLE = {
    # Nothing is demanded: everything is ranked, nothing is refused.
    "in clear": Row(NOTHING, *NO_TLS, N),
    "a certificate that nobody vouches for": Row(NOTHING, False, None, E),
    "a certificate by PKIX": Row(NOTHING, True, None, A, "pkix"),
    # A minimum.
    "encrypted wanted, in clear": Row(ENCRYPTED, *NO_TLS, N, refused=("local_policy", "4.7.1")),
    "encrypted wanted, any certificate": Row(ENCRYPTED, False, None, E),
    "authenticated wanted, in clear": Row(AUTHENTICATED, *NO_TLS, N, refused=("mtasts", "4.7.1")),
    "authenticated wanted, any certificate": Row(AUTHENTICATED, False, None, E, refused=("mtasts", "4.7.1")),
    "authenticated wanted, PKIX": Row(AUTHENTICATED, True, None, A, "pkix"),
    # Where DANE speaks it alone decides the certificate (RFC 7672 2.2).
    "DANE matches, PKIX too": Row(DANE, True, True, A, "dane"),
    "DANE matches, PKIX does not": Row(DANE, False, True, A, "dane"),
    "DANE does not match, PKIX would": Row(DANE, True, False, E, refused=("dane", "4.7.1")),
    "neither matches": Row(DANE, False, False, E, refused=("dane", "4.7.1")),
    "DANE, in clear": Row(DANE, *NO_TLS, N, refused=("dane", "4.7.1")),
    # DANE over MTA-STS (RFC 8461 2): both are in force.
    "MTA-STS is satisfied by DANE": Row(strictest(AUTHENTICATED, DANE), False, True, A, "dane"),
    "PKIX cannot mend DANE for MTA-STS": Row(strictest(AUTHENTICATED, DANE), True, False, E, refused=("dane", "4.7.1")),
    # The other scale.
    "MX level too low": Row(DNSSEC, True, None, A, "pkix", ("local_policy", "4.7.0"), MXLevel.MTASTS),
    "MX level just right": Row(DNSSEC, *NO_TLS, N, admitted=MXLevel.DNSSEC),
    "both too low: DANE is named": Row(strictest(DNSSEC, DANE), *NO_TLS, N, refused=("dane", "4.7.1")),
    "both too low: then the MX": Row(strictest(DNSSEC, AUTHENTICATED), *NO_TLS, N, refused=("local_policy", "4.7.0")),
}


NOT_OFFERED = problem("the server does not offer STARTTLS", TLSProblemKind.STARTTLS_NOT_OFFERED)
NOT_TRUSTED = problem("what PKIX found", TLSProblemKind.NOT_TRUSTED)
NO_MATCH = problem("what DANE found", TLSProblemKind.DANE_NO_MATCH)


def evidence(*, tls: bool, host: NextHop = MX, clear_for_now: bool = False) -> PeerEvidence:
    if tls:
        return PeerEvidence(host, "192.0.2.1", 25, TLSEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", (b"leaf",)))
    return PeerEvidence(host, "192.0.2.1", 25, None, NOT_OFFERED, clear_for_now)


def judge(
    requirement: Requirement, seen: PeerEvidence, *, pkix: bool = False, dane: bool = False, admitted: MXLevel
) -> Judgement:
    def verify_pkix(chain: Sequence[bytes], names: tuple[Domain, ...], now: datetime) -> TimedVerdict:
        assert (names, now) == ((MX,), NOW), "PKIX is asked for the MX host's own name, and for nothing else"
        return TimedVerdict(Verdict(pkix, Mechanism.PKIX, "what PKIX found", () if pkix else (NOT_TRUSTED,)))

    def match_dane(chain: Sequence[bytes], trust: DANETrust, now: datetime) -> TimedVerdict:
        assert (trust, now) == (TRUST, NOW)
        return TimedVerdict(Verdict(dane, Mechanism.DANE, "what DANE found", () if dane else (NO_MATCH,)))

    return Judge(verify_pkix, match_dane).judge(requirement, admitted, seen, NOW)


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_judgement(row: Row) -> None:
    seen = evidence(tls=row.pkix is not None)
    judgement = judge(row.requirement, seen, pkix=bool(row.pkix), dane=bool(row.dane), admitted=row.admitted)
    assert judgement.security.tls_level.word == row.tls
    assert judgement.security.mx_level is row.admitted
    assert judgement.security.authenticated_by == row.by
    refusal = judgement.refusal
    assert (refusal and (refusal.policy, refusal.enhanced)) == row.refused
    assert refusal is None or refusal.code == 451, "a policy's refusal is always temporary"


def test_tls_version_and_cipher_are_kept() -> None:
    security = judge(NOTHING, evidence(tls=True), admitted=MXLevel.NONE).security
    assert (security.tls_version, security.cipher) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    assert judge(NOTHING, evidence(tls=False), admitted=MXLevel.NONE).security.tls_version is None


@pytest.mark.parametrize("host", [AddressLiteral(ip_address("192.0.2.1")), AddressLiteral(ip_address("2001:db8::1"))])
def test_an_address_is_encrypted_at_most_since_no_name_can_be_proved(host: AddressLiteral) -> None:
    judgement = judge(AUTHENTICATED, evidence(tls=True, host=host), pkix=True, admitted=MXLevel.NONE)
    assert judgement.security.tls_level is TLSLevel.ENCRYPTED
    assert judgement.refusal is not None
    assert "address literal has no name" in judgement.refusal.reason


@pytest.mark.parametrize(
    ("requirement", "tls", "clear_for_now", "for_now"),
    [
        (DANE, False, True, True),
        (AUTHENTICATED, False, True, True),
        (DANE, False, False, False),
        (AUTHENTICATED, False, False, False),
        (DANE, True, False, False),
        (AUTHENTICATED, True, False, False),
    ],
)
def test_a_refusal_is_for_now_only_if_the_server_said_that_tls_may_come_back(
    requirement: Requirement, tls: bool, clear_for_now: bool, for_now: bool
) -> None:
    judgement = judge(requirement, evidence(tls=tls, clear_for_now=clear_for_now), admitted=MXLevel.NONE)
    assert judgement.refusal is not None
    assert judgement.refusal.for_now is for_now


def test_the_reason_says_what_was_found_and_who_wants_more() -> None:
    clear = judge(AUTHENTICATED, evidence(tls=False), admitted=MXLevel.NONE)
    assert clear.reason == "no TLS"
    assert clear.refusal is not None
    assert clear.refusal.reason == ("TLS level none, mtasts demands authenticated: the server does not offer STARTTLS")
    secure = judge(AUTHENTICATED, evidence(tls=True), admitted=MXLevel.NONE)
    said = "the server's certificate cannot be trusted: what PKIX found"
    assert secure.reason == said
    assert secure.refusal is not None
    assert secure.refusal.reason == f"TLS level encrypted, mtasts demands authenticated: {said}"
    dane = judge(DANE, evidence(tls=True), admitted=MXLevel.NONE)
    assert dane.refusal is not None
    assert dane.refusal.reason == "DANE: what DANE found"
    mx = judge(DNSSEC, evidence(tls=True), pkix=True, admitted=MXLevel.NONE)
    assert mx.refusal is not None
    assert mx.refusal.reason == "MX level none, local_policy demands dnssec"


@pytest.mark.parametrize(
    ("requirement", "tls", "kind"),
    [
        (DANE, False, TLSProblemKind.STARTTLS_NOT_OFFERED),
        (DANE, True, TLSProblemKind.DANE_NO_MATCH),
        (AUTHENTICATED, False, TLSProblemKind.STARTTLS_NOT_OFFERED),
        (AUTHENTICATED, True, TLSProblemKind.NOT_TRUSTED),
        (DNSSEC, True, TLSProblemKind.MX_LEVEL),
    ],
)
def test_a_refusal_says_what_it_rests_on(requirement: Requirement, tls: bool, kind: TLSProblemKind) -> None:
    refusal = judge(requirement, evidence(tls=tls), admitted=MXLevel.NONE).refusal
    assert refusal is not None
    assert [each.kind for each in refusal.problems] == [kind]


def test_a_certificate_cannot_prove_an_address() -> None:
    host = AddressLiteral(ip_address("192.0.2.1"))
    refusal = judge(AUTHENTICATED, evidence(tls=True, host=host), admitted=MXLevel.NONE).refusal
    assert refusal is not None
    assert [each.kind for each in refusal.problems] == [TLSProblemKind.NO_NAME]


requirements = st.builds(
    Requirement,
    min_mx=st.sampled_from(MXLevel),
    min_tls=st.sampled_from(TLSLevel),
    dane=st.sampled_from([None, TRUST]),
    mx_reason=st.just("m"),
    tls_reason=st.just("t"),
)


@given(requirements, requirements, st.sampled_from(MXLevel), st.booleans(), st.booleans(), st.booleans())
def test_what_two_demand_together_is_accepted_only_if_each_would_accept_it_in_the_light_of_dane(
    one: Requirement, other: Requirement, admitted: MXLevel, tls: bool, pkix: bool, dane: bool
) -> None:
    both = strictest(one, other)
    judgement = judge(both, evidence(tls=tls), pkix=pkix, dane=dane, admitted=admitted)
    levels = judgement.security
    satisfied = levels.satisfies(one) and levels.satisfies(other)
    by_dane = both.dane is None or (tls and dane)
    assert (judgement.refusal is None) is (satisfied and by_dane)
