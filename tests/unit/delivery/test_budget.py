"""Time that several steps share."""

from __future__ import annotations

from mailrider.delivery.destination import Budget
from mailrider.testing.clock import FakeClock


async def test_steps_share_the_time_and_pauses_between_them_are_free() -> None:
    clock = FakeClock()
    budget = Budget(clock, 10)
    with budget as deadline:
        assert deadline == clock.monotonic() + 10
        await clock.advance(4)
    await clock.advance(100)
    with budget as deadline:
        assert deadline == clock.monotonic() + 6


async def test_what_is_used_up_stays_so() -> None:
    clock = FakeClock()
    budget = Budget(clock, 10)
    with budget:
        await clock.advance(11)
    with budget as deadline:
        assert deadline == clock.monotonic()


async def test_a_step_gets_an_even_share_and_what_it_does_not_use_is_the_others() -> None:
    clock = FakeClock()
    budget = Budget(clock, 30)
    with budget.share(3) as deadline:
        assert deadline == clock.monotonic() + 10
        await clock.advance(10)
    await clock.advance(100)
    with budget.share(2) as deadline:
        assert deadline == clock.monotonic() + 10
        await clock.advance(2)
    with budget.share(1) as deadline:
        assert deadline == clock.monotonic() + 18
