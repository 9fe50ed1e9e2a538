"""DANE verdicts: the table, and what does not fit into it."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.dane.match import MAX_PATHS, judge_dane
from mailrider.dane.tlsa import MAX_RECORDS
from mailrider.model.domain import Domain
from mailrider.model.security import DANETrust, Mechanism, TLSARecord, Verdict
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from tests.support.certificates import DAY, NOW, Issued, authority, ec_key, issue
from tests.support.dane_cases import DANECase, dane_cases

if TYPE_CHECKING:
    from collections.abc import Callable

MX = Domain("mx.example.net")
MINUTE = timedelta(minutes=1)
ROOT = authority("Test Root")
LEAF = issue(ROOT)


def trust(*records: TLSARecord, names: tuple[Domain, ...] = (MX,)) -> DANETrust:
    return DANETrust(records, MX, names)


def match(chain: list[Issued], *records: TLSARecord, names: tuple[Domain, ...] = (MX,)) -> Verdict:
    return judge_dane([one.der for one in chain], trust(*records, names=names), NOW).verdict


@pytest.mark.parametrize("case", dane_cases(), ids=str)
def test_dane(case: DANECase) -> None:
    verdict = judge_dane([one.der for one in case.chain], trust(*case.records), case.now).verdict
    assert case.reason in verdict.reason
    assert verdict.ok is case.ok
    assert bool(verdict.problems) is not case.ok
    assert verdict.mechanism is Mechanism.DANE


def test_nothing_matches_no_certificate() -> None:
    assert match([], LEAF.tlsa(3, 1, 1)) == Verdict(
        False,
        Mechanism.DANE,
        "the server sent no certificate",
        (TLSProblem(TLSProblemKind.NO_CERTIFICATE, "the server sent no certificate"),),
    )


@pytest.mark.parametrize(
    ("server", "record", "kind"),
    [
        (lambda: issue(ROOT), lambda: issue().tlsa(3, 1, 1), "dane-no-match"),
        (lambda: issue(ROOT), lambda: authority("Other").tlsa(2, 0, 1), "dane-no-match"),
        (lambda: issue(ROOT, names=["a.example"]), lambda: ROOT.tlsa(2, 0, 1), "wrong-name"),
        (lambda: issue(ROOT, not_after=NOW - MINUTE), lambda: ROOT.tlsa(2, 0, 1), "expired"),
    ],
)
def test_a_chain_that_leads_to_the_anchor_is_told_what_else_is_wrong(
    server: Callable[[], Issued], record: Callable[[], TLSARecord], kind: str
) -> None:
    verdict = match([server(), ROOT], record())
    assert [problem.kind.value for problem in verdict.problems] == [kind]


def test_dane_ee_does_not_mind_garbage_behind_the_certificate() -> None:
    chain = [LEAF.der, b"", b"junk", *[b"\x30\x80"] * 50]
    assert judge_dane(chain, trust(LEAF.tlsa(3, 1, 1)), NOW).verdict.ok


def test_dane_ee_matches_octets_that_are_no_certificate() -> None:
    # Whoever publishes the digest of it means it; names, dates and form are nobody's business (RFC 7671 5.1).
    junk = b"these are no certificate"
    assert judge_dane([junk], trust(TLSARecord(3, 0, 1, hashlib.sha256(junk).digest())), NOW).verdict.ok


def test_dane_ee_matches_the_key_of_a_certificate_that_cannot_be_decoded_beyond_it() -> None:
    broken = LEAF.der.replace(b"\x55\x1d\x11", b"\x55\x1d\x25")  # an extension twice
    assert judge_dane([broken], trust(LEAF.tlsa(3, 1, 1)), NOW).verdict.ok


def test_the_key_of_something_that_has_none_is_a_reason() -> None:
    verdict = judge_dane([b"junk"], trust(LEAF.tlsa(3, 1, 1)), NOW).verdict
    assert verdict.reason.endswith("...: the server's certificate cannot be read")


def test_dane_ta_needs_a_certificate_that_can_be_read() -> None:
    verdict = judge_dane([b"junk", ROOT.der], trust(ROOT.tlsa(2, 0, 1)), NOW).verdict
    assert verdict.reason == (
        "no TLSA record matches: the server's certificate cannot be read: the certificate is missing"
    )


def test_dane_ta_does_not_mind_garbage_among_the_certificates() -> None:
    assert judge_dane([LEAF.der, b"junk", ROOT.der], trust(ROOT.tlsa(2, 0, 1)), NOW).verdict.ok


def test_dane_ta_does_not_look_past_the_tenth_certificate() -> None:
    filler = [LEAF.der] * 9
    assert judge_dane([*filler, ROOT.der], trust(ROOT.tlsa(2, 0, 1)), NOW).verdict.ok
    assert not judge_dane([*filler, LEAF.der, ROOT.der], trust(ROOT.tlsa(2, 0, 1)), NOW).verdict.ok


def test_any_one_of_the_reference_names_suffices() -> None:
    names = (Domain("example.org"), MX)
    verdict = match([LEAF, ROOT], ROOT.tlsa(2, 0, 1), names=names)
    assert verdict.ok
    assert "valid for mx.example.net" in verdict.reason


def test_dane_ta_without_any_name_proves_nothing() -> None:
    verdict = match([LEAF, ROOT], ROOT.tlsa(2, 0, 1), names=())
    assert verdict.reason.endswith("but: there is no host name that it could prove")


def test_a_public_root_does_not_help() -> None:
    # DANE-TA trusts the record's anchor and nothing else, whatever PKIX would say.
    assert not match([LEAF, ROOT], authority("Other").tlsa(2, 0, 1)).ok


def test_a_cross_signed_ca_counts_in_either_shape() -> None:
    key = ec_key()
    plain, crossed = authority("CA", key=key), authority("CA", ROOT, key=key)
    leaf = issue(plain)
    for anchor in (plain, crossed):
        assert match([leaf, plain, crossed], anchor.tlsa(2, 0, 1)).ok
        assert match([leaf, crossed, plain], anchor.tlsa(2, 1, 1)).ok


def test_an_expired_anchor_does_not_spoil_the_good_one_with_the_same_key() -> None:
    key = ec_key()
    old, new = (authority("CA", key=key, not_after=NOW + days * DAY) for days in (-1, 1))
    assert match([issue(new), old, new], new.tlsa(2, 1, 1)).ok


def test_the_reason_gives_no_more_than_a_few_records() -> None:
    records = [TLSARecord(3, 1, 1, bytes([n]) * 32) for n in range(7)]
    assert match([LEAF], *records).reason.endswith("; and 3 more")


def test_the_number_of_paths_that_are_sought_is_bounded() -> None:
    # Every certificate fits its record and none leads anywhere; the ninth would.
    strangers = [authority(f"Stranger {n}") for n in range(MAX_PATHS)]
    records = [stranger.tlsa(2, 0, 0) for stranger in strangers]
    good = ROOT.tlsa(2, 0, 0)
    assert match([LEAF], *records[1:], good).ok
    assert not match([LEAF], *records, good).ok


def test_records_past_the_limit_are_not_compared() -> None:
    stale = [TLSARecord(3, 1, 1, bytes([n]) * 32) for n in range(MAX_RECORDS)]
    assert match([LEAF], *stale[1:], LEAF.tlsa(3, 1, 1)).ok
    assert not match([LEAF], *stale, LEAF.tlsa(3, 1, 1)).ok


def test_a_record_that_is_not_usable_after_all_matches_nothing() -> None:
    # `trust.records` are usable by contract; if one is not, the answer is still a verdict.
    for record in (TLSARecord(2, 0, 0, b"junk"), TLSARecord(2, 1, 0, b"junk"), TLSARecord(1, 0, 1, b"junk")):
        assert not match([LEAF, ROOT], record).ok


BRIEF_ROOT = authority("Brief Root", not_before=NOW - 20 * DAY, not_after=NOW + 30 * DAY)
BRIEF_LEAF = issue(BRIEF_ROOT, not_before=NOW - 10 * DAY, not_after=NOW + 50 * DAY)


@given(
    judged=st.integers(-30, 60),
    asked=st.integers(-30, 60),
    record=st.sampled_from(
        [BRIEF_ROOT.tlsa(2, 0, 1), BRIEF_ROOT.tlsa(2, 0, 0), BRIEF_ROOT.tlsa(2, 1, 0), BRIEF_LEAF.tlsa(3, 1, 1)]
    ),
    root_is_sent=st.booleans(),
)
def test_a_verdict_holds_as_long_as_it_says(judged: int, asked: int, record: TLSARecord, root_is_sent: bool) -> None:
    chain = [BRIEF_LEAF.der, BRIEF_ROOT.der][: 1 + root_is_sent]
    timed = judge_dane(chain, trust(record), NOW + judged * DAY)
    moment = NOW + asked * DAY
    if timed.since <= moment < timed.until:
        assert judge_dane(chain, trust(record), moment).verdict == timed.verdict
