"""How relaying and memory behave while the queue grows: 1,000 messages in it, 10,000, 100,000, a million.

    python -m bench.growth
    python -m bench.growth --most 100000 --messages 20000 --stores FOLDER   # what was filled stays there, for next time

The queue is full of messages that were tried once, for many domains, and that are due again in days, each with what
its attempt was like: as after a week in which half of the world could not be reached. One more is due, so that the
start has something to deliver: "accepts" is when the port answers, counted from the start of the process, "delivers"
when the sink has that one. Then smtp-source's messages go through the daemon to smtp-sink, for a domain that is up;
the clock stops when the sink has them all. Size by size each has a turn, round by round, and the best counts. The
stores are in the system's memory as far as it has some. Wants root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from bench.footprint import peak_of
from bench.measure import machine
from bench.network import PATIENCE, SMTP_PORT, Traffic, counting_sink, domain, network, send, wait_all
from bench.systems import Mailrider
from mailrider.clock import SystemClock
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.outcome import Deferred
from mailrider.model.reply import Reply
from mailrider.queue.fairness import BY_DOMAIN, jobs_of
from mailrider.queue.ids import IdSource
from mailrider.queue.message import Change, ContentInfo, NewMessage, NewState, Progress, Settlement
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.smtp.content import Content

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.network import Network

SIZES = (1_000, 10_000, 100_000, 1_000_000)
DOMAINS = 10_000  # that the queue's messages are for
MESSAGE = Content.inspect(b"From: sender@client.bench.test\r\nSubject: later\r\n\r\n" + (b"x" * 70 + b"\r\n") * 14)
FACTS = ContentInfo(MESSAGE.size, MESSAGE.eight_bit, MESSAGE.header_size)
SENDER = ReversePath.parse("sender@client.bench.test")
REFUSED = Reply.make(451, "4.4.1", "no server of the domain could be reached")
DUE = timedelta(days=3)  # from now until they are tried again
TOGETHER = 512  # messages that are stored at a time
UP, FIRST = 0, 1  # the domain that is relayed to, and that of the message that is due at the start


# --- The queue -----------------------------------------------------------------------------------


async def fill(folder: Path, messages: int) -> None:
    """A store with so many messages that wait for their second attempt."""
    clock, rng = SystemClock(), random.Random(1)
    ids = IdSource(clock)
    async with SQLiteStore(folder, clock) as store:
        for start in range(0, messages, TOGETHER):
            some = [
                _message(ids, clock, f"user{number}@d{number % DOMAINS}.far.test")
                for number in range(start, min(start + TOGETHER, messages))
            ]
            await asyncio.gather(*(store.add(each, leased=True) for each in some))
            await asyncio.gather(*(store.settle(_put_off(each, store.lease, rng)) for each in some))


async def put_in(folder: Path, recipient: str) -> None:
    """One more message, which is due."""
    clock = SystemClock()
    async with SQLiteStore(folder, clock) as store:
        await store.add(_message(IdSource(clock), clock, recipient), leased=False)


def _message(ids: IdSource, clock: SystemClock, recipient: str) -> NewMessage:
    envelope = Envelope(SENDER, (Recipient(Mailbox.parse(recipient)),))
    return NewMessage(ids.take(1), envelope, clock.now(), FACTS, MESSAGE)


def _put_off(message: NewMessage, lease: int, rng: random.Random) -> Settlement:
    """What becomes of a message whose attempt was deferred."""
    (job,) = jobs_of(message, BY_DOMAIN, lease)
    (recipient,) = message.envelope.recipients
    change = Change(
        job.ids[0],
        NewState.QUEUED,
        message.created + DUE + timedelta(seconds=rng.uniform(0, 3600)),
        Progress(tries=1, last=REFUSED),
        Deferred(recipient, REFUSED),
    )
    return Settlement(job, (change,), message.created)


@contextlib.contextmanager
def filled(sizes: list[int], stores: Path | None) -> Iterator[dict[int, Path]]:
    """A store for each size; in `stores` those that are there already are taken."""
    with tempfile.TemporaryDirectory(prefix="mailrider-bench-") as temporary:
        folders = {size: (stores or Path(temporary)) / f"{size}" for size in sizes}
        for size, folder in folders.items():
            if folder.exists():
                continue
            began = time.monotonic()
            uvloop.run(fill(folder, size))
            octets = sum(each.stat().st_size for each in folder.iterdir())
            print(f"    {size} queued in {time.monotonic() - began:.0f} s, {octets / 1e6:.0f} MB", flush=True)
        yield folders


# --- The rounds ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Round:
    """What one start of the daemon came to: seconds, and octets of private memory, at rest and at most."""

    accepts: float
    delivers: float
    wall: float
    cpu: float
    resting: int
    peak: int = 0


def relay(folder: Path, net: Network, traffic: Traffic, *, watched: bool = False) -> Round:
    """One round. `watched`: with a look at the memory now and then."""
    uvloop.run(put_in(folder, f"first@{domain(FIRST)}"))
    system = replace(Mailrider(), queue=f"location {folder}")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(counting_sink(net.mx_address, SMTP_PORT, 1))
        began = time.monotonic()
        running = stack.enter_context(system.start(net))
        accepts = time.monotonic() - began
        first.wait(PATIENCE)
        delivers, resting = time.monotonic() - began, running.group.private_memory()
        sink = stack.enter_context(counting_sink(net.mx_address, SMTP_PORT, traffic.messages))
        began, before = time.monotonic(), running.group.cpu()
        sources = send(traffic, running.address, running.port)
        with peak_of(running.group) if watched else contextlib.nullcontext([0]) as peak:
            sink.wait(PATIENCE)
        wall, cpu = time.monotonic() - began, running.group.cpu() - before
        wait_all(sources)
    return Round(accepts, delivers, wall, cpu, resting, peak[0])


@dataclass(frozen=True, slots=True)
class Row:
    """The best of each, of all rounds of one size."""

    queued: int
    accepts: float
    delivers: float
    rate: float
    cpu_each: float
    resting: int
    peak: int


def measure(folders: dict[int, Path], net: Network, traffic: Traffic, rounds: int) -> list[Row]:
    """All sizes, round by round; the memory at last, in a round of its own, since looking costs time."""
    found: dict[int, list[Round]] = {size: [] for size in folders}
    for _ in range(rounds):
        for size, folder in folders.items():
            found[size].append(relay(folder, net, traffic))
    rows = []
    for size, all_of_it in found.items():
        watched = relay(folders[size], net, traffic, watched=True)
        best = min(all_of_it, key=lambda each: each.wall)
        rows.append(
            Row(
                size,
                min(each.accepts for each in all_of_it),
                min(each.delivers for each in all_of_it),
                traffic.messages / best.wall,
                best.cpu / traffic.messages * 1000,
                watched.resting,
                watched.peak,
            )
        )
    return rows


def print_rows(rows: list[Row]) -> None:
    """The table; `x` are relative to the first row."""
    print(f"{'queued':>9} {'per s':>7} {'x':>6} {'cpu ms':>7} {'x':>6}", end=" ")
    print(f"{'MB':>5} {'peak':>5} {'accepts':>8} {'delivers':>9}")
    for row in rows:
        print(
            f"{row.queued:9} {row.rate:7.0f} {row.rate / rows[0].rate:6.2f}"
            f" {row.cpu_each:7.3f} {row.cpu_each / rows[0].cpu_each:6.2f}"
            f" {row.resting / 1e6:5.0f} {row.peak / 1e6:5.0f} {row.accepts:7.2f}s {row.delivers:8.2f}s"
        )
    print("wanted: within 20 % of the first row, under 300 MB at a million")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="no queue larger than that")
    parser.add_argument("--messages", type=int, default=15_000, help="that are relayed in a round")
    parser.add_argument("--rounds", type=int, default=2, help="the fastest one counts; 0: the stores are filled only")
    parser.add_argument("--stores", type=Path, metavar="FOLDER", help="where the filled queues are kept")
    options = parser.parse_args()
    sizes = [each for each in SIZES if each <= options.most]
    print(f"{machine()}; 4096 octets, 20 sessions; mailrider: {Mailrider().configuration}")
    with filled(sizes, options.stores) as folders, network(2) as net:
        if options.rounds:
            print_rows(measure(folders, net, Traffic(options.messages), options.rounds))


if __name__ == "__main__":
    main()
