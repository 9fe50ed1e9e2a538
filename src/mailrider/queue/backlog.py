"""Brings what is due from the store into memory: as much as is needed soon, from all destinations in turn.

Two ways: a destination of which more is known to be due is asked for directly when it runs low; and the store is
looked through, page by page from where the last look ended, when there may be something that is not known of. A look
that found nothing says when the next is worth it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mailrider.queue.message import Quota

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from mailrider.clock import Clock
    from mailrider.queue.fairness import Fairness
    from mailrider.queue.message import DueDestination, Job
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


class Backlog:
    """What is due in the store, as far as it is known.

    `take_in` is given the jobs that were leased; `space` says how many octets of content they may have in memory.
    """

    def __init__(
        self,
        store: Store,
        fairness: Fairness,
        clock: Clock,
        take_in: Callable[[Sequence[Job]], None],
        space: Callable[[], int],
    ) -> None:
        self._store = store
        self._fairness = fairness
        self._clock = clock
        self._take_in = take_in
        self._space = space
        self._unseen = True  # there may be something that is not known of
        self._more: set[str] = set()  # destinations of which more is due
        self._cursor: str | None = None
        self._asked = 0
        self.horizon: datetime | None = None
        """What is due later than that is left to others; None: nothing is."""

    @property
    def is_empty(self) -> bool:
        """True if nothing is known to be due."""
        return not self._unseen and not self._more

    def look(self) -> None:
        """Something may have become due anywhere."""
        self._unseen = True

    def expect(self, destinations: Iterable[str]) -> bool:
        """Mail for these was stored and not leased. True if it is worth to fetch it now."""
        self._more.update(destinations)
        if len(self._more) > MAX_KNOWN:
            self._more.clear()
            self._unseen = True
        return self.wants(destinations)

    def wants(self, destinations: Iterable[str] = ()) -> bool:
        """True if `refill` has something to do, now that jobs of these destinations have moved on."""
        fairness = self._fairness
        if fairness.ready < fairness.places.fast and (
            # No more than so many destinations can have jobs in memory: this ends soon.
            self._unseen or any(map(fairness.runs_low, self._more))
        ):
            return True
        self._asked += 1
        if fairness.has_few_quick and self._asked >= fairness.places.fast:
            # Newcomers that wait for places must not keep the others out of memory. Now and then: it is a long list.
            self._asked = 0
            if any(map(fairness.is_hungry, self._more)):
                return True
        return any(each in self._more and self._fairness.runs_low(each) for each in destinations)

    async def refill(self) -> float | None:
        """Lease what is needed; returns in how many seconds there is something again, None if nobody knows."""
        look = _Look()
        is_wanted, self._unseen = self._unseen, False
        try:
            await self._claim([each for each in self._more if self._fairness.runs_low(each)], look)
            if is_wanted:
                await self._look_through(look)
                self._unseen = self._unseen or look.is_full
        except BaseException:
            self._unseen = True  # what was marked may not be so any more
            raise
        return look.next_wake

    async def _look_through(self, look: _Look) -> None:
        """From the cursor to the end, and from the beginning to the cursor, until memory has enough."""
        start = self._cursor
        await self._scan(start, None, look)
        if start is not None and not look.is_full:
            await self._scan(None, start, look)
        self._cursor = look.cursor if look.is_full else None

    async def _scan(self, after: str | None, until: str | None, look: _Look) -> None:
        while not look.is_full:
            page = await self._store.destinations(after, PAGE)
            wanted = [each for each in page if until is None or each.destination <= until]
            await self._claim([each.destination for each in self._due(wanted, look)], look)
            if len(wanted) < PAGE:
                return
            after = wanted[-1].destination

    def _moment(self) -> datetime:
        """Until when what we take is due."""
        now = self._clock.now()
        return now if self.horizon is None else min(now, self.horizon)

    def _wake_for(self, due: datetime, look: _Look) -> None:
        if self.horizon is None or due <= self.horizon:
            look.wake((due - self._clock.now()).total_seconds())

    def _due(self, page: Sequence[DueDestination], look: _Look) -> list[DueDestination]:
        moment = self._moment()
        due: list[DueDestination] = []
        for each in page:
            if each.due <= moment:
                due.append(each)
            else:
                self._wake_for(each.due, look)
        return due

    async def _claim(self, destinations: Sequence[str], look: _Look) -> None:
        """Lease jobs of these as far as there is room, and take note where there are more."""
        now = self._clock.monotonic()
        space = self._fairness.most_ready - self._fairness.ready
        quotas: list[Quota] = []
        for destination in destinations:
            reopens = self._fairness.reopens(destination, now)
            if reopens is not None:
                self._more.discard(destination)
                look.wake(reopens - now)
                continue
            if space <= 0:
                look.is_full = True
                break
            look.cursor = destination
            room = min(self._fairness.room(destination, now), space)
            if room:
                quotas.append(Quota(destination, room))
                space -= room
            else:
                self._more.add(destination)
        if not quotas:
            return
        # What is expected while the store is asked is not in its answer: from here on marks are only added.
        names = [quota.destination for quota in quotas]
        self._more.difference_update(names)
        moment = self._moment()
        claimed = await self._store.claim(quotas, moment, self._space())
        for name, due in claimed.left.items():
            if due <= moment:
                self._more.add(name)
            else:
                self._wake_for(due, look)
        self._take_in(claimed.jobs)
