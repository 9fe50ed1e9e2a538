"""The writer's group commit: who comes together is committed together; beside a busy loop it waits for more."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mailrider.queue.sqlite.transactions import Transactions
from mailrider.queue.sqlite.wal import WALKeeper
from mailrider.queue.sqlite.writer import BUSY, BUSY_SHARE, COMPANY, LOOKS, SPAN, ProcessorShare, StoreCall, Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

import pytest


class Company:
    """A writer with a thread of its own; during each of its pauses one more request comes, while there are any left.

    `late`: how many seconds it finds the loop to be. `share`: how much of a processor the process uses. Between two
    looks at the clock in the thread `SPAN` passes.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.late = 0.0
        self.share = 0.0
        self.to_come = 0
        self.pauses = 0
        self.commits: list[int] = []  # how many requests each of them had
        self.asked: list[asyncio.Future[Any]] = []
        self._in_this = 0
        connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self.connection = connection
        self._looks = 0
        self.writer = Writer(
            connection,
            Transactions(),
            WALKeeper(Path("none"), connection, connection),
            lambda _: None,
            self._now,
            self._pause,
            used=self._use,
            fault=self._fault,
        )

    def ask(self) -> None:
        self.asked.append(self.writer.ask(StoreCall(self._count)))

    async def answered(self) -> None:
        """Until all that was asked for is answered."""
        while not all(each.done() for each in self.asked):
            await asyncio.wait(self.asked)

    def _now(self) -> float:
        """The loop's time is later than that of the thread."""
        if threading.current_thread() is threading.main_thread():
            return self._looks * SPAN + self.late
        self._looks += 1
        return self._looks * SPAN

    def _use(self) -> float:
        """Seconds of processor time until now."""
        return self._looks * SPAN * self.share

    # In the thread

    def _count(self, _: sqlite3.Connection) -> None:
        self._in_this += 1

    def _fault(self, where: str) -> None:
        if where == "after commit":
            self.commits.append(self._in_this)
            self._in_this = 0

    def _pause(self, _: float) -> None:
        self.pauses += 1
        if self.to_come:
            self.to_come -= 1
            came = threading.Event()
            self.loop.call_soon_threadsafe(self._come, came)
            assert came.wait(30)

    def _come(self, came: threading.Event) -> None:
        self.ask()
        came.set()


@pytest.fixture
async def company() -> AsyncIterator[Company]:
    made = Company()
    made.writer.start()
    yield made
    await made.writer.stop()
    made.connection.close()


async def ask_together(company: Company, requests: int) -> None:
    """So many at once: the thread can take the first of them alone, the others wait for it."""
    for _ in range(requests):
        company.ask()
    await company.answered()


@pytest.mark.parametrize("requests", [1, 50])
async def test_beside_a_loop_that_rests_nobody_waits(company: Company, requests: int) -> None:
    for _ in range(3):
        await ask_together(company, requests)
    assert sum(company.commits) == 3 * requests
    assert company.pauses == 0


async def test_beside_a_busy_loop_a_commit_waits_for_as_long_as_more_come(company: Company) -> None:
    company.late = BUSY
    await ask_together(company, 1)
    company.to_come = 2
    await ask_together(company, 1)
    assert (company.commits, company.pauses) == ([1, 3], 3), "two came, and then nobody"


async def ask_in_one_commit(company: Company, requests: int) -> None:
    """Another commit is under way while they are asked for."""
    begun, goes_on = threading.Event(), threading.Event()

    def wait(_: sqlite3.Connection) -> None:
        begun.set()
        assert goes_on.wait(30)

    company.asked.append(company.writer.ask(StoreCall(wait)))
    assert begun.wait(30)
    for _ in range(requests):
        company.ask()
    goes_on.set()
    await company.answered()


@pytest.mark.parametrize(
    ("together", "share", "waits"), [(COMPANY, BUSY_SHARE, True), (2, 1.0, False), (COMPANY, 0.4, False)]
)
async def test_in_a_process_that_uses_half_of_a_processor_a_commit_with_company_is_waited_for(
    company: Company, together: int, share: float, waits: bool
) -> None:
    company.share = share
    await ask_in_one_commit(company, together)
    assert company.pauses == 0
    await ask_together(company, 1)
    assert bool(company.pauses) is waits


def test_the_share_of_a_processor_is_that_of_the_last_time() -> None:
    now, used = 0.0, 0.0
    share = ProcessorShare(lambda: now, lambda: used)
    now, used = SPAN, SPAN / 4
    assert share.measure() == pytest.approx(0.25)
    now, used = SPAN * 1.5, SPAN
    assert share.measure() == pytest.approx(0.25), "too little time to tell"
    now, used = SPAN * 3, SPAN * 1.25
    assert share.measure() == pytest.approx(0.5)


async def test_it_does_not_wait_for_ever(company: Company) -> None:
    company.late = BUSY
    await ask_together(company, 1)
    company.to_come = 100
    company.ask()
    while len(company.commits) == 1:
        await asyncio.wait(company.asked[:])
    assert company.commits[1] == 1 + LOOKS
    company.to_come = 0
    await company.answered()
