"""Brings what is due from the store into memory: as much as is needed soon, from all destinations in turn.

Two ways: a destination of which more is known to be due is asked for directly when it runs low; and the store is
looked through, page by page from where the last look ended, when there may be something that is not known of. A look
that found nothing says when the next is worth it (`next_wake`).
"""

from __future__ import annotations

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
class _Look:
    """How one look through the store goes."""

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
    more: set[str] = field(default_factory=set)
    """Destinations of which more is due."""
    next_wake: float | None = None
    """In how many seconds there is something again, as the last `refill` found; None: nobody knows."""
    horizon: datetime | None = None
    """What is due later than that is left to others; None: nothing is."""
    _cursor: str | None = None
    _asked: int = 0

    @property
    def is_empty(self) -> bool:
        """True if nothing is known to be due."""
        return not self.unseen and not self.more

    def look(self) -> None:
        """Something may have become due anywhere."""
        self.unseen = True

    def expect(self, destinations: Iterable[str]) -> bool:
        """Mail for these was stored and not leased. True if it is worth to fetch it now."""
        self.more.update(destinations)
        if len(self.more) > MAX_KNOWN:
            self.more.clear()
            self.unseen = True
        return self.wants(destinations)

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
            if any(map(fairness.is_hungry, self.more)):
                return True
        return any(each in self.more and self.fairness.runs_low(each) for each in destinations)

    async def refill(self) -> AsyncGenerator[list[LeasedJob], None]:
        """Lease what is needed: gives jobs as they come, to be put into memory before the next ones are asked for."""
        look = _Look()
        is_wanted, self.unseen = self.unseen, False
        try:
            yield await self._claim([each for each in self.more if self.fairness.runs_low(each)], look)
            if is_wanted:
                # From where the last look ended to the end, and from the beginning to there, until memory has enough.
                start = self._cursor
                for after, until in ((start, None), (None, start)) if start is not None else ((None, None),):
                    while not look.is_full:
                        page = await self.store.destinations(after, PAGE)
                        wanted = [each for each in page if until is None or each.destination <= until]
                        yield await self._claim([each.destination for each in self._due(wanted, look)], look)
                        if len(wanted) < PAGE:
                            break
                        after = wanted[-1].destination
                self._cursor = look.cursor if look.is_full else None
                self.unseen = self.unseen or look.is_full
        except BaseException:
            self.unseen = True  # what was marked may not be so any more
            raise
        self.next_wake = look.next_wake

    def _moment(self) -> datetime:
        """Until when what we take is due."""
        now = self.clock.now()
        return now if self.horizon is None else min(now, self.horizon)

    def _wake_for(self, due: datetime, look: _Look) -> None:
        if self.horizon is None or due <= self.horizon:
            look.wake((due - self.clock.now()).total_seconds())

    def _due(self, page: Sequence[DueDestination], look: _Look) -> list[DueDestination]:
        moment = self._moment()
        due: list[DueDestination] = []
        for each in page:
            if each.due <= moment:
                due.append(each)
            else:
                self._wake_for(each.due, look)
        return due

    async def _claim(self, destinations: Sequence[str], look: _Look) -> list[LeasedJob]:
        """Lease jobs of these as far as there is room, and take note where there are more."""
        now = self.clock.monotonic()
        space = self.fairness.most_ready - self.fairness.ready
        quotas: list[Quota] = []
        for destination in destinations:
            reopens = self.fairness.reopens(destination, now)
            if reopens is not None:
                self.more.discard(destination)
                look.wake(reopens - now)
                continue
            if space <= 0:
                look.is_full = True
                break
            look.cursor = destination
            room = min(self.fairness.room(destination, now), space)
            if room:
                quotas.append(Quota(destination, room))
                space -= room
            else:
                self.more.add(destination)
        if not quotas:
            return []
        # What is expected while the store is asked is not in its answer: from here on marks are only added.
        names = [quota.destination for quota in quotas]
        self.more.difference_update(names)
        moment = self._moment()
        claimed = await self.store.claim(quotas, moment, self.fairness.space)
        for name, due in claimed.left.items():
            if due <= moment:
                self.more.add(name)
            else:
                self._wake_for(due, look)
        return claimed.jobs
