"""Time as an argument: the fake clock, deadlines, and the real clock's promises."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import uvloop

from mailrider.clock import NEVER, Alarm, Clock, Deadline, SystemClock, after
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2026, 1, 1, tzinfo=UTC)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# The fake clock ------------------------------------------------------------------------------------------------------


async def test_a_fake_clock_stands_still_until_told_to_move() -> None:
    clock = FakeClock(START)
    begin = clock.monotonic()
    assert clock.now() == START
    await clock.advance(90.5)
    assert clock.now() == START + timedelta(seconds=90.5)
    assert clock.monotonic() == begin + 90.5


async def test_the_wall_clock_may_jump_and_no_time_passes() -> None:
    clock = FakeClock(START)
    begin, fired = clock.monotonic(), list[str]()
    clock.call_at(begin + 1, lambda: fired.append("early"))
    clock.jump(timedelta(days=-3))
    await clock.advance(0)
    assert clock.now() == START - timedelta(days=3)
    assert clock.monotonic() == begin
    assert fired == []


async def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="go back"):
        await FakeClock().advance(-1)


async def test_callbacks_run_in_the_order_of_their_times_and_at_their_times() -> None:
    clock = FakeClock()
    begin, fired = clock.monotonic(), list[tuple[str, float]]()

    def note(name: str) -> Callable[[], None]:
        return lambda: fired.append((name, clock.monotonic() - begin))

    clock.call_at(begin + 2, note("second"))
    clock.call_at(begin + 1, note("first"))
    clock.call_at(begin + 2, note("second too"))
    clock.call_at(begin + 3.1, note("later"))
    await clock.advance(3)
    assert fired == [("first", 1), ("second", 2), ("second too", 2)]
    assert clock.pending == 1


async def test_a_cancelled_callback_does_not_run() -> None:
    clock = FakeClock()
    fired = list[str]()
    timer = clock.call_at(clock.monotonic() + 1, lambda: fired.append("cancelled"))
    assert clock.pending == 1
    timer.cancel()
    assert clock.pending == 0
    await clock.advance(2)
    timer.cancel()  # harmless
    assert fired == []


async def test_what_callbacks_and_woken_tasks_start_runs_in_the_same_advance() -> None:
    clock = FakeClock()
    stamps = list[float]()

    async def walk() -> None:
        for _ in range(3):
            await clock.sleep(1)
            stamps.append(clock.monotonic() - begin)

    begin = clock.monotonic()
    task = asyncio.create_task(walk())
    await clock.advance(10)
    assert stamps == [1, 2, 3]
    assert task.done()


@pytest.mark.parametrize("seconds", [0, -1])
async def test_what_is_due_already_does_not_wait_for_time_to_pass(seconds: float) -> None:
    for clock in (FakeClock(), SystemClock()):
        fired = asyncio.Event()
        cancelled = clock.call_at(clock.monotonic() + seconds, lambda: pytest.fail("it was cancelled"))
        cancelled.cancel()
        clock.call_at(clock.monotonic() + seconds, fired.set)
        assert not fired.is_set()
        await fired.wait()


@pytest.mark.parametrize("seconds", [0, -1])
async def test_sleeping_for_no_time_yields_once(seconds: float) -> None:
    clock = FakeClock()
    order = list[str]()
    asyncio.get_running_loop().call_soon(order.append, "other")
    await clock.sleep(seconds)
    order.append("sleeper")
    assert order == ["other", "sleeper"]


async def test_a_sleeper_that_is_cancelled_leaves_no_timer() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(60))
    await asyncio.sleep(0)
    assert clock.pending == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.pending == 0


# Deadlines -----------------------------------------------------------------------------------------------------------


async def test_a_block_that_is_done_in_time_does_not_notice() -> None:
    clock = FakeClock()
    async with after(clock, 5):
        assert clock.pending == 1
        await asyncio.sleep(0)
    assert clock.pending == 0


async def test_a_block_that_is_late_gets_a_timeout() -> None:
    clock = FakeClock()

    async def late() -> None:
        async with after(clock, 5):
            await forever()

    task = asyncio.create_task(late())
    await clock.advance(4.999)
    assert not task.done()
    await clock.advance(0.001)
    with pytest.raises(TimeoutError):
        await task
    assert clock.pending == 0


async def test_what_follows_a_timeout_in_the_same_task_is_not_cancelled() -> None:
    clock = FakeClock()
    steps = list[str]()

    async def late() -> None:
        try:
            async with after(clock, 5):
                await forever()
        except TimeoutError:
            steps.append("timeout")
        await asyncio.sleep(0)
        steps.append("afterwards")
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0

    task = asyncio.create_task(late())
    await clock.advance(5)
    await task
    assert steps == ["timeout", "afterwards"]


async def test_a_deadline_in_the_past_ends_the_block_at_its_first_await() -> None:
    for clock in (FakeClock(), SystemClock()):
        with pytest.raises(TimeoutError):
            async with Deadline(clock, clock.monotonic() - 1):
                await forever()


async def test_no_deadline_is_no_bound() -> None:
    clock = FakeClock()
    async with Deadline(clock, None):
        assert clock.pending == 0
        await clock.advance(10**6)


async def test_cancellation_from_outside_stays_cancellation() -> None:
    clock = FakeClock()

    async def late() -> None:
        async with after(clock, 5):
            await forever()

    task = asyncio.create_task(late())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.pending == 0


async def test_cancellation_from_outside_wins_over_a_deadline_in_the_same_turn() -> None:
    clock = FakeClock()

    async def late() -> None:
        async with Deadline(clock, clock.monotonic()):
            await forever()

    task = asyncio.create_task(late())
    await asyncio.sleep(0)
    task.cancel()  # the deadline's own request follows before the task runs again
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (1, 2, ["inner", "outer block goes on"]),
        (2, 1, ["outer"]),
        (1, 1, ["outer"]),  # both: the outer one ends more
    ],
)
async def test_nested_deadlines(inner: float, outer: float, expected: list[str]) -> None:
    clock = FakeClock()
    ended = list[str]()

    async def nested() -> None:
        try:
            async with after(clock, outer):
                try:
                    async with after(clock, inner):
                        await forever()
                except TimeoutError:
                    ended.append("inner")
                ended.append("outer block goes on")
        except TimeoutError:
            ended.append("outer")

    task = asyncio.create_task(nested())
    await clock.advance(3)
    await task
    assert ended == expected
    assert clock.pending == 0


async def test_an_error_of_the_block_is_not_hidden_by_the_deadline() -> None:
    clock = FakeClock()

    async def fails_while_it_is_cancelled() -> None:
        async with after(clock, 5):
            try:
                await forever()
            finally:
                raise KeyError("of the block")

    task = asyncio.create_task(fails_while_it_is_cancelled())
    await clock.advance(5)
    with pytest.raises(KeyError):
        await task
    with pytest.raises(KeyError):
        async with after(clock, 5):
            raise KeyError("at once")
    assert clock.pending == 0


async def test_a_block_that_swallows_the_cancellation_goes_on() -> None:
    clock = FakeClock()

    async def stubborn() -> str:
        async with after(clock, 5):
            try:
                await forever()
            except asyncio.CancelledError:
                pass
        await asyncio.sleep(0)
        return "done"

    task = asyncio.create_task(stubborn())
    await clock.advance(5)
    assert await task == "done"


async def test_a_deadline_needs_a_task() -> None:
    complaint = asyncio.get_running_loop().create_future()

    def no_task() -> None:
        try:
            Deadline(FakeClock(), None).__aenter__().send(None)
        except RuntimeError as error:
            complaint.set_result(str(error))

    asyncio.get_running_loop().call_soon(no_task)
    assert "needs a task" in await complaint


# The real clock ------------------------------------------------------------------------------------------------------


async def test_the_real_clock_reads_utc_and_goes_on() -> None:
    clock: Clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    assert clock.monotonic() <= clock.monotonic()


def _work(seconds: float) -> None:
    """Keep the loop from looking at its own clock, as real work does."""
    time.sleep(seconds)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_no_callback_of_the_real_clock_runs_early(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def measure() -> list[float]:
        clock = SystemClock()
        margins = list[float]()
        for step in range(40):
            fired = asyncio.Event()
            when = clock.monotonic() + 0.001 + step * 0.00005
            _work(0.0002)
            clock.call_at(when, fired.set)
            await fired.wait()
            margins.append(clock.monotonic() - when)
            begin = clock.monotonic()
            await clock.sleep(0.0014)
            margins.append(clock.monotonic() - begin - 0.0014)
        return margins

    with asyncio.Runner(loop_factory=factory) as runner:
        assert min(runner.run(measure())) >= 0


async def test_a_timer_of_the_real_clock_can_be_cancelled() -> None:
    clock = SystemClock()
    clock.call_at(clock.monotonic() + 0.001, lambda: pytest.fail("it was cancelled")).cancel()
    await clock.sleep(0.005)


async def test_a_deadline_by_the_real_clock() -> None:
    clock = SystemClock()
    with pytest.raises(TimeoutError):
        async with after(clock, 0.001):
            await clock.sleep(60)


# Alarms --------------------------------------------------------------------------------------------------------------


async def test_an_alarm_rings_once_at_the_earliest_of_its_moments_and_can_be_set_again() -> None:
    clock, rung = FakeClock(START), list[float]()
    begin = clock.monotonic()
    alarm = Alarm(clock, lambda: rung.append(clock.monotonic() - begin))
    for seconds in (5, 3, 4):
        alarm.set(begin + seconds)
    assert alarm.at == begin + 3
    await clock.advance(10)
    assert rung == [3]
    alarm.set(begin + 12)
    await clock.advance(10)
    assert rung == [3, 12]


async def test_an_alarm_that_was_cancelled_is_silent() -> None:
    clock, rung = FakeClock(START), list[int]()
    alarm = Alarm(clock, lambda: rung.append(1))
    alarm.set(clock.monotonic() + 1)
    alarm.cancel()
    assert alarm.at == NEVER
    await clock.advance(10)
    assert rung == []


async def test_an_alarm_may_be_set_while_it_rings() -> None:
    clock, rung = FakeClock(START), list[int]()

    def ring() -> None:
        rung.append(1)
        if len(rung) < 3:
            alarm.set(clock.monotonic() + 1)

    alarm = Alarm(clock, ring)
    alarm.set(clock.monotonic() + 1)
    await clock.advance(10)
    assert len(rung) == 3
