"""The two scales, requirements and how they fold, evidence."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue, LocalError
from mailrider.model.domain import Domain
from mailrider.model.security import (
    NO_REQUIREMENT,
    NO_SECURITY,
    DANETrust,
    MXLevel,
    PeerEvidence,
    Requirement,
    Security,
    TLSARecord,
    TLSEvidence,
    TLSLevel,
    strictest,
)
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind

MX = Domain("mx.example.net")
RECORD = TLSARecord(3, 1, 1, b"\xab" * 32)
DANE = DANETrust((RECORD,), MX, (MX,))

levels = st.tuples(st.sampled_from(MXLevel), st.sampled_from(TLSLevel))
# One DANE and one SNI at most in a fold: the policy exists once.
requirements = st.one_of(
    st.just(NO_REQUIREMENT),
    st.builds(
        Requirement,
        min_mx=st.sampled_from(MXLevel),
        min_tls=st.sampled_from(TLSLevel),
        dane=st.sampled_from([None, DANE]),
        sni=st.sampled_from([None, MX]),
        mx_reason=st.sampled_from(["", "mtasts", "requiretls"]),
        tls_reason=st.sampled_from(["", "dane", "local_policy"]),
    ),
)
securities = st.builds(Security, mx_level=st.sampled_from(MXLevel), tls_level=st.sampled_from(TLSLevel))


def demand(requirement: Requirement) -> tuple[object, ...]:
    return requirement.min_mx, requirement.min_tls, requirement.dane, requirement.sni


def test_the_scales_are_ordered_and_named_as_in_configuration() -> None:
    assert [level.word for level in sorted(MXLevel)] == ["none", "mtasts", "dnssec"]
    assert [str(level) for level in sorted(TLSLevel)] == ["none", "encrypted", "authenticated"]


ALL_LEVELS = list(itertools.product(MXLevel, TLSLevel))


@pytest.mark.parametrize(("mx", "tls"), ALL_LEVELS)
@pytest.mark.parametrize(("min_mx", "min_tls"), ALL_LEVELS)
def test_a_connection_satisfies_what_neither_of_its_levels_is_below(
    mx: MXLevel, tls: TLSLevel, min_mx: MXLevel, min_tls: TLSLevel
) -> None:
    security, requirement = Security(mx, tls), Requirement(min_mx=min_mx, min_tls=min_tls)
    assert security.satisfies(requirement) is (mx >= min_mx and tls >= min_tls)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((MXLevel.DNSSEC, TLSLevel.NONE), (MXLevel.NONE, TLSLevel.AUTHENTICATED)),
        ((MXLevel.MTASTS, TLSLevel.ENCRYPTED), (MXLevel.NONE, TLSLevel.AUTHENTICATED)),
    ],
)
def test_some_pairs_of_levels_cannot_be_compared(
    one: tuple[MXLevel, TLSLevel], other: tuple[MXLevel, TLSLevel]
) -> None:
    assert not Security(*one).satisfies(Requirement(*other))
    assert not Security(*other).satisfies(Requirement(*one))


@given(levels, levels, levels)
def test_the_levels_are_a_partial_order(
    a: tuple[MXLevel, TLSLevel], b: tuple[MXLevel, TLSLevel], c: tuple[MXLevel, TLSLevel]
) -> None:
    def reaches(one: tuple[MXLevel, TLSLevel], other: tuple[MXLevel, TLSLevel]) -> bool:
        return Security(*one).satisfies(Requirement(*other))

    assert reaches(a, a)
    assert not (reaches(a, b) and reaches(b, a)) or a == b
    assert not (reaches(a, b) and reaches(b, c)) or reaches(a, c)


def test_there_is_no_order_to_sort_connections_by() -> None:
    with pytest.raises(TypeError):
        sorted([NO_SECURITY, Security(MXLevel.DNSSEC)])  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("requirement", "demands"),
    [
        (NO_REQUIREMENT, False),
        (Requirement(min_mx=MXLevel.DNSSEC), False),
        (Requirement(min_tls=TLSLevel.ENCRYPTED), True),
        (Requirement(min_tls=TLSLevel.AUTHENTICATED), True),
        (Requirement(dane=DANE), True),
    ],
)
def test_when_a_connection_in_clear_can_never_do(requirement: Requirement, demands: bool) -> None:
    assert requirement.demands_tls is demands


def test_the_strictest_requirement_keeps_the_higher_minima_with_their_reasons() -> None:
    mtasts = Requirement(min_mx=MXLevel.MTASTS, min_tls=TLSLevel.AUTHENTICATED, mx_reason="m1", tls_reason="t1")
    dnssec = Requirement(min_mx=MXLevel.DNSSEC, min_tls=TLSLevel.ENCRYPTED, mx_reason="m2", tls_reason="t2")
    assert strictest(mtasts, dnssec) == Requirement(
        min_mx=MXLevel.DNSSEC, min_tls=TLSLevel.AUTHENTICATED, mx_reason="m2", tls_reason="t1"
    )


def test_a_dane_demand_survives_every_fold() -> None:
    dane = Requirement(min_tls=TLSLevel.AUTHENTICATED, dane=DANE, sni=MX, tls_reason="dane")
    local = Requirement(min_mx=MXLevel.MTASTS, min_tls=TLSLevel.AUTHENTICATED, tls_reason="local_policy")
    for folded in (strictest(dane, local), strictest(local, dane)):
        assert demand(folded) == (MXLevel.MTASTS, TLSLevel.AUTHENTICATED, DANE, MX)


@given(requirements, requirements)
def test_folding_is_commutative_in_what_it_demands(one: Requirement, other: Requirement) -> None:
    assert demand(strictest(one, other)) == demand(strictest(other, one))


@given(requirements, requirements, requirements)
def test_folding_is_associative(one: Requirement, other: Requirement, third: Requirement) -> None:
    left, right = strictest(strictest(one, other), third), strictest(one, strictest(other, third))
    assert demand(left) == demand(right)


@given(requirements)
def test_folding_is_idempotent_and_nothing_is_its_neutral_element(one: Requirement) -> None:
    assert strictest(one, one) == one
    assert strictest(one, NO_REQUIREMENT) == one
    assert strictest(NO_REQUIREMENT, one) == one
    assert demand(strictest(one, Requirement())) == demand(one)


@given(requirements, requirements, securities)
def test_folding_is_monotone_what_satisfies_both_is_what_satisfies_the_fold(
    one: Requirement, other: Requirement, security: Security
) -> None:
    folded = strictest(one, other)
    assert security.satisfies(folded) is (security.satisfies(one) and security.satisfies(other))
    assert folded.demands_tls is (one.demands_tls or other.demands_tls)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Requirement(dane=DANE), Requirement(dane=DANETrust((TLSARecord(2, 0, 1, b""),), MX, (MX,)))),
        (Requirement(sni=MX), Requirement(sni=Domain("other.example"))),
    ],
)
def test_two_demands_that_contradict_each_other_are_an_error_not_a_choice(one: Requirement, other: Requirement) -> None:
    with pytest.raises(LocalError, match="contradict"):
        strictest(one, other)
    with pytest.raises(LocalError, match="contradict"):
        strictest(other, one)


def test_tlsa_records_are_shown_as_in_a_zone() -> None:
    assert str(TLSARecord(3, 1, 1, b"\xab\xcd")) == "3 1 1 abcd"
    assert str(TLSARecord(255, 255, 255, b"")) == "255 255 255 "


@pytest.mark.parametrize("fields", [(256, 0, 0), (0, -1, 0), (0, 0, 1000)])
def test_the_fields_of_a_tlsa_record_are_octets(fields: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidValue, match="octets"):
        TLSARecord(*fields, b"")


def test_chains_with_the_same_octets_in_other_certificates_are_other_chains() -> None:
    digests = {
        TLSEvidence("TLSv1.3", "x", chain).chain_digest
        for chain in [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), ()]
    }
    assert len(digests) == 5
    assert TLSEvidence("TLSv1.2", "y", (b"abc",)).chain_digest in digests


def test_evidence_says_why_there_is_no_tls() -> None:
    problem = TLSProblem(TLSProblemKind.STARTTLS_NOT_OFFERED, "STARTTLS is not offered")
    assert PeerEvidence(MX, "192.0.2.1", 25, clear_because=problem).clear_reason == "STARTTLS is not offered"
    assert PeerEvidence(MX, "192.0.2.1", 25, TLSEvidence("TLSv1.3", "x", ())).clear_reason == ""
