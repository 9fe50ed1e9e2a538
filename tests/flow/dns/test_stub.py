"""The stub resolver against the lab's server, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.clock import SystemClock
from mailrider.dns.answer import MAX_CNAMES, LookupFailed, LookupFailure, MalformedTLSA, RecordType
from mailrider.dns.servers import ServerAddress, choose_servers, parse_server
from mailrider.dns.wire import MAX_RECORDS
from mailrider.lab.dns import LabDNS
from mailrider.lab.zones import Fault, RawRecord, Records, ZoneTable, signed
from mailrider.model.domain import Domain
from mailrider.model.security import TLSARecord
from tests.support.loops import eventually, open_sockets
from tests.support.resolvers import asking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mailrider.dns.caching import CachingResolver

ADDRESS = IPv4Address("192.0.2.1")
A = {"A": "192.0.2.1"}


def a_chain(name: str, links: int) -> ZoneTable:
    chain: ZoneTable = {f"{name}{n or ''}.test": {"CNAME": f"{name}{n + 1}.test"} for n in range(links)}
    return {**chain, f"{name}{links}.test": A}


ZONES: ZoneTable = {
    "plain.test": {"MX": ["10 mx.plain.test", "20 mx2.plain.test"], "TXT": b"\xff\0"},
    "null-mx.test": {"MX": "0 ."},
    "host.test": {**A, "AAAA": "2001:db8::1"},
    "signed.test": signed({"MX": "10 mx.signed.test"}),
    "mx.signed.test": signed(A),
    "signed-to-signed.test": signed({"CNAME": "mx.signed.test"}),
    "signed-to-plain.test": signed({"CNAME": "host.test"}),
    "plain-to-signed.test": {"CNAME": "mx.signed.test"},
    "signed-alone-to-signed.test": signed({"CNAME": Records(["mx.signed.test"], alone=True)}),
    "signed-alone-to-plain.test": signed({"CNAME": Records(["host.test"], alone=True)}),
    "signed-to-nowhere.test": signed({"CNAME": "nowhere.signed.test"}),
    "loop.test": {"CNAME": "loop2.test"},
    "loop2.test": {"CNAME": "loop.test"},
    "loop-alone.test": {"CNAME": Records(["loop-alone.test"], alone=True)},
    **a_chain("longest", MAX_CNAMES),
    **a_chain("toolong", MAX_CNAMES + 1),
    "_25._tcp.mx.signed.test": signed({"TLSA": ["3 1 1 " + "ab" * 32, "3 1 1 abcd", RawRecord(b"\3\1")]}),
    "huge.test": {"MX": [f"{n % 1000} mx{n}.huge.test" for n in range(4_000)]},  # more than a message holds
    "many.test": {"A": [f"192.0.2.{n}" for n in range(90)]},
    "servfail.test": Fault.SERVFAIL,
    "bogus.test": Fault.BOGUS,
    "refused.test": Fault.REFUSED,
    "notimp.test": Fault.NOTIMP,
    "formerr.test": Fault.FORMERR,
    "referral.test": Fault.REFERRAL,
    "silent.test": Fault.SILENT,
    "truncated.test": {"A": Records(["192.0.2.1"], fault=Fault.TRUNCATED)},
    "tcp-closed.test": Fault.TCP_CLOSED,
    "tcp-truncated.test": Fault.TCP_TRUNCATED,
    "wrong-id.test": {"A": Records(["192.0.2.1"], fault=Fault.WRONG_ID)},
    "wrong-question.test": {"A": Records(["192.0.2.1"], fault=Fault.WRONG_QUESTION)},
    "forged-first.test": {"A": Records(["192.0.2.1"], fault=Fault.FORGED_FIRST)},
    "garbage.test": Fault.GARBAGE,
    "damaged.test": {"A": Records(["192.0.2.1"], fault=Fault.DAMAGED)},
    "late.test": {"A": Records(["192.0.2.1"], delay=0.02)},
}


@asynccontextmanager
async def lab(zones: ZoneTable = ZONES, **settings: Any) -> AsyncIterator[tuple[LabDNS, CachingResolver]]:
    async with LabDNS(dict(zones)) as server, stub(server.server, **settings) as resolver:
        yield server, resolver


@asynccontextmanager
async def stub(*servers: ServerAddress, **settings: Any) -> AsyncIterator[CachingResolver]:
    """A resolver that leaves nothing behind: no socket, no task."""
    sockets, tasks = open_sockets(), len(asyncio.all_tasks())
    settings = {"timeout": 50, "attempts": 1} | settings
    async with asking(choose_servers(servers), clock=SystemClock(), rng=random.SystemRandom(), **settings) as resolver:
        yield resolver
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == tasks
    gc.collect()
    assert len(open_sockets() - sockets) <= 1  # a connection whose other end the lab has not closed yet


async def failure(resolver: CachingResolver, name: str, record_type: str = "A") -> LookupFailed:
    with pytest.raises(LookupFailed) as raised:
        await resolver.lookup(Domain(name), RecordType(record_type))
    return raised.value


async def test_records_of_all_types_come_back() -> None:
    async with lab() as (_, resolver):
        mx = await resolver.lookup(Domain("plain.test"), RecordType.MX)
        assert sorted((record.preference, record.host) for record in mx.records) == [
            (10, Domain("mx.plain.test")),
            (20, Domain("mx2.plain.test")),
        ]
        (null,) = (await resolver.lookup(Domain("null-mx.test"), RecordType.MX)).records
        assert null.is_null
        assert (await resolver.lookup(Domain("host.test"), RecordType.A)).records == (ADDRESS,)
        assert len((await resolver.lookup(Domain("host.test"), RecordType.AAAA)).records) == 1
        assert (await resolver.lookup(Domain("plain.test"), RecordType.TXT)).records == (b"\xff\0",)


async def test_a_malformed_tlsa_record_is_there_beside_the_others() -> None:
    async with lab() as (_, resolver):
        answer = await resolver.lookup(Domain("_25._tcp.mx.signed.test"), RecordType.TLSA)
    assert answer.authentic
    assert set(answer.records) == {
        TLSARecord(3, 1, 1, b"\xab" * 32),
        TLSARecord(3, 1, 1, b"\xab\xcd"),
        MalformedTLSA("0301"),
    }


@pytest.mark.parametrize(
    ("name", "record_type", "authentic"),
    [
        ("signed.test", "MX", True),
        ("plain.test", "MX", False),
        ("signed-to-signed.test", "A", True),
        ("signed-to-plain.test", "A", False),
        ("signed-to-plain.test", "CNAME", True),
        ("plain-to-signed.test", "A", False),
        ("plain-to-signed.test", "CNAME", False),
        ("signed-alone-to-signed.test", "A", True),
        ("signed-alone-to-plain.test", "A", False),
        ("signed-to-nowhere.test", "A", True),
        ("nowhere.signed.test", "A", True),
        ("signed.test", "A", True),
        ("nowhere.plain.test", "A", False),
    ],
)
async def test_an_answer_is_authentic_if_all_that_it_rests_on_is(name: str, record_type: str, authentic: bool) -> None:
    async with lab() as (_, resolver):
        assert (await resolver.lookup(Domain(name), RecordType(record_type))).authentic is authentic


@pytest.mark.parametrize(
    ("name", "exists"), [("signed-to-nowhere.test", False), ("nowhere.test", False), ("plain.test", True)]
)
async def test_absence_is_an_answer(name: str, exists: bool) -> None:
    async with lab() as (server, resolver):
        answer = await resolver.lookup(Domain(name), RecordType.A)
        assert answer.records == ()
        assert answer.exists is exists
        assert resolver.cached(Domain(name), RecordType.A) is answer
        assert server.asked(name, "A") == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("servfail.test", LookupFailure.SERVFAIL),
        ("bogus.test", LookupFailure.SERVFAIL),
        ("refused.test", LookupFailure.REFUSED),
        ("notimp.test", LookupFailure.NOTIMP),
        ("formerr.test", LookupFailure.FORMERR),
        ("referral.test", LookupFailure.REFUSED),
        ("damaged.test", LookupFailure.MALFORMED),
        ("tcp-closed.test", LookupFailure.NO_RESOLVER),
        ("tcp-truncated.test", LookupFailure.MALFORMED),
        ("loop.test", LookupFailure.CNAME_LOOP),
        ("loop-alone.test", LookupFailure.CNAME_LOOP),
        ("toolong.test", LookupFailure.CNAME_CHAIN),
    ],
)
async def test_not_knowing_is_a_failure(name: str, expected: LookupFailure) -> None:
    async with lab() as (_, resolver):
        assert (await failure(resolver, name)).failure is expected


async def test_a_bogus_signature_is_explained() -> None:
    async with lab() as (_, resolver):
        assert "DNSSEC BOGUS" in str(await failure(resolver, "bogus.test"))


@pytest.mark.parametrize("name", ["silent.test", "wrong-id.test", "wrong-question.test", "garbage.test"])
async def test_silence_and_what_answers_something_else_end_in_a_time_out(name: str) -> None:
    async with lab(timeout=0.05, attempts=2) as (server, resolver):
        assert (await failure(resolver, name)).failure is LookupFailure.TIMEOUT
        await eventually(lambda: server.asked(name, "A") == 2)


async def test_forged_answers_are_passed_over_until_the_true_one_comes() -> None:
    async with lab() as (server, resolver):
        assert (await resolver.lookup(Domain("forged-first.test"), RecordType.A)).records == (ADDRESS,)
        assert server.asked("forged-first.test", "A") == 1


async def test_the_longest_chain_is_followed() -> None:
    async with lab() as (_, resolver):
        assert (await resolver.lookup(Domain("longest.test"), RecordType.A)).records == (ADDRESS,)


@pytest.mark.parametrize(("name", "count"), [("truncated.test", 1), ("many.test", 90)])
async def test_what_does_not_fit_a_datagram_comes_over_tcp(name: str, count: int) -> None:
    async with lab() as (server, resolver):
        assert len((await resolver.lookup(Domain(name), RecordType.A)).records) == count
        assert [query.tcp for query in server.queries] == [False, True]


async def test_of_a_message_full_of_mx_records_the_best_hundred_are_kept() -> None:
    async with lab() as (_, resolver):
        answer = await resolver.lookup(Domain("huge.test"), RecordType.MX)
    assert len(answer.records) == MAX_RECORDS
    assert max(record.preference for record in answer.records) < MAX_RECORDS


async def test_the_zone_may_change_between_two_lookups() -> None:
    async with lab({"a.test": {"A": Records(["192.0.2.1"], ttl=0)}}) as (server, resolver):
        assert (await resolver.lookup(Domain("a.test"), RecordType.A)).records == (ADDRESS,)
        server.zones["a.test"] = Fault.REFUSED
        assert (await failure(resolver, "a.test")).failure is LookupFailure.REFUSED


async def test_a_late_answer_is_waited_for() -> None:
    async with lab() as (_, resolver):
        assert (await resolver.lookup(Domain("late.test"), RecordType.A)).records == (ADDRESS,)


async def test_a_lost_question_is_asked_again() -> None:
    async with lab({"a.test": Fault.SILENT}, timeout=0.1, attempts=100) as (server, resolver):
        lookup = asyncio.create_task(resolver.lookup(Domain("a.test"), RecordType.A))
        await server.wait_asked("a.test", "A")
        server.zones["a.test"] = A
        assert (await lookup).records == (ADDRESS,)


async def test_many_lookups_at_once_are_one_question_each() -> None:
    async with lab() as (server, resolver):
        names = [Domain(f"n{number}.plain.test") for number in range(300)]
        await asyncio.gather(*(resolver.lookup(name, RecordType.A) for name in names for _ in range(3)))
        assert len(server.queries) == 300


async def test_a_second_server_is_asked_where_the_first_cannot_be_reached() -> None:
    async with lab() as (server, _):
        nobody = parse_server("127.0.0.54:1")
        async with stub(nobody, server.server) as resolver:
            assert (await resolver.lookup(Domain("host.test"), RecordType.A)).records == (ADDRESS,)


@pytest.mark.parametrize("server", ["127.0.0.54:1", "[::1]:1"])
async def test_nobody_there_is_known_at_once(server: str) -> None:
    async with stub(parse_server(server), timeout=50) as resolver:
        assert (await failure(resolver, "host.test")).failure is LookupFailure.NO_RESOLVER


async def test_a_lookup_that_is_cancelled_leaves_nothing_behind() -> None:
    async with lab() as (server, resolver):
        lookup = asyncio.create_task(resolver.lookup(Domain("silent.test"), RecordType.A))
        await server.wait_asked("silent.test", "A")
        lookup.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lookup


async def test_closing_ends_a_lookup_that_is_under_way() -> None:
    async with lab() as (server, resolver):
        lookup = asyncio.create_task(failure(resolver, "silent.test"))
        await server.wait_asked("silent.test", "A")
    assert (await lookup).failure is LookupFailure.NO_RESOLVER
