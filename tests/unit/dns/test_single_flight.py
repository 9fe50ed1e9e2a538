from __future__ import annotations

import asyncio

import pytest

from mailrider.dns.single_flight import Cancelled, SingleFlight


class Work:
    """Counts how often it is begun and cancelled; ends when told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.released = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.begun


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_want_the_same_share_the_work() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    callers = [asyncio.create_task(flights.run("key", work)) for _ in range(3)]
    await settle()
    work.released.set()
    assert await asyncio.gather(*callers) == [1, 1, 1]
    await settle()
    assert len(flights) == 0
    assert await flights.run("key", work) == 2


async def test_different_keys_are_different_work() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    work.released.set()
    assert sorted(await asyncio.gather(flights.run("a", work), flights.run("b", work))) == [1, 2]


async def test_one_callers_cancellation_does_not_take_it_from_the_others() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    first, second = (asyncio.create_task(flights.run("key", work)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    work.released.set()
    assert await second == 1
    assert work.cancelled == 0


async def test_when_the_last_caller_goes_the_work_ends_and_the_next_caller_begins_anew() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    caller = asyncio.create_task(flights.run("key", work))
    await settle()
    caller.cancel()
    await asyncio.sleep(0)
    work.released.set()
    assert await flights.run("key", work) == 2
    assert work.cancelled == 1
    assert len(flights) == 0


async def test_work_that_goes_down_does_not_take_away_the_work_that_followed_it() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    first = asyncio.create_task(flights.run("key", work))
    await settle()
    first.cancel()
    await asyncio.sleep(0)
    second = asyncio.create_task(flights.run("key", work))
    await settle()
    third = asyncio.create_task(flights.run("key", work))
    await settle()
    work.released.set()
    assert list(await asyncio.gather(second, third)) == [2, 2]


async def test_a_failure_reaches_every_caller() -> None:
    async def fail() -> int:
        await asyncio.sleep(0)
        raise ValueError("no")

    flights: SingleFlight[str, int] = SingleFlight()
    outcomes = await asyncio.gather(*(flights.run("key", fail) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError]


async def test_closing_ends_the_work_and_its_callers_learn_it() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    work = Work()
    caller = asyncio.create_task(flights.run("key", work))
    await settle()
    await flights.aclose()
    assert work.cancelled == 1
    with pytest.raises(Cancelled):
        await caller


async def test_closing_waits_for_work_that_nobody_waits_for_any_more() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    cleaned = asyncio.Event()

    async def slow_to_end() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await settle()
            cleaned.set()
        return 0

    caller = asyncio.create_task(flights.run("key", slow_to_end))
    await settle()
    caller.cancel()
    await asyncio.sleep(0)
    assert not cleaned.is_set()
    await flights.aclose()
    assert cleaned.is_set()
