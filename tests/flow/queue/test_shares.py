"""What processes that serve one queue know together: two schedulers with one store, which meet in memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from mailrider.model.queue_event import DestinationDown
from mailrider.queue.bounces import BouncePolicy, Bounces
from mailrider.queue.message import EVERYTHING
from mailrider.queue.service import DeliveryQueue
from mailrider.queue.shares import ALONE, QueueShares
from mailrider.queue.store import QueueCommand
from mailrider.queue.work import Work
from mailrider.testing.store import MemoryStore
from tests.flow.queue.test_scheduler import ORIGIN, Network, World, submit
from tests.support.queueing import delivered, unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mailrider.model.reply import Reply
    from mailrider.queue.shares import DeliveringProcess


class Meeting(QueueShares):
    """Members in one process, each told what the others learn."""

    def __init__(self) -> None:
        self.members: list[DeliveringProcess] = []
        self.reopenings: list[DeliveringProcess] = []

    def join(self, member: DeliveringProcess) -> None:
        self.members.append(member)

    def leave(self, member: DeliveringProcess) -> None:
        if member in self.members:
            self.members.remove(member)

    def wants(self, member: DeliveringProcess) -> None:
        """All have as many as they want."""

    def went_down(self, member: DeliveringProcess, destination: str, seconds: float, reply: Reply) -> None:
        for each in self.members:
            if each is not member:
                each.rest(destination, seconds)

    def came_back(self, member: DeliveringProcess, destination: str) -> None:
        for each in self.members:
            if each is not member:
                each.resume(destination)

    def reopened(self, member: DeliveringProcess) -> None:
        self.reopenings.append(member)


@asynccontextmanager
async def member(world: World, network: Network, shares: QueueShares) -> AsyncIterator[DeliveryQueue]:
    bounces = Bounces(BouncePolicy(ORIGIN, False, lambda _: ""), world.ids, world.tell)
    work = Work({"": network}, world.rules, bounces, world.parallelism, grace=0.0, shares=shares)
    store = MemoryStore(world.shared)
    async with DeliveryQueue(store, work, world.ids, world.clock, world.rng, world.tell) as queue:
        yield queue


@pytest.mark.parametrize("shares", [Meeting(), ALONE], ids=["together", "alone"])
async def test_what_one_process_finds_out_of_reach_the_others_do_not_try(shares: QueueShares) -> None:
    world = World()
    first, second = Network(world.clock), Network(world.clock)
    first.behaviour["down.example"] = second.behaviour["down.example"] = unreachable
    async with member(world, first, shares) as one, member(world, second, shares) as other:
        await submit(one, "b@down.example")
        await world.clock.advance(0)
        await submit(other, "c@down.example")
        await world.clock.advance(0)
        assert len(first.seen) == 1
        assert len(second.seen) == (0 if isinstance(shares, Meeting) else 1)
        assert len(world.happened(DestinationDown)) == len(first.seen) + len(second.seen)


@pytest.mark.parametrize(
    "told",
    [lambda member: member.resume("back.example"), lambda member: member.resume_all()],
    ids=["that one answers", "to retry all"],
)
async def test_what_rests_goes_on_when_another_process_says_so(told: Callable[[DeliveringProcess], object]) -> None:
    world, meeting = World(), Meeting()
    network = Network(world.clock)
    network.behaviour["back.example"] = delivered
    async with member(world, network, meeting) as queue:
        (scheduler,) = meeting.members
        scheduler.rest("back.example", 600.0)
        await submit(queue, "b@back.example")
        await world.clock.advance(60)
        assert network.seen == []
        told(scheduler)
        await world.clock.advance(0)
        assert network.destinations() == ["back.example"]
    assert meeting.members == []


@pytest.mark.parametrize(("command", "tells"), [(QueueCommand.RETRY, 1), (QueueCommand.RELEASE, 0)])
async def test_a_retry_is_told_to_the_others_so_that_nothing_is_down_any_more(
    command: QueueCommand, tells: int
) -> None:
    world, meeting = World(), Meeting()
    async with member(world, Network(world.clock), meeting) as queue:
        await queue.command(command, EVERYTHING)
        assert meeting.reopenings == meeting.members * tells


async def test_how_many_run_at_once_may_be_changed() -> None:
    world, meeting = World(parallelism=2), Meeting()
    network = Network(world.clock)
    network.gates = {f"d{number}.example": asyncio.Event() for number in range(10)}
    await world.fill(*(f"b@{name}" for name in network.gates))
    async with member(world, network, meeting) as queue:
        await world.clock.advance(0)
        assert network.running == 2
        (scheduler,) = meeting.members
        scheduler.set_parallelism(4)
        await world.clock.advance(0)
        assert network.running == 4
        for gate in network.gates.values():
            gate.set()
        await queue.idle()
    assert network.most == 4
