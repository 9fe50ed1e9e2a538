"""A daemon with workers under load; every second one of them is killed, now and then the supervisor: what was accepted
comes to exactly one end.

Whatever shard it lies in, nothing is lost. It is repeated only where a reply was in doubt: a server took it and did not
say so, or the worker of its shard was killed after it had made the connection over which it came first. Nobody else's
death repeats it. The end of a supervisor puts nothing in doubt: its workers end in order, unless a service manager
kills them too, as it does here half of the time.

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
from typing import TYPE_CHECKING, ClassVar

import pytest

from mailrider.queue.sqlite.file import FILE
from mailrider.queue.sqlite.shards import shard_location, shards_in
from tests.crash.set_clock import QUICK_RESTARTS
from tests.crash.test_chaos import CLIENTS, CONFIGURATION, QUIET, SEED, Chaos, chaos
from tests.support.forked import children_of
from tests.support.long_runs import LONG
from tests.support.loops import state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SECONDS = float(os.environ.get("MAILRIDER_WORKERS_SECONDS") or (600 if LONG else 10))
WORKERS = 3
PARALLELISM = 24  # attempts of all workers at once
SUPERVISOR = 0.1  # how often it is the supervisor that is killed,
RELOAD = 0.2  # and how often that, or a reload
CADENCE = 1.0  # seconds from one death to the next

pytestmark = [pytest.mark.crash, pytest.mark.timeout(SECONDS * 2 + QUIET * 3)]


class Workers(Chaos):
    """A supervisor and its workers."""

    shards = WORKERS
    environment: ClassVar[dict[str, str]] = {QUICK_RESTARTS: "true"}
    starts = 0

    def configure(self) -> None:
        text = CONFIGURATION.format(
            folder=self.folder, dns=self._dns.server, mx=self._mx_port, port=self.port, parallelism=PARALLELISM
        )
        self.config.write_text(f"workers {WORKERS}\n{text}")

    def children(self) -> list[int]:
        return children_of(self.daemon.pid)

    def shards_of(self, pid: int) -> list[int]:
        """Whose files a process has open: none, if it has not got that far."""
        queue = self.folder / "state" / "mail"
        files = set[Path]()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for each in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    files.add(each.readlink())
        return [shard for shard in range(WORKERS) if shard_location(queue, shard) / FILE in files]

    def kill_at_once(self, *pids: int) -> None:
        """They stand still first, and so open nothing more."""
        _signal(pids, signal.SIGSTOP)
        for pid in pids:
            while state_of(pid) not in "TZX":
                time.sleep(0.001)
        with self.ledger.killing(*{shard for pid in pids for shard in self.shards_of(pid)}):
            _signal(pids, signal.SIGKILL)

    async def kill_worker(self) -> None:
        """Any: it may serve, begin, or end after a reload."""
        self.kill_at_once(self.rng.choice(self.children()))

    async def kill(self) -> None:
        """The supervisor; and all others, as the service manager ends what is left of a service."""
        workers = self.children()
        await self.end(signal.SIGKILL)
        if self.rng.random() < 0.5:
            self.kill_at_once(*workers)
        await self.start()

    async def freeze_worker(self) -> None:
        workers = self.children()
        chosen = self.rng.sample(workers, min(1, len(workers)))
        _signal(chosen, signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(0.2, 1.5))
        _signal(chosen, signal.SIGCONT)

    async def freeze_supervisor(self) -> None:
        """Nobody is granted anything meanwhile, nor counted as silent for it."""
        supervisor = [self.daemon.pid] if self.daemon.returncode is None else []
        _signal(supervisor, signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(0.2, 3))
        _signal(supervisor, signal.SIGCONT)

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
        others = asyncio.create_task(self.make_other_trouble(until))
        while time.monotonic() < until:
            next_one = time.monotonic() + CADENCE
            chance = self.rng.random()
            event = self.kill if chance < SUPERVISOR else self.reload if chance < RELOAD else self.kill_worker
            if event != self.kill_worker or self.children():
                self.ledger.did[event.__name__] += 1
                await event()
            await self.accepts()
            await asyncio.sleep(next_one - time.monotonic())
        await others

    async def make_other_trouble(self, until: float) -> None:
        under_way: dict[str, asyncio.Task[None]] = {}
        beside = [self.command, self.remove, self.deliver_beside, self.submit_beside, self.lose_the_resolver]
        beside += [self.freeze_worker, self.freeze_supervisor]
        while time.monotonic() < until:
            await self._make(self.rng.choice(beside), under_way, is_beside=True)
            await asyncio.sleep(0.1)  # all of them may be under way
        await asyncio.gather(*under_way.values())


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


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
        with capsys.disabled():
            sys.stdout.write(f"\n    {ledger.story()}\n")
