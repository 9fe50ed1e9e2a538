from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

import pytest

from mailrider.dns.answer import MAX_CNAMES, LookupFailed, LookupFailure, MXRecord, RecordType
from mailrider.dns.resolver import Resolver, lookup_a, lookup_cname, lookup_mx, lookup_txt
from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.testing.clock import FakeClock
from mailrider.testing.resolver import FakeResolver, Row, TableRow, mx

ADDRESS = IPv4Address("192.0.2.1")


def test_mx_records_are_made_as_they_come_from_dns() -> None:
    assert mx(10, "MX.test") == MXRecord(10, Domain("mx.test"), "MX.test")
    assert mx(0, ".").is_null
    assert mx(5, "192.0.2.1") == MXRecord(5, None, "192.0.2.1")


async def test_the_table_is_the_answer_and_lookups_are_logged() -> None:
    fake = FakeResolver({("a.test", "A"): ADDRESS, ("a.test", "MX"): [mx(10, "b.test"), mx(20, "c.test")]})
    async with fake as resolver:
        port: Resolver = resolver
        assert (await lookup_a(port, Domain("a.test"))).records == (ADDRESS,)
        assert len((await lookup_mx(port, Domain("a.test"))).records) == 2
        await lookup_mx(port, Domain("a.test"))
    assert fake.lookups[0] == (Domain("a.test"), RecordType.A)
    assert fake.asked("a.test", "MX") == 2
    assert fake.asked("a.test", "AAAA") == 0


async def test_octets_are_one_record() -> None:
    assert (await lookup_txt(FakeResolver({("a.test", "TXT"): b"text"}), Domain("a.test"))).records == (b"text",)


async def test_what_is_not_there_does_not_exist_unless_something_else_is() -> None:
    fake = FakeResolver({("sub.a.test", "A"): ADDRESS})
    for name, exists in (("sub.a.test", True), ("a.test", True), ("b.test", False)):
        answer = await lookup_mx(fake, Domain(name))
        assert answer.records == ()
        assert answer.exists is exists
    fake.answers["b.test", "A"] = TableRow()
    assert (await lookup_mx(fake, Domain("b.test"))).exists


async def test_signed_names_and_those_below_are_authentic_denials_included() -> None:
    fake = FakeResolver(
        {("a.test", "A"): ADDRESS, ("b.test", "A"): TableRow([ADDRESS], authentic=True)}, signed=["a.test"]
    )
    expected = {"a.test": True, "sub.a.test": True, "xa.test": False, "b.test": True, "test": False}
    assert {name: (await lookup_a(fake, Domain(name))).authentic for name in expected} == expected
    fake.validates = False
    assert not (await lookup_a(fake, Domain("a.test"))).authentic


async def test_cnames_are_followed_and_every_link_must_be_authentic() -> None:
    table: dict[tuple[str, str], Row] = {
        ("a.test", "CNAME"): Domain("b.test"),
        ("b.test", "CNAME"): TableRow([Domain("c.test")], ttl=5),
        ("c.test", "A"): ADDRESS,
    }
    fake = FakeResolver(table, signed=["test"], clock=FakeClock())
    answer = await lookup_a(fake, Domain("a.test"))
    assert answer.records == (ADDRESS,)
    assert answer.chain == (Domain("b.test"),)
    assert answer.canonical == Domain("c.test")
    assert answer.authentic
    assert answer.expires == FakeClock().monotonic() + 5
    link = await lookup_cname(fake, Domain("a.test"))
    assert link.records == (Domain("b.test"),)
    assert link.canonical is None
    fake.answers["b.test", "CNAME"] = TableRow([Domain("c.test")], authentic=False)
    assert not (await lookup_a(fake, Domain("a.test"))).authentic
    assert not (await lookup_a(fake, Domain("gone.test"))).exists


async def test_chains_that_do_not_end_are_failures() -> None:
    loop = FakeResolver({("a.test", "CNAME"): Domain("b.test"), ("b.test", "CNAME"): Domain("a.test")})
    with pytest.raises(LookupFailed) as raised:
        await lookup_a(loop, Domain("a.test"))
    assert raised.value.failure is LookupFailure.CNAME_LOOP
    links = {(f"l{n}.test", "CNAME"): Domain(f"l{n + 1}.test") for n in range(MAX_CNAMES + 1)}
    with pytest.raises(LookupFailed) as raised:
        await lookup_a(FakeResolver(links), Domain("l0.test"))
    assert raised.value.failure is LookupFailure.CNAME_CHAIN
    assert (await lookup_a(FakeResolver(links), Domain("l1.test"))).canonical == Domain(f"l{MAX_CNAMES + 1}.test")


async def test_failures_stand_in_the_table() -> None:
    fake = FakeResolver({("a.test", "A"): LookupFailure.SERVFAIL, ("b.test", "CNAME"): Domain("a.test")})
    for name in ("a.test", "b.test"):
        with pytest.raises(LookupFailed) as raised:
            await lookup_a(fake, Domain(name))
        assert raised.value.name == Domain(name)


async def test_a_cname_row_that_is_no_name_is_misuse() -> None:
    with pytest.raises(InvalidValue):
        await lookup_a(FakeResolver({("a.test", "CNAME"): ADDRESS}), Domain("a.test"))


async def test_an_answer_may_take_its_time() -> None:
    clock = FakeClock()
    fake = FakeResolver({("a.test", "A"): TableRow([ADDRESS], delay=30)}, clock=clock)
    lookup = asyncio.create_task(lookup_a(fake, Domain("a.test")))
    await clock.advance(29)
    assert not lookup.done()
    await clock.advance(1)
    assert (await lookup).records


async def test_it_caches_only_if_told_to() -> None:
    for caching, asked in ((False, 2), (True, 1)):
        fake = FakeResolver({("a.test", "A"): ADDRESS}, caching=caching, clock=FakeClock())
        for _ in range(2):
            await lookup_a(fake, Domain("a.test"))
        assert fake.asked("a.test", "A") == asked


async def test_a_fresh_lookup_passes_the_cache_over() -> None:
    fake = FakeResolver({("a.test", "A"): ADDRESS}, caching=True, clock=FakeClock())
    for fresh, asked in ((False, 1), (False, 1), (True, 2)):
        await fake.lookup(Domain("a.test"), RecordType.A, fresh=fresh)
        assert fake.asked("a.test", "A") == asked
