"""Notifications about messages that were never in a queue: refused after they were taken, or passed on to others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.clock import shift_of
from mailrider.dsn.notification import NotifiedAction, NotifiedRecipient
from mailrider.model.outcome import AttemptReport, Delivered, Failed
from mailrider.model.reply import Reply
from mailrider.queue.ids import parse_id
from mailrider.queue.message import FRESH, ContentInfo, LeasedJob
from mailrider.queue.retry import Rules
from mailrider.queue.settle import settle

if TYPE_CHECKING:
    import random
    from datetime import datetime

    from mailrider.clock import Clock
    from mailrider.model.address import ReversePath
    from mailrider.model.envelope import Envelope
    from mailrider.queue.bounces import Bounces
    from mailrider.queue.ids import IdSource
    from mailrider.queue.message import NewMessage
    from mailrider.smtp.content import Content

PASSED_ON: Final = Reply.make(250, "2.0.0", "It was passed on to the addresses that this alias stands for")


class DirectBounces:
    """Writes them; whoever asks for one sees to it that it gets into a queue."""

    def __init__(self, bounces: Bounces, ids: IdSource, clock: Clock, rng: random.Random) -> None:
        self._bounces = bounces
        self._ids = ids
        self._clock = clock
        self._rng = rng

    def can_tell(self, sender: ReversePath) -> bool:
        """True if a notification may go to that sender."""
        return sender.mailbox is not None and self._bounces.may_tell(sender.mailbox)

    async def of_failed(self, envelope: Envelope, content: Content, reply: Reply) -> tuple[NewMessage, ...]:
        """A notification that these recipients do not get the message."""
        now = self._clock.now()
        job = self._job(envelope, content, now)
        report = AttemptReport(tuple(Failed(each, reply) for each in envelope.recipients))
        decision = settle(job, report, Rules(), now, self._rng)
        return await self._bounces.write(job, decision.notified, content, now, shift_of(self._clock))

    async def of_passed_on(self, envelope: Envelope, content: Content, *, to_list: bool) -> tuple[NewMessage, ...]:
        """A notification that the message was passed on by aliases; see `DeliveryQueue.tell_passed_on`."""
        now = self._clock.now()
        action = NotifiedAction.DELIVERED if to_list else NotifiedAction.EXPANDED
        told = tuple(NotifiedRecipient(each, action, Delivered(each, PASSED_ON), now) for each in envelope.recipients)
        job = self._job(envelope, content, now)
        return await self._bounces.write(job, told, content, now, shift_of(self._clock))

    def _job(self, envelope: Envelope, content: Content, now: datetime) -> LeasedJob:
        """As if it had been in a queue."""
        count = len(envelope.recipients)
        # Its sender has that name for it; the recipients' ids are nobody's.
        id = parse_id(envelope.id) if envelope.id else self._ids.take(count)
        info = ContentInfo(content.size, content.eight_bit, content.header_size)
        return LeasedJob(id, "", envelope, tuple(range(id + 1, id + 1 + count)), (FRESH,) * count, now, info, 0)
