"""Notifications as queued messages: from a decision to what is stored together with it.

Who writes them and whether they may go out at all is given (`BouncePolicy`); how they read is `dsn.compose`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mailrider.clock import NO_SHIFT
from mailrider.dsn.compose import compose
from mailrider.dsn.notification import Notification
from mailrider.dsn.parts import MAX_RETURNED, redact
from mailrider.model.address import NULL_PATH, ReversePath
from mailrider.model.envelope import Envelope, Notify, Recipient, Ret
from mailrider.model.outcome import Failed
from mailrider.model.queue_event import NotificationDropped, NotificationQueued
from mailrider.model.security import MXLevel, TLSLevel
from mailrider.queue.ids import format_id
from mailrider.queue.message import ROUTE_BOUNCE, ROUTE_TARGET, ContentInfo, NewMessage, renamed
from mailrider.smtp.content import Content, IncompleteContent

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from datetime import datetime, timedelta

    from mailrider.dsn.notification import NotificationAuthor, NotifiedAction, NotifiedRecipient
    from mailrider.model.address import Mailbox
    from mailrider.model.event import Emit
    from mailrider.model.outcome import AttemptReport, Outcome
    from mailrider.queue.ids import IdSource
    from mailrider.queue.message import LeasedJob

T = TypeVar("T")

INLINE: Final = 50  # recipients that are told of on the event loop: some milliseconds

# RFC 8689: the levels are not met; the extension is missing. And what a try says of levels that may be met later.
_REQUIRETLS: Final = frozenset({"5.7.10", "5.7.30"})
_NOT_NOW: Final = "4.7.0"


@dataclass(frozen=True, slots=True)
class BouncePolicy:
    """`refuses` says why a notification to that address must not be sent, or nothing (""). `has_pipeline`: `bounce { }`
    says where notifications go; otherwise they go the way of all mail of the queue. `postmaster`: who is told of
    notifications that failed."""

    origin: NotificationAuthor
    has_pipeline: bool
    refuses: Callable[[Mailbox], str]
    postmaster: Mailbox | None = None


class Bounces:
    """Writes the notifications that a decision asks for (`queue.settle`)."""

    def __init__(self, policy: BouncePolicy, ids: IdSource, emit: Emit) -> None:
        self._policy = policy
        self._ids = ids
        self._emit = emit

    def may_tell(self, sender: Mailbox) -> bool:
        """True if a notification to that address is sent."""
        return not self._policy.refuses(sender)

    async def write(
        self,
        job: LeasedJob,
        told_of: Sequence[NotifiedRecipient],
        content: Content | None,
        now: datetime,
        shift: timedelta = NO_SHIFT,
    ) -> tuple[NewMessage, ...]:
        """One message for each kind of news. `content` None: the message cannot be read.

        A cancellation meanwhile is kept for the next wait: what is told of has happened, and is to be recorded.
        """
        if not told_of:
            return ()
        sender = job.envelope.sender.mailbox or self._policy.postmaster
        if sender is None:
            return ()
        by_action: dict[NotifiedAction, list[NotifiedRecipient]] = {}
        for each in told_of:
            by_action.setdefault(each.action, []).append(each)
        written = [
            await self._write(job, sender, action, told, content, now, shift) for action, told in by_action.items()
        ]
        return tuple(each for each in written if each is not None)

    async def _write(
        self,
        job: LeasedJob,
        sender: Mailbox,
        action: NotifiedAction,
        told_of: list[NotifiedRecipient],
        content: Content | None,
        now: datetime,
        shift: timedelta,
    ) -> NewMessage | None:
        about = format_id(job.message_id)
        reason = self._policy.refuses(sender)
        to_postmaster = job.envelope.sender.is_null
        if reason and not to_postmaster:
            self._emit(NotificationDropped(about, str(sender), action.value, reason))
            return None
        id = self._ids.take(1)
        told = tuple([each if each.until is None else replace(each, until=each.until + shift) for each in told_of])
        name = format_id(id)
        envelope = job.envelope
        if to_postmaster:
            # The whole of it goes back, as far as that is allowed: it quotes what nobody else has read.
            envelope = replace(envelope, sender=ReversePath(sender), ret=Ret.FULL)
        notification = Notification(
            envelope, told, job.created + shift, now + shift, name, content, is_about_notification=to_postmaster
        )
        octets = await _composed(notification, self._policy.origin)
        own = Envelope(
            NULL_PATH,
            # RFC 3461 6: a notification asks for none itself.
            (Recipient(sender, Notify.NEVER),),
            smtputf8=not sender.is_ascii,
            requiretls=job.envelope.requiretls,
        )
        self._emit(NotificationQueued(name, about, str(sender), action.value))
        # `bounce` keeps notifications from senders that may be forged; the postmaster is named by the operator.
        return self._message(id, own, Content.inspect(octets), now, past_bounce=bool(reason))

    def _message(
        self, id: int, envelope: Envelope, content: Content, now: datetime, *, past_bounce: bool = False
    ) -> NewMessage:
        info = ContentInfo(content.size, content.eight_bit, content.header_size)
        route = ROUTE_BOUNCE if self._policy.has_pipeline and not past_bounce else ROUTE_TARGET
        return NewMessage(id, envelope.under_name(format_id(id)), now, info, content, route)

    def renamed(self, notification: NewMessage) -> NewMessage:
        """The same under another id: one of those that it had was given to another message."""
        return renamed(notification, self._ids.take(len(notification.envelope.recipients)))

    async def redacted(
        self, job: LeasedJob, given_up: Sequence[int], report: AttemptReport, content: Content, now: datetime
    ) -> tuple[NewMessage, ...]:
        """What goes out instead of a notification that no connection was secure enough for, at once or ever."""
        envelope = job.envelope
        if not (envelope.requiretls and envelope.sender.is_null):
            return ()
        refused = tuple(
            outcome.recipient
            for id, outcome in zip(job.ids, report.outcomes, strict=True)
            if _is_never_secure(outcome, id in given_up)
        )
        octets = await _redacted(content) if refused else None
        if octets is None:
            return ()
        replacement = replace(envelope, recipients=refused, requiretls=False)
        id = self._ids.take(len(refused))
        whom = " ".join(map(str, refused))
        self._emit(NotificationQueued(format_id(id), format_id(job.message_id), whom, "redacted"))
        return (self._message(id, replacement, Content.inspect(octets), now),)


async def _composed(notification: Notification, origin: NotificationAuthor) -> bytes:
    """The notification as a message; one about many recipients is written off the event loop."""
    content = notification.content
    if content is not None and content.is_awaited and content.size <= MAX_RETURNED:
        try:
            notification = replace(notification, content=await _to_the_end(content.loaded()))
        except IncompleteContent:  # the sender hears of it all the same
            notification = replace(notification, envelope=replace(notification.envelope, ret=Ret.HEADERS))
    if len(notification.recipients) <= INLINE:
        return compose(notification, origin)
    return await _to_the_end(asyncio.to_thread(compose, notification, origin))


async def _redacted(content: Content) -> bytes | None:
    try:
        return redact(b"".join((await _to_the_end(content.loaded())).chunks()))
    except IncompleteContent:
        return None


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """What it gives. It is waited for even if we are cancelled; the cancellation then meets the next wait."""
    future = asyncio.ensure_future(work)
    was_cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            was_cancelled = True
    task = asyncio.current_task()
    if was_cancelled and task is not None:
        task.cancel()
    return future.result()


def _is_never_secure(outcome: Outcome, is_given_up: bool) -> bool:
    """True if what REQUIRETLS demands was not there, and is not waited for any longer."""
    if isinstance(outcome, Failed):
        return str(outcome.reply.status) in _REQUIRETLS
    security = outcome.security
    # A server that reached the levels and said 4.7.0 itself was secure enough.
    was_secure = security.mx_level >= MXLevel.MTASTS and security.tls_level >= TLSLevel.AUTHENTICATED
    return is_given_up and str(outcome.reply.status) == _NOT_NOW and not was_secure
