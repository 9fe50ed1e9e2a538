"""SPF (RFC 7208): what a record means, with the bounds that keep a stranger's record from costing much."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.dns.answer import LookupFailure
from mailrider.model.domain import Domain, reverse_name
from mailrider.spf.evaluate import SPFResult, check_host
from mailrider.spf.record import MAX_RECORD, SPFSyntax, expand, find_records, parse_record
from mailrider.testing.resolver import FakeResolver, mx

US = "192.0.2.3"
EXAMPLE = Domain("example.test")


def txt(*records: str) -> list[bytes]:
    return [record.encode() for record in records]


async def verdict(zone: dict[tuple[str, str], Any], address: str = US, sender: str = "") -> tuple[SPFResult, str]:
    found = await check_host(
        FakeResolver(zone), ip_address(address), EXAMPLE, helo=Domain("mx.example.test"), sender=sender
    )
    return found.result, found.reason


async def result(record: str, more: dict[tuple[str, str], Any] | None = None, address: str = US) -> SPFResult:
    zone = {("example.test", "TXT"): txt(record)} | (more or {})
    return (await verdict(zone, address))[0]


A = {("mx.example.test", "A"): [ip_address(US)], ("example.test", "A"): [ip_address("192.0.2.9")]}
RECORDS: dict[str, tuple[str, dict[tuple[str, str], Any], SPFResult]] = {
    "an address": (f"v=spf1 ip4:{US} -all", {}, SPFResult.PASS),
    "a network": ("v=spf1 ip4:192.0.2.0/24 -all", {}, SPFResult.PASS),
    "in capitals": (f"V=SPF1 IP4:{US} -ALL", {}, SPFResult.PASS),
    "another address": ("v=spf1 ip4:192.0.2.4 -all", {}, SPFResult.FAIL),
    "another family": ("v=spf1 ip6:2001:db8::/32 ~all", {}, SPFResult.SOFTFAIL),
    "nothing that matches": ("v=spf1 ip4:192.0.2.4", {}, SPFResult.NEUTRAL),
    "neutral": ("v=spf1 ?all", {}, SPFResult.NEUTRAL),
    "all before us": (f"v=spf1 -all ip4:{US}", {}, SPFResult.FAIL),
    "the domain's own address": ("v=spf1 a/28 -all", A, SPFResult.PASS),
    "not the domain's own address": ("v=spf1 a -all", A, SPFResult.FAIL),
    "a host": ("v=spf1 a:mx.example.test -all", A, SPFResult.PASS),
    "the MX hosts": ("v=spf1 mx -all", A | {("example.test", "MX"): [mx(5, "mx.example.test")]}, SPFResult.PASS),
    "a null MX": ("v=spf1 mx -all", {("example.test", "MX"): [mx(0, ".")]}, SPFResult.FAIL),
    "no MX": ("v=spf1 mx -all", {}, SPFResult.FAIL),
    "included": (
        "v=spf1 include:o.test -all",
        {("o.test", "TXT"): txt(f"v=spf1 ip4:{US} -all")},
        SPFResult.PASS,
    ),
    "included, and refused there": (
        "v=spf1 include:o.test ~all",
        {("o.test", "TXT"): txt("v=spf1 -all")},
        SPFResult.SOFTFAIL,
    ),
    "included, and nothing there": ("v=spf1 include:o.test -all", {}, SPFResult.PERMERROR),
    "included, and DNS is down": (
        "v=spf1 include:o.test -all",
        {("o.test", "TXT"): LookupFailure.SERVFAIL},
        SPFResult.TEMPERROR,
    ),
    "elsewhere": ("v=spf1 redirect=o.test", {("o.test", "TXT"): txt(f"v=spf1 ip4:{US}")}, SPFResult.PASS),
    "elsewhere, and nothing there": ("v=spf1 redirect=o.test", {}, SPFResult.PERMERROR),
    "elsewhere, and no name": ("v=spf1 redirect=%{d}..%{d}", {}, SPFResult.PERMERROR),
    "itself": ("v=spf1 redirect=example.test", {}, SPFResult.PERMERROR),
    "a macro": (
        "v=spf1 exists:%{ir}.%{v}._spf.%{d2} -all",
        {("3.2.0.192.in-addr._spf.example.test", "A"): [ip_address("127.0.0.2")]},
        SPFResult.PASS,
    ),
    "a macro that makes no name": ("v=spf1 a:%{l}..%{o} -all", {}, SPFResult.FAIL),
    "a name by PTR": (
        "v=spf1 ptr -all",
        A | {("3.2.0.192.in-addr.arpa", "PTR"): [Domain("mx.example.test")]},
        SPFResult.PASS,
    ),
    "a name by PTR that does not lead back": (
        "v=spf1 ptr -all",
        {("3.2.0.192.in-addr.arpa", "PTR"): [Domain("mx.example.test")]},
        SPFResult.FAIL,
    ),
    "PTR, and DNS is down": (
        "v=spf1 ptr -all",
        {("3.2.0.192.in-addr.arpa", "PTR"): LookupFailure.TIMEOUT},
        SPFResult.FAIL,
    ),
    "a macro by PTR": (
        "v=spf1 a:%{p} -all",
        A | {("3.2.0.192.in-addr.arpa", "PTR"): [Domain("mx.example.test")]},
        SPFResult.PASS,
    ),
    "an unknown modifier": (f"v=spf1 x-y=z ip4:{US}", {}, SPFResult.PASS),
    "an explanation": (f"v=spf1 ip4:{US} exp=why.example.test", {}, SPFResult.PASS),
}


@pytest.mark.parametrize(("record", "more", "expected"), RECORDS.values(), ids=RECORDS)
async def test_what_a_record_says_of_our_address(
    record: str, more: dict[tuple[str, str], Any], expected: SPFResult
) -> None:
    assert await result(record, more) is expected


async def test_ipv6_and_what_is_ipv4_in_it() -> None:
    assert await result("v=spf1 ip6:2001:db8::/32 -all", address="2001:db8::5") is SPFResult.PASS
    assert await result(f"v=spf1 ip4:{US} -all", address=f"::ffff:{US}") is SPFResult.PASS
    zone = {("mx.example.test", "AAAA"): [ip_address("2001:db8::9")]}
    assert await result("v=spf1 a:mx.example.test//64 -all", zone, "2001:db8::5") is SPFResult.PASS
    dotted = ".".join("20010db8000000000000000000000005")
    exists = {(f"{dotted}.ip6.example.test", "A"): [ip_address("127.0.0.2")]}
    assert await result("v=spf1 exists:%{i}.%{v}.%{d} -all", exists, "2001:db8::5") is SPFResult.PASS


async def test_no_record_two_records_and_no_answer() -> None:
    assert (await verdict({}))[0] is SPFResult.NONE
    assert (await verdict({("example.test", "TXT"): txt("v=spf10 -all", "something")}))[0] is SPFResult.NONE
    assert (await verdict({("example.test", "TXT"): txt("v=spf1", "v=spf1 -all")}))[0] is SPFResult.PERMERROR
    assert (await verdict({("example.test", "TXT"): LookupFailure.TIMEOUT}))[0] is SPFResult.TEMPERROR


async def test_ten_terms_may_ask_dns_and_no_more() -> None:
    hosts = [f"h{number}.test" for number in range(11)]
    zone = {(host, "A"): [ip_address("192.0.2.77")] for host in hosts}
    ten = " ".join(f"a:{host}" for host in hosts[:10])
    assert await result(f"v=spf1 {ten} ip4:{US} -all", zone) is SPFResult.PASS
    found = await verdict(zone | {("example.test", "TXT"): txt(f"v=spf1 {ten} a:h10.test -all")})
    assert found == (SPFResult.PERMERROR, "more than 10 terms ask DNS, up to a:h10.test")


async def test_two_names_without_records_are_borne_and_no_more() -> None:
    assert await result(f"v=spf1 a:x.test a:y.test ip4:{US} -all") is SPFResult.PASS
    assert await result(f"v=spf1 a:x.test a:y.test a:z.test ip4:{US} -all") is SPFResult.PERMERROR


async def test_more_than_ten_mx_hosts_are_an_error() -> None:
    records = {("example.test", "MX"): [mx(number, f"m{number}.test") for number in range(11)]}
    assert await result("v=spf1 mx -all", records) is SPFResult.PERMERROR


SYNTAX = [
    "ip4:1.2.3",
    "ip4:2001:db8::1",
    "ip6:192.0.2.1",
    "ip4",
    "ip4:192.0.2.0/33",
    "ip4:192.0.2.0/255.255.255.0",
    "ip4:192.0.2.0/24/24",
    "all:x",
    "include",
    "include:",
    "exists",
    "a/33",
    "a//129",
    "a/x",
    "a:",
    "a:%{z}.test",
    "a:%{c}.test",
    "a:%",
    "a:%{d0}.test",
    "mx=",
    "nonsense",
    "redirect=",
    "redirect=a.test redirect=b.test",
    "-",
    "a:\x01.test",
]


@pytest.mark.parametrize("term", [term for term in SYNTAX if term != "mx="])
def test_a_record_with_a_mistake_is_none_at_all(term: str) -> None:
    with pytest.raises(SPFSyntax):
        parse_record(f"v=spf1 {term} -all")


def test_too_many_terms_are_a_mistake_and_too_long_a_record_is_not_read() -> None:
    with pytest.raises(SPFSyntax, match="more than 200 terms"):
        parse_record("v=spf1" + " ?all" * 201)
    assert find_records([b"v=spf1 " + b" " * MAX_RECORD, b"v=spf1"]) == ["v=spf1"]


@given(st.text(alphabet="v=spf1 aimxcludeptrall:/%{}.+-~?0123456789", max_size=80))
def test_any_text_is_a_record_or_a_mistake(text: str) -> None:
    try:
        parse_record(f"v=spf1 {text}")
    except SPFSyntax:
        pass


MACROS = {
    "%{s}": "strong-bad@email.example.com",
    "%{o}": "email.example.com",
    "%{d}": "email.example.com",
    "%{d4}": "email.example.com",
    "%{d2}": "example.com",
    "%{d1}": "com",
    "%{dr}": "com.example.email",
    "%{d2r}": "example.email",
    "%{l}": "strong-bad",
    "%{l-}": "strong.bad",
    "%{lr-}": "bad.strong",
    "%{l1r-}": "strong",
    "a%%b%_c%-d": "a%b c%20d",
}


@pytest.mark.parametrize(("spec", "expected"), MACROS.items(), ids=MACROS)
def test_the_macros_of_rfc_7208_7_4(spec: str, expected: str) -> None:
    values = {
        "s": "strong-bad@email.example.com",
        "l": "strong-bad",
        "o": "email.example.com",
        "d": "email.example.com",
    }
    assert expand(spec, values) == expected


def test_of_a_name_that_is_too_long_the_first_labels_go() -> None:
    assert expand("%{d}.example.org", {"d": ".".join(["x" * 60] * 5)}).endswith("example.org")
    assert len(expand("%{d}.example.org", {"d": ".".join(["x" * 60] * 5)})) <= 253


def test_where_ptr_records_stand() -> None:
    assert reverse_name(ip_address(US)).ascii == "3.2.0.192.in-addr.arpa"
    assert reverse_name(ip_address("2001:db8::1")).ascii.endswith("8.b.d.0.1.0.0.2.ip6.arpa")
