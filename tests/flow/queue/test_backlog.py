"""Whose mail comes from the store into memory first: who waits longest, and nobody is kept out by those with much."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.queue import backlog as backlog_module
from mailrider.queue.backlog import Backlog
from mailrider.queue.fairness import Fairness
from mailrider.testing.store import MemoryStore
from tests.flow.queue.test_scheduler import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

NAMES = [f"d{number * 7 % 60}.example" for number in range(60)]  # in no order that names have


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[Backlog]:
    """One that knows of nothing, with a memory that nobody else fills."""
    async with MemoryStore(world.shared) as store:
        yield Backlog(store, Fairness(4, random.Random(1)), world.clock, unseen=False)


async def refilled(backlog: Backlog) -> list[str]:
    """The destinations that have a turn, in their order."""
    return list(dict.fromkeys([job.destination async for jobs in backlog.refill() for job in jobs]))


async def test_destinations_with_mail_in_the_store_have_turns_in_the_order_in_which_they_came() -> None:
    world = World()
    await world.fill(*(f"b@{name}" for name in NAMES))
    turns: list[str] = []
    async with opened(world) as backlog:
        backlog.expect(NAMES)
        while not backlog.is_empty:
            turns += await refilled(backlog)
    assert turns == NAMES


async def test_who_had_a_turn_comes_behind_all_others_that_wait() -> None:
    world = World()
    await world.fill(*(f"b@{name}" for name in NAMES for _ in range(4)))
    turns: list[str] = []
    async with opened(world) as backlog:
        backlog.expect(NAMES)
        while not backlog.is_empty:
            turns += await refilled(backlog)
    assert turns == NAMES * 2


async def test_more_destinations_than_are_remembered_are_found_by_looking_and_lose_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog_module, "MAX_KNOWN", 5)
    world = World()
    await world.fill(*(f"b@{name}" for name in NAMES for _ in range(4)))
    found: list[str] = []
    async with opened(world) as backlog:
        backlog.expect(NAMES)
        while not backlog.is_empty:
            assert len(backlog.more) <= 5
            found += [job.destination async for jobs in backlog.refill() for job in jobs]
    assert sorted(found) == sorted(NAMES * 4)


async def test_mail_is_delivered_from_more_destinations_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "MAX_KNOWN", 5)
    world = World(parallelism=4)
    await world.fill(*(f"b@d{number % 100}.example" for number in range(300)))
    world.network.takes = 0.1
    async with world.queue() as queue:
        await world.clock.advance(60)
        await queue.idle()
    assert world.left == []


async def test_what_becomes_due_is_not_kept_out_of_memory_by_destinations_with_much() -> None:
    world = World(parallelism=8)
    await world.fill(*(f"b@d{number}.example" for _ in range(80) for number in range(16)))
    await world.fill("b@late.example")
    for row in world.shared.rows.values():
        row.due += timedelta(seconds=30) if row.destination == "late.example" else timedelta()
    world.network.takes = 0.9
    async with world.queue() as queue:
        await world.clock.advance(30)
        before = len(world.network.seen)
        while "late.example" not in world.network.destinations():
            await world.clock.advance(1)
        assert len(world.network.seen) < before + 200
        world.network.takes = 0
        await world.clock.advance(1)
        await queue.idle()
    assert world.left == []
