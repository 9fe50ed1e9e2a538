"""What was decided after an attempt (`queue.settle`) is done: notifications are written, all is committed, then told.

A `Settler` writes and tells. A notification never keeps a state from changing, and what is committed is told only if
the lease was ours. `CommitRetry` commits, however long it takes: what was delivered must not be delivered again. While
an outcome cannot be recorded the job stays leased and the outcome stays in memory. Jobs that wait to be given back wait
there as well.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mailrider.clock import shift_of
from mailrider.model.event import Bug
from mailrider.model.outcome import is_held_back
from mailrider.model.queue_event import (
    LeaseLost,
    OutcomeUnrecorded,
    QueueAvailable,
    QueueUnavailable,
    RecipientDone,
)
from mailrider.model.value import value
from mailrider.queue.ids import format_id
from mailrider.queue.message import NewState, Settlement, Wish
from mailrider.queue.settle import SettleDecision, as_it_stands, settle, untried
from mailrider.queue.store import IdTaken, StoreUnavailable

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from mailrider.clock import Clock
    from mailrider.model.event import Emit
    from mailrider.model.outcome import AttemptReport
    from mailrider.model.reply import Reply
    from mailrider.queue.bounces import Bounces
    from mailrider.queue.message import LeasedJob, NewMessage, Settled
    from mailrider.queue.retry import Rules
    from mailrider.queue.store import Store
    from mailrider.smtp.content import Content

SICK: Final = 5.0  # seconds until a store that failed is tried again

_DONE_TO_IT: Final = {Wish.HOLD: "held", Wish.REMOVE: "removed"}


@value
class Settling:
    """What is to be committed; `report` is what is told of it then, None: nothing."""

    settlement: Settlement
    decision: SettleDecision
    report: AttemptReport | None


@value
class Committed:
    """What was committed, and what operators had wished meanwhile."""

    settlement: Settlement
    settled: Settled


class Settler:
    """Says what is to be committed, and tells what was."""

    def __init__(self, rules: Rules, bounces: Bounces, clock: Clock, rng: random.Random, emit: Emit) -> None:
        self._rules = rules
        self._bounces = bounces
        self._clock = clock
        self._rng = rng
        self._emit = emit

    async def attempted(self, job: LeasedJob, content: Content, report: AttemptReport) -> Settling:
        """After an attempt."""
        now = self._clock.now()
        decision = settle(job, report, self._rules, now, self._rng)
        notifications = await self._notify(job, decision, content, now) if decision.notified else ()
        if job.envelope.requiretls:
            notifications += await self._redact(job, decision, report, content, now)
        return Settling(Settlement(job, decision.changes, now, notifications), decision, report)

    async def late(
        self,
        job: LeasedJob,
        now: datetime,
        stored: Callable[[LeasedJob], Awaitable[Content]],
        reason: Reply | None = None,
    ) -> Settling:
        """Where no attempt comes along. `stored` reads the content, if its sender is told; `reason`: why its
        destination cannot be reached, if that is known."""
        decision = untried(job, self._rules, now, reason)
        content = await stored(job) if decision.notified else None
        notifications = await self._notify(job, decision, content, now)
        # What is over is over for each recipient.
        report = as_it_stands(job, reason) if decision.given_up else None
        return Settling(Settlement(job, decision.changes, now, notifications), decision, report)

    def committed(self, settling: Settling, settled: Settled) -> Committed | None:
        """It was tried to commit that: tells of it; None if the lease was lost, and nothing was changed."""
        if not settled.held:
            return None
        if settling.report is not None:
            self._tell(settling.settlement, settled, settling.decision, settling.report)
        return Committed(settling.settlement, settled)

    async def _notify(
        self, job: LeasedJob, decision: SettleDecision, content: Content | None, now: datetime
    ) -> tuple[NewMessage, ...]:
        """The notifications; one that quotes nothing if the message makes trouble. The state changes in any case."""
        for quoted in (content, None):
            try:
                return await self._bounces.write(job, decision.notified, quoted, now, shift_of(self._clock))
            except Exception as error:
                self._emit(Bug(f"notification about message {format_id(job.message_id)}", error))
        return ()

    async def _redact(
        self, job: LeasedJob, decision: SettleDecision, report: AttemptReport, content: Content, now: datetime
    ) -> tuple[NewMessage, ...]:
        """A notification without what it quotes, where it has to go so; none if that makes trouble."""
        try:
            return await self._bounces.redacted(job, decision.given_up, report, content, now)
        except Exception as error:
            self._emit(Bug(f"notification {format_id(job.message_id)} without what it quotes", error))
            return ()

    def _tell(self, settlement: Settlement, settled: Settled, decision: SettleDecision, report: AttemptReport) -> None:
        job = settlement.job
        name, sender = format_id(job.message_id), job.envelope.sender.text
        age = settlement.at - job.created
        for change, progress, outcome in zip(decision.changes, job.progress, report.outcomes, strict=True):
            tries = progress.tries if change.progress is None else change.progress.tries
            due, done_to_it = change.due, ""
            wish = settled.wishes.get(change.id)
            if change.new_state is NewState.QUEUED and wish is not None:
                due = settlement.at if wish is Wish.RETRY else None
                done_to_it = _DONE_TO_IT.get(wish, "")
            over = change.id in decision.given_up
            retry_at = None if due is None else due + shift_of(self._clock)
            repeated = progress.last == outcome.reply and is_held_back(outcome)
            self._emit(RecipientDone(name, sender, outcome, tries, retry_at, over, done_to_it, age, repeated))


class CommitRetry:
    """Settles and gives back, as often as it takes."""

    def __init__(self, store: Store, clock: Clock, emit: Emit, bounces: Bounces) -> None:
        self._store = store
        self._clock = clock
        self._emit = emit
        self._bounces = bounces
        self.unrecorded = 0
        """Outcomes that wait to be recorded; nothing new should begin while there are any."""
        self.has_recovered = False
        """A store that had failed works again; for whoever looks for due mail, who takes note and clears this."""
        self._unreturned: list[LeasedJob] = []
        self._failed = False

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
        while True:
            try:
                return await self._commit(settlement)
            except IdTaken:
                notifications = tuple(map(self._bounces.renamed, settlement.notifications))
                settlement = replace(settlement, notifications=notifications)

    async def _commit(self, settlement: Settlement) -> Settled:
        # The writer goes on when the wait is cancelled: then it is over only after the result is known.
        future = asyncio.ensure_future(self._store.settle(settlement))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if future.cancelled() or future.exception() is not None:
                self._emit(unrecorded(settlement.job, "we had to stop"))
            raise

    async def _insist(self, settlement: Settlement, error: StoreUnavailable) -> Settled:
        self.failed(error)
        self._emit(unrecorded(settlement.job, str(error)))
        self.unrecorded += 1
        try:
            while True:
                try:
                    await self._clock.sleep(SICK)
                    return await self._settle(settlement)
                except StoreUnavailable as again:
                    self.failed(again)
        finally:
            self.unrecorded -= 1
            self.works()

    async def give_back(self, jobs: Sequence[LeasedJob]) -> None:
        """End leases of jobs that were not attempted; what cannot be given back now is kept for later."""
        self.keep_to_return(jobs)
        mine = [job for job in self._unreturned if job.lease == self._store.lease]
        self._unreturned = []
        if not mine:
            return
        try:
            await asyncio.shield(asyncio.ensure_future(self._store.give_back(mine)))
        except StoreUnavailable as error:
            self._unreturned += mine
            self.failed(error)

    def keep_to_return(self, jobs: Sequence[LeasedJob]) -> None:
        """They are given back with the next ones."""
        self._unreturned += jobs

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
        if self._failed and not self.unrecorded:
            self._failed = False
            self._emit(QueueAvailable())
            self.has_recovered = True


def unrecorded(job: LeasedJob, reason: str) -> OutcomeUnrecorded:
    return OutcomeUnrecorded(format_id(job.message_id), names(job), reason)


def names(job: LeasedJob) -> tuple[str, ...]:
    """A job's recipients, for events."""
    return tuple(map(str, job.envelope.recipients))
