"""Whose turn it is to accept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.net.accept_turns import AWAY, MOST, REFUSED, REFUSES, SLOTS, TAKES, Page, Turns, pause_before

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("sessions", "state", "others", "pause"),
    [
        (7, TAKES, [], 0),
        (7, TAKES, [(TAKES, 7)], 0),
        (7, TAKES, [(TAKES, 9)], 0),
        (7, TAKES, [(TAKES, 9), (TAKES, 2)], 0.005),
        (100, TAKES, [(TAKES, 2)], 0.050),
        (7, TAKES, [(AWAY, 0)], 0),
        (7, TAKES, [(REFUSES, 0)], 0),
        (0, REFUSES, [(TAKES, 9)], 1.0),
        (0, REFUSES, [(REFUSES, 9)], 0),
        (0, REFUSES, [], 0),
    ],
    ids=[
        "alone",
        "equal",
        "less",
        "more than the least",
        "at most 50 ms",
        "who does not accept does not count",
        "who refuses does not count",
        "mail would be refused here",
        "all refuse",
        "nobody else is there",
    ],
)
def test_who_has_more_sessions_waits(sessions: int, state: int, others: list[tuple[int, int]], pause: float) -> None:
    assert pause_before(sessions, state, others) == pytest.approx(pause)


@given(st.integers(0, 1000), st.lists(st.tuples(st.sampled_from([AWAY, TAKES, REFUSES]), st.integers(0, 1000))))
def test_nobody_waits_longer_than_the_bound(sessions: int, others: list[tuple[int, int]]) -> None:
    assert 0 <= pause_before(sessions, TAKES, others) <= MOST
    assert pause_before(sessions, REFUSES, others) in (0, REFUSED)


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page.create()
    yield page
    page.close()


def test_each_worker_reads_what_the_others_wrote(page: Page) -> None:
    other = Page(os.dup(page.descriptor))
    page.announce(2)
    first, second = Turns(page, 0), Turns(other, 1)
    first.come()
    second.come()
    for _ in range(3):
        first.begin()
    assert page.read() == other.read() == [(TAKES, 3), (TAKES, 0)]
    assert first.pause() == pytest.approx(0.003)
    assert second.pause() == 0
    first.end()
    second.refuse(True)
    assert page.read() == [(TAKES, 2), (REFUSES, 0)]
    assert (first.pause(), second.pause()) == (0, REFUSED)
    first.leave()
    assert page.read()[0] == (AWAY, 2)
    other.close()


def test_a_slot_is_cleared_for_the_dead(page: Page) -> None:
    page.announce(SLOTS)
    page.write(SLOTS - 1, TAKES, 5)
    page.clear(SLOTS - 1)
    assert page.read()[-1] == (AWAY, 0)
