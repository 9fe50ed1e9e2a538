"""Which tests coverage measures, and that it is let go and taken up again between them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.measured import NOT_AT_ALL, Measuring, measured

if TYPE_CHECKING:
    import pytest

TABLE = [f"tests/flow/queue/test_a.py::test_b[row {number}]" for number in range(4)]
OTHER = "tests/unit/test_c.py::test_d"
WHOLE = [f"tests/unit/{package}/test_e.py::test_f[{number}]" for package in ("smtp", "model") for number in range(4)]
CRASH = "tests/crash/test_g.py::test_h"
PEER = "tests/peers/test_i.py::test_j"
OFTEN = "tests/flow/queue/test_slow_places.py::test_k"


class Recorder:
    """Takes down what coverage is told. Coverage lets programs be measured when it starts."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def start(self) -> None:
        self.told.append("start")
        os.environ["COVERAGE_PROCESS_CONFIG"] = "{}"

    def stop(self) -> None:
        self.told.append("stop")


def test_of_a_table_the_first_row_is_measured_and_of_what_must_be_covered_whole_all() -> None:
    assert measured(dict.fromkeys([*TABLE, OTHER, *WHOLE, CRASH, PEER, OFTEN], False)) == [TABLE[0], OTHER, *WHOLE]


def test_what_is_not_measured_is_there() -> None:
    root = Path(__file__).parents[2]
    assert [each for each in NOT_AT_ALL if not (root / each).exists()] == []


def test_what_tries_examples_is_measured_only_where_all_must_be_covered() -> None:
    assert measured({TABLE[0]: False, OTHER: True, WHOLE[0]: True}) == [TABLE[0], WHOLE[0]]


def test_coverage_runs_in_measured_tests_only() -> None:
    coverage = Recorder()
    measuring = Measuring(coverage, dict.fromkeys([*TABLE, OTHER, CRASH], False))
    for node in [TABLE[0], TABLE[1], TABLE[2], TABLE[3], CRASH, OTHER]:
        measuring.begin(node)
    assert coverage.told == ["stop", "start"]


def test_programs_that_a_test_starts_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", "{}")
    measuring = Measuring(Recorder(), {OTHER: False})
    measuring.begin(CRASH)
    measuring.begin(OTHER)
    assert "COVERAGE_PROCESS_CONFIG" not in os.environ


def test_without_coverage_nothing_is_done() -> None:
    Measuring(None, {OTHER: False}).begin(CRASH)
