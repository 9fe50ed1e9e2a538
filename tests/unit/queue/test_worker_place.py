"""Places of workers, and who delivers from which shard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.queue.worker_place import ALONE, WorkerNumber, shards_to_drain


def test_a_process_alone_is_the_first_of_one_worker() -> None:
    assert WorkerNumber(0, 1) == ALONE


@pytest.mark.parametrize(("number", "workers"), [(-1, 2), (2, 2), (0, 0)])
def test_a_place_that_cannot_be_is_refused(number: int, workers: int) -> None:
    with pytest.raises(ValueError, match="no worker"):
        WorkerNumber(number, workers)


@given(st.integers(min_value=1, max_value=64), st.sets(st.integers(min_value=0, max_value=200)))
def test_each_shard_is_delivered_from_by_one_worker(workers: int, there: set[int]) -> None:
    places = [WorkerNumber(number, workers) for number in range(workers)]
    drained = [each for place in places for each in (place.number, *shards_to_drain(place, sorted(there)))]
    assert sorted(drained) == sorted(there | set(range(workers)))


def test_one_process_alone_delivers_from_all_that_are_there() -> None:
    assert shards_to_drain(ALONE, [0, 1, 3]) == [1, 3]


def test_a_process_beside_the_daemon_helps_with_all_of_them() -> None:
    assert shards_to_drain(None, [0, 1, 3]) == [1, 3]
