"""Several worker processes of one daemon: counts add up in one store, one sends, and after its death another one."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections import Counter
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mailrider.reporting.store import FILE
from tests.flow.reporting.worker import DOMAINS
from tests.support.loops import eventually, state_of
from tests.unit.reporting.world import days_in

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from pathlib import Path

WORKERS = 4
YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


@asynccontextmanager
async def workers(folder: Path) -> AsyncIterator[list[Process]]:
    command = (sys.executable, "-m", "tests.flow.reporting.worker", str(folder))
    pipe = asyncio.subprocess.PIPE
    running = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe) for _ in range(WORKERS)]
    try:
        for each in running:
            await heard(each, b"ready\n")
        yield running
    finally:
        for each in running:
            if each.returncode is None:
                each.kill()
            await each.wait()


async def heard(worker: Process, line: bytes) -> None:
    assert worker.stdout is not None
    assert await worker.stdout.readline() == line


async def order(worker: Process, *words: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(f"{' '.join(words)}\n".encode())
    await heard(worker, b"done\n")


async def report(worker: Process, domain: str) -> None:
    """Something was counted yesterday, and its report is due."""
    await order(worker, "past", str(YESTERDAY), domain)
    await order(worker, "hasten", domain)


async def settled(folder: Path) -> None:
    """Nothing is under way."""
    while any(each.state == "waiting" for day in days_in(folder) for each in day.deliveries):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def sent(folder: Path, number: int) -> list[tuple[int, str]]:
    """Process and domain of each report, once there are so many."""
    while True:
        text = (folder / "sent").read_text() if (folder / "sent").exists() else ""
        lines = [line.split() for line in text.splitlines()]
        if len(lines) >= number:
            return [(int(process), domain) for process, _, domain in lines]
        await asyncio.sleep(0.02)


async def test_what_all_workers_count_at_once_adds_up(tmp_path: Path) -> None:
    async with workers(tmp_path) as running:

        async def count(worker: Process) -> None:
            for number in range(10):
                await order(worker, "count", f"d{number % 2}.test", "3")

        await asyncio.gather(*map(count, running))
    counted: Counter[str] = Counter()
    for day in days_in(tmp_path):
        counted[day.domain] += sum(each.successful for each in day.counts.policies.values())
    assert counted == {"d0.test": WORKERS * 15, "d1.test": WORKERS * 15}


async def test_one_worker_sends_and_after_its_death_another_and_no_report_twice(tmp_path: Path) -> None:
    async with workers(tmp_path) as running:
        for number in range(DOMAINS // 2):
            await report(running[number % WORKERS], f"d{number}.test")
        first = await sent(tmp_path, DOMAINS // 2)
        (leader,) = {process for process, _ in first}
        # Killed between two reports: each of those that were sent is settled.
        await settled(tmp_path)
        dead = next(each for each in running if each.pid == leader)
        dead.send_signal(signal.SIGKILL)
        await dead.wait()
        alive = next(each for each in running if each is not dead)
        for number in range(DOMAINS // 2, DOMAINS):
            await report(alive, f"d{number}.test")
        last = (await sent(tmp_path, DOMAINS))[DOMAINS // 2 :]
        assert len({process for process, _ in last} - {leader}) == 1
    assert sorted(domain for _, domain in first + last) == sorted(f"d{number}.test" for number in range(DOMAINS))


async def stand_still(worker: Process, folder: Path) -> None:
    """Not in the middle of a transaction: there it would hold up who writes."""
    with closing(sqlite3.connect(folder / FILE, timeout=0, isolation_level=None)) as connection:
        while True:
            worker.send_signal(signal.SIGSTOP)
            await eventually(lambda: state_of(worker.pid) == "T")
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                worker.send_signal(signal.SIGCONT)
                await asyncio.sleep(0.01)
            else:
                connection.execute("ROLLBACK")
                return


async def test_a_worker_that_stands_still_holds_nobody_up_from_counting(tmp_path: Path) -> None:
    async with workers(tmp_path) as running:
        await report(running[0], "d0.test")
        ((leader, _),) = await sent(tmp_path, 1)
        await settled(tmp_path)  # or it may stand still while it has the store locked
        stopped = next(each for each in running if each.pid == leader)
        await stand_still(stopped, tmp_path)
        try:
            for each in running:
                if each is not stopped:
                    await order(each, "count", "d1.test", "5")
        finally:
            stopped.send_signal(signal.SIGCONT)
    counted = [sum(each.successful for each in day.counts.policies.values()) for day in days_in(tmp_path)]
    assert sorted(counted) == [1, 5 * (WORKERS - 1)]
