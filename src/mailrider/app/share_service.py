"""What workers share, at the supervisor: asks go to the books, answers back, and what one tells to all others.

It does not import what carries mail. The frames are those of `delivery.limits.share_client`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from mailrider.clock import Alarm, SystemClock
from mailrider.delivery.limits.findings import FindingBook, SharedFinding
from mailrider.delivery.limits.share_asks import Ask, Granted, Line, Recall, Refused, Waits, Withdrawn
from mailrider.delivery.limits.share_book import ShareBook
from mailrider.delivery.limits.share_client import TELL, TOLD, TURN

if TYPE_CHECKING:
    from mailrider.app.link import Link
    from mailrider.clock import Clock
    from mailrider.delivery.limits.share_asks import Answer

_CLOCK: Final = SystemClock()


class ShareService:
    """With the books of all."""

    def __init__(self, clock: Clock = _CLOCK) -> None:
        self._clock = clock
        self._book = ShareBook()
        self._links: dict[int, Link] = {}
        self._lines: dict[int, dict[int, str]] = {}  # the names of lines, by worker and the number that it gave them
        self._told = FindingBook()
        self._alarm = Alarm(clock, self._tick)

    def worker_came(self, number: int, link: Link) -> None:
        """A process was started: what others have told is the first that it hears."""
        for findings in self._told.frames(self._clock.monotonic()):
            link.send(TOLD, findings)
        self._links[number] = link
        self._lines[number] = {}
        self._book.came(number)

    def worker_gone(self, number: int) -> None:
        """It was waited for: what it held is free."""
        if self._links.pop(number, None) is not None:
            del self._lines[number]
            self._book.gone(number, self._clock.monotonic())
            self._answer()

    def forget_findings(self) -> None:
        """Those that start from now on have another configuration, which may reach what could not be reached."""
        self._told.clear()

    def received(self, number: int, kind: str, body: Any) -> None:
        """A frame of that worker."""
        if number not in self._links:
            return
        if kind == TELL:
            self._told.note(SharedFinding._make(body))
            for other, link in self._links.items():
                if other != number:
                    link.send(TOLD, [body])
        elif kind == TURN:
            self._take_turn(number, *body)
            self._answer()

    def _take_turn(
        self, worker: int, lines: list[Any], returns: list[Any], asks: list[Any], withdrawals: list[int]
    ) -> None:
        book, names, now = self._book, self._lines[worker], self._clock.monotonic()
        for line, *fields in lines:
            declared = Line(*fields)
            names[line] = declared.name
            book.declare(worker, declared, now)
        for line, key, amount, until in returns:
            book.give_back(worker, (names[line], key), amount, until, now)
        for ask, patience, most, usable, needs in asks:
            named = tuple((names[line], key) for line, key in needs)
            book.ask(worker, Ask(ask, named, patience, most, usable), now)
        for ask in withdrawals:
            book.withdraw(worker, ask, now)

    def _answer(self) -> None:
        """Send the answers that there are, one frame to each worker, and see when there will be others."""
        book = self._book
        book.end_turn(self._clock.monotonic())
        answers, book.answers = book.answers, []
        turns: dict[int, tuple[list[Any], ...]] = defaultdict(lambda: ([], [], [], [], []))
        for answer in answers:
            index, body = _encode(answer)
            turns[answer.worker][index].append(body)
        for worker, turn in turns.items():
            if worker in self._links:
                self._links[worker].send(TURN, turn)
        due = book.next_due
        if due is not None:
            self._alarm.set(due)

    def _tick(self) -> None:
        self._book.tick(self._clock.monotonic())
        self._answer()


def _encode(answer: Answer) -> tuple[int, Any]:
    """Where an answer stands in a frame, and its body."""
    match answer:
        case Granted(_, ask, shares):
            return 0, (ask, shares)
        case Refused(_, ask, need, seconds):
            return 1, (ask, need, seconds)
        case Waits(_, ask, need):
            return 2, (ask, need)
        case Withdrawn(_, ask):
            return 3, ask
        case Recall():
            return 4, answer[1:]
