"""The book of limits that the workers of a daemon share, which hear of it through their supervisor. Pure.

It is a `book.LimitBook` for who is not there: answers take time, and a worker may die. A worker *asks* for one of each
line that a message has to pass, gives back what is done, and answers when the book *recalls* what it does not use. What
always holds, beside what that book promises:

- what was given of a rate counts until a period after the last moment at which it may be used; what a dead worker had
  of it counts as used. What a dead worker had of a concurrency is free at once, so tell the book of a death only when
  the process is gone;
- workers take turns: one that waits is served before one that was served. Who is not prepared to wait is told when to
  come again, and has a place then: a rate has a moment for each, a concurrency is kept free for who came twice in vain;
- ahead of need a worker is given only what it asked for twice within `RECENT`, at most half of what is free, nothing
  where somebody waits or the limit is below `SCARCE` times the number of workers.

Times are readings of the machine's monotonic clock, which its processes have in common. Take `answers` out after
`end_turn`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.delivery.limits.book import COME_AGAIN, LimitBook
from mailrider.delivery.limits.lines import (
    MOST_USABLE,
    GiveBackRequest,
    LineBook,
    LineKey,
    PromisedPlace,
    Withdrawn,
    ahead_of,
)
from mailrider.delivery.limits.windows import UNKNOWN

if TYPE_CHECKING:
    from mailrider.delivery.limits.lines import Line, WaitingAsk

RECENT: Final = 2.0  # seconds: who asks twice within them is given something ahead
SCARCE: Final = 4  # a limit below so many times the number of workers is not given ahead
MOST_AHEAD: Final = 256
SOON: Final = 0.2  # seconds until somebody comes again who came in vain before: what it waits for is kept free for it
GRACE: Final = 0.5  # seconds for which a place is kept for somebody who does not come when it was told to
RECALL_TIME: Final = 0.05  # seconds that an ask waits at least for what others may have and not use
RECALL_AGAIN: Final = 0.25  # seconds between two recalls while somebody waits
OVERDUE: Final = 1.0  # seconds: where there is not one for each worker, nobody keeps one for longer while others wait
MOMENT: Final = 0.01  # seconds until somebody comes again, at least
MOST_PLACES: Final = 32  # moments of one rate that a worker is promised
MOST_PROMISED: Final = 100_000  # of all keys; 200 bytes each


class ShareBook(LimitBook):
    """All lines of a daemon."""

    def __init__(self) -> None:
        super().__init__()
        self._workers: set[int] = set()
        self._wanted: dict[LineKey, None] = {}  # to be recalled at the end of the turn
        self._promises = 0

    def _open_line(self, line: Line) -> LineBook:
        return LineBook(line, ahead_of(line.period))

    # Workers ----------------------------------------------------------------------------------------------------------

    def came(self, worker: int) -> None:
        """A worker begins to ask."""
        self._workers.add(worker)

    def gone(self, worker: int, now: float) -> None:
        """The worker's process is dead."""
        self._workers.discard(worker)
        for each in [each for each in self._waiting if each[0] == worker]:
            del self._waiting[each]
        for line in self._lines.values():
            for key in line.keys.values():
                turn = key.turns.pop(worker, None)
                if turn is not None:
                    self._promises -= len(turn.places)
                    for waiting in turn.waiting:
                        waiting.at = None
                key.given.pop(worker, None)
                key.taken -= key.held.pop(worker, 0)
        self.retract(worker, now)

    def withdraw(self, worker: int, ask: int, now: float) -> None:
        """Nobody waits for it any more. What it was granted before it heard that comes back."""
        self.answers.append(Withdrawn(worker, ask))
        super().withdraw(worker, ask, now)

    # What an ask is given ---------------------------------------------------------------------------------------------

    def _grant(self, key: LineKey, waiting: WaitingAsk, now: float) -> tuple[int, float]:
        worker, ask = waiting.worker, waiting.ask
        free = key.free(now)
        count = min(ask.most, free) if ask.most > 1 else 1 + self._ahead(key, worker, free, now)
        self._take_place(key, worker, now)
        if key.line.window is None:
            key.take(worker, count)
            return count, 0.0
        usable = max(key.line.ahead, min(ask.usable, MOST_USABLE))
        # The log is in order: what is given after something else may be used as long, and counts as long.
        until = max(now + usable, key.line.window.latest(key.key))
        key.line.window.take(key.key, until, count)
        return count, until

    def _ahead(self, key: LineKey, worker: int, free: int, now: float) -> int:
        line = key.line
        if not line.spares or line.maximum < SCARCE * len(self._workers):
            return 0
        when, before = key.given.get(worker, (-UNKNOWN, 0))
        count = 0
        if now - when <= RECENT and not key.turns:
            count = min(max(1, 2 * before), (free - 1) // 2, MOST_AHEAD)
        key.given[worker] = (now, count)
        return count

    def _take_place(self, key: LineKey, worker: int, now: float) -> PromisedPlace | None:
        """The worker has come to its place, if it has one: that is used by it."""
        turn = key.turns.get(worker)
        place = None if turn is None else turn.place(now)
        if turn is not None and place is not None:
            turn.places.remove(place)
            self._promises -= 1
        return place

    # Who has to wait --------------------------------------------------------------------------------------------------

    def _hold_back(self, waiting: WaitingAsk, index: int, now: float) -> None:
        key = waiting.keys[index]
        moment = self._moment(key, now)
        self._wanted[key] = None
        super()._hold_back(waiting, index, now)
        if key.line.period and waiting.at is key and moment <= waiting.deadline:  # later ones do not wait for it
            key.promised = moment

    def _deadline(self, waiting: WaitingAsk, key: LineKey, now: float) -> float:
        others = [other for other in self._workers if other != waiting.worker and key.unused(other, now)]
        if others and (key.line.period or key.line.maximum >= SCARCE * len(self._workers)):
            return max(waiting.deadline, waiting.began + RECALL_TIME)
        return super()._deadline(waiting, key, now)

    @staticmethod
    def _moment(key: LineKey, now: float) -> float:
        """The moment for the next who comes to a rate."""
        step = (key.line.period + key.line.ahead) / max(key.line.maximum, 1)
        promised = key.promised + step if key.turns else 0.0
        return max(key.opens_at(now), promised)

    def _come_again(self, waiting: WaitingAsk, key: LineKey, now: float) -> float:
        worker = waiting.worker
        at = self._promise(key, worker, now, self._take_place(key, worker, now))
        for other in waiting.keys:
            moment = other.opens_at(now)
            at = max(at, moment if moment < UNKNOWN else 0.0)
        return at

    def _promise(self, key: LineKey, worker: int, now: float, before: PromisedPlace | None) -> float:
        """When the worker should come again; as far as places reach, it has one then. `before`: the one it came to."""
        turn = key.turn(worker)
        if key.line.period:
            if len(turn.places) >= MOST_PLACES:
                return turn.places[-1].at
            grace = min(max(key.line.period, GRACE), 2 * GRACE)
            # Who came in time and a little too early, since the one before it came late, goes before those after it.
            at = self._moment(key, now) if before is None else key.opens_at(now)
            place = PromisedPlace(max(at, now + MOMENT), grace, next(self._order), before)
            key.promised = max(key.promised, place.at)
        else:
            if turn.places:
                return turn.places[0].at
            place = PromisedPlace(now + (COME_AGAIN if before is None else SOON), GRACE, next(self._order), before)
        if key.line.places and self._promises < MOST_PROMISED:
            self._promises += 1
            turn.places.append(place)
            self._look_at(key, place.until)
        return place.at

    # Time -------------------------------------------------------------------------------------------------------------

    def _forget_what_is_over(self, key: LineKey, now: float) -> float:
        again = UNKNOWN
        for worker, turn in list(key.turns.items()):
            while turn.places and turn.places[0].until <= now:
                turn.places.popleft()
                self._promises -= 1
            if turn.places:
                again = min(again, turn.places[0].until)
            elif not turn.waiting:
                del key.turns[worker]
        for worker, (when, _) in list(key.given.items()):
            if now - when > RECENT:
                del key.given[worker]
            else:
                again = min(again, when + RECENT + GRACE)
        if not key.turns:
            key.promised = 0.0
        return again

    def _next_look(self, key: LineKey, now: float) -> float:
        return min(super()._next_look(key, now), max(key.recalled, now) + RECALL_AGAIN)

    def _look(self, key: LineKey, now: float) -> None:
        if key.next_waiting is not None and now >= key.recalled + RECALL_AGAIN:
            self._wanted[key] = None
        super()._look(key, now)

    # Recalls ----------------------------------------------------------------------------------------------------------

    def end_turn(self, now: float) -> None:
        """All that came together has been told: recall what others may have and not use."""
        for key in self._wanted:
            waiting = [turn for turn in key.turns.values() if turn.waiting]
            oldest = min((next(iter(turn.waiting)).began for turn in waiting), default=now)
            sharers = set(key.held) | {worker for worker, turn in key.turns.items() if turn.waiting or turn.places}
            fair = key.line.maximum // max(len(sharers), 1)
            if not fair and now - oldest < OVERDUE:
                fair = 1  # there is not one for each; whoever has one may go on for a while
            self._recall(key, fair, now)
            key.recalled = now
        self._wanted.clear()

    def _recall(self, key: LineKey, fair: int, now: float) -> None:
        for worker in self._workers:
            if not key.unused(worker, now):
                continue
            others = [turn for other, turn in key.turns.items() if other != worker]
            count = sum(sum(each.ask.most for each in turn.waiting) or bool(turn.places) for turn in others)
            if count:
                self.answers.append(GiveBackRequest(worker, key.line.name, key.key, fair, count))
            elif worker in key.turns:  # itself wants another one than those that it does not use
                self.answers.append(GiveBackRequest(worker, key.line.name, key.key, key.line.maximum, 1))
