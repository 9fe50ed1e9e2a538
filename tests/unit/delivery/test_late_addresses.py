"""Addresses that DNS names late hold up nobody, are not lost, and change nothing that DANE is told (RFC 8305 3).

DNS is a table, and servers are functions of time; attempt, destination, policy and race are those that deliver.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random
from typing import TYPE_CHECKING, Any, cast

import pytest

from mailrider.delivery.attempt import Attempt
from mailrider.delivery.connection.peer import Peer
from mailrider.delivery.connection.unusable import Unusable
from mailrider.delivery.destination import Destination, RouteMemory, Routing
from mailrider.delivery.job import AttemptRules, Job
from mailrider.delivery.mx import RESOLUTION_DELAY, LateAddresses, alias_answer
from mailrider.delivery.race import HEAD_START, AddressHistory
from mailrider.delivery.smarthost import FixedDestination, FixedServer
from mailrider.dns.answer import Answer, LookupFailure, RecordType
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.event import discard
from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply
from mailrider.model.route import Candidate, Host
from mailrider.model.security import NO_REQUIREMENT, TLSARecord
from mailrider.net.errors import ConnectRefused
from mailrider.policy.dane import DANEPolicies
from mailrider.policy.requiretls import ORDINARY
from mailrider.smtp.capabilities import Capabilities
from mailrider.testing.clock import FakeClock
from mailrider.testing.resolver import FakeResolver, Row, TableRow, mx
from tests.support.channels import settle
from tests.unit.delivery.test_attempt import CONTENT, FakeLease, FakeSession, says

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from mailrider.delivery.connection.connect import ConnectRequest
    from mailrider.delivery.connection.pool import Pool
    from mailrider.model.outcome import Outcome
    from mailrider.net.channel import Channel

A, MX = Domain("a.test"), Candidate(Domain("mx.test"), 10)
V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
NEVER = 1e6
TIMEOUT = 10.0  # `connect_timeout`: half of it is for address lookups
SILENT = TableRow(delay=NEVER)
TLSA = TLSARecord(3, 1, 1, bytes(32))


def after(address: object, seconds: float, *, authentic: bool | None = None) -> TableRow:
    return TableRow([address], delay=seconds, authentic=authentic)  # type: ignore[list-item]


def signed(address: object) -> TableRow:
    return after(address, 0, authentic=True)


class Opened:
    """As much of a channel as a race looks at."""

    def abort(self) -> None:
        pass


@dataclass
class World:
    """One domain with one MX host. `answers`: seconds after which an address takes a connection; a missing one refuses.

    `greets`: those that refuse everybody in their greeting.
    """

    families: Mapping[str, Row]
    answers: Mapping[object, float] = field(default_factory=lambda: {V4: 0.0, V6: 0.0})
    greets: tuple[object, ...] = ()
    rules: AttemptRules = field(default_factory=AttemptRules)
    dane: bool = True
    validates: bool = True
    ours: tuple[object, ...] = ()
    alias: bool | None = None  # whether the link is signed

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        name = "mx.test" if self.alias is None else "real.test"
        rows: dict[tuple[str, str], Row] = {(name, family): row for family, row in self.families.items()}
        rows |= {("a.test", "MX"): [mx(10, "mx.test")], (f"_25._tcp.{name}", "TLSA"): signed(TLSA)}
        if self.alias is not None:
            rows["mx.test", "CNAME"] = TableRow([Domain("real.test")], authentic=self.alias)
        self.resolver = FakeResolver(rows, validates=self.validates, caching=True, clock=self.clock)
        self.memory = RouteMemory(self.resolver, self.clock, force_ipv4=False)
        self.took: list[tuple[object, float, bool]] = []  # the address, the seconds until then, DANE demanded

    def destination(self, *, waits_for_all: bool = False) -> Destination:
        routing = Routing(
            self.resolver,
            Random(0),
            discard,
            Domain("client.test"),
            lambda address: (address in self.ours, math.inf),
            self.clock,
            TIMEOUT,
            self.memory,
            AddressHistory(self.clock),
        )
        policies = [DANEPolicies(self.resolver, 25)] if self.dane else []
        return Destination(A, routing, policies, NO_REQUIREMENT, waits_for_all=waits_for_all)

    async def _dial(self, address: object) -> Channel:
        await self.clock.sleep(self.answers.get(address, 0.0))
        if address not in self.answers:
            raise ConnectRefused("refused")
        return cast("Channel", Opened())

    @asynccontextmanager
    async def lease(self, call: ConnectRequest, *, fresh: bool = False) -> AsyncIterator[FakeLease]:
        del fresh
        try:
            await (self._dial(call.address) if call.race is None else call.race.connect(call.address, self._dial))
        except ConnectRefused as error:
            raise Unusable(TryResult.CONNECT, Reply.make(451, "4.4.1", "refused")) from error
        if call.address in self.greets:
            raise Unusable(TryResult.GREETING, Reply.make(451, "4.3.2", "busy"), refusal=Reply.make(421, "4.3.2", "no"))
        self.took.append(
            (call.address, round(self.clock.monotonic() - self.began, 3), call.requirement.dane is not None)
        )
        yield FakeLease(FakeSession(Peer(call.mx, str(call.address), 25, None), Capabilities(), says()))

    def start(self) -> asyncio.Task[tuple[Outcome, ...]]:
        self.began = self.clock.monotonic()
        recipients = (Recipient(Mailbox("b", A)),)
        job = Job(Envelope(ReversePath.parse("a@b.test"), recipients), CONTENT, ORDINARY)
        attempt = Attempt(job, recipients, self.destination(), self, self.rules, self.clock, discard)
        return asyncio.create_task(attempt.run())

    async def deliver(self) -> Outcome:
        running = self.start()
        await self.clock.advance(2 * TIMEOUT)
        assert running.done()
        await settle()
        assert self.clock.pending == 0  # nothing goes on behind the attempt
        return running.result()[0]


REFUSES: dict[object, float] = {V6: 0.0}  # IPv4 does, or this machine has IPv6 alone

TIMES: dict[str, tuple[World, object, float]] = {
    "AAAA is silent": (World({"A": V4, "AAAA": SILENT}), V4, RESOLUTION_DELAY),
    "A is silent": (World({"A": SILENT, "AAAA": V6}), V6, RESOLUTION_DELAY),
    "AAAA comes within the resolution delay": (World({"A": V4, "AAAA": after(V6, 0.04)}), V6, 0.04),
    "AAAA is slow, and A refuses": (World({"A": V4, "AAAA": after(V6, 2)}, REFUSES), V6, 2),
    "AAAA is slow, and A does not connect": (
        World({"A": V4, "AAAA": after(V6, 2)}, {V4: NEVER, V6: 0.0}),
        V6,
        2,
    ),
    "AAAA is a little slow, and A does not connect": (
        World({"A": V4, "AAAA": after(V6, RESOLUTION_DELAY + 0.1)}, {V4: NEVER, V6: 0.0}),
        V6,
        RESOLUTION_DELAY + HEAD_START,
    ),
    "AAAA is slow, and A greets with a refusal": (World({"A": V4, "AAAA": after(V6, 2)}, greets=(V4,)), V6, 2),
    "AAAA is slow, and A is prohibited": (
        World({"A": V4, "AAAA": after(V6, 2)}, rules=AttemptRules(prohibits=lambda each: each == V4)),
        V6,
        2,
    ),
    "AAAA is slow, and the source address is of IPv6": (
        World({"A": V4, "AAAA": after(V6, 2)}, rules=AttemptRules(local_ip=ip_address("2001:db8::2"))),
        V6,
        2,
    ),
    "AAAA is slow, and there is no A": (World({"A": TableRow(), "AAAA": after(V6, 2)}), V6, 2),
    "AAAA is slow, and A fails": (World({"A": LookupFailure.SERVFAIL, "AAAA": after(V6, 2)}), V6, 2),
    "A is slow, and AAAA fails": (World({"A": after(V4, 2), "AAAA": LookupFailure.SERVFAIL}), V4, 2),
    "both are slow": (World({"A": after(V4, 2), "AAAA": after(V6, 4)}), V4, 2 + RESOLUTION_DELAY),
    "both are slower than half of the time": (World({"A": after(V4, 6), "AAAA": after(V6, 7)}), V4, 6),
}


@pytest.mark.parametrize(("world", "address", "seconds"), TIMES.values(), ids=TIMES)
async def test_connecting_begins_with_what_is_known_and_what_comes_late_is_used_too(
    world: World, address: object, seconds: float
) -> None:
    world = replace(world)
    outcome = await world.deliver()
    assert outcome.status == "delivered"
    assert not any("local_ip" in each.reply.text for each in outcome.tries)  # it was there, a little later
    assert [(at, when) for at, when, _ in world.took] == [(address, seconds)]


DEFERRED = {
    "AAAA is silent, and A refuses": World({"A": V4, "AAAA": SILENT}, REFUSES),
    "AAAA fails late, and A refuses": World(
        {"A": V4, "AAAA": TableRow(failure=LookupFailure.SERVFAIL, delay=2)}, REFUSES
    ),
    "AAAA names ourselves": World({"A": V4, "AAAA": after(V6, 2)}, REFUSES, ours=(V6,)),
    "A is prohibited, and AAAA as well": World(
        {"A": V4, "AAAA": after(V6, 2)}, rules=AttemptRules(prohibits=lambda _: True)
    ),
    "the source address is of IPv6, and AAAA is silent": World(
        {"A": V4, "AAAA": SILENT}, rules=AttemptRules(local_ip=ip_address("2001:db8::2"))
    ),
    "the source address is of IPv4, and A refuses": World(
        {"A": V4, "AAAA": after(V6, 2)}, REFUSES, rules=AttemptRules(local_ip=ip_address("192.0.2.2"))
    ),
}


@pytest.mark.parametrize("world", DEFERRED.values(), ids=DEFERRED)
async def test_without_an_address_that_serves_the_mail_is_deferred(world: World) -> None:
    world = replace(world)
    outcome = await world.deliver()
    assert (outcome.status, str(outcome.reply.enhanced)) == ("deferred", "4.4.1")
    assert world.took == []


async def test_an_address_of_ours_that_is_a_little_slow_is_seen() -> None:
    outcome = await World({"A": V4, "AAAA": after(V6, 0.3)}, ours=(V6,)).deliver()
    assert (outcome.status, str(outcome.reply.enhanced)) == ("failed", "5.4.6")


# What DANE is told ----------------------------------------------------------------------------------------------------

BOTH = TIMEOUT / 2  # both lookups are waited for as long as there is time

DANE: dict[str, tuple[World, list[tuple[object, float, bool]]]] = {
    "A is signed, AAAA silent": (World({"A": signed(V4), "AAAA": SILENT}), [(V4, RESOLUTION_DELAY, True)]),
    "A is not signed, AAAA silent": (World({"A": V4, "AAAA": SILENT}), [(V4, RESOLUTION_DELAY, False)]),
    "A is signed and refuses, AAAA late and not signed": (
        World({"A": signed(V4), "AAAA": after(V6, 2, authentic=False)}, REFUSES),
        [(V6, 2, True)],
    ),
    "A is not signed, AAAA is, and comes in time": (
        World({"A": V4, "AAAA": after(V6, 0.04, authentic=True)}),
        [(V6, 0.04, True)],
    ),
    "A is not signed and refuses, AAAA signed and late: the next attempt knows both": (
        World({"A": V4, "AAAA": after(V6, 2, authentic=True)}, REFUSES),
        [],
    ),
    "an alias, AAAA silent": (World({"A": signed(V4), "AAAA": SILENT}, alias=True), [(V4, BOTH, True)]),
    "an alias that is not signed, AAAA silent": (World({"A": V4, "AAAA": SILENT}, alias=False), [(V4, BOTH, False)]),
    "an alias where nobody validates": (
        World({"A": V4, "AAAA": SILENT}, alias=False, validates=False),
        [(V4, RESOLUTION_DELAY, False)],
    ),
    "an alias where DANE is not asked": (
        World({"A": V4, "AAAA": SILENT}, alias=False, dane=False),
        [(V4, RESOLUTION_DELAY, False)],
    ),
    "an alias that refuses, where DANE is not asked, AAAA late": (
        World({"A": V4, "AAAA": after(V6, 2)}, REFUSES, alias=False, dane=False),
        [(V6, 2, False)],
    ),
}


@pytest.mark.parametrize(("world", "took"), DANE.values(), ids=DANE)
async def test_no_late_answer_makes_a_host_look_more_or_less_signed(
    world: World, took: list[tuple[object, float, bool]]
) -> None:
    world = replace(world)
    await world.deliver()
    assert world.took == took


async def test_a_late_answer_that_was_not_used_counts_in_the_next_attempt() -> None:
    world = World({"A": V4, "AAAA": after(V6, 2, authentic=True)}, REFUSES)
    assert (await world.deliver()).status == "deferred"
    assert (await world.deliver()).status == "delivered"
    assert world.took == [(V6, 0, True)]


class Slow(FakeResolver):
    """Knows the AAAA answer at once, and says it two seconds later: somebody else had asked."""

    async def lookup(self, name: Domain, record_type: RecordType, *, fresh: bool = False) -> Answer[Any]:
        answer = await super().lookup(name, record_type, fresh=fresh)
        if record_type is RecordType.AAAA:
            await self._clock.sleep(2)
        return answer


async def test_a_host_of_which_a_part_was_late_is_not_remembered() -> None:
    world = World({"A": V4, "AAAA": V6})
    world.resolver = Slow(world.resolver.answers, caching=True, clock=world.clock)
    world.memory = RouteMemory(world.resolver, world.clock, force_ipv4=False)
    await world.deliver()
    await world.deliver()
    assert [address for address, _, _ in world.took] == [V4, V6]


async def test_who_explains_waits_for_all_addresses() -> None:
    world = World({"A": V4, "AAAA": after(V6, 2)})
    destination = world.destination(waits_for_all=True)
    looking = asyncio.create_task(destination.host(MX))
    await world.clock.advance(2)
    host = await looking
    assert isinstance(host, Host)
    assert host.addresses == (V6, V4)
    assert destination.late_addresses(MX) is None


async def test_a_cancelled_attempt_leaves_no_lookup_behind() -> None:
    for seconds in (0.01, 2 * RESOLUTION_DELAY):  # while the first ones are waited for, and later
        world = World({"A": V4, "AAAA": SILENT}, {V4: NEVER})
        running = world.start()
        await world.clock.advance(seconds)
        running.cancel()
        await asyncio.wait([running])
        await settle()
        assert world.clock.pending == 0


async def test_an_attempt_that_is_cancelled_twice_leaves_no_lookup_behind() -> None:
    for turns in range(1, 5):  # of the loop, between the two
        world = World({"A": V4, "AAAA": SILENT}, {V4: NEVER})
        running = world.start()
        await world.clock.advance(2 * RESOLUTION_DELAY)
        running.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        await settle()
        assert world.clock.pending == 0


async def test_a_lookup_that_goes_on_ends_even_if_it_is_given_up_at_once() -> None:
    clock = FakeClock()
    late, lookup = LateAddresses(FakeResolver(), clock, dane=True), asyncio.ensure_future(clock.sleep(NEVER))
    await settle()
    late.keep(MX, cast("asyncio.Future[Any]", lookup), Answer(A, (V4,), True, 0.0), clock.monotonic() + NEVER)
    await late.close()
    await settle()
    assert lookup.cancelled()
    assert clock.pending == 0


async def test_a_bug_in_a_late_lookup_defers_the_mail() -> None:
    class Broken(FakeResolver):
        async def lookup(self, name: Domain, record_type: object, *, fresh: bool = False) -> Answer[Any]:
            if record_type == "AAAA":
                await world.clock.sleep(2)
                raise ZeroDivisionError
            return await super().lookup(name, record_type, fresh=fresh)  # type: ignore[arg-type]

    world = World({}, REFUSES)
    world.resolver = Broken({("a.test", "MX"): [mx(10, "mx.test")], ("mx.test", "A"): V4}, clock=world.clock)
    assert (await world.deliver()).status == "deferred"


async def test_a_smarthost_that_is_an_alias_waits_no_longer_since_dane_says_nothing_of_it() -> None:
    world = World({"A": V4, "AAAA": SILENT}, alias=False)
    nothing: Any = None
    server = FixedServer(MX.host, cast("Pool", nothing), NO_REQUIREMENT, AddressHistory(world.clock))
    for waits_for_all, seconds in ((False, RESOLUTION_DELAY), (True, BOTH)):
        destination = FixedDestination([server], world.resolver, world.clock, TIMEOUT, waits_for_all=waits_for_all)
        (candidate,) = (await destination.find()).candidates
        looking = asyncio.create_task(destination.host(candidate))
        await world.clock.advance(seconds - 0.01)
        assert not looking.done()
        await world.clock.advance(0.01)
        host = await looking
        assert isinstance(host, Host)
        assert host.addresses == (V4,)
        assert (destination.late_addresses(candidate) is None) is waits_for_all
        await destination.close()
        await settle()
    assert world.clock.pending == 0


# Whose word on an alias counts ----------------------------------------------------------------------------------------


def answer(canonical: str, *, authentic: bool) -> Answer[Any]:
    return Answer(Domain("mx.test"), (V4,), authentic, 0.0, canonical=Domain(canonical) if canonical else None)


SAFE, UNSAFE, PLAIN = answer("x.test", authentic=True), answer("y.test", authentic=False), answer("", authentic=True)


@pytest.mark.parametrize(
    ("answers", "counts"),
    [
        ([], None),
        ([PLAIN, PLAIN], None),
        ([UNSAFE], UNSAFE),
        ([UNSAFE, SAFE], SAFE),
        ([SAFE, UNSAFE], SAFE),
        ([PLAIN, UNSAFE], UNSAFE),
        ([UNSAFE, PLAIN], UNSAFE),
    ],
    ids=["nothing", "no alias", "not signed", "A is signed", "AAAA is signed", "A is no alias", "AAAA is no alias"],
)
def test_one_answer_says_what_a_host_is_an_alias_of_and_whether_that_is_signed(
    answers: list[Answer[Any]], counts: Answer[Any] | None
) -> None:
    assert alias_answer(answers) is counts
