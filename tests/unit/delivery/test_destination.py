"""One next hop for one attempt: its hosts, which of them are ourselves, and what all policies say together."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.delivery.destination import Destination, RouteMemory, Routing
from mailrider.delivery.mx import HostNotFound, Unroutable
from mailrider.delivery.race import AddressHistory
from mailrider.dns.answer import LookupFailure
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.event import CandidatesFound, LookupDidFail
from mailrider.model.route import Candidate, Candidates, Host
from mailrider.model.security import NO_REQUIREMENT, MXLevel, Refusal, Requirement, TLSLevel
from mailrider.policy.base import Admission, DestinationPolicy, PreparedPolicy
from mailrider.testing.clock import FakeClock
from mailrider.testing.resolver import FakeResolver, TableRow, mx
from tests.support.problems import problem

if TYPE_CHECKING:
    from mailrider.model.domain import NextHop
    from mailrider.model.event import Event

A = Domain("a.test")
OURS, THEIRS = ip_address("192.0.2.1"), ip_address("192.0.2.2")
REFUSAL = Refusal("dane", 451, "4.7.1", "no")
ZONE: dict[tuple[str, str], Any] = {
    ("a.test", "MX"): [mx(10, "mx1.test"), mx(10, "mx2.test"), mx(20, "mx3.test")],
    ("mx1.test", "A"): THEIRS,
    ("mx2.test", "A"): THEIRS,
    ("mx3.test", "A"): OURS,
}


@dataclass(eq=False)
class FakePolicy(PreparedPolicy, DestinationPolicy):
    """A policy in all of its stages, that says what it was given."""

    admission: Admission = Admission(MXLevel.NONE)  # noqa: RUF009 (it is immutable)
    demand: Requirement | Refusal = NO_REQUIREMENT
    has_a_say: bool = True
    calls: list[str] = field(default_factory=list)
    name = "fake"

    def prepare(self, next_hop: NextHop) -> FakePolicy:
        self.calls.append(f"prepare {next_hop}")
        return self

    async def bind(self, candidates: Candidates, message: str = "") -> FakePolicy | None:
        self.calls.append(f"bind {len(candidates.candidates)}")
        return self if self.has_a_say else None

    def cancel(self) -> None:
        self.calls.append("cancel")

    async def admit(self, _: Candidate) -> Admission:
        return self.admission

    async def requirement(self, _: Host) -> Requirement | Refusal:
        return self.demand

    async def tls_failed(self) -> None:
        self.calls.append("tls_failed")


class World:
    def __init__(self, zone: dict[tuple[str, str], Any] | None = None, *, caching: bool = False) -> None:
        self.clock = FakeClock()
        self.resolver = FakeResolver(ZONE if zone is None else zone, clock=self.clock, caching=caching)
        self.events: list[Event] = []
        self.memory = RouteMemory(self.resolver, self.clock, force_ipv4=True)
        self.address_history = AddressHistory(self.clock)
        self.own_until = math.inf
        self.ours = {OURS}

    def destination(
        self,
        *policies: FakePolicy,
        next_hop: NextHop = A,
        hostname: str = "client.test",
        message: Requirement = NO_REQUIREMENT,
    ) -> Destination:
        routing = Routing(
            self.resolver,
            Random(0),
            self.events.append,
            Domain(hostname),
            lambda address: (address in self.ours, self.own_until),
            self.clock,
            10.0,
            self.memory,
            self.address_history,
            force_ipv4=True,
        )
        return Destination(next_hop, routing, policies, message)


def groups(candidates: Candidates) -> list[list[Candidate]]:
    both = {each.preference: [] for each in candidates.candidates}  # type: ignore[var-annotated]
    for each in candidates.candidates:
        both[each.preference].append(each)
    return list(both.values())


# Finding --------------------------------------------------------------------------------------------------------------


async def test_policies_begin_before_the_candidates_are_known_and_are_bound_to_them() -> None:
    world, asks, is_silent = World(), FakePolicy(), FakePolicy(has_a_say=False)
    destination = world.destination(asks, is_silent)
    found = await destination.find()
    assert asks.calls == ["prepare a.test", "bind 3"]
    assert destination.policies == [asks]
    assert [event.candidates for event in world.events if isinstance(event, CandidatesFound)] == [found]


@pytest.mark.parametrize(
    ("answer", "told"), [(LookupFailure.SERVFAIL, True), ([mx(0, ".")], False)], ids=["SERVFAIL", "null MX"]
)
async def test_where_no_candidate_is_found_policies_give_up_and_a_failure_is_told(answer: Any, told: bool) -> None:
    world, policy = World({("a.test", "MX"): answer}), FakePolicy()
    with pytest.raises(Unroutable):
        await world.destination(policy).find()
    assert policy.calls == ["prepare a.test", "cancel"]
    assert bool([event for event in world.events if isinstance(event, LookupDidFail)]) is told


async def test_who_is_cancelled_while_dns_is_asked_leaves_no_policy_behind() -> None:
    world, policy = World({("a.test", "MX"): TableRow(delay=30)}), FakePolicy()
    finding = asyncio.create_task(world.destination(policy).find())
    await world.clock.advance(1)
    finding.cancel()
    await asyncio.wait([finding])
    assert policy.calls == ["prepare a.test", "cancel"]


async def test_policies_hear_of_address_literals_too() -> None:
    policy = FakePolicy()
    literal = AddressLiteral(THEIRS)
    destination = World().destination(policy, next_hop=literal)
    found = await destination.find()
    assert policy.calls == ["prepare [192.0.2.2]", "bind 1"]
    host = await destination.host(found.candidates[0])
    assert isinstance(host, Host)
    assert host.addresses == (THEIRS,)


# Ourselves ------------------------------------------------------------------------------------------------------------


async def test_a_group_without_ourselves_is_usable_as_it_is() -> None:
    destination = World().destination()
    best, _ = groups(await destination.find())
    assert await destination.usable_group(best) == tuple(best)


async def test_a_group_with_one_of_our_addresses_is_not() -> None:
    destination = World().destination()
    _, worst = groups(await destination.find())
    assert await destination.usable_group(worst) is None


async def test_a_group_with_our_name_is_not_whatever_its_addresses() -> None:
    destination = World().destination(hostname="mx2.test")
    best, _ = groups(await destination.find())
    assert await destination.usable_group(best) is None


ALIASES = {
    "the domain": {("a.test", "CNAME"): Domain("client.test"), ("client.test", "A"): THEIRS},
    "its MX": {
        ("a.test", "MX"): [mx(10, "mx.test")],
        ("mx.test", "CNAME"): Domain("client.test"),
        ("client.test", "A"): THEIRS,
    },
}


@pytest.mark.parametrize("zone", ALIASES.values(), ids=ALIASES)
async def test_an_alias_of_our_name_is_ourselves(zone: dict[tuple[str, str], Any]) -> None:
    destination = World(zone).destination()
    (only,) = groups(await destination.find())
    assert await destination.usable_group(only) is None


# Hosts ----------------------------------------------------------------------------------------------------------------


async def test_a_host_is_looked_up_once_an_attempt() -> None:
    world = World()
    destination = world.destination()
    best, _ = groups(await destination.find())
    await destination.usable_group(best)
    await destination.host(best[0])
    assert world.resolver.asked(str(best[0].host), "A") == 1


async def test_an_address_lookup_has_connect_timeout_and_what_it_used_is_gone() -> None:
    world = World({("mx.test", "A"): TableRow([THEIRS], delay=30)})
    destination, candidate = world.destination(), Candidate(Domain("mx.test"))
    looking = asyncio.create_task(destination.host(candidate))
    await world.clock.advance(10)
    found = await looking
    assert isinstance(found, HostNotFound)
    assert (found.reply.code, str(found.reply.enhanced)) == (451, "4.4.3")
    assert [event.name for event in world.events if isinstance(event, LookupDidFail)] == ["mx.test"]
    with destination.budget(candidate) as deadline:
        assert deadline == world.clock.monotonic()


PLAIN: dict[tuple[str, str], Any] = {("a.test", "MX"): [mx(10, "mx.test")], ("mx.test", "A"): THEIRS}
MX = Candidate(Domain("mx.test"), 10)


async def remembering(world: World) -> World:
    """What attempts have found there is remembered."""
    for _ in range(3):
        destination = world.destination()
        assert (await destination.find()).candidates == (MX,)
        assert await destination.usable_group((MX,)) == (MX,)
    assert [world.memory.candidates(A), world.memory.host(MX)].count(None) == 0
    assert len(world.resolver.lookups) == 2
    return world


async def test_what_dns_said_is_remembered_until_it_expires() -> None:
    world = await remembering(World(PLAIN, caching=True))
    await world.clock.advance(299)
    assert [world.memory.candidates(A), world.memory.host(MX)].count(None) == 0
    await world.clock.advance(1)
    assert [world.memory.candidates(A), world.memory.host(MX)] == [None, None]
    world.resolver.answers["a.test", "MX"] = [mx(10, "other.test")]
    assert [str(each.host) for each in (await world.destination().find()).candidates] == ["other.test"]


@pytest.mark.parametrize("short", [("a.test", "MX"), ("mx.test", "A")], ids=["MX", "A"])
async def test_each_answer_counts_until_its_own_end(short: tuple[str, str]) -> None:
    records = [mx(10, "mx.test")] if short[1] == "MX" else [THEIRS]
    world = await remembering(World(PLAIN | {short: TableRow(records, ttl=30)}, caching=True))
    await world.clock.advance(30)
    assert [world.memory.candidates(A) is None, world.memory.host(MX) is None] == [short[1] == "MX", short[1] == "A"]


async def test_nothing_is_remembered_of_what_those_said_who_are_not_asked_any_more() -> None:
    world = await remembering(World(PLAIN, caching=True))
    world.resolver.changes += 1
    assert [world.memory.candidates(A), world.memory.host(MX)] == [None, None]


async def test_whether_a_host_is_ourselves_is_asked_again_when_that_is_not_known_any_more() -> None:
    world = World(PLAIN, caching=True)
    world.own_until = world.clock.monotonic() + 60
    await remembering(world)
    world.ours.add(THEIRS)
    await world.clock.advance(59)
    assert await world.destination().usable_group((MX,)) == (MX,)
    await world.clock.advance(1)
    assert await world.destination().usable_group((MX,)) is None


async def test_without_a_cache_nothing_is_remembered() -> None:
    world = World(PLAIN)
    await world.destination().find()
    await world.destination().host(MX)
    assert [world.memory.candidates(A), world.memory.host(MX)] == [None, None]


async def test_what_chance_decides_is_not_remembered() -> None:
    world = World(caching=True)
    await world.destination().find()
    assert world.memory.candidates(A) is None


# What policies say together -------------------------------------------------------------------------------------------


async def test_levels_fold_by_maximum_and_the_first_doubt_and_refusal_stand() -> None:
    policies = (
        FakePolicy(Admission(MXLevel.MTASTS, problem("first doubt"))),
        FakePolicy(Admission(MXLevel.DNSSEC, problem("second doubt"), REFUSAL)),
        FakePolicy(Admission(MXLevel.NONE, None, Refusal("other", 451, "4.7.0", "also no"))),
    )
    destination = World().destination(*policies)
    await destination.find()
    assert await destination.admit(Candidate(A)) == Admission(MXLevel.DNSSEC, problem("first doubt"), REFUSAL)
    assert await World().destination().admit(Candidate(A)) == Admission(MXLevel.NONE)


async def test_demands_fold_with_the_messages_own_and_one_refusal_is_enough() -> None:
    host, own = Host(Candidate(A), (THEIRS,)), Requirement(min_mx=MXLevel.MTASTS, mx_reason="requiretls")
    demands = FakePolicy(demand=Requirement(min_tls=TLSLevel.ENCRYPTED, tls_reason="local_policy"))
    destination = World().destination(demands, message=own)
    await destination.find()
    total = await destination.requirement(host)
    assert isinstance(total, Requirement)
    assert (total.min_mx, total.min_tls, total.mx_reason, total.tls_reason) == (1, 1, "requiretls", "local_policy")
    refusing = World().destination(demands, FakePolicy(demand=REFUSAL), message=own)
    await refusing.find()
    assert await refusing.requirement(host) is REFUSAL


async def test_policies_hear_once_an_attempt_that_tls_failed() -> None:
    policy = FakePolicy()
    destination = World().destination(policy)
    await destination.find()
    await destination.tls_failed()
    await destination.tls_failed()
    assert policy.calls.count("tls_failed") == 1
