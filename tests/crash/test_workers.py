"""A daemon with workers under load, and every second one of them is killed, now and then the supervisor: what was
accepted comes to exactly one end.

Whatever shard it lies in, nothing is lost, and it is repeated only where a reply was in doubt: a server took
it and did not say so, or the worker that sent it was killed before it could write that down. A kill leaves no more than
one worker's attempts in doubt, and that is counted.

MAILRIDER_WORKERS_SECONDS says for how long; the default is 10, and 600 in a long run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mailrider.queue.sqlite.shards import shards_in
from tests.crash.test_chaos import CLIENTS, CONFIGURATION, QUIET, SEED, Chaos, chaos
from tests.support.long_runs import LONG

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = float(os.environ.get("MAILRIDER_WORKERS_SECONDS") or (600 if LONG else 10))
WORKERS = 3
PARALLELISM = 24  # attempts of all workers at once
SLOW = 8  # times as many places as that for slow attempts
SUPERVISOR = 0.1  # how often it is the supervisor that is killed,
RELOAD = 0.2  # and how often that, or a reload

pytestmark = [pytest.mark.crash, pytest.mark.timeout(SECONDS * 2 + QUIET * 3)]


class Workers(Chaos):
    """A supervisor and its workers."""

    starts = 0

    def configure(self) -> None:
        text = CONFIGURATION.format(
            folder=self.folder, dns=self._dns.server, mx=self._mx_port, port=self.port, parallelism=PARALLELISM
        )
        self.config.write_text(f"workers {WORKERS}\n{text}")

    def children(self) -> list[int]:
        pid = self.daemon.pid
        with contextlib.suppress(FileNotFoundError):
            return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    async def kill_worker(self) -> None:
        workers = self.children()
        if not workers:
            return
        self.ledger.life += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.rng.choice(workers), signal.SIGKILL)
        self.ledger.life += 1

    async def freeze_worker(self) -> None:
        workers = self.children()
        if workers:
            chosen = self.rng.choice(workers)
            with contextlib.suppress(ProcessLookupError):
                os.kill(chosen, signal.SIGSTOP)
                await asyncio.sleep(self.rng.uniform(0.2, 1.5))
                os.kill(chosen, signal.SIGCONT)

    async def accepts(self) -> None:
        """Wait until one more message has been accepted: a slow machine does not only start workers and kill them."""
        before = len(self.ledger.accepted)
        await self._until(lambda: len(self.ledger.accepted) > before)

    async def wait_listening(self) -> None:
        """Not only that: the workers of a supervisor that was killed may listen still."""
        await self._until(lambda: (self.folder / "daemon.log").read_bytes().count(b" daemon_ready ") > self.starts)
        self.starts += 1

    async def _until(self, fact: Callable[[], bool]) -> None:
        for _ in range(int(QUIET * 50)):
            if fact():
                return
            assert self.daemon.returncode is None, f"it ended with {self.daemon.returncode}: {self.folder}/daemon.log"
            await asyncio.sleep(0.02)
        raise AssertionError(f"it never happened: {self.folder}/daemon.log")

    async def kill_each_second(self, until: float) -> None:
        others = [self.command, self.remove, self.deliver_beside, self.submit_beside, self.lose_the_resolver]
        under_way: dict[str, asyncio.Task[None]] = {}
        while time.monotonic() < until:
            chance = self.rng.random()
            event = self.kill if chance < SUPERVISOR else self.reload if chance < RELOAD else self.kill_worker
            await self._make(event, under_way, is_beside=False)
            await self._make(self.rng.choice([*others, self.freeze_worker]), under_way, is_beside=True)
            await self.accepts()
        await asyncio.gather(*under_way.values())


async def test_whoever_is_killed_each_accepted_recipient_comes_to_one_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with chaos(tmp_path, random.Random(SEED), Workers) as trouble:
        assert isinstance(trouble, Workers)
        await trouble.start()
        clients = [asyncio.create_task(trouble.load()) for _ in range(CLIENTS)]
        await trouble.kill_each_second(time.monotonic() + SECONDS)
        await trouble.come_to_rest()
        await asyncio.gather(*clients)
        await trouble.come_to_rest()
        await trouble.end(signal.SIGTERM)
        ledger = trouble.ledger
        faults = ledger.faults()
        assert not faults, f"{ledger.story()}\n" + "\n".join(faults[:20])
        assert ledger.accepted
        assert shards_in(tmp_path / "state" / "mail") == list(range(WORKERS))
        kills = ledger.did["kill_worker"] + WORKERS * ledger.did["kill"]
        repeated = sum(len(lives) - 1 for lives in ledger.arrived.values())
        assert repeated <= ledger.doubts.total() + kills * (1 + SLOW) * PARALLELISM // WORKERS
        with capsys.disabled():
            sys.stdout.write(f"\n    {ledger.story()}\n")
