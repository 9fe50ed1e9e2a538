"""The book of limits: who may begin, who waits, in which order. Pure.

A *line* is one number of the configuration: so many messages in a period (a rate), or so many at once (a concurrency),
for each *key*: a domain, a client, a host. Who wants to begin asks for one of each line that concerns it, and gives
back what is done. What always holds:

- an ask is granted whole or not at all, and whoever waits holds nothing for it;
- never more are out than the line says;
- those who wait for a key are served in the order in which they came to it, and nobody overtakes them. An ask waits for
  the first of its needs that is not free; where it then meets another one, it is the last of those who wait for that;
- nobody waits longer than its patience, nor at all if that is known to be in vain;
- a key of which nobody holds anything, and for which nobody waits, is forgotten.

A process that counts by itself uses this book, as worker 0 (`process_limits`). For several workers the supervisor has
one (`share_book`), in which they take turns: each worker's own asks are in the order of this book.

Times are readings of the monotonic clock. Every method takes `now`; what is to be told is in `answers`, to be taken
out.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Final

from mailrider.delivery.limits.lines import MOST_USABLE, Granted, LineBook, LineKey, Refused, WaitingAsk, Waits
from mailrider.delivery.limits.windows import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mailrider.delivery.limits.lines import Answer, Ask, Line, Need

COME_AGAIN: Final = 1.0  # seconds until somebody should ask again where nobody knows when others are done
FEW_MOMENTS: Final = 1000  # notes of what is due when; what is over is not looked for among fewer


class LimitBook:
    """All lines that are counted together."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._lines: dict[str, LineBook] = {}
        self._waiting: dict[tuple[int, int], WaitingAsk] = {}  # by worker and ask
        self._agenda: list[tuple[float, int, LineBook | LineKey | WaitingAsk]] = []
        self._most_moments = FEW_MOMENTS
        self._order = itertools.count()

    def __len__(self) -> int:
        """How many keys are remembered for a reason other than the log of a rate."""
        return sum(len(book.keys) for book in self._lines.values())

    # Lines ------------------------------------------------------------------------------------------------------------

    def declare(self, owner: int, line: Line, now: float) -> None:
        """The configuration of that owner counts by that line: its number holds for whoever comes next."""
        book = self._lines.get(line.name)
        if book is None:
            book = self._lines[line.name] = self._open_line(line)
        book.declare(owner, line.maximum)
        for key in list(book.keys.values()):  # the number may be another one now
            self._serve(key, now)

    def _open_line(self, line: Line) -> LineBook:
        return LineBook(line)

    def retract(self, owner: int, now: float) -> None:
        """The configuration of that owner is over, or was refused: lines that only it had are forgotten."""
        for name, book in list(self._lines.items()):
            book.retract(owner)
            for key in list(book.keys.values()):
                self._serve(key, now)
            if book.is_used:
                continue
            if not book.window:
                del self._lines[name]
            elif book.noted == UNKNOWN:  # the log of a rate outlives who counted by it
                book.noted = now + book.period + MOST_USABLE
                self._note(book.noted, book)

    # Asks -------------------------------------------------------------------------------------------------------------

    def begin(self, worker: int, needs: Sequence[Need], now: float) -> bool:
        """True if there is one of each, and nobody waits for any: then the worker has them, without an ask."""
        for name, key in needs:
            line = self._lines[name]
            known = line.keys.get(key)
            if known is not None and known.turns:
                return False
            if line.window is not None:
                if line.window.opens_at(key, now) > now:
                    return False
            elif known is not None and known.taken >= line.maximum:
                return False
        for name, key in needs:
            line = self._lines[name]
            if line.window is not None:
                line.window.take(key, now)
            else:
                line.key(key).take(worker, 1)
        return True

    def ask(self, worker: int, ask: Ask, now: float) -> None:
        """The worker wants one of each; every line was declared."""
        waiting = WaitingAsk(worker, ask, now)
        self._decide(waiting, now, None)
        for key in waiting.keys:
            self._serve(key, now)

    def shorten(self, worker: int, ask: int, first: int, now: float) -> None:
        """An ask that waits wants its needs from that index on alone."""
        waiting = self._waiting.get((worker, ask))
        if waiting is None or waiting.at is None:
            return
        waiting.first = first
        wanted = [self._lines[name].key(key) for name, key in waiting.ask.needs[first:]]
        waiting.keys = wanted
        if waiting.at not in wanted:
            left = self._step_out(waiting)
            self._decide(waiting, now, None)
            self._serve(left, now)
        for key in wanted:
            self._serve(key, now)

    def withdraw(self, worker: int, ask: int, now: float) -> None:
        """Nobody waits for it any more."""
        waiting = self._waiting.pop((worker, ask), None)
        if waiting is not None and waiting.at is not None:
            self._serve(self._step_out(waiting), now)

    def give_back(self, worker: int, need: Need, count: int, until: float, now: float) -> None:
        """The worker does not use so many; `until` as they were granted."""
        line = self._lines[need[0]]
        key = line.key(need[1])
        if line.window is not None:
            line.window.put_back(key.key, until, count, now)
        else:
            key.give_back(worker, count)
        self._serve(key, now)

    def leave(self, worker: int, needs: Sequence[Need], now: float) -> bool:
        """The worker is done with one of each; what it had of a rate is used. True if somebody waits for one."""
        waited_for: list[LineKey] = []
        for name, text in needs:
            line = self._lines.get(name)
            if line is None or line.window is not None:
                continue
            key = line.keys[text]
            key.give_back(worker, 1)
            if key.turns:
                waited_for.append(key)
            elif not key.taken:
                del line.keys[text]
        for key in waited_for:
            self._serve(key, now)
        return bool(waited_for)

    def opens_at(self, needs: Sequence[Need], now: float) -> float:
        """When there may be one of each, at the earliest; `UNKNOWN` if that depends on others alone."""
        return self._latest([self._lines[name].opens_at(key, now) for name, key in needs], now)

    def _opens_at(self, keys: Sequence[LineKey], now: float) -> float:
        return self._latest([key.opens_at(now) for key in keys], now)

    @staticmethod
    def _latest(moments: Sequence[float], now: float) -> float:
        known = max((moment for moment in moments if moment < UNKNOWN), default=now)
        return UNKNOWN if known <= now and UNKNOWN in moments else known

    def _decide(self, waiting: WaitingAsk, now: float, served: LineKey | None) -> None:
        """Grant it, let it wait, or refuse it. `served`: it was the first of those who wait for that key."""
        # Some keys were forgotten meanwhile.
        waiting.keys = [self._lines[name].key(key) for name, key in waiting.ask.needs[waiting.first :]]
        closed = (
            index
            for index, key in enumerate(waiting.keys)
            if not key.is_open(waiting.worker, now, served=key is served)
        )
        index = next(closed, None)
        if index is None:
            self._waiting.pop((waiting.worker, waiting.ask.id), None)
            shares = tuple([self._grant(key, waiting, now) for key in waiting.keys])
            self.answers.append(Granted(waiting.worker, waiting.ask.id, shares))
        else:
            self._hold_back(waiting, index, now)
        for key in waiting.keys:
            if key is not served and key.is_empty:
                key.line.keys.pop(key.key, None)

    def _grant(self, key: LineKey, waiting: WaitingAsk, now: float) -> tuple[int, float]:
        """How many it is given of one key, and until when they may be used."""
        count, until = min(waiting.ask.most, key.free(now)), 0.0
        if key.line.window is not None:
            until = now
            key.line.window.take(key.key, until, count)
        else:
            key.take(waiting.worker, count)
        return count, until

    # Who has to wait --------------------------------------------------------------------------------------------------

    def _hold_back(self, waiting: WaitingAsk, index: int, now: float) -> None:
        """Let an ask wait for that key, or tell it when to come again."""
        key, worker = waiting.keys[index], waiting.worker
        deadline = self._deadline(waiting, key, now)
        if deadline <= now:
            self._refuse(waiting, index, now)
            return
        waiting.at = key
        waiting.deadline = deadline
        ask = worker, waiting.ask.id
        if self._waiting.setdefault(ask, waiting) is waiting and waiting.began == now:
            self.answers.append(Waits(*ask, waiting.first + index))
        key.turn(worker).waiting[waiting] = None
        self._note(deadline, waiting)
        self._look_at(key, self._next_look(key, now))

    def _deadline(self, waiting: WaitingAsk, _: LineKey, now: float) -> float:
        """Until when it waits; `now` if that is known to be in vain."""
        opens_at = self._opens_at(waiting.keys, now)
        return now if waiting.deadline < opens_at < UNKNOWN else waiting.deadline

    def _refuse(self, waiting: WaitingAsk, index: int, now: float) -> None:
        at = self._come_again(waiting, waiting.keys[index], now)
        self._waiting.pop((waiting.worker, waiting.ask.id), None)
        self.answers.append(Refused(waiting.worker, waiting.ask.id, waiting.first + index, at - now))

    def _come_again(self, waiting: WaitingAsk, _: LineKey, now: float) -> float:
        """When an ask that is refused should be made again."""
        opens_at = self._opens_at(waiting.keys, now)
        return opens_at if now < opens_at < UNKNOWN else now + COME_AGAIN

    @staticmethod
    def _step_out(waiting: WaitingAsk) -> LineKey:
        """Take it out of those who wait for a key."""
        key = waiting.at
        assert key is not None  # noqa: S101 # only who waits steps out
        waiting.at = None
        turn = key.turns[waiting.worker]
        del turn.waiting[waiting]
        if not turn.waiting and not turn.places:
            del key.turns[waiting.worker]
        return key

    # Serving ----------------------------------------------------------------------------------------------------------

    def _serve(self, key: LineKey, now: float) -> None:
        """Grant what may be granted to those that wait for a key, in turn; then see what is to be done when."""
        if key.line.keys.get(key.key) is not key:
            return  # it was forgotten
        while (waiting := key.next_waiting) is not None and key.is_open(waiting.worker, now, served=True):
            self._step_out(waiting)
            if waiting.worker in key.turns:
                key.turns.move_to_end(waiting.worker)
            self._decide(waiting, now, key)
            for other in waiting.keys:  # what was given ahead of them is to be forgotten some day
                if other is not key and other.line.keys.get(other.key) is other:
                    self._tidy(other, now)
        self._tidy(key, now)

    def _tidy(self, key: LineKey, now: float) -> None:
        """Forget what is over, and note when to look again."""
        again = self._forget_what_is_over(key, now)
        if key.next_waiting is not None:
            again = min(again, self._next_look(key, now))
        if key.is_empty:
            del key.line.keys[key.key]
            return
        self._look_at(key, again)

    def _forget_what_is_over(self, _key: LineKey, _now: float) -> float:
        """When there is something to forget of a key."""
        return UNKNOWN

    def _next_look(self, key: LineKey, now: float) -> float:
        """When something may change for who waits there, though nobody says anything."""
        opens_at = key.opens_at(now)
        return opens_at if opens_at > now else UNKNOWN

    def _look_at(self, key: LineKey, when: float) -> None:
        if when < key.noted:
            key.noted = when
            self._note(when, key)

    def _note(self, when: float, what: LineBook | LineKey | WaitingAsk) -> None:
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
            if isinstance(what, LineKey):
                what.noted = UNKNOWN
                self._look(what, now)
            elif isinstance(what, LineBook):
                if what.noted <= now:  # nobody has counted by it since all that was logged has been over
                    self._lines.pop(what.name, None)
                    what.noted = UNKNOWN
            else:
                self._end_patience(what, now)

    def _end_patience(self, waiting: WaitingAsk, now: float) -> None:
        if waiting.at is not None:
            self._serve(waiting.at, now)  # it may begin in the last moment
        if waiting.at is not None and waiting.deadline <= now:
            key = self._step_out(waiting)
            self._refuse(waiting, waiting.keys.index(key), now)
            self._serve(key, now)

    def _look(self, key: LineKey, now: float) -> None:
        """Something may have changed for who waits for a key."""
        self._serve(key, now)

    def _due(self, now: float) -> Iterator[LineBook | LineKey | WaitingAsk]:
        while self._agenda and self._agenda[0][0] <= now:
            yield heapq.heappop(self._agenda)[2]
