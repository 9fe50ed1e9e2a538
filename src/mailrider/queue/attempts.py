"""One attempt at a job, from its content to the commit of what came of it.

It ends in a settlement, or the job is given back: what is cut off before it had any effect counts as no try. An
exception nobody expected defers, it never bounces.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.clock import is_cancelled, shift_of
from mailrider.model.event import Bug
from mailrider.model.handover import CROWDED, Handover
from mailrider.model.outcome import BROKEN, AttemptReport, Deferred
from mailrider.model.queue_event import AttemptInterrupted
from mailrider.queue.fairness import DestinationHealth, judge_destination
from mailrider.queue.ids import format_id
from mailrider.queue.message import ROUTE_TARGET
from mailrider.queue.settle import is_last_try
from mailrider.queue.settler import names, unrecorded
from mailrider.queue.store import StoreUnavailable
from mailrider.queue.work import RefreshesDestinations

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.clock import Clock
    from mailrider.model.event import Emit
    from mailrider.model.handover import Stoppable
    from mailrider.queue.message import LeasedJob
    from mailrider.queue.places import AttemptPlaces, RunningAttempt
    from mailrider.queue.settler import CommitRetry, Committed, Settler
    from mailrider.queue.store import Store
    from mailrider.queue.work import Work
    from mailrider.smtp.content import Content

    Arrive = Callable[[RunningAttempt, IPv4Address | IPv6Address, int | None], datetime | None]
    Leave = Callable[[RunningAttempt, IPv4Address | IPv6Address], None]


class AttemptProgress:
    """Where one attempt after the other is, which one task makes; see `model.handover.Watcher`.

    A job may lead to several attempts at servers at once, and each may end before the others. `has_effect`: one of them
    came to something, which has to be recorded. `is_recording`: all have ended, and are to be recorded. `health` and
    `reply`: what it says of its destination. `handover`: how messages are given to targets: it waits for no limit,
    which would take a place from others.
    """

    __slots__ = (
        "_arrive",
        "_leave",
        "_running",
        "attempt",
        "handover",
        "has_begun",
        "has_effect",
        "health",
        "is_cut_off",
        "is_recording",
        "reply",
    )

    def __init__(self, attempt: RunningAttempt, arrive: Arrive, leave: Leave) -> None:
        self._arrive = arrive
        self._leave = leave
        self._running: list[Stoppable] = []
        self.attempt = attempt
        self.health, self.reply = DestinationHealth.UNKNOWN, BROKEN
        self.has_begun = False
        self.has_effect = False
        self.is_cut_off = False
        self.is_recording = False
        self.handover = Handover(patience=0.0, watcher=self)

    def began(self, attempt: Stoppable) -> None:
        """See `Watcher`."""
        self._running.append(attempt)
        if self.is_cut_off:
            attempt.cut_off()

    def ended(self, attempt: Stoppable) -> None:
        """See `Watcher`."""
        self._running.remove(attempt)
        self.has_effect = self.has_effect or attempt.has_effect

    @property
    def is_awaited(self) -> bool:
        """True if it sends, waits for the reply to what it sent, or records what came of it."""
        return self.is_recording or any(each.is_sending for each in self._running)

    def cut_off(self) -> bool:
        """End it. True if it comes to an end by that; False if its task is to be cancelled.

        Attempts that run are ended one by one, each reports, and those that are still to begin do the same: only they
        know what came of them in the moment in which they end.
        """
        if self.is_recording:
            return True
        self.is_cut_off = True
        for each in tuple(self._running):
            each.cut_off()
        return bool(self._running) or self.has_effect or not self.has_begun

    def arrive(self, address: IPv4Address | IPv6Address, slots: int | None) -> datetime | None:
        """See `Watcher`."""
        return self._arrive(self.attempt, address, slots)

    def leave(self, address: IPv4Address | IPv6Address) -> None:
        """See `Watcher`."""
        self._leave(self.attempt, address)


@dataclass(slots=True, eq=False)
class Attempts:
    """Makes them: of jobs that are leased in `store`, by the deliverer of each one's route."""

    store: Store
    work: Work
    settler: Settler
    commits: CommitRetry
    places: AttemptPlaces
    clock: Clock
    emit: Emit

    async def make(self, progress: AttemptProgress) -> Committed | None:
        """Make the attempt that `progress` has; None: nothing was committed. Raises `StoreUnavailable`."""
        attempt = progress.attempt
        job, places = attempt.job, self.places
        progress.health, progress.reply = DestinationHealth.UNKNOWN, BROKEN
        begun = self.store.begun
        place = 0 if begun is None else begun.begin(job.ids[0])
        progress.has_begun = True
        try:
            if progress.is_cut_off:
                await self._give_back(job)
                return None
            if job.lease != self.store.lease:
                return None  # this process was held for dead, and the job is another's
            content = job.content or await self.store.content(job)
            seconds = places.turned_away(attempt, self.clock.monotonic()) if places.crowded else None
            if seconds is None:
                report = await self._deliver(job, content, progress)
            else:
                report = self._held_back(job, seconds)
            if progress.is_cut_off and not progress.has_effect:
                await self._give_back(job)
                return None
            progress.is_recording = True
            progress.health, progress.reply = judge_destination(report), report.outcomes[0].reply
            return await self._settle(job, content, report)
        except asyncio.CancelledError:
            # What came of it, and cannot be recorded, stays leased: it is not as if nothing had been done.
            if progress.has_effect and not progress.is_recording:
                self.emit(unrecorded(job, "we had to stop"))
            elif not progress.is_recording:
                await self._give_back(job)
            raise
        except StoreUnavailable:
            await self.commits.give_back([job])
            raise
        finally:
            if begun is not None:
                begun.end(place)
            progress.has_effect = progress.is_recording = False

    async def _settle(self, job: LeasedJob, content: Content, report: AttemptReport) -> Committed | None:
        try:
            settling = await self.settler.attempted(job, content, report)
        except asyncio.CancelledError:
            self.emit(unrecorded(job, "we had to stop"))
            raise
        return self.settler.committed(settling, await self.commits.record(settling.settlement))

    async def _give_back(self, job: LeasedJob) -> None:
        """It was cut off, and it is as if nothing had been done."""
        self.emit(AttemptInterrupted(format_id(job.message_id), names(job)))
        await self.commits.give_back([job])

    def _held_back(self, job: LeasedJob, seconds: float) -> AttemptReport:
        until = self.clock.now() + timedelta(seconds=seconds)
        return AttemptReport(tuple(Deferred(each, CROWDED, eligible_at=until) for each in job.envelope.recipients))

    async def _deliver(self, job: LeasedJob, content: Content, progress: AttemptProgress) -> AttemptReport:
        deliverer = self.work.deliverers.get(job.route) or self.work.deliverers[ROUTE_TARGET]
        if is_last_try(job, self.work.rules, self.clock.now()) and isinstance(deliverer, RefreshesDestinations):
            await self._look_again(deliverer, job, content)
        try:
            return _in_queue_time(self.clock, await deliverer.deliver(job.envelope, content, progress.handover))
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, StoreUnavailable) and not progress.has_effect:
                raise  # the content could not be read
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            # Unknown means temporary: an exception that nobody expected never bounces anything.
            self.emit(Bug(f"delivery of message {format_id(job.message_id)}", error))
            return AttemptReport(tuple(Deferred(each, BROKEN) for each in job.envelope.recipients))

    async def _look_again(self, deliverer: RefreshesDestinations, job: LeasedJob, content: Content) -> None:
        """Before a message is given up: RFC 8461 5.1 wants the domain's policy checked first."""
        try:
            await deliverer.look_again(job.envelope, content)
        except StoreUnavailable:
            raise
        except Exception as error:
            # The attempt goes by what is known, then.
            self.emit(Bug(f"last look at what message {format_id(job.message_id)} must satisfy", error))


def _in_queue_time(clock: Clock, report: AttemptReport) -> AttemptReport:
    """A report whose moments (`eligible_at`) are those of the wall clock, by that clock."""
    for each in report.outcomes:
        if isinstance(each, Deferred) and each.eligible_at is not None:
            break
    else:
        return report
    shift = shift_of(clock)
    if not shift:
        return report
    return AttemptReport(
        tuple(
            replace(each, eligible_at=each.eligible_at - shift)
            if isinstance(each, Deferred) and each.eligible_at is not None
            else each
            for each in report.outcomes
        )
    )
