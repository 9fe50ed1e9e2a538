"""What workers ask of the books that they share, and what they are told: values.

The books are `delivery.limits.share_book`.
"""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    """One number that workers share. `period` 0: so many at once. `spares`: it may be given ahead.

    `places`: who is refused comes again, and has a place then.
    """

    name: str
    maximum: int
    period: float = 0.0
    spares: bool = True
    places: bool = True


class Ask(NamedTuple):
    """One of each (line, key), together. `most`: as many of them, if they are free. `patience`: seconds.

    `usable`: seconds for which what is given of a rate has to be usable at least, since answers take so long.
    """

    id: int
    needs: tuple[tuple[str, str], ...]
    patience: float = 0.0
    most: int = 1
    usable: float = 0.0


class Granted(NamedTuple):
    """It has so many of each; those of a rate may be used until then (0: of a concurrency)."""

    worker: int
    ask: int
    shares: tuple[tuple[int, float], ...]


class Refused(NamedTuple):
    """Not now, because of the need with that index; come again in so many seconds."""

    worker: int
    ask: int
    need: int
    seconds: float


class Waits(NamedTuple):
    """It was heard, and is answered later; it waits for the need with that index."""

    worker: int
    ask: int
    need: int


class Withdrawn(NamedTuple):
    """Nothing comes for that ask any more."""

    worker: int
    ask: int


class Recall(NamedTuple):
    """So many are `wanted` elsewhere: give back what is not used, and what will not be, but `keep`."""

    worker: int
    line: str
    key: str
    keep: int
    wanted: int


Answer = Granted | Refused | Waits | Withdrawn | Recall
