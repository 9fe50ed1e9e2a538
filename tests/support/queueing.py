"""Messages, jobs and reports for tests of the queue."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.outcome import AttemptReport, Deferred, Delivered, Failed, Try, TryResult
from mailrider.model.reply import Reply
from mailrider.queue.fairness import BY_DOMAIN, jobs_of
from mailrider.queue.ids import IdSource
from mailrider.queue.message import ContentInfo, NewMessage
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime
    from typing import Any

    from mailrider.clock import Clock
    from mailrider.model.outcome import Outcome
    from mailrider.queue.message import LeasedJob

MESSAGE = b"From: a@example.org\r\nTo: b@example.net\r\nMessage-ID: <1@example.org>\r\nSubject: hello\r\n\r\nHello.\r\n"

TAKEN = Reply.make(250, "2.0.0", "queued")
BUSY = Reply.make(450, "4.2.0", "mx.example.net said: try later")
NO_SUCH_USER = Reply.make(550, "5.1.1", "mx.example.net said: no such user")
UNREACHABLE = Reply.make(451, "4.4.1", "no mail server answered")


def recipient(text: str, **wishes: Any) -> Recipient:
    return Recipient(Mailbox.parse(text), **wishes)


def envelope(*recipients: str | Recipient, sender: str = "a@example.org", **options: Any) -> Envelope:
    parsed = tuple(recipient(each) if isinstance(each, str) else each for each in recipients)
    return Envelope(ReversePath.parse(sender), parsed or (recipient("b@example.net"),), **options)


class Writing:
    """Makes messages as a submitter would."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.ids = IdSource(self.clock)

    def message(
        self,
        *recipients: str | Recipient,
        sender: str = "a@example.org",
        octets: bytes = MESSAGE,
        created: datetime | None = None,
        stored: int | None = None,
        route: str = "",
        **options: Any,
    ) -> NewMessage:
        given = envelope(*recipients, sender=sender, **options)
        content = Content.inspect(octets)
        info = ContentInfo(content.size, content.eight_bit, content.header_size, stored)
        return NewMessage(
            self.ids.take(len(given.recipients)),
            given,
            created or self.clock.now(),
            info,
            None if stored is not None else content,
            route,
        )

    def job(self, *recipients: str | Recipient, lease: int = 1, **options: Any) -> LeasedJob:
        (job,) = jobs_of(self.message(*recipients, **options), BY_DOMAIN, lease)
        return job


def delivered(who: Recipient) -> Outcome:
    return Delivered(who, TAKEN, "mx.example.net", "192.0.2.1", tries=(_try(TryResult.DELIVERED, TAKEN),))


def deferred(who: Recipient) -> Outcome:
    return Deferred(who, BUSY, "mx.example.net", "192.0.2.1", tries=(_try(TryResult.RCPT, BUSY),))


def unreachable(who: Recipient) -> Outcome:
    return Deferred(who, UNREACHABLE, "mx.example.net", "192.0.2.1", tries=(_try(TryResult.CONNECT, UNREACHABLE),))


def in_doubt(who: Recipient) -> Outcome:
    lost = Reply.make(451, "4.4.2", "lost behind the final dot")
    return Deferred(who, lost, "mx.example.net", tries=(_try(TryResult.FINAL, lost),), in_doubt=True)


def failed(who: Recipient) -> Outcome:
    return Failed(who, NO_SUCH_USER, "mx.example.net", "192.0.2.1", tries=(_try(TryResult.RCPT, NO_SUCH_USER),))


def throttled(who: Recipient, until: datetime) -> Outcome:
    return Deferred(who, Reply.make(451, "4.4.5", "held back by a limit"), eligible_at=until)


def report(job: LeasedJob, *outcomes: Any) -> AttemptReport:
    """The report of an attempt: one function for all recipients, or one for each."""
    makers = outcomes * len(job.ids) if len(outcomes) == 1 else outcomes
    return AttemptReport(tuple(make(who) for make, who in zip(makers, job.envelope.recipients, strict=True)))


def _try(result: TryResult, reply: Reply) -> Try:
    return Try("mx.example.net", "192.0.2.1", result, reply)


class AtOnce:
    """Instead of the thread that keeps the log of a store short: what is submitted is done in the same moment."""

    submitted = 0

    def __init__(self, *_: object) -> None:
        type(self).submitted = 0

    def submit(self, work: Callable[[], None]) -> None:
        type(self).submitted += 1
        work()

    def shutdown(self) -> None:
        pass


async def chunked(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


HOUR = timedelta(hours=1)
