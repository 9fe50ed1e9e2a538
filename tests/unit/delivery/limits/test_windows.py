"""The arithmetic of limits, as properties: never more than BURST in any PERIOD, and hardly ever less."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.delivery.limits.windows import RESOLUTION, RateWindow, stable_hash

PERIOD = 60.0

# Binary fractions, so that sums are exact and no moment differs from another by its last bit alone.
steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.125, 1.0, 7.0, 29.0, 31.0, 59.875, 60.0, 130.0])),
    max_size=120,
)


def in_window(times: list[float], now: float) -> int:
    """How many messages passed in the PERIOD that ends now."""
    return len(times) - bisect_right([time + PERIOD for time in times], now)


def knock(window: RateWindow, key: str, now: float, passed: dict[str, list[float]]) -> bool:
    """Pass if the window lets us."""
    if window.opens_at(key, now) > now:
        return False
    window.take(key, now)
    passed[key].append(now)
    return True


@given(burst=st.integers(1, 6), arrivals=steps)
def test_a_rate_is_exact(burst: int, arrivals: list[tuple[str, float]]) -> None:
    window, now = RateWindow(burst, PERIOD), 1000.0
    passed: dict[str, list[float]] = defaultdict(list)
    for key, wait in arrivals:
        now += wait
        before = in_window(passed[key], now)
        assert knock(window, key, now, passed) is (before < burst)
        assert in_window(passed[key], now) <= burst


@given(burst=st.integers(1, 6), arrivals=steps)
def test_who_is_told_when_it_opens_may_pass_then_and_not_before(burst: int, arrivals: list[tuple[str, float]]) -> None:
    window, now = RateWindow(burst, PERIOD), 1000.0
    passed: dict[str, list[float]] = defaultdict(list)
    for key, wait in arrivals:
        now += wait
        opens_at = window.opens_at(key, now)
        assert opens_at >= now
        if opens_at > now:
            assert in_window(passed[key], opens_at) < burst
            assert in_window(passed[key], (now + opens_at) / 2) == burst
            now = opens_at
        assert knock(window, key, now, passed)


@given(
    group=st.integers(2, 5), more=st.integers(0, RESOLUTION - 1), waits=st.lists(st.sampled_from([0.0, 0.0078125, 0.5]))
)
def test_a_large_burst_is_never_exceeded_and_at_most_a_group_short(group: int, more: int, waits: list[float]) -> None:
    burst = (group - 1) * RESOLUTION + 1 + more
    window, now = RateWindow(burst, PERIOD), 1000.0
    passed: dict[str, list[float]] = defaultdict(list)
    for turn in range(2 * burst):
        now += waits[turn % len(waits)] if waits else 0.0
        before = in_window(passed["a"], now)
        if knock(window, "a", now, passed):
            assert before < burst
        else:
            assert before > burst - group
            now = window.opens_at("a", now)
    # How long its log is shows nowhere else, until memory is short.
    assert len(window._younger["a"].entries) <= 2 * (RESOLUTION + 2)


def test_a_group_counts_until_its_last_message_is_a_period_ago() -> None:
    window = RateWindow(RESOLUTION + 1, PERIOD)  # groups of two
    for now in (1000.0, *[1050.0] * RESOLUTION):
        assert window.opens_at("a", now) == now
        window.take("a", now)
    assert window.opens_at("a", 1060.0) == 1110.0


def test_a_whole_burst_may_pass_at_once_and_the_next_one_a_period_later() -> None:
    window = RateWindow(3, 1.0)
    for _ in range(3):
        assert window.opens_at("a", 10.0) == 10.0
        window.take("a", 10.0)
    assert window.opens_at("a", 10.0) == 11.0
    assert window.opens_at("b", 10.0) == 10.0
    for _ in range(3):
        assert window.opens_at("a", 11.0) == 11.0
        window.take("a", 11.0)
    assert window.opens_at("a", 11.5) == 12.0


@given(
    burst=st.integers(1, 3),
    arrivals=st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0.0, 0.5, 5.0, 40.0, 61.0, 121.0])), max_size=200),
    max_keys=st.integers(0, 5),
    shards=st.integers(1, 3),
)
def test_too_many_keys_share_and_no_limit_is_broken(
    burst: int, arrivals: list[tuple[int, float]], max_keys: int, shards: int
) -> None:
    window, now = RateWindow(burst, PERIOD, max_keys=max_keys, shards=shards), 1000.0
    passed: dict[str, list[float]] = defaultdict(list)
    for number, wait in arrivals:
        now += wait
        key = f"key {number}"
        knock(window, key, now, passed)
        assert in_window(passed[key], now) <= burst
        assert len(window) <= max_keys + shards


def test_what_is_not_used_for_two_periods_is_forgotten() -> None:
    window = RateWindow(1, PERIOD)
    for number in range(1000):
        window.take(f"key {number}", 1000.0)
    assert len(window) == 1000
    window.opens_at("another", 1000.0 + PERIOD)
    window.opens_at("another", 1000.0 + 2 * PERIOD)
    assert len(window) == 0


def test_a_key_that_is_used_is_remembered_from_generation_to_generation() -> None:
    window, now = RateWindow(2, PERIOD), 1000.0
    passed: dict[str, list[float]] = defaultdict(list)
    for _ in range(100):
        now += 20.0
        knock(window, "a", now, passed)
        assert in_window(passed["a"], now) <= 2
        assert len(window) == 1


def test_after_a_long_silence_all_is_forgotten_at_once() -> None:
    window = RateWindow(1, PERIOD)
    window.take("a", 1000.0)
    window.opens_at("b", 1000.0 + 2 * PERIOD)
    assert len(window) == 0


@pytest.mark.parametrize("second", range(0, 120, 7))
def test_whenever_a_message_passes_it_counts_for_a_whole_period(second: int) -> None:
    window = RateWindow(1, PERIOD)
    for now in range(1000, 1000 + second):
        window.opens_at("others make the generations turn", now)
    assert window.opens_at("a", 1000.0 + second) == 1000.0 + second
    window.take("a", 1000.0 + second)
    for now in range(1000 + second, 1000 + second + 60):
        assert window.opens_at("a", now) == 1000.0 + second + PERIOD
    assert window.opens_at("a", 1000.0 + second + PERIOD) == 1000.0 + second + PERIOD


def test_a_key_keeps_to_its_shard_until_that_one_remembers_nothing() -> None:
    window = RateWindow(2, PERIOD, max_keys=2, shards=1)
    window.opens_at("k", 1000.0)
    for key, now in (("a", 1000.0), ("b", 1000.0), ("k", 1050.0)):
        window.take(key, now)
    assert window.opens_at("k", 1060.0) == 1060.0
    window.take("k", 1100.0)
    assert window.opens_at("k", 1121.0) == 1121.0, "the first one is more than a period ago"
    assert len(window) == 1, "there would be room for a log of its own"
    window.take("k", 1121.0)
    assert window.opens_at("k", 1122.0) == 1160.0
    assert window.opens_at("x", 1122.0) == 1160.0, "it shares"
    assert window.opens_at("k", 1300.0) == 1300.0
    window.take("k", 1300.0)
    window.take("k", 1300.0)
    assert window.opens_at("x", 1300.0) == 1300.0, "it shares no more"


@pytest.mark.long
def test_a_million_keys_stay_under_100_megabytes() -> None:
    window = RateWindow(20, 3600.0)
    before = psutil.Process().memory_info().rss
    for number in range(1_000_000):
        key = f"domain-number-{number}.example.org"
        if window.opens_at(key, 10_000.0) <= 10_000.0:
            window.take(key, 10_000.0)
    assert psutil.Process().memory_info().rss - before < 100_000_000


@pytest.mark.parametrize("burst", [50, 1000])
def test_what_did_not_pass_of_several_blocks_is_put_back_wherever_it_is_logged(burst: int) -> None:
    window = RateWindow(burst, PERIOD, ahead=1.0)
    assert window.free("a", 1000.0) == burst
    for at, count in ((1001.0, 3), (1001.0, 12), (1001.5, 1), (1002.0, 2)):
        window.take("a", at, count)
    assert window.latest("a") == 1002.0
    window.put_back("a", 1001.0, 14, 1000.5)
    window.put_back("a", 1001.5, 1, 1000.5)
    assert window.free("a", 1000.5) == burst - 3
    window.put_back("a", 1002.0, 2, 1000.5)
    assert window.free("a", 1001.0 + PERIOD - 0.125) == burst - 1
    assert window.free("a", 1002.0 + PERIOD) == burst


def test_what_is_put_back_when_it_does_not_count_any_more_changes_nothing() -> None:
    window = RateWindow(5, PERIOD)
    assert window.free("a", 1000.0) == 5
    window.take("a", 1000.0, 2)
    window.take("a", 1050.0, 3)
    window.put_back("a", 1000.0, 2, 1000.0 + PERIOD)
    window.put_back("b", 1000.0, 2, 1000.0)
    assert window.free("a", 1000.0 + PERIOD) == 2


def test_keys_are_spread_the_same_way_in_each_process() -> None:
    assert stable_hash("a.test") == 11398631284297033239
