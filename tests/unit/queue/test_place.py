"""Places of workers."""

import pytest

from mailrider.queue.place import ALONE, Place


def test_a_process_alone_is_the_first_of_one_worker() -> None:
    assert Place(0, 1) == ALONE


@pytest.mark.parametrize(("number", "workers"), [(-1, 2), (2, 2), (0, 0)])
def test_a_place_that_cannot_be_is_refused(number: int, workers: int) -> None:
    with pytest.raises(ValueError, match="no worker"):
        Place(number, workers)
