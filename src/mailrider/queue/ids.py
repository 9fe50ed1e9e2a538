"""Ids of what is queued: 64-bit integers of ours, in the order of time.

The microseconds since 1970, and in the low eleven bits the place where it was given out, so that two processes never
give out the same: the number of a shard, or 1024 and more for processes beside the workers, by their registrations.

A message takes a run of ids: its own, and one behind it for each recipient, so that no index is needed to find them.
Runs of different places may overlap. Recipients of different messages that would get the same id in one file are
noticed when they are stored (`store.IdTaken`), and the message takes another id.

Before there were workers the low bits were random: an id of that time names no place.

People see an id as 13 letters and digits (Crockford's base 32: no I, L, O, U to misread), still in the order of time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mailrider.errors import InvalidValue

if TYPE_CHECKING:
    from mailrider.clock import Clock

PLACE_BITS: Final = 11
PLACES: Final = 1 << PLACE_BITS
SHARDS: Final = PLACES // 2
"""Places below are shards, those from here on processes beside the workers."""
MAX_ID: Final = (1 << 63) - 1  # SQL integers have a sign

LAST_MOMENT: Final = datetime(9000, 1, 1, tzinfo=UTC)  # far enough from the end of the calendar to count from it

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)} | {"i": 1, "l": 1, "o": 0}
_LENGTH: Final = 13
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]


def microseconds(when: datetime) -> int:
    """The moment as stores keep it."""
    return (when - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The inverse of `microseconds`; one that is in no calendar becomes one that is."""
    try:
        return _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        return LAST_MOMENT if value > 0 else _EPOCH


def first_id_at(when: datetime) -> int:
    """The least id that a message of that moment can have; what is older has a smaller one."""
    return max(0, microseconds(when)) << PLACE_BITS


def place_of(id: int) -> int:
    """Where the id was given out."""
    return id & (PLACES - 1)


def place_of_registration(registration: int) -> int:
    """The place of a process beside the workers: they have theirs in turn."""
    return SHARDS + registration % (PLACES - SHARDS)


class IdSource:
    """Gives out ids, each larger than the one before it, whatever the clock does. `place` None: it has that of its
    registration, once `go_on` tells it; before that it is the first one beside the workers."""

    def __init__(self, clock: Clock, place: int | None = None) -> None:
        self._clock = clock
        self._place = SHARDS if place is None else place
        self._is_placed = place is not None
        self._next = 0
        self._reserved: dict[str, int] = {}

    def follow(self, clock: Clock) -> None:
        """Take the time from that clock from now on."""
        self._clock = clock

    def go_on(self, behind: int, registration: int) -> None:
        """Give out larger ids than that from now on: the largest that there is in the store of that registration."""
        if not self._is_placed:
            self._place, self._is_placed = place_of_registration(registration), True
        least = max(behind + 1, self._next)
        self._next = least + (self._place - least) % PLACES

    def reserve(self, recipients: int) -> str:
        """An id for a message that some queue may come to have: the one that claims it first."""
        id = self.take(recipients)
        name = format_id(id)
        self._reserved[name] = id
        return name

    def claim(self, name: str) -> int | None:
        """A reserved id, once; None for whatever is not reserved any more, or never was."""
        return self._reserved.pop(name, None)

    def forget(self, name: str) -> None:
        """Nobody will claim it."""
        self._reserved.pop(name, None)

    def take(self, recipients: int) -> int:
        """The id of a message; that many ids behind it belong to its recipients."""
        first = max(first_id_at(self._clock.now()) | self._place, self._next)
        self._next = first + ((recipients >> PLACE_BITS) + 1 << PLACE_BITS)
        return first


@lru_cache(maxsize=1024)  # of one message everybody tells it
def format_id(number: int) -> str:
    """As people see it: `0d7m3k9q2xv4t`."""
    return _ALPHABET[number >> 60] + "".join([_PAIRS[number >> shift & 1023] for shift in (50, 40, 30, 20, 10, 0)])


def parse_id(text: str) -> int:
    """The inverse, of any case. Raises `InvalidValue`."""
    if not isinstance(text, str):
        raise TypeError(f"the id of a message is a string, not {type(text).__name__}")
    try:
        number = 0
        for letter in text.strip().lower():
            number = number * 32 + _VALUES[letter]
    except KeyError:
        number = -1
    if len(text.strip()) != _LENGTH or not 0 <= number <= MAX_ID:
        raise InvalidValue(f"not the id of a message: {text[:40]!r} (an id has {_LENGTH} letters and digits)")
    return number
