"""A queue on a machine whose clock jumps: nothing grows old too early, and nothing is put off for long."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import OFF, QueueClock, TimeAnchor
from mailrider.dsn.notification import NotificationAuthor
from mailrider.model.domain import Domain
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import AttemptReport, Deferred
from mailrider.model.queue_event import RecipientDone
from mailrider.queue.bounces import BouncePolicy, Bounces
from mailrider.queue.ids import IdSource
from mailrider.queue.message import EVERYTHING, Filter, Quota
from mailrider.queue.retry import Rules, Schedule
from mailrider.queue.service import DeliveryQueue
from mailrider.queue.sqlite import leases as leases_module
from mailrider.queue.sqlite import reader as reader_module
from mailrider.queue.sqlite.shards import ShardsReader
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.work import Work
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from tests.support.queueing import MESSAGE, deferred, envelope, throttled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Event
    from mailrider.model.handover import Handover
    from mailrider.model.outcome import Outcome

YEAR, FORTNIGHT = timedelta(days=365), timedelta(days=14)
LONGEST = timedelta(hours=1)
DAY = timedelta(days=1)  # the fake time runs on while the store's threads work


class Machine:
    """One that runs a queue, may be started anew, and whose clock may be set."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = FakeClock()
        self.folder = folder
        self.rng = random.Random(1)
        self.events: list[Event] = []
        self.outcome: Callable[[Recipient], Outcome] = deferred
        self.boot = "first"
        for module in (leases_module, reader_module):
            monkeypatch.setattr(module, "current_boot", lambda: self.boot)

    async def deliver(self, given: Envelope, _: Content, _handover: Handover = DIRECT) -> AttemptReport:
        return AttemptReport(tuple(map(self.outcome, given.recipients)))

    def queue(self, *, delivering: bool = True) -> DeliveryQueue:
        clock = QueueClock(self.clock)
        ids = IdSource(clock)
        policy = BouncePolicy(NotificationAuthor(Domain("mx.example.org"), Domain("example.org")), False, lambda _: "")
        rules = Rules(Schedule(timedelta(minutes=10), 2.0, LONGEST))
        work = Work({"": self}, rules, Bounces(policy, ids, self.events.append), 16) if delivering else None
        store = SQLiteStore(self.folder, clock)
        return DeliveryQueue(store, work, ids, clock, self.rng, self.events.append)

    async def submit(self, queue: DeliveryQueue) -> None:
        await queue.submit(envelope("b@example.net"), Content.inspect(MESSAGE))

    def start_again(self, *, after: timedelta, boot: str) -> None:
        """The machine was off for that long; its steady clock begins anew."""
        self.clock = FakeClock(self.clock.now() + after)
        self.boot = boot

    async def attempts(self, queue: DeliveryQueue, count: int) -> RecipientDone:
        """Until there were so many of the message; the last one. Notifications about it have attempts of their own."""
        done: list[RecipientDone] = []
        for _ in range(600):
            tried = [event for event in self.events if isinstance(event, RecipientDone)]
            done = [each for each in tried if str(each.outcome.recipient) == "b@example.net"]
            if len(done) >= count:
                return done[-1]
            await self.clock.advance(0 if not done else 60)
            await queue.store.page(EVERYTHING, 0, 1)
            await queue.store.changed_elsewhere()  # the writer has done what was asked for before
        raise AssertionError(f"there were {len(done)} attempts only")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "queue", monkeypatch)


@pytest.mark.parametrize("jump", [FORTNIGHT, YEAR, -FORTNIGHT, -YEAR], ids=str)
async def test_a_jump_while_the_queue_runs_neither_expires_nor_delays_a_message(
    machine: Machine, jump: timedelta
) -> None:
    async with machine.queue() as queue:
        await machine.submit(queue)
        await machine.attempts(queue, 1)
        machine.clock.jump(jump)
        done = await machine.attempts(queue, 2)
        assert (done.given_up, done.tries) == (False, 2)
        assert done.retry_at is not None
        assert abs(done.retry_at - machine.clock.now()) <= DAY
        machine.clock.jump(-jump)
        assert (await machine.attempts(queue, 3)).tries == 3
        assert done.age < DAY


async def test_a_clock_that_was_a_year_ahead_puts_nothing_off_after_a_restart(machine: Machine) -> None:
    machine.clock.jump(YEAR)
    async with machine.queue() as queue:
        await machine.submit(queue)
        await machine.attempts(queue, 1)
    machine.events.clear()
    machine.start_again(after=-YEAR, boot="second")
    async with machine.queue() as queue:
        (entry,) = await queue.store.page(EVERYTHING, 0, 1)
        assert abs(entry.due - machine.clock.now()) <= DAY
        await machine.clock.advance(1200)
        assert (await machine.attempts(queue, 1)).tries == 2


async def test_a_machine_that_starts_in_the_past_and_is_put_right_bounces_nothing(machine: Machine) -> None:
    async with machine.queue() as queue:
        await machine.submit(queue)
        await machine.attempts(queue, 1)
    machine.events.clear()
    machine.start_again(after=-FORTNIGHT, boot="second")
    async with machine.queue() as queue:
        machine.clock.jump(FORTNIGHT)
        await machine.clock.advance(1200)
        done = await machine.attempts(queue, 1)
    assert (done.given_up, done.tries) == (False, 2)
    machine.start_again(after=FORTNIGHT, boot="third")  # and once more, while it was off
    async with machine.queue() as queue:
        done = await machine.attempts(queue, 2)
    assert (done.given_up, done.tries) == (False, 3)


async def test_a_restart_of_the_process_alone_counts_the_time_between(machine: Machine) -> None:
    async with machine.queue(delivering=False) as queue:
        await machine.submit(queue)
    await machine.clock.advance(3 * 3600)
    machine.clock.jump(YEAR)
    async with machine.queue(delivering=False) as queue:
        now = QueueClock(machine.clock).now()
        (entry,) = await queue.store.page(EVERYTHING, 0, 1)
        assert now - entry.created == timedelta(hours=3)


async def test_people_see_moments_of_their_own_clock(machine: Machine) -> None:
    async with machine.queue(delivering=False) as queue:
        await machine.submit(queue)
        machine.clock.jump(-YEAR)
        now = machine.clock.now()
        reader = ShardsReader(machine.folder, machine.clock)
        sooner, later = (Filter(before=now + timedelta(hours=hours)) for hours in (-1, 1))
        assert await queue.store.page(sooner, 0, 1) == [each async for each in reader.entries(sooner)] == []
        for place, (entry,) in (
            (queue.store, await queue.store.page(later, 0, 1)),
            (reader, [each async for each in reader.entries(later)]),
        ):
            message = await place.find(entry.message_id)
            assert message is not None
            (count,) = (await place.stats(now, 1)).destinations
            for moment in (entry.created, entry.due, message.created, message.entries[0].due, count.oldest):
                assert abs(moment - now) < timedelta(seconds=1)


async def test_what_a_limit_held_back_comes_at_its_time_whatever_the_clock_did(machine: Machine) -> None:
    machine.outcome = lambda who: throttled(who, machine.clock.now() + timedelta(minutes=5))
    async with machine.queue() as queue:
        machine.clock.jump(YEAR)
        await machine.submit(queue)
        done = await machine.attempts(queue, 1)
        assert isinstance(done.outcome, Deferred)
        assert done.retry_at == machine.clock.now() + timedelta(minutes=5)


async def test_an_empty_queue_begins_with_the_clock_as_it_is(machine: Machine) -> None:
    async with machine.queue(delivering=False):
        pass
    machine.start_again(after=YEAR, boot="second")
    async with SQLiteStore(machine.folder, machine.clock) as store:
        assert store.clock.now() == machine.clock.now()
        assert (await store.claim([Quota("example.net", 1)], machine.clock.now())).jobs == []


@pytest.mark.parametrize(
    ("boot", "wall", "monotonic", "lived"),
    [
        ("first", timedelta(hours=9), 1060.0, timedelta(minutes=1)),
        ("first", -YEAR, 1060.0, timedelta(minutes=1)),
        ("first", timedelta(hours=1), 10.0, timedelta(hours=1)),
        ("second", timedelta(hours=1), 1060.0, timedelta(hours=1)),
        ("second", YEAR, 1060.0, OFF),
        ("second", -YEAR, 1060.0, timedelta(0)),
        ("", timedelta(hours=1), 1060.0, timedelta(hours=1)),
    ],
)
def test_how_much_was_lived_since_the_last_process(
    boot: str, wall: timedelta, monotonic: float, lived: timedelta
) -> None:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    assert TimeAnchor("first" if boot else "", then, then, 1000.0).elapsed(boot, then + wall, monotonic) == lived
