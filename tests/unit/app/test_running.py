"""What a daemon's process tells of its queues."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from mailrider.app.running import Running
from mailrider.observe.metric_sums import SHOWN, TOLD
from mailrider.observe.metrics import Metrics
from mailrider.queue.message import Stats
from mailrider.queue.worker_place import Place
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from datetime import datetime


@pytest.mark.parametrize(
    ("place", "destinations"),
    [pytest.param(Place(), SHOWN, id="alone"), pytest.param(Place(1, 4), TOLD, id="a worker")],
)
async def test_a_worker_tells_of_more_destinations_than_are_shown_of_all_workers(
    place: Place, destinations: int
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
