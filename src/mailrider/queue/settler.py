"""Decides what becomes of a job, commits it, and tells: after an attempt, and where none comes along.

What is decided stands in `queue.settle`, what senders are told in `queue.bounces`; `queue.commit_retry` commits. A
notification never keeps a state from changing, and what is committed is told only if the lease was ours.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from mailrider.model.event import Bug
from mailrider.model.queue_event import RecipientDone
from mailrider.queue.ids import format_id
from mailrider.queue.message import Fate, Settlement, Wish
from mailrider.queue.queue_clock import shift_of
from mailrider.queue.settle import as_it_stands, settle, untried

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from mailrider.clock import Clock
    from mailrider.model.event import Emit
    from mailrider.model.outcome import AttemptReport
    from mailrider.queue.bounces import Bounces
    from mailrider.queue.commit_retry import CommitRetry
    from mailrider.queue.message import Job, NewMessage, Settled
    from mailrider.queue.settle import Rules, SettleDecision
    from mailrider.queue.store import Store
    from mailrider.smtp.content import Content

LATE: Final = 200  # jobs that one step of the look for late ones settles

_DONE_TO_IT: Final = {Wish.HOLD: "held", Wish.REMOVE: "removed"}


class Settler:
    """Settles jobs. `is_down` says of a destination that it cannot be reached; `put_back` hears what was committed."""

    def __init__(
        self,
        store: Store,
        commits: CommitRetry,
        rules: Rules,
        bounces: Bounces,
        clock: Clock,
        rng: random.Random,
        emit: Emit,
        is_down: Callable[[str], bool],
        put_back: Callable[[Settlement, Settled], None],
    ) -> None:
        self._store = store
        self._commits = commits
        self._rules = rules
        self._bounces = bounces
        self._clock = clock
        self._rng = rng
        self._emit = emit
        self._is_down = is_down
        self._put_back = put_back

    # After an attempt ------------------------------------------------------------------------------------------------

    async def attempted(self, job: Job, content: Content, report: AttemptReport) -> None:
        """Decide what the report means, and commit it."""
        now = self._clock.now()
        decision = settle(job, report, self._rules, now, self._rng)
        notifications = await self._notify(job, decision, content, now)
        notifications += self._redact(job, decision, report, content, now)
        settlement = Settlement(job, decision.changes, now, notifications)
        settled = await self._commits.record(settlement)
        if settled.held:
            self._tell(settlement, settled, decision, report)
            self._put_back(settlement, settled)

    async def _notify(
        self, job: Job, decision: SettleDecision, content: Content | None, now: datetime
    ) -> tuple[NewMessage, ...]:
        """The notifications; one that quotes nothing if the message makes trouble. The state changes in any case."""
        for quoted in (content, None):
            try:
                return await self._bounces.write(job, decision, quoted, now, shift_of(self._clock))
            except Exception as error:
                self._emit(Bug(f"notification about message {format_id(job.message_id)}", error))
        return ()

    def _redact(
        self, job: Job, decision: SettleDecision, report: AttemptReport, content: Content, now: datetime
    ) -> tuple[NewMessage, ...]:
        """A notification without what it quotes, where it has to go so; none if that makes trouble."""
        try:
            return self._bounces.redacted(job, decision, report, content, now)
        except Exception as error:
            self._emit(Bug(f"notification {format_id(job.message_id)} without what it quotes", error))
            return ()

    def _tell(self, settlement: Settlement, settled: Settled, decision: SettleDecision, report: AttemptReport) -> None:
        job = settlement.job
        name, sender = format_id(job.message_id), str(job.envelope.sender)
        shift, age = shift_of(self._clock), settlement.at - job.created
        for change, progress, outcome in zip(decision.changes, job.progress, report, strict=True):
            tries = progress.tries if change.progress is None else change.progress.tries
            due, done_to_it = change.due, ""
            wish = settled.wishes.get(change.id)
            if change.fate is Fate.QUEUED and wish is not None:
                due = settlement.at if wish is Wish.RETRY else None
                done_to_it = _DONE_TO_IT.get(wish, "")
            over = change.id in decision.given_up
            retry_at = None if due is None else due + shift
            self._emit(RecipientDone(name, sender, outcome, tries, retry_at, over, done_to_it, age))

    # Where no attempt comes along ------------------------------------------------------------------------------------

    async def settle_late(self) -> None:
        """Tell senders of delays, and give up, where no attempt comes along that would."""
        rules = self._rules
        if rules.delay_warning:
            await self._settle_older(rules.delay_warning, unwarned=True)
        await self._settle_older(rules.expire, unwarned=False)

    async def _settle_older(self, age: timedelta, *, unwarned: bool) -> None:
        """What is over at a destination that can be reached is left alone: an attempt decides, the better end."""
        while True:
            now = self._clock.now()
            jobs = await self._store.claim_older(now - age, LATE, unwarned=unwarned)
            left = [job for job in jobs if self._is_over(job, now) and not self._is_down(job.destination)]
            waiting = deque(job for job in jobs if job not in left)
            try:
                while waiting:
                    await self._settle_untried(waiting[0], now)
                    waiting.popleft()
            finally:
                await self._commits.give_back([*left, *waiting])
            if len(jobs) < LATE or left:
                return

    def _is_over(self, job: Job, now: datetime) -> bool:
        return now >= job.created + self._rules.expire

    async def _settle_untried(self, job: Job, now: datetime) -> None:
        decision = untried(job, self._rules, now)
        content = await self._store.content(job) if decision.notified else None
        settlement = Settlement(job, decision.changes, now, await self._notify(job, decision, content, now))
        settled = await self._commits.record(settlement)
        if settled.held:
            if decision.given_up:  # all of them: what is over is over for each recipient
                self._tell(settlement, settled, decision, as_it_stands(job))
            self._put_back(settlement, settled)
