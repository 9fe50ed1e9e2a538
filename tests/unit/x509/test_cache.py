"""Remembered verdicts: never past the moment at which they could change."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.model.domain import Domain
from mailrider.model.security import Mechanism, TLSEvidence, Verdict
from mailrider.x509.anchors import Anchors
from mailrider.x509.cache import MAX_AGE, VerdictCache, verify_evidence
from mailrider.x509.certificate import parse_certificate
from mailrider.x509.timed import TimedVerdict
from mailrider.x509.verify import judge_chain
from tests.support.certificates import NOW, Issued, authority, issue

MX = Domain("mx.example.net")
YES, NO = Verdict(True, Mechanism.PKIX, "yes"), Verdict(False, Mechanism.PKIX, "no")
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


class Counted:
    """A judge that counts how often it is asked."""

    def __init__(self, *timed: TimedVerdict) -> None:
        self.timed = list(timed)
        self.asked = 0

    def __call__(self) -> TimedVerdict:
        self.asked += 1
        return self.timed[min(self.asked, len(self.timed)) - 1]


def evidence(*chain: Issued) -> TLSEvidence:
    return TLSEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", tuple(one.der for one in chain))


def test_the_second_question_costs_nothing() -> None:
    cache, judge = VerdictCache(), Counted(TimedVerdict(YES))
    assert [cache.verdict("key", NOW + n * MINUTE, judge) for n in range(60)] == [YES] * 60
    assert judge.asked == 1


def test_a_verdict_is_judged_again_after_an_hour() -> None:
    cache, judge = VerdictCache(), Counted(TimedVerdict(YES), TimedVerdict(NO))
    cache.verdict("key", NOW, judge)
    assert cache.verdict("key", NOW + MAX_AGE - SECOND, judge) == YES
    assert cache.verdict("key", NOW + MAX_AGE, judge) == NO


@pytest.mark.parametrize("moment", [NOW - 2 * MINUTE, NOW + 2 * MINUTE, NOW + 5 * MINUTE])
def test_a_verdict_is_not_used_outside_its_limits(moment: datetime) -> None:
    timed = TimedVerdict(YES, NOW - MINUTE, NOW + 2 * MINUTE)
    cache, judge = VerdictCache(), Counted(timed, TimedVerdict(NO))
    assert cache.verdict("key", NOW, judge) == YES
    assert cache.verdict("key", moment, judge) == NO


def test_a_clock_that_jumps_back_far_is_noticed() -> None:
    cache, judge = VerdictCache(), Counted(TimedVerdict(YES))
    cache.verdict("key", NOW, judge)
    cache.verdict("key", NOW - 2 * MAX_AGE, judge)
    assert judge.asked == 2


def test_the_cache_is_bounded_and_the_least_used_goes_first() -> None:
    cache, judge = VerdictCache(size=3), Counted(TimedVerdict(YES))
    for key in ("a", "b", "c", "a", "d"):
        cache.verdict(key, NOW, judge)
    assert len(cache) == 3
    asked = judge.asked
    cache.verdict("a", NOW, judge)
    assert judge.asked == asked
    cache.verdict("b", NOW, judge)
    assert judge.asked == asked + 1


def test_a_certificate_that_expires_within_the_hour_is_refused_from_then_on() -> None:
    root = authority()
    trusted = Anchors([parse_certificate(root.der)])
    cache, proof = VerdictCache(), evidence(issue(root, not_after=NOW + MINUTE))
    moments = [NOW, NOW + MINUTE - SECOND, NOW + MINUTE + SECOND, NOW + 2 * MINUTE]
    assert [verify_evidence(cache, trusted, proof, [MX], moment).ok for moment in moments] == [True, True, False, False]


def test_a_root_that_expires_within_the_hour_counts_too() -> None:
    root = authority(not_after=NOW + MINUTE)
    trusted = Anchors([parse_certificate(root.der)])
    cache, proof = VerdictCache(), evidence(issue(root))
    assert verify_evidence(cache, trusted, proof, [MX], NOW).ok
    assert not verify_evidence(cache, trusted, proof, [MX], NOW + 2 * MINUTE).ok


def test_a_certificate_that_becomes_valid_is_accepted_at_once() -> None:
    root = authority()
    trusted = Anchors([parse_certificate(root.der)])
    cache, proof = VerdictCache(), evidence(issue(root, not_before=NOW + MINUTE))
    assert not verify_evidence(cache, trusted, proof, [MX], NOW).ok
    assert verify_evidence(cache, trusted, proof, [MX], NOW + MINUTE).ok


def test_another_name_root_or_chain_is_another_question() -> None:
    root, other_root = authority(), authority("Other")
    trusted, distrusting = (Anchors([parse_certificate(one.der)]) for one in (root, other_root))
    cache, proof, other = VerdictCache(), evidence(issue(root)), evidence(issue(other_root))
    assert verify_evidence(cache, trusted, proof, [MX], NOW).ok
    assert not verify_evidence(cache, distrusting, proof, [MX], NOW).ok
    assert not verify_evidence(cache, trusted, other, [MX], NOW).ok
    assert not verify_evidence(cache, trusted, proof, [Domain("other.example")], NOW).ok
    assert len(cache) == 4


EDGES = (NOW, NOW + 7 * MINUTE, NOW + 20 * MINUTE, NOW + 40 * MINUTE)
ROOT = authority(not_before=EDGES[0], not_after=EDGES[3])
EDGY_LEAF = issue(ROOT, not_before=EDGES[1], not_after=EDGES[2])
TRUSTED = Anchors([parse_certificate(ROOT.der)])


@given(st.lists(st.integers(-2 * 60, 45 * 60), min_size=1, max_size=20))
def test_the_cache_never_changes_a_verdict(seconds: list[int]) -> None:
    cache, proof = VerdictCache(), evidence(EDGY_LEAF)
    for second in seconds:
        moment = NOW + second * SECOND
        fresh = judge_chain(proof.chain, TRUSTED, [MX], moment).verdict
        assert verify_evidence(cache, TRUSTED, proof, [MX], moment) == fresh


@pytest.mark.parametrize(("since", "until"), list(pairwise(EDGES)))
def test_the_limits_are_the_nearest_dates(since: datetime, until: datetime) -> None:
    timed = judge_chain([EDGY_LEAF.der], TRUSTED, [MX], since + MINUTE)
    assert (timed.since, timed.until) in {(since, until), (since + SECOND, until)}


def test_a_certificate_without_end_has_no_limit() -> None:
    forever = datetime(9999, 12, 31, 23, 59, 59, tzinfo=NOW.tzinfo)
    root = authority(not_after=forever)
    timed = judge_chain([issue(root, not_after=forever).der], Anchors([parse_certificate(root.der)]), [MX], NOW)
    assert timed.verdict.ok
    assert timed.until == forever
