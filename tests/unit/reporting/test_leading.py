"""Of all who count into one store one makes and sends reports: at a reload, and whatever ends."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mailrider.reporting.recorder import Recorder
from mailrider.reporting.service import TLSReporting
from mailrider.reporting.store import ReportStore
from tests.unit.reporting.world import DAY, HOUR, World, days_in, session

if TYPE_CHECKING:
    from pathlib import Path


def beside(world: World) -> tuple[TLSReporting, Recorder]:
    """A second one with the same file, courier and clock, as the next configuration has it."""
    recorder = Recorder(world.clock, "tls@sender.test")
    store = ReportStore(world.folder, timedelta(hours=4))
    rest = (world.courier, world.resolver, world.clock, world.events.append, _at_once, world.tick)
    return TLSReporting(world.rules, recorder, store, *rest), recorder


async def _at_once(work: Any, *arguments: Any) -> Any:
    return work(*arguments)


async def test_two_beside_each_other_add_up_and_one_of_them_sends(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    service, recorder = beside(world)
    async with service:
        world.recorder(session())
        recorder(session(fails=True))
        await world.pass_time(DAY)
        assert (world.store.become_leader(), len(world.courier.sent)) == (True, 1)
        (policy,) = days_in(tmp_path)[0].counts.policies.values()
        assert (policy.successful, policy.failed) == (1, 1)
    await world.stop()


async def test_at_a_reload_the_next_one_leads_and_the_last_one_still_counts(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    world.recorder(session())
    await world.pass_time(HOUR)
    service, recorder = beside(world)
    async with service:
        await world.service.leave_off()
        world.recorder(session())  # on a connection that goes on
        recorder(session())
        await world.pass_time(HOUR)
        assert world.store.become_leader() is False
        await world.stop()
        await world.pass_time(DAY)
    assert len(world.courier.sent) == 1
    (policy,) = days_in(tmp_path)[0].counts.policies.values()
    assert policy.successful == 3


async def test_who_leaves_off_while_it_asks_dns_sends_nothing_beside_the_next_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    world.recorder(session())
    await world.pass_time(12 * HOUR)
    asking, go_on = asyncio.Event(), asyncio.Event()
    look_up = world.resolver.lookup

    async def held_up(*arguments: Any, **options: Any) -> Any:
        asking.set()
        await go_on.wait()
        return await look_up(*arguments, **options)

    world.resolver.lookup = held_up  # type: ignore[method-assign] # a silent resolver
    await world.pass_time(5 * HOUR)
    assert asking.is_set()
    leaving = asyncio.ensure_future(world.service.leave_off())
    await asyncio.wait([leaving])
    world.courier.gate = asyncio.Event()  # what is sent from now on takes until the end
    service, _ = beside(world)
    async with service:
        go_on.set()
        await world.pass_time(HOUR)
        assert len(world.courier.sent) == 1
        world.courier.gate.set()
        await world.pass_time(HOUR)
    await world.stop()
    assert len(world.courier.sent) == 1


async def test_who_leaves_off_just_when_it_begins_to_lead_lets_another_one_lead(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    began, may_end = asyncio.Event(), asyncio.Event()

    async def slowly(work: Any, *arguments: Any) -> Any:
        if work == world.store.become_leader:
            began.set()
            await may_end.wait()
        return work(*arguments)

    world.service.in_thread = slowly
    await world.pass_time(world.tick)
    assert began.is_set()
    await world.service.leave_off()
    may_end.set()
    await world.pass_time(world.tick)
    other = ReportStore(tmp_path)
    assert other.become_leader()
    other.close()
    await world.stop()


def test_of_many_threads_that_begin_at_once_one_leads(tmp_path: Path) -> None:
    stores = [ReportStore(tmp_path) for _ in range(8)]
    leads: list[bool] = []
    threads = [threading.Thread(target=lambda each=each: leads.append(each.become_leader())) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(leads) == [False] * 7 + [True]
    for store in stores:
        store.close()
