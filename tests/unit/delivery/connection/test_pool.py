"""The pool carries out what its state decide; nothing leaks, whatever is cancelled and whenever."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.delivery.connection.connect import ConnectRequest
from mailrider.delivery.connection.pool import SHUTDOWN_TIME, Pool
from mailrider.delivery.connection.pool_state import PoolLimits
from mailrider.delivery.connection.unusable import Unusable
from mailrider.delivery.destination import Budget
from mailrider.model.domain import Domain
from mailrider.model.event import ConnectionAwaited, ConnectionClosed, ConnectionReused, Event
from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply
from mailrider.model.route import Candidate
from mailrider.model.security import NO_REQUIREMENT, NO_SECURITY, MXLevel, Refusal
from mailrider.policy.judge import Judgement
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable

    from mailrider.delivery.connection.pool import PooledLease

LIMITS = PoolLimits(reuse=10, idle_count=10, idle_time=150.0, per_endpoint=2, total=4, wait=300.0)
GOOD = Judgement(NO_SECURITY, None, None)
BAD = Judgement(NO_SECURITY, None, Refusal("dane", 451, "4.7.1", "no"))
REFUSED = Unusable(TryResult.CONNECT, Reply.make(451, "4.4.1", "refused"))


@dataclass(frozen=True)
class FakePeer:
    name: str = "mx.test"
    address: str = "192.0.2.1"


class FakeSession:
    """A connection that knows what was done with it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.peer = FakePeer()
        self.transactions = 0
        self.max_transactions = None
        self.is_encrypted = False
        self.is_alive = True
        self.farewells: list[str] = []
        self.changed: Callable[[], object] = lambda: None

    def on_change(self, callback: Callable[[], object]) -> None:
        self.changed = callback

    async def quit(self) -> None:
        self.farewells.append("quit")
        try:
            await self.world.farewell_read.wait()
        except asyncio.CancelledError:
            self.abort()
            raise
        self.close()

    def abort(self) -> None:
        self.farewells.append("abort")
        self.close()

    def close(self) -> None:
        self.is_alive = False
        self.world.open.discard(self)

    def lose(self) -> None:
        """The server closes it."""
        self.close()
        self.changed()


@dataclass
class World:
    """A connector, and all connections that it made."""

    clock: FakeClock = field(default_factory=FakeClock)
    events: list[Event] = field(default_factory=list)
    open: set[FakeSession] = field(default_factory=set)
    made: list[FakeSession] = field(default_factory=list)
    farewell_read: asyncio.Event = field(default_factory=asyncio.Event)
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    judgement: Judgement = GOOD
    kept_is_good: bool = True
    opening: int = 0
    most: int = 0

    def __post_init__(self) -> None:
        self.farewell_read.set()
        self.connected.set()

    async def open_(self, call: ConnectRequest) -> FakeSession:
        self.opening += 1
        self.most = max(self.most, self.opening + len(self.open))
        try:
            await self.connected.wait()
            await asyncio.sleep(0)
            if self.failure is not None:
                raise self.failure
        finally:
            self.opening -= 1
        session = FakeSession(self)
        self.made.append(session)
        self.open.add(session)
        self.most = max(self.most, self.opening + len(self.open))
        return session


class FakeConnector:
    """See `connect.Connector`."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def open(self, call: ConnectRequest) -> FakeSession:
        return await self.world.open_(call)

    def judge(self, call: ConnectRequest, session: FakeSession) -> Judgement:
        return self.world.judgement

    def judge_kept(self, call: ConnectRequest, session: FakeSession, opened_for: Hashable) -> Judgement | None:
        return GOOD if self.world.kept_is_good else None

    def announce(self, call: ConnectRequest, session: FakeSession, judgement: Judgement) -> None:
        pass


def make_pool(world: World, limits: PoolLimits = LIMITS) -> Pool:
    return Pool(cast("Any", FakeConnector(world)), limits, world.clock, world.events.append)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def pool(world: World) -> AsyncIterator[Pool]:
    async with make_pool(world) as pool:
        yield pool
    assert not world.open, "everything is closed at the end"
    assert world.clock.pending == 0, "no timer is left"
    assert asyncio.all_tasks() == {asyncio.current_task()}, "nor a task"


def call(world: World, next_hop: str = "a.test", mx: str = "mx.test") -> ConnectRequest:
    budget = Budget(world.clock, 300.0)
    address = IPv4Address("192.0.2.1")
    return ConnectRequest(
        Domain(next_hop), Candidate(Domain(mx)), address, NO_REQUIREMENT, MXLevel.NONE, budget, lambda _: None
    )


async def deliver(pool: Pool, world: World, **arguments: str) -> FakeSession:
    """One clean transaction."""
    async with pool.lease(call(world, **arguments)) as lease:
        session = cast("FakeSession", lease.session)
        session.transactions += 1
        return session


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Holder:
    """A task that leases a connection and keeps it until it is told to let go."""

    def __init__(self, pool: Pool, world: World, *, fresh: bool = False, mx: str = "mx.test") -> None:
        self.let_go = asyncio.Event()
        self.lease: PooledLease | None = None
        self._lease = pool.lease(call(world, mx=mx), fresh=fresh)
        self.task = asyncio.ensure_future(self._hold())

    async def _hold(self) -> None:
        async with self._lease as self.lease:
            self.lease.session.transactions += 1
            await self.let_go.wait()

    async def done(self) -> None:
        self.let_go.set()
        await self.task


async def has_all_its_places(pool: Pool, world: World) -> bool:
    """Nothing is left of earlier connections: as many are opened at once as the limits allow."""
    world.failure, before = None, len(world.made)
    world.connected.set()
    names = [f"mx{number // LIMITS.per_endpoint}.other.test" for number in range(LIMITS.total)]
    holders = [Holder(pool, world, mx=name) for name in names]
    await settle()
    opened = len(world.made) - before
    for holder in holders:
        holder.let_go.set()
        if holder.lease is None:
            holder.task.cancel()  # it would wait for ever
    await asyncio.wait([holder.task for holder in holders])
    return opened == LIMITS.total == world.most


def reasons(world: World) -> list[str]:
    return [event.reason for event in world.events if isinstance(event, ConnectionClosed)]


# Reuse ----------------------------------------------------------------------------------------------------------------


async def test_a_connection_is_used_again(pool: Pool, world: World) -> None:
    first = await deliver(pool, world)
    assert await deliver(pool, world) is first
    assert world.events == [ConnectionReused("mx.test", "192.0.2.1", 1)]


async def test_a_lease_says_whether_the_connection_was_used_before(pool: Pool, world: World) -> None:
    async with pool.lease(call(world)) as lease:
        assert not lease.reused
    async with pool.lease(call(world)) as lease:
        assert lease.reused


async def test_leasing_a_kept_connection_needs_no_turn_of_the_event_loop_no_task_and_no_timer(
    pool: Pool, world: World
) -> None:
    await deliver(pool, world)
    timers = world.clock.pending
    lease = pool.lease(call(world))
    for step in (lease.__aenter__(), lease.__aexit__(None, None, None)):
        with pytest.raises(StopIteration):
            step.send(None)
    assert world.clock.pending == timers == 1
    assert len(asyncio.all_tasks()) == 1


async def test_fresh_never_reuses(pool: Pool, world: World) -> None:
    first = await deliver(pool, world)
    async with pool.lease(call(world), fresh=True) as lease:
        assert lease.session is not cast("Any", first)
        assert not lease.reused


async def test_a_kept_connection_that_is_not_good_enough_is_not_lent(pool: Pool, world: World) -> None:
    first = await deliver(pool, world)
    world.kept_is_good = False
    assert await deliver(pool, world) is not first
    assert first.is_alive


async def test_a_new_connection_that_is_not_good_enough_is_closed_when_the_lease_ends(pool: Pool, world: World) -> None:
    world.judgement = BAD
    async with pool.lease(call(world)) as lease:
        assert lease.judgement is BAD
    await settle()
    assert not world.open
    assert reasons(world) == ["it did not prove what the message demands"]


async def test_one_that_was_given_up_is_closed(pool: Pool, world: World) -> None:
    async with pool.lease(call(world)) as lease:
        lease.give_up()
    await settle()
    assert world.made[0].farewells == ["quit"]
    assert not world.open


async def test_an_exception_inside_closes_the_connection(pool: Pool, world: World) -> None:
    async def fail() -> None:
        async with pool.lease(call(world)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await settle()
    assert not world.open


async def test_after_as_many_transactions_as_it_may_a_connection_is_closed(world: World) -> None:
    async with make_pool(world, PoolLimits(3, 10, 150.0)) as pool:
        sessions = [await deliver(pool, world) for _ in range(4)]
        assert sessions[0] is sessions[1] is sessions[2] is not sessions[3]
        await settle()
        assert sessions[0].farewells == ["quit"]


async def test_a_connection_that_cannot_be_opened_leaves_nothing(pool: Pool, world: World) -> None:
    world.failure = REFUSED
    for _ in range(10):
        with pytest.raises(Unusable):
            await deliver(pool, world)
    assert await has_all_its_places(pool, world)


async def test_a_judge_that_fails_leaves_nothing(pool: Pool, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Judgement:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(pool.connector, "judge", fail)
        with pytest.raises(ZeroDivisionError):
            await deliver(pool, world)
    assert not world.open
    assert await has_all_its_places(pool, world)


# Time and servers -----------------------------------------------------------------------------------------------------


async def test_an_idle_connection_is_closed_with_quit_in_time(pool: Pool, world: World) -> None:
    first = await deliver(pool, world)
    await world.clock.advance(149.9)
    assert first.is_alive
    await world.clock.advance(0.1)
    assert first.farewells == ["quit"]
    assert reasons(world) == ["it was idle long enough"]
    assert world.clock.pending == 0


async def test_each_use_begins_the_idle_time_anew(pool: Pool, world: World) -> None:
    first = await deliver(pool, world)
    for _ in range(5):
        await world.clock.advance(100.0)
        assert await deliver(pool, world) is first
    await world.clock.advance(150.0)
    assert first.farewells == ["quit"]


async def test_one_timer_serves_all_connections(world: World) -> None:
    async with make_pool(world, PoolLimits(10, 10, 150.0)) as pool:
        holders = [Holder(pool, world, mx=f"mx{number}.test") for number in range(5)]
        await settle()
        for holder in holders:
            await holder.done()
            await world.clock.advance(1.0)
        assert world.clock.pending == 1
        await world.clock.advance(146.0)
        assert len(world.open) == 3
        await world.clock.advance(3.0)
        assert not world.open


async def test_what_the_server_does_to_an_idle_connection_is_noticed_at_once(pool: Pool, world: World) -> None:
    first = await deliver(pool, world)
    first.lose()
    assert await has_all_its_places(pool, world)
    assert reasons(world) == ["the server closed it while it was idle"]
    assert await deliver(pool, world) is not first


async def test_news_on_a_connection_in_use_are_its_users(pool: Pool, world: World) -> None:
    async with pool.lease(call(world)) as lease:
        session = cast("FakeSession", lease.session)
        session.changed()
        assert reasons(world) == []


# Waiting --------------------------------------------------------------------------------------------------------------


async def test_no_more_connections_than_a_host_may_have(pool: Pool, world: World) -> None:
    holders = [Holder(pool, world) for _ in range(6)]
    await settle()
    assert len(world.open) == 2
    for holder in holders:
        await holder.done()
    assert len(world.made) == 2
    waits = [event for event in world.events if isinstance(event, ConnectionAwaited)]
    assert len(waits) == 4


async def test_a_connection_given_back_serves_who_waits(pool: Pool, world: World) -> None:
    one, _, three = holders = [Holder(pool, world) for _ in range(3)]
    await settle()
    assert three.lease is None
    await one.done()
    await settle()
    assert three.lease is not None
    assert three.lease.session is world.made[0]
    assert three.lease.reused
    for holder in holders:
        await holder.done()


async def test_one_that_does_not_fit_who_waits_is_closed_and_a_new_one_opened_only_then(
    pool: Pool, world: World
) -> None:
    one, _, three = holders = [Holder(pool, world) for _ in range(3)]
    await settle()
    world.kept_is_good = False
    world.farewell_read.clear()
    await one.done()
    await settle()
    assert three.lease is None, "the server still counts the one that is closing"
    world.farewell_read.set()
    await settle()
    assert three.lease is not None
    assert not three.lease.reused
    assert world.most == 2
    for holder in holders:
        await holder.done()


async def test_a_failed_opening_makes_room_for_who_waits(pool: Pool, world: World) -> None:
    world.connected.clear()
    holders = [Holder(pool, world) for _ in range(3)]
    await settle()
    world.failure = REFUSED
    world.connected.set()
    await settle()
    for holder in holders:
        with pytest.raises(Unusable):
            await holder.done()
    assert await has_all_its_places(pool, world)


async def test_who_waits_too_long_is_told(pool: Pool, world: World) -> None:
    holders = [Holder(pool, world) for _ in range(3)]
    await settle()
    await world.clock.advance(299.0)
    assert not holders[2].task.done()
    await world.clock.advance(1.0)
    with pytest.raises(Unusable, match=r"All connections to mx.test \[192.0.2.1\] were busy for 300 s") as caught:
        await holders[2].task
    assert (caught.value.reply.code, str(caught.value.reply.enhanced)) == (451, "4.4.5")
    for holder in holders[:2]:
        await holder.done()


# Cancellation ---------------------------------------------------------------------------------------------------------


async def test_cancelled_while_it_waits(pool: Pool, world: World) -> None:
    one, two, three, four = (Holder(pool, world) for _ in range(4))
    await settle()
    three.task.cancel()
    await settle()
    await one.done()
    await settle()
    assert four.lease is not None
    await two.done()
    await four.done()


async def test_cancelled_in_the_very_turn_in_which_it_is_granted(pool: Pool, world: World) -> None:
    async with pool.lease(call(world)):
        two, three, four = (Holder(pool, world) for _ in range(3))
        await settle()
    three.task.cancel()  # it has been granted the connection, and has not had its turn
    await settle()
    assert three.task.cancelled()
    assert four.lease is not None
    assert cast("Any", four.lease.session) is world.made[0]
    await two.done()
    await four.done()


async def test_granted_after_it_was_cancelled_and_before_it_knows(pool: Pool, world: World) -> None:
    async with pool.lease(call(world)):
        two, three, four = (Holder(pool, world) for _ in range(3))
        await settle()
        three.task.cancel()
    await settle()
    assert three.task.cancelled()
    assert four.lease is not None
    assert cast("Any", four.lease.session) is world.made[0]
    await two.done()
    await four.done()


async def test_granted_the_right_to_open_after_it_was_cancelled(pool: Pool, world: World) -> None:
    one, two, three, four = (Holder(pool, world) for _ in range(4))
    await settle()
    assert one.lease is not None
    one.lease.give_up()
    await one.done()
    three.task.cancel()
    await settle()
    assert four.lease is not None
    assert not four.lease.reused
    await two.done()
    await four.done()


@pytest.mark.parametrize("turns", range(6))
async def test_cancelled_at_any_turn_of_opening_or_holding(pool: Pool, world: World, turns: int) -> None:
    holder = Holder(pool, world)
    for _ in range(turns):
        await asyncio.sleep(0)
    holder.task.cancel()
    await settle()
    assert holder.task.cancelled()
    assert not world.open
    assert await has_all_its_places(pool, world)


@given(
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("lease"), st.booleans(), st.sampled_from(["one.test", "two.test", "three.test"])),
            st.tuples(
                st.sampled_from(["done", "cancel", "give up", "lose", "turn", "bad", "good", "slow", "quick", "time"]),
                st.integers(0, 9),
                st.just(""),
            ),
        ),
        max_size=60,
    )
)
def test_whatever_happens_no_limit_is_broken_and_nothing_leaks(moves: list[tuple[str, int, str]]) -> None:
    asyncio.run(_play(moves))
    gc.collect()  # a future whose exception nobody took would complain, and warnings are errors


async def _play(moves: list[tuple[str, int, str]]) -> None:
    world = World()
    holders: list[Holder] = []
    async with make_pool(world) as pool:
        for kind, number, mx in moves:
            await _move(world, pool, holders, kind, number, mx)
            assert len(world.open) + world.opening <= LIMITS.total
        world.farewell_read.set()
        world.connected.set()
        for holder in holders:
            holder.let_go.set()
        for _ in holders:
            await settle()  # one after the other
        for holder in holders:
            assert holder.task.done(), "nobody waits for ever"
            if not holder.task.cancelled() and holder.task.exception() is not None:
                assert isinstance(holder.task.exception(), Unusable)
        world.judgement, world.kept_is_good = GOOD, True
        assert await has_all_its_places(pool, world)
    assert not world.open
    assert world.most <= LIMITS.total
    assert world.clock.pending == 0


async def _move(world: World, pool: Pool, holders: list[Holder], kind: str, number: int, mx: str) -> None:
    holder = holders[number % len(holders)] if holders and not mx else None
    match kind:
        case "lease":
            holders.append(Holder(pool, world, fresh=bool(number), mx=mx))
        case "done" if holder is not None:
            holder.let_go.set()
        case "cancel" if holder is not None:
            holder.task.cancel()
        case "give up" if holder is not None and holder.lease is not None:
            holder.lease.give_up()
        case "lose" if world.open:
            sorted(world.open, key=world.made.index)[number % len(world.open)].lose()
        case "turn":
            for _ in range(number):
                await asyncio.sleep(0)
        case "bad" | "good":
            world.kept_is_good = kind == "good"
        case "slow" | "quick":
            for event in (world.farewell_read, world.connected)[: 1 + number % 2]:
                event.set() if kind == "quick" else event.clear()
        case "time":
            await world.clock.advance(number * 20.0)
        case _:
            pass  # there is nobody to do it to


# The end --------------------------------------------------------------------------------------------------------------


async def test_at_the_end_idle_connections_are_closed_with_quit(world: World) -> None:
    async with make_pool(world) as pool:
        first = await deliver(pool, world)
    assert first.farewells == ["quit"]
    assert reasons(world) == ["shutdown"]


async def test_at_the_end_who_waits_is_told(world: World) -> None:
    async with make_pool(world) as pool:
        holders = [Holder(pool, world) for _ in range(3)]
        await settle()
        closing = asyncio.ensure_future(pool.__aexit__())
        await settle()
        with pytest.raises(Unusable, match="shutting down"):
            await holders[2].task
        for holder in holders[:2]:
            await holder.done()
        await closing
    assert not world.open


async def test_after_the_end_nothing_is_leased(world: World) -> None:
    async with make_pool(world) as pool:
        pass
    with pytest.raises(Unusable, match="shutting down"):
        await deliver(pool, world)
    assert not world.made


async def test_connections_in_use_may_finish_within_a_bound(world: World) -> None:
    async with make_pool(world) as pool:
        holder = Holder(pool, world)
        await settle()
        closing = asyncio.ensure_future(pool.__aexit__())
        await world.clock.advance(SHUTDOWN_TIME - 0.1)
        assert not closing.done()
        assert world.open
        await world.clock.advance(0.1)
        await closing
        assert not world.open
        assert world.made[0].farewells == ["abort"]
        await holder.done()


async def test_a_server_that_does_not_answer_quit_holds_nothing_up_for_long(world: World) -> None:
    async with make_pool(world) as pool:
        await deliver(pool, world)
        world.farewell_read.clear()
        closing = asyncio.ensure_future(pool.__aexit__())
        await world.clock.advance(SHUTDOWN_TIME)
        await closing
        await settle()
    assert not world.open


async def test_what_is_being_opened_at_the_end_is_closed_at_once(world: World) -> None:
    async with make_pool(world) as pool:
        world.connected.clear()
        holder = Holder(pool, world)
        await settle()
    world.connected.set()
    with pytest.raises(Unusable, match="shutting down"):
        await holder.task
    assert not world.open
