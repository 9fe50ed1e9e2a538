"""The pool's state decide: who gets which slot, who waits, what is closed."""

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
    PoolLimits,
    PoolState,
    Slot,
)
from tests.support.kept import kept
from tests.unit.delivery.calls import FakeSession, FakeWaiter

State = PoolState[FakeSession, FakeWaiter]

LIMITS = PoolLimits(reuse=10, idle_count=10, idle_time=150.0, per_endpoint=2, total=4, wait=300.0)


def open_line(state: State, waiter: FakeWaiter, now: float = 0.0, **session: Any) -> Slot[FakeSession]:
    """A slot that had to be opened, and is in use."""
    slot = state.request(waiter, now)
    assert slot is not None
    assert slot.session is None
    slot.session = FakeSession(waiter.endpoint, **session)
    return slot


def idle_line(state: State, waiter: FakeWaiter, now: float = 0.0, **session: Any) -> Slot[FakeSession]:
    """A slot that was opened, carried a transaction, and was given back."""
    slot = open_line(state, waiter, now, **session)
    give_back(state, slot, waiter, now)
    return slot


def give_back(state: State, slot: Slot[FakeSession], waiter: FakeWaiter, now: float = 0.0) -> None:
    assert slot.session is not None
    slot.session.transactions += 1
    state.give_back(slot, waiter.next_hop, now)


def closings(state: State) -> list[tuple[Slot[FakeSession], str]]:
    ended = [(slot, reason) for slot, _, reason in state.closings]
    state.closings.clear()
    return ended


def grants(state: State) -> list[tuple[FakeWaiter, Slot[FakeSession]]]:
    granted = [(waiter, slot) for waiter, slot in state.grants]
    state.grants.clear()
    return granted


@pytest.fixture
def state() -> State:
    return PoolState(LIMITS)


# Reuse ----------------------------------------------------------------------------------------------------------------


def test_an_idle_line_that_fits_is_used_again(state: State) -> None:
    slot = idle_line(state, FakeWaiter())
    assert state.request(FakeWaiter(), 1.0) is slot
    assert not slot.is_idle


def test_two_domains_on_one_host_share_a_line_that_is_good_enough_for_both(state: State) -> None:
    slot = idle_line(state, FakeWaiter(next_hop="a.test"))
    assert state.request(FakeWaiter(next_hop="b.test"), 1.0) is slot


def test_a_line_to_another_place_is_never_used(state: State) -> None:
    idle_line(state, FakeWaiter("one"))
    slot = state.request(FakeWaiter("two"), 1.0)
    assert slot is not None
    assert slot.session is None


def test_a_line_that_is_not_good_enough_stays_for_others(state: State) -> None:
    weak = idle_line(state, FakeWaiter())
    strong = state.request(FakeWaiter(grade=1), 1.0)
    assert strong is not None
    assert strong is not weak
    assert weak.is_idle
    assert closings(state) == []


def test_the_line_that_was_used_last_is_used_first(state: State) -> None:
    first, second = open_line(state, FakeWaiter()), open_line(state, FakeWaiter())
    give_back(state, second, FakeWaiter(), 1.0)
    give_back(state, first, FakeWaiter(), 2.0)
    assert state.request(FakeWaiter(), 3.0) is first


def test_a_fresh_caller_gets_no_line_that_was_used_before_and_is_not_even_shown_one(state: State) -> None:
    idle_line(state, FakeWaiter())
    waiter = FakeWaiter(fresh=True)
    slot = state.request(waiter, 1.0)
    assert slot is not None
    assert slot.session is None
    assert waiter.asked == []


def test_an_idle_line_that_died_is_ended_and_never_shown(state: State) -> None:
    corpse = idle_line(state, FakeWaiter())
    assert corpse.session is not None
    corpse.session.is_alive = False
    waiter = FakeWaiter()
    slot = state.request(waiter, 1.0)
    assert slot is not corpse
    assert waiter.asked == []
    assert closings(state) == [(corpse, LOST)]


def test_a_line_past_its_idle_time_is_not_used_even_if_nobody_has_ended_it_yet(state: State) -> None:
    old = idle_line(state, FakeWaiter(), now=0.0)
    assert state.request(FakeWaiter(), 150.0) is not old
    assert closings(state) == [(old, IDLE_TIME)]


# Giving back ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("server_says", "most"), [(None, 10), (3, 3), (30, 10)])
def test_a_line_carries_as_many_transactions_as_configured_or_as_few_as_mailmax(
    state: State, server_says: int | None, most: int
) -> None:
    slot = open_line(state, FakeWaiter(), max_transactions=server_says)
    for _ in range(most - 1):
        give_back(state, slot, FakeWaiter())
        assert state.request(FakeWaiter(), 0.0) is slot
    give_back(state, slot, FakeWaiter())
    assert closings(state) == [(slot, USED_UP)]


def test_a_dead_line_is_not_kept(state: State) -> None:
    slot = open_line(state, FakeWaiter(), is_alive=False)
    give_back(state, slot, FakeWaiter())
    assert closings(state) == [(slot, BROKEN)]


def test_without_an_idle_count_or_idle_time_nothing_is_kept() -> None:
    for limits in (PoolLimits(10, 0, 150.0), PoolLimits(10, 10, 0.0)):
        state: State = PoolState(limits)
        slot = idle_line(state, FakeWaiter())
        state.expire(0.0)
        assert [ended for ended, _ in closings(state)] == [slot]


def test_a_line_that_ends_counts_until_it_is_gone(state: State) -> None:
    slots = [open_line(state, FakeWaiter()) for _ in range(2)]
    waiter = FakeWaiter()
    assert state.request(waiter, 0.0) is None
    state.end(slots[0], BROKEN)
    assert grants(state) == []
    state.gone(slots[0])
    ((granted, slot),) = grants(state)
    assert granted is waiter
    assert slot.session is None


def test_ending_twice_is_ending_once(state: State) -> None:
    slot = idle_line(state, FakeWaiter())
    state.end(slot, LOST)
    state.end(slot, SHUTDOWN)
    assert closings(state) == [(slot, LOST)]


# The idle count -------------------------------------------------------------------------------------------------------


def test_the_idle_count_is_that_of_the_domain_that_used_a_line_last() -> None:
    state: State = PoolState(PoolLimits(10, 1, 150.0))
    first = idle_line(state, FakeWaiter("one", "a.test"))
    second = idle_line(state, FakeWaiter("two", "b.test"))
    assert closings(state) == []
    assert state.request(FakeWaiter("one", "b.test"), 0.0) is first
    give_back(state, first, FakeWaiter("one", "b.test"), 1.0)
    assert [slot for slot, _ in closings(state)] == [first]  # it carried more than the second
    assert second.is_idle


def test_lines_in_use_do_not_count_as_idle() -> None:
    state: State = PoolState(PoolLimits(10, 1, 150.0))
    slots = [open_line(state, FakeWaiter()) for _ in range(3)]
    give_back(state, slots[0], FakeWaiter())
    assert closings(state) == []


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
    state: State = PoolState(PoolLimits(10, 1, 150.0))
    waiter = FakeWaiter()
    slots = {"worse": open_line(state, waiter, **worse), "better": open_line(state, waiter, **better)}
    for name in ("worse", "better") if worse_first else ("better", "worse"):
        give_back(state, slots[name], waiter)
    assert closings(state) == [(slots["worse"], IDLE_COUNT)]


def test_among_equals_the_one_that_was_idle_longest_is_closed() -> None:
    state: State = PoolState(PoolLimits(10, 1, 150.0))
    first, second = open_line(state, FakeWaiter()), open_line(state, FakeWaiter())
    give_back(state, first, FakeWaiter(), 1.0)
    give_back(state, second, FakeWaiter(), 2.0)
    assert closings(state) == [(first, IDLE_COUNT)]


# Waiting --------------------------------------------------------------------------------------------------------------


def test_a_place_has_no_more_lines_than_it_may_and_callers_wait_in_order(state: State) -> None:
    first, second = open_line(state, FakeWaiter()), open_line(state, FakeWaiter())
    waiters = [FakeWaiter() for _ in range(3)]
    assert [state.request(waiter, 0.0) for waiter in waiters] == [None, None, None]
    give_back(state, second, FakeWaiter())
    give_back(state, first, FakeWaiter())
    assert grants(state) == [(waiters[0], second), (waiters[1], first)]


def test_a_line_that_does_not_fit_the_next_caller_ends_to_make_room(state: State) -> None:
    slots = [open_line(state, FakeWaiter()) for _ in range(2)]
    waiter = FakeWaiter(grade=1)
    assert state.request(waiter, 0.0) is None
    give_back(state, slots[0], FakeWaiter())
    assert closings(state) == [(slots[0], ROOM)]
    give_back(state, slots[1], FakeWaiter())
    assert slots[1].is_idle, "one ending slot is room enough for one waiter"
    state.gone(slots[0])
    assert [granted for granted, _ in grants(state)] == [waiter]


def test_an_idle_line_that_does_not_fit_ends_when_the_place_is_full(state: State) -> None:
    idle, _ = idle_line(state, FakeWaiter()), open_line(state, FakeWaiter(fresh=True))
    waiter = FakeWaiter(grade=1)
    assert state.request(waiter, 0.0) is None
    assert closings(state) == [(idle, ROOM)]
    state.gone(idle)
    assert [granted for granted, _ in grants(state)] == [waiter]


def test_one_idle_line_ends_for_each_caller_who_waits_and_no_more(state: State) -> None:
    slots = [open_line(state, FakeWaiter()) for _ in range(2)]
    for slot in slots:
        give_back(state, slot, FakeWaiter())
    assert state.request(FakeWaiter(grade=1), 0.0) is None
    assert closings(state) == [(slots[0], ROOM)]
    assert state.request(FakeWaiter(grade=1), 0.0) is None
    assert closings(state) == [(slots[1], ROOM)]


def test_nothing_ends_for_a_caller_who_gets_the_room_of_a_line_that_is_ending_already(state: State) -> None:
    ending, idle = [open_line(state, FakeWaiter()) for _ in range(2)]
    give_back(state, idle, FakeWaiter())
    state.end(ending, BROKEN)
    assert state.request(FakeWaiter(grade=1), 0.0) is None
    assert closings(state) == [(ending, BROKEN)]
    assert idle.is_idle


def test_a_line_that_is_gone_makes_room_once(state: State) -> None:
    slots = [open_line(state, FakeWaiter()) for _ in range(2)]
    state.end(slots[0], BROKEN)
    state.gone(slots[0])
    open_line(state, FakeWaiter())
    assert state.request(FakeWaiter(grade=1), 0.0) is None
    give_back(state, slots[1], FakeWaiter())
    assert closings(state)[1:] == [(slots[1], ROOM)]


def test_a_fresh_caller_is_not_given_a_line_that_comes_back(state: State) -> None:
    slots = [open_line(state, FakeWaiter()) for _ in range(2)]
    waiter = FakeWaiter(fresh=True)
    assert state.request(waiter, 0.0) is None
    give_back(state, slots[0], FakeWaiter())
    assert closings(state) == [(slots[0], ROOM)]
    state.gone(slots[0])
    ((_, slot),) = grants(state)
    assert slot.session is None


def test_who_withdraws_gets_nothing(state: State) -> None:
    slot, _ = open_line(state, FakeWaiter()), open_line(state, FakeWaiter())
    impatient, patient = FakeWaiter(), FakeWaiter()
    state.request(impatient, 0.0)
    state.request(patient, 0.0)
    state.withdraw(impatient)
    state.withdraw(impatient)
    give_back(state, slot, FakeWaiter())
    assert grants(state) == [(patient, slot)]


def test_who_waits_too_long_is_told_so(state: State) -> None:
    for _ in range(2):
        open_line(state, FakeWaiter())
    early, late = FakeWaiter(), FakeWaiter()
    state.request(early, 0.0)
    state.request(late, 10.0)
    assert state.next_due == 300.0
    assert state.overdue(299.0) == []
    assert state.overdue(300.0) == [early]
    assert state.next_due == 310.0
    assert state.overdue(310.0) == [late]
    assert state.next_due is None


# The total ------------------------------------------------------------------------------------------------------------


def fill(state: State) -> list[Slot[FakeSession]]:
    """All slots that the limits allow, in use, two at an endpoint."""
    return [open_line(state, FakeWaiter(endpoint)) for endpoint in ("one", "one", "two", "two")]


def test_all_places_together_have_no_more_lines_than_the_total(state: State) -> None:
    slots = fill(state)
    waiter = FakeWaiter("three")
    assert state.request(waiter, 0.0) is None
    give_back(state, slots[0], FakeWaiter("one"))
    assert closings(state) == [(slots[0], ROOM)], "nobody wants it at its own endpoint"
    state.gone(slots[0])
    assert [granted for granted, _ in grants(state)] == [waiter]


def test_the_line_that_was_idle_longest_makes_room_for_another_place(state: State) -> None:
    slots = fill(state)
    give_back(state, slots[2], FakeWaiter("two"), 1.0)
    give_back(state, slots[0], FakeWaiter("one"), 2.0)
    assert state.request(FakeWaiter("three"), 3.0) is None
    assert closings(state) == [(slots[2], ROOM)]


def test_places_that_wait_for_the_total_take_turns(state: State) -> None:
    slots = fill(state)
    waiters = [FakeWaiter(endpoint) for endpoint in ("three", "three", "four", "three")]
    for waiter in waiters:
        assert state.request(waiter, 0.0) is None
    served = []
    for slot in slots[:3]:
        state.end(slot, BROKEN)
        state.gone(slot)
        served += [waiter for waiter, _ in grants(state)]
    assert [waiter.endpoint for waiter in served] == ["three", "four", "three"]


def test_a_place_forgets_nothing_and_keeps_nothing(state: State) -> None:
    before = kept(state)
    slot = idle_line(state, FakeWaiter())
    state.end(slot, LOST)
    assert closings(state) == [(slot, LOST)]
    state.gone(slot)
    assert state.slots == 0
    assert kept(state) == before


# Time and the end -----------------------------------------------------------------------------------------------------


def test_lines_end_when_they_were_idle_long_enough(state: State) -> None:
    first = idle_line(state, FakeWaiter("one"), 0.0)
    second = idle_line(state, FakeWaiter("two"), 10.0)
    assert state.next_due == 150.0
    state.expire(149.0)
    assert closings(state) == []
    state.expire(150.0)
    assert closings(state) == [(first, IDLE_TIME)]
    assert state.next_due == 160.0
    state.expire(200.0)
    assert closings(state) == [(second, IDLE_TIME)]
    assert state.next_due is None


def test_shutting_ends_what_is_idle_and_later_what_is_given_back(state: State) -> None:
    idle, busy = idle_line(state, FakeWaiter("one")), open_line(state, FakeWaiter("two"))
    open_line(state, FakeWaiter("two"))
    waiter = FakeWaiter("two")
    assert state.request(waiter, 0.0) is None
    assert state.shut() == [waiter]
    give_back(state, busy, FakeWaiter("two"))
    assert closings(state) == [(idle, SHUTDOWN), (busy, SHUTDOWN)]
    assert grants(state) == []
