"""The TXT record at `_smtp._tls.<domain>` (RFC 8460 3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.tlsrpt.record import (
    MAX_RECORD,
    HTTPSEndpoint,
    NoReportRecord,
    TLSRPTRecord,
    find_record,
    parse_endpoint,
    record_name,
)

MAIL = "mailto:reports@example.org"
POST = "https://reports.example.org/v1/tlsrpt"


def endpoints(text: str) -> list[str]:
    found = find_record([text.encode()])
    assert isinstance(found, TLSRPTRecord), found
    return list(map(str, found.endpoints))


ACCEPTED = {
    "one address": (f"v=TLSRPTv1; rua={MAIL}", [MAIL]),
    "a trailing semicolon": (f"v=TLSRPTv1; rua={MAIL};", [MAIL]),
    "no spaces": (f"v=TLSRPTv1;rua={MAIL}", [MAIL]),
    "spaces around the semicolon": (f"v=TLSRPTv1 ; rua={MAIL} ; ", [MAIL]),
    "spaces around the comma": (f"v=TLSRPTv1; rua={MAIL} , {POST}", [MAIL, POST]),
    "several rua fields": (f"v=TLSRPTv1; rua={MAIL}; rua={POST}", [MAIL, POST]),
    "an unknown field": (f"v=TLSRPTv1; x-new=1; rua={MAIL}; other=a b", [MAIL]),
    "a scheme in capitals": (
        "v=TLSRPTv1; rua=MAILTO:reports@example.org,HTTPS://r.example/x",
        [MAIL, "HTTPS://r.example/x"],
    ),
    "an encoded comma": ("v=TLSRPTv1; rua=mailto:a%2Cb@example.org", ['mailto:"a,b"@example.org']),
    "an encoded exclamation mark": ("v=TLSRPTv1; rua=mailto:a%21b@example.org", ["mailto:a!b@example.org"]),
    "an encoded semicolon": ("v=TLSRPTv1; rua=mailto:a%3Bb@example.org", ['mailto:"a;b"@example.org']),
    "a query, dropped": ("v=TLSRPTv1; rua=mailto:a@example.org?subject=x", ["mailto:a@example.org"]),
    "decoded once": ("v=TLSRPTv1; rua=mailto:a%2541@example.org", ["mailto:a%41@example.org"]),
    "the same address twice": (f"v=TLSRPTv1; rua={MAIL},{MAIL}", [MAIL]),
    "one bad address of two": (f"v=TLSRPTv1; rua=http://r.example/,{MAIL}", [MAIL]),
    "a port": ("v=TLSRPTv1; rua=https://r.example:8443/x?y=z", ["https://r.example:8443/x?y=z"]),
}

REFUSED = {
    "another version": f"v=TLSRPTv10; rua={MAIL}",
    "a version in small letters": f"v=tlsrptv1; rua={MAIL}",
    "no rua": "v=TLSRPTv1;",
    "nothing behind the version": "v=TLSRPTv1",
    "an empty rua": "v=TLSRPTv1; rua=",
    "plain http": "v=TLSRPTv1; rua=http://r.example/x",
    "no scheme": "v=TLSRPTv1; rua=reports@example.org",
    "a user in the URL": "v=TLSRPTv1; rua=https://user:secret@r.example/x",
    "a fragment": "v=TLSRPTv1; rua=https://r.example/x#y",
    "an address literal": "v=TLSRPTv1; rua=https://127.0.0.1/x",
    "a number as host": "v=TLSRPTv1; rua=https://2130706433/x",
    "a short IPv4 address": "v=TLSRPTv1; rua=https://127.1/x",
    "an IPv6 literal": "v=TLSRPTv1; rua=https://[::1]/x",
    "port 0": "v=TLSRPTv1; rua=https://r.example:0/x",
    "no port number": "v=TLSRPTv1; rua=https://r.example:x/x",
    "no domain": "v=TLSRPTv1; rua=mailto:postmaster",
    "a mailbox at an address literal": "v=TLSRPTv1; rua=mailto:a@[192.0.2.1]",
    "two addresses in one mailto": "v=TLSRPTv1; rua=mailto:a@example.org%2Cb@example.org",
    "no local part": "v=TLSRPTv1; rua=mailto:@example.org",
    "slashes, as in a web address": "v=TLSRPTv1; rua=mailto://a@example.org",
    "a line end": "v=TLSRPTv1; rua=mailto:a%0D%0ABcc:x@example.org",
    "an address that needs SMTPUTF8": "v=TLSRPTv1; rua=mailto:%C3%BC@example.org",
    "no UTF-8": "v=TLSRPTv1; rua=mailto:a%FF@example.org",
    "a field without value": f"v=TLSRPTv1; nonsense; rua={MAIL}",
    "too long": f"v=TLSRPTv1; rua={MAIL}; x=" + "a" * MAX_RECORD,
    "not ASCII": f"v=TLSRPTv1; rua={MAIL}; x=\u00e9",
}


@pytest.mark.parametrize(("text", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(text: str, expected: list[str]) -> None:
    assert endpoints(text) == expected


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_refused(text: str) -> None:
    found = find_record([text.encode()])
    assert isinstance(found, NoReportRecord)
    assert found.reason


def test_two_good_records_are_none() -> None:
    found = find_record([f"v=TLSRPTv1; rua={MAIL}".encode()] * 2)
    assert isinstance(found, NoReportRecord)


def test_other_records_at_the_name_do_not_matter() -> None:
    assert isinstance(find_record([b"v=spf1 -all", f"v=TLSRPTv1; rua={MAIL}".encode()]), TLSRPTRecord)


def test_of_more_than_five_addresses_the_first_five_are_used() -> None:
    found = find_record([("v=TLSRPTv1; rua=" + ",".join(f"mailto:a{i}@e.test" for i in range(7))).encode()])
    assert isinstance(found, TLSRPTRecord)
    assert [str(each) for each in found.endpoints] == [f"mailto:a{i}@e.test" for i in range(5)]


def test_an_address_that_cannot_be_used_is_named_where_there_is_no_other() -> None:
    found = find_record([b"v=TLSRPTv1; rua=http://r.example/"])
    assert isinstance(found, NoReportRecord)
    assert "http://r.example/" in found.reason


def test_an_https_endpoint_is_kept_as_it_was_written() -> None:
    assert parse_endpoint("https://R.Example:8443/x") == HTTPSEndpoint("https://R.Example:8443/x")


def test_the_name_of_the_record() -> None:
    assert record_name(Domain("example.org")).ascii == "_smtp._tls.example.org"
    with pytest.raises(InvalidValue):
        record_name(Domain(".".join(["a" * 60] * 4)))


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_any_octets_give_a_record_or_a_reason(texts: list[bytes]) -> None:
    assert isinstance(find_record(texts), TLSRPTRecord | NoReportRecord)


@given(st.text(alphabet="v=TLSRPTv1;rua=mailto:https://a@b.,%20[]!#?", max_size=100))
def test_what_looks_like_a_record_never_raises(rest: str) -> None:
    assert isinstance(find_record([b"v=TLSRPTv1;" + rest.encode()]), TLSRPTRecord | NoReportRecord)
