"""What a daemon's process tells of its queues."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from mailrider.app.running import LINGER, Running
from mailrider.observe.metric_sums import SHOWN, TOLD
from mailrider.observe.metrics import Metrics
from mailrider.queue.message import Stats
from mailrider.queue.worker_place import WorkerNumber
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from datetime import datetime


@pytest.mark.parametrize(
    ("place", "destinations"),
    [pytest.param(WorkerNumber(), SHOWN, id="alone"), pytest.param(WorkerNumber(1, 4), TOLD, id="a worker")],
)
async def test_a_worker_tells_of_more_destinations_than_are_shown_of_all_workers(
    place: WorkerNumber, destinations: int
) -> None:
    asked: list[int] = []

    class Counted:
        destinations_down = 0

        async def stats(self, _: datetime, most: int) -> Stats:
            asked.append(most)
            return Stats(0, 0, (), {})

    process = SimpleNamespace(clock=FakeClock(), metrics=Metrics(), place=place)
    targets = SimpleNamespace(queues={"mail": Counted()})
    nothing: Any = None
    await Running(cast("Any", process), nothing, nothing, cast("Any", targets)).refresh()
    assert asked == [destinations]
    assert TOLD > SHOWN


class FakeQueue:
    """It ends when its attempts have; `steps` is what happened, in order."""

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps

    async def leave_off(self) -> None:
        self.steps.append("the queue begins nothing more")

    async def finish(self) -> None:
        self.steps.append("the queue's attempts have ended")


class FakeEndpoint:
    """Its session ends when `may_end` says so."""

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps
        self.may_end = asyncio.Event()

    def stop(self) -> None:
        self.steps.append("idle clients are told to go")

    async def ended(self) -> None:
        await self.may_end.wait()


async def test_an_earlier_configuration_begins_nothing_and_waits_for_its_sessions_before_its_attempts() -> None:
    """A session may still bring a message for a target, which is attempted at once."""
    clock, steps = FakeClock(), list[str]()
    process = SimpleNamespace(clock=clock)
    endpoint = FakeEndpoint(steps)
    targets = SimpleNamespace(queues={"mail": FakeQueue(steps)})
    nothing: Any = None
    running = Running(cast("Any", process), nothing, AsyncExitStack(), cast("Any", targets))
    running.endpoints.append(cast("Any", endpoint))
    finishing = asyncio.create_task(running.finish())
    await clock.advance(LINGER + 60)
    assert steps == ["the queue begins nothing more", "idle clients are told to go"]
    endpoint.may_end.set()
    await clock.advance(0)
    assert steps[2:] == ["the queue's attempts have ended"]
    assert await finishing
