"""A worker's end of what it shares with others: asks its supervisor, keeps what it was given ahead, gives it back.

What is asked and given back in one turn of the event loop goes in one frame, what is given back first. Who hears
nothing for `SILENCE` is held back, as somebody whose turn it is not: nothing was tried. What comes later goes back.

The other end is `app.share_service`. Frames to it: `[lines, returns, asks, shortened, withdrawals]` as `shares.turn`, a
line as `[number, name, maximum, period, spares, places]`, a return as `[line, key, amount, until]`, an ask as `[id,
patience, most, usable, [[line, key], ...]]`, lines by their numbers, what was shortened as `[id, first]`; and as
`shares.tell` a `SharedFinding`, for all other workers of the same configuration. From it: `[granted, refused, waiting,
withdrawn, recalled]`, lines by their names, and as `shares.told` lists of `SharedFinding`, to begin with what was told
before this worker came.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from mailrider.clock import Alarm
from mailrider.delivery.limits.book import COME_AGAIN
from mailrider.delivery.limits.findings import FindingList, SharedFinding
from mailrider.delivery.limits.leases import Leases, Return
from mailrider.delivery.limits.lines import MOST_USABLE, AskLater
from mailrider.delivery.limits.waiter import LimitWaiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mailrider.clock import Clock
    from mailrider.delivery.limits.lines import Line, Need

AGAIN: Final = 2  # times that is asked again for what came too late to be used
LATE: Final = 10.0  # seconds for which it is remembered that answers take long
SILENCE: Final = 2.0  # seconds that the supervisor may take to answer, or to say that an ask has to wait
LOOK: Final = 0.5  # seconds between two looks for answers that are overdue
TURN: Final = "shares.turn"
TELL: Final = "shares.tell"
TOLD: Final = "shares.told"


class ShareLink(Protocol):
    """Frames to and from the supervisor; see `app.worker_link.WorkerLink`."""

    def send(self, kind: str, body: Any = None) -> None:
        """Never waits."""

    def on(self, kind: str, handler: Callable[[Any], None]) -> None:
        """Who is given the bodies of that kind."""


Answer = AskLater | int
"""Why not; or how many of each there are for whoever asked."""


@dataclass(slots=True)
class _Asked:
    needs: Sequence[Need]
    patience: float
    answered: Callable[[Answer], None]
    waits: Callable[[Need, float], None] | None
    most: int
    at: float
    overdue: float
    tries: int = 0
    first: int = 0  # of the needs that are still wanted

    def granted(self, shares: Sequence[tuple[int, float]]) -> list[Return]:
        """What was granted, by need: of all needs, or of those that were still wanted when it was granted."""
        needs = self.needs[len(self.needs) - len(shares) :]
        return [Return(need, *share) for need, share in zip(needs, shares, strict=True)]


class ShareClient:
    """Asks of this process. It belongs to the event loop in which it is used."""

    def __init__(self, wire: ShareLink, clock: Clock, workers: int = 1, earlier: Iterable[Sequence[Any]] = ()) -> None:
        """`workers`: how many there are. `earlier`: what came as `shares.told` before this was made."""
        self.workers = workers
        self._wire = wire
        self._clock = clock
        self._leases = Leases()
        self._lines: dict[str, tuple[int, Line]] = {}
        self._new_lines: list[Line] = []
        self._returns: list[Return] = []
        self._asks: list[tuple[int, float, int, float, Sequence[Need]]] = []
        self._usable = 0.0  # seconds that what is granted has to be usable, since answers take long
        self._usable_until = 0.0
        self._shortened: list[tuple[int, int]] = []
        self._withdrawals: list[int] = []
        self._asked: dict[int, _Asked] = {}
        self._given_up: dict[int, _Asked] = {}  # until nothing can come for them
        self._last = 0
        self._is_flushing = False
        self._alarm = Alarm(clock, self._tick)
        self._recalls: dict[str, Callable[[str, int, int], None]] = {}
        self._told = FindingList()
        self._hearers: dict[str, list[Callable[[SharedFinding], None]]] = defaultdict(list)
        self._hear_told(earlier)
        wire.on(TURN, self._hear)
        wire.on(TOLD, self._hear_told)

    # Asking -----------------------------------------------------------------------------------------------------------

    def declare(self, line: Line, recalled: Callable[[str, int, int], None] | None = None) -> None:
        """Count by that line. `recalled` is told the key, what may be kept, and how many are wanted elsewhere."""
        if recalled is not None:
            self._recalls[line.name] = recalled
        known = self._lines.get(line.name)
        if known is None or known[1] != line:
            self._lines[line.name] = (len(self._lines) if known is None else known[0], line)
            self._new_lines.append(line)
            self._flush_soon()

    def has(self, need: Need) -> bool:
        """True if one is ahead."""
        return self._leases.has(need, self._now())

    def take(self, needs: Sequence[Need]) -> bool:
        """True if one of each was here already, ahead of need: it is in use from now on."""
        return self._leases.take(needs, self._clock.monotonic())

    def ask(
        self,
        needs: Sequence[Need],
        answered: Callable[[Answer], None],
        patience: float = 0.0,
        most: int = 1,
        *,
        waits: Callable[[Need, float], None] | None = None,
    ) -> int:
        """See `waiter.Counts`. `most`: so many of each. `waits` is told only if it is patient, never for how long."""
        now = self._now()
        self._last += 1
        self._ask_for(self._last, _Asked(needs, patience, answered, waits, most, now, now + SILENCE))
        return self._last

    def _ask_for(self, ask: int, asked: _Asked) -> None:
        self._asked[ask] = asked
        self._shortened = [each for each in self._shortened if each[0] != ask]  # that was about the ask before
        self._returns += self._leases.give_back_ahead(asked.needs)
        usable = self._usable if asked.at < self._usable_until else 0.0
        self._asks.append((ask, asked.patience, asked.most, usable, asked.needs))
        self._flush_soon()
        self._alarm.set(self._now() + LOOK)

    def shorten(self, ask: int, first: int) -> None:
        """See `waiter.Counts`."""
        asked = self._asked.get(ask)
        if asked is not None:
            asked.first = first
            self._shortened.append((ask, first))
            self._flush_soon()

    def withdraw(self, ask: int) -> None:
        """Nobody waits for it any more; harmless if it was answered."""
        asked = self._asked.pop(ask, None)
        if asked is not None:
            self._given_up[ask] = asked
            self._withdrawals.append(ask)
            self._flush_soon()

    async def enter(
        self, needs: Sequence[Need], patience: float = 0.0, waits: Callable[[Need, float], None] | None = None
    ) -> AskLater | None:
        """See `LimitWaiter.enter`."""
        return await LimitWaiter(self, needs).enter(patience, waits)

    def leave(self, needs: Iterable[Need]) -> None:
        """These are not in use any more; those of a rate are used in any case."""
        self.give_back(self._leases.done([need for need in needs if not self._line(need).period], self._now()))
        self._look_after_leases()

    def give_back(self, returns: Iterable[Return]) -> None:
        """These go back to the supervisor."""
        self._returns += returns
        if self._returns:
            self._flush_soon()

    def _line(self, need: Need) -> Line:
        return self._lines[need[0]][1]

    def _now(self) -> float:
        return self._clock.monotonic()

    # Telling ----------------------------------------------------------------------------------------------------------

    def tell(self, told: SharedFinding) -> None:
        """Tell all other workers; what is told in one turn arrives in that order."""
        self._told.note(told)
        self._wire.send(TELL, told)

    def hear(self, topic: str, hearer: Callable[[SharedFinding], None]) -> None:
        """Who is to be told what others tell, from what holds already on."""
        self._hearers[topic].append(hearer)
        for told in self.known(topic):
            hearer(told)

    def known(self, topic: str) -> Sequence[SharedFinding]:
        """What was told and holds still, by whomever."""
        return self._told.of(topic, self._now())

    def _hear_told(self, findings: Iterable[Sequence[Any]]) -> None:
        for told in map(SharedFinding._make, findings):
            self._told.note(told)
            for hearer in self._hearers.get(told.topic, ()):
                hearer(told)

    # The wire ---------------------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        numbers = self._lines
        lines = [[numbers[each.name][0], *each] for each in self._new_lines]
        returns = [[numbers[line][0], key, amount, until] for (line, key), amount, until in self._returns]
        asks = [
            [ask, patience, most, usable, [[numbers[line][0], key] for line, key in needs]]
            for ask, patience, most, usable, needs in self._asks
        ]
        self._wire.send(TURN, [lines, returns, asks, self._shortened, self._withdrawals])
        self._new_lines, self._returns, self._asks, self._shortened, self._withdrawals = [], [], [], [], []

    def _hear(self, turn: Any) -> None:
        granted, refused, waiting, withdrawn, recalled = turn
        now = self._now()
        for ask, shares in granted:
            self._grant(ask, shares, now)
        for ask, index, seconds in refused:
            self._refuse(ask, index, seconds, now)
        for ask, index in waiting:
            asked = self._asked.get(ask)
            if asked is not None:
                asked.overdue = now + asked.patience + SILENCE
                if asked.waits is not None and asked.patience:
                    asked.waits(asked.needs[index], 0.0)
        for ask in withdrawn:
            self._given_up.pop(ask, None)
        for line, key, keep, wanted in recalled:
            self._recall(line, key, keep, wanted)
        self._look_after_leases()

    def _grant(self, ask: int, shares: list[tuple[int, float]], now: float) -> None:
        asked = self._asked.pop(ask, None)
        if asked is None:
            given_up = self._given_up.pop(ask, None)
            self.give_back([] if given_up is None else given_up.granted(shares))
            return
        granted = asked.granted(shares)
        wanted = len(asked.needs) - asked.first
        self.give_back(granted[: len(granted) - wanted])
        asked.needs, asked.first = asked.needs[asked.first :], 0
        if asked.most > 1:
            asked.answered(shares[0][0])
        elif self._leases.grant(asked.needs, shares[len(granted) - wanted :], now):
            asked.answered(1)
        else:
            self.give_back(self._leases.give_back_ahead(asked.needs))
            self._ask_again(ask, asked, now)

    def _refuse(self, ask: int, index: int, seconds: float, now: float) -> None:
        asked = self._asked.pop(ask, None)
        self._given_up.pop(ask, None)
        if asked is None:
            return
        if index >= asked.first:
            asked.answered(AskLater(asked.needs[index], seconds))
            return
        # It had been shortened: what was in its way is not wanted any more.
        asked.needs, asked.first, asked.overdue = asked.needs[asked.first :], 0, now + SILENCE
        if asked.needs:
            self._ask_for(ask, asked)
        else:
            asked.answered(1)

    def _ask_again(self, ask: int, asked: _Asked, now: float) -> None:
        """What came may not be used any more: answers take too long."""
        self._usable, self._usable_until = min(2 * (now - asked.at), MOST_USABLE), now + LATE
        if asked.tries < AGAIN:
            asked.tries, asked.at, asked.overdue = asked.tries + 1, now, now + SILENCE
            self._ask_for(ask, asked)
        else:
            asked.answered(AskLater(asked.needs[0], COME_AGAIN, is_unanswered=True))

    def _recall(self, line: str, key: str, keep: int, wanted: int) -> None:
        recalled = self._recalls.get(line)
        if recalled is not None:
            recalled(key, keep, wanted)
        else:
            self.give_back(self._leases.give_back_ahead([(line, key)]))

    # Time -------------------------------------------------------------------------------------------------------------

    def _look_after_leases(self) -> None:
        due = self._leases.next_due
        if due is not None:
            self._alarm.set(due)

    def _tick(self) -> None:
        now = self._now()
        self.give_back(self._leases.overdue(now))
        for ask, asked in [item for item in self._asked.items() if item[1].overdue <= now]:
            self.withdraw(ask)
            asked.answered(AskLater(asked.needs[0], COME_AGAIN, is_unanswered=True))
        self._look_after_leases()
        if self._asked:
            self._alarm.set(now + LOOK)
