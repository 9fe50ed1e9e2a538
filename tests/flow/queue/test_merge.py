"""`queue merge`: everything goes to shard 0, and a kill at any moment loses nothing and doubles nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.clock import SystemClock
from mailrider.queue.history import HistoryBounds
from mailrider.queue.message import EVERYTHING, Change, Filter, NewState, Progress, Quota, Settlement, Stats
from mailrider.queue.sqlite import views
from mailrider.queue.sqlite.file import FILE
from mailrider.queue.sqlite.merge import merge_shards
from mailrider.queue.sqlite.merge_notes import QueueInUse
from mailrider.queue.sqlite.reader import SQLiteReader
from mailrider.queue.sqlite.schema import VERSION
from mailrider.queue.sqlite.shards import ShardsReader, further_shard, shard_location
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.sqlite.views import HistoryFilter
from mailrider.queue.store import QueueCommand
from tests.support.long_runs import LONG
from tests.support.queueing import BUSY, MESSAGE, Writing, chunked, deferred

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mailrider.queue.message import Entry, NewMessage, StoredMessage

CLOCK = SystemClock()
NOW = CLOCK.now()
LARGE = b"x" * 100_000


def shard(location: Path, number: int) -> SQLiteStore:
    return SQLiteStore(
        shard_location(location, number),
        CLOCK,
        history=HistoryBounds(),
        shard=further_shard(location, number),
    )


async def fill(location: Path, shards: Sequence[int] = (0, 1, 3)) -> dict[int, StoredMessage]:
    """Messages of each kind in these shards, some of which overlap; as they are shown."""
    writing = Writing(CLOCK)
    for number in shards:
        async with shard(location, number) as store:
            plain = [writing.message(f"b{number}@example.net", "c@example.com") for _ in range(2)]
            for each in plain:
                await store.add(each, leased=False)
            stored = await store.write_content(chunked(LARGE))
            await store.add(writing.message(f"large{number}@example.net", stored=stored), leased=False)
            await tried(store, plain[0])
            await store.command(QueueCommand.HOLD, Filter(message=plain[1].id), CLOCK.now(), "anna")
    await overlap(location, writing, shards)
    return await shown(location)


async def tried(store: SQLiteStore, message: NewMessage) -> None:
    """An attempt after which one recipient is delivered, and the other one waits."""
    jobs = (await store.claim([Quota("example.net", 9), Quota("example.com", 9)], CLOCK.now())).jobs
    mine = [job for job in jobs if job.message_id == message.id]
    await store.give_back([job for job in jobs if job not in mine])
    now = CLOCK.now()
    for job in mine:
        if job.destination == "example.com":
            changes: Iterable[Change] = [
                Change(id, NewState.DONE, attempt=deferred(job.envelope.recipients[0])) for id in job.ids
            ]
        else:
            progress = Progress(1, warned=True, in_doubt=True, last=BUSY)
            changes = [
                Change(id, NewState.QUEUED, now + timedelta(hours=1), progress, deferred(job.envelope.recipients[0]))
                for id in job.ids
            ]
        await store.settle(Settlement(job, tuple(changes), now))


async def overlap(location: Path, writing: Writing, shards: Sequence[int]) -> None:
    """Two messages of the same microsecond, whose recipients have the same ids in different shards."""
    id = writing.ids.take(5)
    for number in (shards[0], shards[-1]):
        async with shard(location, number) as store:
            message = writing.message("o1@example.org", "o2@example.org", "o3@example.org")
            await store.add(replace(message, id=id + number, envelope=message.envelope), leased=False)


async def shown(location: Path) -> dict[int, StoredMessage]:
    reader = ShardsReader(location, CLOCK)
    found: dict[int, StoredMessage] = {}
    async for entry in reader.entries(EVERYTHING):
        message = await reader.find(entry.message_id)
        assert message is not None
        found[entry.message_id] = message
    return found


def told(messages: dict[int, StoredMessage]) -> dict[int, Any]:
    """All that is to be the same after a move; recipients may have other ids."""

    def entry(each: Entry, message: StoredMessage) -> Any:
        attempts = [(past.at, past.evidence) for past in message.attempts.get(each.recipient_id, ())]
        return each.recipient, each.destination, each.state, each.due, each.progress, each.wish, attempts

    return {
        id: (message.created, message.envelope, message.info.size, [entry(each, message) for each in message.entries])
        for id, message in messages.items()
    }


def count(directory: Path, table: str) -> int:
    with closing(sqlite3.connect(directory / FILE)) as connection:
        number: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        return number


async def counted(location: Path) -> Stats:
    """The numbers of the queue; what is over by now is due at once, and a message's first id may be another one."""
    found = await ShardsReader(location, CLOCK).stats(NOW, 100)
    destinations = [replace(each, oldest=NOW, next_due=None) for each in found.destinations]
    return replace(found, destinations=tuple(destinations))


async def facts(location: Path) -> list[Any]:
    reader = ShardsReader(location, CLOCK)
    found = [
        each
        for domain in ("c@example.com", "a@example.org")
        for each in await reader.trace(HistoryFilter(address=domain), 1000)
    ]
    return sorted((fact.at, fact.kind, fact.message_id, fact.recipient) for each in found for fact in each.facts)


async def expect_merged(
    location: Path, before: dict[int, StoredMessage], history: list[Any], shards: Sequence[int] = (0, 1, 3)
) -> None:
    first = SQLiteReader(location, CLOCK)
    found = {id: await first.look(partial(views.find, id)) for id in before}
    after = {id: message for id, message in found.items() if message is not None}
    assert told(after) == told(before)
    assert count(location, "recipient") == sum(len(each.entries) for each in before.values())
    assert count(location, "message") == len(before)
    assert await facts(location) == history
    for id, message in before.items():
        large = message.info.stored is not None
        assert await ShardsReader(location, CLOCK).octets(id) == (LARGE if large else MESSAGE)
    for number in shards[1:]:
        directory = shard_location(location, number)
        assert [count(directory, each) for each in ("message", "recipient", "attempt", "chunk", "spool")] == [0] * 5
        assert count(directory, "history WHERE message <> 0") == 0
    assert count(location, "sqlite_master WHERE name LIKE 'moved%'") == 0
    with closing(sqlite3.connect(location / FILE)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)


async def test_everything_is_in_the_first_shard_then_under_its_id_with_attempts_and_history(tmp_path: Path) -> None:
    before = await fill(tmp_path)
    history = await facts(tmp_path)
    assert len(history) > 6
    assert await merge_shards(tmp_path, CLOCK) == {1: 3, 3: 4}
    await expect_merged(tmp_path, before, history)
    assert await merge_shards(tmp_path, CLOCK) == {1: 0, 3: 0}


async def test_a_queue_without_other_shards_is_as_it_was(tmp_path: Path) -> None:
    assert await merge_shards(tmp_path, CLOCK) == {}
    assert not list(tmp_path.iterdir())


async def test_nothing_is_moved_while_somebody_uses_one_of_the_shards(tmp_path: Path) -> None:
    before = told(await fill(tmp_path))
    async with shard(tmp_path, 3):
        with pytest.raises(QueueInUse, match="stop the daemon"):
            await merge_shards(tmp_path, CLOCK)
    assert count(shard_location(tmp_path, 1), "message") == 3
    assert told(await shown(tmp_path)) == before


async def test_a_shard_that_is_being_merged_cannot_be_used(tmp_path: Path) -> None:
    await fill(tmp_path)
    merging = SQLiteStore(shard_location(tmp_path, 1), CLOCK, shard=further_shard(tmp_path, 1, alone=True))
    async with merging:
        with pytest.raises(QueueInUse, match="being merged"):
            async with shard(tmp_path, 1):
                pass
    async with shard(tmp_path, 1):
        pass


def merge_and_die(location: Path, passage: int) -> bool:
    """Merge in a process that kills itself at its nth commit point; True if it came so far."""
    pid = os.fork()
    if not pid:
        passed = 0

        def fault(_: str) -> None:
            nonlocal passed
            passed += 1
            if passed == passage:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            asyncio.run(merge_shards(location, CLOCK, fault))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_killed_at_each_commit_point_it_loses_nothing_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrider.queue.sqlite.merge.MESSAGES", 3)
    monkeypatch.setattr("mailrider.queue.sqlite.merge.FACTS", 2)
    filled = tmp_path / "filled"
    shards = (0, 1, 3) if LONG else (0, 1)
    before = asyncio.run(fill(filled, shards))
    history = asyncio.run(facts(filled))
    counts = asyncio.run(counted(filled))
    assert counts.messages == len(before)
    # A kill before a commit is as one after the commit before it; a long run looks at both.
    step, dies = 1 if LONG else 2, True
    passage = 1 - step
    while dies:
        passage += step
        location = tmp_path / str(passage)
        shutil.copytree(filled, location)
        dies = merge_and_die(location, passage)
        assert told(asyncio.run(shown(location))) == told(before), f"seen after a kill at {passage}"
        assert asyncio.run(facts(location)) == history, f"told after a kill at {passage}"
        assert asyncio.run(counted(location)) == counts, f"counted after a kill at {passage}"
        # Then it is merged after all, or everything is delivered as it is: in turns; a long run does both each time.
        if LONG or passage % 4 == 1:
            merged = tmp_path / f"{passage} merged"
            shutil.copytree(location, merged)
            asyncio.run(merge_shards(merged, CLOCK))
            asyncio.run(expect_merged(merged, before, history, shards))
        if LONG or passage % 4 == 3:
            assert sorted(asyncio.run(deliver_all(location, shards))) == sorted(
                (id, entry.recipient) for id, message in before.items() for entry in message.entries
            )
    assert passage > 30


async def deliver_all(location: Path, shards: Sequence[int]) -> list[tuple[int, str]]:
    """What is delivered, the first shard first, by a program that knows no other shards, and then by one that does."""
    delivered: list[tuple[int, str]] = []
    for number in shards:
        async with shard(location, number) as store:
            await store.command(QueueCommand.RELEASE, EVERYTHING, CLOCK.now())
            later = CLOCK.now() + timedelta(hours=2)
            destinations = [each.destination for each in await store.destinations(None, 100)]
            for job in (await store.claim([Quota(each, 100) for each in destinations], later)).jobs:
                await store.content(job)
                settled = await store.settle(Settlement(job, tuple(Change(id, NewState.DONE) for id in job.ids), later))
                assert settled.held
                delivered += [(job.message_id, str(each.mailbox)) for each in job.envelope.recipients]
            assert (await store.stats(later, 1)).messages == 0
    return delivered
