"""The clock of tests with silent servers: real time, as long as nothing holds the event loop up."""

from __future__ import annotations

import asyncio

import pytest

from mailrider.clock import after
from tests.support.loops import eventually
from tests.support.patient_clock import LONGEST, TICK, PatientClock


class RealTime:
    """What it takes for the real time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_it_goes_as_the_real_one_from_turn_to_turn() -> None:
    real = RealTime()
    clock = PatientClock(real)
    begin = clock.monotonic()
    for _ in range(100):
        real.now += LONGEST / 2
        clock.monotonic()
    assert round(clock.monotonic() - begin, 6) == 50 * LONGEST


async def test_a_machine_that_stands_still_for_an_hour_ends_no_wait() -> None:
    real, rung = RealTime(), list[str]()
    clock = PatientClock(real)
    clock.call_at(clock.monotonic() + 1, lambda: rung.append("too early"))
    real.now += 3600
    await asyncio.sleep(5 * TICK)
    assert rung == []
    assert clock.monotonic() - 1000 <= LONGEST


async def test_what_is_due_runs_in_order_and_what_was_cancelled_does_not() -> None:
    clock, rung = PatientClock(), list[int]()
    begin = clock.monotonic()
    for number in (3, 1, 2):
        clock.call_at(begin + number * TICK, lambda number=number: rung.append(number))  # type: ignore[misc]
    clock.call_at(begin + TICK, lambda: rung.append(9)).cancel()
    clock.call_at(begin - 1, lambda: rung.append(0))
    await eventually(lambda: len(rung) == 4)
    assert rung == [0, 1, 2, 3]


async def test_who_is_silent_is_waited_for_no_longer_than_it_may_take() -> None:
    clock = PatientClock()
    begin = clock.monotonic()
    with pytest.raises(TimeoutError):
        async with after(clock, 0.02):
            await clock.sleep(60)
    assert clock.monotonic() - begin >= 0.02
