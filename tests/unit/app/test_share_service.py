"""Shares over a link: what a worker asks of its supervisor, and what it does when there is no answer."""

from __future__ import annotations

import asyncio

import pytest

from mailrider.delivery.limits.book import COME_AGAIN
from mailrider.delivery.limits.findings import SharedFinding
from mailrider.delivery.limits.leases import UNUSED
from mailrider.delivery.limits.lines import AskLater, Line
from mailrider.delivery.limits.share_client import LOOK, SILENCE, ShareClient
from mailrider.testing.clock import FakeClock
from tests.support.shared import MemoryWire, SharedSupervisor, SharedWorker

ONE = Line("one", 1)
MANY = Line("many", 100)
RATE = Line("rate", 2, 60.0)
ONE_OF_A, MANY_OF_A, RATE_OF_A = ("one", "a"), ("many", "a"), ("rate", "a")


class World:
    """Two workers, both of which count by the same lines."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.supervisor = SharedSupervisor(self.clock)
        self.first, self.second = self.supervisor.all
        for worker in self.supervisor.all:
            self.declare(worker)

    def declare(self, worker: SharedWorker) -> None:
        """The lines."""
        for line in (ONE, MANY, RATE):
            worker.client.declare(line)

    async def settle(self) -> None:
        """All that is under way arrives."""
        await self.clock.advance(0)


@pytest.fixture
async def world() -> World:
    """See `World`."""
    return World()


async def test_what_one_worker_has_another_cannot_have(world: World) -> None:
    assert await world.first.client.enter([ONE_OF_A]) is None
    refused = await world.second.client.enter([ONE_OF_A])
    assert refused == AskLater(ONE_OF_A, COME_AGAIN)
    world.first.client.leave([ONE_OF_A])
    await world.clock.advance(COME_AGAIN)
    assert await world.second.client.enter([ONE_OF_A]) is None


async def test_who_waits_goes_on_when_it_is_given_back(world: World) -> None:
    await world.first.client.enter([ONE_OF_A])
    waits: list[object] = []
    task = asyncio.create_task(world.second.client.enter([ONE_OF_A], 5.0, lambda *told: waits.append(told)))
    await world.settle()
    assert waits == [(ONE_OF_A, 0.0)]
    world.first.client.leave([ONE_OF_A])
    assert await task is None


async def test_all_asks_of_a_turn_go_in_one_frame(world: World) -> None:
    await world.settle()
    before = world.first.to_supervisor.frames, world.first.to_worker.frames
    answers = await asyncio.gather(*(world.first.client.enter([MANY_OF_A, RATE_OF_A]) for _ in range(2)))
    assert answers == [None, None]
    assert world.first.to_supervisor.frames == before[0] + 1
    assert world.first.to_worker.frames == before[1] + 1


async def test_what_is_ahead_is_used_without_asking(world: World) -> None:
    for _ in range(2):
        await world.first.client.enter([MANY_OF_A])
    frames = world.first.to_supervisor.frames
    assert world.first.client.has(MANY_OF_A)
    assert await world.first.client.enter([MANY_OF_A]) is None
    assert world.first.to_supervisor.frames == frames


async def test_what_is_ahead_goes_back_when_it_is_not_used(world: World) -> None:
    for _ in range(3):
        await world.first.client.enter([MANY_OF_A])
    await world.clock.advance(UNUSED)
    assert not world.first.client.has(MANY_OF_A)
    others = [await world.second.client.enter([MANY_OF_A]) for _ in range(97)]
    assert others == [None] * 97


async def test_no_answer_means_held_back_and_what_comes_late_goes_back(world: World) -> None:
    world.first.to_worker.stopped = True
    task = asyncio.create_task(world.first.client.enter([ONE_OF_A]))
    await world.clock.advance(SILENCE + LOOK)
    assert await task == AskLater(ONE_OF_A, COME_AGAIN, is_unanswered=True)
    world.first.to_worker.go_on()
    await world.settle()
    assert await world.second.client.enter([ONE_OF_A]) is None


async def test_no_answer_to_an_ask_that_waits_is_no_silence(world: World) -> None:
    await world.first.client.enter([ONE_OF_A])
    task = asyncio.create_task(world.second.client.enter([ONE_OF_A], 10.0))
    await world.clock.advance(SILENCE + 2 * LOOK)
    assert not task.done()
    await world.clock.advance(10.0)
    assert isinstance(await task, AskLater)


@pytest.mark.parametrize("turns", range(8))
async def test_who_is_cancelled_holds_nothing_whatever_was_under_way(world: World, turns: int) -> None:
    await world.settle()
    task = asyncio.create_task(world.first.client.enter([ONE_OF_A, RATE_OF_A]))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    held = (await asyncio.gather(task, return_exceptions=True))[0] is None
    await world.settle()
    answer = await world.second.client.enter([ONE_OF_A])
    assert (answer is None) is not held


async def test_a_dead_workers_share_is_free(world: World) -> None:
    await world.first.client.enter([ONE_OF_A, RATE_OF_A])
    world.supervisor.end(world.first)
    new = world.supervisor.start()
    world.declare(new)
    assert await new.client.enter([ONE_OF_A, RATE_OF_A]) is None
    assert isinstance(await world.second.client.enter([RATE_OF_A]), AskLater), "what it had of a rate counts as used"


async def test_what_one_tells_all_others_hear(world: World) -> None:
    heard: list[tuple[int, SharedFinding]] = []
    world.first.client.hear("news", lambda told: heard.append((1, told)))
    world.second.client.hear("news", lambda told: heard.append((2, told)))
    news = SharedFinding("news", "a.test", [3], world.clock.monotonic() + 60)
    world.first.client.tell(news)
    world.first.client.tell(news._replace(topic="other"))
    await world.settle()
    assert heard == [(2, news)]


async def test_who_starts_later_hears_what_was_told_before_and_holds_still() -> None:
    supervisor = SharedSupervisor(clock := FakeClock())
    lasting, short, over = (SharedFinding("news", key, [3], clock.monotonic() + 60) for key in "abc")
    for told in (lasting, short._replace(until=clock.monotonic() + 5), over, over._replace(until=None)):
        supervisor.all[0].client.tell(told)
    await clock.advance(5)
    late = supervisor.start()
    await clock.advance(0)
    heard: list[SharedFinding] = []
    late.client.hear("news", heard.append)
    assert heard == [lasting]
    await clock.advance(60)
    assert late.client.known("news") == []


async def test_what_workers_of_another_configuration_find_out_is_not_told() -> None:
    supervisor = SharedSupervisor(clock := FakeClock())
    old, new = supervisor.all[0], supervisor.start(generation=2)
    supervisor.service.put_in_force(2)
    finding = SharedFinding("news", "a", [3], clock.monotonic() + 60)
    old.client.tell(finding)
    new.client.tell(finding._replace(key="b"))
    await clock.advance(0)
    late = supervisor.start(generation=2)
    await clock.advance(0)
    assert [each.key for each in new.client.known("news")] == ["b"], "its own"
    assert [each.key for each in late.client.known("news")] == ["b"]
    assert [each.key for each in supervisor.all[1].client.known("news")] == ["a"], "those that finish have the old one"


async def test_what_a_refused_configuration_found_out_is_forgotten_and_what_is_in_force_is_not() -> None:
    supervisor = SharedSupervisor(clock := FakeClock())
    refused = supervisor.start(generation=2)
    finding = SharedFinding("news", "a", [3], clock.monotonic() + 60)
    supervisor.all[0].client.tell(finding)
    refused.client.tell(finding._replace(key="b"))
    await clock.advance(0)
    supervisor.end(refused)
    for each in supervisor.all:
        supervisor.end(each)
    again, other = supervisor.start(), supervisor.start(generation=2)
    await clock.advance(0)
    assert again.client.known("news") == [finding]
    assert other.client.known("news") == []


async def test_what_came_before_the_client_was_made_is_known_to_it() -> None:
    told = SharedFinding("news", "a", [3], (clock := FakeClock()).monotonic() + 60)
    assert ShareClient(MemoryWire(), clock, earlier=[list(told)]).known("news") == [told]


async def test_a_share_of_several_is_what_there_is(world: World) -> None:
    got: list[object] = []
    world.first.client.ask([MANY_OF_A], got.append, 100.0, most=60)
    world.second.client.ask([MANY_OF_A], got.append, 100.0, most=60)
    await world.settle()
    assert got == [60, 40]


async def test_a_recall_reaches_whoever_declared_the_line() -> None:
    clock = FakeClock()
    supervisor = SharedSupervisor(clock)
    first, second = supervisor.all
    recalls: list[object] = []
    line = Line("connections", 2, spares=False)
    first.client.declare(line, lambda *recall: recalls.append(recall))
    second.client.declare(line)
    for _ in range(2):
        await first.client.enter([("connections", "host")])
    task = asyncio.create_task(second.client.enter([("connections", "host")], 100.0))
    await clock.advance(0)
    assert recalls == [("host", 1, 1)]
    first.client.leave([("connections", "host")])
    assert await task is None


async def test_nothing_is_left_to_be_done_when_all_is_given_back(world: World) -> None:
    for _ in range(5):
        await world.first.client.enter([MANY_OF_A, ONE_OF_A])
        world.first.client.leave([MANY_OF_A, ONE_OF_A])
        await world.settle()
    await world.clock.advance(10)
    assert world.clock.pending == 0


async def test_what_comes_too_late_to_be_used_is_asked_for_again_so_that_it_is_usable_for_longer(world: World) -> None:
    quick = ("quick", "a")
    world.first.client.declare(Line("quick", 1, 1.0))
    await world.settle()
    for seconds in (0.1, 0.15, 0.15):  # a share is usable for 0.05 s, then for twice as long as the answer took
        world.first.to_worker.stopped = True
        task = asyncio.create_task(world.first.client.enter([quick]))
        await world.clock.advance(seconds)
        world.first.to_worker.stopped = False
        world.first.to_worker.go_on()
        assert await task is None
        await world.clock.advance(1.3)


async def test_who_hears_too_late_again_and_again_is_held_back(world: World) -> None:
    world.first.client.declare(Line("quick", 1, 1.0))
    await world.settle()
    task = asyncio.create_task(world.first.client.enter([("quick", "a")]))
    for _ in range(3):
        world.first.to_worker.stopped = True
        await world.clock.advance(1.1)
        world.first.to_worker.go_on()
    assert await task == AskLater(("quick", "a"), COME_AGAIN, is_unanswered=True)
