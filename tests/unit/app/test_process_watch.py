"""What is told of the process itself: file descriptors that run out, and a clock that is set."""

from __future__ import annotations

import errno
import os
import resource
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.app.process_watch import LOOK_AGAIN, ProcessWatch, count_open_files
from mailrider.model.daemon_event import ClockJumped, OpenFilesEnough, OpenFilesShort
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.model.event import Event


def watching(clock: FakeClock, told: list[Event], *counts: int, tells_clock: bool = True) -> ProcessWatch:
    left: Iterator[int] = iter(counts)
    return ProcessWatch(clock, told.append, tells_clock=tells_clock, count_files=lambda: (next(left, 0), 100))


async def test_descriptors_that_run_out_are_told_once_and_once_that_there_are_enough_again() -> None:
    clock, told = FakeClock(), list[Any]()
    watching(clock, told, 50, 89, 90, 100, 85, 95, 79, 50).open()
    await clock.advance(10 * LOOK_AGAIN)
    assert told == [OpenFilesShort(90, 100), OpenFilesEnough(79, 100)]
    assert told[0].level == "error"


async def test_few_descriptors_at_the_start_are_told_at_once() -> None:
    clock, told = FakeClock(), list[Any]()
    watching(clock, told, 95).open()
    assert told == [OpenFilesShort(95, 100)]


@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_clock_that_is_set_is_told_once_with_by_how_much(hours: int) -> None:
    clock, told = FakeClock(), list[Any]()
    watching(clock, told).open()
    await clock.advance(3 * LOOK_AGAIN)
    assert told == []
    clock.jump(timedelta(hours=hours))
    await clock.advance(3 * LOOK_AGAIN)
    assert told == [ClockJumped(hours * 3600.0)]
    clock.jump(timedelta(seconds=5))
    await clock.advance(3 * LOOK_AGAIN)
    assert len(told) == 1


async def test_of_several_workers_one_tells_of_the_clock_and_what_is_closed_tells_nothing() -> None:
    clock, told = FakeClock(), list[Any]()
    closed = watching(clock, told)
    closed.open()
    closed.close()
    watching(clock, told, tells_clock=False).open()
    clock.jump(timedelta(hours=1))
    await clock.advance(3 * LOOK_AGAIN)
    assert told == []


def test_open_files_are_counted_and_all_of_them_are_open_if_none_is_left_to_count_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count, most = count_open_files()
    assert 3 <= count < most == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with open(os.devnull):
        assert count_open_files()[0] == count + 1
    for number, expected in ((errno.EMFILE, most), (errno.ENOENT, 0)):

        def fail(_: str, number: int = number) -> list[str]:
            raise OSError(number, "")

        monkeypatch.setattr(os, "listdir", fail)
        assert count_open_files() == (expected, most)
