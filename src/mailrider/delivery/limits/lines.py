"""What is asked of a book of limits, what it answers, and one line of it. Pure.

A line says who has what of each key, who waits for it, who was promised a moment; the books decide: `book.LimitBook`
for one process, `share_book.ShareBook` for workers.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mailrider.delivery.limits.windows import UNKNOWN, RateWindow

Need = tuple[str, str]
"""A line's name, and a key."""


class Line(NamedTuple):
    """One number of the configuration. `period` 0: so many at once. Among workers, `spares`: it may be given ahead;
    `places`: who is refused comes again, and has a place then."""

    name: str
    maximum: int
    period: float = 0.0
    spares: bool = True
    places: bool = True


class Ask(NamedTuple):
    """One of each need, together. `most`: as many of them, if they are free. `patience`: seconds.

    `usable`: seconds for which what is given of a rate has to be usable at least, since answers take so long.
    """

    id: int
    needs: tuple[Need, ...]
    patience: float = 0.0
    most: int = 1
    usable: float = 0.0


class Granted(NamedTuple):
    """The worker has so many of each need; those of a rate may be used until then (0: of a concurrency)."""

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
    """The ask is answered later; it waits for the need with that index."""

    worker: int
    ask: int
    need: int


class Withdrawn(NamedTuple):
    """Nothing comes for that ask any more."""

    worker: int
    ask: int


class GiveBackRequest(NamedTuple):
    """So many are `wanted` elsewhere: give back what is not used, and what will not be, but `keep`."""

    worker: int
    line: str
    key: str
    keep: int
    wanted: int


Answer = Granted | Refused | Waits | Withdrawn | GiveBackRequest


@dataclass(frozen=True, slots=True)
class AskLater:
    """What whoever asked is told: not now, because of that need; `seconds` until it is to be asked for again.

    `is_unanswered`: the supervisor did not answer in time, so nobody knows whether there is one.
    """

    need: Need
    seconds: float
    is_unanswered: bool = False


MOST_USABLE: Final = 1.0  # seconds that what was given of a rate may be used, at most


def ahead_of(period: float) -> float:
    """For how many seconds a block of a rate may be used: a twentieth of its period, within 20 ms and 1 s."""
    return min(max(period / 20, 0.02), MOST_USABLE)


class PromisedPlace:
    """What was promised to a worker that was told to come again: at that moment, and until it is late.

    `rank`: what it was promised first, and the number of the promise: the smaller goes first. `is_kept`: it counts
    from now on.
    """

    __slots__ = ("at", "is_kept", "rank", "until")

    def __init__(self, at: float, grace: float, number: int, before: PromisedPlace | None = None) -> None:
        self.at = at
        self.until = at + grace
        self.rank: tuple[float, int] = (at, number) if before is None else before.rank
        self.is_kept = before is not None

    def counts(self, now: float) -> bool:
        """True if something is to be kept free for it now."""
        return now < self.until and (self.is_kept or self.at <= now)


@dataclass(slots=True, eq=False)
class WorkerTurn:
    """A worker in line for a key: its asks that wait, and the places that it was promised."""

    waiting: OrderedDict[WaitingAsk, None] = field(default_factory=OrderedDict)
    places: deque[PromisedPlace] = field(default_factory=deque)

    def place(self, now: float) -> PromisedPlace | None:
        """The first of its places that counts."""
        return next((place for place in self.places if place.counts(now)), None)

    def due(self, now: float, rank: tuple[float, int]) -> int:
        """How many of its places count, before that rank."""
        return sum(1 for place in self.places if place.rank <= rank and place.counts(now)) if self.places else 0


@dataclass(slots=True, eq=False)
class LineKey:
    """A line for one key. `held`: by worker. `given`: to whom something was given ahead when, and how many.

    `noted`: when it is to be looked at.
    """

    line: LineBook
    key: str
    held: dict[int, int] = field(default_factory=dict)
    taken: int = 0
    turns: OrderedDict[int, WorkerTurn] = field(default_factory=OrderedDict)
    given: dict[int, tuple[float, int]] = field(default_factory=dict)
    promised: float = 0.0
    noted: float = UNKNOWN
    recalled: float = 0.0

    def free(self, now: float) -> int:
        """How many there are for anybody."""
        window = self.line.window
        return self.line.maximum - self.taken if window is None else window.free(self.key, now)

    def opens_at(self, now: float) -> float:
        """When there may be one, as far as that depends on time."""
        window = self.line.window
        if window is None:
            return now if self.taken < self.line.maximum else UNKNOWN
        return window.opens_at(self.key, now)

    def is_open(self, worker: int, now: float, *, served: bool) -> bool:
        """True if the worker may have one. `served`: it is the turn of one of its asks that wait here."""
        free = self.free(now)
        if self.turns:
            own = self.turns.get(worker)
            place = None if own is None else own.place(now)
            rank = (UNKNOWN, 0) if place is None else place.rank
            for other, turn in self.turns.items():
                if turn.waiting and place is None and not served:
                    return False
                if other != worker:
                    free -= turn.due(now, rank)
        return free > 0

    @property
    def is_empty(self) -> bool:
        """True if it is to be forgotten."""
        return not self.turns and not self.given and not self.held

    def take(self, worker: int, count: int) -> None:
        """The worker has so many more, of a concurrency."""
        self.taken += count
        self.held[worker] = self.held.get(worker, 0) + count

    def give_back(self, worker: int, count: int) -> None:
        """The worker has so many less, if it had so many."""
        held = self.held.get(worker, 0)
        if count < held:
            self.held[worker] = held - count
        else:
            count = held
            self.held.pop(worker, None)
        self.taken -= count

    @property
    def next_waiting(self) -> WaitingAsk | None:
        """Whose turn it is of those that wait."""
        if not self.turns:
            return None
        return next((next(iter(turn.waiting)) for turn in self.turns.values() if turn.waiting), None)

    def turn(self, worker: int) -> WorkerTurn:
        """The turn of a worker, at the end if it is not in line yet."""
        turn = self.turns.get(worker)
        if turn is None:
            turn = self.turns[worker] = WorkerTurn()
        return turn

    def unused(self, worker: int, now: float) -> bool:
        """True if the worker may have something that it does not use."""
        if self.line.period:
            when, count = self.given.get(worker, (0.0, 0))
            return count > 0 and now < when + self.line.ahead
        return worker in self.held


class LineBook:
    """The book of one line. `maximum`: the number that holds for whoever comes next, that of the newest configuration.

    `ahead`: for how many seconds what is given of a rate may be used. `noted`: when it is to be forgotten, if no
    configuration has it until then.
    """

    __slots__ = ("_maxima", "ahead", "keys", "maximum", "name", "noted", "period", "places", "spares", "window")

    def __init__(self, line: Line, ahead: float = 0.0) -> None:
        self.name = line.name
        self.period = line.period
        self.spares = line.spares
        self.places = line.places
        self.ahead = ahead
        self.maximum = 0
        self.window: RateWindow | None = None
        if line.period:
            self.window = RateWindow(line.maximum, line.period, ahead=MOST_USABLE if ahead else 0.0)
        self._maxima: dict[int, int] = {}  # what configurations say, the newest last
        self.keys: dict[str, LineKey] = {}
        self.noted = UNKNOWN

    def declare(self, owner: int, maximum: int) -> None:
        """The newest configuration is that owner's, and has this number."""
        self._maxima.pop(owner, None)
        self._maxima[owner] = self.maximum = maximum
        self.noted = UNKNOWN

    def retract(self, owner: int) -> None:
        """The configuration of that owner is over."""
        self._maxima.pop(owner, None)
        self.maximum = next(reversed(self._maxima.values()), 0)

    @property
    def is_used(self) -> bool:
        """True if some configuration has it, or somebody something of it."""
        return bool(self._maxima or self.keys)

    def opens_at(self, key: str, now: float) -> float:
        """See `LineKey.opens_at`; the key need not be known."""
        known = self.keys.get(key)
        if known is not None:
            return known.opens_at(now)
        return now if self.window is None else self.window.opens_at(key, now)

    def key(self, key: str) -> LineKey:
        """What is known of that key."""
        known = self.keys.get(key)
        if known is None:
            known = self.keys[key] = LineKey(self, key)
        return known


class WaitingAsk:
    """An ask that was not answered yet. `at`: where it waits. `first`: the first of its needs that it still wants."""

    __slots__ = ("ask", "at", "began", "deadline", "first", "keys", "worker")

    def __init__(self, worker: int, ask: Ask, now: float) -> None:
        self.worker = worker
        self.ask = ask
        self.first = 0
        self.keys: list[LineKey] = []
        self.began = now
        self.deadline = now + ask.patience
        self.at: LineKey | None = None

    @property
    def noted(self) -> float:
        """When it is to be looked at."""
        return UNKNOWN if self.at is None else self.deadline
