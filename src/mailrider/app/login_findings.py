"""What workers have found out about passwords, kept at the supervisor for those that start later.

A worker that begins, after a reload or a death, learns it before it accepts anybody: nobody has more tries for that,
and who was known is. Wrong passwords are kept for a day, the longest time in which they are counted
(`endpoint.logins`). Pure.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from mailrider.model.bounded_map import BoundedMap

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY: Final = 86400.0
MAX_WRONG: Final = 20_000  # wrong passwords that are kept, the latest; 10 MB
MAX_RIGHT: Final = 20_000  # users with a client of theirs
STEP: Final = 500  # findings of one frame


class LoginFindings:
    """Findings as they came (`LoginFinding` as a mapping); `now` is a reading of the machine's monotonic clock."""

    def __init__(self) -> None:
        self._wrong: deque[tuple[float, Any]] = deque(maxlen=MAX_WRONG)
        self._right: BoundedMap[tuple[str, str], tuple[float, Any]] = BoundedMap(MAX_RIGHT)

    def note(self, finding: Any, now: float) -> None:
        """A worker has looked at a password."""
        if finding["is_right"]:
            self._right[finding["user"], finding["client"]] = (now, finding)
        else:
            self._wrong.append((now, finding))

    def frames(self, now: float) -> Iterator[list[tuple[float, Any]]]:
        """All that a worker has to know, each with its time, the oldest first."""
        while self._wrong and self._wrong[0][0] <= now - DAY:
            self._wrong.popleft()
        for findings in (self._right.values(), self._wrong):
            rest = iter(findings)
            while step := list(islice(rest, STEP)):
                yield step
