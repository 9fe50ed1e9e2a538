"""Answers kept by their TTL, absence included (RFC 2308).

Pure but for the clock that it is given. Bounded: the least recently used go first, and a large
answer takes the place of several, so that hostile ones cannot fill the memory. What is expired is
never given out. Failures are not kept: the resolver beside us does that (RFC 9520), and whoever
tries again after a failure wants the truth.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from mailrider.dns.answer import MalformedTLSA, MXRecord
from mailrider.model.security import TLSARecord

if TYPE_CHECKING:
    from mailrider.clock import Clock
    from mailrider.dns.answer import Answer, Record, RecordType
    from mailrider.model.domain import Domain

PLACE = 1024  # octets of data that fit in one place of the cache; ordinary answers have 20 to 300


class AnswerCache:
    """A cache with `size` places; 0 keeps nothing."""

    def __init__(self, size: int, clock: Clock) -> None:
        self._size = size
        self._clock = clock
        self._used = 0
        self._entries: OrderedDict[tuple[str, RecordType], tuple[Answer[Any], int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: Domain, record_type: RecordType) -> Answer[Any] | None:
        """The answer to that question if it is here and fresh."""
        key = (name.ascii, record_type)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0].expires <= self._clock.monotonic():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, record_type: RecordType, answer: Answer[Any]) -> None:
        """Keep an answer until it expires or room is needed; it replaces an older one."""
        key = (answer.name.ascii, record_type)
        self._drop(key)
        places = weigh(answer)
        if places > self._size or answer.expires <= self._clock.monotonic():
            return
        while self._used + places > self._size:
            self._drop(next(iter(self._entries)))
        self._entries[key] = (answer, places)
        self._used += places

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._used = 0

    def _drop(self, key: tuple[str, RecordType]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._used -= entry[1]


def weigh(answer: Answer[Any]) -> int:
    """How many places an answer takes."""
    return 1 + sum(map(_octets, answer.records)) // PLACE


def _octets(record: Record) -> int:
    if isinstance(record, bytes):
        return len(record)
    if isinstance(record, TLSARecord):
        return len(record.data)
    if isinstance(record, MXRecord | MalformedTLSA):
        return len(record.text)
    return 16  # an address; or a name, which is shared
