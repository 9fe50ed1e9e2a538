"""The server closes an idle connection at every possible moment of the next transaction: nobody's attempt is lost.

A whole delivery in memory, turn by turn: after the first message the server waits a number of turns of the event loop;
then it closes the connection, in one of several ways, unless it has read a command meanwhile. In between the client
begins its next message. The last number is past the end of the transaction. Whatever the moment, the message arrives
once, and the report knows of one try.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.delivery.connection.connect import Connector
from mailrider.delivery.connection.fallback import FallbackMemory
from mailrider.delivery.connection.peer import SessionRules
from mailrider.delivery.connection.pool import Pool
from mailrider.delivery.connection.pool_state import PoolLimits
from mailrider.delivery.destination import RouteMemory, Routing
from mailrider.delivery.race import AddressHistory
from mailrider.delivery.remote import RemoteDelivery
from mailrider.delivery.settings import RemoteSettings
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.event import ConnectionClosed
from mailrider.model.outcome import AttemptReport, Deferred, Delivered, TryResult
from mailrider.policy.judge import Judge
from mailrider.smtp.capabilities import FULL_OFFER
from mailrider.smtp.commands import Bdat, EndOfData
from mailrider.smtp.content import Content
from mailrider.smtp.replies import usual_reply
from mailrider.smtp.server import ServerMachine
from mailrider.smtp.server_states import ContentChunk, Rejected
from mailrider.testing.channels import MemoryDialer
from mailrider.testing.clock import FakeClock
from mailrider.testing.resolver import FakeResolver, mx
from tests.support.channels import client_context

if TYPE_CHECKING:
    from mailrider.model.event import Event
    from mailrider.net.channel import Channel
    from mailrider.smtp.capabilities import Capabilities

ADDRESS = "192.0.2.25"
HOST = "mx.test"
TURNS = range(60)
WAYS = ["close", "reset", "farewell and close", "farewell, close later", "farewell, never close"]
FAREWELL = b"421 4.4.2 idle for too long\r\n"


class MailServer:
    """One connection to a server that accepts everything. `messages` are shared by all its connections."""

    def __init__(self, channel: Channel, offer: Capabilities, messages: list[bytes]) -> None:
        self.channel = channel
        self.is_idle = False
        self.lost = False
        self.taken = 0
        self.dies_at_mail = False
        self.dies_at_rcpt = False
        self.last_words = b""
        self._machine = ServerMachine(offer)
        self._messages = messages
        self._content = b""
        channel.receiver = self
        self._run()

    def data_received(self, data: bytes) -> None:
        self.is_idle = False
        if (self.dies_at_mail and data.startswith(b"MAIL")) or (self.dies_at_rcpt and data.startswith(b"RCPT")):
            self.channel.write(self.last_words)
            self.closing = asyncio.ensure_future(self.channel.close())
            return
        self._machine.receive(data)
        self._run()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def _run(self) -> None:
        while (event := self._machine.next_event()) is not None:
            if isinstance(event, ContentChunk):
                self._content += event.octets
            elif not isinstance(event, Rejected):
                if isinstance(event, EndOfData) or (isinstance(event, Bdat) and event.last):
                    self._messages.append(self._content)
                    self._content, self.is_idle = b"", True
                    self.taken += 1
                self._machine.answer(usual_reply(self._machine, event, HOST))
        if output := self._machine.take_output():
            self.channel.write(output)

    async def close_when_idle(self, way: str) -> None:
        if not self.is_idle or self.lost or self.taken != 1:
            return
        if way.startswith("farewell"):
            self.channel.write(FAREWELL)
        if way == "farewell, close later":
            for _ in range(10):
                await asyncio.sleep(0)
        if way == "reset":
            self.channel.abort()
        elif way != "farewell, never close":
            await self.channel.close()


class World:
    """A domain with one MX host, and a delivery that knows it."""

    def __init__(self, offer: Capabilities, piece: int | None = None) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.messages: list[bytes] = []
        self.connections: list[MailServer] = []
        self.new_ones_die_at_mail = False
        self._offer = offer
        settings = RemoteSettings(hostname="client.test")
        resolver = FakeResolver({("a.test", "MX"): [mx(10, HOST)], (HOST, "A"): [IPv4Address(ADDRESS)]}, caching=True)
        dialer = MemoryDialer(self.clock, {(ADDRESS, 25): self._accept}, piece=piece)
        nothing: Any = None
        connector = Connector(
            dialer,
            self.clock,
            client_context(),
            Judge(nothing, nothing),
            SessionRules(Domain("client.test"), 300.0, 720.0),
            FallbackMemory(self.clock),
            self.events.append,
            25,
        )
        routing = Routing(
            resolver,
            random.Random(1),
            self.events.append,
            Domain("client.test"),
            lambda _: (False, math.inf),
            self.clock,
            300.0,
            RouteMemory(resolver, self.clock, force_ipv4=False),
            AddressHistory(self.clock),
        )
        self.pool = Pool(connector, PoolLimits(10, 10, 150.0), self.clock, self.events.append)
        self.delivery = RemoteDelivery(settings, routing, (), nothing, self.pool, self.clock, self.events.append)

    def _accept(self, channel: Channel) -> MailServer:
        server = MailServer(channel, self._offer, self.messages)
        server.dies_at_mail = self.new_ones_die_at_mail
        self.connections.append(server)
        return server

    async def send(self, number: int) -> AttemptReport:
        recipients = (Recipient(Mailbox("b", Domain("a.test"))),)
        envelope = Envelope(ReversePath(Mailbox("s", Domain("client.test"))), recipients)
        return await self.delivery.deliver(envelope, Content.inspect(b"Subject: %d\r\n\r\nhello\r\n" % number))


OFFERS = {
    "PIPELINING and CHUNKING": FULL_OFFER,
    "PIPELINING": replace(FULL_OFFER, chunking=False),
    "neither": replace(FULL_OFFER, chunking=False, pipelining=False),
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("begins_after", [0, 7], ids=["the client begins at once", "the client begins later"])
async def test_an_idle_connection_is_closed_at_every_moment(offer: Capabilities, way: str, begins_after: int) -> None:
    connections = set()
    for turns in TURNS:
        connections.add(await _close_after(turns, begins_after, offer, way))
    assert connections == {1, 2}, "some moments are before the transaction, and some behind it"


async def _close_after(turns: int, begins_after: int, offer: Capabilities, way: str) -> int:
    """Returns how many connections it took."""
    world = World(offer)
    async with world.pool:
        await world.send(1)

        async def close() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await world.connections[0].close_when_idle(way)

        closing = asyncio.ensure_future(close())
        for _ in range(begins_after):
            await asyncio.sleep(0)
        (outcome,) = (await world.send(2)).outcomes
        await closing
        assert isinstance(outcome, Delivered), (turns, outcome)
        assert [each.result for each in outcome.tries] == [TryResult.DELIVERED], turns
        assert [message.partition(b"\r")[0] for message in world.messages] == [b"Subject: 1", b"Subject: 2"], turns
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.clock.pending == 0
    return len(world.connections)


@pytest.mark.parametrize("way", WAYS)
async def test_that_a_server_closes_an_idle_connection_is_noticed_at_once(way: str) -> None:
    world = World(FULL_OFFER)
    async with world.pool:
        await world.send(1)
        await world.connections[0].close_when_idle(way)
        for _ in range(20):
            await asyncio.sleep(0)
        closed = [event.reason for event in world.events if isinstance(event, ConnectionClosed)]
        assert closed == ["the server closed it while it was idle"]
        assert world.connections[0].lost


@pytest.mark.parametrize("way", ["close", "reset", "farewell and close"])
async def test_every_kept_connection_is_dead_and_still_it_is_one_try(way: str) -> None:
    """Ten were kept, and the server has closed them all, unnoticed: one of them is tried, then a new one."""
    world = World(FULL_OFFER)
    async with world.pool:
        await asyncio.gather(*(world.send(number) for number in range(10)))
        assert len(world.connections) == 10
        await asyncio.gather(*(server.close_when_idle(way) for server in world.connections), world.send(10))
        assert len(world.connections) == 11
    assert len(world.messages) == 11


async def test_only_what_was_idle_is_repeated() -> None:
    """A server that has begun to answer and then closes was not idle: that attempt is over."""
    world = World(replace(FULL_OFFER, chunking=False, pipelining=False))
    async with world.pool:
        await world.send(1)
        world.connections[0].dies_at_rcpt = True
        (outcome,) = (await world.send(2)).outcomes
    assert isinstance(outcome, Deferred)
    assert len(world.connections) == 1


async def test_it_is_repeated_once() -> None:
    """The fresh connection dies as well: that one counts."""
    world = World(FULL_OFFER)
    async with world.pool:
        await world.send(1)
        world.new_ones_die_at_mail = True
        world.connections[0].dies_at_mail = True
        (outcome,) = (await world.send(2)).outcomes
    assert isinstance(outcome, Deferred)
    assert [each.result for each in outcome.tries] == [TryResult.MAIL]
    assert len(world.connections) == 2


async def test_it_is_repeated_on_a_new_connection_not_on_another_kept_one() -> None:
    world = World(FULL_OFFER)
    async with world.pool:
        await asyncio.gather(*(world.send(number) for number in range(3)))
        for server in world.connections:
            server.dies_at_mail = True
        (outcome,) = (await world.send(3)).outcomes
        assert sum(server.lost for server in world.connections) == 1
    assert isinstance(outcome, Delivered)
    assert len(outcome.tries) == 1
    assert len(world.connections) == 4


async def test_a_partial_reply_is_a_reply() -> None:
    world = World(FULL_OFFER)
    async with world.pool:
        await world.send(1)
        world.connections[0].dies_at_mail = True
        world.connections[0].last_words = b"25"
        (outcome,) = (await world.send(2)).outcomes
    assert isinstance(outcome, Deferred)
    assert len(world.connections) == 1
