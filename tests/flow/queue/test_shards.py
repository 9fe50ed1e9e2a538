"""Shards of a queue: each worker has its own, what was left behind is delivered, and people see one queue."""

from __future__ import annotations

import os
import random
import tempfile
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

import mailrider
from mailrider.app.assemble import open_engine
from mailrider.app.targets import Shard, Targets, make_queue
from mailrider.clock import SystemClock
from mailrider.dns.settings import DNSSettings
from mailrider.model.event import discard
from mailrider.model.queue_event import OperatorActed, RecipientDone
from mailrider.queue.ids import SHARDS, format_id, parse_id, place_of
from mailrider.queue.message import EVERYTHING, Filter, RecipientState
from mailrider.queue.settings import QueueSettings
from mailrider.queue.sqlite import views
from mailrider.queue.sqlite.reader import SQLiteReader
from mailrider.queue.sqlite.shards import ShardsReader, shard_location, shards_in
from mailrider.queue.sqlite.signals import QueueDirectory, Signal, SignalListener
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.sqlite.views import HistoryFilter
from mailrider.queue.store import QueueCommand
from mailrider.queue.worker_place import ALONE, WorkerNumber
from mailrider.smtp.content import Content
from tests.support.loops import eventually
from tests.support.queueing import MESSAGE, Writing, envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from mailrider.model.event import Emit, Event
    from mailrider.queue.service import DeliveryQueue

DEAD_DNS = DNSSettings(server=["127.0.0.1:9"], timeout=0.1, attempts=1)
REMOTE = mailrider.RemoteSettings(hostname="mx.example.org", dns=DEAD_DNS)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[QueueSettings]:
    with tempfile.TemporaryDirectory() as folder:  # the name of a socket has 107 octets at most
        yield QueueSettings(target=REMOTE, location=tmp_path / "q", runtime_dir=folder)


def location(settings: QueueSettings) -> Path:
    assert settings.location is not None
    return settings.location


@asynccontextmanager
async def worker(
    settings: QueueSettings, place: WorkerNumber | None, emit: Emit = discard
) -> AsyncIterator[DeliveryQueue]:
    """A process that delivers; the resolver is gone, so that each attempt defers."""
    async with open_engine(DEAD_DNS, emit) as engine, Targets(engine, {}, place) as targets:
        yield await targets.open_queue(settings)


async def fill(settings: QueueSettings, *shards: int) -> list[int]:
    """A message in each of these shards, that nobody has attempted yet."""
    ids: list[int] = []
    for number in shards:
        queue = make_queue(
            settings,
            None,
            SystemClock(),
            random.Random(),
            discard,
            shard=Shard(number),
        )
        async with queue:
            ids.append(await queue.submit(envelope(f"b{number}@d{number}.example"), Content.inspect(MESSAGE)))
    return ids


async def tried(settings: QueueSettings) -> set[int]:
    """The shards whose message was attempted."""
    reader = ShardsReader(location(settings), SystemClock())
    return {int(each.recipient[1]) async for each in reader.entries(EVERYTHING) if each.progress.tries}


async def test_a_worker_takes_new_mail_into_its_own_shard_with_its_place_in_the_ids(settings: QueueSettings) -> None:
    async with worker(settings, WorkerNumber(2, 3)) as queue:
        ids = [await queue.submit(envelope("b@example.net"), Content.inspect(MESSAGE)) for _ in range(3)]
    assert shards_in(location(settings)) == [2]
    assert [place_of(each) for each in ids] == [2, 2, 2]


async def test_a_process_beside_the_workers_adds_to_shard_0_with_the_place_of_its_registration(
    settings: QueueSettings,
) -> None:
    async with mailrider.Queue(settings, deliver=False) as queue:
        id = parse_id(await queue.submit(MESSAGE, "a@example.org", ["b@example.net"]))
    assert shards_in(location(settings)) == [0]
    assert place_of(id) >= SHARDS


async def test_what_four_workers_left_two_deliver_and_then_one(settings: QueueSettings) -> None:
    await fill(settings, 0, 1, 2, 3)
    async with worker(settings, WorkerNumber(1, 2)) as second:
        await second.idle()
        assert await tried(settings) == {1, 3}
        assert (await second.stats(SystemClock().now(), 10)).messages == 2
        async with worker(settings, WorkerNumber(0, 2)) as first:
            await first.idle()
            assert await tried(settings) == {0, 1, 2, 3}
    async with worker(settings, ALONE) as alone:
        stats = await alone.stats(SystemClock().now(), 10)
        assert stats.messages == 4
        assert [each.queued for each in stats.destinations] == [1, 1, 1, 1]


async def test_one_process_alone_delivers_from_all_shards_and_adds_to_the_first(settings: QueueSettings) -> None:
    await fill(settings, 1, 2, 3)
    async with worker(settings, ALONE) as alone:
        await alone.idle()
        assert await tried(settings) == {1, 2, 3}
        assert place_of(await alone.submit(envelope("b0@example.net"), Content.inspect(MESSAGE))) == 0
    assert shards_in(location(settings)) == [0, 1, 2, 3]


async def test_a_notification_about_what_was_left_behind_stands_in_the_same_shard(settings: QueueSettings) -> None:
    (id,) = await fill(settings, 1)
    async with worker(replace(settings, max_tries=1), ALONE) as alone:
        await alone.idle()
    shard = SQLiteReader(shard_location(location(settings), 1), SystemClock())
    told = await shard.look(partial(views.traced, HistoryFilter(address="a@example.org"), 10))
    assert [(each.number, fact.kind, fact.recipient) for each in told for fact in each.facts] == [
        (id, "dsn.sent", "a@example.org"),
        (id, "recipient.failed", "b1@d1.example"),
        (told[1].number, "recipient.failed", "a@example.org"),
    ]


async def test_the_library_sees_and_changes_what_is_in_all_shards(settings: QueueSettings) -> None:
    ids = [format_id(each) for each in await fill(settings, 0, 1, 2)]
    async with mailrider.Queue(settings, deliver=False) as queue:
        assert [each.id for each in await queue.list()] == ids
        assert [each.id for each in await queue.list(limit=2)] == ids[:2]
        assert [shown.id for each in ids if (shown := await queue.show(each)) is not None] == ids
        assert [await queue.retry(each) for each in ids] == [1, 1, 1]
        assert await queue.cancel(ids[1]) is False
        assert [each.id for each in await queue.list()] == [ids[0], ids[2]]
        assert await queue.retry(ids[1]) == 0
        assert await queue.show(ids[1]) is None


async def test_a_message_of_a_time_without_places_is_found_wherever_its_id_seems_to_point(
    settings: QueueSettings,
) -> None:
    await fill(settings, 0, 1)
    writing = Writing(SystemClock())
    async with SQLiteStore(location(settings), SystemClock()) as store:
        old = [replace(message, id=message.id - SHARDS + low) for low in (1, 77) for message in [writing.message()]]
        for each in old:
            await store.add(each, leased=False)
    async with mailrider.Queue(settings, deliver=False) as queue:
        for each in old:
            id = format_id(each.id)
            assert (shown := await queue.show(id)) is not None
            assert shown.id == id
            assert await queue.retry(id) == 1
            assert await queue.cancel(id) is False
            assert await queue.show(id) is None
        assert len(await queue.list()) == 2


async def test_commands_go_to_all_shards_and_are_told_once(settings: QueueSettings) -> None:
    await fill(settings, 0, 1, 2)
    told: list[Event] = []
    heard: list[Signal] = []
    runtime = settings.runtime_dir or location(settings)
    async with (
        SignalListener(QueueDirectory(location(settings), runtime), heard.append, told.append),
        mailrider.Queue(settings, deliver=False) as queue,
    ):
        held = await queue.opened.command(QueueCommand.HOLD, EVERYTHING, "anna")
        assert (held.changed, held.later) == (3, 0)
        await queue.opened.command(QueueCommand.RETRY, Filter(domain="d1.example"))
        await eventually(lambda: heard)
    assert told == [OperatorActed("hold", "anna", "everything", 3, 0)]
    reader = ShardsReader(location(settings), SystemClock())
    assert {each.state async for each in reader.entries(EVERYTHING)} == {RecipientState.HELD}


async def test_every_process_of_a_queue_hears_of_new_mail_whatever_its_shard(settings: QueueSettings) -> None:
    ids = await fill(settings, 1, 2)
    done: list[str] = []
    async with worker(
        settings, ALONE, lambda event: done.append(event.message) if isinstance(event, RecipientDone) else None
    ) as alone:
        await alone.idle()
        async with mailrider.Queue(settings, deliver=False) as queue:
            await queue.opened.command(QueueCommand.RETRY, Filter(message=ids[1]))
        await eventually(lambda: done.count(format_id(ids[1])) == 2)


async def test_a_link_in_the_place_of_a_shard_is_refused(settings: QueueSettings, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    location(settings).mkdir()
    os.symlink(tmp_path / "elsewhere", shard_location(location(settings), 1))
    with pytest.raises(OSError, match="symbolic link"):
        async with worker(settings, WorkerNumber(1, 2)):
            pass
    assert list((tmp_path / "elsewhere").iterdir()) == []
