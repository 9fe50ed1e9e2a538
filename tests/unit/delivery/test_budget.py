"""Time that several steps share (spec section 4, step 13)."""

from __future__ import annotations

from mailrider.clock import FakeClock
from mailrider.delivery.budget import Budget


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
