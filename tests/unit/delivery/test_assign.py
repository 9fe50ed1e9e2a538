"""The pool's books decide: who gets which line, who waits, what is closed."""

from __future__ import annotations

from typing import Any

import pytest

from mailrider.delivery.connection.pool_state import (
    BROKEN,
    IDLE_COUNT,
    IDLE_TIME,
    LOST,
    ROOM,
    SHUTDOWN,
    USED_UP,
    Line,
    PoolLimits,
    Switchboard,
)
from tests.unit.delivery.calls import FakeCaller, FakeSession

Books = Switchboard[FakeSession, FakeCaller]

LIMITS = PoolLimits(reuse=10, idle_count=10, idle_time=150.0, per_place=2, total=4, wait=300.0)


def open_line(books: Books, caller: FakeCaller, now: float = 0.0, **session: Any) -> Line[FakeSession]:
    """A line that had to be opened, and is in use."""
    line = books.request(caller, now)
    assert line is not None
    assert line.session is None
    line.session = FakeSession(caller.place, **session)
    return line


def idle_line(books: Books, caller: FakeCaller, now: float = 0.0, **session: Any) -> Line[FakeSession]:
    """A line that was opened, carried a transaction, and was given back."""
    line = open_line(books, caller, now, **session)
    give_back(books, line, caller, now)
    return line


def give_back(books: Books, line: Line[FakeSession], caller: FakeCaller, now: float = 0.0) -> None:
    assert line.session is not None
    line.session.transactions += 1
    books.give_back(line, caller.next_hop, now)


def endings(books: Books) -> list[tuple[Line[FakeSession], str]]:
    ended = [(line, reason) for line, _, reason in books.endings]
    books.endings.clear()
    return ended


def grants(books: Books) -> list[tuple[FakeCaller, Line[FakeSession]]]:
    granted = [(caller, line) for caller, line in books.grants]
    books.grants.clear()
    return granted


@pytest.fixture
def books() -> Books:
    return Switchboard(LIMITS)


# Reuse ----------------------------------------------------------------------------------------------------------------


def test_an_idle_line_that_fits_is_used_again(books: Books) -> None:
    line = idle_line(books, FakeCaller())
    assert books.request(FakeCaller(), 1.0) is line
    assert not line.is_idle


def test_two_domains_on_one_host_share_a_line_that_is_good_enough_for_both(books: Books) -> None:
    line = idle_line(books, FakeCaller(next_hop="a.test"))
    assert books.request(FakeCaller(next_hop="b.test"), 1.0) is line


def test_a_line_to_another_place_is_never_used(books: Books) -> None:
    idle_line(books, FakeCaller("one"))
    line = books.request(FakeCaller("two"), 1.0)
    assert line is not None
    assert line.session is None


def test_a_line_that_is_not_good_enough_stays_for_others(books: Books) -> None:
    weak = idle_line(books, FakeCaller())
    strong = books.request(FakeCaller(grade=1), 1.0)
    assert strong is not None
    assert strong is not weak
    assert weak.is_idle
    assert endings(books) == []


def test_the_line_that_was_used_last_is_used_first(books: Books) -> None:
    first, second = open_line(books, FakeCaller()), open_line(books, FakeCaller())
    give_back(books, second, FakeCaller(), 1.0)
    give_back(books, first, FakeCaller(), 2.0)
    assert books.request(FakeCaller(), 3.0) is first


def test_a_fresh_caller_gets_no_line_that_was_used_before_and_is_not_even_shown_one(books: Books) -> None:
    idle_line(books, FakeCaller())
    caller = FakeCaller(fresh=True)
    line = books.request(caller, 1.0)
    assert line is not None
    assert line.session is None
    assert caller.asked == []


def test_an_idle_line_that_died_is_ended_and_never_shown(books: Books) -> None:
    corpse = idle_line(books, FakeCaller())
    assert corpse.session is not None
    corpse.session.is_alive = False
    caller = FakeCaller()
    line = books.request(caller, 1.0)
    assert line is not corpse
    assert caller.asked == []
    assert endings(books) == [(corpse, LOST)]


def test_a_line_past_its_idle_time_is_not_used_even_if_nobody_has_ended_it_yet(books: Books) -> None:
    old = idle_line(books, FakeCaller(), now=0.0)
    assert books.request(FakeCaller(), 150.0) is not old
    assert endings(books) == [(old, IDLE_TIME)]


# Giving back ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("server_says", "most"), [(None, 10), (3, 3), (30, 10)])
def test_a_line_carries_as_many_transactions_as_configured_or_as_few_as_mailmax(
    books: Books, server_says: int | None, most: int
) -> None:
    line = open_line(books, FakeCaller(), max_transactions=server_says)
    for _ in range(most - 1):
        give_back(books, line, FakeCaller())
        assert books.request(FakeCaller(), 0.0) is line
    give_back(books, line, FakeCaller())
    assert endings(books) == [(line, USED_UP)]


def test_a_dead_line_is_not_kept(books: Books) -> None:
    line = open_line(books, FakeCaller(), is_alive=False)
    give_back(books, line, FakeCaller())
    assert endings(books) == [(line, BROKEN)]


def test_without_an_idle_count_or_idle_time_nothing_is_kept() -> None:
    for limits in (PoolLimits(10, 0, 150.0), PoolLimits(10, 10, 0.0)):
        books: Books = Switchboard(limits)
        line = idle_line(books, FakeCaller())
        books.expire(0.0)
        assert [ended for ended, _ in endings(books)] == [line]


def test_a_line_that_ends_counts_until_it_is_gone(books: Books) -> None:
    lines = [open_line(books, FakeCaller()) for _ in range(2)]
    caller = FakeCaller()
    assert books.request(caller, 0.0) is None
    books.end(lines[0], BROKEN)
    assert grants(books) == []
    books.gone(lines[0])
    ((granted, line),) = grants(books)
    assert granted is caller
    assert line.session is None


def test_ending_twice_is_ending_once(books: Books) -> None:
    line = idle_line(books, FakeCaller())
    books.end(line, LOST)
    books.end(line, SHUTDOWN)
    assert endings(books) == [(line, LOST)]


# The idle count -------------------------------------------------------------------------------------------------------


def test_the_idle_count_is_that_of_the_domain_that_used_a_line_last() -> None:
    books: Books = Switchboard(PoolLimits(10, 1, 150.0))
    first = idle_line(books, FakeCaller("one", "a.test"))
    second = idle_line(books, FakeCaller("two", "b.test"))
    assert endings(books) == []
    assert books.request(FakeCaller("one", "b.test"), 0.0) is first
    give_back(books, first, FakeCaller("one", "b.test"), 1.0)
    assert [line for line, _ in endings(books)] == [first]  # it carried more than the second
    assert second.is_idle


def test_lines_in_use_do_not_count_as_idle() -> None:
    books: Books = Switchboard(PoolLimits(10, 1, 150.0))
    lines = [open_line(books, FakeCaller()) for _ in range(3)]
    give_back(books, lines[0], FakeCaller())
    assert endings(books) == []


LEAST_BAD = {
    "in clear before TLS": ({"is_encrypted": False}, {"is_encrypted": True, "transactions": 8}),
    "few transactions left before many": ({"transactions": 8}, {"transactions": 2}),
    "few left by MAILMAX before many": ({"max_transactions": 3}, {"transactions": 2}),
}


@pytest.mark.parametrize(("worse", "better"), LEAST_BAD.values(), ids=LEAST_BAD)
@pytest.mark.parametrize("worse_first", [True, False])
def test_the_least_bad_to_lose_is_closed_first(
    worse: dict[str, Any], better: dict[str, Any], worse_first: bool
) -> None:
    books: Books = Switchboard(PoolLimits(10, 1, 150.0))
    caller = FakeCaller()
    lines = {"worse": open_line(books, caller, **worse), "better": open_line(books, caller, **better)}
    for name in ("worse", "better") if worse_first else ("better", "worse"):
        give_back(books, lines[name], caller)
    assert endings(books) == [(lines["worse"], IDLE_COUNT)]


def test_among_equals_the_one_that_was_idle_longest_is_closed() -> None:
    books: Books = Switchboard(PoolLimits(10, 1, 150.0))
    first, second = open_line(books, FakeCaller()), open_line(books, FakeCaller())
    give_back(books, first, FakeCaller(), 1.0)
    give_back(books, second, FakeCaller(), 2.0)
    assert endings(books) == [(first, IDLE_COUNT)]


# Waiting --------------------------------------------------------------------------------------------------------------


def test_a_place_has_no_more_lines_than_it_may_and_callers_wait_in_order(books: Books) -> None:
    first, second = open_line(books, FakeCaller()), open_line(books, FakeCaller())
    callers = [FakeCaller() for _ in range(3)]
    assert [books.request(caller, 0.0) for caller in callers] == [None, None, None]
    give_back(books, second, FakeCaller())
    give_back(books, first, FakeCaller())
    assert grants(books) == [(callers[0], second), (callers[1], first)]


def test_a_line_that_does_not_fit_the_next_caller_ends_to_make_room(books: Books) -> None:
    lines = [open_line(books, FakeCaller()) for _ in range(2)]
    caller = FakeCaller(grade=1)
    assert books.request(caller, 0.0) is None
    give_back(books, lines[0], FakeCaller())
    assert endings(books) == [(lines[0], ROOM)]
    give_back(books, lines[1], FakeCaller())
    assert lines[1].is_idle, "one ending line is room enough for one caller"
    books.gone(lines[0])
    assert [granted for granted, _ in grants(books)] == [caller]


def test_an_idle_line_that_does_not_fit_ends_when_the_place_is_full(books: Books) -> None:
    idle, _ = idle_line(books, FakeCaller()), open_line(books, FakeCaller(fresh=True))
    caller = FakeCaller(grade=1)
    assert books.request(caller, 0.0) is None
    assert endings(books) == [(idle, ROOM)]
    books.gone(idle)
    assert [granted for granted, _ in grants(books)] == [caller]


def test_one_idle_line_ends_for_each_caller_who_waits_and_no_more(books: Books) -> None:
    lines = [open_line(books, FakeCaller()) for _ in range(2)]
    for line in lines:
        give_back(books, line, FakeCaller())
    assert books.request(FakeCaller(grade=1), 0.0) is None
    assert endings(books) == [(lines[0], ROOM)]
    assert books.request(FakeCaller(grade=1), 0.0) is None
    assert endings(books) == [(lines[1], ROOM)]


def test_nothing_ends_for_a_caller_who_gets_the_room_of_a_line_that_is_ending_already(books: Books) -> None:
    ending, idle = [open_line(books, FakeCaller()) for _ in range(2)]
    give_back(books, idle, FakeCaller())
    books.end(ending, BROKEN)
    assert books.request(FakeCaller(grade=1), 0.0) is None
    assert endings(books) == [(ending, BROKEN)]
    assert idle.is_idle


def test_a_line_that_is_gone_makes_room_once(books: Books) -> None:
    lines = [open_line(books, FakeCaller()) for _ in range(2)]
    books.end(lines[0], BROKEN)
    books.gone(lines[0])
    open_line(books, FakeCaller())
    assert books.request(FakeCaller(grade=1), 0.0) is None
    give_back(books, lines[1], FakeCaller())
    assert endings(books)[1:] == [(lines[1], ROOM)]


def test_a_fresh_caller_is_not_given_a_line_that_comes_back(books: Books) -> None:
    lines = [open_line(books, FakeCaller()) for _ in range(2)]
    caller = FakeCaller(fresh=True)
    assert books.request(caller, 0.0) is None
    give_back(books, lines[0], FakeCaller())
    assert endings(books) == [(lines[0], ROOM)]
    books.gone(lines[0])
    ((_, line),) = grants(books)
    assert line.session is None


def test_who_withdraws_gets_nothing(books: Books) -> None:
    line, _ = open_line(books, FakeCaller()), open_line(books, FakeCaller())
    impatient, patient = FakeCaller(), FakeCaller()
    books.request(impatient, 0.0)
    books.request(patient, 0.0)
    books.withdraw(impatient)
    books.withdraw(impatient)
    give_back(books, line, FakeCaller())
    assert grants(books) == [(patient, line)]


def test_who_waits_too_long_is_told_so(books: Books) -> None:
    for _ in range(2):
        open_line(books, FakeCaller())
    early, late = FakeCaller(), FakeCaller()
    books.request(early, 0.0)
    books.request(late, 10.0)
    assert books.next_due == 300.0
    assert books.overdue(299.0) == []
    assert books.overdue(300.0) == [early]
    assert books.next_due == 310.0
    assert books.overdue(310.0) == [late]
    assert books.next_due is None


# The total ------------------------------------------------------------------------------------------------------------


def fill(books: Books) -> list[Line[FakeSession]]:
    """All lines that the books allow, in use, two at a place."""
    return [open_line(books, FakeCaller(place)) for place in ("one", "one", "two", "two")]


def test_all_places_together_have_no_more_lines_than_the_total(books: Books) -> None:
    lines = fill(books)
    caller = FakeCaller("three")
    assert books.request(caller, 0.0) is None
    give_back(books, lines[0], FakeCaller("one"))
    assert endings(books) == [(lines[0], ROOM)], "nobody wants it at its own place"
    books.gone(lines[0])
    assert [granted for granted, _ in grants(books)] == [caller]


def test_the_line_that_was_idle_longest_makes_room_for_another_place(books: Books) -> None:
    lines = fill(books)
    give_back(books, lines[2], FakeCaller("two"), 1.0)
    give_back(books, lines[0], FakeCaller("one"), 2.0)
    assert books.request(FakeCaller("three"), 3.0) is None
    assert endings(books) == [(lines[2], ROOM)]


def test_places_that_wait_for_the_total_take_turns(books: Books) -> None:
    lines = fill(books)
    callers = [FakeCaller(place) for place in ("three", "three", "four", "three")]
    for caller in callers:
        assert books.request(caller, 0.0) is None
    served = []
    for line in lines[:3]:
        books.end(line, BROKEN)
        books.gone(line)
        served += [caller for caller, _ in grants(books)]
    assert [caller.place for caller in served] == ["three", "four", "three"]


def test_a_place_forgets_nothing_and_keeps_nothing(books: Books) -> None:
    line = idle_line(books, FakeCaller())
    books.end(line, LOST)
    books.gone(line)
    assert books.lines == 0
    assert not books._places
    assert not books._idle_of


# Time and the end -----------------------------------------------------------------------------------------------------


def test_lines_end_when_they_were_idle_long_enough(books: Books) -> None:
    first = idle_line(books, FakeCaller("one"), 0.0)
    second = idle_line(books, FakeCaller("two"), 10.0)
    assert books.next_due == 150.0
    books.expire(149.0)
    assert endings(books) == []
    books.expire(150.0)
    assert endings(books) == [(first, IDLE_TIME)]
    assert books.next_due == 160.0
    books.expire(200.0)
    assert endings(books) == [(second, IDLE_TIME)]
    assert books.next_due is None


def test_shutting_ends_what_is_idle_and_later_what_is_given_back(books: Books) -> None:
    idle, busy = idle_line(books, FakeCaller("one")), open_line(books, FakeCaller("two"))
    open_line(books, FakeCaller("two"))
    caller = FakeCaller("two")
    assert books.request(caller, 0.0) is None
    assert books.shut() == [caller]
    give_back(books, busy, FakeCaller("two"))
    assert endings(books) == [(idle, SHUTDOWN), (busy, SHUTDOWN)]
    assert grants(books) == []
