"""Which TLSA records count: the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.dane.tlsa import MAX_RECORDS, IgnoredRecord, select_usable, show, why_unusable
from mailrider.dns.answer import MalformedTLSA
from mailrider.model.security import TLSARecord
from tests.support.certificates import Issued, authority, issue

if TYPE_CHECKING:
    import random

ROOT = authority()
LEAF = issue(ROOT)
SHA256, SHA512 = b"\x11" * 32, b"\x22" * 64


@pytest.mark.parametrize("usage", [2, 3])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching_type", [0, 1, 2])
def test_these_are_usable(usage: int, selector: int, matching_type: int) -> None:
    record = LEAF.tlsa(usage, selector, matching_type)
    assert why_unusable(record) is None
    assert select_usable([record]).usable == (record,)


@pytest.mark.parametrize(
    ("usage", "selector", "matching_type", "data", "reason"),
    [
        (0, 0, 1, SHA256, "usage 0, PKIX-TA, is not for mail (RFC 7672 3.1.3)"),
        (1, 1, 1, SHA256, "usage 1, PKIX-EE, is not for mail (RFC 7672 3.1.3)"),
        (4, 1, 1, SHA256, "usage 4 is unknown"),
        (255, 1, 1, SHA256, "usage 255 is unknown"),
        (3, 2, 1, SHA256, "selector 2 is unknown"),
        (3, 255, 0, LEAF.spki, "selector 255 is unknown"),
        (3, 1, 3, SHA256, "matching type 3 is unknown"),
        (2, 0, 255, SHA512, "matching type 255 is unknown"),
        (3, 1, 1, b"", "a digest of matching type 1 has 32 octets, this one 0"),
        (3, 1, 1, SHA256[:-1], "a digest of matching type 1 has 32 octets, this one 31"),
        (3, 1, 1, SHA512, "a digest of matching type 1 has 32 octets, this one 64"),
        (2, 0, 2, SHA256, "a digest of matching type 2 has 64 octets, this one 32"),
        (3, 0, 0, b"", "its data is not a certificate: the certificate is missing"),
        (2, 0, 0, SHA256, "its data is not a certificate: the certificate is missing"),
        (2, 0, 0, LEAF.der[:-1], "its data is not a certificate: the certificate is cut off"),
        (2, 0, 0, LEAF.der + b"\0", "its data is not a certificate: 1 octets stand behind the certificate"),
        (2, 0, 0, LEAF.spki, "its data is not a certificate: the serial number is missing"),
        (2, 1, 0, b"", "its data is not a public key: not a public key of a kind that is known here"),
        (2, 1, 0, LEAF.der, "its data is not a public key: not a public key of a kind that is known here"),
        (3, 1, 0, LEAF.spki + b"\0", "its data is not a public key: not a public key of a kind that is known here"),
    ],
)
def test_these_are_not(usage: int, selector: int, matching_type: int, data: bytes, reason: str) -> None:
    record = TLSARecord(usage, selector, matching_type, data)
    found = select_usable([record])
    assert found.usable == ()
    assert found.unusable == (IgnoredRecord(show(record), reason),)
    assert found.superseded == ()


def test_a_record_that_dns_could_not_decode_exists_and_is_unusable() -> None:
    found = select_usable([MalformedTLSA(r"\# 2 0301")])
    assert found.usable == ()
    assert found.unusable == (IgnoredRecord(r"\# 2 0301", "it cannot be decoded"),)


def test_no_records() -> None:
    found = select_usable([])
    assert (found.usable, found.unusable, found.superseded) == ((), (), ())


@dataclass(frozen=True)
class Agility:
    """`published` are (usage, selector, matching type); those in `counts` are compared. RFC 7671 9."""

    published: str
    counts: str


@pytest.mark.parametrize(
    "case",
    [
        Agility("311 312", "312"),
        Agility("201 202", "202"),
        Agility("310 311 312", "312 310"),  # matching type 0 always counts
        Agility("310 311", "311 310"),
        Agility("311 302", "302 311"),  # another selector
        Agility("311 212", "311 212"),  # another usage
        Agility("311 312 301 211 202", "301 312 202 211"),
        Agility("112 311", "311"),  # an unusable record sets no standard
        Agility("313 311", "311"),
        Agility("322 311", "311"),
        Agility("210 311 200 301", "301 311 200 210"),
        Agility("201 311", "311 201"),  # DANE-EE first
    ],
    ids=lambda case: f"{case.published}->{case.counts}",
)
def test_digest_agility(case: Agility) -> None:
    def records(text: str) -> list[TLSARecord]:
        return [made(LEAF, *map(int, kind)) for kind in text.split()]

    found = select_usable(records(case.published))
    assert found.usable == tuple(records(case.counts))
    assert len(found.usable) + len(found.unusable) + len(found.superseded) == len(case.published.split())
    assert all("RFC 7671 9" in aside.reason for aside in found.superseded)


def made(issued: Issued, usage: int, selector: int, matching_type: int) -> TLSARecord:
    if selector < 2 and matching_type < 3:
        return issued.tlsa(usage, selector, matching_type)
    return TLSARecord(usage, selector, matching_type, SHA256)


def test_a_broken_sha512_does_not_supersede_a_good_sha256() -> None:
    good, broken = LEAF.tlsa(3, 1, 1), TLSARecord(3, 1, 2, SHA512[:-1])
    assert select_usable([broken, good]).usable == (good,)


def test_the_same_record_twice_counts_once() -> None:
    assert select_usable([LEAF.tlsa(3, 1, 1)] * 3).usable == (LEAF.tlsa(3, 1, 1),)


def test_more_records_than_anybody_publishes_are_cut_after_sorting_out() -> None:
    unusable = [TLSARecord(1, 0, 1, bytes([n]) * 32) for n in range(100)]
    usable = [TLSARecord(3, 1, 1, bytes([n]) * 32) for n in range(40)]
    found = select_usable([*unusable, *usable])
    # A usable record can't be hidden behind unusable ones: that would turn "must match" into "TLS will do".
    assert len(found.usable) == MAX_RECORDS
    assert len(found.unusable) == 100
    assert [aside.reason for aside in found.superseded] == ["more than 32 usable records"] * 8


def test_long_data_is_cut_for_people() -> None:
    assert show(LEAF.tlsa(3, 1, 1)) == f"3 1 1 {LEAF.tlsa(3, 1, 1).data.hex()[:16]}..."
    assert show(TLSARecord(3, 1, 1, b"\xab\xcd")) == "3 1 1 abcd"


ANY_RECORD = st.one_of(
    st.builds(MalformedTLSA, st.text(max_size=20)),
    st.builds(
        TLSARecord,
        st.integers(0, 4),
        st.integers(0, 2),
        st.integers(0, 3),
        st.sampled_from([b"", b"x", SHA256, SHA512, LEAF.der, LEAF.spki, ROOT.der, ROOT.spki]) | st.binary(max_size=70),
    ),
)


@given(st.lists(ANY_RECORD, max_size=20, unique=True), st.randoms())
def test_the_order_of_an_rrset_makes_no_difference(
    records: list[TLSARecord | MalformedTLSA], shuffler: random.Random
) -> None:
    found = select_usable(records)
    shuffler.shuffle(records)
    assert select_usable(records) == found
    assert len(found.usable) + len(found.unusable) + len(found.superseded) == len(records)
    # None usable and some superseded cannot be: agility chooses among the usable.
    assert found.usable or not found.superseded
