"""Ids in the order of time."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.queue.ids import MAX_ID, IdSource, first_id_at, format_id, microseconds, moment, parse_id
from mailrider.testing.clock import FakeClock


def test_ids_grow_with_time_and_leave_room_for_recipients() -> None:
    clock = FakeClock()
    ids = IdSource(clock, random.Random(1))
    first, second = ids.take(5000), ids.take(1)
    assert second > first + 5000
    clock.jump(timedelta(seconds=1))
    assert ids.take(1) >= first_id_at(clock.now()) > second


def test_a_clock_that_goes_back_gives_no_id_twice() -> None:
    clock = FakeClock()
    ids = IdSource(clock, random.Random(1))
    first = ids.take(1)
    clock.jump(timedelta(days=-1))
    assert ids.take(1) > first + 1


@given(st.integers(min_value=0, max_value=MAX_ID), st.integers(min_value=0, max_value=MAX_ID))
def test_people_see_them_in_the_same_order(one: int, other: int) -> None:
    assert parse_id(format_id(one)) == one
    assert (format_id(one) < format_id(other)) is (one < other)


def test_letters_that_look_alike_are_the_same() -> None:
    assert parse_id("0O00000000iLl") == parse_id("0000000000111")


@pytest.mark.parametrize("text", ["", "123", "0000000000000u", "zzzzzzzzzzzzz", "00000-0000000"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match="not the id"):
        parse_id(text)


def test_moments_survive() -> None:
    now = FakeClock().now()
    assert moment(microseconds(now)) == now


def test_a_reserved_id_is_claimed_once_and_a_forgotten_one_never() -> None:
    ids = IdSource(FakeClock(), random.Random(1))
    first, second = ids.reserve(3), ids.reserve(1)
    assert parse_id(second) > parse_id(first) + 3
    assert ids.claim(first) == parse_id(first)
    assert ids.claim(first) is None
    ids.forget(second)
    assert ids.claim(second) is None
    assert ids.claim("no id") is None
