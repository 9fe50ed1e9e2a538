"""A process that accepts and delivers under load, and is killed: what it did stands in files that only grow.

`accepted`: a line a message, after `submit` returned. `delivered` and `bounced`: a line when the other side has taken
it, with the number of the run. A line is one write, so a kill leaves it whole or not at all.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import zlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import uvloop

from mailrider.clock import SystemClock
from mailrider.dsn.notification import NotificationAuthor
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.event import discard
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import AttemptReport, outcome_for
from mailrider.model.reply import Reply
from mailrider.queue.bounces import BouncePolicy, Bounces
from mailrider.queue.ids import IdSource
from mailrider.queue.retry import Rules, Schedule
from mailrider.queue.service import DeliveryQueue
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.work import Work
from mailrider.smtp.content import Content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mailrider.model.handover import Handover

PARALLELISM = 8
DOMAINS = 10
LARGE = b"x" * 70 + b"\r\n"

TAKEN = Reply.make(250, "2.0.0", "taken")
LATER = Reply.make(450, "4.2.0", "later")
NEVER = Reply.make(550, "5.1.1", "never")

_TOKEN = re.compile(rb"^(?:Message-ID|In-Reply-To): <([^@>]+)@token>", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One life of the process. `fault`: the point at which it kills itself, and at which passage."""

    folder: Path
    number: int
    submits: bool = True
    fault: tuple[str, int] | None = None


class Log:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


class OtherSide:
    """What takes mail: by its token, a message is delivered, deferred some times, or failed."""

    def __init__(self, run: Run, rng: random.Random) -> None:
        self._run = run
        self._rng = rng
        self._delivered = Log(run.folder / "delivered")
        self._bounced = Log(run.folder / "bounced")

    async def deliver(self, envelope: Envelope, content: Content, _handover: Handover = DIRECT) -> AttemptReport:
        match = _TOKEN.search(b"".join((await content.loaded()).chunks()))
        token = match[1].decode() if match else "?"
        await asyncio.sleep(self._rng.random() * 0.002)
        if envelope.sender.is_null:
            self._bounced.write(token, self._run.number)
            return AttemptReport(tuple(outcome_for(each, TAKEN) for each in envelope.recipients))
        kind = zlib.crc32(token.encode()) % 10
        if kind == 0:
            reply = NEVER
        elif kind in (1, 2) and self._rng.random() < 0.5:
            reply = LATER
        else:
            reply = TAKEN
            for each in envelope.recipients:
                self._delivered.write(f"{token}/{each}", self._run.number)
        return AttemptReport(tuple(outcome_for(each, reply) for each in envelope.recipients))


def live(run: Run) -> None:
    """The life of the process, until it is killed; without submitting until the queue is empty."""
    uvloop.run(_live(run))


async def _live(run: Run) -> None:
    clock, rng = SystemClock(), random.Random()
    ids = IdSource(clock)
    origin = NotificationAuthor(Domain("mx.example.org"), Domain("example.org"))
    bounces = Bounces(BouncePolicy(origin, True, lambda _: ""), ids, discard)
    other = OtherSide(run, rng)
    rules = Rules(Schedule(timedelta(milliseconds=20), 1.5, timedelta(milliseconds=100)))
    work = Work({"": other, "bounce": other}, rules, bounces, PARALLELISM)
    store = SQLiteStore(run.folder / "queue", clock, fault=_fault(run))
    async with DeliveryQueue(store, work, ids, clock, rng, discard) as queue:
        if run.submits:
            await asyncio.gather(*(_submit(queue, run, worker, rng) for worker in range(5)))
        while (await queue.store.stats(clock.now(), 1)).messages:
            await queue.idle()
            await asyncio.sleep(0.02)


def _fault(run: Run) -> Callable[[str], None]:
    passed = 0

    def fault(point: str) -> None:
        nonlocal passed
        if run.fault is not None and point == run.fault[0]:
            passed += 1
            if passed == run.fault[1]:
                os.kill(os.getpid(), signal.SIGKILL)

    return fault


async def _submit(queue: DeliveryQueue, run: Run, worker: int, rng: random.Random) -> None:
    accepted = Log(run.folder / "accepted")
    number = 0
    while True:
        number += 1
        token = f"{run.number}.{worker}.{number}"
        body = LARGE * 5000 if rng.random() < 0.01 else b"Hello.\r\n"
        octets = f"Message-ID: <{token}@token>\r\nSubject: x\r\n\r\n".encode() + body
        recipients = [f"u@d{rng.randrange(DOMAINS)}.example"]
        if rng.random() < 0.2:
            recipients.append("v@other.example")
        envelope = Envelope(
            ReversePath.parse("a@example.org"), tuple(Recipient(Mailbox.parse(each)) for each in recipients)
        )
        await queue.submit(envelope, Content.inspect(octets))
        for each in recipients:
            accepted.write(f"{token}/{each}")
        await asyncio.sleep(rng.random() * 0.005)
