"""Tests side by side in several processes, a file in one of them; a test that hangs fails, and the others run on.

Nothing can end a test that hangs from within: a task may wait where no exception reaches it (uvloop swallows what a
signal raises), a loop may spin in C. So the process that runs it shows all of its stacks and ends, whoever holds the
interpreter's lock; another one takes its place, and runs the rest of its tests.

pytest-timeout says how long a test may take. Its own timers are not used: after a failure they let the end of the test
hang for ever, and what they print is lost where tests run side by side.
"""

from __future__ import annotations

import faulthandler
from typing import Any, Final

from xdist.scheduler import LoadGroupScheduling

FIRST: Final = (
    "tests/crash/test_chaos.py",
    "tests/crash/test_workers.py",
    "tests/peers/test_systemd.py",
    "tests/flow/app/",
    "tests/crash/",
    "tests/peers/",
)
"""Files and folders in the order in which they begin: what takes longest, and mostly waits; then all others."""


def group_of(node: str) -> str:
    """What runs in one process: a file."""
    return node.partition("::")[0]


def rank(node: str) -> int:
    """By which the tests are sorted."""
    return next((number for number, first in enumerate(FIRST) if node.startswith(first)), len(FIRST))


class FileScheduling(LoadGroupScheduling):  # type: ignore[misc] # xdist has no types
    """pytest-xdist's `--dist loadgroup`, with `group_of`, and with processes that end in the middle of a test.

    The original does not see groups with pytest 9.2 (pytest-dev/pytest-xdist#1386). It gives the test under way to the
    next process, where it hangs again. And it waits for ever in three ways: work for a process that does not know its
    tests yet is lost, groups without any test to run are given out, and a new process with one test waits for another.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def remove_node(self, node: Any) -> str | None:
        """Other processes take over, but for the test that was under way, which is returned."""
        left = {
            group: [name for name, is_done in tests.items() if not is_done]
            for group, tests in self.assigned_work[node].items()
        }
        under_way = next((names[0] for names in left.values() if names), None)
        self.assigned_work[node] = {
            group: {name: False for name in names if name != under_way}
            for group, names in left.items()
            if names and names != [under_way]
        }
        super().remove_node(node)
        return under_way

    def _reschedule(self, node: Any) -> None:
        if node not in self.registered_collections:
            return  # it comes again when it knows its tests
        super()._reschedule(node)
        # A process begins its last test only when it has a further one, or knows that there is none.
        while self._pending_of(self.assigned_work[node]) < 2 and not node.shutting_down:
            super()._reschedule(node)


def limit(seconds: float, stderr: int) -> None:
    """Unless there is a further call within that time, this process ends; `stderr` gets its stacks."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=stderr)


def unlimit() -> None:
    """The test is over."""
    faulthandler.cancel_dump_traceback_later()
