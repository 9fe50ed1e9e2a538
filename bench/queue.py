"""The queue by itself: what a message costs, how long a commit takes, and what a large backlog means.

    python -m bench.queue [cost] [latency] [backlog] [fairness]

Each figure stands beside the budget that it has. Deliveries go to a deliverer that does nothing, or hangs.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import shutil
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from bench.measure import machine, measured, print_table
from mailrider.clock import SystemClock
from mailrider.dsn.notification import NotificationAuthor
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.event import discard
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import AttemptReport, Delivered
from mailrider.model.reply import Reply
from mailrider.queue.bounces import BouncePolicy, Bounces
from mailrider.queue.history import OFF, HistoryBounds
from mailrider.queue.ids import IdSource, first_id_at
from mailrider.queue.message import EVERYTHING, ContentInfo, Filter, NewMessage
from mailrider.queue.retry import Rules
from mailrider.queue.service import DeliveryQueue
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.work import Work
from mailrider.smtp.content import Content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mailrider.model.handover import Handover

MESSAGE = b"From: a@example.org\r\nSubject: bench\r\n\r\n" + (b"x" * 70 + b"\r\n") * 28  # 2 KiB
TAKEN = Reply.make(250, "2.0.0", "taken")
SENDER = ReversePath.parse("a@example.org")
# A thread that waits for the interpreter is passed over as long as the loop turns faster than this: with 0.5 ms, and a
# loop that turns in 0.5 ms, commits wait for seconds; with 0.1 ms they do not.
SWITCH_INTERVAL = 0.0001


PAIRS = 7


class Nothing:
    """A deliverer that takes everything; `slow` hangs for ever, `pace` seconds pass for the others."""

    def __init__(self, slow: str = "", pace: float = 0.0) -> None:
        self.taken = 0
        self.slow, self.pace = slow, pace
        self.done = asyncio.Event()
        self.enough = -1

    async def deliver(self, envelope: Envelope, _: Content, _handover: Handover = DIRECT) -> AttemptReport:
        domain = str(envelope.recipients[0].mailbox.domain)
        if domain == self.slow:
            await asyncio.sleep(3600)
        if self.pace:
            await asyncio.sleep(self.pace)
        self.taken += 1
        if self.taken == self.enough:
            self.done.set()
        return AttemptReport(tuple(Delivered(each, TAKEN) for each in envelope.recipients))


@asynccontextmanager
async def opened(
    folder: Path, deliverer: Nothing | None, parallelism: int = 64, grace: float = 0.1, history: HistoryBounds = OFF
) -> AsyncIterator[DeliveryQueue]:
    clock, rng = SystemClock(), random.Random(1)
    ids = IdSource(clock)
    origin = NotificationAuthor(Domain("mx.example.org"), Domain("example.org"))
    bounces = Bounces(BouncePolicy(origin, False, lambda _: ""), ids, discard)
    work = None if deliverer is None else Work({"": deliverer}, Rules(), bounces, parallelism, grace)
    async with DeliveryQueue(SQLiteStore(folder, clock, history=history), work, ids, clock, rng, discard) as queue:
        yield queue


def envelope(number: int, domains: int) -> Envelope:
    return Envelope(SENDER, (Recipient(Mailbox.parse(f"user{number}@d{number % domains}.example")),))


async def cost(folder: Path, messages: int) -> None:
    """Submit, hand to a deliverer that does nothing, settle."""
    content = Content.inspect(MESSAGE)
    envelopes = [envelope(number, 100) for number in range(messages)]

    async def submit_some(queue: DeliveryQueue, some: list[Envelope]) -> None:
        for each in some:
            await queue.submit(each, content)

    results = []
    for submitters in (20, 200):
        deliverer = Nothing()
        async with opened(folder / str(submitters), deliverer) as queue:
            with measured(f"{submitters} submitters at once", messages) as watch:
                async with asyncio.TaskGroup() as group:
                    for first in range(submitters):
                        group.create_task(submit_some(queue, envelopes[first::submitters]))
                await queue.idle()
        assert deliverer.taken == messages
        results.append(watch.result)
    print_table(results)
    print("budget: 0.12 ms of CPU a message\n")


async def history(folder: Path, messages: int) -> None:
    """What the history costs: pairs of runs without and with it, one after the other."""
    content = Content.inspect(MESSAGE)
    envelopes = [replace(envelope(number, 100), message_id=f"<{number}@example.org>") for number in range(messages)]
    shares: list[float] = []
    for pair in range(PAIRS):
        costs = []
        for bounds in (OFF, HistoryBounds()):
            async with opened(folder / f"{pair}-{bounds.is_on}", Nothing(), history=bounds) as queue:
                start = time.process_time()
                for first in range(0, messages, 200):
                    await asyncio.gather(*(queue.submit(each, content) for each in envelopes[first : first + 200]))
                await queue.idle()
                costs.append((time.process_time() - start) / messages * 1e6)
        shares.append(costs[1] / costs[0] - 1)
        print(f"without {costs[0]:.1f} us of CPU a message, with {costs[1]:.1f} us: {shares[-1]:+.1%}")
    print(f"median {sorted(shares)[len(shares) // 2]:+.1%} of the queue alone\n")


async def latency(folder: Path, messages: int) -> None:
    """How long a durable submit takes beside an event loop that has no moment to spare."""
    content = Content.inspect(MESSAGE)
    stop = False

    async def saturate() -> None:
        while not stop:
            end = time.perf_counter() + 0.0005
            while time.perf_counter() < end:
                pass
            await asyncio.sleep(0)

    async with opened(folder, None) as queue:
        for name, busy in (("quiet loop", False), ("saturated loop", True)):
            stop = False
            tasks = [asyncio.create_task(saturate())] if busy else []
            times = []
            for number in range(messages):
                start = time.perf_counter()
                await queue.submit(envelope(number, 100), content)
                times.append(time.perf_counter() - start)
            stop = True
            await asyncio.gather(*tasks)
            times.sort()
            p50, p99, worst = (times[len(times) * share // 1000] * 1000 for share in (500, 990, 999))
            print(f"durable submit, {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, p99.9 {worst:.1f} ms")
    print()


async def fill(folder: Path, messages: int, name_of: Callable[[int], Envelope]) -> None:
    """Put that many messages into a store, straight."""
    clock = SystemClock()
    ids = IdSource(clock)
    content = Content.inspect(MESSAGE)
    info = ContentInfo(content.size, content.eight_bit, content.header_size)
    async with SQLiteStore(folder, clock) as store:
        for start in range(0, messages, 512):
            await asyncio.gather(
                *(
                    store.add(NewMessage(ids.take(1), name_of(number), clock.now(), info, content), leased=False)
                    for number in range(start, min(start + 512, messages))
                )
            )


async def backlog(folder: Path, messages: int) -> None:
    """A large queue: start, memory, a page of the list, stats."""
    await fill(folder, messages, lambda number: envelope(number, 5000))
    before = resident()
    deliverer = Nothing(pace=0.01)
    deliverer.enough = 1
    start = time.perf_counter()
    async with opened(folder, deliverer, parallelism=16) as queue:
        await deliverer.done.wait()
        print(f"{messages} queued: first delivery {time.perf_counter() - start:.2f} s after the start (budget 2 s)")
        await timed("a page of the list, the first", 0.3, queue.store.page(EVERYTHING, 0, 500))
        (first,) = await queue.store.page(EVERYTHING, 0, 1)
        middle = (first.recipient_id + first_id_at(SystemClock().now())) // 2
        await timed(
            "a page of the list, from the middle",
            0.3,
            queue.store.page(EVERYTHING, middle, 500),
        )
        wanted = Filter(recipient="user199999@")
        await timed("a page of what one address has", 0.3, queue.store.page(wanted, 0, 500))
        await timed("stats", 1.0, queue.store.stats(SystemClock().now(), 50))
        await asyncio.sleep(3)
        print(f"resident memory {resident() / 1e6:.0f} MB (before {before / 1e6:.0f}; budget 200)")
    print()


async def timed(name: str, budget: float, work: Awaitable[Any]) -> None:
    start = time.perf_counter()
    await work
    print(f"    {name}: {time.perf_counter() - start:.3f} s (budget {budget} s)")


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def fairness(folder: Path, messages: int) -> None:
    """Mail for 100 domains, without and with a large queue for one that hangs in every command."""
    rates = []
    for name, hanging in (("alone", 0), ("beside one that hangs", 20_000)):
        place = folder / name.replace(" ", "-")
        await fill(place, hanging, lambda _: Envelope(SENDER, (Recipient(Mailbox.parse("x@hang.example")),)))
        await fill(place, messages, lambda number: envelope(number, 100))
        deliverer = Nothing(slow="hang.example", pace=0.01)
        deliverer.enough = messages
        async with opened(place, deliverer, parallelism=16) as _:
            start = time.perf_counter()
            await deliverer.done.wait()
            rate = messages / (time.perf_counter() - start)
        rates.append(rate)
        print(f"mail for 100 domains, {name}: {rate:.0f} messages/s")
    print(f"ratio {rates[1] / rates[0]:.2f} (budget 0.90)\n")


BENCHES = {
    "cost": (cost, 20_000),
    "history": (history, 5000),
    "latency": (latency, 2000),
    "backlog": (backlog, 200_000),
    "fairness": (fairness, 5000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", metavar="BENCH", help=f"of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--directory", help="where the stores are put; default: a temporary one")
    arguments = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL)
    print(machine())
    for name in arguments.what or BENCHES:
        run, count = BENCHES[name]
        folder = Path(tempfile.mkdtemp(prefix="mailrider-bench-", dir=arguments.directory))
        try:
            uvloop.run(run(folder, count))
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
