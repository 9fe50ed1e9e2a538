"""Runs deliveries: what is due, fair among destinations, and never more in memory than it needs.

Fresh messages come from memory, backlog from the store (`queue.backlog`); `queue.fairness` says which is next. Nothing
is polled: the scheduler wakes for new mail, for a free place, for the moment at which something becomes due, and when
another process says so; every few seconds it asks the store whether it changed, in case a signal got lost.

What always holds:

- a job is attempted only while its lease is ours (`queue.attempts`);
- an outcome that cannot be recorded (disk full) is kept and recorded later, and nothing new is begun before;
- `leave_off` begins nothing more and leaves running attempts alone: another scheduler goes on beside this one;
- `stop` ends what runs (`queue.stopping`).
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from mailrider.clock import NEVER, Alarm
from mailrider.model.event import Bug
from mailrider.model.queue_event import DestinationDown, DestinationUp, QueueRecovered
from mailrider.queue.attempts import AttemptProgress, Attempts
from mailrider.queue.backlog import Backlog
from mailrider.queue.fairness import DestinationHealth, Fairness
from mailrider.queue.housekeeping import Housekeeping
from mailrider.queue.ids import format_id
from mailrider.queue.message import Wish
from mailrider.queue.settler import SICK, CommitRetry, Settler
from mailrider.queue.stopping import RECORDING, all_ended, cut_off, end_within, is_done_within
from mailrider.queue.store import StoreUnavailable

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from mailrider.clock import Clock
    from mailrider.model.event import Emit
    from mailrider.queue.message import LeasedJob
    from mailrider.queue.places import RunningAttempt
    from mailrider.queue.settler import Committed
    from mailrider.queue.store import Store
    from mailrider.queue.work import Work
    from mailrider.settings.types import IPAddress


class Scheduler:
    """Delivers what is in a store, while it is entered. The store is open before and closed after."""

    def __init__(self, store: Store, work: Work, clock: Clock, rng: random.Random, emit: Emit) -> None:
        self._store = store
        self._work = work
        self._clock = clock
        self._emit = emit
        self._fairness = Fairness(work.parallelism, rng, work.rules.schedule)
        self._backlog = Backlog(store, self._fairness, clock)
        self._commits = CommitRetry(store, clock, emit, work.bounces)
        settler = Settler(work.rules, work.bounces, clock, rng, emit)
        self._attempts = Attempts(store, work, settler, self._commits, self._fairness.places, clock, emit)
        self._housekeeping = Housekeeping(store, work.rules, settler, self._commits, clock, self._fairness.down_because)
        self._running: dict[asyncio.Task[None], AttemptProgress] = {}
        self._refiller: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._due = Alarm(clock, self.look)
        self._lasting = Alarm(clock, self._move_lasting)
        self._refilling = False
        self._stopping = False
        self._drained: datetime | None = None

    async def __aenter__(self) -> Self:
        if self._store.recovered:
            self._emit(QueueRecovered(self._store.recovered))
        self._refiller = asyncio.create_task(self._refill_for_ever())
        self._housekeeping.begin()
        self._tasks = [self._refiller, asyncio.create_task(self._run_housekeeping())]
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
        self._housekeeping.only_renews = True
        self._due.cancel()
        self._lasting.cancel()
        self._wake.set()  # for the refiller to see that it is over; what it is leasing is not left lying
        if self._refiller is not None:
            await is_done_within(RECORDING, asyncio.wait([self._refiller]), self._clock)
        await self._commits.give_back(self._fairness.withdraw())

    async def finish(self) -> None:
        """Wait until all running attempts have come to their own end; `leave_off` before that."""
        await all_ended(self._running)

    async def stop(self) -> None:
        """End: at once what has not begun to send, within a bound what has."""
        self._stopping = True
        if self._store.begun is not None:
            self._store.begun.forget()
        cut_off(self._running, sparing_awaited=True)
        await self.leave_off()
        await end_within(self._work.grace, self._running, self._clock)

    @property
    def has_left_off(self) -> bool:
        """True if it begins nothing more: what comes in is for others."""
        return self._stopping

    @property
    def destinations_down(self) -> int:
        """How many destinations are known to be out of reach at the moment."""
        return self._fairness.count_down(self._clock.monotonic())

    # What comes in ---------------------------------------------------------------------------------------------------

    def has_room(self, jobs: Sequence[LeasedJob]) -> bool:
        """True if a new message with these jobs may come from memory: then it is to be leased from the beginning."""
        is_open = not (self._stopping or self._commits.unrecorded)
        return is_open and self._fairness.has_room(jobs, self._clock.monotonic())

    def expect(self, destinations: Sequence[str]) -> None:
        """New mail for these was stored, and waits there."""
        self._idle.clear()
        if self._backlog.expect(destinations):
            self._wake.set()

    def give_up(self, jobs: Sequence[LeasedJob]) -> None:
        """Leased jobs of a message whose submitter went away while it was stored: if it was, it waits there."""
        self._give_back(jobs, then=self.look)

    def _give_back(self, jobs: Sequence[LeasedJob], then: Callable[[], object] = lambda: None) -> None:
        """End leases of jobs that were not attempted, as soon as that can be; at the latest at the end."""
        self._commits.keep_to_return(jobs)
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(self._return(then)))

    async def _return(self, then: Callable[[], object]) -> None:
        await self._commits.give_back(())
        then()

    def look(self, *, reopen: bool = False) -> None:
        """There may be something due in the store. `reopen`: destinations that were down are tried at once."""
        if reopen:
            self._fairness.reopen(self._clock.monotonic())
            self._work.shares.reopened(self)
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
        """Leave to others what becomes due from now on; wait for the rest, and for what senders are told of it."""
        self._drained = self._backlog.horizon = self._clock.now()
        self.look()
        await self.idle()

    def offer(self, jobs: Sequence[LeasedJob]) -> None:
        """Leased jobs, those of a new message with their content."""
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
        """As many tasks as there are jobs that can be started."""
        while (attempt := self._next()) is not None:
            progress = AttemptProgress(attempt, self._arrive, self._leave)
            task = asyncio.create_task(self._run(progress))
            self._running[task] = progress
            task.add_done_callback(self._ended)

    def _next(self) -> RunningAttempt | None:
        if self._stopping or self._commits.unrecorded or not self._fairness.ready:
            return None
        attempt = self._fairness.take(self._clock.monotonic())
        if attempt is None:
            if not self._fairness.places.has_fast:
                self._work.shares.wants(self)
        elif self._lasting.at == NEVER:
            self._watch_places()
        return attempt

    def _watch_places(self) -> None:
        due = self._fairness.places.next_due
        if due is not None and not self._stopping:
            self._lasting.set(due)

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
        del self._running[task]
        self._start()  # what came in since it found nothing more to do
        self._note_idleness()

    # Attempts --------------------------------------------------------------------------------------------------------

    async def _run(self, progress: AttemptProgress) -> None:
        """Attempt one job after another, while there are any."""
        backlog = self._backlog
        attempt: RunningAttempt | None = progress.attempt
        while attempt is not None:
            progress.attempt = attempt
            try:
                committed = await self._attempts.make(progress)
                if committed is not None:
                    self._come_back(committed)
            except StoreUnavailable as error:
                self._store_failed(error)
            except Exception as error:
                # Where it came from nobody knows, so neither whether the message went out: it stays leased, and is not
                # tried again before this process ends.
                self._emit(Bug(f"queue: message {format_id(attempt.job.message_id)}", error))
            finally:
                self._finish(progress)
            if (backlog.unseen or backlog.more) and backlog.wants((attempt.job.destination,)):
                self._wake.set()
            attempt = self._next()
            if self._fairness.ready:  # its window has grown: there is a place for another one, too
                self._start()

    def _arrive(self, attempt: RunningAttempt, address: IPAddress, slots: int | None) -> datetime | None:
        """See `Watcher.arrive`."""
        was_slow = attempt.is_slow
        seconds = self._fairness.places.arrive(attempt, address, self._clock.monotonic(), slots)
        if attempt.is_slow and not was_slow:
            self._fairness.leave_memory((attempt,))
            self._go_on()
        return None if seconds is None else self._clock.now() + timedelta(seconds=seconds)

    def _leave(self, attempt: RunningAttempt, address: IPAddress) -> None:
        """See `Watcher.leave`."""
        self._fairness.places.leave(attempt, address, self._clock.monotonic())

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

    def _finish(self, progress: AttemptProgress) -> None:
        attempt, health, reply = progress.attempt, progress.health, progress.reply
        job = attempt.job
        job.content = None
        was_down = self._fairness.down_because(job.destination) is not None
        pause, moved = self._fairness.finish(attempt, health, self._clock.monotonic(), reply)
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
            self._commits.has_recovered = False
            self.look()

    @property
    def attempts(self) -> int:
        """See `DeliveringProcess`."""
        return self._fairness.places.running

    # What other processes know ---------------------------------------------------------------------------------------

    def rest(self, destination: str, seconds: float) -> None:
        """See `DeliveringProcess`."""
        self._fairness.rest(destination, seconds, self._clock.monotonic())
        self._put_away(destination)
        self._wake_in(seconds)

    def resume(self, destination: str) -> None:
        """See `DeliveringProcess`."""
        self._fairness.resume(destination, self._clock.monotonic())
        self.look()

    def resume_all(self) -> None:
        """See `DeliveringProcess`."""
        self._fairness.reopen(self._clock.monotonic())
        self.look()

    def set_parallelism(self, attempts: int) -> None:
        """See `DeliveringProcess`."""
        self._fairness.resize(attempts)
        self.look()

    def _put_away(self, destination: str) -> None:
        """What waits for a destination that is down waits in the store: memory is for those that move."""
        waiting = self._fairness.withdraw(destination)
        if waiting:
            self._give_back(waiting)

    # The store's backlog ---------------------------------------------------------------------------------------------

    async def _refill_for_ever(self) -> None:
        while not self._stopping:
            await self._wake.wait()
            self._wake.clear()
            self._refilling = True
            try:
                await self._refill()
            except StoreUnavailable as error:
                self._store_failed(error)
            except Exception as error:
                self._emit(Bug("queue: looking for due mail", error))
                self._wake_in(SICK)
            else:  # a store that fails is asked again when it had its time, not at once
                self._refilling = False
                self._note_idleness()
            finally:
                self._refilling = False

    async def _refill(self) -> None:
        if self._commits.owes:
            await self._commits.give_back(())
        self._fairness.refresh(self._clock.monotonic())
        self._start()
        async with aclosing(self._backlog.refill()) as refill:
            async for jobs in refill:
                self.offer(jobs)
        if self._backlog.next_wake is not None:
            self._wake_in(self._backlog.next_wake)
        self._commits.works()
        if self._commits.has_recovered:
            self._commits.has_recovered = False
            self.look()

    def _wake_in(self, seconds: float) -> None:
        """Look at the store again by then; an earlier wish stays."""
        if not self._stopping:
            self._due.set(self._clock.monotonic() + seconds)

    def _store_failed(self, error: StoreUnavailable) -> None:
        self._commits.failed(error)
        self._wake_in(SICK)

    def _note_idleness(self) -> None:
        moving = self._running or self._refilling or self._wake.is_set() or not self._fairness.is_idle
        if not moving and not self._backlog.is_empty:
            self._wake.set()
        elif not moving:
            self._idle.set()

    async def _run_housekeeping(self) -> None:
        while True:
            try:
                async with aclosing(self._housekeeping.tick()) as found:
                    async for committed in found:
                        if committed is None:
                            self.look()
                        else:
                            self._come_back(committed)
            except StoreUnavailable as error:
                self._store_failed(error)
            except Exception as error:
                self._emit(Bug("queue: housekeeping", error))
