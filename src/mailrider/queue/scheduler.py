"""Runs deliveries: what is due, fair among destinations, and never more in memory than it needs.

Fresh messages come from memory, backlog from the store (`queue.backlog`); `queue.fairness` says which is next. Nothing
is polled: the scheduler wakes for new mail, for a free place, for the moment at which something becomes due, and when
another process says so; every few seconds it asks the store whether it changed, in case a signal got lost.

What always holds:

- a job is attempted only while its lease is ours, and every attempt ends in a settlement, or the job is given back;
- an outcome that cannot be recorded (disk full) is kept and recorded later, and nothing new is begun before;
- an exception nobody expected defers, it never bounces;
- `leave_off` begins nothing more and leaves running attempts alone: another scheduler goes on beside this one;
- `stop` ends at once what has not begun to send, and gives the others some time; what is cut off behind its final dot
  is recorded in doubt, and everything else that is cut off counts as no try.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self

from mailrider.clock import Deadline
from mailrider.model.event import Bug
from mailrider.model.handover import CROWDED, Handover
from mailrider.model.outcome import AttemptReport, Deferred
from mailrider.model.queue_event import (
    AttemptInterrupted,
    DestinationDown,
    DestinationUp,
    QueueRecovered,
)
from mailrider.model.reply import Reply
from mailrider.queue.backlog import Backlog
from mailrider.queue.deliverer import LooksAgain
from mailrider.queue.fairness import Fairness
from mailrider.queue.ids import format_id
from mailrider.queue.message import ROUTE_TARGET, Wish
from mailrider.queue.queue_clock import in_queue_time
from mailrider.queue.settle import DestinationHealth, is_last_try, judge_destination
from mailrider.queue.settler import SICK, CommitRetry, Settler, names
from mailrider.queue.shares import ALONE
from mailrider.queue.store import StoreUnavailable

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Mapping, Sequence
    from datetime import datetime
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.clock import Clock, Timer
    from mailrider.model.event import Emit
    from mailrider.model.handover import Stoppable
    from mailrider.queue.bounces import Bounces
    from mailrider.queue.deliverer import Deliverer
    from mailrider.queue.message import Job
    from mailrider.queue.places import RunningAttempt
    from mailrider.queue.settle import Rules
    from mailrider.queue.settler import Committed
    from mailrider.queue.shares import QueueShares
    from mailrider.queue.store import Store
    from mailrider.smtp.content import Content

TICK: Final = 5.0  # seconds between two questions whether another process changed the store
HOUSEKEEPING: Final = 60.0  # seconds between two renewals of leases and looks for what is late
SKEW: Final = 2.0  # seconds by which the wall clock may differ from the steady one before it has jumped
GRACE: Final = 30.0  # seconds that a stop gives attempts that send, or wait for the reply to what they sent
RECORDING: Final = 5.0  # seconds that a stop gives what was cut off to be recorded

BROKEN: Final = Reply.make(451, "4.3.0", "Internal error, it will be tried again")


@dataclass(frozen=True, slots=True)
class Work:
    """What a scheduler needs: who delivers by which route, and the rules for what comes of it."""

    deliverers: Mapping[str, Deliverer]
    rules: Rules
    bounces: Bounces
    parallelism: int = 16
    grace: float = GRACE
    shares: QueueShares = ALONE


class _Worker:
    """Makes one attempt after the other, and says where it is; see `model.handover.Watcher`.

    `is_recording`: its attempt has ended, and is to be recorded. `handover`: how it gives messages to targets: it waits
    for no limit, which would take a place from others.
    """

    __slots__ = ("_running", "_scheduler", "attempt", "handover", "is_recording")

    def __init__(self, scheduler: Scheduler, attempt: RunningAttempt) -> None:
        self._scheduler = scheduler
        self._running: list[Stoppable] = []
        self.attempt = attempt
        self.is_recording = False
        self.handover = Handover(patience=0.0, watcher=self)

    def began(self, attempt: Stoppable) -> None:
        """See `Watcher`."""
        self._running.append(attempt)

    def ended(self, attempt: Stoppable) -> None:
        """See `Watcher`."""
        self._running.remove(attempt)

    @property
    def is_awaited(self) -> bool:
        """True if it sends, waits for the reply to what it sent, or records what came of it."""
        return self.is_recording or any(each.is_sending for each in self._running)

    def cut_off(self) -> bool:
        """End its attempt. True if that reports what it came to; False: it has no effect, and nothing was done."""
        if not any(each.has_effect for each in self._running):
            return False
        for each in tuple(self._running):
            each.cut_off()
        return True

    def arrive(self, address: IPv4Address | IPv6Address, slots: int | None) -> datetime | None:
        """See `Watcher`."""
        return self._scheduler.arrive(self.attempt, address, slots)

    def leave(self, address: IPv4Address | IPv6Address) -> None:
        """See `Watcher`."""
        self._scheduler.leave(self.attempt, address)


class Scheduler:
    """Delivers what is in a store, while it is entered. The store is open before and closed after."""

    def __init__(self, store: Store, work: Work, clock: Clock, rng: random.Random, emit: Emit) -> None:
        self._store = store
        self._work = work
        self._clock = clock
        self._rng = rng
        self._emit = emit
        self._fairness = Fairness(work.parallelism, rng, work.rules.schedule)
        self._backlog = Backlog(store, self._fairness, clock)
        self._commits = CommitRetry(store, clock, emit, work.bounces)
        self._settler = Settler(store, self._commits, work.rules, work.bounces, clock, rng, emit)
        self._workers: dict[asyncio.Task[None], _Worker] = {}
        self._refiller: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._slow_timer: Timer | None = None
        self._refilling = False
        self._stopping = False
        self._offset = 0.0
        self._drained: datetime | None = None

    async def __aenter__(self) -> Self:
        if self._store.recovered:
            self._emit(QueueRecovered(self._store.recovered))
        self._offset = self._clock_offset()
        self._refiller = asyncio.create_task(self._refill_for_ever())
        self._tasks = [self._refiller, asyncio.create_task(self._keep_house())]
        self._work.shares.join(self)
        self.look()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._commits.give_back(())

    async def leave_off(self) -> None:
        """Begin nothing more, and give back what waits in memory. Running attempts go on: see `finish` and `stop`."""
        self._stopping = True
        self._work.shares.leave(self)
        for timer in (self._timer, self._slow_timer):
            if timer is not None:
                timer.cancel()
        self._wake.set()  # for the refiller to see that it is over; what it is leasing is not left lying
        if self._refiller is not None:
            await self._within(RECORDING, asyncio.wait([self._refiller]))
        await self._commits.give_back(self._fairness.withdraw())

    async def finish(self) -> None:
        """Wait until all running attempts have come to their own end; `leave_off` before that."""
        while self._workers:
            await asyncio.wait(self._workers)

    async def stop(self) -> None:
        """End: at once what has not begun to send, within a bound what has."""
        self._stopping = True
        self._store.begun.forget()
        for task, worker in list(self._workers.items()):
            if not worker.is_awaited:
                self._cut_off(task, worker)
        await self.leave_off()
        if await self._within(self._work.grace, self.finish()):
            return
        for task, worker in list(self._workers.items()):
            self._cut_off(task, worker)
        if await self._within(RECORDING, self.finish()):
            return
        left = list(self._workers)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _within(self, seconds: float, work: Awaitable[object]) -> bool:
        """Wait for it; False if it takes longer."""
        try:
            async with Deadline(self._clock, self._clock.monotonic() + seconds):
                await work
        except TimeoutError:
            return False
        return True

    @staticmethod
    def _cut_off(task: asyncio.Task[None], worker: _Worker) -> None:
        """End an attempt: it reports if it had any effect, and else its job is given back as if nothing had been."""
        if not worker.cut_off():
            task.cancel()

    @property
    def has_left_off(self) -> bool:
        """True if it begins nothing more: what comes in is for others."""
        return self._stopping

    @property
    def destinations_down(self) -> int:
        """How many destinations are known to be out of reach at the moment."""
        return self._fairness.count_down(self._clock.monotonic())

    # What comes in ---------------------------------------------------------------------------------------------------

    def has_room(self, jobs: Sequence[Job]) -> bool:
        """True if a new message with these jobs may come from memory: then it is to be leased from the beginning."""
        if self._stopping or self._commits.unrecorded:
            return False
        return self._fairness.has_room(jobs, self._clock.monotonic())

    def offer(self, jobs: Sequence[Job]) -> None:
        """Leased jobs of a new message, with their content."""
        self._take_in(jobs)

    def expect(self, destinations: Sequence[str]) -> None:
        """New mail for these was stored, and waits there."""
        self._idle.clear()
        if self._backlog.expect(destinations):
            self._wake.set()

    def give_up(self, jobs: Sequence[Job]) -> None:
        """Leased jobs of a message whose submitter went away while it was stored: if it was, it waits there."""
        self._tasks.append(asyncio.create_task(self._return(jobs)))

    async def _return(self, jobs: Sequence[Job]) -> None:
        await self._commits.give_back(jobs)
        self.look()

    def look(self, *, reopen: bool = False) -> None:
        """There may be something due in the store. `reopen`: destinations that were down are tried at once."""
        if reopen:
            self._fairness.reopen(self._clock.monotonic())
        self._backlog.look()
        self._idle.clear()
        self._wake.set()

    async def idle(self) -> None:
        """Wait until nothing is due, but what waits for its destination to come back."""
        await self._idle.wait()

    @property
    def is_draining(self) -> bool:
        """True if what becomes due is left to others."""
        return self._drained is not None

    async def drain(self) -> None:
        """Leave to others what becomes due from now on, and wait until nothing else is to be done.

        What senders are told of that mail goes out as well.
        """
        self._drained = self._backlog.horizon = self._clock.now()
        self.look()
        await self.idle()

    def _take_in(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        if self._stopping:
            self.give_up(jobs)
            return
        self._idle.clear()
        now = self._clock.monotonic()
        for job in jobs:
            self._fairness.offer(job, now)
            if self._fairness.reopens(job.destination, now) is not None:
                self._put_away(job.destination)
        self._start()

    def _start(self) -> None:
        """As many workers as there are jobs that can be started."""
        while (attempt := self._next()) is not None:
            worker = _Worker(self, attempt)
            task = asyncio.create_task(self._run(worker))
            self._workers[task] = worker
            task.add_done_callback(self._ended)

    def _next(self) -> RunningAttempt | None:
        if self._stopping or self._commits.unrecorded or not self._fairness.ready:
            return None
        attempt = self._fairness.take(self._clock.monotonic())
        if attempt is None:
            if not self._fairness.places.has_fast:
                self._work.shares.wants(self)
        elif self._slow_timer is None:
            self._watch_places()
        return attempt

    def _watch_places(self) -> None:
        due = self._fairness.places.next_due
        self._slow_timer = None if due is None or self._stopping else self._clock.call_at(due, self._move_lasting)

    def _move_lasting(self) -> None:
        moved = self._fairness.places.move_lasting(self._clock.monotonic())
        if moved:
            self._fairness.leave_memory(moved)
            self._go_on()
        self._watch_places()

    def _go_on(self) -> None:
        """Attempts have moved to slow places: others may begin, and have the memory that was theirs."""
        self._start()
        if self._backlog.wants():
            self._wake.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._workers[task]
        self._start()  # what came in since it found nothing more to do
        self._note_idleness()

    # Attempts --------------------------------------------------------------------------------------------------------

    async def _run(self, worker: _Worker) -> None:
        """Attempt one job after another, while there are any."""
        backlog = self._backlog
        attempt: RunningAttempt | None = worker.attempt
        while attempt is not None:
            worker.attempt = attempt
            await self._attempt(worker)
            if (backlog.unseen or backlog.more) and backlog.wants((attempt.job.destination,)):
                self._wake.set()
            attempt = self._next()
            if self._fairness.ready:  # its window has grown: there is a place for another one, too
                self._start()

    def arrive(self, attempt: RunningAttempt, address: IPv4Address | IPv6Address, slots: int | None) -> datetime | None:
        """See `Watcher.arrive`."""
        was_slow = attempt.is_slow
        seconds = self._fairness.places.arrive(attempt, address, self._clock.monotonic(), slots)
        if attempt.is_slow and not was_slow:
            self._fairness.leave_memory((attempt,))
            self._go_on()
        return None if seconds is None else self._clock.now() + timedelta(seconds=seconds)

    def leave(self, attempt: RunningAttempt, address: IPv4Address | IPv6Address) -> None:
        """See `Watcher.leave`."""
        self._fairness.places.leave(attempt, address, self._clock.monotonic())

    async def _attempt(self, worker: _Worker) -> None:
        attempt = worker.attempt
        job, health, reply = attempt.job, DestinationHealth.UNKNOWN, BROKEN
        begun = self._store.begun
        place = begun.begin(job.ids[0])
        try:
            if job.lease != self._store.lease:
                return  # this process was held for dead, and the job is another's
            content = job.content or await self._store.content(job)
            places, seconds = self._fairness.places, None
            if places.crowded:
                seconds = places.turned_away(attempt, self._clock.monotonic())
            report = (
                await self._deliver(job, content, worker.handover) if seconds is None else self._held_back(job, seconds)
            )
            worker.is_recording = True
            health, reply = judge_destination(report), report.outcomes[0].reply
            committed = await self._settler.attempted(job, content, report)
            if committed is not None:
                self._come_back(committed)
        except asyncio.CancelledError:
            self._emit(AttemptInterrupted(format_id(job.message_id), names(job)))
            await self._commits.give_back([job])
            raise
        except StoreUnavailable as error:
            self._commits.failed(error)
            self._wake_in(SICK)
            await self._commits.give_back([job])
        except Exception as error:
            # Where it came from nobody knows, so neither whether the message went out: it stays leased, and is not
            # tried again before this process ends.
            self._emit(Bug(f"queue: message {format_id(job.message_id)}", error))
        finally:
            begun.end(place)
            worker.is_recording = False
            self._finish(attempt, health, reply)

    def _held_back(self, job: Job, seconds: float) -> AttemptReport:
        until = self._clock.now() + timedelta(seconds=seconds)
        return AttemptReport(tuple(Deferred(each, CROWDED, eligible_at=until) for each in job.envelope.recipients))

    async def _deliver(self, job: Job, content: Content, handover: Handover) -> AttemptReport:
        deliverer = self._work.deliverers.get(job.route) or self._work.deliverers[ROUTE_TARGET]
        if is_last_try(job, self._work.rules, self._clock.now()) and isinstance(deliverer, LooksAgain):
            await self._look_again(deliverer, job, content)
        try:
            return in_queue_time(self._clock, await deliverer.deliver(job.envelope, content, handover))
        except StoreUnavailable:
            raise  # the content could not be read
        except Exception as error:
            # Unknown means temporary: an exception that nobody expected never bounces anything.
            self._emit(Bug(f"delivery of message {format_id(job.message_id)}", error))
            return AttemptReport(tuple(Deferred(each, BROKEN) for each in job.envelope.recipients))

    async def _look_again(self, deliverer: LooksAgain, job: Job, content: Content) -> None:
        """Before a message is given up: RFC 8461 5.1 wants the domain's policy checked first."""
        try:
            await deliverer.look_again(job.envelope, content)
        except StoreUnavailable:
            raise
        except Exception as error:
            # The attempt goes by what is known, then.
            self._emit(Bug(f"last look at what message {format_id(job.message_id)} must satisfy", error))

    def _come_back(self, committed: Committed) -> None:
        """What was put back comes again: wake for it."""
        settlement, wishes = committed.settlement, committed.settled.wishes
        if settlement.notifications and self._drained is not None and settlement.job.created <= self._drained:
            # Only of what was there in the beginning: in company of a busy process there would be no end.
            self._backlog.horizon = self._clock.now()
        if settlement.notifications or (wishes and Wish.RETRY in wishes.values()):
            self.look()
        due = [change.due for change in settlement.changes if change.due is not None]
        if due:
            self._wake_in(max(0.0, (min(due) - self._clock.now()).total_seconds()))

    def _finish(self, attempt: RunningAttempt, health: DestinationHealth, reply: Reply) -> None:
        job = attempt.job
        job.content = None
        was_down = self._fairness.is_down(job.destination)
        pause, moved = self._fairness.finish(attempt, health, self._clock.monotonic())
        if pause is not None:
            self._emit(DestinationDown(job.destination, pause, reply))
            self._work.shares.went_down(self, job.destination, pause, reply)
            self._put_away(job.destination)
            self._wake_in(pause)
        elif was_down and health is DestinationHealth.TOOK:
            self._emit(DestinationUp(job.destination))
            self._work.shares.came_back(self, job.destination)
        if moved:
            self._go_on()
        if self._commits.has_recovered:
            self._look_after_recovery()

    @property
    def attempts(self) -> int:
        """See `Member`."""
        return self._fairness.places.running

    # What other processes know ---------------------------------------------------------------------------------------

    def rest(self, destination: str, seconds: float) -> None:
        """See `Member`."""
        self._fairness.rest(destination, seconds, self._clock.monotonic())
        self._put_away(destination)
        self._wake_in(seconds)

    def resume(self, destination: str) -> None:
        """See `Member`."""
        self._fairness.resume(destination, self._clock.monotonic())
        self.look()

    def set_parallelism(self, attempts: int) -> None:
        """See `Member`."""
        self._fairness.resize(attempts)
        self.look()

    def _look_after_recovery(self) -> None:
        self._commits.has_recovered = False
        self.look()

    def _put_away(self, destination: str) -> None:
        """What waits for a destination that is down waits in the store: memory is for those that move."""
        waiting = self._fairness.withdraw(destination)
        if not waiting:
            return
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(self._commits.give_back(waiting)))

    # The store's backlog ---------------------------------------------------------------------------------------------

    async def _refill_for_ever(self) -> None:
        while not self._stopping:
            await self._wake.wait()
            self._wake.clear()
            self._refilling = True
            has_looked = await self._try_to_refill()
            self._refilling = False
            if has_looked:  # a store that fails is asked again when it had its time, not at once
                self._note_idleness()

    async def _try_to_refill(self) -> bool:
        try:
            await self._refill()
        except StoreUnavailable as error:
            self._commits.failed(error)
        except Exception as error:
            self._emit(Bug("queue: looking for due mail", error))
        else:
            return True
        self._wake_in(SICK)
        return False

    async def _refill(self) -> None:
        if self._commits.owes:
            await self._commits.give_back(())
        self._fairness.refresh(self._clock.monotonic())
        self._start()
        async with aclosing(self._backlog.refill()) as refill:
            async for jobs in refill:
                self._take_in(jobs)
        if self._backlog.next_wake is not None:
            self._wake_in(self._backlog.next_wake)
        self._commits.works()
        if self._commits.has_recovered:
            self._look_after_recovery()

    def _wake_in(self, seconds: float) -> None:
        """Look at the store again by then; an earlier wish stays."""
        when = self._clock.monotonic() + seconds
        if self._stopping or (self._timer is not None and self._timer_at <= when):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._clock.call_at(when, self._due)

    def _due(self) -> None:
        self._timer = None
        self.look()

    def _note_idleness(self) -> None:
        moving = self._workers or self._refilling or self._wake.is_set() or not self._fairness.is_idle
        if not moving and not self._backlog.is_empty:
            self._wake.set()
        elif not moving:
            self._idle.set()

    # Housekeeping ----------------------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        """Look whether the store changed; now and then renew leases, and find what is late."""
        elapsed = 0.0
        while True:
            await self._clock.sleep(TICK)
            elapsed += TICK
            try:
                if elapsed >= HOUSEKEEPING:
                    elapsed = 0.0
                    if await self._store.keep_alive(self._clock.now()):
                        self.look()
                    if self._stopping:
                        await self._commits.give_back(())
                        continue
                    async with aclosing(self._settler.settle_late(self._fairness.is_down)) as late:
                        async for committed in late:
                            self._come_back(committed)
                    if self._commits.has_recovered:
                        self._look_after_recovery()
                    # What was leased for that no look could see; and if a signal got lost, mail is late, not lost.
                    self.look()
                if await self._store.changed_elsewhere() or self._clock_jumped():
                    self.look()
            except StoreUnavailable as error:
                self._commits.failed(error)
                self._wake_in(SICK)
            except Exception as error:
                self._emit(Bug("queue: housekeeping", error))

    def _clock_offset(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _clock_jumped(self) -> bool:
        """True if the wall clock was set: what is due is not what the timer believes."""
        offset = self._clock_offset()
        jumped, self._offset = abs(offset - self._offset) > SKEW, offset
        return jumped
