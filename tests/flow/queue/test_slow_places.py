"""One slow place, whatever it is called, leaves other mail 90 % of its speed. On the fake clock."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from mailrider.dsn.notification import NotificationAuthor
from mailrider.model.domain import Domain
from mailrider.model.handover import CROWDED, DIRECT
from mailrider.model.outcome import AttemptReport, Deferred
from mailrider.model.queue_event import RecipientDone
from mailrider.queue.bounces import BouncePolicy, Bounces
from mailrider.queue.fairness import CONTENT_OCTETS
from mailrider.queue.housekeeping import HOUSEKEEPING
from mailrider.queue.ids import IdSource
from mailrider.queue.message import EVERYTHING
from mailrider.queue.retry import Rules, Schedule
from mailrider.queue.service import DeliveryQueue
from mailrider.queue.work import Work
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from mailrider.testing.store import MemoryStore, SharedState
from tests.support.queueing import MESSAGE, deferred, delivered, envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Event
    from mailrider.model.handover import Handover
    from mailrider.model.outcome import Outcome
    from mailrider.queue.message import Claimed, Quota

CONTENT = Content.inspect(MESSAGE)
TARPIT, ELSEWHERE = ip_address("192.0.2.1"), ip_address("192.0.2.2")
SLOW, QUICK = 299.0, 0.1  # seconds that an attempt takes
RULES = Rules(Schedule(timedelta(minutes=2)))


class Internet:
    """Names below `evil.test` lead to the tarpit; all others to servers that take a message in no time."""

    def __init__(self, clock: FakeClock, *, lookup: float = 0.0) -> None:
        self.clock = clock
        self.lookup = lookup
        self.at_tarpit = self.most_at_tarpit = self.attempts_at_tarpit = 0

    async def deliver(self, given: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        name = str(given.recipients[0].mailbox.domain)
        if not name.endswith("evil.test"):
            return await self._visit(
                given, handover, ip_address(f"198.51.100.{int(name[1:].partition('.')[0]) % 200}"), QUICK
            )
        await self.clock.sleep(self.lookup)
        return await self._visit(given, handover, TARPIT, SLOW)

    async def _visit(
        self, given: Envelope, handover: Handover, address: IPv4Address | IPv6Address, seconds: float
    ) -> AttemptReport:
        visits = handover.watcher
        assert visits is not None
        again = visits.arrive(address, None)
        if again is not None:
            return AttemptReport(tuple(Deferred(each, CROWDED, eligible_at=again) for each in given.recipients))
        is_tarpit = address == TARPIT
        self.attempts_at_tarpit += is_tarpit
        self.at_tarpit += is_tarpit
        self.most_at_tarpit = max(self.at_tarpit, self.most_at_tarpit)
        try:
            await self.clock.sleep(seconds)
        finally:
            self.at_tarpit -= is_tarpit
            visits.leave(address)
        outcome: Callable[[Recipient], Outcome] = deferred if is_tarpit else delivered
        return AttemptReport(tuple(map(outcome, given.recipients)))


class World:
    def __init__(self, *, lookup: float = 0.0) -> None:
        self.clock = FakeClock()
        self.internet = Internet(self.clock, lookup=lookup)
        self.rng = random.Random(1)
        self.ids = IdSource(self.clock)
        self.times: list[float] = []  # when other mail was delivered

    def tell(self, event: Event) -> None:
        if isinstance(event, RecipientDone) and event.is_over:
            self.times.append(self.clock.monotonic())

    @asynccontextmanager
    async def queue(self, store: MemoryStore | None = None) -> AsyncIterator[DeliveryQueue]:
        policy = BouncePolicy(NotificationAuthor(Domain("mx.example.org"), Domain("example.org")), False, lambda _: "")
        work = Work({"": self.internet}, RULES, Bounces(policy, self.ids, self.tell), grace=0.0)
        store = store or MemoryStore(SharedState())
        async with DeliveryQueue(store, work, self.ids, self.clock, self.rng, self.tell) as queue:
            yield queue

    async def send_other_mail(self, queue: DeliveryQueue, messages: int = 1000) -> float:
        """Seconds until it is all delivered: each message to one of 100 domains."""
        began, known = self.clock.monotonic(), len(self.times)
        for number in range(messages):
            await queue.submit(envelope(f"b@d{number % 100}.test"), CONTENT)
        for _ in range(200):
            if len(self.times) - known >= messages:
                return self.times[-1] - began
            await self.clock.advance(1)
        raise AssertionError(f"{len(self.times) - known} of {messages} in 200 seconds")


@cache
def undisturbed() -> float:
    """How long other mail takes if nothing is slow; the same each time."""

    async def alone() -> float:
        world = World()
        async with world.queue() as queue:
            return await world.send_other_mail(queue)

    with ThreadPoolExecutor(1) as another_thread:  # this one has a loop already
        return another_thread.submit(asyncio.run, alone()).result()


async def send_to_tarpit(queue: DeliveryQueue, names: int = 1000) -> None:
    for number in range(names):
        await queue.submit(envelope(f"b@d{number}.evil.test"), CONTENT)


async def test_a_tarpit_with_a_thousand_names_leaves_other_mail_nine_tenths_of_its_speed() -> None:
    alone = undisturbed()
    world = World()
    async with world.queue() as queue:
        await send_to_tarpit(queue)
        # Nobody knows yet that the names lead to one place; how many of them come first depends on chance.
        assert await world.send_other_mail(queue) <= alone / 0.8
        assert 0 < world.internet.most_at_tarpit <= 2 + 128 // 4
        # Then it is known: of those that were told to come again, and of the retries of those that failed.
        for _ in range(2):
            await world.clock.advance(300)
            assert await world.send_other_mail(queue) <= alone / 0.9
        assert world.internet.attempts_at_tarpit > 60
        assert world.internet.most_at_tarpit <= 2 + 128 // 4


async def test_one_whose_names_take_long_to_look_up_leaves_a_quarter_to_destinations_that_are_known() -> None:
    alone = undisturbed()
    world = World(lookup=0.5)
    async with world.queue() as queue:
        await world.send_other_mail(queue, 100)  # it is known
        await send_to_tarpit(queue)
        # Two to three times as long, rarely more: in which order names come into memory depends on chance.
        assert await world.send_other_mail(queue) <= alone * 4


async def test_a_message_with_a_thousand_recipients_at_names_of_a_tarpit_leaves_other_mail_nine_tenths() -> None:
    alone = undisturbed()
    world = World()
    async with world.queue() as queue:
        await queue.submit(envelope(*(f"b@d{number}.evil.test" for number in range(1000))), CONTENT)
        assert await world.send_other_mail(queue) <= alone / 0.9
        assert world.internet.at_tarpit > 0


async def test_a_message_with_a_thousand_recipients_at_one_tarpit_leaves_other_mail_nine_tenths() -> None:
    alone = undisturbed()
    world = World()
    async with world.queue() as queue:
        await queue.submit(envelope(*(f"u{number}@d.evil.test" for number in range(1000))), CONTENT)
        assert await world.send_other_mail(queue) <= alone / 0.9
        assert world.internet.at_tarpit == 1


async def test_what_is_turned_away_is_no_failed_try_and_comes_again() -> None:
    world = World()
    async with world.queue() as queue:
        await send_to_tarpit(queue, 60)
        await world.clock.advance(200)
        entries = await queue.store.page(EVERYTHING, 0, 1000)
        assert {entry.progress.tries for entry in entries} == {0}
        await world.clock.advance(440)
        entries = await queue.store.page(EVERYTHING, 0, 1000)
        assert min(entry.progress.tries for entry in entries) == 1  # each had its turn


async def test_the_content_of_what_lasts_takes_no_memory_from_others() -> None:
    class Asked(MemoryStore):
        space = 0  # octets of content that were wanted the last time

        async def claim(self, quotas: Sequence[Quota], now: datetime, octets: int = 0) -> Claimed:
            self.space = octets
            return await super().claim(quotas, now, octets)

    world, store = World(), Asked(SharedState())
    large = Content.inspect(b"Subject: x\r\n\r\n" + b"x" * 78 * 3000 + b"\r\n")
    async with world.queue(store) as queue:
        for number in range(200):
            await queue.submit(envelope(f"b@d{number}.evil.test"), large)
        await world.clock.advance(5)
        assert world.internet.at_tarpit > 0
        async with DeliveryQueue(
            MemoryStore(store.shared), None, world.ids, world.clock, world.rng, world.tell
        ) as other:
            await other.submit(envelope("b@d1.test"), CONTENT)
        await world.clock.advance(HOUSEKEEPING)  # the store is asked what is due
        assert store.space == CONTENT_OCTETS
