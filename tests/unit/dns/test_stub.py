"""The stub resolver on virtual time, with servers that are functions."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Any, TypeVar

import dns.message
import dns.rcode
import pytest

from mailrider.dns.answer import LookupFailed, LookupFailure, RecordType
from mailrider.dns.resolver import (
    Resolver,
    lookup_a,
    lookup_aaaa,
    lookup_cname,
    lookup_mx,
    lookup_tlsa,
    lookup_txt,
)
from mailrider.dns.servers import ServerAddress, choose_servers
from mailrider.dns.stub import MAX_IN_FLIGHT
from mailrider.dns.transport import NotAnAnswer
from mailrider.dns.wire import Question
from mailrider.model.domain import Domain
from mailrider.testing.clock import FakeClock
from tests.support.resolvers import asking
from tests.unit.dns.messages import Row, message

if TYPE_CHECKING:
    from mailrider.dns.caching import CachingResolver

T = TypeVar("T")

ONE, TWO, AWAY, FAR = (ServerAddress(ip_address(ip)) for ip in ("127.0.0.1", "127.0.0.2", "192.0.2.1", "192.0.2.2"))
NAME = Domain("host.test")
A = RecordType.A
ADDRESS = ("host.test.", "A", "192.0.2.7")

Server = Callable[[Question], Awaitable[bytes]]  # from a question to the message that comes back, or an exception


def says(*rows: Row, **more: Any) -> Server:
    async def server(question: Question) -> bytes:
        return message(question, rows, **more)

    return server


def fails(rcode: dns.rcode.Rcode) -> Server:
    return says(rcode=rcode)


def raises(error: Exception) -> Server:
    async def server(question: Question) -> bytes:
        raise error

    return server


async def silent(question: Question) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


TRUNCATED = says(flags="QR RD RA TC")
REFUSED_CONNECTION = raises(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))


class Network:
    """A transport to servers that are functions; logs who was asked."""

    def __init__(self, udp: dict[ServerAddress, Server], tcp: dict[ServerAddress, Server] | None = None) -> None:
        self.udp = udp
        self.tcp = tcp or {}
        self.log: list[tuple[str, ServerAddress]] = []
        self.ids: list[int] = []
        self.open = 0
        self.most_open = 0

    async def ask_udp(self, server: ServerAddress, query: bytes, accept: Callable[[bytes], T | None]) -> T:
        return await self._ask("udp", self.udp[server], server, query, accept)

    async def ask_tcp(self, server: ServerAddress, query: bytes, accept: Callable[[bytes], T | None]) -> T:
        return await self._ask("tcp", self.tcp[server], server, query, accept)

    async def _ask(
        self, way: str, answer: Server, server: ServerAddress, query: bytes, accept: Callable[[bytes], T | None]
    ) -> T:
        self.log.append((way, server))
        asked = dns.message.from_wire(query)
        self.ids.append(asked.id)
        name = asked.question[0].name.to_text(omit_final_dot=True)
        record_type = RecordType(dns.rdatatype.to_text(asked.question[0].rdtype))
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            reply = accept(await answer(Question(Domain(name), record_type, asked.id)))
        finally:
            self.open -= 1
        assert reply is not None
        return reply


@asynccontextmanager
async def resolver(
    network: Network, *servers: ServerAddress, clock: FakeClock | None = None, cache_size: int = 100
) -> AsyncIterator[CachingResolver]:
    clock = clock or FakeClock()
    async with asking(
        choose_servers(servers or tuple(network.udp)),
        clock=clock,
        rng=random.Random(1),
        timeout=5,
        attempts=3,
        cache_size=cache_size,
        transport=network,
    ) as stub:
        yield stub
    assert network.open == 0
    assert clock.pending == 0


async def failure(stub: CachingResolver, name: Domain = NAME) -> LookupFailed:
    with pytest.raises(LookupFailed) as raised:
        await stub.lookup(name, A)
    assert raised.value.name == name
    assert raised.value.record_type is A
    assert not raised.value.permanent
    return raised.value


async def advance_until(clock: FakeClock, task: asyncio.Task[T]) -> float:
    """Let time pass until the task is done; the seconds that it took."""
    start = clock.monotonic()
    await clock.advance(0)
    while not task.done():
        await clock.advance(1)
        assert clock.monotonic() - start < 1000
    return clock.monotonic() - start


async def test_the_first_server_that_answers_is_believed() -> None:
    network = Network({ONE: says(ADDRESS), TWO: silent})
    async with resolver(network) as stub:
        answer = await stub.lookup(NAME, A)
    assert answer.records == (IPv4Address("192.0.2.7"),)
    assert network.log == [("udp", ONE)]


async def test_ad_counts_from_loopback_only() -> None:
    signed = says(ADDRESS, flags="QR RD RA AD")
    for server, believed in ((ONE, True), (AWAY, False)):
        async with resolver(Network({server: signed})) as stub:
            assert stub.validates is believed
            assert (await stub.lookup(NAME, A)).authentic is believed


async def test_beside_a_loopback_server_no_other_is_asked_even_if_it_fails() -> None:
    network = Network({AWAY: says(ADDRESS), ONE: fails(dns.rcode.SERVFAIL)})
    async with resolver(network) as stub:
        assert (await failure(stub)).failure is LookupFailure.SERVFAIL
    assert network.log == [("udp", ONE)]


@pytest.mark.parametrize(
    "first",
    [
        fails(dns.rcode.SERVFAIL),
        fails(dns.rcode.REFUSED),
        REFUSED_CONNECTION,
        raises(NotAnAnswer("forged")),
    ],
)
async def test_a_server_that_cannot_tell_is_passed_over_and_not_asked_again(first: Server) -> None:
    network = Network({AWAY: first, FAR: says(ADDRESS)})
    async with resolver(network) as stub:
        assert (await stub.lookup(NAME, A)).records
    assert network.log == [("udp", AWAY), ("udp", FAR)]


class Questions(Network):
    """Notes of each question whether it had EDNS; `plain` answers those without, and `says` the others."""

    def __init__(self, says: Server, plain: Server) -> None:
        super().__init__({ONE: says})
        self._plain = plain
        self.edns: list[bool] = []

    async def ask_udp(self, server: ServerAddress, query: bytes, accept: Callable[[bytes], T | None]) -> T:
        asked = dns.message.from_wire(query)
        self.edns.append(asked.edns >= 0)
        if asked.edns >= 0:
            return await super().ask_udp(server, query, accept)
        assert not asked.flags & dns.flags.AD
        return await self._ask("udp", self._plain, server, query, accept)


@pytest.mark.parametrize("rcode", [dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS])
async def test_a_server_that_does_not_understand_edns_is_asked_without_and_not_believed(rcode: dns.rcode.Rcode) -> None:
    network = Questions(fails(rcode), says(ADDRESS, flags="QR RD RA AD"))
    async with resolver(network) as stub:
        answer = await stub.lookup(NAME, A)
    assert stub.validates
    assert (len(answer.records), answer.authentic) == (1, False)
    assert network.edns == [True, False]
    assert len(set(network.ids)) == 2


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_no_other_failure_is_asked_again_without_edns(rcode: dns.rcode.Rcode) -> None:
    network = Questions(fails(rcode), says(ADDRESS))
    async with resolver(network) as stub:
        assert (await failure(stub)).failure == dns.rcode.to_text(rcode)
    assert network.edns == [True]


async def test_a_server_that_refuses_the_plain_question_too_has_failed() -> None:
    network = Questions(fails(dns.rcode.FORMERR), fails(dns.rcode.NOTIMP))
    async with resolver(network) as stub:
        assert (await failure(stub)).failure is LookupFailure.NOTIMP
    assert network.edns == [True, False]


# moby/moby#28136: Docker's DNS truncated over UDP, and nobody listened on TCP.
@pytest.mark.parametrize(
    ("tcp", "expected"),
    [
        (REFUSED_CONNECTION, "its answer over UDP is truncated, and over TCP: Connection refused"),
        (fails(dns.rcode.SERVFAIL), "its answer over UDP is truncated, and over TCP: SERVFAIL"),
    ],
)
async def test_a_truncated_answer_without_tcp_is_said(tcp: Server, expected: str) -> None:
    async with resolver(Network({ONE: TRUNCATED}, {ONE: tcp})) as stub:
        assert expected in str(await failure(stub))


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (fails(dns.rcode.SERVFAIL), LookupFailure.SERVFAIL),
        (fails(dns.rcode.REFUSED), LookupFailure.REFUSED),
        (raises(NotAnAnswer("forged")), LookupFailure.MALFORMED),
    ],
)
async def test_where_answers_can_be_authentic_a_failure_is_not_covered_by_another_servers_answer(
    first: Server, expected: LookupFailure
) -> None:
    network = Network({ONE: first, TWO: says(ADDRESS)})
    async with resolver(network) as stub:
        assert stub.validates
        assert (await failure(stub)).failure is expected
    assert network.log == [("udp", ONE)]


@pytest.mark.parametrize("first", [silent, REFUSED_CONNECTION])
async def test_a_server_that_does_not_answer_is_passed_over_on_loopback_too(first: Server) -> None:
    clock = FakeClock()
    network = Network({ONE: first, TWO: says(ADDRESS)})
    async with resolver(network, clock=clock) as stub:
        lookup = asyncio.create_task(stub.lookup(NAME, A))
        await advance_until(clock, lookup)
        assert (await lookup).records
    assert network.log == [("udp", ONE), ("udp", TWO)]


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ([fails(dns.rcode.SERVFAIL)], "SERVFAIL"),
        ([fails(dns.rcode.REFUSED)], "REFUSED"),
        ([fails(dns.rcode.NOTIMP)], "NOTIMP"),
        ([fails(dns.rcode.FORMERR)], "FORMERR"),
        ([REFUSED_CONNECTION], "no resolver answers"),
        ([raises(NotAnAnswer("forged"))], "malformed answer"),
        ([says(flags="QR RD")], "REFUSED"),
        ([REFUSED_CONNECTION, fails(dns.rcode.REFUSED)], "REFUSED"),
        ([fails(dns.rcode.REFUSED), fails(dns.rcode.SERVFAIL)], "SERVFAIL"),
    ],
)
async def test_if_all_fail_the_most_telling_failure_is_reported(servers: list[Server], expected: str) -> None:
    network = Network(dict(zip((AWAY, FAR), servers, strict=False)))
    async with resolver(network) as stub:
        assert (await failure(stub)).failure == expected
    assert {server for _, server in network.log} == set(network.udp)


async def test_silence_is_asked_again_as_often_as_attempts_say() -> None:
    clock = FakeClock()
    network = Network({ONE: silent})
    async with resolver(network, clock=clock) as stub:
        lookup = asyncio.create_task(failure(stub))
        assert await advance_until(clock, lookup) == 15
        assert (await lookup).failure is LookupFailure.TIMEOUT
    assert network.log == [("udp", ONE)] * 3


async def test_in_later_rounds_only_those_are_asked_that_kept_silent() -> None:
    clock = FakeClock()
    network = Network({AWAY: fails(dns.rcode.SERVFAIL), FAR: silent})
    async with resolver(network, clock=clock) as stub:
        lookup = asyncio.create_task(failure(stub))
        await advance_until(clock, lookup)
        assert (await lookup).failure is LookupFailure.SERVFAIL
    assert network.log == [("udp", AWAY)] + [("udp", FAR)] * 3


async def test_without_servers_there_is_no_resolver() -> None:
    async with asking(choose_servers([]), clock=FakeClock(), rng=random.Random(1)) as stub:
        assert (await failure(stub)).failure is LookupFailure.NO_RESOLVER


async def test_every_question_has_an_id_of_its_own() -> None:
    clock = FakeClock()
    network = Network({ONE: silent, TWO: silent})
    async with resolver(network, clock=clock) as stub:
        await advance_until(clock, asyncio.create_task(failure(stub)))
    assert len(set(network.ids)) == 6


async def test_a_truncated_answer_is_asked_for_again_over_tcp() -> None:
    network = Network({ONE: TRUNCATED}, {ONE: says(ADDRESS)})
    async with resolver(network) as stub:
        assert (await stub.lookup(NAME, A)).records
    assert network.log == [("udp", ONE), ("tcp", ONE)]


@pytest.mark.parametrize(
    ("tcp", "expected"),
    [
        (REFUSED_CONNECTION, LookupFailure.NO_RESOLVER),
        (raises(ConnectionResetError("closed early")), LookupFailure.NO_RESOLVER),
        (TRUNCATED, LookupFailure.MALFORMED),
        (fails(dns.rcode.SERVFAIL), LookupFailure.SERVFAIL),
    ],
)
async def test_what_goes_wrong_over_tcp_is_a_failure_of_that_server(tcp: Server, expected: LookupFailure) -> None:
    async with resolver(Network({ONE: TRUNCATED}, {ONE: tcp})) as stub:
        assert (await failure(stub)).failure is expected
    async with resolver(Network({AWAY: TRUNCATED, FAR: says(ADDRESS)}, {AWAY: tcp})) as stub:
        assert (await stub.lookup(NAME, A)).records


async def test_silence_over_tcp_has_the_same_time_out() -> None:
    clock = FakeClock()
    async with resolver(Network({ONE: TRUNCATED}, {ONE: silent}), clock=clock) as stub:
        lookup = asyncio.create_task(failure(stub))
        assert await advance_until(clock, lookup) == 15
        assert (await lookup).failure is LookupFailure.TIMEOUT


async def test_a_cname_without_its_target_is_followed_by_a_question() -> None:
    async def authority(question: Question) -> bytes:
        rows = {"host.test": ("host.test.", "CNAME", "real.test."), "real.test": ("real.test.", "A", "192.0.2.7")}
        return message(question, [rows[question.name.ascii]], flags="QR RD AA")

    async with resolver(Network({ONE: authority})) as stub:
        answer = await stub.lookup(NAME, A)
        assert answer.canonical == Domain("real.test")
        assert stub.cached(NAME, A) is answer


async def test_an_endless_chain_over_many_replies_ends() -> None:
    async def authority(question: Question) -> bytes:
        name = question.name.ascii
        return message(question, [(f"{name}.", "CNAME", f"x{name}.")])

    network = Network({ONE: authority})
    async with resolver(network) as stub:
        assert (await failure(stub)).failure is LookupFailure.CNAME_CHAIN
    assert len(network.log) == 17


async def test_an_answer_is_remembered_for_its_ttl() -> None:
    clock = FakeClock()
    network = Network({ONE: says(ADDRESS, ttl=60)})
    async with resolver(network, clock=clock) as stub:
        assert stub.cached(NAME, A) is None
        answer = await stub.lookup(NAME, A)
        assert stub.cached(NAME, A) is answer
        assert await stub.lookup(NAME, A) is answer
        await clock.advance(60)
        assert stub.cached(NAME, A) is None
        await stub.lookup(NAME, A)
        assert len(network.log) == 2
        stub.choose(stub.choice)
        assert stub.cached(NAME, A) is None


async def test_a_fresh_lookup_passes_the_cache_over_and_renews_it() -> None:
    network = Network({ONE: says(ADDRESS, ttl=60)})
    async with resolver(network) as stub:
        before = await stub.lookup(NAME, A)
        after = await stub.lookup(NAME, A, fresh=True)
        assert after is not before
        assert await stub.lookup(NAME, A) is after
    assert len(network.log) == 2


async def test_an_absence_is_remembered_too() -> None:
    network = Network({ONE: says(rcode=dns.rcode.NXDOMAIN, soa="test.")})
    async with resolver(network) as stub:
        assert not (await stub.lookup(NAME, A)).exists
        await stub.lookup(NAME, A)
    assert len(network.log) == 1


async def test_a_failure_is_not_remembered() -> None:
    network = Network({ONE: fails(dns.rcode.SERVFAIL)})
    async with resolver(network) as stub:
        await failure(stub)
        network.udp[ONE] = says(ADDRESS)
        assert (await stub.lookup(NAME, A)).records


async def test_simultaneous_lookups_of_the_same_are_one_question_even_without_a_lifetime() -> None:
    network = Network({ONE: says(ADDRESS, ttl=0)})
    async with resolver(network) as stub:
        await asyncio.gather(*(stub.lookup(NAME, A) for _ in range(100)))
        assert len(network.log) == 1
        await stub.lookup(NAME, A)
        assert len(network.log) == 2


async def test_each_who_waits_gets_an_exception_of_its_own() -> None:
    network = Network({ONE: fails(dns.rcode.SERVFAIL)})
    async with resolver(network) as stub:
        first, second = await asyncio.gather(*(failure(stub) for _ in range(2)))
        assert first is not second
    assert len(network.log) == 1
    assert first.detail == "127.0.0.1:53"
    assert str(first) == "A lookup of host.test failed: SERVFAIL (127.0.0.1:53)"


async def test_a_cancelled_lookup_leaves_the_others_and_nothing_behind() -> None:
    clock = FakeClock()
    network = Network({ONE: silent})
    async with resolver(network, clock=clock) as stub:
        first, second = (asyncio.create_task(failure(stub)) for _ in range(2))
        await clock.advance(1)
        first.cancel()
        await clock.advance(1)
        assert first.cancelled()
        assert network.open == 1
        second.cancel()
        await clock.advance(1)
        assert network.open == 0
        assert clock.pending == 0


async def test_questions_at_once_are_bounded() -> None:
    clock = FakeClock()
    network = Network({ONE: silent})
    async with resolver(network, clock=clock) as stub:
        names = [Domain(f"n{number}.test") for number in range(MAX_IN_FLIGHT + 50)]
        lookups = [asyncio.create_task(failure(stub, name)) for name in names]
        await clock.advance(1)
        assert network.most_open == MAX_IN_FLIGHT
        for lookup in lookups:
            lookup.cancel()
        await clock.advance(1)


async def test_one_owners_slow_names_leave_room_for_the_names_of_others() -> None:
    clock = FakeClock()

    async def answer(question: Question) -> bytes:
        if str(question.name).endswith(".evil.test"):
            return await silent(question)
        return await says((f"{question.name}.", "A", "192.0.2.7"))(question)

    network = Network({ONE: answer})
    async with resolver(network, clock=clock) as stub:
        evil = [asyncio.create_task(failure(stub, Domain(f"n{number}.evil.test"))) for number in range(3000)]
        await clock.advance(1)
        good = [asyncio.create_task(stub.lookup(Domain(f"good{n}.test"), RecordType.A)) for n in range(100)]
        await clock.advance(1)
        assert all(lookup.done() and lookup.result().records for lookup in good)
        for lookup in evil:
            lookup.cancel()
        await clock.advance(1)


async def test_closing_ends_what_is_under_way_and_refuses_what_comes_later() -> None:
    network = Network({ONE: silent})
    clock = FakeClock()
    async with resolver(network, clock=clock) as stub:
        lookup = asyncio.create_task(failure(stub))
        await clock.advance(1)
    assert (await lookup).failure is LookupFailure.NO_RESOLVER
    assert (await failure(stub)).failure is LookupFailure.NO_RESOLVER
    assert len(network.log) == 1


async def test_a_resolver_that_was_never_opened_asks_nobody() -> None:
    network = Network({ONE: says(ADDRESS)})
    stub = asking(choose_servers([ONE]), clock=FakeClock(), rng=random.Random(1), transport=network)
    assert (await failure(stub)).failure is LookupFailure.NO_RESOLVER
    assert network.log == []


async def test_the_ports_helpers_ask_for_their_types_and_look_in_the_cache_first() -> None:
    asked: list[str] = []

    async def server(question: Question) -> bytes:
        asked.append(question.record_type)
        return message(question, soa="test.")

    helpers = (lookup_mx, lookup_a, lookup_aaaa, lookup_cname, lookup_tlsa, lookup_txt)
    async with resolver(Network({ONE: server})) as stub:
        port: Resolver = stub
        for _ in range(2):
            for helper in helpers:
                assert not (await helper(port, NAME)).records
    assert asked == ["MX", "A", "AAAA", "CNAME", "TLSA", "TXT"]
