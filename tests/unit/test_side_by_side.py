"""Where tests run side by side: what runs in one process, and who takes over when a process ends in a test."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.side_by_side import FIRST, FileScheduling, group_of, rank

ROOT = Path(__file__).parents[2]
TESTS = ["tests/a.py::one", "tests/a.py::two", "tests/a.py::three", "tests/b.py::four", "tests/c.py::five"]


class Process:
    """What the scheduling sees of a process that runs tests: which it is to run, and whether it is to end then."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.tests: list[str] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.tests += [TESTS[index] for index in indices]

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def can_begin(self) -> bool:
        """It begins a test when it has the next one, or knows that there is none."""
        return len(self.tests) > 1 or self.shutting_down


def scheduling(*processes: Process) -> FileScheduling:
    tx = [f"{len(processes)}*popen"]
    config = SimpleNamespace(getvalue=lambda _: tx, option=SimpleNamespace(loadscopereorder=False))
    made = FileScheduling(config)
    for process in processes:
        join(made, process)
    return made


def join(made: FileScheduling, process: Process) -> None:
    made.add_node(process)
    made.add_node_collection(process, TESTS)
    if made.collection_is_completed:
        made.schedule()


def run(made: Any, process: Process) -> list[str]:
    """All that a process is given, to its end."""
    done = 0
    while done < len(process.tests) and (done + 1 < len(process.tests) or process.shutting_down):
        made.mark_test_complete(process, TESTS.index(process.tests[done]))
        done += 1
    return process.tests


def test_a_file_runs_in_one_process() -> None:
    assert group_of("tests/unit/test_a.py::test_b[tests/peers::c]") == "tests/unit/test_a.py"
    first, second = Process("gw0"), Process("gw1")
    made = scheduling(first, second)
    assert sorted(run(made, first) + run(made, second)) == sorted(TESTS)
    assert not set(names_of_files(first)) & set(names_of_files(second))


def test_what_takes_longest_begins_first() -> None:
    nodes = [
        "tests/crash/test_chaos.py::a",
        "tests/flow/app/test_b.py::c",
        "tests/peers/test_d.py::e",
        "tests/unit/f.py",
    ]
    assert [rank(node) for node in nodes] == sorted({rank(node) for node in nodes})


@pytest.mark.parametrize("place", FIRST)
def test_what_begins_first_exists(place: str) -> None:
    assert (ROOT / place).exists()


def names_of_files(process: Process) -> list[str]:
    return [test.partition("::")[0] for test in process.tests]


def test_the_test_that_hangs_is_not_run_again_and_all_others_are() -> None:
    first, second, third = Process("gw0"), Process("gw1"), Process("gw2")
    made = scheduling(first, second)
    hung = first.tests[0]
    assert made.remove_node(first) == hung
    join(made, third)
    assert third.can_begin
    assert sorted([hung, *run(made, second), *run(made, third)]) == sorted(TESTS)


def test_a_process_that_does_not_know_its_tests_yet_loses_none() -> None:
    first, second, third, fourth = (Process(f"gw{number}") for number in range(4))
    made = scheduling(first, second)
    made.add_node(third)
    hung = [made.remove_node(first), made.remove_node(second)]
    assert not third.tests
    made.add_node_collection(third, TESTS)
    made.schedule()
    join(made, fourth)
    assert sorted([*map(str, hung), *run(made, third), *run(made, fourth)]) == sorted(TESTS)


def test_a_process_that_ends_behind_its_last_test_leaves_nothing() -> None:
    first, second = Process("gw0"), Process("gw1")
    made = scheduling(first, second)
    run(made, first)
    run(made, second)
    assert made.remove_node(first) is None
    assert made.tests_finished
