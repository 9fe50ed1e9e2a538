"""Rules of the supervisor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.app.supervision import LONGEST, SHORTEST, SilenceWatch, lowest_free, next_delay, worker_environment


def test_who_dies_again_and_again_waits_longer_each_time_up_to_a_minute() -> None:
    delays, delay = [], 0.0
    for _ in range(8):
        delay = next_delay(delay, lived=0.5)
        delays.append(delay)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]


def test_who_has_lived_for_a_minute_begins_anew() -> None:
    assert next_delay(60, lived=60) == 1


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_every_delay_is_between_a_second_and_a_minute(earlier: float, lived: float) -> None:
    assert SHORTEST <= next_delay(earlier, lived) <= LONGEST


def test_a_worker_gets_neither_what_the_service_manager_says_nor_what_the_configuration_took() -> None:
    environment = {
        "NOTIFY_SOCKET": "/run/x",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "2",
        "LISTEN_FDNAMES": "x",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "2",
        "PASSWORD": "secret",
        "PATH": "/bin",
        "PYTHONPATH": "/x",
        "OTHER": "stays",
    }
    assert worker_environment(environment, {"PASSWORD", "PATH", "PYTHONPATH"}) == {
        "PATH": "/bin",
        "PYTHONPATH": "/x",
        "OTHER": "stays",
    }


def test_who_says_nothing_for_the_bound_is_silent() -> None:
    silence = SilenceWatch(30, 0)
    silence.hear(1, 0)
    silence.hear(2, 0)
    for now in range(1, 31):
        silence.hear(2, now)
        assert silence.look(now) == []
    assert silence.look(31) == [1]
    silence.forget(1)
    silence.forget(3)
    assert silence.look(32) == []


def test_a_supervisor_that_stood_still_ends_nobody_for_it() -> None:
    silence = SilenceWatch(30, 0)
    silence.hear(1, 0)
    assert silence.look(100) == []
    for now in range(101, 131):
        assert silence.look(now) == []
    assert silence.look(131) == [1]


@pytest.mark.parametrize(("taken", "free"), [(set(), 0), ({0, 1, 3}, 2), ({0, 1, 2, 3}, None)])
def test_the_lowest_free_number(taken: set[int], free: int | None) -> None:
    assert lowest_free(taken, 4) == free
