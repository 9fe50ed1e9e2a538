"""Limits that a process counts by itself, in a book of its own.

It is asked as a worker asks its supervisor (`share_client.ShareClient`), and answers in the same turn if nobody has to
wait. No task; one timer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mailrider.clock import Alarm
from mailrider.delivery.limits.book import LimitBook
from mailrider.delivery.limits.lines import Ask, AskLater, GiveBackRequest, Granted, Refused, Waits, Withdrawn
from mailrider.delivery.limits.windows import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mailrider.clock import Clock
    from mailrider.delivery.limits.lines import Answer, Line, Need

HERE: Final = 0  # the only process, as the book numbers workers


@dataclass(slots=True)
class _OpenAsk:
    needs: Sequence[Need]
    answered: Callable[[AskLater | int], None]
    waits: Callable[[Need, float], None] | None
    first: int = 0  # of the needs that are still wanted


class ProcessLimits:
    """The book, and who waits for its answers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._book = LimitBook()
        self._asked: dict[int, _OpenAsk] = {}
        self._last = 0
        self._is_telling = False
        self._alarm = Alarm(clock, self._tick)

    def declare(self, owner: int, line: Line) -> None:
        """See `LimitBook.declare`."""
        now = self._clock.monotonic()
        self._book.declare(owner, line, now)
        self._tell(now)

    def retract(self, owner: int) -> None:
        """See `LimitBook.retract`."""
        now = self._clock.monotonic()
        self._book.retract(owner, now)
        self._tell(now)

    def take(self, needs: Sequence[Need]) -> bool:
        """See `waiter.Counts`."""
        return self._book.begin(HERE, needs, self._clock.monotonic())

    def ask(
        self,
        needs: Sequence[Need],
        answered: Callable[[AskLater | int], None],
        patience: float = 0.0,
        *,
        waits: Callable[[Need, float], None] | None = None,
    ) -> int:
        """See `waiter.Counts`."""
        now = self._clock.monotonic()
        self._last += 1
        self._asked[self._last] = _OpenAsk(needs, answered, waits)
        ask = self._last
        self._book.ask(HERE, Ask(ask, tuple(needs), patience), now)
        self._tell(now)
        return ask

    def shorten(self, ask: int, first: int) -> None:
        """See `waiter.Counts`."""
        asked = self._asked.get(ask)
        if asked is not None:
            asked.first = first
            now = self._clock.monotonic()
            self._book.shorten(HERE, ask, first, now)
            self._tell(now)

    def withdraw(self, ask: int) -> None:
        """See `waiter.Counts`."""
        if self._asked.pop(ask, None) is not None:
            now = self._clock.monotonic()
            self._book.withdraw(HERE, ask, now)
            self._tell(now)

    def leave(self, needs: Sequence[Need]) -> None:
        """See `waiter.Counts`."""
        now = self._clock.monotonic()
        if self._book.leave(HERE, needs, now):
            self._tell(now)

    def _tell(self, now: float) -> None:
        """Tell the answers that there are, and see when there may be others.

        Whoever is told one may shorten or give back at once. What comes of that is told after what was answered before.
        """
        if self._is_telling:
            return
        book, self._is_telling = self._book, True
        try:
            while book.answers:
                answers, book.answers = book.answers, []
                for answer in answers:
                    self._tell_one(answer, now)
        finally:
            self._is_telling = False
        due = book.next_due
        if due is not None:
            self._alarm.set(due)

    def _tell_one(self, answer: Answer, now: float) -> None:
        match answer:
            case Granted(_, ask, shares):
                asked = self._asked.pop(ask)
                surplus = asked.needs[: asked.first] if len(shares) == len(asked.needs) else ()
                for need, (count, until) in zip(surplus, shares, strict=False):
                    self._book.give_back(HERE, need, count, until, now)
                asked.answered(1)
            case Refused(_, ask, index, seconds):
                asked = self._asked.pop(ask)
                if index < asked.first:  # it was shortened since: what was in its way is not wanted any more
                    self._ask_for_rest(ask, asked, now)
                    return
                self._tell_obstacle(asked, index, now)
                asked.answered(AskLater(asked.needs[index], seconds))
            case Waits(_, ask, index):
                self._tell_obstacle(self._asked[ask], index, now)
            case Withdrawn() | GiveBackRequest():
                raise AssertionError(f"{answer} is for workers")

    def _ask_for_rest(self, ask: int, asked: _OpenAsk, now: float) -> None:
        """Ask once more for what is still wanted; its patience has ended."""
        asked.needs, asked.first = asked.needs[asked.first :], 0
        self._asked[ask] = asked
        self._book.ask(HERE, Ask(ask, tuple(asked.needs)), now)

    def _tell_obstacle(self, asked: _OpenAsk, index: int, now: float) -> None:
        if asked.waits is None:
            return
        opens_at = self._book.opens_at(asked.needs[asked.first :], now)
        asked.waits(asked.needs[index], 0.0 if opens_at == UNKNOWN else opens_at - now)

    def _tick(self) -> None:
        now = self._clock.monotonic()
        self._book.tick(now)
        self._tell(now)
