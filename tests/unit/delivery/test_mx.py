"""From DNS answers to candidates and addresses."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.delivery.mx import (
    MAX_ADDRESSES,
    MAX_CANDIDATES,
    HostNotFound,
    Unroutable,
    find_candidates,
    find_host,
    lookup_failure_reply,
    order_addresses,
    rank_candidates,
)
from mailrider.dns.answer import Answer, LookupFailed, LookupFailure, MXRecord, RecordType
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.route import Candidate, Candidates, Host
from mailrider.testing.clock import FakeClock
from mailrider.testing.resolver import FakeResolver, TableRow, mx
from tests.support.channels import settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.testing.resolver import Row

DOMAIN = Domain("example.org")
MX_HOST = Domain("mx.example.org")
CANDIDATE = Candidate(MX_HOST, 10)


def answer(*records: MXRecord, exists: bool = True, authentic: bool = False, alias: str = "") -> Answer[MXRecord]:
    return Answer(DOMAIN, records, authentic, 0.0, exists, Domain(alias) if alias else None)


def rank(*records: MXRecord, seed: int = 0) -> list[tuple[str, int]]:
    return [
        (str(each.host), each.preference) for each in rank_candidates(DOMAIN, answer(*records), Random(seed)).candidates
    ]


def refusal(error: Unroutable) -> tuple[int, str]:
    return error.reply.code, str(error.reply.enhanced)


# Candidates -----------------------------------------------------------------------------------------------------------


def test_candidates_come_by_preference() -> None:
    assert rank(mx(20, "b.test"), mx(5, "a.test"), mx(65535, "c.test")) == [
        ("a.test", 5),
        ("b.test", 20),
        ("c.test", 65535),
    ]


def test_equal_preferences_are_shuffled() -> None:
    records = [mx(10, f"{name}.test") for name in "abcd"]
    first = {rank(*records, seed=seed)[0][0] for seed in range(100)}
    assert first == {"a.test", "b.test", "c.test", "d.test"}


def test_a_host_that_stands_twice_is_one_candidate_at_its_best_preference() -> None:
    assert rank(mx(30, "A.test"), mx(10, "b.test"), mx(5, "a.test.")) == [("a.test", 5), ("b.test", 10)]


def test_no_such_domain_fails_512() -> None:
    with pytest.raises(Unroutable) as caught:
        rank_candidates(DOMAIN, answer(exists=False), Random(0))
    assert refusal(caught.value) == (550, "5.1.2")


def test_a_domain_without_mx_is_its_own_only_candidate() -> None:
    found = rank_candidates(DOMAIN, answer(authentic=True, alias="www.example.net"), Random(0))
    assert found == Candidates(
        DOMAIN, (Candidate(DOMAIN, 0),), True, implicit=True, canonical=Domain("www.example.net")
    )


@pytest.mark.parametrize("records", [[mx(0, ".")], [mx(0, "."), mx(10, ".")]], ids=["one", "two"])
def test_null_mx_alone_fails_5110(records: list[MXRecord]) -> None:
    with pytest.raises(Unroutable) as caught:
        rank_candidates(DOMAIN, answer(*records), Random(0))
    assert refusal(caught.value) == (556, "5.1.10")


def test_a_null_mx_among_others_is_dropped() -> None:
    assert rank(mx(0, "."), mx(10, "a.test")) == [("a.test", 10)]


def test_nothing_but_targets_that_are_no_host_names_defers() -> None:
    with pytest.raises(Unroutable) as caught:
        rank_candidates(DOMAIN, answer(mx(10, "192.0.2.1"), mx(0, "not a name")), Random(0))
    assert refusal(caught.value) == (451, "4.4.3")


def test_at_most_ten_of_ten_thousand_the_best_ones() -> None:
    found = rank(*(mx(number, f"mx{number}.test") for number in range(10_000, 0, -1)))
    assert found == [(f"mx{number}.test", number) for number in range(1, MAX_CANDIDATES + 1)]


def test_authenticity_and_the_canonical_name_are_kept() -> None:
    found = rank_candidates(DOMAIN, answer(mx(10, "a.test"), authentic=True, alias="alias.test"), Random(0))
    assert (found.authentic, found.implicit, found.canonical) == (True, False, Domain("alias.test"))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([*(f"h{n}.test" for n in range(14)), "."])), max_size=30),
    st.integers(),
)
def test_whatever_dns_says_candidates_are_few_unique_and_in_order(records: list[tuple[int, str]], seed: int) -> None:
    try:
        found = rank_candidates(DOMAIN, answer(*(mx(*record) for record in records)), Random(seed))
    except Unroutable:
        assert records
        assert {host for _, host in records} == {"."}
        return
    hosts = [each.host for each in found.candidates]
    preferences = [each.preference for each in found.candidates]
    assert 1 <= len(hosts) <= MAX_CANDIDATES
    assert len(set(hosts)) == len(hosts)
    assert preferences == sorted(preferences)
    best = {host: min(p for p, h in records if h == str(host)) for host in hosts if not found.implicit}
    assert all(best[each.host] == each.preference for each in found.candidates if not found.implicit)
    left_out = {preference for preference, host in records if host != "." and Domain(host) not in hosts}
    assert all(preference >= max(preferences) for preference in left_out)


# The MX lookup --------------------------------------------------------------------------------------------------------


async def test_an_address_literal_is_its_own_candidate_and_nothing_is_asked() -> None:
    literal, resolver = AddressLiteral(ip_address("192.0.2.1")), FakeResolver()
    found = await find_candidates(resolver, literal, Random(0))
    assert (found.candidates, found.authentic, resolver.lookups) == ((Candidate(literal),), False, [])


@pytest.mark.parametrize("failure", LookupFailure)
async def test_any_failure_of_the_mx_lookup_defers_443(failure: LookupFailure) -> None:
    with pytest.raises(Unroutable) as caught:
        await find_candidates(FakeResolver({("example.org", "MX"): failure}), DOMAIN, Random(0))
    assert refusal(caught.value) == (451, "4.4.3")
    assert failure.value in caught.value.reply.text


# Addresses of a candidate ---------------------------------------------------------------------------------------------

V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")


async def host(resolver: FakeResolver, *, force_ipv4: bool = False) -> Host | HostNotFound:
    clock = FakeClock()
    return await find_host(resolver, CANDIDATE, clock, clock.monotonic() + 10, force_ipv4=force_ipv4)


def rows(clock: FakeClock | None = None, /, **families: object) -> FakeResolver:
    table = {("mx.example.org", family): row for family, row in families.items()}
    return FakeResolver(table, clock=clock)  # type: ignore[arg-type]


async def test_both_families_are_asked_and_interleaved() -> None:
    assert await host(rows(A=V4, AAAA=V6)) == Host(CANDIDATE, (V6, V4))


async def test_force_ipv4_asks_for_one_family() -> None:
    resolver = rows(A=V4, AAAA=V6)
    found = await host(resolver, force_ipv4=True)
    assert isinstance(found, Host)
    assert (found.addresses, resolver.asked("mx.example.org", "AAAA")) == ((V4,), 0)


@pytest.mark.parametrize(
    ("families", "expected"),
    [({"A": V4, "AAAA": LookupFailure.SERVFAIL}, (V4,)), ({"A": LookupFailure.TIMEOUT, "AAAA": V6}, (V6,))],
    ids=["AAAA fails", "A fails"],
)
async def test_a_failed_family_removes_only_itself(
    families: dict[str, object], expected: tuple[IPv4Address | IPv6Address, ...]
) -> None:
    found = await host(rows(**families))
    assert isinstance(found, Host)
    assert found.addresses == expected


LATE_FAMILIES = {
    "one is there: half of the time": ({"A": V4, "AAAA": TableRow([V6], delay=9)}, 5, (V4,)),
    "the other one is there": ({"A": TableRow([V4], delay=9), "AAAA": V6}, 5, (V6,)),
    "both come in good time": ({"A": TableRow([V4], delay=2), "AAAA": TableRow([V6], delay=4)}, 4, (V6, V4)),
    "one comes late, the other one later": ({"A": TableRow([V4], delay=7), "AAAA": TableRow([V6], delay=9)}, 7, (V4,)),
    "one is empty, the other one late": ({"A": TableRow([V4], delay=9), "AAAA": []}, 9, (V4,)),
    "one failed, the other one late": ({"A": TableRow([V4], delay=9), "AAAA": LookupFailure.SERVFAIL}, 9, (V4,)),
    "one comes late and empty, the other one later": (
        {"A": TableRow([V4], delay=9), "AAAA": TableRow([], delay=7)},
        9,
        (V4,),
    ),
}


@pytest.mark.parametrize(("families", "seconds", "expected"), LATE_FAMILIES.values(), ids=LATE_FAMILIES)
async def test_a_late_family_removes_only_itself(
    families: dict[str, object], seconds: int, expected: tuple[IPv4Address | IPv6Address, ...]
) -> None:
    clock = FakeClock()
    resolver = rows(clock, **families)
    looking = asyncio.create_task(find_host(resolver, CANDIDATE, clock, clock.monotonic() + 10, force_ipv4=False))
    await clock.advance(seconds - 0.1)
    assert not looking.done()
    await clock.advance(0.1)
    found = await looking
    assert isinstance(found, Host)
    assert found.addresses == expected
    await settle()
    assert clock.pending == 0


async def test_families_that_are_both_too_late_defer_443() -> None:
    clock = FakeClock()
    resolver = rows(clock, A=TableRow([V4], delay=11), AAAA=TableRow([V6], delay=12))
    looking = asyncio.create_task(find_host(resolver, CANDIDATE, clock, clock.monotonic() + 10, force_ipv4=False))
    await clock.advance(10)
    found = await looking
    assert isinstance(found, HostNotFound)
    assert (found.reply.code, str(found.reply.enhanced)) == (451, "4.4.3")
    await settle()
    assert clock.pending == 0


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        ({}, (550, "5.4.4")),
        ({"A": [], "AAAA": []}, (550, "5.4.4")),
        ({"A": LookupFailure.SERVFAIL, "AAAA": []}, (451, "4.4.3")),
        ({"A": [], "AAAA": LookupFailure.TIMEOUT}, (451, "4.4.3")),
        ({"A": LookupFailure.SERVFAIL, "AAAA": LookupFailure.SERVFAIL}, (451, "4.4.3")),
    ],
    ids=["NXDOMAIN", "empty", "A fails", "AAAA fails", "both fail"],
)
async def test_without_an_address_the_cause_says_whether_that_may_change(
    families: dict[str, object], expected: tuple[int, str]
) -> None:
    found = await host(rows(**families))
    assert isinstance(found, HostNotFound)
    assert (found.reply.code, str(found.reply.enhanced)) == expected


async def test_an_address_literal_has_its_address_and_nothing_is_asked() -> None:
    resolver, candidate = rows(), Candidate(AddressLiteral(V6))
    assert await find_host(resolver, candidate, FakeClock(), 0.0, force_ipv4=False) == Host(candidate, (V6,))
    assert resolver.lookups == []


async def test_a_bug_in_the_resolver_is_not_taken_for_absence() -> None:
    class Broken(FakeResolver):
        async def lookup(self, *_: object, **__: object) -> Answer[IPv4Address]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await host(Broken())


SIGNED = {
    "neither family": ({("mx.example.org", "A"): V4, ("mx.example.org", "AAAA"): V6}, False),
    "one family": ({("mx.example.org", "A"): TableRow([V4], authentic=True), ("mx.example.org", "AAAA"): V6}, True),
    "a signed denial beside an unsigned address": (
        {("mx.example.org", "A"): V4, ("mx.example.org", "AAAA"): TableRow([], authentic=True)},
        True,
    ),
    "the CNAME, but not its target": (
        {("mx.example.org", "CNAME"): TableRow([Domain("real.test")], authentic=True), ("real.test", "A"): V4},
        True,
    ),
    "the target, but not the CNAME": (
        {("mx.example.org", "CNAME"): Domain("real.test"), ("real.test", "A"): TableRow([V4], authentic=True)},
        False,
    ),
}


@pytest.mark.parametrize(("table", "signed"), SIGNED.values(), ids=SIGNED)
async def test_a_host_is_signed_if_any_address_answer_or_its_cname_is(
    table: dict[tuple[str, str], TableRow], signed: bool
) -> None:
    found = await host(FakeResolver(table))
    assert isinstance(found, Host)
    assert found.signed is signed


async def test_the_expanded_name_is_known_with_the_word_on_its_whole_chain() -> None:
    table = {
        ("mx.example.org", "CNAME"): TableRow([Domain("middle.test")], authentic=True),
        ("middle.test", "CNAME"): TableRow([Domain("real.test")], authentic=True),
        ("real.test", "A"): TableRow([V4], authentic=True),
    }
    found = await host(FakeResolver(table))
    assert isinstance(found, Host)
    assert (found.canonical, found.canonical_authentic) == (Domain("real.test"), True)


def of_chain(address: IPv4Address | IPv6Address, target: str, *, authentic: bool) -> Answer[Any]:
    return Answer(MX_HOST, (address,), authentic, 0.0, canonical=Domain(target) if target else None)


ALIASES = {
    "AAAA is signed": (
        of_chain(V6, "six.test", authentic=True),
        of_chain(V4, "four.test", authentic=False),
        "six.test",
    ),
    "A is signed": (of_chain(V6, "six.test", authentic=False), of_chain(V4, "four.test", authentic=True), "four.test"),
    "A alone is an alias, AAAA signed": (
        of_chain(V6, "", authentic=True),
        of_chain(V4, "four.test", authentic=False),
        "four.test, unproven",
    ),
    "AAAA alone is an alias, A signed": (
        of_chain(V6, "six.test", authentic=False),
        of_chain(V4, "", authentic=True),
        "six.test, unproven",
    ),
    "both are signed": (
        of_chain(V6, "six.test", authentic=True),
        of_chain(V4, "four.test", authentic=True),
        "six.test",
    ),
}


@pytest.mark.parametrize(("aaaa", "a", "expanded"), ALIASES.values(), ids=ALIASES)
async def test_where_an_alias_leads_and_whether_that_is_signed_are_of_one_answer(
    aaaa: Answer[Any], a: Answer[Any], expanded: str
) -> None:
    class Mixed(FakeResolver):
        async def lookup(self, name: Domain, record_type: RecordType, *, fresh: bool = False) -> Answer[Any]:
            return aaaa if record_type is RecordType.AAAA else a

    found = await host(Mixed())
    assert isinstance(found, Host)
    assert found.signed
    assert f"{found.canonical}{'' if found.canonical_authentic else ', unproven'}" == expanded


async def test_a_cname_that_cannot_be_looked_up_does_not_sign_the_host() -> None:
    class OnceOnly(FakeResolver):
        async def lookup(self, name: Domain, record_type: object, *, fresh: bool = False) -> Answer[IPv4Address]:
            if record_type == "CNAME":
                self.answers["mx.example.org", "CNAME"] = LookupFailure.SERVFAIL
            return await super().lookup(name, record_type, fresh=fresh)  # type: ignore[arg-type]

    table: dict[tuple[str, str], Row] = {
        ("mx.example.org", "CNAME"): Domain("middle.test"),
        ("middle.test", "CNAME"): Domain("real.test"),
        ("real.test", "A"): V4,
    }
    found = await host(OnceOnly(table))
    assert isinstance(found, Host)
    assert not found.signed
    assert "SERVFAIL" in found.doubt  # so DANE refuses it, and does not go on as if it were not signed


# Order of addresses ---------------------------------------------------------------------------------------------------


def parse(*texts: str) -> list[IPv4Address | IPv6Address]:
    return [ip_address(text) for text in texts]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([], []),
        (["192.0.2.1", "192.0.2.2"], ["192.0.2.1", "192.0.2.2"]),
        (["192.0.2.1", "2001:db8::1"], ["2001:db8::1", "192.0.2.1"]),
        (["192.0.2.1", "192.0.2.1"], ["192.0.2.1"]),
        (
            ["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1"],
            ["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"],
        ),
    ],
)
def test_families_are_interleaved_ipv6_first(given_: list[str], expected: list[str]) -> None:
    assert list(order_addresses(parse(*given_))) == parse(*expected)


@given(st.lists(st.ip_addresses(), max_size=20))
def test_six_addresses_at_most_and_each_family_keeps_its_order(addresses: Sequence[IPv4Address | IPv6Address]) -> None:
    ordered = order_addresses(addresses)
    unique = list(dict.fromkeys(addresses))
    assert len(ordered) == min(MAX_ADDRESSES, len(unique))
    for version in (4, 6):
        family = [each for each in ordered if each.version == version]
        assert family == [each for each in unique if each.version == version][: len(family)]
    if ordered and any(each.version == 6 for each in unique):
        assert ordered[0].version == 6


def test_what_is_bogus_says_why_and_leaves_our_own_dns_server_out() -> None:
    why = "validation failure <a.test. MX IN>: signature expired from 2001:db8::53 for key a.test."
    bogus = lookup_failure_reply(LookupFailed(Domain("a.test"), RecordType.MX, LookupFailure.BOGUS, why))
    assert bogus.text == (
        "MX lookup of a.test failed: DNSSEC bogus "
        "(validation failure <a.test. MX IN>: signature expired for key a.test.)"
    )
    other = lookup_failure_reply(LookupFailed(Domain("a.test"), RecordType.MX, LookupFailure.SERVFAIL, "192.0.2.1:53"))
    assert other.text == "MX lookup of a.test failed: SERVFAIL"
