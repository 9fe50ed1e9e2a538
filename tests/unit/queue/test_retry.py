"""The retry schedule: monotonic, capped, within its jitter."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.queue.retry import IN_DOUBT, JITTER, Schedule

MINUTE = timedelta(minutes=1)

schedules = st.builds(
    Schedule,
    st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3)),
    st.floats(min_value=1, max_value=100),
    st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3)),
)
tries = st.integers(min_value=1, max_value=10_000)


@pytest.mark.parametrize(
    ("n", "minutes"), [(1, 15), (2, 18.75), (3, 23.4375), (13, 218.278728), (14, 240), (15, 240), (10**9, 240)]
)
def test_the_default_schedule(n: int, minutes: float) -> None:
    assert Schedule().delay(n) / MINUTE == pytest.approx(minutes)


def test_a_scale_of_one_keeps_the_delay() -> None:
    assert Schedule(5 * MINUTE, 1.0, 60 * MINUTE).delay(1000) == 5 * MINUTE


def test_a_cap_below_the_beginning_does_not_shorten_it() -> None:
    assert Schedule(5 * MINUTE, 2.0, MINUTE).delay(7) == 5 * MINUTE


def test_no_delay_stays_none() -> None:
    assert Schedule(timedelta(0), 2.0, MINUTE).delay(1) == timedelta(0)


@given(schedules, tries)
def test_delays_never_shrink_and_never_pass_the_cap(schedule: Schedule, n: int) -> None:
    assert schedule.initial <= schedule.delay(n) <= schedule.delay(n + 1) <= max(schedule.initial, schedule.longest)


@given(schedules, tries, st.integers(), st.booleans())
def test_the_jitter_stays_within_its_bounds(schedule: Schedule, n: int, seed: int, in_doubt: bool) -> None:
    base = schedule.delay(n) * (IN_DOUBT if in_doubt else 1)
    slack = timedelta(microseconds=2)
    delay = schedule.next_delay(n, random.Random(seed), in_doubt=in_doubt)
    assert base * (1 - JITTER) - slack <= delay <= base * (1 + JITTER) + slack


def test_what_failed_together_does_not_come_back_together() -> None:
    rng = random.Random(1)
    assert len({Schedule().next_delay(1, rng) for _ in range(100)}) == 100
