"""What the processes of a daemon have told each other and still holds, for those that begin later. Pure.

The supervisor keeps it for workers that it starts, a worker for what it opens later. A finding has a topic and a key,
and an end; a newer one takes its place, and one without an end says that it is over. How many are kept is bounded, and
how much: the oldest are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST: Final = 10_000  # findings
MOST_TEXT: Final = 4 << 20  # characters of all of them
WHOLE_TOPIC: Final = ""
STEP: Final = 1 << 19  # characters of one frame, but for the last finding in it


class SharedFinding(NamedTuple):
    """A finding; `until` is a reading of the machine's monotonic clock, None: it does not hold any more. With the key
    `WHOLE_TOPIC` nothing of its topic does."""

    topic: str
    key: str
    body: Any
    until: float | None


class FindingList:
    """Findings, in the order in which they came."""

    def __init__(self, most: int = MOST, most_text: int = MOST_TEXT) -> None:
        self._most, self._most_text = most, most_text
        self._told: OrderedDict[tuple[str, str], tuple[SharedFinding, int]] = OrderedDict()
        self._text = 0

    def note(self, told: SharedFinding) -> None:
        """Somebody has told it."""
        if told.key == WHOLE_TOPIC:
            for topic, key in [each for each in self._told if each[0] == told.topic]:
                self._forget(topic, key)
            return
        self._forget(told.topic, told.key)
        if told.until is None:
            return
        weight = len(str(told))
        self._told[told.topic, told.key] = told, weight
        self._text += weight
        while len(self._told) > self._most or self._text > self._most_text:
            self._forget(*next(iter(self._told)))

    def of(self, topic: str, now: float) -> list[SharedFinding]:
        """What holds of a topic."""
        return [told for told, _ in self._holding(now) if told.topic == topic]

    def frames(self, now: float) -> Iterator[list[SharedFinding]]:
        """All that holds, in parts."""
        part, text = list[SharedFinding](), 0
        for told, weight in self._holding(now):
            part.append(told)
            text += weight
            if text >= STEP:
                yield part
                part, text = [], 0
        if part:
            yield part

    def _holding(self, now: float) -> list[tuple[SharedFinding, int]]:
        for told, _ in list(self._told.values()):
            if told.until is None or told.until <= now:
                self._forget(told.topic, told.key)
        return list(self._told.values())

    def _forget(self, topic: str, key: str) -> None:
        found = self._told.pop((topic, key), None)
        if found is not None:
            self._text -= found[1]
