"""Notifications about many recipients are written off the event loop, and nothing is lost over it."""

from __future__ import annotations

import asyncio
import threading
from email import message_from_bytes
from typing import TYPE_CHECKING

import pytest

from mailrider.dsn.compose import compose
from mailrider.dsn.notification import Notification, NotificationAuthor, NotifiedAction, NotifiedRecipient
from mailrider.dsn.parts import MAX_RETURNED
from mailrider.model.address import Mailbox
from mailrider.model.domain import Domain
from mailrider.model.envelope import Notify, Ret
from mailrider.model.event import discard
from mailrider.queue import bounces
from mailrider.queue.bounces import INLINE, BouncePolicy, Bounces
from mailrider.queue.ids import IdSource
from mailrider.queue.message import ROUTE_BOUNCE, ROUTE_TARGET
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from tests.support.queueing import HOUR, MESSAGE, Writing, failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mailrider.queue.message import NewMessage

HERE = NotificationAuthor(Domain("mx.example.org"), Domain("example.org"))


class Bouncing:
    """A message to so many recipients has failed. `threads` wrote notifications, and `readers` read the message."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        self.readers: list[threading.Thread] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        monkeypatch.setattr(bounces, "compose", self._compose)

    def _compose(self, notification: Notification, origin: NotificationAuthor) -> bytes:
        self.may_go_on.wait()
        self.threads.append(threading.current_thread())
        return compose(notification, origin)

    def _stored(self, octets: bytes, lost: int) -> Content:
        async def supply() -> AsyncIterator[bytes]:
            self.readers.append(threading.current_thread())
            await asyncio.sleep(0)
            yield octets[: len(octets) - lost]

        content = Content.inspect(octets)
        size, header_size = content.size, content.header_size
        return Content.awaited(supply, octets[: header_size + 2], size=size, eight_bit=False, header_size=header_size)

    async def write(self, count: int, octets: bytes = MESSAGE, lost: int = 0) -> NewMessage:
        clock = FakeClock()
        job = Writing(clock).job(*(f"r{number}@example.net" for number in range(count)), ret=Ret.FULL)
        now = clock.now()
        told = tuple(
            NotifiedRecipient(each, NotifiedAction.FAILED, failed(each), now + HOUR) for each in job.envelope.recipients
        )
        policy = BouncePolicy(HERE, False, lambda _: "")
        writer = Bounces(policy, IdSource(clock), discard)
        (message,) = await writer.write(job, told, self._stored(octets, lost), now)
        return message


@pytest.fixture
def bouncing(monkeypatch: pytest.MonkeyPatch) -> Bouncing:
    return Bouncing(monkeypatch)


@pytest.mark.parametrize("octets", [MESSAGE, MESSAGE + b"x" * MAX_RETURNED + b"\r\n"])
@pytest.mark.parametrize("count", [INLINE, INLINE + 1])
async def test_a_notification_about_many_is_written_in_a_thread(bouncing: Bouncing, count: int, octets: bytes) -> None:
    message = await bouncing.write(count, octets)
    assert [each is threading.main_thread() for each in bouncing.threads] == [count == INLINE]
    assert bouncing.readers == [threading.main_thread()] * (octets == MESSAGE)  # where a store can be awaited
    assert message.content is not None
    parsed = message_from_bytes(b"".join(message.content.chunks()))
    returned = "message/rfc822" if octets == MESSAGE else "text/rfc822-headers"
    assert parsed.get_payload(2).get_content_type() == returned  # type: ignore[union-attr] # a multipart


async def test_a_notification_asks_for_none_about_itself(bouncing: Bouncing) -> None:
    """RFC 3461 6."""
    message = await bouncing.write(1)
    assert [each.notify for each in message.envelope.recipients] == [Notify.NEVER]


async def test_a_sender_hears_of_a_message_too_whose_end_is_lost(bouncing: Bouncing) -> None:
    message = await bouncing.write(1, lost=2)
    assert message.content is not None
    parsed = message_from_bytes(b"".join(message.content.chunks()))
    assert parsed.get_payload(2).get_content_type() == "text/rfc822-headers"  # type: ignore[union-attr] # a multipart


async def test_a_cancellation_while_the_message_is_read_is_kept_for_the_next_wait(bouncing: Bouncing) -> None:
    written: list[NewMessage] = []

    async def work() -> None:
        written.append(await bouncing.write(1))
        await asyncio.sleep(0)
        written.clear()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(written) == 1


async def test_a_cancellation_while_it_is_written_is_kept_for_the_next_wait(bouncing: Bouncing) -> None:
    bouncing.may_go_on.clear()
    written: list[NewMessage] = []

    async def work() -> None:
        written.append(await bouncing.write(INLINE + 1))
        await asyncio.sleep(0)
        written.clear()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    bouncing.may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(written) == 1


async def test_a_notification_that_failed_goes_to_the_postmaster_with_all_that_it_says() -> None:
    clock = FakeClock()
    job = Writing(clock).job("root@host.example.org", sender="")
    told = (
        NotifiedRecipient(
            job.envelope.recipients[0], NotifiedAction.FAILED, failed(job.envelope.recipients[0]), clock.now()
        ),
    )
    policy = BouncePolicy(HERE, False, lambda _: "", Mailbox.parse("admin@example.org"))
    writer = Bounces(policy, IdSource(clock), discard)
    (message,) = await writer.write(job, told, Content.inspect(MESSAGE), clock.now())
    assert message.envelope.sender.is_null
    assert [str(each) for each in message.envelope.recipients] == ["admin@example.org"]
    assert message.content is not None
    parsed = message_from_bytes(b"".join(message.content.chunks()))
    assert parsed["To"] == "<admin@example.org>"
    assert parsed["Subject"] == "Not delivered: a notification to root@host.example.org"
    text = " ".join(parsed.as_string().split())
    assert "You get it as the postmaster of this server" in text
    assert "Hello." in text


@pytest.mark.parametrize(("refusal", "route"), [("", ROUTE_BOUNCE), ("550 5.7.1 not to strangers", ROUTE_TARGET)])
async def test_bounce_keeps_nothing_from_the_postmaster_whom_the_operator_named(refusal: str, route: str) -> None:
    clock = FakeClock()
    job = Writing(clock).job("root@host.example.org", sender="")
    told = (
        NotifiedRecipient(
            job.envelope.recipients[0], NotifiedAction.FAILED, failed(job.envelope.recipients[0]), clock.now()
        ),
    )
    policy = BouncePolicy(HERE, True, lambda _: refusal, Mailbox.parse("admin@example.com"))
    writer = Bounces(policy, IdSource(clock), discard)
    (message,) = await writer.write(job, told, Content.inspect(MESSAGE), clock.now())
    assert message.route == route


async def test_without_a_postmaster_nobody_is_told_of_a_notification_that_failed() -> None:
    clock = FakeClock()
    job = Writing(clock).job("root@host.example.org", sender="")
    told = (
        NotifiedRecipient(
            job.envelope.recipients[0], NotifiedAction.FAILED, failed(job.envelope.recipients[0]), clock.now()
        ),
    )
    writer = Bounces(BouncePolicy(HERE, False, lambda _: ""), IdSource(clock), discard)
    assert await writer.write(job, told, Content.inspect(MESSAGE), clock.now()) == ()
