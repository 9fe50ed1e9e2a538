"""What a signal means while the workers of an earlier supervisor are waited for."""

from __future__ import annotations

import asyncio
from signal import SIGHUP, SIGINT, SIGTERM, Signals

import pytest

from mailrider.app.worker_lock import is_told_to_stop
from mailrider.model.daemon_event import DaemonStopping
from mailrider.model.event import Event


@pytest.mark.parametrize(
    ("came", "stop", "left"),
    [
        ([], None, []),
        ([SIGTERM], SIGTERM, []),
        ([SIGHUP], None, [SIGHUP]),
        ([SIGHUP, SIGHUP], None, [SIGHUP]),
        ([SIGHUP, SIGINT, SIGTERM], SIGINT, [SIGHUP]),
    ],
)
def test_a_stop_ends_the_waiting_and_a_reload_is_done_once_afterwards(
    came: list[Signals], stop: Signals | None, left: list[Signals]
) -> None:
    told, events = asyncio.Queue[Signals](), list[Event]()
    for each in came:
        told.put_nowait(each)
    assert is_told_to_stop(told, events.append) == (stop is not None)
    assert events == ([] if stop is None else [DaemonStopping(stop.name)])
    assert [told.get_nowait() for _ in range(told.qsize())] == left
