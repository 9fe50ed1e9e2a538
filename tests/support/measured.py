"""Which tests are measured by coverage: measuring makes a test take twice as long.

`mailrider.model` and `mailrider.smtp` are to be covered whole, so all of their tests are measured. Of the others the
first row of each table is: further ones try values, not lines, and so do the examples of Hypothesis. What kills
processes or talks to real servers is not measured, nor what passes the lines of other tests thousands of times, and
neither is any program that a test starts; it runs what tests run here as well.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

WHOLE: Final = ("tests/unit/model/", "tests/unit/smtp/")
NOT_AT_ALL: Final = (
    "tests/crash/",
    "tests/peers/",
    "tests/flow/delivery/test_memory.py",
    "tests/flow/queue/test_slow_places.py",
    "tests/flow/queue/test_stop_at_every_moment.py",
    "tests/flow/security/test_matrix_sample.py",
    "tests/unit/policy/test_matrix.py",
)
ROWS: Final = 1
"""Of the other tests: how many rows of each table are measured."""


class Coverage(Protocol):
    """What we need of coverage.Coverage."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class Measuring:
    """Lets coverage run in those tests only that are measured, of those that were collected."""

    def __init__(self, coverage: Coverage | None, nodes: Mapping[str, bool]) -> None:
        self._coverage = coverage
        self._measured = set(measured(nodes))
        self._is_on = coverage is not None

    def begin(self, node: str) -> None:
        """A test begins."""
        if self._coverage is None or (is_on := node in self._measured) is self._is_on:
            return
        if is_on:
            self._coverage.start()
        else:
            self._coverage.stop()
        forget_programs()  # starting coverage lets it measure them
        self._is_on = is_on


def measured(nodes: Mapping[str, bool]) -> list[str]:
    """Those of the tests that are measured. True stands at those that try examples."""
    rows: Counter[str] = Counter()
    chosen: list[str] = []
    for node, has_examples in nodes.items():
        if node.startswith(NOT_AT_ALL):
            continue
        test = node.partition("[")[0]
        rows[test] += 1
        if node.startswith(WHOLE) or (rows[test] <= ROWS and not has_examples):
            chosen.append(node)
    return chosen


def forget_programs() -> None:
    """Programs that are started from now on are not measured."""
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
