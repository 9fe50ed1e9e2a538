"""A verdict on a certificate chain is given again while it holds, never past the moment at which it could change."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.dane.match import judge_dane
from mailrider.model.domain import Domain
from mailrider.model.security import (
    NO_REQUIREMENT,
    DANETrust,
    Mechanism,
    MXLevel,
    PeerEvidence,
    Requirement,
    TLSEvidence,
    Verdict,
)
from mailrider.policy.judge import MAX_AGE, Judge
from mailrider.x509.anchors import Anchors
from mailrider.x509.certificate import parse_certificate
from mailrider.x509.verify import TimedVerdict, judge_chain
from tests.support.certificates import NOW, Issued, authority, issue

if TYPE_CHECKING:
    from collections.abc import Sequence

MX = Domain("mx.example.net")
YES, NO = Verdict(True, Mechanism.PKIX, "yes"), Verdict(False, Mechanism.PKIX, "no")
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


class Counted:
    """Says one thing after the other, and counts how often it is asked."""

    def __init__(self, *timed: TimedVerdict) -> None:
        self.timed = list(timed)
        self.asked = 0

    def __call__(self, *_: object) -> TimedVerdict:
        self.asked += 1
        return self.timed[min(self.asked, len(self.timed)) - 1]


def proof(*chain: Issued, host: Domain = MX) -> PeerEvidence:
    tls = TLSEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", tuple(one.der for one in chain))
    return PeerEvidence(host, "192.0.2.1", 25, tls)


def verdict(
    judge: Judge, evidence: PeerEvidence, now: datetime, requirement: Requirement = NO_REQUIREMENT
) -> Verdict | None:
    return judge.judge(requirement, MXLevel.NONE, evidence, now).verdict


def is_good(judge: Judge, evidence: PeerEvidence, now: datetime, requirement: Requirement = NO_REQUIREMENT) -> bool:
    found = verdict(judge, evidence, now, requirement)
    return found is not None and found.ok


def judge_by(root: Issued) -> Judge:
    anchors = Anchors([parse_certificate(root.der)])

    def verify_pkix(chain: Sequence[bytes], names: tuple[Domain, ...], now: datetime) -> TimedVerdict:
        return judge_chain(chain, anchors, names, now)

    return Judge(verify_pkix, judge_dane)


ROOT = authority()
LEAF = issue(ROOT)
PROOF = proof(LEAF)


def test_the_second_question_costs_nothing() -> None:
    pkix = Counted(TimedVerdict(YES))
    judge = Judge(pkix, pkix)
    assert [verdict(judge, PROOF, NOW + n * MINUTE) for n in range(60)] == [YES] * 60
    assert pkix.asked == 1


def test_a_chain_is_verified_again_after_an_hour() -> None:
    pkix = Counted(TimedVerdict(YES), TimedVerdict(NO))
    judge = Judge(pkix, pkix)
    assert verdict(judge, PROOF, NOW) == YES
    assert verdict(judge, PROOF, NOW + MAX_AGE - SECOND) == YES
    assert verdict(judge, PROOF, NOW + MAX_AGE) == NO


@pytest.mark.parametrize("moment", [NOW - 2 * MINUTE, NOW + 2 * MINUTE, NOW + 5 * MINUTE])
def test_a_verdict_is_not_given_outside_its_limits(moment: datetime) -> None:
    pkix = Counted(TimedVerdict(YES, NOW - MINUTE, NOW + 2 * MINUTE), TimedVerdict(NO))
    judge = Judge(pkix, pkix)
    assert [verdict(judge, PROOF, each) for each in (NOW, moment)] == [YES, NO]


def test_a_clock_that_jumps_back_far_is_noticed() -> None:
    pkix = Counted(TimedVerdict(YES))
    judge = Judge(pkix, pkix)
    verdict(judge, PROOF, NOW)
    verdict(judge, PROOF, NOW - 2 * MAX_AGE)
    assert pkix.asked == 2


def test_what_is_remembered_is_bounded_and_what_was_not_asked_for_longest_goes_first() -> None:
    pkix = Counted(TimedVerdict(YES))
    judge = Judge(pkix, pkix, max_verdicts=3)
    hosts = {name: proof(LEAF, host=Domain(f"{name}.test")) for name in "abcd"}
    for name in "abcad":
        verdict(judge, hosts[name], NOW)
    assert pkix.asked == 4
    verdict(judge, hosts["a"], NOW)
    assert pkix.asked == 4
    verdict(judge, hosts["b"], NOW)
    assert pkix.asked == 5


def test_a_certificate_that_expires_within_the_hour_is_refused_from_then_on() -> None:
    judge, brief = judge_by(ROOT), proof(issue(ROOT, not_after=NOW + MINUTE))
    moments = [NOW, NOW + MINUTE - SECOND, NOW + MINUTE + SECOND, NOW + 2 * MINUTE]
    assert [is_good(judge, brief, moment) for moment in moments] == [True, True, False, False]


def test_a_root_that_expires_within_the_hour_counts_too() -> None:
    root = authority(not_after=NOW + MINUTE)
    judge, evidence = judge_by(root), proof(issue(root))
    assert [is_good(judge, evidence, moment) for moment in (NOW, NOW + 2 * MINUTE)] == [True, False]


def test_a_certificate_that_becomes_valid_is_accepted_at_once() -> None:
    judge, early = judge_by(ROOT), proof(issue(ROOT, not_before=NOW + MINUTE))
    assert [is_good(judge, early, moment) for moment in (NOW, NOW + MINUTE)] == [False, True]


def test_another_name_or_chain_is_another_question() -> None:
    judge = judge_by(ROOT)
    assert is_good(judge, PROOF, NOW)
    assert not is_good(judge, proof(issue(authority("Other"))), NOW)
    assert not is_good(judge, proof(LEAF, host=Domain("other.example")), NOW)


def test_other_records_are_another_question_and_none_are_pkix() -> None:
    judge, end = judge_by(ROOT), LEAF.certificate.not_valid_after_utc
    both = proof(LEAF, ROOT)
    anchored, pinned, wrong = (
        Requirement(dane=DANETrust((record,), MX, (MX,)))
        for record in (ROOT.tlsa(2, 0, 1), LEAF.tlsa(3, 1, 1), ROOT.tlsa(3, 1, 1))
    )
    for moment, ok in ((end - 2 * MINUTE, True), (end - MINUTE, True), (end + MINUTE, False), (end - MINUTE, True)):
        assert [is_good(judge, both, moment, each) for each in (anchored, NO_REQUIREMENT)] == [ok, ok]
        assert [is_good(judge, both, moment, each) for each in (pinned, wrong)] == [True, False]


EDGES = (NOW, NOW + 7 * MINUTE, NOW + 20 * MINUTE, NOW + 40 * MINUTE)
BRIEF_ROOT = authority(not_before=EDGES[0], not_after=EDGES[3])
EDGY_LEAF = issue(BRIEF_ROOT, not_before=EDGES[1], not_after=EDGES[2])
TRUSTED = Anchors([parse_certificate(BRIEF_ROOT.der)])


@given(st.lists(st.integers(-2 * 60, 45 * 60), min_size=1, max_size=20))
def test_memory_never_changes_a_verdict(seconds: list[int]) -> None:
    judge, evidence = judge_by(BRIEF_ROOT), proof(EDGY_LEAF)
    for second in seconds:
        moment = NOW + second * SECOND
        assert verdict(judge, evidence, moment) == judge_chain([EDGY_LEAF.der], TRUSTED, [MX], moment).verdict
