"""Timers by name."""

from __future__ import annotations

from mailrider.app.timers import Timers
from mailrider.testing.clock import FakeClock


async def test_a_new_moment_takes_the_place_of_the_old_one() -> None:
    clock, called = FakeClock(), list[str]()
    timers = Timers(clock)
    timers.at("a", 1, lambda: called.append("first"))
    timers.at("a", 2, lambda: called.append("second"))
    timers.at("b", 1, lambda: called.append("other"))
    await clock.advance(3)
    assert called == ["other", "second"]


async def test_what_repeats_goes_on_until_all_is_cancelled() -> None:
    clock, called = FakeClock(), list[float]()
    timers = Timers(clock)
    begun = clock.monotonic()
    timers.repeat("a", 10, lambda: called.append(clock.monotonic() - begun))
    timers.repeat("never", None, lambda: called.append(-1))
    await clock.advance(35)
    assert called == [10, 20, 30]
    timers.cancel()
    await clock.advance(35)
    assert len(called) == 3


async def test_a_callback_may_set_its_own_timer_again() -> None:
    clock, called = FakeClock(), list[int]()
    timers = Timers(clock)

    def first() -> None:
        called.append(1)
        timers.at("a", 1, lambda: called.append(2))

    timers.at("a", 1, first)
    await clock.advance(5)
    assert called == [1, 2]
