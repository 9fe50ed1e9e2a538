"""A queue as everybody else sees it: messages in, deliveries out, and a look inside.

`submit` returns once a message is durable. A queue that is opened with `work` runs deliveries as well; one without only
takes messages in, and tells those processes that deliver.

Messages go into one shard, that of its store. A queue may have others: what was left behind in them it delivers as well
(`left_behind`), and commands of operators go to all of them (`others`).
"""

from __future__ import annotations

import asyncio
import functools
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self

from mailrider.errors import InvalidValue
from mailrider.model.bounded_map import BoundedMap
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import QUARANTINED, AttemptReport, Deferred, Delivered, Failed
from mailrider.model.queue_event import MessageQueued, OperatorActed
from mailrider.model.reply import Reply
from mailrider.queue.direct_bounces import DirectBounces
from mailrider.queue.fairness import BY_DOMAIN, jobs_of
from mailrider.queue.ids import PLACE_BITS, format_id, moment
from mailrider.queue.message import INLINE, ROUTE_TARGET, ContentInfo, Filter, NewMessage, renamed
from mailrider.queue.scheduler import Scheduler
from mailrider.queue.sqlite.shards import EVERY, added
from mailrider.queue.sqlite.signals import QueueDirectory, Signal, SignalListener
from mailrider.queue.store import CommandResult, IdTaken, QueueCommand, StoreUnavailable
from mailrider.smtp.content import CHUNK

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime

    from mailrider.clock import Clock
    from mailrider.model.address import ReversePath
    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Emit
    from mailrider.model.handover import Handover
    from mailrider.queue.fairness import DestinationOf
    from mailrider.queue.ids import IdSource
    from mailrider.queue.message import Stats
    from mailrider.queue.sqlite.shards import SQLiteShards
    from mailrider.queue.store import Store
    from mailrider.queue.work import Work
    from mailrider.smtp.content import Content


MOST_RECIPIENTS: Final = 50_000  # of a message whose id was given out before it was known
MAX_ACCEPTED: Final = 10_000  # messages with such an id that can be cancelled with certainty after they were accepted

_STOPPED: Final = Reply.make(451, "4.3.2", "Stopped before it could be queued")

PREPARED: Final = timedelta(minutes=10)  # that checks and the writing of a large content may take


class DeliveryQueue:
    """A queue, open while it is entered."""

    def __init__(
        self,
        store: Store,
        work: Work | None,
        ids: IdSource,
        clock: Clock,
        rng: random.Random,
        emit: Emit,
        *,
        place: QueueDirectory | None = None,
        destination_of: DestinationOf = BY_DOMAIN,
        reserved: IdSource | None = None,
        left_behind: Sequence[DeliveryQueue] = (),
        others: SQLiteShards | None = None,
        listens: bool = True,
    ) -> None:
        """`work` None: nothing is delivered here. `place` None: no other process can be there. `reserved`: where
        messages that arrive have their ids from. `left_behind`: shards that are only delivered from; they do not listen
        (`listens`), since this queue tells them.
        """
        self.store = store
        self._ids = ids
        self._reserved = reserved
        self._clock = clock
        self._emit = emit
        self._place = place
        self._destination_of = destination_of
        self._unqueued = None if work is None else DirectBounces(work.bounces, ids, clock, rng)
        self._left_behind = left_behind
        self._others = others
        self._listens = listens
        self._scheduler = None if work is None else Scheduler(store, work, clock, rng, emit)
        self._stack = AsyncExitStack()
        self._unaccepted: set[int] = set()  # ids that were given out, of messages that are not stored yet
        self._accepted: BoundedMap[int, int] = BoundedMap(MAX_ACCEPTED)  # how many recipients the last ones of them had
        self._adding: dict[int, asyncio.Future[None]] = {}  # those of them that are being stored

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.store)
            self._ids.go_on(self.store.last_id, self.store.lease)
            for each in self._left_behind:
                await stack.enter_async_context(each)
            if self._scheduler is not None:
                await stack.enter_async_context(self._scheduler)
                if self._place is not None and self._listens:
                    await stack.enter_async_context(SignalListener(self._place, self._hear, self._emit))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._left_behind:
                await self.stop()  # all at once: each has some time for what it sends
        finally:
            await self._stack.aclose()

    async def leave_off(self) -> None:
        """Begin no more attempts; who else delivers from the store goes on with what waits. Running ones go on."""
        await asyncio.gather(*(each.leave_off() for each in self._schedulers))
        if self._scheduler is not None:
            self._send_signal(Signal.LOOK)

    async def finish(self) -> None:
        """Wait until all attempts have come to their own end."""
        await asyncio.gather(*(each.finish() for each in self._schedulers))

    async def stop(self) -> None:
        """End at once what has not begun to send, within a bound what has. Messages are taken until it is closed."""
        await asyncio.gather(*(each.stop() for each in self._schedulers))

    @property
    def _schedulers(self) -> list[Scheduler]:
        """Its own, and those of the shards that were left behind."""
        queues = (self, *self._left_behind)
        return [each._scheduler for each in queues if each._scheduler is not None]

    def _hear(self, signal: Signal) -> None:
        for each in self._schedulers:
            if not each.is_draining:
                each.look(reopen=signal is Signal.RETRY)

    def _send_signal(self, signal: Signal) -> None:
        if self._place is not None:
            self._place.send(signal)

    def new_id(self) -> int:
        """The id for a message that is submitted later, so that it can be cancelled whatever became of `submit`."""
        id = self._ids.take(MOST_RECIPIENTS)
        self._unaccepted.add(id)
        return id

    async def submit(
        self, envelope: Envelope, content: Content, *, route: str = ROUTE_TARGET, id: int | None = None
    ) -> int:
        """Accept a message; returns its id once it is durable. `id`: one of `new_id`. Raises `StoreUnavailable`.

        If it is cancelled meanwhile the message may have been accepted all the same: see `cancel`.
        """
        if id is not None and (id not in self._unaccepted or id in self._adding):
            raise InvalidValue("the id of a new message comes from new_id, for one message only")
        message = await self._message(envelope, content, route, id)
        scheduler = self._scheduler
        jobs = [] if scheduler is None else jobs_of(message, self._destination_of, self.store.lease)
        leased = scheduler is not None and scheduler.has_room(jobs)
        try:
            if id is not None:
                await self._add_known(message, leased=leased)
            else:
                try:
                    await self.store.add(message, leased=leased)
                except IdTaken:
                    leased = False  # the jobs have ids of other recipients
                    message = await self._add_renamed(message)
        except asyncio.CancelledError:
            if scheduler is not None and leased:
                scheduler.give_up(jobs)  # the store goes on: leased and not offered it would lie there for ever
            raise
        name, sender = format_id(message.id), envelope.sender.text
        self._emit(MessageQueued(name, sender, len(envelope.recipients), content.size))
        if scheduler is None:
            self._send_signal(Signal.LOOK)
        elif leased:
            scheduler.offer(jobs)
        elif scheduler.has_left_off:
            self._send_signal(Signal.LOOK)
        else:
            scheduler.expect([job.destination for job in jobs])
        return message.id

    async def _add_renamed(self, message: NewMessage) -> NewMessage:
        """Store a message under another id than its own, which is taken; returns it as it is now."""
        while True:
            message = renamed(message, self._ids.take(len(message.envelope.recipients)))
            with suppress(IdTaken):
                await self.store.add(message, leased=False)
                return message

    async def _add_known(self, message: NewMessage, *, leased: bool) -> None:
        if message.id not in self._unaccepted:
            raise InvalidValue("the message was cancelled while its content was written")
        count = len(message.envelope.recipients)
        # The store goes on when the wait is cancelled: whoever cancels the message waits for the result.
        adding = self._adding[message.id] = asyncio.ensure_future(self.store.add(message, leased=leased))
        adding.add_done_callback(functools.partial(self._added, message.id, count))
        await asyncio.shield(adding)

    def _added(self, id: int, count: int, adding: asyncio.Future[None]) -> None:
        self._adding.pop(id, None)
        if not adding.cancelled() and adding.exception() is None:
            self._unaccepted.discard(id)
            self._accepted[id] = count

    async def cancel(self, id: int) -> bool:
        """Take a message back. True: it is certain that it is not delivered, and it is not in the queue any more.

        False: it is too late for at least one recipient, who has the message, may have it, or is being given it; or the
        id does not come from `new_id` of this process. What is still queued is removed in any case.
        """
        adding = self._adding.get(id)
        if adding is not None:
            await asyncio.wait([adding])
            await asyncio.sleep(0)  # what waits for the result as well goes first
        if id in self._unaccepted:
            self._unaccepted.discard(id)
            return True
        in_doubt = await self.store.page(Filter(message=id, in_doubt=True), 0, 1)
        done = await self.command(QueueCommand.REMOVE, Filter(message=id))
        return not in_doubt and not done.later and done.changed == self._accepted.pop(id, None)

    async def _message(self, envelope: Envelope, content: Content, route: str, id: int | None = None) -> NewMessage:
        if id is not None and len(envelope.recipients) > MOST_RECIPIENTS:
            raise InvalidValue(f"a message with an id of new_id has at most {MOST_RECIPIENTS} recipients")
        stored = None
        if content.size > INLINE:
            stored = await self.store.write_content(_pieces(content))
        elif content.is_awaited:
            content = await content.loaded()
        info = ContentInfo(content.size, content.eight_bit, content.header_size, stored)
        created = self._clock.now()
        if id is None:
            claimed = self._claimed(envelope, created)
            if claimed is None:
                id = self._ids.take(len(envelope.recipients))
            else:
                id, created = claimed  # by their ids messages are found that are so old
        return NewMessage(
            id,
            envelope.under_name(format_id(id), content.signed_by),
            created,
            info,
            # A large one is read from the store when its turn comes: memory does not grow with the queue.
            None if stored is not None else content,
            route,
        )

    def _claimed(self, envelope: Envelope, now: datetime) -> tuple[int, datetime] | None:
        """The id that the message got when it arrived, and when that was; None if it has none, or one that is not of
        this queue's time: ids are looked up by age."""
        id = self._reserved.claim(envelope.id) if self._reserved is not None and envelope.id else None
        if id is None:
            return None
        arrived = moment(id >> PLACE_BITS)
        return (id, arrived) if abs(arrived - now) <= PREPARED else None

    def can_tell(self, sender: ReversePath) -> bool:
        """True if a notification may go to that sender."""
        return self._unqueued is not None and self._unqueued.can_tell(sender)

    async def tell_failed(self, envelope: Envelope, content: Content, reply: Reply) -> bool:
        """Notify the sender that these recipients do not get a message that was never in this queue.

        True once the notification is durable, or if nobody wants it. Raises `StoreUnavailable`.
        """
        if self._unqueued is None or not self.can_tell(envelope.sender):
            return False
        await self._take(await self._unqueued.of_failed(envelope, content, reply))
        return True

    async def tell_passed_on(self, envelope: Envelope, content: Content, *, to_list: bool) -> None:
        """Notify the sender that the message was passed on to the addresses of an alias (RFC 3461 5.2.7).

        `to_list`: failures there are not the sender's business any more. Raises `StoreUnavailable`.
        """
        if self._unqueued is not None and self.can_tell(envelope.sender):
            await self._take(await self._unqueued.of_passed_on(envelope, content, to_list=to_list))

    async def _take(self, notifications: Sequence[NewMessage]) -> None:
        for notification in notifications:
            try:
                await self.store.add(notification, leased=False)
            except IdTaken:
                await self._add_renamed(notification)
            if self._scheduler is not None and not self._scheduler.has_left_off:
                jobs = jobs_of(notification, self._destination_of, self.store.lease)
                self._scheduler.expect([job.destination for job in jobs])
        self._send_signal(Signal.LOOK)

    async def idle(self) -> None:
        """Wait until nothing is due any more, but for destinations that are down."""
        await asyncio.gather(*(each.idle() for each in self._schedulers))

    async def drain(self) -> None:
        """Deliver what is due now, and wait until that is done, by us or by others; what comes later is left."""
        await asyncio.gather(*(each.drain() for each in self._schedulers))

    @property
    def destinations_down(self) -> int:
        """How many destinations are known to be out of reach; 0 where nothing is delivered."""
        return max((each.destinations_down for each in self._schedulers), default=0)

    async def stats(self, now: datetime, destinations: int) -> Stats:
        """How much is queued in the shards that this process delivers from; see `Store.stats`."""
        if not self._left_behind:
            return await self.store.stats(now, destinations)
        stores = (self.store, *(each.store for each in self._left_behind))
        return added([await each.stats(now, EVERY) for each in stores], destinations)

    async def command(self, command: QueueCommand, wanted: Filter, by: str = "") -> CommandResult:
        """Do something to queued recipients, and tell those who deliver. `by`: the operator who wants it, if one does:
        then it stands in the log."""
        done = await self.store.command(command, wanted, self._clock.now(), by)
        if self._others is not None and not await self._is_here(wanted, done):
            elsewhere = await self._others.command(command, wanted, by)
            done = CommandResult(done.changed + elsewhere.changed, done.later + elsewhere.later)
        if by:
            self._note_act(command, wanted, by, done)
        if command in (QueueCommand.RETRY, QueueCommand.RELEASE):
            for each in self._schedulers:
                each.look(reopen=command is QueueCommand.RETRY)
            self._send_signal(Signal.RETRY if command is QueueCommand.RETRY else Signal.LOOK)
        return done

    async def _is_here(self, wanted: Filter, done: CommandResult) -> bool:
        """True if all that is meant is in this store: one message, which is there or was."""
        if wanted.message is None:
            return False
        return done.changed + done.later > 0 or await self.store.find(wanted.message) is not None

    def _note_act(self, command: QueueCommand, wanted: Filter, by: str, done: CommandResult) -> None:
        message = "" if wanted.message is None else format_id(wanted.message)
        acted = OperatorActed(command.value, by, wanted.words, done.changed, done.later, message)
        self._emit(acted)
        if self._place is not None:
            self._place.send_act(acted)


async def _pieces(content: Content) -> AsyncIterator[bytes]:
    async for piece in content.pieces(CHUNK):
        yield bytes(piece)


class _TransferredMessage:
    """A message that a queue takes, as another queue sees it that gives it: see `Stoppable`.

    Once the store is asked it may have the message, whatever becomes of the wait, which is soon over: it goes on to its
    end, and is recorded. Given back then, the message would be delivered twice.
    """

    __slots__ = ("has_effect", "is_cut_off")

    def __init__(self) -> None:
        self.has_effect = False
        self.is_cut_off = False

    @property
    def is_sending(self) -> bool:
        """See `Stoppable`."""
        return self.has_effect

    def cut_off(self) -> None:
        """See `Stoppable`. It keeps from asking the store."""
        self.is_cut_off = True


class QueueDeliverer:
    """A queue as the target of something else: given to it is delivered, since then it is its responsibility.

    It takes a message for all recipients or for none.
    """

    def __init__(self, queue: DeliveryQueue) -> None:
        self._queue = queue

    async def deliver(self, envelope: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        """See `Deliverer`. However it is handed over: it is delivered when its turn comes."""
        if envelope.quarantined:
            return AttemptReport(tuple(Failed(each, QUARANTINED) for each in envelope.recipients))
        watcher = handover.watcher
        if watcher is None:
            return await self._take(envelope, content)
        taking = _TransferredMessage()
        watcher.began(taking)
        try:
            if taking.is_cut_off:
                return AttemptReport(tuple(Deferred(each, _STOPPED) for each in envelope.recipients))
            taking.has_effect = True
            return await self._take(envelope, content)
        finally:
            watcher.ended(taking)

    async def _take(self, envelope: Envelope, content: Content) -> AttemptReport:
        try:
            id = await self._queue.submit(envelope, content)
        except StoreUnavailable as error:
            reply = Reply.make(error.code, error.enhanced, error.public)
            return AttemptReport(tuple(Deferred(each, reply) for each in envelope.recipients))
        reply = Reply.make(250, "2.0.0", f"Queued as {format_id(id)}")
        return AttemptReport(tuple(Delivered(each, reply, dsn=True) for each in envelope.recipients))

    def can_tell(self, sender: ReversePath) -> bool:
        """See `DeliveryQueue.can_tell`."""
        return self._queue.can_tell(sender)

    async def tell_failed(self, envelope: Envelope, content: Content, reply: Reply) -> bool:
        """See `DeliveryQueue.tell_failed`; False if the store cannot do that now."""
        try:
            return await self._queue.tell_failed(envelope, content, reply)
        except StoreUnavailable:
            return False

    async def tell_passed_on(self, envelope: Envelope, content: Content, *, to_list: bool) -> None:
        """See `DeliveryQueue.tell_passed_on`. If the store cannot do it now nobody is told: the message is taken."""
        with suppress(StoreUnavailable):
            await self._queue.tell_passed_on(envelope, content, to_list=to_list)
