"""When policies are fetched again in the background: RFC 8461 3.3 and 10.2."""

from __future__ import annotations

import random
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.model.domain import Domain
from mailrider.mtasts.policy import MXPattern, STSMode, STSPolicy
from mailrider.policy.sts.schedule import RETRY_INTERVAL, RefreshSchedule, refresh_interval

EXAMPLE, OTHER = Domain("example.com"), Domain("example.net")
HOUR, DAY = 3600.0, 86_400.0


def living(max_age: timedelta) -> STSPolicy:
    return STSPolicy(STSMode.ENFORCE, max_age, (MXPattern(EXAMPLE),))


@pytest.mark.parametrize(
    ("max_age", "interval"),
    [
        (timedelta(days=365), timedelta(days=1)),
        (timedelta(days=2), timedelta(days=1)),
        (timedelta(days=1), timedelta(hours=12)),
        (timedelta(hours=1), timedelta(minutes=30)),
        (timedelta(minutes=59), None),
        (timedelta(0), None),
    ],
)
def test_daily_or_twice_in_a_lifetime_or_never(max_age: timedelta, interval: timedelta | None) -> None:
    assert refresh_interval(living(max_age)) == interval


def due_after(schedule: RefreshSchedule, domain: Domain) -> float:
    """When the domain's turn comes, to the second."""
    low, high = 0, 400 * int(DAY)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if schedule.is_due(domain, middle) else (middle + 1, high)
    return low


seeds = st.integers(0, 2**32)
lifetimes = st.integers(int(HOUR), 31_557_600).map(lambda seconds: timedelta(seconds=seconds))


@given(seeds, lifetimes)
def test_a_fresh_policy_is_refreshed_after_about_its_interval_and_before_it_ends(seed: int, max_age: timedelta) -> None:
    schedule = RefreshSchedule(random.Random(seed))
    expires = max_age.total_seconds()
    schedule.plan(EXAMPLE, living(max_age), fetched=0.0, expires=expires, now=0.0)
    interval = min(DAY, expires / 2)
    assert 0.8 * interval <= due_after(schedule, EXAMPLE) <= 1.2 * interval + 1
    assert due_after(schedule, EXAMPLE) < expires


@given(seeds, lifetimes, st.floats(0.0, 1.0))
def test_what_is_overdue_after_a_restart_is_spread_and_still_done_in_time(
    seed: int, max_age: timedelta, elapsed: float
) -> None:
    schedule = RefreshSchedule(random.Random(seed))
    expires = max_age.total_seconds()
    now = elapsed * expires
    schedule.plan(EXAMPLE, living(max_age), fetched=0.0, expires=expires, now=now)
    due = due_after(schedule, EXAMPLE)
    assert due <= max(1.2 * DAY, now + HOUR) + 1
    assert now >= expires or due <= expires + 1


def test_a_short_policy_is_removed_at_its_end() -> None:
    schedule = RefreshSchedule(random.Random(1))
    schedule.plan(EXAMPLE, living(timedelta(minutes=5)), fetched=0.0, expires=300.0, now=0.0)
    assert due_after(schedule, EXAMPLE) == 300


def test_what_was_fetched_together_is_not_refreshed_together() -> None:
    schedule = RefreshSchedule(random.Random(1))
    some = [Domain(f"d{number}.example") for number in range(1000)]
    for domain in some:
        schedule.plan(domain, living(timedelta(days=30)), fetched=0.0, expires=30 * DAY, now=0.0)
    by_tick = [len(schedule.take_due(0.8 * DAY + tick * 600.0)) for tick in range(60)]
    assert by_tick[0] < 50
    assert by_tick[-1] == 1000
    assert max(later - earlier for earlier, later in pairwise(by_tick)) < 50


@given(seeds)
def test_a_failed_refresh_is_repeated_within_an_hour_and_a_half(seed: int) -> None:
    schedule = RefreshSchedule(random.Random(seed))
    schedule.plan_retry(EXAMPLE, 1000.0)
    assert 1000 + RETRY_INTERVAL / 2 <= due_after(schedule, EXAMPLE) <= 1000 + RETRY_INTERVAL * 1.5 + 1


def test_the_order_of_those_who_are_due_is_not_that_of_their_arrival() -> None:
    schedule = RefreshSchedule(random.Random(1))
    some = [Domain(f"d{number}.example") for number in range(100)]
    for domain in some:
        schedule.plan_retry(domain, -2 * RETRY_INTERVAL)
    due = schedule.take_due(0.0)
    assert set(due) == set(some)
    assert due != some


def test_it_follows_what_is_stored() -> None:
    schedule = RefreshSchedule(random.Random(1))
    schedule.plan_retry(EXAMPLE, 0.0)
    assert schedule.align([EXAMPLE, OTHER]) == {OTHER}
    assert schedule.align([OTHER]) == {OTHER}
    assert schedule.take_due(10 * DAY) == []
    schedule.plan_retry(OTHER, 0.0)
    schedule.forget(OTHER)
    schedule.forget(OTHER)
    assert schedule.take_due(10 * DAY) == []


def test_each_owners_first_domain_comes_before_anothers_second_and_who_failed_comes_last() -> None:
    schedule = RefreshSchedule(random.Random(1))
    evil = [Domain(f"d{number}.evil.example") for number in range(50)]
    for domain in (*evil, EXAMPLE, OTHER):
        schedule.plan(domain, living(timedelta(days=7)), fetched=0.0, expires=7 * DAY, now=0.0)
    assert {EXAMPLE, OTHER} <= set(schedule.take_due(2 * DAY)[-3:])
    schedule.plan_retry(EXAMPLE, 0.0)
    assert schedule.take_due(2 * DAY)[0] == EXAMPLE
    schedule.plan(EXAMPLE, living(timedelta(days=7)), fetched=0.0, expires=7 * DAY, now=0.0)
    assert EXAMPLE in schedule.take_due(2 * DAY)[-3:]
