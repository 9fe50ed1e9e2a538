"""Places for attempts over several workers: never more than the queue has, and nobody without while others idle."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.app.queue_shares import WorkerQueueShares, queue_shares
from mailrider.delivery.limits.shares import Shares
from mailrider.model.reply import Reply
from mailrider.queue.shares import ALONE
from mailrider.testing.clock import FakeClock
from tests.support.loops import run_clean
from tests.support.shared import SharedSupervisor

if TYPE_CHECKING:
    from collections.abc import Sequence

REPLY = Reply.make(451, "4.4.1", "no")


class Deliverer:
    """A member: attempts that begin when there is a place and something to do."""

    def __init__(self, world: World, shares: WorkerQueueShares) -> None:
        self.world = world
        self.shares = shares
        self.places = 0
        self.attempts = 0
        self.backlog = 0
        self.heard: list[tuple[str, float | None]] = []
        shares.join(self)

    def set_parallelism(self, attempts: int) -> None:
        self.places = attempts
        asyncio.get_running_loop().call_soon(self.begin)

    def rest(self, destination: str, seconds: float) -> None:
        self.heard.append((destination, seconds))

    def resume(self, destination: str) -> None:
        self.heard.append((destination, None))

    def resume_all(self) -> None:
        self.heard.append(("*", None))

    def add(self, messages: int) -> None:
        """There is something to do."""
        self.backlog += messages
        self.begin()

    def begin(self) -> None:
        while self.backlog and self.attempts < self.places:
            self.backlog -= 1
            self.attempts += 1
            self.world.check()
        if self.backlog:
            self.shares.wants(self)

    def end(self, attempts: int = 1) -> None:
        """So many attempts end."""
        for _ in range(min(attempts, self.attempts)):
            self.attempts -= 1
            self.begin()


class World:
    """A queue with so many places, and workers."""

    def __init__(self, places: int, workers: int) -> None:
        self.clock = FakeClock()
        self.places = places
        self.supervisor = SharedSupervisor(self.clock, workers)
        self.all: list[Deliverer] = []
        self.shares = [WorkerQueueShares(worker.client, self.clock, "queue", places) for worker in self.supervisor.all]
        for shares in self.shares:
            self.all.append(Deliverer(self, shares))

    def check(self) -> None:
        assert sum(each.attempts for each in self.all) <= self.places


async def test_each_worker_has_its_part_from_the_beginning() -> None:
    world = World(16, 4)
    await world.clock.advance(0)
    assert [each.places for each in world.all] == [4, 4, 4, 4]


async def test_one_that_is_busy_gets_what_the_others_do_not_use() -> None:
    world = World(16, 4)
    world.all[0].add(100)
    await world.clock.advance(1)
    assert world.all[0].attempts == 13, "each keeps a place for what comes"
    world.all[1].add(100)
    await world.clock.advance(0)
    assert world.all[1].attempts == 1
    for _ in range(40):
        world.all[0].end()
        world.all[1].end()
        await world.clock.advance(0.1)
    assert world.all[1].attempts >= 4
    assert world.all[0].attempts + world.all[1].attempts == 14


async def test_what_is_beyond_its_part_goes_back_when_it_is_not_used() -> None:
    world = World(16, 4)
    world.all[0].add(16)
    await world.clock.advance(1)
    world.all[0].end(16)
    await world.clock.advance(5)
    assert world.all[0].places == 4


@pytest.mark.parametrize("places", [1, 3])
async def test_where_there_are_fewer_places_than_workers_they_take_turns(places: int) -> None:
    world = World(places, 4)
    done = [0, 0, 0, 0]
    for each in world.all:
        each.add(1000)
    for _ in range(400):
        await world.clock.advance(0.1)
        for number, each in enumerate(world.all):
            if each.attempts:
                done[number] += each.attempts
                each.end(each.attempts)
    assert sum(done) > 300 * places
    assert min(done) > sum(done) / 8


async def test_a_worker_that_dies_leaves_its_places_to_the_others() -> None:
    world = World(16, 2)
    await world.clock.advance(0)
    world.all[0].add(100)
    await world.clock.advance(1)
    dead = world.all.pop(0)
    dead.backlog = 0
    world.supervisor.end(world.supervisor.all[0])
    world.all[0].add(100)
    await world.clock.advance(1)
    assert world.all[0].attempts == 16


async def test_who_leaves_keeps_the_places_of_what_still_runs() -> None:
    world = World(4, 2)
    await world.clock.advance(0)
    old, other = world.all
    old.add(4)
    await world.clock.advance(1)
    assert old.attempts == 3
    old.backlog = 0
    old.shares.leave(old)
    other.add(10)
    await world.clock.advance(1)
    assert other.attempts == 1
    old.end(2)
    await world.clock.advance(1)
    assert other.attempts == 3


async def test_members_in_one_worker_share_its_places() -> None:
    world = World(8, 2)
    further = Deliverer(world, world.shares[0])
    world.all.append(further)
    await world.clock.advance(0)
    first = world.all[0]
    first.add(100)
    await world.clock.advance(1)
    assert first.attempts == 7
    further.add(3)
    for _ in range(20):
        first.end()
        await world.clock.advance(0.1)
    assert further.attempts == 3


async def test_what_one_learns_of_destinations_all_others_hear() -> None:
    world = World(4, 2)
    further = Deliverer(world, world.shares[0])
    first, second = world.all
    first.shares.went_down(first, "a.test", 30.0, REPLY)
    first.shares.came_back(first, "b.test")
    await world.clock.advance(0)
    assert first.heard == []
    assert second.heard == further.heard == [("a.test", 30.0), ("b.test", None)]


async def test_who_starts_later_leaves_alone_what_is_down_for_as_long_as_the_others() -> None:
    world = World(4, 2)
    first, _ = world.all
    first.shares.went_down(first, "a.test", 30.0, REPLY)
    first.shares.went_down(first, "b.test", 30.0, REPLY)
    first.shares.came_back(first, "b.test")
    await world.clock.advance(10)
    shares = WorkerQueueShares(world.supervisor.start().client, world.clock, "queue", 4)
    await world.clock.advance(0)
    assert Deliverer(world, shares).heard == [("a.test", 20.0)]


async def test_after_a_retry_nothing_is_down_for_the_others_nor_for_who_starts_later() -> None:
    world = World(4, 2)
    first, second = world.all
    first.shares.went_down(first, "a.test", 30.0, REPLY)
    second.shares.went_down(second, "b.test", 30.0, REPLY)
    await world.clock.advance(0)
    first.heard.clear()
    second.heard.clear()
    frames = world.supervisor.all[1].to_supervisor.frames
    first.shares.reopened(first)
    await world.clock.advance(0)
    second.shares.reopened(second)
    await world.clock.advance(0)
    assert (first.heard, second.heard) == ([], [("*", None)])
    assert world.supervisor.all[1].to_supervisor.frames == frames, "the other one has told it already"
    shares = WorkerQueueShares(world.supervisor.start().client, world.clock, "queue", 4)
    await world.clock.advance(0)
    assert Deliverer(world, shares).heard == []


async def test_one_process_has_nobody_to_ask() -> None:
    clock = FakeClock()
    assert queue_shares(Shares(clock), clock, "queue", 16) is ALONE


@pytest.mark.parametrize("places", [1, 2, 16])
async def test_shards_that_one_process_delivers_from_share_its_places(places: int) -> None:
    world = World(places, 1)
    world.all.clear()
    shares = queue_shares(Shares(world.clock), world.clock, "queue", places, members=3)
    assert isinstance(shares, WorkerQueueShares)
    members = [Deliverer(world, shares) for _ in range(3)]
    world.all += members
    members[0].add(places + 1)
    await world.clock.advance(1)
    assert members[0].attempts == places, "nobody else wants any"
    for each in members[1:]:
        each.add(5)
    began = [0, 0, 0]
    for _ in range(40):
        for number, each in enumerate(members):
            began[number] += each.attempts
            each.end(each.attempts)
        await world.clock.advance(0.1)
    assert [each.backlog for each in members] == [0, 0, 0]
    assert all(began)
    shares.went_down(members[0], "a.test", 30.0, REPLY)
    assert [each.heard for each in members] == [[], [("a.test", 30.0)], [("a.test", 30.0)]]


@given(
    places=st.integers(1, 6),
    story=st.lists(
        st.tuples(st.sampled_from(["add", "end", "end", "wait"]), st.integers(0, 2), st.integers(1, 5)), max_size=40
    ),
)
def test_there_are_never_more_attempts_than_places_and_all_mail_goes_out(
    places: int, story: Sequence[tuple[str, int, int]]
) -> None:
    async def play() -> None:
        world = World(places, 3)
        for what, number, amount in story:
            if what == "wait":
                await world.clock.advance(amount / 4)
            else:
                getattr(world.all[number], what)(amount)
        for _ in range(300):
            if not any(each.attempts or each.backlog for each in world.all):
                break
            for each in world.all:
                each.end(1)
            await world.clock.advance(0.1)
        assert not any(each.attempts or each.backlog for each in world.all)

    run_clean("asyncio", play())
