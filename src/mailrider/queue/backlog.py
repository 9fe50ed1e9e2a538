"""Brings what is due from the store into memory: as much as is needed soon, from all destinations in turn.

Two ways: a destination of which more is known to be due is asked for directly when it runs low, who waits longest
first; and the store is looked through, page by page from where the last look ended, when there may be something that
is not known of. Where the first way leaves no room for the second, that has its turn before it the next time: neither
keeps the other out of memory. A look that found nothing says when the next is worth it (`next_wake`).
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mailrider.queue.message import Quota

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence
    from datetime import datetime

    from mailrider.clock import Clock
    from mailrider.queue.fairness import Fairness
    from mailrider.queue.message import DueDestination, LeasedJob
    from mailrider.queue.store import Store

PAGE: Final = 500  # destinations that are read at once
MAX_KNOWN: Final = 10_000  # destinations with more than is in memory that are remembered by name


@dataclass(slots=True)
class _RefillProgress:
    """How one `refill` goes. `is_full`: memory has enough. `cursor`: the last destination that had its turn."""

    cursor: str | None = None
    is_full: bool = False
    next_wake: float | None = None

    def wake(self, seconds: float) -> None:
        self.next_wake = seconds if self.next_wake is None else min(self.next_wake, seconds)


@dataclass(slots=True, eq=False)
class Backlog:
    """What is due in the store, as far as it is known. `fairness` says how much of it may come into memory."""

    store: Store
    fairness: Fairness
    clock: Clock
    unseen: bool = True
    """There may be something that is not known of."""
    more: dict[str, None] = field(default_factory=dict)
    """Destinations of which more is due, who waits longest first; no more than `MAX_KNOWN`."""
    next_wake: float | None = None
    """In how many seconds there is something again, as the last `refill` found; None: nobody knows."""
    horizon: datetime | None = None
    """What is due later than that is left to others; None: nothing is."""
    _cursor: str | None = None
    _asked: int = 0
    _look_is_first: bool = False

    @property
    def is_empty(self) -> bool:
        """True if nothing is known to be due."""
        return not self.unseen and not self.more

    def look(self) -> None:
        """Something may have become due anywhere."""
        self.unseen = True

    def expect(self, destinations: Iterable[str]) -> bool:
        """Mail for these was stored and not leased. True if it is worth to fetch it now."""
        for each in destinations:
            if not self._remember(each):
                self.unseen = True
        return self.wants(destinations)

    def _remember(self, destination: str) -> bool:
        """More is due there. False if so many are known already that this one has to be found again by a look."""
        if destination not in self.more and len(self.more) >= MAX_KNOWN:
            return False
        self.more.setdefault(destination)
        return True

    def wants(self, destinations: Iterable[str] = ()) -> bool:
        """True if `refill` has something to do, now that jobs of these destinations have moved on."""
        fairness = self.fairness
        if fairness.ready < fairness.places.fast and (
            # No more than so many destinations can have jobs in memory: this ends soon.
            self.unseen or any(map(fairness.runs_low, self.more))
        ):
            return True
        self._asked += 1
        if self._asked >= fairness.places.fast and fairness.has_few_quick:
            # Newcomers that wait for places must not keep the others out of memory. Now and then: it is a long list.
            self._asked = 0
            if any(map(fairness.wants_refill, self.more)):
                return True
        return any(each in self.more and self.fairness.runs_low(each) for each in destinations)

    async def refill(self) -> AsyncGenerator[list[LeasedJob], None]:
        """Lease what is needed: gives jobs as they come, to be put into memory before the next ones are asked for."""
        look = _RefillProgress()
        is_wanted, self.unseen = self.unseen, False
        ways = [self._ask_known]
        if is_wanted:
            ways.insert(0 if self._look_is_first else 1, self._look_through)
        try:
            for way in ways:
                async with aclosing(way(look)) as found:
                    async for jobs in found:
                        yield jobs
        except BaseException:
            self.unseen = True  # what was marked may not be so any more
            raise
        self.next_wake = look.next_wake

    async def _ask_known(self, look: _RefillProgress) -> AsyncGenerator[list[LeasedJob], None]:
        """What more is due at destinations that run low."""
        yield await self._claim([each for each in self.more if self.fairness.runs_low(each)], look)

    async def _look_through(self, look: _RefillProgress) -> AsyncGenerator[list[LeasedJob], None]:
        """From where the last look ended to the end, and from the beginning to there, until memory has enough."""
        start = look.cursor = self._cursor
        for after, until in ((start, None), (None, start)) if start is not None else ((None, None),):
            while not look.is_full:
                page = await self.store.destinations(after, PAGE)
                wanted = [each for each in page if until is None or each.destination <= until]
                yield await self._claim([each.destination for each in self._due(wanted, look)], look)
                if len(wanted) < PAGE:
                    break
                after = wanted[-1].destination
        self._cursor = look.cursor if look.is_full else None
        self._look_is_first = look.is_full and look.cursor == start
        self.unseen = self.unseen or look.is_full

    def _moment(self) -> datetime:
        """Until when what we take is due."""
        now = self.clock.now()
        return now if self.horizon is None else min(now, self.horizon)

    def _wake_for(self, due: datetime, look: _RefillProgress) -> None:
        if self.horizon is None or due <= self.horizon:
            look.wake((due - self.clock.now()).total_seconds())

    def _due(self, page: Sequence[DueDestination], look: _RefillProgress) -> list[DueDestination]:
        moment = self._moment()
        due: list[DueDestination] = []
        for each in page:
            if each.due <= moment:
                due.append(each)
            else:
                self._wake_for(each.due, look)
        return due

    async def _claim(self, destinations: Sequence[str], look: _RefillProgress) -> list[LeasedJob]:
        """Lease jobs of these as far as there is room, and take note where there are more."""
        now = self.clock.monotonic()
        space = self.fairness.most_ready - self.fairness.ready
        quotas: list[Quota] = []
        for destination in destinations:
            reopens = self.fairness.reopens(destination, now)
            if reopens is not None:
                self.more.pop(destination, None)
                look.wake(reopens - now)
                continue
            if space <= 0:
                look.is_full = True
                break
            room = min(self.fairness.room(destination, now), space)
            if room:
                quotas.append(Quota(destination, room))
                space -= room
            elif not self._remember(destination):
                look.is_full = True
                break
            look.cursor = destination
        if not quotas:
            return []
        # What is expected while the store is asked is not in its answer: from here on marks are only added.
        for quota in quotas:
            self.more.pop(quota.destination, None)
        moment = self._moment()
        claimed = await self.store.claim(quotas, moment, self.fairness.space)
        for name, due in claimed.left.items():
            if due > moment:
                self._wake_for(due, look)
            elif not self._remember(name):
                self.unseen = True
        return claimed.jobs
