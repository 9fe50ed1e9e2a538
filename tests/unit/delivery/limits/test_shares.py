"""What workers share, as those see it who use it: limits, connections, clients, and what they tell each other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from mailrider.delivery.connection.fallback import REMEMBERED, FallbackMemory
from mailrider.delivery.connection.pool import NOTICEABLE, Pool
from mailrider.delivery.connection.unusable import ConnectLater
from mailrider.delivery.limits.book import COME_AGAIN
from mailrider.delivery.limits.rules import UNCOUNTED
from mailrider.delivery.limits.share_client import LOOK, SILENCE
from mailrider.delivery.limits.shares import SharedFailures, Shares, TurnedAway, WorkerShares
from mailrider.delivery.settings import LimitsSettings
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.event import ConnectionAwaited, LimitReached, LimitsUncounted
from mailrider.model.handover import Handover
from mailrider.testing.clock import FakeClock
from tests.support.problems import problem
from tests.support.shared import SharedSupervisor
from tests.unit.delivery.connection.test_pool import LIMITS, FakeConnector, call
from tests.unit.delivery.connection.test_pool import World as Connections
from tests.unit.delivery.limits.test_rules import A, B, envelope
from tests.unit.policy.sts.sts_world import EXAMPLE, text
from tests.unit.policy.sts.sts_world import World as Policies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mailrider.delivery.limits.rules import HeldBack, Limiter, MessageTicket
    from mailrider.model.event import Event


class World:
    """Two workers with the same configuration."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.supervisor = SharedSupervisor(self.clock)
        self.shares = [WorkerShares(self.clock, each.client) for each in self.supervisor.all]

    def limiters(self, *scopes: tuple[str, str], name: str | None = "block") -> list[Limiter]:
        """One for each worker."""
        settings = LimitsSettings(**cast("Any", {scope: [line] for scope, line in scopes}), name=name)
        limiters = [shares.limiter(settings, "target x") for shares in self.shares]
        return [each for each in limiters if each is not None]

    async def passes(self, limiter: Limiter, *next_hops: Domain, patience: float = 0.0) -> HeldBack | None:
        """A message that is done at once."""
        with limiter.ticket(envelope(), self.events.append, Handover(patience=patience)) as ticket:
            async with ticket.to(*(next_hops or (A,))) as held_back:
                return held_back


@pytest.fixture
async def world() -> World:
    """See `World`."""
    return World()


# Limits ---------------------------------------------------------------------------------------------------------------


async def test_a_rate_counts_the_messages_of_all_workers(world: World) -> None:
    first, second = world.limiters(("all", "rate 2 1m"))
    assert await world.passes(first) is None
    assert await world.passes(second) is None
    held_back = await world.passes(first)
    assert held_back is not None
    assert (held_back.scope, held_back.key) == ("all", "")
    assert (held_back.eligible_at - world.clock.now()).total_seconds() == pytest.approx(61.0)
    (event,) = world.events
    assert isinstance(event, LimitReached)
    assert event.seconds == pytest.approx(61.0)


async def test_a_message_is_inside_until_it_is_done(world: World) -> None:
    first, second = world.limiters(("destination", "concurrency 1"))
    with first.ticket(envelope(), world.events.append, Handover(patience=0.0)) as ticket:
        async with ticket.to(A) as held_back:
            assert held_back is None
            assert await world.passes(second, A) is not None
            assert await world.passes(second, B) is None
    await world.clock.advance(COME_AGAIN)
    assert await world.passes(second, A) is None


async def test_who_is_patient_waits_for_another_worker(world: World) -> None:
    first, second = world.limiters(("all", "concurrency 1"))
    with first.ticket(envelope(), world.events.append) as ticket:
        async with ticket.to(A):
            waiting = asyncio.create_task(world.passes(second, patience=5.0))
            await world.clock.advance(1.0)
            assert not waiting.done()
            assert world.events == [LimitReached("all", "", 0.0, message="")]
    assert await waiting is None


async def test_next_hops_together_are_passed_together_or_not_at_all(world: World) -> None:
    first, second = world.limiters(("destination", "concurrency 1"))
    with first.ticket(envelope(), world.events.append) as ticket:
        async with ticket.to(B):
            waiting = asyncio.create_task(world.passes(second, A, B, patience=5.0))
            await world.clock.advance(0)
            assert await world.passes(first, A) is None, "who waits for one holds none of the others"
    assert await waiting is None


@pytest.mark.parametrize("own", ["concurrency 1", "concurrency 40", "rate 9 1h"])
@pytest.mark.parametrize("line", ["concurrency 1", "concurrency 2", "concurrency 20", "rate 5 1h"])
async def test_a_message_with_several_next_hops_counts_once_also_if_they_ask_together(
    world: World, line: str, own: str
) -> None:
    first, second = world.limiters(("all", line), ("destination", own))
    for _ in range(5):
        with first.ticket(envelope(), world.events.append, Handover(patience=2.0)) as ticket:

            async def attempt(next_hop: Domain, ticket: MessageTicket = ticket) -> HeldBack | None:
                async with ticket.to(next_hop) as held_back:
                    return held_back

            both = [asyncio.create_task(attempt(next_hop)) for next_hop in (A, B)]
            await world.clock.advance(3.0)
            assert [each.result() for each in both] == [None, None]
        await world.clock.advance(0.0)
    last = asyncio.create_task(world.passes(second, patience=1.0))
    await world.clock.advance(2.0)
    assert (last.result() is None) is line.startswith("concurrency"), "five messages have passed"


async def test_a_next_hop_whose_message_has_passed_still_waits_for_its_own_limit(world: World) -> None:
    first, second = world.limiters(("all", "rate 2 1h"), ("destination", "concurrency 1"))
    with second.ticket(envelope(), world.events.append) as ticket:
        async with ticket.to(B):
            with first.ticket(envelope(), world.events.append) as both:

                async def attempt(next_hop: Domain) -> HeldBack | None:
                    async with both.to(next_hop) as held_back:
                        return held_back

                tasks = [asyncio.create_task(attempt(next_hop)) for next_hop in (A, B)]
                await world.clock.advance(2.0)
                assert [each.done() for each in tasks] == [True, False]
    await world.clock.advance(0.1)
    assert [each.result() for each in tasks] == [None, None]


async def test_a_block_without_a_name_is_shared_by_the_same_owner_of_all_workers(world: World) -> None:
    first, second = world.limiters(("all", "rate 1 1m"), name=None)
    assert await world.passes(first) is None
    assert await world.passes(second) is not None


async def test_a_silent_supervisor_means_held_back(world: World) -> None:
    first, _ = world.limiters(("all", "rate 1 1m"))
    world.supervisor.all[0].to_worker.stopped = True
    task = asyncio.create_task(world.passes(first))
    await world.clock.advance(SILENCE)
    held_back = await task
    assert held_back is not None
    assert (held_back.eligible_at - world.clock.now()).total_seconds() == COME_AGAIN
    assert (held_back.scope, held_back.reply) == ("", UNCOUNTED), "no limit is known to be used up"
    assert world.events == [LimitsUncounted(COME_AGAIN)]
    again = asyncio.create_task(world.passes(first))
    await world.clock.advance(SILENCE)
    assert await again is not None
    assert len(world.events) == 1, "it is told once, and not for each message that waits"


async def test_books_go_on_for_the_workers_of_the_next_configuration(world: World) -> None:
    first, _ = world.limiters(("all", "rate 1 1m"))
    assert await world.passes(first) is None
    new = WorkerShares(world.clock, world.supervisor.start().client)
    for worker in world.supervisor.all:
        world.supervisor.end(worker)
    same = new.limiter(LimitsSettings(all=["rate 1 1m"], source=["concurrency 3"], name="block"))
    assert same is not None
    assert await world.passes(same) is not None


async def test_one_process_asks_nobody() -> None:
    shares: Shares = Shares(FakeClock())
    assert shares.client is None
    assert shares.connections("target x", 20, 500) is None
    assert shares.clients("submission", 100, 10) is None


# Connections ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def pools(world: World) -> AsyncIterator[list[tuple[Pool, Connections]]]:
    """That of each worker."""
    made = []
    for shares in world.shares:
        connections = Connections(clock=world.clock)
        rights = shares.connections("target x", LIMITS.per_endpoint, LIMITS.total)
        made.append(
            (
                Pool(cast("Any", FakeConnector(connections)), LIMITS, world.clock, world.events.append, rights),
                connections,
            )
        )
    async with made[0][0], made[1][0]:
        yield made


async def test_connections_to_one_host_are_counted_over_workers(
    world: World, pools: list[tuple[Pool, Connections]]
) -> None:
    (first, at_first), (second, at_second) = pools
    async with first.lease(call(at_first)), first.lease(call(at_first)):
        waiting = asyncio.create_task(second.lease(call(at_second)).__aenter__())
        await world.clock.advance(NOTICEABLE)
        assert not waiting.done()
    lease = await waiting
    assert len(at_first.open) == 1, "one that was idle made room"
    assert [type(event) for event in world.events if isinstance(event, ConnectionAwaited)] == [ConnectionAwaited]
    await lease.__aexit__(None, None, None)


async def test_a_right_that_is_free_is_no_wait_that_anybody_is_told_of(
    world: World, pools: list[tuple[Pool, Connections]]
) -> None:
    (first, at_first), _ = pools
    async with first.lease(call(at_first)):
        assert len(at_first.open) == 1
    assert not any(isinstance(event, ConnectionAwaited) for event in world.events)


async def test_without_an_answer_no_connection_is_opened_and_nothing_was_tried(
    world: World, pools: list[tuple[Pool, Connections]]
) -> None:
    (first, at_first), _ = pools
    world.supervisor.all[0].to_worker.stopped = True
    waiting = asyncio.create_task(first.lease(call(at_first)).__aenter__())
    await world.clock.advance(SILENCE + LOOK)
    with pytest.raises(ConnectLater) as caught:
        await waiting
    assert caught.value.seconds == COME_AGAIN
    assert not at_first.made


# Clients --------------------------------------------------------------------------------------------------------------


async def test_clients_are_counted_over_workers_and_those_of_each_kind_for_themselves(world: World) -> None:
    first, second = (shares.clients("submission", 3, 2) for shares in world.shares)
    assert first is not None
    assert second is not None
    assert await first.enter("remote", "a") is None
    assert await second.enter("remote", "a") is None
    assert await first.enter("remote", "a") == TurnedAway("it has 2 connections already (max_client_connections)")
    assert await first.enter("remote", "b") is None
    assert await second.enter("remote", "c") == TurnedAway("there are 3 connections already (max_connections)")
    assert await second.enter("local", "a") is None
    first.leave("remote", "a")
    assert await second.enter("remote", "c") is None, "nothing is kept free for those who were refused"


async def test_a_client_that_cannot_be_counted_is_not_said_to_be_one_too_many(world: World) -> None:
    clients = world.shares[0].clients("submission", 3, 2)
    world.supervisor.all[0].to_worker.stopped = True
    refused = asyncio.create_task(clients.enter("remote", "a"))
    await world.clock.advance(SILENCE + LOOK)
    reason = "connections cannot be counted now: the supervisor does not answer"
    assert await refused == TurnedAway(reason, is_counted=False)


# What is known together -----------------------------------------------------------------------------------------------


async def test_where_tls_fails_and_where_it_works_again_all_workers_know(world: World) -> None:
    first, second = (FallbackMemory(world.clock, each.client, "target x") for each in world.supervisor.all)
    other = FallbackMemory(world.clock, world.supervisor.all[1].client, "target y")
    literal = AddressLiteral.parse("[192.0.2.9]")
    broken = problem("bad certificate")
    for next_hop in (A, literal):
        first.failed("192.0.2.1", next_hop, broken)
    await world.clock.advance(0)
    assert [second.recall("192.0.2.1", next_hop) for next_hop in (A, literal)] == [broken, broken]
    assert other.recall("192.0.2.1", A) is None
    second.worked("192.0.2.1", A)
    await world.clock.advance(0)
    assert first.recall("192.0.2.1", A) is None
    assert first.recall("192.0.2.1", literal) == broken


async def test_who_starts_later_knows_where_tls_fails_for_as_long_as_the_others(world: World) -> None:
    first = FallbackMemory(world.clock, world.supervisor.all[0].client, "target x")
    broken = problem("bad certificate")
    first.failed("192.0.2.1", A, broken)
    await world.clock.advance(REMEMBERED - 1)
    client = world.supervisor.start().client
    await world.clock.advance(0)
    late = FallbackMemory(world.clock, client, "target x")
    assert late.recall("192.0.2.1", A) == broken
    await world.clock.advance(1)
    assert late.recall("192.0.2.1", A) is None


async def test_what_is_known_of_tls_is_told_when_it_is_news(world: World) -> None:
    worker = world.supervisor.all[0]
    memory = FallbackMemory(world.clock, worker.client, "target x")
    for _ in range(10):
        memory.failed("192.0.2.1", A, problem("bad certificate"))
        memory.worked("192.0.2.2", A)
    await world.clock.advance(0)
    assert worker.to_supervisor.frames == 1


async def test_who_starts_later_does_not_ask_for_a_policy_that_could_not_be_fetched(world: World) -> None:
    policies = Policies()
    policies.announce("id1")
    async with policies.source(failures=SharedFailures(world.supervisor.all[0].client, "target x")) as first:
        failed = await first.lookup(EXAMPLE)
    await world.clock.advance(0)
    policies.serve(text())
    client = world.supervisor.start().client
    await world.clock.advance(0)
    async with policies.source(failures=SharedFailures(client, "target x")) as late:
        assert (await late.lookup(EXAMPLE)).error == failed.error
    assert policies.fetches() == 1


async def test_a_policy_that_one_worker_could_not_fetch_the_others_do_not_ask_for(world: World) -> None:
    policies = Policies()
    policies.announce("id1")
    first, second = (SharedFailures(each.client, "target x") for each in world.supervisor.all)
    async with policies.source(failures=first) as one, policies.source(failures=second) as other:
        failed = await one.lookup(EXAMPLE)
        await world.clock.advance(0)
        policies.serve(text())
        found = await other.lookup(EXAMPLE)
        assert found.policy is None
        assert found.error == failed.error
    assert policies.fetches() == 1
