"""The TXT record: RFC 8461 3.1, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.mtasts.record import MAX_RECORD, NoRecord, STSRecord, find_record, record_name

GOOD = {
    "the usual form": (b"v=STSv1; id=20260131T120000;", "20260131T120000"),
    "no delimiter at the end": (b"v=STSv1; id=abc", "abc"),
    "no spaces": (b"v=STSv1;id=abc;", "abc"),
    "spaces and tabs around delimiters": (b"v=STSv1;\t id=abc \t;  ", "abc"),
    "one character": (b"v=STSv1;id=1", "1"),
    "32 characters": (b"v=STSv1;id=" + b"a" * 32, "a" * 32),
    "ids are case-sensitive": (b"v=STSv1; id=AbC;", "AbC"),
    "unknown fields are ignored": (b"v=STSv1; new=field; id=abc; x.y-z_0=~!@<>:", "abc"),
    "a field name of 32 characters": (b"v=STSv1; " + b"n" * 32 + b"=1; id=abc", "abc"),
    "a second id is ignored": (b"v=STSv1; id=first; id=second;", "first"),
    "a second id that is wrong is ignored too": (b"v=STSv1; id=first; id=not-an-id;", "first"),
    "a later v is an unknown field": (b"v=STSv1; v=STSv2; id=abc;", "abc"),
}

MALFORMED = {
    "no id": b"v=STSv1;",
    "no id, only others": b"v=STSv1; other=1;",
    "empty id": b"v=STSv1; id=;",
    "id of 33 characters": b"v=STSv1; id=" + b"a" * 33,
    "id with a hyphen": b"v=STSv1; id=2026-01-31;",
    "id with a space": b"v=STSv1; id=2026 01;",
    "id in quotes": b'v=STSv1; id="abc";',
    "first id wrong, second right": b"v=STSv1; id=a-b; id=abc;",
    "names are case-sensitive": b"v=STSv1; ID=abc;",
    "space before the equals sign": b"v=STSv1; id =abc;",
    "space after the equals sign": b"v=STSv1; id= abc;",
    "not name=value": b"v=STSv1; id=abc; flag;",
    "an empty field": b"v=STSv1;; id=abc;",
    "two delimiters at the end": b"v=STSv1; id=abc;;",
    "space at the end without a delimiter": b"v=STSv1; id=abc ",
    "empty extension": b"v=STSv1; id=abc; new=;",
    "extension with an equals sign": b"v=STSv1; id=abc; new=a=b;",
    "extension name of 33 characters": b"v=STSv1; id=abc; " + b"n" * 33 + b"=1",
    "extension name that begins with a dot": b"v=STSv1; id=abc; .n=1",
    "a line end": b"v=STSv1; id=abc\n",
    "NUL": b"v=STSv1; id=abc\0;",
    "8-bit": b"v=STSv1; id=abc; n=\xc3\xa9;",
    "longer than anybody needs": b"v=STSv1; id=abc; n=" + b"x" * MAX_RECORD,
}

SOMEBODY_ELSES = {
    "another version": b"v=STSv2; id=abc;",
    "the version in other case": b"v=stsv1; id=abc;",
    "space before the first delimiter": b"v=STSv1 ; id=abc;",
    "space at the beginning": b" v=STSv1; id=abc;",
    "the version alone": b"v=STSv1",
    "the id first": b"id=abc; v=STSv1;",
    "SPF": b"v=spf1 -all",
    "empty": b"",
}


@pytest.mark.parametrize(("text", "expected"), GOOD.values(), ids=GOOD)
def test_a_good_record_announces_its_id(text: bytes, expected: str) -> None:
    assert find_record([text]) == STSRecord(expected)


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_record_announces_nothing(text: bytes) -> None:
    found = find_record([text])
    assert isinstance(found, NoRecord)
    assert found.malformed
    assert found.reason


@pytest.mark.parametrize("text", SOMEBODY_ELSES.values(), ids=SOMEBODY_ELSES)
def test_what_does_not_begin_with_the_version_is_somebody_elses(text: bytes) -> None:
    assert find_record([text]) == NoRecord("no TXT record begins with v=STSv1;")
    assert find_record([text, b"v=STSv1; id=abc;", text]) == STSRecord("abc")


def test_no_record_at_all() -> None:
    assert find_record([]) == NoRecord("no TXT record begins with v=STSv1;")


def test_of_two_records_neither_counts() -> None:
    found = find_record([b"v=STSv1; id=abc;", b"v=STSv1; id=abc;"])
    assert isinstance(found, NoRecord)
    assert found.malformed
    assert "2 TXT records" in found.reason


def test_a_malformed_record_beside_a_good_one_spoils_it() -> None:
    assert isinstance(find_record([b"v=STSv1; id=abc;", b"v=STSv1;"]), NoRecord)


def test_a_record_has_a_valid_id() -> None:
    with pytest.raises(InvalidValue):
        STSRecord("not an id")


def test_the_record_stands_below_the_domain() -> None:
    assert record_name(Domain("example.com")) == Domain("_mta-sts.example.com")


def test_a_domain_can_be_too_long_to_have_a_record() -> None:
    with pytest.raises(InvalidValue):
        record_name(Domain(".".join(["a" * 49] * 5)))


@given(st.from_regex(r"\A[A-Za-z0-9]{1,32}\Z"))
def test_what_is_written_is_read(policy_id: str) -> None:
    record = STSRecord(policy_id)
    assert find_record([str(record).encode()]) == record


@given(st.lists(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: b"v=STSv1;" + rest), max_size=4))
def test_anything_can_stand_in_dns(texts: list[bytes]) -> None:
    found = find_record(texts)
    assert isinstance(found, STSRecord | NoRecord)
    if isinstance(found, STSRecord):
        assert sum(text.startswith(b"v=STSv1;") for text in texts) == 1


@pytest.mark.parametrize("text", [text for text, _ in GOOD.values()], ids=GOOD)
def test_every_prefix_of_a_good_record_is_safe_to_read(text: bytes) -> None:
    for end in range(len(text)):
        assert isinstance(find_record([text[:end]]), STSRecord | NoRecord)
