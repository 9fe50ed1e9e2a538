"""What a supervisor hears from its workers, which are no processes here."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mailrider.app.worker_link import encode_frame
from mailrider.app.worker_process import WorkerProcess
from mailrider.app.worker_talk import BEGINS_WITHIN, WorkerTalk
from mailrider.model.event import discard
from mailrider.observe.metric_sums import encode_metrics
from mailrider.observe.metrics import Metrics
from mailrider.testing.clock import FakeClock

SILENCE = 30.0


class World:
    """Workers that serve, and what each was told."""

    def __init__(self, workers: int) -> None:
        self.clock = FakeClock()
        self.talk = WorkerTalk(Metrics(), self.clock, SILENCE, str)
        self.told: dict[int, list[tuple[str, Any]]] = {}
        self.workers = [self.start(number) for number in range(1, workers + 1)]

    def start(self, number: int) -> WorkerProcess:
        worker = WorkerProcess(number, number, number, 1, discard, 0.0)
        told = self.told[number] = []
        worker.link.send = lambda kind, body=None: told.append((kind, body))  # type: ignore[method-assign]
        self.talk.listen(worker)
        self.talk.came(worker)
        self.say(worker, "ready")
        return worker

    def say(self, worker: WorkerProcess, kind: str, body: Any = None) -> None:
        worker.link.data_received(encode_frame(kind, body))

    def answer(self, worker: WorkerProcess, look: int | None) -> None:
        self.say(worker, "counted", [look, encode_metrics(Metrics())])

    def looks(self, worker: WorkerProcess) -> list[Any]:
        return [body for kind, body in self.told[worker.number] if kind == "metrics"]


async def test_who_looks_at_counters_waits_for_what_each_worker_answers_to_that() -> None:
    world = World(2)
    first, second = world.workers
    world.talk.ask_for_counters()
    looking = asyncio.create_task(world.talk.refresh())
    await world.clock.advance(0)
    assert world.looks(first) == [None, 1]
    world.answer(first, None)  # late, to the earlier question
    world.answer(second, 1)
    await world.clock.advance(0)
    assert not looking.done()
    world.answer(first, 1)
    await looking


async def test_a_worker_that_dies_keeps_nobody_waiting_for_counters() -> None:
    world = World(2)
    first, second = world.workers
    looking = asyncio.create_task(world.talk.refresh())
    await world.clock.advance(0)
    world.answer(first, 1)
    world.talk.gone(second)
    await looking


async def test_who_does_not_wait_any_more_is_forgotten() -> None:
    world = World(1)
    looking = asyncio.create_task(world.talk.refresh())
    await world.clock.advance(0)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    world.answer(world.workers[0], 1)
    again = asyncio.create_task(world.talk.refresh())
    await world.clock.advance(0)
    assert not again.done()
    world.answer(world.workers[0], 2)
    await again


async def test_each_worker_that_is_silent_is_named_once() -> None:
    world = World(2)
    first, second = world.workers
    named = list[WorkerProcess]()
    for _ in range(12):
        await world.clock.advance((SILENCE + BEGINS_WITHIN) / 10)
        world.say(first, "beat")
        named += world.talk.take_silent()
    assert named == [second]


async def test_a_finding_about_a_password_reaches_all_others_that_have_their_orders() -> None:
    world = World(3)
    first, second, third = world.workers
    second.is_told = True
    finding = {"user": "me", "client": "192.0.2.1", "is_right": False}
    world.say(first, "login", finding)
    assert [world.told[each.number] for each in (first, second, third)] == [[], [("login", finding)], []]
    world.talk.tell_known(third)
    assert json.loads(json.dumps(world.told[3])) == [["logins", [[world.clock.monotonic(), finding]]]]


async def test_that_validation_has_worked_is_known_to_those_that_start_later() -> None:
    world = World(1)
    assert not world.talk.is_proven
    world.say(world.workers[0], "proven")
    assert world.talk.is_proven
