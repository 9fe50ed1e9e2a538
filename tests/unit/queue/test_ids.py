"""Ids in the order of time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.queue.ids import (
    MAX_ID,
    PLACES,
    SHARDS,
    IdSource,
    first_id_at,
    format_id,
    microseconds,
    moment,
    parse_id,
    place_of,
    place_of_registration,
)
from mailrider.testing.clock import FakeClock


def test_ids_grow_with_time_and_leave_room_for_recipients() -> None:
    clock = FakeClock()
    ids = IdSource(clock)
    first, second = ids.take(5000), ids.take(1)
    assert second > first + 5000
    clock.jump(timedelta(seconds=1))
    assert ids.take(1) >= first_id_at(clock.now()) > second


times = st.integers(min_value=0, max_value=1 << 40)
messages = st.lists(st.tuples(times, st.integers(min_value=0, max_value=5000)), max_size=30)


@given(st.lists(messages, min_size=1, max_size=5))
def test_no_two_places_give_the_same_id_and_each_gives_them_in_order_whatever_the_clock_does(
    lives: list[list[tuple[int, int]]],
) -> None:
    clock = FakeClock()
    epoch = clock.now()
    given_out: set[int] = set()
    for place, life in enumerate(lives):
        ids = IdSource(clock, place)
        last = -1
        for at, recipients in life:
            clock.jump(moment(microseconds(epoch) + at) - clock.now())
            id = ids.take(recipients)
            assert place_of(id) == place
            assert id > last
            assert id >= first_id_at(clock.now())
            assert id not in given_out
            given_out.add(id)
            last = id + recipients


@given(times, st.integers(min_value=1, max_value=1 << 52), st.integers(min_value=0, max_value=PLACES - 1))
def test_ids_go_on_behind_the_largest_that_is_there(ahead: int, behind: int, place: int) -> None:
    clock = FakeClock()
    ids = IdSource(clock, place)
    ids.go_on(behind << 4, 7)
    clock.jump(-timedelta(microseconds=ahead))
    first, second = ids.take(3), ids.take(1)
    assert behind << 4 < first < second - 3
    assert place_of(first) == place_of(second) == place


def test_a_process_beside_the_workers_has_the_place_of_its_registration() -> None:
    ids = IdSource(FakeClock())
    ids.go_on(0, 5)
    assert place_of(ids.take(1)) == SHARDS + 5
    ids.go_on(0, 6)
    assert place_of(ids.take(1)) == SHARDS + 5


def test_places_beside_the_workers_are_given_in_turn() -> None:
    places = [place_of_registration(each) for each in range(5000)]
    assert len(set(places[:1024])) == 1024
    assert all(SHARDS <= each < PLACES for each in places)


def test_a_clock_that_goes_back_gives_no_id_twice() -> None:
    clock = FakeClock()
    ids = IdSource(clock)
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
    ids = IdSource(FakeClock())
    first, second = ids.reserve(3), ids.reserve(1)
    assert parse_id(second) > parse_id(first) + 3
    assert ids.claim(first) == parse_id(first)
    assert ids.claim(first) is None
    ids.forget(second)
    assert ids.claim(second) is None
    assert ids.claim("no id") is None
