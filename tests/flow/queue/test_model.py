"""Store and settle against a model: whatever happens in whatever order, every recipient comes to one end.

The model knows of each recipient its state and when it is due, nothing of rows, leases or commits. The machine runs
on the fake clock, with any store.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mailrider.dsn.notification import NotifiedAction
from mailrider.queue.message import EVERYTHING, Filter, NewState, Quota, RecipientState, Settlement
from mailrider.queue.retry import Rules, Schedule
from mailrider.queue.settle import settle
from mailrider.queue.sqlite.owner import Identity
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.store import QueueCommand
from mailrider.testing.clock import FakeClock
from mailrider.testing.store import MemoryStore, SharedState
from tests.support.long_runs import LONG
from tests.support.queueing import Writing, deferred, delivered, failed, in_doubt, report

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import datetime

    from mailrider.queue.message import LeasedJob
    from mailrider.queue.store import Store

RULES = Rules(
    Schedule(timedelta(minutes=10), 2.0, timedelta(hours=1)),
    max_tries=5,
    expire=timedelta(hours=12),
    delay_warning=timedelta(hours=2),
)
OUTCOMES = {"delivered": delivered, "deferred": deferred, "failed": failed, "in doubt": in_doubt}
DOMAINS = ["a.example", "b.example", "c.example"]


@dataclass
class Known:
    """What the model knows of a recipient."""

    destination: str
    due: datetime
    state: RecipientState = RecipientState.QUEUED
    wish: QueueCommand | None = None
    tries: int = 0
    told: list[NotifiedAction] = field(default_factory=list)


class QueueMachine(RuleBasedStateMachine):
    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.writing = Writing(self.clock)
        self.rng = random.Random(1)
        self.known: dict[int, Known] = {}
        self.jobs: list[LeasedJob] = []
        self.stale: list[LeasedJob] = []
        self.ended: dict[int, str] = {}
        self.folder = tempfile.TemporaryDirectory()
        self.shared = SharedState()
        self.others: list[Store] = []
        self.store: Store

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    def open(self) -> Store:
        if self.kind == "memory":
            memory: Store = self.run(MemoryStore(self.shared).__aenter__())
            return memory
        # A process that is dead for all others, as soon as they look: so a crash needs no real one.
        identity = Identity("another boot", "", 1, "")
        store: Store = self.run(SQLiteStore(Path(self.folder.name), self.clock, identity=identity).__aenter__())
        return store

    @initialize()
    def begin(self) -> None:
        self.store = self.open()

    def teardown(self) -> None:
        for store in [*self.others, self.store]:
            self.run(store.__aexit__(None, None, None))
        self.loop.close()
        self.folder.cleanup()

    @rule(domains=st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=4))
    def add(self, domains: list[str]) -> None:
        message = self.writing.message(*(f"u{index}@{domain}" for index, domain in enumerate(domains)))
        self.run(self.store.add(message, leased=False))
        for index, domain in enumerate(domains):
            self.known[message.id + 1 + index] = Known(domain, message.created)

    @precondition(lambda self: any(one.state is RecipientState.QUEUED for one in self.known.values()))
    @rule(data=st.data(), jobs=st.integers(1, 3))
    def claim(self, data: st.DataObject, jobs: int) -> None:
        queued = sorted({one.destination for one in self.known.values() if one.state is RecipientState.QUEUED})
        destination = data.draw(st.sampled_from(queued))
        answer = self.run(self.store.claim([Quota(destination, jobs)], self.clock.now()))
        claimed = answer.jobs
        due = [id for id, one in self.known.items() if self.is_due(one, destination)]
        taken = [id for job in claimed for id in job.ids]
        assert set(taken) <= set(due)
        assert len(taken) == len(set(taken))
        assert bool(taken) is bool(due)
        for id in taken:
            self.known[id].state = RecipientState.LEASED
        self.jobs += claimed
        left = [
            one.due
            for one in self.known.values()
            if one.destination == destination and one.state is RecipientState.QUEUED
        ]
        assert answer.left == ({destination: min(left)} if left else {})

    def is_due(self, one: Known, destination: str) -> bool:
        return one.state is RecipientState.QUEUED and one.destination == destination and one.due <= self.clock.now()

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def attempt(self, data: st.DataObject) -> None:
        job = self.jobs.pop(data.draw(st.integers(0, len(self.jobs) - 1)))
        words = [data.draw(st.sampled_from(sorted(OUTCOMES))) for _ in job.ids]
        now = self.clock.now()
        found = report(job, *(OUTCOMES[word] for word in words))
        decision = settle(job, found, RULES, now, self.rng)
        held = self.run(self.store.settle(Settlement(job, decision.changes, now))).held
        assert held is (job.lease == self.store.lease)
        if held:
            for change, word in zip(decision.changes, words, strict=True):
                self.settled(change, word, now)
            for told in decision.notified:
                index = [str(each) for each in job.envelope.recipients].index(str(told.recipient))
                if job.ids[index] in self.known:
                    assert (
                        told.action is not NotifiedAction.DELAYED or told.action not in self.known[job.ids[index]].told
                    )
                    self.known[job.ids[index]].told.append(told.action)

    def settled(self, change: Any, word: str, now: datetime) -> None:
        one = self.known[change.id]
        if change.new_state is NewState.DONE or one.wish is QueueCommand.REMOVE:
            assert change.id not in self.ended
            self.ended[change.id] = "removed" if change.new_state is not NewState.DONE else word
            del self.known[change.id]
            return
        one.tries += 1
        assert one.tries < RULES.max_tries
        assert now < change.due <= now + RULES.expire
        one.due = now if one.wish is QueueCommand.RETRY else change.due
        one.state = RecipientState.HELD if one.wish is QueueCommand.HOLD else RecipientState.QUEUED
        one.wish = None

    @precondition(lambda self: self.jobs)
    @rule(crashes=st.booleans())
    def stop(self, crashes: bool) -> None:
        if crashes:
            self.crash()
        else:
            self.give_back()

    def give_back(self) -> None:
        self.run(self.store.give_back(self.jobs))
        self.freed()

    def freed(self) -> None:
        """Every job is back, and what was wished for it has happened."""
        for job in self.jobs:
            for id in job.ids:
                one = self.known[id]
                if one.wish is QueueCommand.REMOVE:
                    self.ended[id] = "removed"
                    del self.known[id]
                else:
                    one.state = RecipientState.HELD if one.wish is QueueCommand.HOLD else RecipientState.QUEUED
                    one.wish = None
        self.jobs = []

    def crash(self) -> None:
        """The process dies with everything that it had in hand; another one goes on."""
        self.stale += self.jobs
        self.others.append(self.store)
        if isinstance(self.store, MemoryStore):
            self.shared.alive.discard(self.store.lease)
        self.store = self.open()
        self.freed()

    @precondition(lambda self: self.stale)
    @rule()
    def come_back_from_the_dead(self) -> None:
        """Whoever was held for dead cannot settle any more."""
        job = self.stale.pop()
        found = report(job, delivered)
        decision = settle(job, found, RULES, self.clock.now(), self.rng)
        assert not self.run(self.others[-1].settle(Settlement(job, decision.changes, self.clock.now()))).held

    @precondition(lambda self: self.jobs)
    @rule(command=st.sampled_from(list(QueueCommand)))
    def command_what_is_leased(self, command: QueueCommand) -> None:
        self.command(command, None)

    @rule(command=st.sampled_from(list(QueueCommand)), destination=st.sampled_from([*DOMAINS, None]))
    def command_some(self, command: QueueCommand, destination: str | None) -> None:
        self.command(command, destination)

    def command(self, command: QueueCommand, destination: str | None) -> None:
        now = self.clock.now()
        self.run(self.store.command(command, Filter(domain=destination), now))
        for id, one in list(self.known.items()):
            if destination not in (None, one.destination):
                continue
            if one.state is RecipientState.LEASED:
                one.wish = wish_after(one.wish, command)
            elif command is QueueCommand.REMOVE:
                self.ended[id] = "removed"
                del self.known[id]
            elif command is QueueCommand.HOLD:
                one.state = RecipientState.HELD
            elif command is QueueCommand.RELEASE:
                one.state = RecipientState.QUEUED
            elif one.state is RecipientState.QUEUED:
                one.due = min(one.due, now)

    @rule(minutes=st.integers(1, 300))
    def wait(self, minutes: int) -> None:
        self.run(self.clock.advance(minutes * 60))

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not hasattr(self, "store"):
            return
        entries = self.run(self.store.page(EVERYTHING, 0, 1000))
        found = {entry.recipient_id: (entry.destination, entry.state, entry.due) for entry in entries}
        assert found == {id: (one.destination, one.state, one.due) for id, one in self.known.items()}
        first: dict[str, datetime] = {}
        for one in self.known.values():
            if one.state is RecipientState.QUEUED:
                first[one.destination] = min(one.due, first.get(one.destination, one.due))
        destinations = self.run(self.store.destinations(None, 10))
        assert {each.destination: each.due for each in destinations} == first


def wish_after(before: QueueCommand | None, command: QueueCommand) -> QueueCommand | None:
    """A removal stays, a hold stays until it is released or removed."""
    if before is QueueCommand.REMOVE or (before is QueueCommand.HOLD and command is QueueCommand.RETRY):
        return before
    if command is QueueCommand.RELEASE:
        return None if before is QueueCommand.HOLD else before
    return command


class SQLiteMachine(QueueMachine):
    kind = "sqlite"


def limited(machine: type[QueueMachine], examples: int) -> Any:
    case = machine.TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    return case


TestMemoryStore = limited(QueueMachine, 100 if LONG else 20)
TestSQLiteStore = limited(SQLiteMachine, 120 if LONG else 10)
