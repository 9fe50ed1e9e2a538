"""Deliveries: fair, bounded, gentle, and settled whatever happens. On the fake clock, with a store in memory."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.dsn.notification import NotificationAuthor
from mailrider.model.domain import Domain
from mailrider.model.event import Bug
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import AttemptReport, Deferred, Failed
from mailrider.model.queue_event import (
    AttemptInterrupted,
    DestinationDown,
    DestinationUp,
    LeaseLost,
    NotificationDropped,
    NotificationQueued,
    OutcomeUnrecorded,
    QueueAvailable,
    QueueUnavailable,
    RecipientDone,
)
from mailrider.model.reply import Reply
from mailrider.model.security import MXLevel, Security, TLSLevel
from mailrider.queue import bounces
from mailrider.queue import fairness as fairness_module
from mailrider.queue.attempt_notes import AttemptNotes, read_attempt_notes
from mailrider.queue.bounces import BouncePolicy, Bounces
from mailrider.queue.fairness import BY_DOMAIN, jobs_of
from mailrider.queue.housekeeping import HOUSEKEEPING, TICK
from mailrider.queue.ids import IdSource
from mailrider.queue.message import EVERYTHING, LeasedJob, Quota, RecipientState
from mailrider.queue.retry import Rules, Schedule
from mailrider.queue.scheduler import Scheduler
from mailrider.queue.service import DeliveryQueue, QueueDeliverer
from mailrider.queue.settle import UNREACHABLE
from mailrider.queue.settler import SICK
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.stopping import GRACE
from mailrider.queue.store import QueueCommand, StoreUnavailable
from mailrider.queue.work import Work
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from mailrider.testing.store import MemoryStore, SharedState
from tests.support.queueing import (
    HOUR,
    MESSAGE,
    Writing,
    deferred,
    delivered,
    envelope,
    failed,
    throttled,
    unreachable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Event
    from mailrider.model.handover import Handover
    from mailrider.model.outcome import Outcome
    from mailrider.queue.message import Claimed, DueDestination, NewMessage
    from mailrider.queue.store import Store

ORIGIN = NotificationAuthor(Domain("mx.example.org"), Domain("example.org"))
RULES = Rules(Schedule(timedelta(minutes=10), 2.0, timedelta(hours=1)))
MINUTE = 60.0


class Network:
    """A deliverer that does as each destination is told; `seen` are the envelopes that it was given.

    Its attempts send, if it `is_sending`. What is cut off goes on to its end by itself, if it `has_effect`, and else it
    ends; if it `is_deaf` nothing happens.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.takes = 0.0  # seconds
        self.seen: list[Envelope] = []
        self.contents: list[bytes] = []
        self.running = 0
        self.most = 0
        self.attempts: list[NetworkAttempt] = []
        self.behaviour: dict[str, Callable[[Recipient], Outcome] | BaseException] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.is_sending = True
        self.has_effect = False
        self.is_deaf = False

    async def deliver(self, given: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        destination = str(given.recipients[0].mailbox.domain)
        self.seen.append(given)
        self.contents.append(b"".join((await content.loaded()).chunks()))
        self.running += 1
        attempt = NetworkAttempt(self)
        self.attempts.append(attempt)
        if handover.watcher is not None:
            handover.watcher.began(attempt)
        self.most = max(self.most, self.running)
        try:
            if destination in self.gates:
                await self.gates[destination].wait()
            if self.takes:
                await self.clock.sleep(self.takes)
            attempt.has_effect = True
        except asyncio.CancelledError:
            if not attempt.is_cut_off:
                raise
        finally:
            self.running -= 1
            if handover.watcher is not None:
                handover.watcher.ended(attempt)
        behaviour = self.behaviour.get(destination, delivered)
        if isinstance(behaviour, BaseException):
            raise behaviour
        return AttemptReport(tuple(map(behaviour, given.recipients)))

    def destinations(self) -> list[str]:
        return [str(each.recipients[0].mailbox.domain) for each in self.seen]


class NetworkAttempt:
    """One of its attempts."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.has_effect = network.has_effect
        self.is_cut_off = False
        self.task = asyncio.current_task()

    @property
    def is_sending(self) -> bool:
        return self.network.is_sending

    def cut_off(self) -> None:
        if self.network.has_effect:
            for gate in self.network.gates.values():
                gate.set()
        elif not self.network.is_deaf:
            self.is_cut_off = True
            self.cancel()

    def cancel(self) -> None:
        """End the task that makes it, as whoever ends a whole process does."""
        assert self.task is not None
        self.task.cancel()


class World:
    def __init__(self, *, parallelism: int = 16, refuses: str = "", rules: Rules = RULES) -> None:
        self.clock = FakeClock()
        self.shared = SharedState()
        self.network = Network(self.clock)
        self.bounces = Network(self.clock)
        self.events: list[Event] = []
        self.rng = random.Random(1)
        self.ids = IdSource(self.clock)
        self.parallelism, self.refuses, self.rules = parallelism, refuses, rules

    @asynccontextmanager
    async def queue(
        self, store: Store | None = None, *, delivering: bool = True, pipeline: bool = True
    ) -> AsyncIterator[DeliveryQueue]:
        work = self.work(pipeline=pipeline) if delivering else None
        store = store or MemoryStore(self.shared)
        queue = DeliveryQueue(store, work, self.ids, self.clock, self.rng, self.tell)
        async with asyncio.TaskGroup() as group:
            async with queue:
                try:
                    yield queue
                finally:  # a test that failed ends as well
                    await self.clock.advance(0)
                    closing = group.create_task(self._pass(GRACE + 10))
            closing.cancel()

    def work(self, *, pipeline: bool = True) -> Work:
        policy = BouncePolicy(ORIGIN, pipeline, lambda _: self.refuses)
        routes = {"": self.network, "bounce": self.bounces}
        return Work(routes, self.rules, Bounces(policy, self.ids, self.tell), self.parallelism)

    @asynccontextmanager
    async def scheduler(self, store: Store) -> AsyncIterator[Scheduler]:
        """One without a queue around it: what it is offered, and when, is up to the test."""
        async with store, Scheduler(store, self.work(), self.clock, self.rng, self.tell) as scheduler:
            yield scheduler

    def tell(self, event: Event) -> None:
        self.events.append(event)

    async def _pass(self, seconds: float) -> None:
        """Time goes on while a queue is being closed."""
        await self.clock.advance(seconds)

    async def fill(self, *recipients: str, **options: Any) -> None:
        """Mail that is in the store before anybody delivers."""
        async with self.queue(delivering=False) as queue:
            for each in recipients:
                await submit(queue, each, **options)
        self.events.clear()

    def happened(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def left(self) -> list[tuple[str, RecipientState]]:
        return [(str(row.recipient), row.state) for row in self.shared.rows.values()]


async def submit(queue: DeliveryQueue, *recipients: str, octets: bytes = MESSAGE, **options: Any) -> int:
    return await queue.submit(envelope(*recipients, **options), Content.inspect(octets))


async def test_a_fresh_message_is_delivered_at_once_and_nothing_remains() -> None:
    world = World()
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(0)
        assert world.network.contents == [MESSAGE]
        assert world.left == []
        (event,) = world.happened(RecipientDone)
        assert event.outcome.status == "delivered"
        assert event.retry_at is None
    assert world.clock.pending == 0


async def test_what_is_in_the_store_is_delivered_after_a_start() -> None:
    world = World()
    await world.fill(*(f"b@d{number}.example" for number in range(100)))
    async with world.queue() as queue:
        await queue.idle()
        assert sorted(world.network.destinations()) == sorted(f"d{number}.example" for number in range(100))
        assert world.left == []


async def test_each_destination_of_a_message_is_a_delivery_of_its_own() -> None:
    world = World()
    world.network.behaviour["example.com"] = failed
    async with world.queue() as queue:
        await submit(queue, "b@example.net", "c@example.com", "d@example.net")
        await world.clock.advance(0)
        assert sorted([str(each) for each in seen.recipients] for seen in world.network.seen) == [
            ["b@example.net", "d@example.net"],
            ["c@example.com"],
        ]


async def test_no_more_run_at_once_than_may() -> None:
    world = World(parallelism=3)
    await world.fill(*(f"b@d{number}.example" for number in range(10)))
    world.network.gates = {f"d{number}.example": asyncio.Event() for number in range(10)}
    async with world.queue() as queue:
        await world.clock.advance(0)
        assert world.network.running == 3
        for gate in world.network.gates.values():
            gate.set()
        await queue.idle()
    assert world.network.most == 3
    assert world.left == []


async def test_a_deferred_message_comes_back_at_its_time() -> None:
    world = World()
    world.network.behaviour["example.net"] = deferred
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(0)
        (event,) = world.happened(RecipientDone)
        wait = (event.retry_at - world.clock.now()).total_seconds()
        await world.clock.advance(wait - 1)
        assert len(world.network.seen) == 1
        world.network.behaviour.clear()
        await world.clock.advance(2)
        assert len(world.network.seen) == 2
        assert world.left == []


async def test_what_comes_again_soon_is_not_left_to_the_next_look_for_changes() -> None:
    world = World()
    world.network.behaviour["example.net"] = lambda who: throttled(who, world.clock.now() + timedelta(seconds=1))
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(TICK - 0.5)
        assert len(world.network.seen) == 5


async def test_no_destination_has_more_than_three_quarters_of_all_places() -> None:
    world = World(parallelism=8)
    await world.fill(*["b@example.net"] * 100)
    world.network.takes = 0.1
    async with world.queue() as queue:
        await world.clock.advance(10)
        await queue.idle()
    assert world.left == []
    assert world.network.most == 6


async def test_what_is_due_later_than_another_for_the_same_place_comes_at_its_time() -> None:
    world = World()
    world.network.behaviour["example.net"] = deferred
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(5 * MINUTE)
        await submit(queue, "c@example.net")
        await world.clock.advance(0)
        first, second = (event.retry_at for event in world.happened(RecipientDone))
        world.network.behaviour.clear()
        await world.clock.advance((first - world.clock.now()).total_seconds())
        assert len(world.network.seen) == 3
        await world.clock.advance((second - world.clock.now()).total_seconds())
        assert world.left == []


async def test_messages_to_many_at_one_place_follow_each_other_at_once() -> None:
    world = World()
    async with world.queue(delivering=False) as queue:
        for _ in range(6):
            await submit(queue, *(f"b{number}@example.net" for number in range(5)))
    async with world.queue():
        await world.clock.advance(0)
        assert world.left == []
    assert len(world.network.seen) == 6


async def test_those_that_cannot_be_read_do_not_hide_the_next(tmp_path: Path) -> None:
    world = World()
    async with world.queue(SQLiteStore(tmp_path, world.clock), delivering=False) as queue:
        for _ in range(12):
            await submit(queue, "b@example.net")
    with closing(sqlite3.connect(tmp_path / "queue.db")) as damaged:
        damaged.execute("UPDATE recipient SET mailbox = '@' WHERE id IN (SELECT id FROM recipient ORDER BY id LIMIT 6)")
        damaged.commit()
    async with world.queue(SQLiteStore(tmp_path, world.clock)) as queue:
        await queue.idle()
    assert len(world.network.seen) == 6


@pytest.mark.parametrize(
    ("command", "tries", "word"),
    [(QueueCommand.RETRY, 2, ""), (QueueCommand.HOLD, 1, "held"), (QueueCommand.REMOVE, 1, "removed")],
)
async def test_what_an_operator_wishes_during_an_attempt_is_done_after_it(
    command: QueueCommand, tries: int, word: str
) -> None:
    world = World()
    world.network.behaviour["example.net"] = deferred
    gate = world.network.gates["example.net"] = asyncio.Event()
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(0)
        await queue.command(command, EVERYTHING)
        gate.set()
        await world.clock.advance(0)
        first, *_ = world.happened(RecipientDone)
        assert len(world.network.seen) == tries
        assert first.operator == word
        assert first.retry_at == (world.clock.now() if command is QueueCommand.RETRY else None)
        assert not first.is_over


async def test_a_removal_during_an_attempt_is_not_undone_by_a_retry() -> None:
    world = World()
    world.network.behaviour["example.net"] = deferred
    gate = world.network.gates["example.net"] = asyncio.Event()
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(0)
        await queue.command(QueueCommand.REMOVE, EVERYTHING)
        await queue.command(QueueCommand.RETRY, EVERYTHING)
        gate.set()
        await world.clock.advance(HOUR.total_seconds())
        assert len(world.network.seen) == 1
        assert await queue.store.page(EVERYTHING, 0, 1) == []


async def test_draining_ends_when_what_was_due_is_done_however_much_comes_in() -> None:
    world = World()
    await world.fill(*(f"b@d{number}.test" for number in range(50)))
    world.network.takes = 0.5
    busy = MemoryStore(world.shared)

    async def others() -> None:
        writing = Writing(world.clock)
        while True:
            await busy.add(writing.message("c@new.test"), leased=False)
            await world.clock.sleep(0.1)

    async with world.queue() as queue:
        adding = asyncio.create_task(others())
        draining = asyncio.create_task(queue.drain())
        await world.clock.advance(20)
        assert draining.done()
        adding.cancel()
        done = world.network.destinations()
        assert len([each for each in done if each != "new.test"]) == 50
        assert done.count("new.test") <= 5  # what came before it had begun


async def test_draining_does_not_wait_for_what_another_process_has_taken_nor_for_what_is_due_later() -> None:
    world = World()
    await world.fill("b@example.net")
    async with MemoryStore(world.shared) as other:
        assert (await other.claim([Quota("example.net", 1)], world.clock.now())).jobs
        world.network.behaviour["example.com"] = deferred
        await world.fill("c@example.com")
        async with world.queue() as queue:
            draining = asyncio.create_task(queue.drain())
            await world.clock.advance(1)
            assert draining.done()
            await world.clock.advance(HOUR.total_seconds())
            assert world.network.destinations() == ["example.com"]


async def test_draining_sends_what_senders_are_to_be_told() -> None:
    world = World()
    world.network.behaviour["example.net"] = failed
    world.network.takes = 0.5
    await world.fill("b@example.net")
    async with world.queue() as queue:
        draining = asyncio.create_task(queue.drain())
        await world.clock.advance(1)
        assert draining.done()
        assert len(world.bounces.seen) == 1


async def test_a_queue_that_does_not_deliver_is_drained_at_once() -> None:
    async with World().queue(delivering=False) as queue:
        await queue.drain()


async def test_what_is_stored_while_the_store_is_asked_is_not_forgotten() -> None:
    world = World()
    asked, answer = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        """Its answer to a claim is old when it comes."""

        async def claim(self, quotas: Sequence[Quota], now: datetime, octets: int = 0) -> Claimed:
            claimed = await super().claim(quotas, now, octets)
            asked.set()
            await answer.wait()
            return claimed

    await world.fill("b@example.net")
    async with world.scheduler(Slow(world.shared)) as scheduler:
        await asked.wait()
        async with world.queue(delivering=False) as other:
            await submit(other, "c@example.net")
        scheduler.expect(["example.net"])
        answer.set()
        await world.clock.advance(0)
        assert world.left == []


async def test_what_comes_in_while_a_worker_ends_is_delivered() -> None:
    """It finds the only place still taken, and nobody else comes by."""
    world = World(parallelism=1)
    store = MemoryStore(world.shared)
    async with world.scheduler(store) as scheduler:
        writing = Writing(world.clock)
        messages = [writing.message(each) for each in ("b@example.net", "c@example.com")]
        for each in messages:
            await store.add(each, leased=True)
        first, second = (jobs_of(each, BY_DOMAIN, store.lease) for each in messages)

        class Turn(list[Any]):
            """Behind the end of the attempt, and before the end of its task is heard of."""

            def append(self, event: Any) -> None:
                super().append(event)
                if isinstance(event, RecipientDone) and len(world.happened(RecipientDone)) == 1:
                    asyncio.get_running_loop().call_soon(scheduler.offer, second)

        world.events = Turn()
        scheduler.offer(first)
        await world.clock.advance(0)
        assert world.network.destinations() == ["example.net", "example.com"]


async def test_an_attempt_that_is_ended_from_outside_leaves_its_place_to_what_waits_for_it() -> None:
    world = World(parallelism=1)
    world.network.gates["held.example"] = asyncio.Event()
    async with world.queue() as queue:
        await submit(queue, "b@held.example")
        await submit(queue, "b@next.example")
        await world.clock.advance(0)
        assert world.network.destinations() == ["held.example"]
        (attempt,) = world.network.attempts
        attempt.cancel()
        await world.clock.advance(0)
        assert "next.example" in world.network.destinations()
        world.network.gates["held.example"].set()


async def test_a_store_that_fails_is_left_in_peace_for_some_seconds() -> None:
    asked = []

    class Failing(MemoryStore):
        async def destinations(self, after: str | None, limit: int) -> list[DueDestination]:
            asked.append(world.clock.monotonic())
            raise StoreUnavailable("the disk is gone")

    world = World()
    await world.fill("b@example.net")
    async with world.queue(Failing(world.shared)) as queue:
        await world.clock.advance(2 * SICK)
        assert len(asked) <= 2 * 3, "three times, and once more when somebody changed it"
        idle = asyncio.create_task(queue.idle())
        await world.clock.advance(0)
        assert not idle.done()
        idle.cancel()


async def test_a_claim_that_fails_forgets_nothing() -> None:
    class FailingOnce(MemoryStore):
        claims = 0

        async def claim(self, quotas: Sequence[Quota], now: datetime, octets: int = 0) -> Claimed:
            self.claims += 1
            if self.claims == 2:
                raise StoreUnavailable("the disk is busy")
            return await super().claim(quotas, now, octets)

    world = World()
    await world.fill(*(["b@example.net"] * 10))
    async with world.queue(FailingOnce(world.shared)) as queue:
        await world.clock.advance(SICK)
        await queue.idle()
    assert world.left == []


async def test_contents_in_memory_have_a_bound_and_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness_module, "CONTENT_OCTETS", len(MESSAGE) * 3 // 2)
    world = World()
    await world.fill("a@first.example")
    gate = world.network.gates["first.example"] = asyncio.Event()
    async with world.queue() as queue:
        await world.clock.advance(0)
        added: list[bool] = []
        store = queue.store
        add = store.add

        async def note(message: NewMessage, *, leased: bool) -> None:
            added.append(leased)
            await add(message, leased=leased)

        monkeypatch.setattr(store, "add", note)
        await submit(queue, "b@second.example")
        assert added == [False], "what is attempted has its content in memory"
        await world.clock.advance(0)
        gate.set()
        await queue.idle()
        await submit(queue, "b@second.example")
        assert added == [False, True]
        await queue.idle()
    assert world.left == []


async def test_who_is_late_is_given_back_where_the_store_fails() -> None:
    class Unreadable(MemoryStore):
        async def content(self, job: LeasedJob) -> Content:
            if world.clock.monotonic() > 3600:
                raise StoreUnavailable("the disk is gone")
            return await super().content(job)

        async def claim(self, quotas: Sequence[Quota], now: datetime, octets: int = 0) -> Claimed:
            return await super().claim(quotas, now)  # without contents: each attempt asks for its own

    world = World(rules=Rules(RULES.schedule, expire=timedelta(hours=1)))
    world.network.behaviour["down.example"] = unreachable
    await world.fill(*(["b@down.example"] * 3))
    async with world.queue(Unreadable(world.shared)):
        await world.clock.advance(3600 + 5 * MINUTE)
        assert [state for _, state in world.left] == [RecipientState.QUEUED] * 3


async def test_a_word_that_got_lost_makes_mail_late_but_loses_none() -> None:
    class Deaf(MemoryStore):
        async def changed_elsewhere(self) -> bool:
            return False

    world = World()
    async with world.queue(Deaf(world.shared)) as queue:
        await queue.idle()
        async with world.queue(delivering=False) as other:
            await submit(other, "b@example.net")
        await world.clock.advance(HOUSEKEEPING - 1)
        assert world.network.seen == []
        await world.clock.advance(1)
        assert len(world.network.seen) == 1


async def test_a_window_that_has_grown_is_used_at_once() -> None:
    """Two places after the first message, four after these: each server that takes one takes more at a time."""

    class InTurn(Network):
        """Those who are under way end together, when `turn` says so."""

        def __init__(self) -> None:
            super().__init__()
            self.gates = {"example.net": asyncio.Event()}

        def turn(self) -> int:
            ended, self.gates["example.net"] = self.running, asyncio.Event()
            return ended

    world = World()
    world.network = network = InTurn()
    await world.fill(*["b@example.net"] * 3)
    together = []
    async with world.queue() as queue:
        await world.clock.advance(0)
        for _ in range(4):
            await submit(queue, "b@example.net")
        await world.clock.advance(0)
        while world.left:
            gate = network.gates["example.net"]
            together.append(network.turn())
            gate.set()
            await world.clock.advance(0)
    assert together == [1, 2, 4]


async def test_a_destination_that_hangs_holds_one_place() -> None:
    world = World(parallelism=8)
    await world.fill(*(["b@hang.example"] * 200), *(f"b@d{number}.example" for number in range(50)))
    world.network.gates["hang.example"] = asyncio.Event()
    async with world.queue():
        await world.clock.advance(0)
        await world.clock.advance(0)
        assert world.network.running == 1
        assert len(set(world.network.destinations())) == 51
        world.network.gates["hang.example"].set()


async def test_memory_does_not_grow_with_the_queue() -> None:
    world = World(parallelism=4)
    await world.fill(*(f"b@d{number % 300}.example" for number in range(1000)))
    world.network.gates = {f"d{number}.example": asyncio.Event() for number in range(300)}
    async with world.queue() as queue:
        await world.clock.advance(0)
        leased = sum(state is RecipientState.LEASED for _, state in world.left)
        assert leased <= 64 + 4
        for _ in range(200):
            await submit(queue, "b@more.example")
        assert sum(state is RecipientState.LEASED for _, state in world.left) <= 64 + 4
        for gate in world.network.gates.values():
            gate.set()
        await queue.idle()
    assert world.left == []
    assert len(world.network.seen) == 1200


async def test_a_destination_that_is_down_is_not_tried_by_each_message_in_turn() -> None:
    world = World()
    await world.fill(*(["b@down.example"] * 50))
    world.network.behaviour["down.example"] = unreachable
    async with world.queue() as queue:
        await queue.idle()
        assert len(world.network.seen) == 1
        (event,) = world.happened(DestinationDown)
        assert 27 <= event.seconds <= 33
        await world.clock.advance(35)
        assert len(world.network.seen) == 2
        await world.clock.advance(600)
        assert len(world.network.seen) <= 7
        assert all(state is RecipientState.QUEUED for _, state in world.left)


async def test_destinations_that_are_down_are_counted_once_each_and_only_as_long_as_they_are_tried() -> None:
    world = World()
    world.network.behaviour = {"example.net": unreachable, "example.com": unreachable}
    await world.fill("b@example.net", "c@example.com")
    async with world.queue() as queue:
        await world.clock.advance(0)
        assert queue.destinations_down == 2
        for _ in range(3):  # each try says so again
            await world.clock.advance(HOUR.total_seconds())
        assert queue.destinations_down == 2
        world.network.behaviour = {"example.com": unreachable}
        await world.clock.advance(HOUR.total_seconds())
        assert queue.destinations_down == 1
        await queue.command(QueueCommand.REMOVE, EVERYTHING)
        await world.clock.advance(3 * HOUR.total_seconds())
        assert queue.destinations_down == 0  # it has no mail: nobody will learn that it is up again


async def test_a_queue_that_does_not_deliver_knows_of_no_destination_that_is_down() -> None:
    world = World()
    async with world.queue(delivering=False) as queue:
        assert queue.destinations_down == 0


async def test_what_has_gathered_for_a_destination_is_released_gradually() -> None:
    world = World(parallelism=16)
    await world.fill(*(["b@down.example"] * 50))
    world.network.behaviour["down.example"] = unreachable
    async with world.queue() as queue:
        await queue.idle()
        world.network.behaviour.clear()
        gate = world.network.gates["down.example"] = asyncio.Event()
        await world.clock.advance(35)
        assert world.network.running == 1
        gate.set()
        await queue.idle()
        await world.clock.advance(20 * MINUTE)
        assert len(world.happened(DestinationUp)) == 1
        assert world.left == []
        assert world.network.most <= 12


async def test_a_permanent_failure_is_told_to_the_sender_by_the_bounce_pipeline() -> None:
    world = World()
    world.network.behaviour["example.net"] = failed
    async with world.queue() as queue:
        await submit(queue, "b@example.net", sender="a@example.org")
        await queue.idle()
        (bounce,) = world.bounces.seen
        assert bounce.sender.is_null
        assert [str(each) for each in bounce.recipients] == ["a@example.org"]
        assert b"no such user" in world.bounces.contents[0]
        assert len(world.happened(NotificationQueued)) == 1
        assert world.left == []


async def test_without_a_bounce_pipeline_notifications_go_the_way_of_all_mail() -> None:
    world = World()
    world.network.behaviour["example.net"] = failed
    async with world.queue(pipeline=False) as queue:
        await submit(queue, "b@example.net")
        await queue.idle()
        assert world.network.destinations() == ["example.net", "example.org"]


async def test_a_notification_that_fails_is_the_end() -> None:
    world = World()
    world.network.behaviour["example.net"] = world.bounces.behaviour["example.org"] = failed
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await queue.idle()
    assert len(world.bounces.seen) == 1
    assert world.left == []


async def test_a_notification_that_the_pipeline_refuses_is_dropped_with_a_word() -> None:
    world = World(refuses="550 5.0.0 not local")
    world.network.behaviour["example.net"] = failed
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await queue.idle()
    assert world.bounces.seen == []
    assert [event.reason for event in world.happened(NotificationDropped)] == ["550 5.0.0 not local"]
    assert world.left == []


async def test_a_notification_that_no_connection_is_secure_enough_for_goes_out_redacted() -> None:
    world = World()

    def insecure(who: Recipient) -> Outcome:
        return Failed(who, Reply.make(550, "5.7.10", "no TLS"))

    world.network.behaviour["example.net"] = failed
    world.bounces.behaviour["example.org"] = insecure
    async with world.queue() as queue:
        await submit(queue, "b@example.net", requiretls=True)
        await queue.idle()
    first, second = world.bounces.seen
    assert first.requiretls
    assert not second.requiretls
    assert b"Subject: hello" in world.bounces.contents[0]
    assert b"Subject: hello" not in world.bounces.contents[1]
    assert b"Message-ID: <1@example.org>" in world.bounces.contents[1]
    assert [each.action for each in world.happened(NotificationQueued)] == ["failed", "redacted"]


async def test_a_fault_in_redacting_loses_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: bytes) -> bytes:
        raise LookupError("a fault in our own code")

    monkeypatch.setattr(bounces, "redact", broken)
    world = World()
    world.network.behaviour["example.net"] = failed
    world.bounces.behaviour["example.org"] = lambda who: Failed(who, Reply.make(550, "5.7.10", "no TLS"))
    async with world.queue() as queue:
        await submit(queue, "b@example.net", requiretls=True)
        await queue.idle()
        assert len(world.happened(Bug)) == 1
        assert world.left == []


async def test_a_notification_that_goes_another_way_does_not_wait_for_the_targets_servers() -> None:
    world = World()
    world.network.behaviour["example.org"] = unreachable
    world.network.behaviour["example.net"] = failed
    async with world.queue() as queue:
        await submit(queue, "b@example.org")
        await queue.idle()
        await submit(queue, "b@example.net", sender="a@example.org")
        await queue.idle()
    assert world.bounces.destinations() == ["example.org"]
    (down,) = world.happened(DestinationDown)
    assert down.destination == "example.org"


async def test_a_destination_rests_no_longer_than_the_schedule_has_a_message_wait() -> None:
    world = World(rules=Rules(Schedule(timedelta(seconds=2), 2.0, timedelta(hours=1)), max_tries=3))
    world.network.behaviour["down.example"] = unreachable
    async with world.queue() as queue:
        await submit(queue, "b@down.example")
        await world.clock.advance(2 * 1.1 + 4 * 1.1 + 1)
        await queue.idle()
        assert world.left == []
    assert len(world.network.seen) == 3
    assert [done.tries for done in world.happened(RecipientDone) if done.given_up] == [3]


@pytest.mark.parametrize(
    ("security", "is_redacted"),
    [
        (Security(), True),
        (Security(MXLevel.MTASTS, TLSLevel.ENCRYPTED), True),
        (Security(MXLevel.NONE, TLSLevel.AUTHENTICATED), True),
        (Security(MXLevel.MTASTS, TLSLevel.AUTHENTICATED), False),  # so the server said that itself, and may see it all
    ],
)
async def test_so_does_one_that_was_given_up_for_want_of_security(security: Security, is_redacted: bool) -> None:
    world = World(rules=Rules(RULES.schedule, expire=timedelta(hours=3)))
    not_now = Reply.make(451, "4.7.0", "REQUIRETLS cannot be satisfied at the moment")
    world.network.behaviour["example.net"] = failed
    world.bounces.behaviour["example.org"] = lambda who: Deferred(who, not_now, security=security)
    async with world.queue() as queue:
        await submit(queue, "b@example.net", requiretls=True)
        await queue.idle()
        assert [each.requiretls for each in world.bounces.seen] == [True], "while it may still be met"
        await world.clock.advance(3 * 60 * MINUTE)
        await queue.idle()
    redacted = [
        content
        for given, content in zip(world.bounces.seen, world.bounces.contents, strict=True)
        if not given.requiretls
    ]
    assert [b"Subject: hello" in content for content in redacted] == ([False] if is_redacted else [])


@pytest.mark.parametrize("error", [RuntimeError("bug"), asyncio.CancelledError()], ids=["exception", "cancelled"])
async def test_an_exception_of_the_deliverer_defers_and_never_bounces(error: BaseException) -> None:
    world = World()
    world.network.behaviour["example.net"] = error
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await queue.idle()
        assert [type(event.error) for event in world.happened(Bug)] == [type(error)]
        assert world.left == [("b@example.net", RecipientState.QUEUED)]
        assert world.bounces.seen == []


async def test_throttled_comes_back_when_it_may() -> None:
    world = World()
    until = world.clock.now() + timedelta(seconds=7)
    world.network.behaviour["example.net"] = lambda who: throttled(who, until)
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await queue.idle()
        world.network.behaviour.clear()
        await world.clock.advance(8)
        assert world.left == []
        assert world.happened(DestinationDown) == []


async def test_what_a_limit_holds_back_again_is_told_as_known() -> None:
    world = World()
    world.network.behaviour["example.net"] = lambda who: throttled(who, world.clock.now() + timedelta(seconds=7))
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(20)
        assert [each.is_repeated for each in world.happened(RecipientDone)] == [False, True, True]


async def test_an_outcome_that_cannot_be_recorded_is_kept_and_nothing_is_delivered_twice() -> None:
    world = World()
    async with world.queue() as queue:
        gate = world.network.gates["example.net"] = asyncio.Event()
        await submit(queue, "b@example.net")
        await world.clock.advance(0)
        world.shared.full = True
        gate.set()
        await world.clock.advance(3 * MINUTE)
        with pytest.raises(StoreUnavailable):
            await submit(queue, "c@example.com")
        assert len(world.happened(OutcomeUnrecorded)) == 1
        assert len(world.happened(QueueUnavailable)) == 1
        world.shared.full = False
        await world.clock.advance(10)
        assert world.left == []
        assert len(world.happened(QueueAvailable)) == 1
        await submit(queue, "c@example.com")
        await world.clock.advance(0)
    assert world.network.destinations() == ["example.net", "example.com"]


async def test_nothing_is_begun_while_an_outcome_waits_to_be_recorded() -> None:
    """Each of them might be delivered, and forgotten, too; though a place becomes free while it lasts."""
    world = World(parallelism=1)
    gate = world.network.gates["example.net"] = asyncio.Event()
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await submit(queue, "c@example.com")
        await world.clock.advance(0)
        world.shared.full = True
        gate.set()
        await world.clock.advance(3 * MINUTE)
        assert world.network.destinations() == ["example.net"]
        world.shared.full = False
        await world.clock.advance(10)
        assert world.network.destinations() == ["example.net", "example.com"]
        assert world.left == []


async def test_a_stop_lets_running_attempts_end() -> None:
    world = World()
    gate = world.network.gates["example.net"] = asyncio.Event()
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(0)
        world.clock.call_at(world.clock.monotonic() + 5, gate.set)
    assert world.left == []
    assert world.happened(AttemptInterrupted) == []


async def test_attempts_are_noted_while_they_are_under_way_and_not_while_they_wait_nor_after_a_stop(
    tmp_path: Path,
) -> None:
    world = World()
    gate = world.network.gates["example.net"] = asyncio.Event()
    notes = tmp_path / "begun"
    store = MemoryStore(world.shared)
    store.begun = AttemptNotes(notes)
    async with world.queue(store) as queue:
        first = await submit(queue, "b@example.net")
        second = await submit(queue, "b@example.net")
        await world.clock.advance(0)
        assert read_attempt_notes(notes) == [first + 1], "a window begins with one place"
        gate.set()
        await queue.idle()
        assert read_attempt_notes(notes) == []
        gate.clear()
        third = await submit(queue, "b@example.net")
        await world.clock.advance(0)
        assert first < second < third
        assert read_attempt_notes(notes) == [third + 1]
        stop = asyncio.create_task(queue.stop())
        await world.clock.advance(0)
        assert read_attempt_notes(notes) == []
        gate.set()
        await stop


async def test_what_has_to_be_cut_off_counts_as_no_try() -> None:
    world = World()
    world.network.gates["example.net"] = asyncio.Event()
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(0)
    assert world.left == [("b@example.net", RecipientState.QUEUED)]
    assert len(world.happened(AttemptInterrupted)) == 1
    (row,) = world.shared.rows.values()
    assert row.progress.tries == 0


async def test_a_lease_that_was_lost_is_told_of() -> None:
    world = World()
    gate = world.network.gates["example.net"] = asyncio.Event()
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(0)
        for row in world.shared.rows.values():
            row.owner = 999
        gate.set()
        await queue.idle()
        assert len(world.happened(LeaseLost)) == 1


async def test_mail_that_another_process_adds_is_found_without_a_word() -> None:
    world = World()
    async with world.queue():
        await world.clock.advance(1)
        async with world.queue(delivering=False) as other:
            await submit(other, "b@example.net")
        await world.clock.advance(10)
        assert world.network.destinations() == ["example.net"]


async def test_a_retry_by_an_operator_opens_a_destination_that_is_down() -> None:
    world = World()
    world.network.behaviour["example.net"] = unreachable
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await queue.idle()
        world.network.behaviour.clear()
        assert (await queue.command(QueueCommand.RETRY, EVERYTHING)).changed == 1
        await queue.idle()
        assert world.left == []


async def test_a_delay_is_told_although_the_destination_is_down_and_nothing_is_tried() -> None:
    world = World()
    world.network.behaviour["down.example"] = unreachable
    await world.fill(*(["b@down.example"] * 5))
    async with world.queue():
        await world.clock.advance(RULES.delay_warning.total_seconds() + 2 * HOUSEKEEPING)
        assert len(world.bounces.seen) == 5
        assert all(b"Delayed" in octets for octets in world.bounces.contents)
        await world.clock.advance(3600)
        assert len(world.bounces.seen) == 5


async def test_what_was_never_tried_is_given_up_when_its_time_is_over() -> None:
    world = World(rules=Rules(RULES.schedule, expire=timedelta(hours=1)))
    world.network.behaviour["down.example"] = unreachable
    await world.fill(*(["b@down.example"] * 20))
    async with world.queue() as queue:
        await world.clock.advance(3600 + 20 * MINUTE)
        await queue.idle()
        assert world.left == []
        assert len(world.bounces.seen) == 20
    assert sum(done.given_up for done in world.happened(RecipientDone)) == 20
    reasons = {done.outcome.reply.text for done in world.happened(RecipientDone) if done.given_up and not done.tries}
    (down, *_) = world.happened(DestinationDown)
    assert reasons == {f"{UNREACHABLE.text}; another message got: {down.reply}"}


async def test_what_could_be_tried_is_not_given_up_untried() -> None:
    """After a long stop all is over, and much waits for its turn: that a destination is down is not known."""
    world = World(rules=Rules(RULES.schedule, expire=timedelta(hours=5)))
    await world.fill(*(["b@slow.example"] * 20))
    world.clock.jump(timedelta(hours=6))
    gate = world.network.gates["slow.example"] = asyncio.Event()
    async with world.queue() as queue:
        await world.clock.advance(3 * HOUSEKEEPING)
        assert len(world.left) == 20
        gate.set()
        await queue.idle()
    assert world.left == []
    assert len(world.network.seen) == 20
    assert world.bounces.seen == []


async def test_a_clock_that_jumps_ahead_makes_mail_due() -> None:
    world = World()
    world.network.behaviour["example.net"] = deferred
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await queue.idle()
        world.network.behaviour.clear()
        world.clock.jump(timedelta(hours=1))
        await world.clock.advance(10)
        assert world.left == []


async def test_a_clock_that_jumps_back_loses_nothing() -> None:
    world = World()
    world.network.behaviour["example.net"] = deferred
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await queue.idle()
        world.network.behaviour.clear()
        world.clock.jump(timedelta(hours=-1))
        await submit(queue, "c@example.net")
        await world.clock.advance(2 * 3600)
        assert world.left == []


async def test_a_large_message_is_read_from_the_store_when_its_turn_comes() -> None:
    world = World()
    large = MESSAGE + (b"x" * 70 + b"\r\n") * 10_000
    async with world.queue() as queue:
        await submit(queue, "b@example.net", octets=large)
        await queue.idle()
    assert world.network.contents == [large]
    assert world.shared.contents == {}


async def test_a_queue_can_be_the_target_of_something_else() -> None:
    world = World()
    async with world.queue() as queue:
        target = QueueDeliverer(queue)
        (outcome,) = await target.deliver(envelope("b@example.net"), Content.inspect(MESSAGE))
        assert outcome.status == "delivered"
        assert "Queued as" in outcome.reply.text
        world.shared.full = True
        (outcome,) = await target.deliver(envelope("b@example.net"), Content.inspect(MESSAGE))
        assert outcome.status == "deferred"
        world.shared.full = False


async def test_a_queue_tells_a_sender_of_recipients_that_another_queue_could_not_take() -> None:
    world = World()
    async with world.queue() as queue:
        target = QueueDeliverer(queue)
        given = envelope("b@example.net", "c@example.net")
        reply = Reply.make(554, "5.3.0", "It could not be queued")
        assert target.can_tell(given.sender)
        assert await target.tell_failed(given, Content.inspect(MESSAGE), reply)
        await queue.idle()
        (told,) = world.bounces.seen
        (text,) = world.bounces.contents
        assert [str(each) for each in told.recipients] == ["a@example.org"]
        assert all(words in text for words in (b"b@example.net", b"c@example.net", b"5.3.0", b"It could not be queued"))
    assert world.left == []


@pytest.mark.parametrize(("to_list", "action"), [(False, b"expanded"), (True, b"delivered")])
async def test_a_queue_tells_a_sender_that_an_alias_stands_for_others(to_list: bool, action: bytes) -> None:
    world = World()
    async with world.queue() as queue:
        target, content = QueueDeliverer(queue), Content.inspect(MESSAGE)
        await target.tell_passed_on(envelope("staff@example.org"), content, to_list=to_list)
        await queue.idle()
        (told,) = world.bounces.seen
        (text,) = world.bounces.contents
        assert [str(each) for each in told.recipients] == ["a@example.org"]
        assert b"Final-Recipient: rfc822; staff@example.org\r\nAction: " + action + b"\r\nStatus: 2.0.0" in text
        await target.tell_passed_on(envelope("staff@example.org", sender=""), content, to_list=to_list)
        world.shared.full = True
        await target.tell_passed_on(envelope("staff@example.org"), content, to_list=to_list)  # nothing is raised
        world.shared.full = False
        assert len(world.bounces.seen) == 1
    assert world.left == []


async def test_a_queue_that_cannot_tell_says_so() -> None:
    world = World()
    async with world.queue() as queue:
        target, content = QueueDeliverer(queue), Content.inspect(MESSAGE)
        reply = Reply.make(554, "5.3.0", "It could not be queued")
        assert not target.can_tell(envelope(sender="").sender)
        assert not await target.tell_failed(envelope("b@example.net", sender=""), content, reply)
        world.refuses = "not to you"
        assert not target.can_tell(envelope().sender)
        world.refuses, world.shared.full = "", True
        assert not await target.tell_failed(envelope("b@example.net"), content, reply)
        world.shared.full = False
    async with world.queue(delivering=False) as queue:
        assert not queue.can_tell(envelope().sender)


async def test_a_queue_takes_no_quarantined_message_and_sends_no_notification_about_one() -> None:
    world = World()
    async with world.queue() as queue:
        given = envelope("b@example.net", quarantined=True)
        (outcome,) = await QueueDeliverer(queue).deliver(given, Content.inspect(MESSAGE))
        assert (outcome.status, str(outcome.reply.status)) == ("failed", "5.7.0")
        world.network.behaviour["example.net"] = failed
        await queue.submit(given, Content.inspect(MESSAGE))
        await queue.idle()
    assert world.bounces.seen == []


async def test_a_message_whose_submitter_goes_away_while_it_is_stored_is_delivered(tmp_path: Path) -> None:
    """The writer goes on: what it commits then must not stay leased by nobody."""
    world = World()
    arrived = asyncio.Event()

    def take(who: Recipient) -> Outcome:
        arrived.set()
        return delivered(who)

    world.network.behaviour["example.net"] = take
    held, reached = threading.Event(), threading.Event()

    def fault(name: str) -> None:
        if name == "before commit" and not held.is_set():
            reached.set()
            held.wait()

    held.set()
    async with world.queue(SQLiteStore(tmp_path, world.clock, fault=fault)) as queue:
        await queue.idle()
        held.clear()
        submitting = asyncio.create_task(submit(queue, "b@example.net"))
        await asyncio.to_thread(reached.wait)
        submitting.cancel()
        held.set()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        await arrived.wait()


async def test_a_job_whose_lease_is_not_ours_is_not_attempted() -> None:
    world = World()
    async with world.scheduler(MemoryStore(world.shared)) as scheduler:
        scheduler.offer([Writing(world.clock).job("b@example.net", lease=999)])
        await world.clock.advance(0)
    assert world.network.seen == []


async def test_a_job_of_an_earlier_lease_gives_nothing_back_that_we_have_leased_again() -> None:
    """This process was held for dead, and has leased again what it had: it is being attempted, by us."""
    world = World()
    await world.fill("b@example.net")
    gate = world.network.gates["example.net"] = asyncio.Event()
    store = MemoryStore(world.shared)
    async with world.scheduler(store) as scheduler:
        await world.clock.advance(0)
        (row,) = world.shared.rows.values()
        (attempted,) = world.network.seen
        earlier = LeasedJob(
            row.message.id,
            "example.net",
            attempted,
            (row.message.id + 1,),
            (row.progress,),
            row.message.created,
            row.message.info,
            store.lease - 1,
        )
        scheduler.give_up([earlier])
        await world.clock.advance(0)
        assert row.state is RecipientState.LEASED
        gate.set()
        await world.clock.advance(0)
        assert len(world.network.seen) == 1


# --- Before a message is given up -------------------------------------------------------------------------------------


class Looking(Network):
    """A deliverer that can look again; `looks` are the numbers of attempts before each look."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.looks: list[int] = []
        self.error = error

    async def look_again(self, given: Envelope, content: Content) -> None:
        assert content is not None
        assert [str(each) for each in given.recipients] == ["b@example.net"]
        self.looks.append(len(self.seen))
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, ZeroDivisionError()])
async def test_before_the_last_attempt_the_deliverer_looks_again_and_the_attempt_is_made_in_any_case(
    error: Exception | None,
) -> None:
    world = World(rules=Rules(RULES.schedule, max_tries=3))
    world.network = network = Looking(error)
    network.behaviour["example.net"] = deferred
    async with world.queue() as queue:
        await submit(queue, "b@example.net")
        await world.clock.advance(120 * MINUTE)
        assert len(network.seen) == 3
        assert network.looks == [2]
        assert [each.error for each in world.happened(Bug)] == ([error] if error else [])


async def test_a_message_whose_id_is_taken_gets_another_and_is_delivered() -> None:
    world = World()
    world.ids = IdSource(world.clock, 5)
    async with world.queue() as first:
        world.ids = IdSource(world.clock, 5)  # of the same worker before or after a reload, at the same moment
        async with world.queue(delivering=False) as second:
            world.network.behaviour["example.net"] = deferred
            ids = {await submit(each, "b@example.net") for each in (first, second)}
            await world.clock.advance(0)
            assert len(ids) == 2
            entries = await first.store.page(EVERYTHING, 0, 10)
            assert {entry.message_id for entry in entries} == ids


async def test_a_message_whose_known_id_is_taken_is_refused_for_now_and_certainly_not_there() -> None:
    world = World()
    world.ids = IdSource(world.clock, 5)
    async with world.queue(delivering=False) as first:
        world.ids = IdSource(world.clock, 5)
        async with world.queue(delivering=False) as second:
            await submit(first, "b@example.net")
            known = second.new_id()
            with pytest.raises(StoreUnavailable):
                await second.submit(envelope("c@example.net"), Content.inspect(MESSAGE), id=known)
            assert await second.cancel(known)
            assert [each for each, _ in world.left] == ["b@example.net"]


async def test_a_notification_whose_id_is_taken_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.queue() as queue:
        world.network.behaviour["example.com"] = deferred
        taken = await submit(queue, "b@example.com")
        await world.clock.advance(0)
        given_out = iter([taken + 9999, taken, taken + 99999])
        monkeypatch.setattr(world.ids, "take", lambda _: next(given_out))
        world.network.behaviour["example.net"] = failed
        await submit(queue, "c@example.net")
        await world.clock.advance(0)
        assert [str(each.recipients[0]) for each in world.bounces.seen] == ["a@example.org"]
        assert [entry.message_id for entry in await queue.store.page(EVERYTHING, 0, 10)] == [taken]
