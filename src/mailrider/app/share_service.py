"""What workers share, at the supervisor: asks go to the books, answers back, and what one tells to all others.

Findings stay among the workers of one generation: another configuration may reach what theirs could not.
It does not import what carries mail. The frames are those of `delivery.limits.share_client`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from mailrider.clock import Alarm, SystemClock
from mailrider.delivery.limits.findings import FindingList, SharedFinding
from mailrider.delivery.limits.lines import Ask, GiveBackRequest, Granted, Line, Refused, Waits, Withdrawn
from mailrider.delivery.limits.share_book import ShareBook
from mailrider.delivery.limits.share_client import TELL, TOLD, TURN

if TYPE_CHECKING:
    from mailrider.app.worker_link import WorkerLink
    from mailrider.clock import Clock
    from mailrider.delivery.limits.lines import Answer

_CLOCK: Final = SystemClock()


class ShareService:
    """Keeps the book of limits for all workers, and passes their findings on."""

    def __init__(self, clock: Clock = _CLOCK) -> None:
        self._clock = clock
        self._book = ShareBook()
        self._links: dict[int, WorkerLink] = {}
        self._lines: dict[int, dict[int, str]] = {}  # the names of lines, by worker and the number that it gave them
        self._generations: dict[int, int] = {}  # of the configuration that a worker has
        self._told: dict[int, FindingList] = defaultdict(FindingList)  # by generation
        self._force = 0
        self._alarm = Alarm(clock, self._tick)

    def worker_came(self, number: int, link: WorkerLink, generation: int) -> None:
        """A process was started: what others of its generation have told is the first that it hears."""
        for findings in self._told[generation].frames(self._clock.monotonic()):
            link.send(TOLD, findings)
        self._links[number] = link
        self._generations[number] = generation
        self._lines[number] = {}
        self._book.came(number)

    def worker_gone(self, number: int) -> None:
        """The process has ended, and was waited for: what it held is free."""
        if self._links.pop(number, None) is not None:
            del self._lines[number], self._generations[number]
            self._forget_findings()
            self._book.gone(number, self._clock.monotonic())
            self._answer()

    def put_in_force(self, generation: int) -> None:
        """Workers that start from now on are of that generation, until there is a newer one."""
        self._force = generation
        self._forget_findings()

    def _forget_findings(self) -> None:
        """Forget the findings of generations of which no worker starts any more."""
        newer = {each for each in self._generations.values() if each > self._force}
        for generation in self._told.keys() - newer - {self._force}:
            del self._told[generation]

    def received(self, number: int, kind: str, body: Any) -> None:
        """A frame of that worker."""
        if number not in self._links:
            return
        if kind == TELL:
            self._tell(number, body)
        elif kind == TURN:
            self._take_turn(number, *body)
            self._answer()

    def _tell(self, number: int, finding: Any) -> None:
        """To the others of that worker's generation, and to those that start later."""
        generation = self._generations[number]
        if generation >= self._force:
            self._told[generation].note(SharedFinding._make(finding))
        for other, link in self._links.items():
            if other != number and self._generations[other] == generation:
                link.send(TOLD, [finding])

    def _take_turn(
        self,
        worker: int,
        lines: list[Any],
        returns: list[Any],
        asks: list[Any],
        shortened: list[tuple[int, int]],
        withdrawals: list[int],
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
        for ask, first in shortened:
            book.shorten(worker, ask, first, now)
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
        case GiveBackRequest():
            return 4, answer[1:]
