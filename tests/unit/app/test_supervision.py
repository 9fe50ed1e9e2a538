"""Rules of the supervisor."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mailrider.app.supervision import (
    LONGEST,
    MAX_FINISHING,
    SHORTEST,
    SilenceWatch,
    WorkerPlaces,
    lowest_free,
    next_delay,
    too_many,
    worker_environment,
)


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


@dataclass(slots=True)
class Worker:
    number: int
    worker: int
    generation: int


class Replacing(RuleBasedStateMachine):
    """Workers that begin, fail and die, and reloads at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.places: WorkerPlaces[Worker] = WorkerPlaces()
        self.places.put_in_force(1, 2)
        self.beginning: list[Worker] = []
        self.finishing: set[int] = set()
        self.dead: set[int] = set()
        self.numbers = 0

    @rule(place=st.integers(0, 4))
    def start(self, place: int) -> None:
        serving = {each.worker: each for each in self.places.serving}
        is_wanted = place < self.places.workers and (
            place not in serving or serving[place].generation < self.places.generation
        )
        begins = any(each.worker == place for each in self.beginning)
        assert self.places.begin(place) == (is_wanted and not begins)
        if is_wanted and not begins:
            self.numbers += 1
            self.beginning.append(Worker(self.numbers, place, self.places.generation))

    @precondition(lambda self: self.beginning)
    @rule(data=st.data(), is_ready=st.booleans())
    def begun(self, data: st.DataObject, *, is_ready: bool) -> None:
        worker = data.draw(st.sampled_from(self.beginning))
        self.beginning.remove(worker)
        self.places.begun(worker.worker)
        if not is_ready:
            self.dead.add(worker.number)
            return
        before = {each.worker: each for each in self.places.serving}
        finishes = self.places.put_in_service(worker)
        if worker.generation == self.places.generation:
            assert finishes == before.get(worker.worker)
        else:
            assert finishes is worker
        if finishes is not None:
            self.finishing.add(finishes.number)

    @rule(workers=st.integers(2, 4))
    def reload(self, workers: int) -> None:
        self.places.put_in_force(self.places.generation + 1, workers)
        surplus = self.places.clear_surplus()
        assert all(each.worker >= workers for each in surplus)
        assert all(each.worker < workers for each in self.places.serving)
        self.finishing |= {each.number for each in surplus}

    @precondition(lambda self: self.places.serving)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.places.serving))
        assert self.places.end(worker)
        assert not self.places.end(worker), "nobody is replaced twice"
        self.dead.add(worker.number)
        delay = self.places.delay(worker.worker, 0.0)
        assert delay is not None
        assert SHORTEST <= delay <= LONGEST

    @invariant()
    def each_place_has_one_worker_that_neither_finishes_nor_is_dead(self) -> None:
        serving = self.places.serving
        assert [each.worker for each in serving] == sorted({each.worker for each in serving})
        assert all(each.worker < self.places.workers for each in serving)
        assert not {each.number for each in serving} & (self.finishing | self.dead)
        assert [self.places.label(each.number) for each in serving] == [str(each.worker) for each in serving]


TestReplacing = Replacing.TestCase


def test_with_fewer_places_the_workers_of_the_others_finish_and_no_others() -> None:
    places = WorkerPlaces[Worker]()
    places.put_in_force(1, 3)
    workers = [Worker(number, worker=number, generation=1) for number in range(3)]
    for each in workers:
        places.put_in_service(each)
    places.put_in_force(2, 2)
    assert places.clear_surplus() == workers[2:]
    assert places.serving == workers[:2]


def test_a_place_that_is_not_there_any_more_gets_no_worker_later() -> None:
    places: WorkerPlaces[Worker] = WorkerPlaces()
    places.put_in_force(1, 2)
    assert [places.delay(place, 0.0) for place in (0, 1, 2, 0)] == [1.0, 1.0, None, 2.0]


@given(st.integers(0, 60), st.integers(0, 4))
def test_of_those_who_finish_the_oldest_stop_when_they_are_more_than_eight_a_place(number: int, workers: int) -> None:
    finishing = [Worker(each, 0, 0) for each in range(number)]
    stopped = too_many(finishing, workers)
    assert list(stopped) == finishing[: len(stopped)]
    assert number - len(stopped) == min(number, MAX_FINISHING * max(1, workers))
