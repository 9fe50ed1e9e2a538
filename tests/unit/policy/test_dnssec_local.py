"""The two policies without lookups of their own: `dnssec` and `local_policy`; and how all fold."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.route import Candidate, Candidates, Host
from mailrider.model.security import NO_REQUIREMENT, MXLevel, Refusal, Requirement, TLSLevel
from mailrider.policy.base import NOT_AWARDED, NOTHING_TO_SAY, Admission, fold
from mailrider.policy.levels import DNSSECPolicy, LocalMinimum
from mailrider.policy.settings import DNSSEC, MTASTS, Dane, LocalPolicy, MXAuth, Policy
from tests.support.problems import problem

DOMAIN = Domain("good.test")
MX = Candidate(Domain("mx.good.test"))
HOST = Host(MX, (ip_address("192.0.2.1"),))


def candidates(*, authentic: bool) -> Candidates:
    return Candidates(DOMAIN, (MX,), authentic)


async def test_hosts_of_an_authenticated_answer_have_level_dnssec() -> None:
    bound = await DNSSECPolicy().prepare(DOMAIN).bind(candidates(authentic=True))
    assert bound is not None
    assert await bound.admit(MX) == Admission(MXLevel.DNSSEC)
    assert await bound.requirement(HOST) is NO_REQUIREMENT
    await bound.tls_failed()
    bound.cancel()


async def test_others_have_none_from_it() -> None:
    assert await DNSSECPolicy().prepare(DOMAIN).bind(candidates(authentic=False)) is None


@pytest.mark.parametrize("next_hop", [DOMAIN, AddressLiteral(ip_address("192.0.2.1"))])
async def test_the_local_minimum_binds_every_next_hop(next_hop: Domain | AddressLiteral) -> None:
    settings = LocalPolicy(min_tls_level=TLSLevel.AUTHENTICATED, min_mx_level=MXLevel.MTASTS)
    bound = await LocalMinimum(settings).prepare(next_hop).bind(Candidates(next_hop, (Candidate(next_hop),)))
    assert await bound.admit(MX) == NOT_AWARDED
    assert await bound.requirement(HOST) == Requirement(
        min_mx=MXLevel.MTASTS,
        min_tls=TLSLevel.AUTHENTICATED,
        mx_reason="local_policy",
        tls_reason="local_policy",
    )
    await bound.tls_failed()
    bound.cancel()


async def test_the_local_minimum_is_encrypted_unless_told_otherwise() -> None:
    demand = await LocalMinimum(LocalPolicy()).requirement(HOST)
    assert (demand.min_tls, demand.min_mx) == (TLSLevel.ENCRYPTED, MXLevel.NONE)


async def test_off_demands_nothing() -> None:
    demand = await LocalMinimum(LocalPolicy.off()).requirement(HOST)
    assert (demand.min_tls, demand.min_mx, demand.demands_tls) == (TLSLevel.NONE, MXLevel.NONE, False)


async def test_who_has_nothing_to_say_says_nothing() -> None:
    assert await NOTHING_TO_SAY.bind(candidates(authentic=True)) is None
    NOTHING_TO_SAY.cancel()


REFUSAL, LATER = Refusal("mtasts", 451, "4.7.0", "not named"), Refusal("local_policy", 451, "4.7.0", "later")
FOLDS = {
    "the higher level": ([Admission(MXLevel.MTASTS), Admission(MXLevel.DNSSEC)], Admission(MXLevel.DNSSEC)),
    "in any order": ([Admission(MXLevel.DNSSEC), NOT_AWARDED], Admission(MXLevel.DNSSEC)),
    "a doubt is kept": (
        [Admission(MXLevel.NONE, problem("down")), Admission(MXLevel.DNSSEC)],
        Admission(MXLevel.DNSSEC, problem("down")),
    ),
    "a refusal is kept": (
        [Admission(MXLevel.NONE, refusal=REFUSAL), Admission(MXLevel.DNSSEC)],
        Admission(MXLevel.DNSSEC, refusal=REFUSAL),
    ),
    "the first refusal counts": (
        [Admission(MXLevel.NONE, refusal=REFUSAL), Admission(MXLevel.NONE, refusal=LATER)],
        Admission(MXLevel.NONE, refusal=REFUSAL),
    ),
}


@pytest.mark.parametrize(("admissions", "expected"), FOLDS.values(), ids=FOLDS)
def test_admissions_fold(admissions: list[Admission], expected: Admission) -> None:
    one, other = admissions
    assert fold(one, other) == expected


def test_the_order_of_evaluation_is_not_that_of_the_file() -> None:
    given: list[Policy] = [LocalPolicy(), DNSSEC(), Dane(), MTASTS(cache="ram")]
    assert [type(policy) for policy in MXAuth.of(given).policies] == [MTASTS, Dane, DNSSEC, LocalPolicy]
