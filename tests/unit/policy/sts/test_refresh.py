"""The background refresh: RFC 8461 3.3 and 10.2, over weeks of a clock that nobody waits for."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from mailrider.model.domain import Domain
from mailrider.mtasts.policy import STSMode
from mailrider.policy.sts.events import PolicyExpired, PolicyFetched, PolicyFetchFailed, RefreshCrashed
from mailrider.policy.sts.refresh import REFRESH_START, REFRESH_WORKERS
from mailrider.policy.sts.source import FETCH_TIMEOUT
from tests.unit.policy.sts.sts_world import DAY, EXAMPLE, HOUR, WEEK, DurableStore, World, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.policy.sts.cache import CachedPolicy

OTHER = Domain("example.net")


@pytest.fixture
def world() -> World:
    return World(DurableStore())


async def days(world: World, count: float) -> None:
    """Let time pass hour by hour, so that everything finds its turn."""
    for _ in range(int(count * 24)):
        await world.clock.advance(HOUR)


async def test_every_cached_policy_is_fetched_about_daily_whatever_the_record_says(world: World) -> None:
    world.publish("id1", text(max_age=2 * WEEK))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.strip_record()
        await days(world, 30)
        assert 30 / 1.25 <= world.fetches() <= 30 / 0.75
        assert (await source.lookup(EXAMPLE)).policy is not None
        world.break_dns()
        await days(world, 30)
        assert (await source.lookup(EXAMPLE)).policy is not None


async def test_a_changed_policy_comes_with_the_refresh_though_its_record_is_suppressed(world: World) -> None:
    world.publish("id1", text(mx="old.example.com"))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.strip_record()
        world.serve(text("none"))
        await days(world, 2)
        assert (await source.lookup(EXAMPLE)).policy is None
    assert [event.changed for event in world.happened(PolicyFetched)][:2] == [True, True]


async def test_also_for_domains_that_had_no_mail_since_the_restart(world: World) -> None:
    world.publish("id1", text(max_age=WEEK))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
    for _ in range(5):
        async with world.source():
            await days(world, 3)
    world.strip_record()
    async with world.source() as source:
        assert (await source.lookup(EXAMPLE)).policy is not None


async def test_a_policy_that_lives_a_day_is_refreshed_before_it_ends(world: World) -> None:
    world.publish("id1", text(max_age=DAY))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.strip_record()
        for _ in range(10 * 24):
            await world.clock.advance(HOUR)
            assert (await source.lookup(EXAMPLE)).policy is not None


async def test_mode_none_is_refreshed_too(world: World) -> None:
    world.publish("id1", text("none"))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.serve(text("enforce"))
        await days(world, 2)
        assert (await source.lookup(EXAMPLE)).policy is not None


async def test_a_short_policy_is_fetched_for_mail_only_and_removed_at_its_end(world: World) -> None:
    world.publish("id1", text(max_age=1800))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        await days(world, 1)
    assert world.fetches() == 1
    assert world.happened(PolicyExpired)
    assert await world.store.domains() == []


async def test_a_blocked_policy_host_is_reported_hour_by_hour_until_the_policy_ends(world: World) -> None:
    world.publish("id1", text(max_age=WEEK))
    async with world.source() as source:
        fetched = (await source.lookup(EXAMPLE)).held
        assert fetched is not None
        world.block_host()
        await days(world, 6.9)
        assert (await source.lookup(EXAMPLE)).policy is not None
        failures = world.happened(PolicyFetchFailed)
        assert 5 * 24 / 1.5 <= len(failures) <= 6.2 * 24 / 0.5
        assert all(event.in_force is STSMode.ENFORCE for event in failures)
        await days(world, 0.3)
        assert (await source.lookup(EXAMPLE)).policy is None
    assert world.happened(PolicyExpired) == [PolicyExpired(EXAMPLE, STSMode.ENFORCE, fetched.fetched)]
    assert await world.store.domains() == []


async def test_a_refresh_that_works_again_renews_the_policy(world: World) -> None:
    world.publish("id1", text(max_age=WEEK))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.block_host()
        await days(world, 6)
        world.serve(text(max_age=WEEK))
        await days(world, 0.25)
        world.block_host()
        world.strip_record()
        await days(world, 6.5)
        assert (await source.lookup(EXAMPLE)).policy is not None


async def test_two_processes_on_one_cache_share_the_work(world: World) -> None:
    world.publish("id1", text(max_age=2 * WEEK))
    async with world.source(seed=1) as ours, world.source(seed=2) as theirs:
        await ours.lookup(EXAMPLE)
        await theirs.lookup(EXAMPLE)
        await days(world, 30)
        assert world.fetches() <= 30 / 0.75
        assert (await ours.lookup(EXAMPLE)).policy is not None
        assert (await theirs.lookup(EXAMPLE)).policy is not None


async def test_only_so_many_at_once(world: World) -> None:
    async with world.source() as source:
        for number in range(300):
            domain = Domain(f"d{number}.example")
            world.publish("id1", text(), domain)
            await source.lookup(domain)
    await world.clock.advance(2 * DAY)  # while we are down all become overdue
    world.hosts.gate.clear()
    async with world.source():
        await days(world, 0.1)
        assert world.hosts.under_way == REFRESH_WORKERS


async def test_many_slow_hosts_of_one_owner_keep_nobodys_policy_from_its_refresh(world: World) -> None:
    evil = [Domain(f"d{number}.evil.example") for number in range(1000)]
    for domain in evil:
        world.publish("id1", text(max_age=WEEK), domain)
    world.publish("id1", text(max_age=HOUR))
    async with world.source() as source:
        for domain in evil:
            await source.lookup(domain)
        world.hosts.slow = dict.fromkeys(evil, partial(world.clock.sleep, FETCH_TIMEOUT))
        await world.clock.advance(0.9 * DAY)  # by now many are due, and a round of all takes two hours
        await source.lookup(EXAMPLE)
        world.strip_record()
        for _ in range(4 * 12):
            await world.clock.advance(HOUR / 12)
            assert (await source.lookup(EXAMPLE)).policy is not None


async def test_who_stays_a_few_seconds_refreshes_nothing(world: World) -> None:
    world.publish("id1", text())
    async with world.source() as source:
        await source.lookup(EXAMPLE)
    await world.clock.advance(3 * DAY)
    async with world.source():
        await world.clock.advance(REFRESH_START[0] - 1)
    assert world.fetches() == 1


async def test_the_refresh_ends_with_the_source(world: World) -> None:
    before = asyncio.all_tasks()
    world.publish("id1", text())
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.hosts.gate.clear()
        await days(world, 2)
        assert world.hosts.under_way == 1
    assert world.hosts.under_way == 0
    assert asyncio.all_tasks() == before
    assert world.clock.pending == 0


async def test_a_bug_in_one_refresh_ends_neither_the_others_nor_later_ones(world: World) -> None:
    for domain in (EXAMPLE, OTHER):
        world.publish("id1", text(), domain)
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        await source.lookup(OTHER)
        world.hosts.bug = ZeroDivisionError("a bug")
        await days(world, 1.5)
        assert {event.domain for event in world.happened(RefreshCrashed)} == {EXAMPLE, OTHER}
        world.hosts.bug = None
        fetches = world.fetches(), world.fetches(OTHER)
        await days(world, 1)
        assert (world.fetches() > fetches[0], world.fetches(OTHER) > fetches[1]) == (True, True)


class Moody(DurableStore):
    """A store with a bug."""

    broken = False

    async def domains(self) -> Sequence[Domain]:
        if self.broken:
            raise ZeroDivisionError
        return await super().domains()

    async def load(self, domain: Domain) -> CachedPolicy | None:
        return None if self.broken else await super().load(domain)


async def test_a_bug_in_the_store_is_told_and_survived() -> None:
    store = Moody()
    world = World(store)
    world.publish("id1", text())
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        store.broken = True
        await days(world, 0.5)
        assert world.happened(RefreshCrashed)[0].domain is None
        store.broken = False
        await days(world, 2)
    assert world.fetches() > 1


async def test_an_entry_that_cannot_be_read_is_looked_at_again_later() -> None:
    class Blind(DurableStore):
        blind = True

        async def load(self, domain: Domain) -> CachedPolicy | None:
            return None if self.blind else await super().load(domain)

    store = Blind()
    world = World(store)
    world.publish("id1", text())
    store.blind = False
    async with world.source() as source:
        await source.lookup(EXAMPLE)
    store.blind = True
    async with world.source():
        await days(world, 0.5)
        assert world.fetches() == 1
        store.blind = False
        await days(world, 2)
    assert world.fetches() > 1


async def test_an_entry_that_has_ended_and_cannot_be_removed_is_not_revived_by_turning_the_clock_back() -> None:
    class Stubborn(DurableStore):
        discards = 0

        async def discard(self, entry: CachedPolicy) -> None:
            self.discards += 1

    store = Stubborn()
    world = World(store)
    world.publish("id1", text(max_age=HOUR - 1))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.strip_record()
        world.clock.jump(timedelta(days=-1))
        await days(world, 0.5)
        assert (await source.lookup(EXAMPLE)).policy is None
    assert 6 <= store.discards <= 24
    assert len(world.happened(PolicyExpired)) == 1
