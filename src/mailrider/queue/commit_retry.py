"""Writes down what attempts came to, however long it takes: what was delivered must not be delivered again.

While an outcome cannot be recorded the job stays leased, the outcome stays in memory, and `is_sick` tells that nothing
new should begin. What waits to be given back waits here as well.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from mailrider.model.queue_event import LeaseLost, OutcomeUnrecorded, QueueAvailable, QueueUnavailable
from mailrider.queue.ids import format_id
from mailrider.queue.store import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mailrider.clock import Clock
    from mailrider.model.event import Emit
    from mailrider.queue.message import Job, Settled, Settlement
    from mailrider.queue.store import Store

SICK: Final = 5.0  # seconds until a store that failed is tried again


class CommitRetry:
    """Settles and gives back. `on_recovery` is called when a store that failed works again."""

    def __init__(self, store: Store, clock: Clock, emit: Emit, on_recovery: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._emit = emit
        self._on_recovery = on_recovery
        self._unrecorded = 0
        self._unreturned: list[Job] = []
        self._failed = False

    @property
    def is_sick(self) -> bool:
        """True while outcomes wait to be recorded."""
        return self._unrecorded > 0

    async def record(self, settlement: Settlement) -> Settled:
        """Commit, and say if the lease was lost."""
        try:
            settled = await self._settle(settlement)
        except StoreUnavailable as error:
            settled = await self._insist(settlement, error)
        if not settled.held:
            self._emit(LeaseLost(format_id(settlement.job.message_id), names(settlement.job)))
        return settled

    async def _settle(self, settlement: Settlement) -> Settled:
        # The writer goes on when the wait is cancelled: then it is over only after the result is known.
        future = asyncio.ensure_future(self._store.settle(settlement))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if future.cancelled() or future.exception() is not None:
                self._emit(_unrecorded(settlement.job, "we had to stop"))
            raise

    async def _insist(self, settlement: Settlement, error: StoreUnavailable) -> Settled:
        self.failed(error)
        self._emit(_unrecorded(settlement.job, str(error)))
        self._unrecorded += 1
        try:
            while True:
                try:
                    await self._clock.sleep(SICK)
                    return await self._settle(settlement)
                except StoreUnavailable as again:
                    self.failed(again)
        finally:
            self._unrecorded -= 1
            self.works()

    async def give_back(self, jobs: Sequence[Job]) -> None:
        """End leases of jobs that were not attempted; what cannot be given back now is kept for later."""
        self._unreturned += jobs
        mine = [job for job in self._unreturned if job.lease == self._store.lease]
        self._unreturned = []
        if not mine:
            return
        try:
            await asyncio.shield(asyncio.ensure_future(self._store.give_back(mine)))
        except StoreUnavailable as error:
            self._unreturned += mine
            self.failed(error)

    @property
    def owes(self) -> bool:
        """True if jobs wait to be given back."""
        return bool(self._unreturned)

    def failed(self, error: StoreUnavailable) -> None:
        """The store did not do what it was asked for."""
        if not self._failed:
            self._failed = True
            self._emit(QueueUnavailable(str(error)))

    def works(self) -> None:
        """The store did what it was asked for."""
        if self._failed and not self._unrecorded:
            self._failed = False
            self._emit(QueueAvailable())
            self._on_recovery()


def _unrecorded(job: Job, reason: str) -> OutcomeUnrecorded:
    return OutcomeUnrecorded(format_id(job.message_id), names(job), reason)


def names(job: Job) -> tuple[str, ...]:
    """A job's recipients, for events."""
    return tuple(map(str, job.envelope.recipients))
