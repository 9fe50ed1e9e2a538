"""One client of an endpoint, without a network: what is answered at once, and what its task still has to do."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mailrider.endpoint.authentication import Client
from mailrider.endpoint.intake import Memory
from mailrider.endpoint.service import Service, offer
from mailrider.endpoint.session import ClientSession
from mailrider.model.domain import Domain
from mailrider.model.event import Bug
from mailrider.smtp.server import MAX_BACKLOG
from mailrider.testing.clock import FakeClock
from tests.flow.endpoint.running_endpoint import Sink, welcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.model.event import Event
    from mailrider.model.reply import Reply
    from mailrider.model.security import TLSEvidence
    from mailrider.smtp.sasl import Credentials

SECRET = base64.b64encode(b"\0anna\0open sesame").decode()


@dataclass
class FakeWire:
    """What is written stays here."""

    peer_address: str = "127.0.0.1"
    needs_drain: bool = False
    tls: TLSEvidence | None = None
    on_end: Callable[[], None] | None = None
    written: list[bytes] = field(default_factory=list)
    closed: bool = False
    paused: bool = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None: ...
    async def drain(self) -> None: ...

    async def close(self) -> None:
        self.closed = True

    def start_tls_server(self, *_: object) -> Any:
        raise AssertionError("nobody asked for TLS")


class AnyLogin:
    """Takes every name and password."""

    async def verify(self, _: Credentials) -> bool | Reply:
        return True


class Visit:
    """A session on a fake wire, whose task runs."""

    def __init__(self) -> None:
        self.wire = FakeWire()
        self.sink = Sink()
        self.events: list[Event] = []
        self.service = Service(
            "smtp",
            Domain("mx.here.test"),
            self.sink,
            welcome,
            FakeClock(),
            self.events.append,
            lambda _: "id1",
            Memory(),
            authenticator=AnyLogin(),
        )
        channel: Any = self.wire
        self.session = ClientSession(self.service, channel, Client("127.0.0.1", is_local=True))
        self.task = asyncio.ensure_future(self.session.begin())

    async def rest(self) -> list[bytes]:
        """What was written since the last call, when the task waits again."""
        for _ in range(10):
            await asyncio.sleep(0)
        return self.take()

    def take(self) -> list[bytes]:
        written, self.wire.written = self.wire.written, []
        return written


async def test_a_network_of_64_bits_is_one_client_and_a_user_of_this_machine_another() -> None:
    cases = (("2001:db8:1:2::1", None), ("2001:db8:1:2:f::2", None), ("192.0.2.1", None), ("", 1000))
    keys = [Client(address, is_local=not address, uid=uid).key for address, uid in cases]
    assert keys == ["2001:db8:1:2::/64", "2001:db8:1:2::/64", "192.0.2.1", "uid 1000"]


async def test_clients_of_one_kind_are_offered_the_same_which_is_made_once() -> None:
    first, second = Visit(), Visit()
    offers = [offer(each.service, secure=False, local=True) for each in (first, second)]
    assert offers[0] is offers[1]
    assert offers[0].auth
    assert not offer(first.service, secure=False, local=False).auth
    for each in (first, second):
        each.task.cancel()


async def test_commands_are_answered_in_the_very_call_that_brings_them() -> None:
    visit = Visit()
    assert (await visit.rest())[0].startswith(b"220 ")
    visit.session.data_received(b"EHLO client.test\r\n")
    assert visit.take()[0].startswith(b"250-mx.here.test")
    visit.session.data_received(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    (group,) = visit.take()
    assert [line[:3] for line in group.split(b"\r\n")] == [b"250", b"250", b"354", b""], "one write for a group"
    visit.session.leave()
    visit.session.abort()
    visit.session.connection_lost(None)
    await visit.task


async def test_what_came_before_the_good_bye_is_answered_before_it() -> None:
    visit = Visit()
    await visit.rest()
    visit.session.data_received(b"EHLO client.test\r\n")
    visit.take()
    visit.session.data_received(f"AUTH PLAIN {SECRET}\r\n".encode())
    visit.session.leave()
    answers = b"".join(await visit.rest())
    assert [line[:3] for line in answers.split(b"\r\n")] == [b"235", b"421", b""]
    await visit.task
    assert visit.wire.closed
    assert [event for event in visit.events if isinstance(event, Bug)] == []


async def test_who_talks_on_while_a_message_is_handed_over_is_not_read_without_end() -> None:
    visit = Visit()
    visit.sink.gate = asyncio.Event()
    await visit.rest()
    for group in (b"EHLO client.test\r\n", b"MAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n", b"\r\nHi\r\n.\r\n"):
        visit.session.data_received(group)
        await visit.rest()
    more = b"NOOP %b\r\n" % (b"x" * 400)
    sent = 0
    while not visit.wire.paused:
        assert sent * len(more) < 2 * MAX_BACKLOG
        visit.session.data_received(more)
        sent += 1
    visit.sink.gate.set()
    answers = b"".join(await visit.rest()).split(b"\r\n")
    assert [answer[:3] for answer in answers] == [b"250"] * (1 + sent) + [b""]
    assert not visit.wire.paused
    visit.session.abort()
    visit.session.connection_lost(None)
    await visit.task
