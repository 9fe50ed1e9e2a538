"""Whose attempt was under way at three deaths in a row is held, and nothing else is."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mailrider.model.queue_event import HeldAfterDeaths
from mailrider.queue.ids import format_id
from mailrider.queue.message import EVERYTHING, Quota, RecipientState
from mailrider.queue.sqlite.owner import Identity
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.store import QueueCommand, StoreUnavailable
from mailrider.testing.clock import FakeClock
from tests.support.queueing import Writing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from mailrider.model.event import Event
    from mailrider.queue.attempt_notes import AttemptNotes

DESTINATION = "example.net"

pytestmark = pytest.mark.filterwarnings(  # the writer's thread is ended from within: that is how a process dies here
    "ignore:Exception in thread mailrider queue writer:pytest.PytestUnhandledThreadExceptionWarning"
)


def noted(store: SQLiteStore) -> AttemptNotes:
    """Where it notes what is under way."""
    assert store.begun is not None
    return store.begun


class Worker:
    """A shard, opened by one process after another; each dies."""

    def __init__(self, folder: Path, *, holds_deadly: bool = True) -> None:
        self.clock = FakeClock()
        self.writing = Writing(self.clock)
        self.events: list[Event] = []
        self._folder = folder
        self._holds = holds_deadly

    def store(self, identity: Identity | None = None, fault: Callable[[str], None] | None = None) -> SQLiteStore:
        return SQLiteStore(
            self._folder,
            self.clock,
            emit=self.events.append,
            holds_deadly=self._holds,
            identity=identity,
            fault=fault,
        )

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[SQLiteStore]:
        async with self.store() as store:
            yield store

    @asynccontextmanager
    async def dying(self, identity: Identity | None = None) -> AsyncIterator[SQLiteStore]:
        """Open for a process that dies at the end: it writes nothing more, not even that it ends."""
        async with self.store(identity or replace(Identity.own(), start="1")) as store:
            yield store
            writer = await store.within(lambda _: threading.current_thread())
            unanswered = asyncio.create_task(store.within(_end_thread))
            await asyncio.to_thread(writer.join)
            unanswered.cancel()

    async def die(self, *, identity: Identity | None = None, begins: int = 100, is_told_to_stop: bool = False) -> None:
        """Start, lease what is due, begin so many attempts of it, and be no more."""
        async with self.dying(identity) as store:
            claimed = await store.claim([Quota(DESTINATION, 100)], self.clock.now())
            for job in claimed.jobs[:begins]:
                if self._holds:
                    noted(store).begin(job.ids[0])
            if is_told_to_stop:
                noted(store).forget()

    async def states(self) -> list[RecipientState]:
        async with self.alive() as store:
            return [each.state for each in await store.page(EVERYTHING, 0, 100)]


def _fail_before_commit(where: str) -> None:
    if where == "before commit":
        raise sqlite3.OperationalError("disk I/O error")


def _end_thread(_: object) -> None:
    raise SystemExit


async def queued(worker: Worker, *recipients: str) -> str:
    async with worker.alive() as store:
        message = worker.writing.message(*recipients)
        await store.add(message, leased=False)
        return format_id(message.id)


async def test_what_was_in_hand_at_three_deaths_in_a_row_is_held_and_told_of(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    message = await queued(worker, "a@example.net", "b@example.net")
    for _ in range(2):
        await worker.die()
    assert await worker.states() == [RecipientState.QUEUED] * 2
    await worker.die()
    assert await worker.states() == [RecipientState.HELD] * 2
    assert worker.events == [HeldAfterDeaths((message,))]


async def test_what_is_released_may_be_in_hand_at_two_more_deaths(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    await queued(worker)
    for _ in range(3):
        await worker.die()
    async with worker.alive() as store:
        await store.command(QueueCommand.RELEASE, EVERYTHING, worker.clock.now())
    for _ in range(2):
        await worker.die()
    assert await worker.states() == [RecipientState.QUEUED]
    await worker.die()
    assert await worker.states() == [RecipientState.HELD]


async def test_what_was_leased_and_only_waited_is_not_held(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    begun = await queued(worker)
    await worker.clock.advance(1)
    for _ in range(2):
        await queued(worker)
    for _ in range(3):
        await worker.die(begins=1)
    assert await worker.states() == [RecipientState.HELD, RecipientState.QUEUED, RecipientState.QUEUED]
    assert worker.events == [HeldAfterDeaths((begun,))]


async def test_an_attempt_that_has_ended_is_not_held(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    await queued(worker)
    for _ in range(4):
        async with worker.dying() as store:
            (job,) = (await store.claim([Quota(DESTINATION, 100)], worker.clock.now())).jobs
            noted(store).end(noted(store).begin(job.ids[0]))
    assert await worker.states() == [RecipientState.QUEUED]


async def test_a_death_after_the_word_to_stop_does_not_count(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    await queued(worker)
    for _ in range(4):
        await worker.die(is_told_to_stop=True)
    assert await worker.states() == [RecipientState.QUEUED]


async def test_no_notes_are_left_when_all_have_ended(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    await queued(worker)
    await worker.die()
    async with worker.alive():
        assert len(list(tmp_path.glob("queue.begun-*"))) == 1
    assert list(tmp_path.glob("queue.begun-*")) == []


async def test_a_death_counts_although_whoever_found_it_could_not_commit_that(tmp_path: Path) -> None:
    """Its notes are there for the next one, and nothing is told that was not done."""
    worker = Worker(tmp_path)
    message = await queued(worker)
    for _ in range(3):
        await worker.die()
        with pytest.raises(StoreUnavailable):
            async with worker.store(fault=_fail_before_commit):
                pass
    assert worker.events == []
    assert await worker.states() == [RecipientState.HELD]
    assert worker.events == [HeldAfterDeaths((message,))]
    assert list(tmp_path.glob("queue.begun-*")) == []


async def test_what_is_held_is_told_of_although_notes_cannot_be_removed_then(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    message = await queued(worker)
    for _ in range(3):
        await worker.die()
    commits = itertools.count(1)

    def second_fails(where: str) -> None:
        if where == "before commit" and next(commits) == 2:
            _fail_before_commit(where)

    with pytest.raises(StoreUnavailable):
        async with worker.store(fault=second_fails):
            pass
    assert worker.events == [HeldAfterDeaths((message,))]


async def test_notes_of_a_registration_that_is_gone_are_removed_and_count_for_nobody(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    await queued(worker)
    async with worker.alive():
        (notes,) = tmp_path.glob("queue.begun-*")
        octets = notes.read_bytes()
    (tmp_path / "queue.begun-77").write_bytes(octets)
    (tmp_path / "queue.begun-elsewhere").write_bytes(b"of somebody else")
    async with worker.alive():
        assert not (tmp_path / "queue.begun-77").exists()
        assert (tmp_path / "queue.begun-elsewhere").exists()


async def test_a_death_without_it_begins_the_count_anew(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    await queued(worker)
    for dies_with_it in (True, True, False, True, True):
        await (worker.die() if dies_with_it else _die_with_something_else(worker))
    assert await worker.states() == [RecipientState.QUEUED]


async def _die_with_something_else(worker: Worker) -> None:
    async with worker.dying() as store:
        message = worker.writing.message("x@elsewhere.test")
        await store.add(message, leased=True)
        noted(store).begin(message.id + 1)
    async with worker.alive() as after:
        (other,) = [each for each in await after.page(EVERYTHING, 0, 10) if each.destination == "elsewhere.test"]
        await after.command(QueueCommand.REMOVE, replace(EVERYTHING, message=other.message_id), worker.clock.now())


@pytest.mark.parametrize(
    "identity",
    [Identity("another boot", "", 1, ""), Identity("", "", 1, "")],
    ids=["the machine went down", "nothing is known"],
)
async def test_a_death_with_the_machine_does_not_count(tmp_path: Path, identity: Identity) -> None:
    worker = Worker(tmp_path)
    await queued(worker)
    for _ in range(4):
        await worker.die(identity=identity)
        await worker.clock.advance(3600)
    assert await worker.states() == [RecipientState.QUEUED]
    assert worker.events == []


async def test_a_daemon_of_one_process_holds_nothing_for_its_deaths(tmp_path: Path) -> None:
    worker = Worker(tmp_path, holds_deadly=False)
    await queued(worker)
    for _ in range(4):
        await worker.die()
    assert await worker.states() == [RecipientState.QUEUED]
