"""What the workers of a daemon share: who has how much of each number, who waits for it, who is next. Pure.

A *line* is one number of the configuration: so many messages in a period (a rate), or so many at once (a concurrency),
for each *key*: a domain, a client, a host. A worker *asks* for one of each line that a message has to pass, gives back
what is done, and answers when the book *recalls* what it does not use. What always holds:

- an ask is granted whole or not at all, and whoever waits holds nothing for it;
- never more are out than the line says. What was given of a rate counts until a period after the last moment at which
  it may be used; what a dead worker had of it counts as used. What a dead worker had of a concurrency is free at once,
  so tell the book of a death only when the process is gone;
- workers take turns: one that waits is served before one that was served. Who is not prepared to wait is told when to
  come again, and has a place then: a rate has a moment for each, a concurrency is kept free for who came twice in vain;
- ahead of need a worker is given only what it asked for twice within `RECENT`, at most half of what is free, nothing
  where somebody waits or the limit is below `SCARCE` times the number of workers;
- a key of which nobody holds anything, and for which nobody waits, is forgotten.

Times are readings of the machine's monotonic clock, which its processes have in common. Every method takes `now`;
what is to be told to workers is in `answers`, to be taken out after `end_turn`.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Final

from mailrider.delivery.limits.share_keys import (
    MOST_USABLE,
    Granted,
    LineBook,
    PromisedPlace,
    Recall,
    Refused,
    SharedKey,
    WaitingAsk,
    Waits,
    Withdrawn,
)
from mailrider.delivery.limits.windows import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.delivery.limits.share_keys import Answer, Ask, Line

RECENT: Final = 2.0  # seconds: who asks twice within them is given something ahead
SCARCE: Final = 4  # a limit below so many times the number of workers is not given ahead
MOST_AHEAD: Final = 256
COME_AGAIN: Final = 1.0  # seconds until somebody should ask again where nobody knows when others are done
SOON: Final = 0.2  # the same, for who came again in vain: what it waits for is kept free for it
GRACE: Final = 0.5  # seconds for which a place is kept for somebody who does not come when it was told to
RECALL_TIME: Final = 0.05  # seconds that an ask waits at least for what others may have and not use
RECALL_AGAIN: Final = 0.25  # seconds between two recalls while somebody waits
OVERDUE: Final = 1.0  # seconds: where there is not one for each worker, nobody keeps one for longer while others wait
MOMENT: Final = 0.01  # seconds until somebody comes again, at least
MOST_PLACES: Final = 32  # moments of one rate that a worker is promised
MOST_PROMISED: Final = 100_000  # of all keys; 200 bytes each
FEW_MOMENTS: Final = 1000  # notes of what is due when; what is over is not looked for among fewer


class ShareBook:
    """All lines of a daemon."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._lines: dict[str, LineBook] = {}
        self._workers: dict[int, dict[int, WaitingAsk]] = {}
        self._wanted: dict[SharedKey, None] = {}  # to be recalled at the end of the turn
        self._agenda: list[tuple[float, int, LineBook | SharedKey | WaitingAsk]] = []
        self._most_moments = FEW_MOMENTS
        self._order = itertools.count()
        self._promises = 0

    def __len__(self) -> int:
        """How many keys are remembered for a reason other than the log of a rate."""
        return sum(len(book.keys) for book in self._lines.values())

    # Workers ----------------------------------------------------------------------------------------------------------

    def came(self, worker: int) -> None:
        """A worker begins to ask."""
        self._workers[worker] = {}

    def gone(self, worker: int, now: float) -> None:
        """Its process is dead."""
        self._workers.pop(worker, None)
        keys = [key for book in self._lines.values() for key in book.keys.values()]
        for key in keys:
            turn = key.turns.pop(worker, None)
            if turn is not None:
                self._promises -= len(turn.places)
                for waiting in turn.waiting:
                    waiting.at = None
            key.given.pop(worker, None)
            key.taken -= key.held.pop(worker, 0)
        for book in self._lines.values():
            book.maxima.pop(worker, None)
        for key in keys:
            self._serve(key, now)
        for name, book in list(self._lines.items()):
            if book.is_used:
                continue
            if not book.window:
                del self._lines[name]
            elif book.noted == UNKNOWN:  # the log of a rate outlives all workers
                book.noted = now + book.period + MOST_USABLE
                self._note(book.noted, book)

    def declare(self, worker: int, line: Line, now: float) -> None:
        """The worker counts by that line."""
        book = self._lines.get(line.name)
        if book is None:
            book = self._lines[line.name] = LineBook(line)
        book.maxima.pop(worker, None)
        book.maxima[worker] = line.maximum
        book.noted = UNKNOWN
        for key in list(book.keys.values()):  # the number may be another one now
            self._serve(key, now)

    # Asks -------------------------------------------------------------------------------------------------------------

    def ask(self, worker: int, ask: Ask, now: float) -> None:
        """The worker wants one of each; every line was declared."""
        waiting = WaitingAsk(worker, ask, now)
        self._decide(waiting, now, None)
        for key in waiting.keys:
            self._serve(key, now)

    def withdraw(self, worker: int, ask: int, now: float) -> None:
        """Nobody waits for it any more. What it was granted before it heard that comes back."""
        self.answers.append(Withdrawn(worker, ask))
        waiting = self._workers.get(worker, {}).pop(ask, None)
        if waiting is not None and waiting.at is not None:
            self._serve(self._leave(waiting), now)

    def give_back(self, worker: int, need: tuple[str, str], count: int, until: float, now: float) -> None:
        """So many are not used; `until` as they were granted."""
        key = self._key(*need)
        window = key.line.window
        if window is not None:
            window.put_back(key.key, until, count, now)
        else:
            count = min(count, key.held.get(worker, 0))
            key.taken -= count
            if count and key.held[worker] == count:
                del key.held[worker]
            elif count:
                key.held[worker] -= count
        self._serve(key, now)

    def _key(self, name: str, key: str) -> SharedKey:
        book = self._lines[name]
        known = book.keys.get(key)
        if known is None:
            known = book.keys[key] = SharedKey(book, key)
        return known

    def _decide(self, waiting: WaitingAsk, now: float, served: SharedKey | None) -> None:
        waiting.keys = [self._key(name, key) for name, key in waiting.ask.needs]  # some were forgotten meanwhile
        closed = (
            index
            for index, key in enumerate(waiting.keys)
            if not key.is_open(waiting.worker, now, served=key is served)
        )
        index = next(closed, None)
        if index is None:
            self._grant(waiting, now)
        else:
            self._hold_back(waiting, index, now)
        for key in waiting.keys:
            if key is not served and key.is_empty:
                key.line.keys.pop(key.key, None)

    def _grant(self, waiting: WaitingAsk, now: float) -> None:
        worker, ask = waiting.worker, waiting.ask
        shares: list[tuple[int, float]] = []
        for key in waiting.keys:
            free = key.free(now)
            count = min(ask.most, free) if ask.most > 1 else 1 + self._ahead(key, worker, free, now)
            self._take_place(key, worker, now)
            if key.line.window is not None:
                usable = max(key.line.ahead, min(ask.usable, MOST_USABLE))
                # The log is in order: what is given after something else may be used as long, and counts as long.
                until = max(now + usable, key.line.window.latest(key.key))
                key.line.window.take(key.key, until, count)
            else:
                until = 0.0
                key.taken += count
                key.held[worker] = key.held.get(worker, 0) + count
            shares.append((count, until))
        self._workers.get(worker, {}).pop(ask.id, None)
        self.answers.append(Granted(worker, ask.id, tuple(shares)))

    def _ahead(self, key: SharedKey, worker: int, free: int, now: float) -> int:
        line = key.line
        if not line.spares or line.maximum < SCARCE * len(self._workers):
            return 0
        when, before = key.given.get(worker, (-UNKNOWN, 0))
        count = 0
        if now - when <= RECENT and not key.turns:
            count = min(max(1, 2 * before), (free - 1) // 2, MOST_AHEAD)
        key.given[worker] = (now, count)
        return count

    def _take_place(self, key: SharedKey, worker: int, now: float) -> PromisedPlace | None:
        """The worker has come to its place, if it has one: that is used by it."""
        turn = key.turns.get(worker)
        place = None if turn is None else turn.place(now)
        if turn is not None and place is not None:
            turn.places.remove(place)
            self._promises -= 1
        return place

    # Who has to wait --------------------------------------------------------------------------------------------------

    def _hold_back(self, waiting: WaitingAsk, index: int, now: float) -> None:
        """It waits for that need, or is told when to come again."""
        key, worker = waiting.keys[index], waiting.worker
        deadline = waiting.deadline
        others = [other for other in self._workers if other != worker and key.unused(other, now)]
        if others and (key.line.period or key.line.maximum >= SCARCE * len(self._workers)):
            deadline = max(deadline, waiting.began + RECALL_TIME)
        elif key.line.period and self._moment(key, now) > deadline:
            deadline = now  # in vain
        self._wanted[key] = None
        if deadline <= now:
            self._refuse(waiting, index, now)
            return
        if key.line.period:
            key.promised = self._moment(key, now)
        waiting.at = key
        waiting.deadline = deadline
        if self._workers[worker].setdefault(waiting.ask.id, waiting) is waiting and waiting.began == now:
            self.answers.append(Waits(worker, waiting.ask.id, index))
        key.turn(worker).waiting[waiting] = None
        self._note(deadline, waiting)
        self._look_at(key, self._next_look(key, now))

    @staticmethod
    def _moment(key: SharedKey, now: float) -> float:
        """That of the next who comes to a rate."""
        step = (key.line.period + key.line.ahead) / max(key.line.maximum, 1)
        promised = key.promised + step if key.turns else 0.0
        return max(key.opens_at(now), promised)

    def _refuse(self, waiting: WaitingAsk, index: int, now: float) -> None:
        key, worker = waiting.keys[index], waiting.worker
        at = self._promise(key, worker, now, self._take_place(key, worker, now))
        for other in waiting.keys:
            moment = other.opens_at(now)
            at = max(at, moment if moment < UNKNOWN else 0.0)
        self._workers.get(worker, {}).pop(waiting.ask.id, None)
        self.answers.append(Refused(worker, waiting.ask.id, index, at - now))

    def _promise(self, key: SharedKey, worker: int, now: float, before: PromisedPlace | None) -> float:
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

    def _leave(self, waiting: WaitingAsk) -> SharedKey:
        """Take it out of its line."""
        key = waiting.at
        assert key is not None  # noqa: S101 # only who waits leaves
        waiting.at = None
        turn = key.turns[waiting.worker]
        del turn.waiting[waiting]
        if not turn.waiting and not turn.places:
            del key.turns[waiting.worker]
        return key

    # Serving ----------------------------------------------------------------------------------------------------------

    def _serve(self, key: SharedKey, now: float) -> None:
        """Grant what may be granted to those that wait for a key, in turn; then see what is to be done when."""
        if key.line.keys.get(key.key) is not key:
            return  # it was forgotten
        while (waiting := key.next_waiting) is not None and key.is_open(waiting.worker, now, served=True):
            self._leave(waiting)
            if waiting.worker in key.turns:
                key.turns.move_to_end(waiting.worker)
            self._decide(waiting, now, key)
            for other in waiting.keys:  # what was given ahead of them is to be forgotten some day
                if other is not key and other.line.keys.get(other.key) is other:
                    self._tidy(other, now)
        self._tidy(key, now)

    def _tidy(self, key: SharedKey, now: float) -> None:
        """Forget what is over, and note when to look again."""
        again = UNKNOWN
        for worker, turn in list(key.turns.items()):
            while turn.places and turn.places[0].until <= now:
                turn.places.popleft()
                self._promises -= 1
            if turn.places:
                again = min(again, turn.places[0].until)
            elif not turn.waiting:
                del key.turns[worker]
        if key.next_waiting is not None:
            again = min(again, self._next_look(key, now))
        for worker, (when, _) in list(key.given.items()):
            if now - when > RECENT:
                del key.given[worker]
            else:
                again = min(again, when + RECENT + GRACE)
        if not key.turns:
            key.promised = 0.0
        if key.is_empty:
            del key.line.keys[key.key]
            return
        self._look_at(key, again)

    @staticmethod
    def _next_look(key: SharedKey, now: float) -> float:
        """When something may change for who waits there, though nobody says anything."""
        recall, opens_at = max(key.recalled, now) + RECALL_AGAIN, key.opens_at(now)
        return min(recall, opens_at) if opens_at > now else recall

    def _look_at(self, key: SharedKey, when: float) -> None:
        if when < key.noted:
            key.noted = when
            self._note(when, key)

    def _note(self, when: float, what: LineBook | SharedKey | WaitingAsk) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), what))
        if len(self._agenda) > self._most_moments:  # most of them may be over: who was granted something waits no more
            self._agenda = list({each[2]: each for each in self._agenda if each[0] == each[2].noted}.values())
            heapq.heapify(self._agenda)
            self._most_moments = max(FEW_MOMENTS, 2 * len(self._agenda))

    @property
    def next_due(self) -> float | None:
        """When `tick` has something to do."""
        return self._agenda[0][0] if self._agenda else None

    def tick(self, now: float) -> None:
        """Do what is due."""
        for what in list(self._due(now)):
            if isinstance(what, SharedKey):
                what.noted = UNKNOWN
                if what.next_waiting is not None and now >= what.recalled + RECALL_AGAIN:
                    self._wanted[what] = None
                self._serve(what, now)
            elif isinstance(what, LineBook):
                if what.noted <= now:  # nobody has counted by it since all that was logged has been over
                    self._lines.pop(what.name, None)
                    what.noted = UNKNOWN
            elif what.at is not None and what.deadline <= now:
                key = self._leave(what)
                self._refuse(what, what.keys.index(key), now)
                self._serve(key, now)

    def _due(self, now: float) -> Iterator[LineBook | SharedKey | WaitingAsk]:
        while self._agenda and self._agenda[0][0] <= now:
            yield heapq.heappop(self._agenda)[2]

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

    def _recall(self, key: SharedKey, fair: int, now: float) -> None:
        for worker in self._workers:
            if not key.unused(worker, now):
                continue
            others = [turn for other, turn in key.turns.items() if other != worker]
            count = sum(sum(each.ask.most for each in turn.waiting) or bool(turn.places) for turn in others)
            if count:
                self.answers.append(Recall(worker, key.line.name, key.key, fair, count))
            elif worker in key.turns:  # itself wants another one than those that it does not use
                self.answers.append(Recall(worker, key.line.name, key.key, key.line.maximum, 1))
