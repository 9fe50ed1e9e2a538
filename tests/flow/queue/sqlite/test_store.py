"""The SQLite store in trouble: full, read-only, locked, damaged. It keeps what it has, and comes back by itself."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import subprocess
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.model.queue_event import RecipientsUnreadable
from mailrider.queue import disk as disk_module
from mailrider.queue.ids import format_id
from mailrider.queue.message import EVERYTHING, Change, Filter, NewState, Quota, RecipientState, Settlement
from mailrider.queue.sqlite import file as file_module
from mailrider.queue.sqlite import wal as log_module
from mailrider.queue.sqlite.file import DAMAGED, FILE
from mailrider.queue.sqlite.owner import Identity, Liveness
from mailrider.queue.sqlite.schema import MIGRATIONS, VERSION
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.sqlite.threads import ReadThread
from mailrider.queue.sqlite.wal import WALKeeper
from mailrider.queue.store import IdTaken, QueueCommand, StoreDamaged, StoreFull, StoreUnavailable
from mailrider.testing.clock import FakeClock
from tests.support.queueing import AtOnce, Writing, chunked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from mailrider.model.event import Event

LARGE = b"Subject: x\r\n\r\n" + b"x" * 50_000 + b"\r\n"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def writing(clock: FakeClock) -> Writing:
    return Writing(clock)


async def count(store: SQLiteStore) -> int:
    return len(await store.page(EVERYTHING, 0, 10_000))


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


class NoThread(AtOnce):
    """There is no thread to be had for the keeper."""

    def submit(self, work: Callable[[], None]) -> None:
        type(self).submitted += 1
        raise RuntimeError("can't start new thread")


# --- What can become of a disk -------------------------------------------------------------------


@AS_ROOT
async def test_a_full_disk_is_a_temporary_error_and_keeps_what_is_there(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        async with SQLiteStore(disk / "queue", clock) as store:
            kept = 0

            async def fill() -> None:
                nonlocal kept
                while True:
                    await store.add(writing.message(octets=LARGE), leased=False)
                    kept += 1

            with pytest.raises(StoreFull) as caught:
                await fill()
            assert (caught.value.code, caught.value.enhanced) == (452, "4.3.1")
            assert kept > 3
            assert await count(store) == kept
            subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
            await store.add(writing.message(), leased=False)
            assert await count(store) == kept + 1


@AS_ROOT
async def test_a_disk_that_becomes_read_only_is_a_temporary_error(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        async with SQLiteStore(disk / "queue", clock) as store:
            await store.add(writing.message(), leased=False)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreUnavailable):
            async with SQLiteStore(disk / "queue", clock):
                pass
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        async with SQLiteStore(disk / "queue", clock) as store:
            assert await count(store) == 1


async def test_a_store_that_another_program_locks_is_a_temporary_error(
    tmp_path: Path, clock: FakeClock, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "PATIENCE", 0.05)
    async with SQLiteStore(tmp_path, clock) as store:
        locker = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.add(writing.message(), leased=False)
        locker.execute("ROLLBACK")
        locker.close()
        await store.add(writing.message(), leased=False)
        assert await count(store) == 1


async def test_out_of_file_descriptors_is_a_temporary_error(tmp_path: Path, clock: FakeClock, writing: Writing) -> None:
    async with SQLiteStore(tmp_path / "a", clock) as store:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            with pytest.raises(StoreUnavailable):
                async with SQLiteStore(tmp_path / "b", clock):
                    pass
            await store.add(writing.message(), leased=False)  # an open store needs no more files
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert await count(store) == 1


async def test_a_directory_that_cannot_be_made_is_a_temporary_error(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        async with SQLiteStore(tmp_path / "file" / "queue", clock):
            pass


async def test_a_store_that_is_not_open_says_so(tmp_path: Path, clock: FakeClock, writing: Writing) -> None:
    store = SQLiteStore(tmp_path, clock)
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.add(writing.message(), leased=False)
    with pytest.raises(StoreUnavailable, match="not open"):
        await count(store)


# --- Damage --------------------------------------------------------------------------------------


def damage(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    for start in range(4096, len(octets), 512):
        octets[start : start + 256] = b"\xff" * len(octets[start : start + 256])
    path.write_bytes(octets)


async def test_a_damaged_file_is_set_aside_and_nothing_is_accepted_until_it_is_moved(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    location = tmp_path / "queue"
    async with SQLiteStore(location, clock) as store:
        await store.add(writing.message(), leased=False)
    damage(location / FILE)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match=r"set aside as .*queue\.db\.damaged-2026"):
            async with SQLiteStore(location, clock):
                pass
    assert not (location / FILE).exists()
    for aside in location.glob(f"{DAMAGED}-*"):
        aside.rename(tmp_path / aside.name)
    async with SQLiteStore(location, clock) as store:
        assert await count(store) == 0


async def test_what_is_no_database_is_set_aside(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / FILE).write_bytes(b"this is not a database, but it is long enough to look like one" * 100)
    with pytest.raises(StoreDamaged):
        async with SQLiteStore(tmp_path, clock):
            pass


async def test_of_a_note_of_damage_only_its_beginning_is_told(tmp_path: Path, clock: FakeClock) -> None:
    async with SQLiteStore(tmp_path, clock):
        pass
    with (tmp_path / DAMAGED).open("wb") as note:
        note.write(b"torn \x1b[2J page")
        note.truncate(1 << 40)  # sparse: more than any memory
    with pytest.raises(StoreDamaged, match=r"\(torn  \[2J page\)") as caught:
        async with SQLiteStore(tmp_path, clock):
            pass
    assert len(str(caught.value)) < 2000


async def test_damage_that_shows_later_is_noted_for_the_next_opening(
    tmp_path: Path, clock: FakeClock, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLiteStore(tmp_path, clock) as store:
        for _ in range(50):
            await store.add(writing.message(octets=b"Subject: x\r\n\r\n" + b"x" * 20_000 + b"\r\n"), leased=False)
    monkeypatch.setattr(file_module, "CHECKED", 0)
    octets = bytearray((tmp_path / FILE).read_bytes())
    octets[40_000:] = b"\xff" * len(octets[40_000:])
    (tmp_path / FILE).write_bytes(octets)

    async def use() -> None:
        async with SQLiteStore(tmp_path, clock) as store:
            await count(store)
            await store.stats(clock.now(), 10)
            await store.claim([Quota("example.net", 100)], clock.now())

    with pytest.raises(StoreDamaged):
        await use()
    with pytest.raises(StoreDamaged, match="set aside"):
        async with SQLiteStore(tmp_path, clock):
            pass


# --- Versions ------------------------------------------------------------------------------------


async def test_a_store_of_another_program_is_left_alone(tmp_path: Path, clock: FakeClock) -> None:
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(StoreUnavailable, match="not a queue of mailrider"):
        async with SQLiteStore(tmp_path, clock):
            pass


async def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path, clock: FakeClock) -> None:
    async with SQLiteStore(tmp_path, clock):
        pass
    with sqlite3.connect(tmp_path / FILE) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    with pytest.raises(StoreUnavailable, match="newer mailrider"):
        async with SQLiteStore(tmp_path, clock):
            pass


async def test_an_older_store_is_brought_up_to_date(
    tmp_path: Path, clock: FakeClock, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLiteStore(tmp_path, clock) as store:
        await store.add(writing.message(), leased=False)
    monkeypatch.setattr(file_module, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE more (x);"))
    monkeypatch.setattr(file_module, "VERSION", VERSION + 1)
    async with SQLiteStore(tmp_path, clock) as store:
        assert await count(store) == 1
    with sqlite3.connect(tmp_path / FILE) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)
        connection.execute("SELECT x FROM more")
    connection.close()


async def test_a_step_that_fails_leaves_the_older_store_as_it_was(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SQLiteStore(tmp_path, clock):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(file_module, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE more (x); CREATE TABLE more (x);"))
        patch.setattr(file_module, "VERSION", VERSION + 1)
        with pytest.raises(StoreUnavailable):
            async with SQLiteStore(tmp_path, clock):
                pass
    async with SQLiteStore(tmp_path, clock) as store:
        assert await count(store) == 0


# --- How it keeps things -------------------------------------------------------------------------


async def test_what_was_added_is_there_after_reopening(tmp_path: Path, clock: FakeClock, writing: Writing) -> None:
    async with SQLiteStore(tmp_path, clock) as store:
        await asyncio.gather(*(store.add(writing.message(), leased=False) for _ in range(300)))
    async with SQLiteStore(tmp_path, clock) as store:
        assert await count(store) == 300


async def test_one_bad_message_does_not_fail_those_of_the_same_commit(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    async with SQLiteStore(tmp_path, clock) as store:
        twice = writing.message()
        messages = [writing.message(), twice, writing.message(), twice, writing.message()]
        results = await asyncio.gather(*(store.add(each, leased=False) for each in messages), return_exceptions=True)
        assert [type(result) for result in results if result is not None] == [IdTaken]
        assert await count(store) == 4


async def test_content_without_a_message_is_swept_when_its_writer_is_dead(tmp_path: Path, clock: FakeClock) -> None:
    dead = SQLiteStore(tmp_path, clock, identity=Identity("another boot", "", 1, ""))
    async with dead:
        await dead.write_content(chunked(b"x" * 100_000))
        async with SQLiteStore(tmp_path, clock):
            pass
    with sqlite3.connect(tmp_path / FILE) as connection:
        assert connection.execute("SELECT count(*) FROM chunk").fetchone() == (0,)
    connection.close()


async def test_content_that_is_being_written_by_the_living_is_not_swept(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    async with SQLiteStore(tmp_path, clock) as store:
        stored = await store.write_content(chunked(b"x" * 100_000))
        async with SQLiteStore(tmp_path, clock):
            pass
        await store.add(writing.message(stored=stored), leased=False)
        (job,) = (await store.claim([Quota("example.net", 1)], clock.now())).jobs
        assert sum([len(each) async for each in (await store.content(job)).pieces()]) == 100_000


def chunks_in(folder: Path) -> int:
    with closing(sqlite3.connect(folder / FILE)) as connection:
        (chunks,) = connection.execute("SELECT count(*) FROM chunk").fetchone()
        (spooled,) = connection.execute("SELECT count(*) FROM spool").fetchone()
    return int(chunks + spooled)


async def test_a_removal_deletes_the_content_too_while_another_process_delivers(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    async with SQLiteStore(tmp_path, clock) as daemon:
        stored = await daemon.write_content(chunked(*[b"x" * 65536] * 200))
        await daemon.add(writing.message(stored=stored), leased=False)
        async with SQLiteStore(tmp_path, clock) as operator:
            assert (await operator.command(QueueCommand.REMOVE, EVERYTHING, clock.now())).changed == 1
        assert chunks_in(tmp_path) == 0


async def test_content_of_a_message_that_failed_while_it_was_written_is_deleted(
    tmp_path: Path, clock: FakeClock
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise StoreFull("there is no space")

    async with SQLiteStore(tmp_path, clock) as store:
        with pytest.raises(StoreFull):
            await store.write_content(broken())
        assert chunks_in(tmp_path) == 0


async def test_content_whose_writer_was_cancelled_is_swept_by_the_living_process(
    tmp_path: Path, clock: FakeClock
) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        begun.set()
        await asyncio.Event().wait()

    async with SQLiteStore(tmp_path, clock) as store:
        task = asyncio.create_task(store.write_content(endless()))
        await begun.wait()
        await store.keep_alive(clock.now())
        assert chunks_in(tmp_path) == 3  # it is still being written
        task.cancel()
        await asyncio.wait([task])
        await store.keep_alive(clock.now())
        assert chunks_in(tmp_path) == 0


async def test_content_whose_writer_is_cancelled_before_its_first_chunk_stands_is_swept(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with SQLiteStore(tmp_path, clock) as store:
        task = asyncio.create_task(store.write_content(chunked(b"x" * 100_000)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await store.keep_alive(clock.now())
        assert chunks_in(tmp_path) == 0


async def test_content_of_a_message_that_is_not_accepted_is_deleted(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    async with SQLiteStore(tmp_path, clock) as store:
        stored = await store.write_content(chunked(b"x" * 100_000))
        message = writing.message(stored=stored)
        with pytest.raises(StoreUnavailable):
            await store.add(replace(message, route=None), leased=False)  # type: ignore[arg-type] # a mistake of ours
        assert chunks_in(tmp_path) == 0


async def test_content_of_a_message_whose_id_is_taken_stays_for_it(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    async with SQLiteStore(tmp_path, clock) as store:
        first = writing.message()
        await store.add(first, leased=False)
        message = writing.message(stored=await store.write_content(chunked(b"x" * 100_000)))
        with pytest.raises(IdTaken):
            await store.add(replace(message, id=first.id), leased=False)
        await store.add(message, leased=False)
        assert await store.octets(message.id) == b"x" * 100_000


async def test_a_message_whose_content_was_swept_meanwhile_is_not_accepted(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    async with SQLiteStore(tmp_path, clock, identity=Identity("another boot", "", 1, "")) as held_for_dead:
        stored = await held_for_dead.write_content(chunked(b"x" * 100_000))
        async with SQLiteStore(tmp_path, clock):
            pass
        with pytest.raises(StoreUnavailable, match="content"):
            await held_for_dead.add(writing.message(stored=stored), leased=False)
        assert await count(held_for_dead) == 0


async def test_content_of_what_is_done_is_deleted_in_steps_and_space_given_back(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    async with SQLiteStore(tmp_path, clock) as store:
        stored = await store.write_content(chunked(*[b"x" * 65536] * 400))
        await store.add(writing.message(stored=stored), leased=False)
        (job,) = (await store.claim([Quota("example.net", 1)], clock.now())).jobs
        assert (await store.settle(Settlement(job, (Change(job.ids[0], NewState.DONE),), clock.now()))).held
        for _ in range(6):
            await store.keep_alive(clock.now())
    assert (tmp_path / FILE).stat().st_size < 5_000_000


@pytest.mark.parametrize(
    ("restart", "cut", "most"),
    [
        pytest.param(0, 100_000_000, 1_500_000, id="the writer has it begun anew"),
        pytest.param(100_000_000, 2_000_000, 3_000_000, id="the writer cuts it"),
    ],
)
async def test_the_log_does_not_grow_without_end_if_the_keeper_is_always_late(
    tmp_path: Path,
    clock: FakeClock,
    writing: Writing,
    monkeypatch: pytest.MonkeyPatch,
    restart: int,
    cut: int,
    most: int,
) -> None:
    monkeypatch.setattr(disk_module, "LOG", 0)
    monkeypatch.setattr(log_module, "CHECKPOINT", 500_000)
    monkeypatch.setattr(log_module, "RESTART", restart)
    monkeypatch.setattr(log_module, "CUT", cut)
    monkeypatch.setattr(log_module, "ThreadPoolExecutor", NoThread)
    async with SQLiteStore(tmp_path, clock) as store:
        for _ in range(400):
            await store.add(writing.message(octets=b"Subject: x\r\n\r\n" + b"x" * 20_000 + b"\r\n"), leased=False)
        assert (tmp_path / f"{FILE}-wal").stat().st_size < most


async def test_what_is_leased_already_is_given_although_the_disk_is_full_for_the_rest(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    commits_left = 3  # of two messages, and of what is leased first

    def full(where: str) -> None:
        nonlocal commits_left
        if is_open and where == "before commit":
            if not commits_left:
                raise StoreFull("there is no space")
            commits_left -= 1

    is_open = False
    async with SQLiteStore(tmp_path, clock, fault=full) as store:
        is_open = True
        await store.add(writing.message("b@a.example"), leased=False)
        await store.add(writing.message("b@z.example"), leased=False)
        names = ["a.example", *(f"m{number}.example" for number in range(70)), "z.example"]
        claimed = await store.claim([Quota(name, 1) for name in names], clock.now())
        assert [job.destination for job in claimed.jobs] == ["a.example"]
        assert claimed.left["z.example"] == clock.now()


async def test_contents_that_cannot_be_read_do_not_lose_what_is_leased(
    tmp_path: Path, clock: FakeClock, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise MemoryError

    async with SQLiteStore(tmp_path, clock) as store:
        await store.add(writing.message("b@example.net"), leased=False)
        monkeypatch.setattr(ReadThread, "run", broken)
        (job,) = (await store.claim([Quota("example.net", 1)], clock.now(), 1_000_000)).jobs
        assert job.content is None


async def test_the_log_of_a_store_at_rest_is_carried_over_too(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "CHECKPOINT", 40_000)
    monkeypatch.setattr(log_module, "ThreadPoolExecutor", AtOnce)
    async with SQLiteStore(tmp_path, clock) as store:
        for _ in range(20):
            await store.keep_alive(clock.now())
    assert AtOnce.submitted


async def test_what_is_deleted_counts_as_written_too(
    tmp_path: Path, clock: FakeClock, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    monkeypatch.setattr(log_module, "CHECKPOINT", 0)
    monkeypatch.setattr(WALKeeper, "committed", lambda _, octets: counted.append(octets))
    async with SQLiteStore(tmp_path, clock) as store:
        stored = await store.write_content(chunked(*[b"x" * 65536] * 100))
        await store.add(writing.message(stored=stored), leased=False)
        (job,) = (await store.claim([Quota("example.net", 1)], clock.now())).jobs
        await store.settle(Settlement(job, (Change(job.ids[0], NewState.DONE),), clock.now()))
        counted.clear()
        await store.keep_alive(clock.now())
    assert sum(counted) >= 100 * 4096


async def test_a_keeper_that_gets_no_thread_is_asked_again(
    tmp_path: Path, clock: FakeClock, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "CHECKPOINT", 1)
    monkeypatch.setattr(log_module, "ThreadPoolExecutor", NoThread)
    async with SQLiteStore(tmp_path, clock) as store:
        before = NoThread.submitted
        for _ in range(2):
            await store.add(writing.message(), leased=False)
        assert len(await store.page(EVERYTHING, 0, 10)) == NoThread.submitted - before == 2


async def test_the_log_is_carried_over_now_and_then_and_not_with_each_commit(
    tmp_path: Path, clock: FakeClock, writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "ThreadPoolExecutor", AtOnce)
    async with SQLiteStore(tmp_path, clock) as store:
        for _ in range(400):
            await store.add(writing.message(octets=b"Subject: x\r\n\r\n" + b"x" * 20_000 + b"\r\n"), leased=False)
    assert 1 <= AtOnce.submitted <= 400 * (20_100 + 3 * 4096) // log_module.CHECKPOINT


async def test_a_registration_that_nobody_can_look_at_expires(
    tmp_path: Path, clock: FakeClock, writing: Writing
) -> None:
    unknown = SQLiteStore(tmp_path, clock, identity=Identity("", "", 1, ""))
    async with unknown:
        await unknown.add(writing.message(), leased=True)
        async with SQLiteStore(tmp_path, clock) as store:
            assert store.recovered == 0
            await clock.advance(660)
            assert await store.keep_alive(clock.now()) == 1
        lease = unknown.lease
        await unknown.keep_alive(clock.now())
        assert unknown.lease != lease


def test_this_process_is_alive_and_others_are_what_they_are() -> None:
    own = Identity.own()
    assert own.liveness() is Liveness.ALIVE
    assert Identity(own.boot, own.namespace, own.pid, "1").liveness() is Liveness.DEAD
    assert Identity(own.boot, "another", own.pid, own.start).liveness() is Liveness.UNKNOWN
    assert Identity("another", own.namespace, own.pid, own.start).liveness() is Liveness.DEAD
    assert Identity.decode(own.encode()) == own


def test_a_process_that_is_hidden_from_us_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Identity.own()
    child = subprocess.Popen(["sleep", "60"])
    try:
        hidden = Path(f"/proc/{child.pid}/stat")
        start = hidden.read_text().rpartition(")")[2].split()[19]
        other = Identity(own.boot, own.namespace, child.pid, start)
        assert other.liveness() is Liveness.ALIVE
        read = Path.read_text

        def refuse(path: Path, *arguments: Any, **options: Any) -> str:
            if path == hidden:
                raise FileNotFoundError(path)
            return read(path, *arguments, **options)

        monkeypatch.setattr(Path, "read_text", refuse)
        assert other.liveness() is Liveness.UNKNOWN
    finally:
        child.kill()
        child.wait()
    assert other.liveness() is Liveness.DEAD


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE recipient SET mailbox = '@@' WHERE message = ?",
        "UPDATE recipient SET options = '{}' WHERE message = ?",
        'UPDATE message SET options = \'{"of": "the future"}\' WHERE id = ?',
        "UPDATE message SET options = '{' WHERE id = ?",
    ],
)
async def test_what_cannot_be_read_is_held_and_keeps_nothing_else_up(
    tmp_path: Path, clock: FakeClock, writing: Writing, damage: str
) -> None:
    bad, good = writing.message("b@example.net"), writing.message("c@example.net")
    events: list[Event] = []
    async with SQLiteStore(tmp_path, clock, emit=events.append) as store:
        await store.add(bad, leased=False)
        await store.add(good, leased=False)
        with closing(sqlite3.connect(tmp_path / FILE)) as connection:
            connection.execute(damage, (bad.id,))
            connection.commit()
        (job,) = (await store.claim([Quota("example.net", 10)], clock.now())).jobs
        assert job.message_id == good.id
        assert [entry.state for entry in await store.page(EVERYTHING, 0, 10)] == [
            RecipientState.HELD,
            RecipientState.LEASED,
        ]
        assert (await store.command(QueueCommand.REMOVE, Filter(message=bad.id), clock.now())).changed == 1
    (event,) = events
    assert isinstance(event, RecipientsUnreadable)
    assert event.message == format_id(bad.id)


# https://github.com/OpenSMTPD/OpenSMTPD/issues/373
@pytest.mark.parametrize(
    "damage",
    [
        "due = 9223372036854775807",
        "due = -9223372036854775808",
        "state = 77",
        "last = '{', state = 2",
        "last = '[]', state = 2",
    ],
)
async def test_a_row_that_nobody_wrote_keeps_nothing_else_up_and_can_be_seen_and_removed(
    tmp_path: Path, clock: FakeClock, writing: Writing, damage: str
) -> None:
    bad, good = writing.message("b@a.example"), writing.message("c@example.net")
    async with SQLiteStore(tmp_path, clock) as store:
        await store.add(bad, leased=False)
        await store.add(good, leased=False)
        with closing(sqlite3.connect(tmp_path / FILE)) as connection:
            connection.execute(f"UPDATE recipient SET {damage} WHERE message = ?", (bad.id,))  # noqa: S608 # ours
            connection.commit()
        assert "example.net" in [each.destination for each in await store.destinations(None, 10)]
        (job,) = (await store.claim([Quota("example.net", 10)], clock.now())).jobs
        assert job.message_id == good.id
        assert [entry.message_id for entry in await store.page(EVERYTHING, 0, 10)] == [bad.id, good.id]
        assert (await store.stats(clock.now(), 10)).messages == 2
        assert (await store.command(QueueCommand.REMOVE, Filter(message=bad.id), clock.now())).changed == 1


async def test_what_is_settled_is_not_written_once_more(tmp_path: Path, clock: FakeClock, writing: Writing) -> None:
    """Debian's SQLite overwrites what is deleted, unless it is told not to: each message would be written twice."""

    def pages_in_log() -> int:
        return int(beside.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])

    async with SQLiteStore(tmp_path, clock) as store:
        with closing(sqlite3.connect(tmp_path / FILE)) as beside:
            await store.add(writing.message("b@example.net", octets=LARGE), leased=False)
            (job,) = (await store.claim([Quota("example.net", 1)], clock.now())).jobs
            assert pages_in_log() > len(LARGE) / 4096
            await store.settle(Settlement(job, tuple(Change(id, NewState.DONE) for id in job.ids), clock.now()))
            assert pages_in_log() < len(LARGE) / 4096
        assert await count(store) == 0
