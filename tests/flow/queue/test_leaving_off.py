"""A scheduler that makes way for another one, and one that is stopped: what goes on, and what is cut off."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mailrider.model.handover import DIRECT
from mailrider.model.queue_event import AttemptInterrupted, OutcomeUnrecorded, RecipientDone
from mailrider.queue.bounces import BouncePolicy, Bounces
from mailrider.queue.fairness import BY_DOMAIN, jobs_of
from mailrider.queue.housekeeping import HOUSEKEEPING
from mailrider.queue.service import DeliveryQueue
from mailrider.queue.stopping import GRACE, RECORDING
from mailrider.queue.store import StoreUnavailable
from mailrider.queue.work import Work
from mailrider.testing.store import MemoryStore
from tests.flow.queue.test_scheduler import ORIGIN, World, submit
from tests.support.queueing import Writing, failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from mailrider.model.envelope import Envelope
    from mailrider.model.handover import Handover
    from mailrider.model.outcome import AttemptReport
    from mailrider.queue.message import LeasedJob, Settled, Settlement
    from mailrider.queue.store import Store
    from mailrider.queue.work import Deliverer
    from mailrider.smtp.content import Content


class Both:
    """A pipeline with two targets, which are given the message at once, in tasks of their own."""

    def __init__(self, *targets: Deliverer) -> None:
        self.targets = targets

    async def deliver(self, given: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        report, _ = await asyncio.gather(*(each.deliver(given, content, handover) for each in self.targets))
        return report


@asynccontextmanager
async def a_queue(
    world: World, store: Store, deliverer: Deliverer | None = None, notices: Deliverer | None = None
) -> AsyncIterator[DeliveryQueue]:
    bounces = Bounces(BouncePolicy(ORIGIN, True, lambda _: ""), world.ids, world.tell)
    routes = {"": deliverer or world.network} | ({} if notices is None else {"bounce": notices})
    work = Work(routes, world.rules, bounces, 1)
    async with DeliveryQueue(store, work, world.ids, world.clock, world.rng, world.tell) as queue:
        yield queue


async def begun(world: World, queue: DeliveryQueue) -> None:
    """One message is being attempted, another one waits in memory."""
    world.network.gates["example.net"] = asyncio.Event()
    await submit(queue, "b@example.net")
    await submit(queue, "c@example.net")
    await world.clock.advance(0)
    assert world.network.running == 1


async def leased(world: World, store: Store) -> list[LeasedJob]:
    """The jobs of a message that is stored, and that nobody was offered yet."""
    message = Writing(world.clock).message("b@example.net")
    await store.add(message, leased=True)
    return jobs_of(message, BY_DOMAIN, store.lease)


async def test_who_leaves_off_finishes_what_runs_and_another_one_takes_the_rest() -> None:
    world = World()
    async with a_queue(world, MemoryStore(world.shared)) as old:
        await begun(world, old)
        async with a_queue(world, MemoryStore(world.shared)) as new:
            await old.leave_off()
            finishing = asyncio.create_task(old.finish())
            await world.clock.advance(HOUSEKEEPING * 3)
            assert not finishing.done()
            assert [str(each.recipients[0]) for each in world.network.seen] == ["b@example.net", "c@example.net"]
            world.network.gates["example.net"].set()
            await finishing
            await new.idle()
            assert world.left == []
    assert len(world.network.seen) == 2


async def test_what_comes_to_one_that_has_left_off_is_stored_for_others() -> None:
    world = World()
    async with a_queue(world, MemoryStore(world.shared)) as old:
        await old.leave_off()
        await submit(old, "b@example.net")
        await world.clock.advance(HOUSEKEEPING * 3)
        assert world.network.seen == []
        async with a_queue(world, MemoryStore(world.shared)) as new:
            await new.idle()
            assert len(world.network.seen) == 1


async def test_what_was_leased_in_the_very_moment_is_given_back() -> None:
    world = World()
    store = MemoryStore(world.shared)
    async with world.scheduler(store) as old:
        jobs = await leased(world, store)
        await old.leave_off()
        old.offer(jobs)
        await world.clock.advance(1)
        async with a_queue(world, MemoryStore(world.shared)) as new:
            await new.idle()
            assert len(world.network.seen) == 1


async def test_a_stop_does_not_wait_for_what_sends_nothing() -> None:
    world = World()
    world.network.is_sending = False
    async with a_queue(world, MemoryStore(world.shared)) as queue:
        await begun(world, queue)
        await queue.stop()  # while the clock stands still
        assert world.network.running == 0
        assert len(world.happened(AttemptInterrupted)) == 1
    assert len(world.left) == 2


async def test_a_stop_waits_for_what_sends() -> None:
    world = World()
    async with a_queue(world, MemoryStore(world.shared)) as queue:
        await begun(world, queue)
        stopping = asyncio.create_task(queue.stop())
        await world.clock.advance(GRACE - 1)
        assert world.network.running == 1
        world.network.gates["example.net"].set()
        await stopping
        assert [str(each.outcome.recipient) for each in world.happened(RecipientDone)] == ["b@example.net"]
        assert world.happened(AttemptInterrupted) == []


async def test_what_is_cut_off_in_the_end_is_recorded_as_it_reports() -> None:
    world = World()
    world.network.has_effect = True
    async with a_queue(world, MemoryStore(world.shared)) as queue:
        await begun(world, queue)
        stopping = asyncio.create_task(queue.stop())
        await world.clock.advance(GRACE + 1)
        await stopping
        assert [str(each.outcome.recipient) for each in world.happened(RecipientDone)] == ["b@example.net"]
        assert world.happened(AttemptInterrupted) == []


async def test_all_attempts_at_a_message_are_waited_for_and_cut_off_together() -> None:
    world = World()
    world.network.has_effect = True
    async with a_queue(world, MemoryStore(world.shared), Both(world.network, world.bounces)) as queue:
        both = world.network, world.bounces
        for each in both:
            each.gates["example.net"] = asyncio.Event()
        await submit(queue, "b@example.net")
        await world.clock.advance(0)
        assert [each.running for each in both] == [1, 1]
        stopping = asyncio.create_task(queue.stop())
        await world.clock.advance(GRACE - 1)
        assert [each.running for each in both] == [1, 1]
        await world.clock.advance(2)
        await stopping
        assert [each.running for each in both] == [0, 0]
        assert [each.outcome.status.value for each in world.happened(RecipientDone)] == ["delivered"]
        assert world.happened(AttemptInterrupted) == []


async def test_who_does_not_even_report_is_given_back() -> None:
    world = World()
    world.network.is_deaf = True
    async with a_queue(world, MemoryStore(world.shared)) as queue:
        await begun(world, queue)
        stopping = asyncio.create_task(queue.stop())
        await world.clock.advance(GRACE + RECORDING + 1)
        await stopping
        assert len(world.happened(AttemptInterrupted)) == 1
    assert len(world.left) == 2


async def test_what_had_an_effect_and_cannot_be_recorded_is_not_given_back() -> None:
    world = World()
    world.network.has_effect = True
    async with a_queue(world, MemoryStore(world.shared)) as queue:
        await begun(world, queue)
        await world.clock.advance(0)
        for attempt in world.network.attempts:
            attempt.cancel()
        world.network.gates["example.net"].set()
        await world.clock.advance(0)
        assert world.happened(AttemptInterrupted) == []
        assert [each.reason for each in world.happened(OutcomeUnrecorded)] == ["we had to stop"]
        assert [(str(row.recipient), row.owner is None) for row in world.shared.rows.values()] == [
            ("b@example.net", False)
        ]


async def test_what_is_being_recorded_is_never_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    store = MemoryStore(world.shared)

    async def full(_: Settlement) -> Settled:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(store, "settle", full)
    async with a_queue(world, store) as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(1)
        stopping = asyncio.create_task(queue.stop())
        await world.clock.advance(GRACE + RECORDING + 1)
        await stopping
        assert [row.owner is None for row in world.shared.rows.values()] == [False]
    assert world.happened(AttemptInterrupted) == []
    assert [each.reason for each in world.happened(OutcomeUnrecorded)] == ["disk full"]


async def test_a_notification_that_is_written_when_time_is_over_leaves_the_outcome_unrecorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.network.behaviour["example.net"] = failed

    async def hangs(*_: object) -> tuple[()]:
        await asyncio.Event().wait()
        return ()

    monkeypatch.setattr(Bounces, "write", hangs)
    async with a_queue(world, MemoryStore(world.shared)) as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(1)
        stopping = asyncio.create_task(queue.stop())
        await world.clock.advance(GRACE + RECORDING + 1)
        await stopping
        assert [row.owner is None for row in world.shared.rows.values()] == [False]
    assert world.happened(AttemptInterrupted) == []
    assert [each.reason for each in world.happened(OutcomeUnrecorded)] == ["we had to stop"]


async def test_content_that_one_of_two_targets_cannot_read_is_no_reason_to_forget_what_the_other_did() -> None:
    world = World()
    world.bounces.behaviour["example.net"] = StoreUnavailable("cannot be read")
    async with a_queue(world, MemoryStore(world.shared), Both(world.network, world.bounces)) as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(1)
        assert [each.outcome.status.value for each in world.happened(RecipientDone)] == ["deferred"]
    assert [row.progress.tries for row in world.shared.rows.values()] == [1]


async def test_a_worker_that_is_stopped_before_its_first_step_gives_its_job_back() -> None:
    world = World()
    store = MemoryStore(world.shared)
    async with world.scheduler(store) as scheduler:
        scheduler.offer(await leased(world, store))
        await scheduler.stop()
        assert [row.owner for row in world.shared.rows.values()] == [None]
    assert world.network.seen == []


async def test_shards_that_were_left_behind_are_closed_together_with_the_own_one() -> None:
    world = World()
    shards = [MemoryStore() for _ in range(3)]
    for each in shards:
        async with a_queue(world, each) as filling:
            await filling.leave_off()
            await submit(filling, "b@example.net")
    world.network.gates["example.net"] = asyncio.Event()

    def shard(store: MemoryStore, *left_behind: DeliveryQueue) -> DeliveryQueue:
        bounces = Bounces(BouncePolicy(ORIGIN, True, lambda _: ""), world.ids, world.tell)
        work = Work({"": world.network}, world.rules, bounces, 1)
        return DeliveryQueue(
            store, work, world.ids, world.clock, world.rng, world.tell, left_behind=left_behind, listens=False
        )

    queue = shard(shards[0], shard(shards[1]), shard(shards[2]))
    await queue.__aenter__()
    await world.clock.advance(0)
    assert world.network.running == 3
    closing = asyncio.create_task(queue.__aexit__())
    await world.clock.advance(GRACE + 1)  # once, not for each
    await closing
    assert len(world.happened(AttemptInterrupted)) == 3
