"""A queue on a disk that is full, by its own doing or by others': it moves on until it is empty."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.clock import SystemClock
from mailrider.dsn.notification import NotificationAuthor
from mailrider.model.domain import Domain
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import AttemptReport
from mailrider.model.queue_event import QueueHasSpace, QueueShort
from mailrider.queue.bounces import BouncePolicy, Bounces
from mailrider.queue.disk import SPARE_FILE
from mailrider.queue.ids import IdSource
from mailrider.queue.message import EVERYTHING, Change, NewState, Progress, Quota, Settlement
from mailrider.queue.retry import Rules, Schedule
from mailrider.queue.service import DeliveryQueue
from mailrider.queue.sqlite import views
from mailrider.queue.sqlite import wal as log_module
from mailrider.queue.sqlite.file import FILE
from mailrider.queue.sqlite.shards import ShardsReader
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.store import QueueCommand, StoreFull
from mailrider.queue.work import Work
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from tests.support.long_runs import LONG
from tests.support.queueing import BUSY, AtOnce, Writing, chunked, deferred, delivered, envelope, failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Event
    from mailrider.model.handover import Handover
    from mailrider.model.outcome import Outcome

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
pytestmark = AS_ROOT

TEXT = b"Subject: x\r\n\r\n" + b"x" * 20_000 + b"\r\n"


@contextmanager
def mounted(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "32m") as path:
        yield path


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def fill(disk: Path, name: str = "others") -> None:
    """Others' files take all that is left, to the last octet; also what a running queue gives back meanwhile."""
    with (disk / name).open("ab", buffering=0) as file:
        while free(disk):
            with suppress(OSError):
                file.write(b"\0" * 4096)


class Running:
    """A queue that delivers, on a small disk."""

    def __init__(self, disk: Path) -> None:
        self.clock: Clock = SystemClock()
        self.rng = random.Random(1)
        self.ids = IdSource(self.clock)
        self.location = disk / "queue"
        self.outcome: Callable[[Recipient], Outcome] = delivered
        self.seen = 0
        self.events: list[Event] = []

    async def deliver(self, given: Envelope, content: Content, _handover: Handover = DIRECT) -> AttemptReport:
        self.seen += 1
        assert sum([len(each) async for each in content.pieces()]) == content.size
        return AttemptReport(tuple(map(self.outcome, given.recipients)))

    def queue(self, *, delivering: bool = True) -> DeliveryQueue:
        policy = BouncePolicy(NotificationAuthor(Domain("mx.example.org"), Domain("example.org")), False, lambda _: "")
        rules = Rules(Schedule(timedelta(minutes=10), 2.0, timedelta(hours=1)))
        work = Work({"": self}, rules, Bounces(policy, self.ids, self.events.append), 16)
        store = SQLiteStore(self.location, self.clock, emit=self.events.append)
        return DeliveryQueue(store, work if delivering else None, self.ids, self.clock, self.rng, self.events.append)

    async def submit_until_refused(self, queue: DeliveryQueue, octets: bytes = TEXT) -> int:
        content = Content.inspect(octets)
        for taken in range(10_000):
            try:
                await queue.submit(envelope(f"b{taken}@d{taken % 50}.example"), content)
            except StoreFull:
                return taken
        raise AssertionError("it is never full")


@pytest.fixture
def log_kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the log is, and so what is free, does not depend on when a thread gets its turn."""
    monkeypatch.setattr(log_module, "ThreadPoolExecutor", AtOnce)


async def deliver_all(queue: DeliveryQueue) -> None:
    await queue.command(QueueCommand.RETRY, EVERYTHING)
    await queue.idle()


async def is_empty(queue: DeliveryQueue) -> bool:
    return await queue.store.page(EVERYTHING, 0, 1) == []


# --- Filled by its own mail ----------------------------------------------------------------------


@pytest.mark.parametrize("octets", [TEXT, b"Subject: x\r\n\r\n" + b"x" * 300_000 + b"\r\n"], ids=["small", "large"])
async def test_new_mail_is_refused_while_a_reserve_is_left_and_accepted_again_when_the_queue_is_empty(
    disk: Path, octets: bytes
) -> None:
    running = Running(disk)
    async with running.queue(delivering=False) as queue:
        taken = await running.submit_until_refused(queue, octets)
        assert taken * len(octets) > 5_000_000
        assert free(disk) >= (32 << 20) // 20
        assert any(isinstance(event, QueueShort) for event in running.events)
    async with running.queue() as queue:
        await queue.idle()
        assert running.seen == taken
        assert await is_empty(queue)
        await queue.store.keep_alive(running.clock.now())
        await queue.submit(envelope(), Content.inspect(octets))
        await queue.idle()
    assert running.seen == taken + 1


async def test_space_that_became_free_is_given_back_and_mail_is_accepted_again_while_the_daemon_runs(
    disk: Path,
) -> None:
    running = Running(disk)
    running.outcome = deferred
    async with running.queue() as queue:
        taken = await running.submit_until_refused(queue)
        running.outcome = delivered
        await deliver_all(queue)
        assert await is_empty(queue)
        assert running.seen >= taken
        await queue.store.keep_alive(running.clock.now())
        assert free(disk) > 2 * (32 << 20) // 20
        await queue.submit(envelope(), Content.inspect(TEXT))
        assert any(isinstance(event, QueueHasSpace) for event in running.events)


@pytest.mark.usefixtures("log_kept_at_once")
async def test_large_mail_that_has_no_space_is_told_of_once_though_small_mail_is_taken(disk: Path) -> None:
    running = Running(disk)
    large = b"Subject: x\r\n\r\n" + b"x" * 700_000 + b"\r\n"
    async with running.queue(delivering=False) as queue:
        await running.submit_until_refused(queue, large)
        for _ in range(5):
            await queue.store.keep_alive(running.clock.now())
            await queue.submit(envelope(), Content.inspect(TEXT))
            with pytest.raises(StoreFull):
                await queue.submit(envelope(), Content.inspect(large))
        (told,) = [each for each in running.events if isinstance(each, QueueShort | QueueHasSpace)]
    assert isinstance(told, QueueShort)
    assert told.location == str(running.location)


async def test_the_reserve_is_what_the_operator_says(disk: Path, tmp_path: Path) -> None:
    clock = FakeClock()
    writing = Writing(clock)
    async with SQLiteStore(disk / "queue", clock, reserve=20 << 20) as store:
        with pytest.raises(StoreFull, match="reserve") as caught:
            await asyncio.gather(*(store.add(writing.message(octets=TEXT), leased=False) for _ in range(1000)))
        assert (caught.value.code, caught.value.enhanced) == (452, "4.3.1")
        assert free(disk) > 19 << 20
        with pytest.raises(StoreFull):
            await store.write_content(chunked(b"x" * 13_000_000))  # more than there is beside the reserve


class AtTheEnd(AtOnce):
    """A thread that gets no turn before the store is closed."""

    def __init__(self, *_: object) -> None:
        self._works: list[Callable[[], None]] = []

    def submit(self, work: Callable[[], None]) -> None:
        self._works.append(work)

    def shutdown(self) -> None:
        for work in self._works:
            work()


@pytest.mark.parametrize("octets", [200, 2_000, 20_000, 60_000])
async def test_the_reserve_is_left_however_late_the_log_is_carried_over(
    disk: Path, octets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "ThreadPoolExecutor", AtTheEnd)
    running = Running(disk)
    running.clock = FakeClock()  # as if all came in a moment: how much is free is asked when all of it is taken
    async with running.queue(delivering=False) as queue:
        await running.submit_until_refused(queue, b"Subject: x\r\n\r\n" + b"x" * octets + b"\r\n")
    assert not (running.location / f"{FILE}-wal").exists()
    assert free(disk) >= (32 << 20) // 20


# --- Filled by others ----------------------------------------------------------------------------


@pytest.mark.usefixtures("log_kept_at_once")
@pytest.mark.parametrize("outcome", [delivered, failed, deferred], ids=["delivered", "failed", "deferred"])
async def test_a_disk_that_others_have_filled_holds_up_nothing_that_is_queued(
    disk: Path, outcome: Callable[[Recipient], Outcome]
) -> None:
    running = Running(disk)
    running.outcome = deferred
    async with running.queue() as queue:
        taken = await running.submit_until_refused(queue)
        await queue.idle()
        running.outcome = outcome
        fill(disk)
        with pytest.raises(StoreFull):
            await queue.submit(envelope(), Content.inspect(TEXT))
        before = running.seen
        for _ in range(5 if LONG else 2):
            await deliver_all(queue)
            fill(disk)
        assert running.seen >= before + taken
        running.outcome = delivered
        await deliver_all(queue)
        assert await is_empty(queue)


@pytest.mark.usefixtures("log_kept_at_once")
async def test_a_queue_starts_on_a_full_disk_and_gets_empty(disk: Path) -> None:
    running = Running(disk)
    async with running.queue(delivering=False) as queue:
        taken = await running.submit_until_refused(queue)
    assert not (running.location / f"{FILE}-wal").exists()
    fill(disk)
    async with running.queue() as queue:
        await queue.idle()
        assert running.seen == taken
        assert await is_empty(queue)


async def test_the_spare_file_comes_back_when_there_is_space(disk: Path) -> None:
    running = Running(disk)
    async with running.queue(delivering=False) as queue:
        await running.submit_until_refused(queue)
    spare = (running.location / SPARE_FILE).stat().st_size
    assert spare == (32 << 20) // 16
    fill(disk)
    async with running.queue() as queue:
        await queue.idle()
        assert (running.location / SPARE_FILE).stat().st_size < spare
        (disk / "others").unlink()
        await queue.store.keep_alive(running.clock.now())
        assert (running.location / SPARE_FILE).stat().st_size == spare


async def test_a_queue_of_many_recipients_is_removed_on_a_full_disk(disk: Path) -> None:
    clock = FakeClock()
    writing = Writing(clock)
    async with SQLiteStore(disk / "queue", clock) as store:
        for number in range(60):
            names = [f"b{each}@d{each * 7919 % 1000}.example" for each in range(number, number + 200)]
            await store.add(writing.message(*names), leased=False)
    fill(disk)
    async with SQLiteStore(disk / "queue", clock) as store:
        assert (await store.command(QueueCommand.REMOVE, EVERYTHING, clock.now())).changed == 12_000
        assert await store.page(EVERYTHING, 0, 1) == []


async def test_on_a_full_disk_an_outcome_is_kept_without_its_history(disk: Path) -> None:
    clock = FakeClock()
    writing = Writing(clock)
    names = [f"d{number}.example" for number in range(500)]
    async with SQLiteStore(disk / "queue", clock) as store:
        for name in names:
            await store.add(writing.message(f"b@{name}", octets=b"Subject: x\r\n\r\n"), leased=False)
        jobs = (await store.claim([Quota(name, 1) for name in names], clock.now())).jobs
        fill(disk)
        for job in jobs:
            (who,) = job.envelope.recipients
            change = Change(job.ids[0], NewState.QUEUED, clock.now(), Progress(1, last=BUSY), deferred(who))
            assert (await store.settle(Settlement(job, (change,), clock.now()))).held
        assert [entry.progress.tries for entry in await store.page(EVERYTHING, 0, 1000)] == [1] * 500
        last = await store.find(jobs[-1].message_id)
        assert last is not None
        assert last.attempts == {}


# --- Looking -------------------------------------------------------------------------------------


async def test_a_reader_writes_nothing(disk: Path) -> None:
    clock = FakeClock()
    writing = Writing(clock)
    async with SQLiteStore(disk / "queue", clock) as store:
        message = writing.message()
        await store.add(message, leased=False)
    fill(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = sorted(each.name for each in (disk / "queue").iterdir())
    reader = ShardsReader(disk / "queue", clock)
    assert [entry.message_id async for entry in reader.entries(EVERYTHING)] == [message.id]
    assert await reader.find(message.id) is not None
    assert await reader.octets(message.id) is not None
    assert (await reader.stats(clock.now(), 10)).messages == 1
    assert sorted(each.name for each in (disk / "queue").iterdir()) == before


async def test_a_reader_sees_what_a_running_daemon_has_just_accepted(disk: Path) -> None:
    clock = FakeClock()
    writing = Writing(clock)
    async with SQLiteStore(disk / "queue", clock) as store:
        await store.add(writing.message(), leased=False)
        fill(disk)
        reader = ShardsReader(disk / "queue", clock)
        assert len([each async for each in reader.entries(EVERYTHING)]) == 1


async def test_what_a_reader_read_while_somebody_opened_the_store_is_read_again(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    writing = Writing(clock)
    async with SQLiteStore(disk / "queue", clock) as store:
        await store.add(writing.message(), leased=False)
    looks: list[int] = []

    def page(*arguments: Any) -> Any:
        looks.append(1)
        if len(looks) == 1:
            with closing(sqlite3.connect(disk / "queue" / FILE)) as other:
                other.execute("DELETE FROM recipient")
                other.commit()
        return views_page(*arguments)

    views_page = views.page
    monkeypatch.setattr(views, "page", page)
    assert [each async for each in ShardsReader(disk / "queue", clock).entries(EVERYTHING)] == []
    assert len(looks) == 2
