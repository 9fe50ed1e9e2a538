"""A message whose end is missing in the store: it is deferred with words that say so, and no server gets it cut off."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from mailrider.model.event import Bug
from mailrider.model.queue_event import RecipientDone
from mailrider.queue.message import Quota
from mailrider.queue.service import DeliveryQueue, QueueDeliverer
from mailrider.queue.sqlite.file import FILE
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.smtp.content import IncompleteContent
from mailrider.testing.store import MemoryStore
from tests.flow.queue.test_leaving_off import a_queue
from tests.flow.queue.test_scheduler import World, submit
from tests.flow.queue.test_stop_at_every_moment import Net
from tests.support.queueing import MESSAGE

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.queue.work import Deliverer

LOST = 5


async def cut_off(world: World, folder: Path) -> None:
    """A message in a store there, without its last octets."""
    async with DeliveryQueue(
        SQLiteStore(folder, world.clock), None, world.ids, world.clock, world.rng, world.tell
    ) as queue:
        await submit(queue, "b@a.test")
    with closing(sqlite3.connect(folder / FILE)) as connection, connection:
        connection.execute("UPDATE message SET content = ?", (MESSAGE[:-LOST],))


async def attempted(world: World, folder: Path, deliverer: Deliverer) -> RecipientDone:
    """What became of it."""
    async with a_queue(world, SQLiteStore(folder, world.clock), deliverer) as queue:
        await queue.idle()
        (done,) = world.happened(RecipientDone)
        assert isinstance(done, RecipientDone)
        return done


@pytest.mark.parametrize("chunking", [False, True], ids=["DATA", "BDAT"])
async def test_a_server_does_not_get_it(tmp_path: Path, chunking: bool) -> None:
    world = World()
    await cut_off(world, tmp_path)
    net = Net(world, chunking=chunking)
    done = await attempted(world, tmp_path, net.smarthost())
    assert (done.outcome.status, str(done.outcome.reply)) == (
        "deferred",
        "451 4.3.0 The message is damaged where it is kept: its end is missing",
    )
    assert net.messages == []


async def test_another_queue_does_not_get_it(tmp_path: Path) -> None:
    world = World()
    await cut_off(world, tmp_path)
    other = MemoryStore()
    target = QueueDeliverer(DeliveryQueue(other, None, world.ids, world.clock, world.rng, world.tell))
    done = await attempted(world, tmp_path, target)
    assert (done.outcome.status, other.shared.rows) == ("deferred", {})
    assert [type(each.error) for each in world.happened(Bug)] == [IncompleteContent]


async def test_it_is_the_same_for_what_was_read_with_the_job_and_what_is_read_later(tmp_path: Path) -> None:
    world = World()
    await cut_off(world, tmp_path)
    async with SQLiteStore(tmp_path, world.clock) as store:
        (job,) = (await store.claim([Quota("a.test", 1)], world.clock.now(), 1_000_000)).jobs
        for content in (job.content, await store.content(job)):
            assert content is not None
            assert content.header == MESSAGE[: content.header_size]
            with pytest.raises(IncompleteContent, match=f"has {len(MESSAGE)} octets, and {len(MESSAGE) - LOST} came"):
                await content.loaded()
