"""An endpoint on loopback with a sink that remembers, and a client that says what it is told."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from mailrider.clock import SystemClock
from mailrider.endpoint.intake import Memory
from mailrider.endpoint.listener import ConnectionLimits, Endpoint
from mailrider.endpoint.service import Service
from mailrider.endpoint.sockets import bind_socket
from mailrider.model.domain import Domain
from mailrider.model.outcome import AttemptReport, outcome_for
from mailrider.model.reply import Reply
from mailrider.net.tls import make_server_context
from mailrider.settings.socket_address import Scheme, SocketAddress
from tests.support.loops import eventually
from tests.support.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.delivery.limits.shares import ClientShares
    from mailrider.endpoint.pipeline.check import Arrival
    from mailrider.lab.ca import CA
    from mailrider.model.address import Mailbox, ReversePath
    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Event
    from mailrider.smtp.content import Content

HOST = "127.0.0.1"
TAKEN = Reply.make(250, "2.0.0", "Queued as 1")
MESSAGE = b"From: a@example.org\r\nDate: Sat, 21 Nov 2026 00:00:00 +0000\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n"


@dataclass
class Sink:
    """Remembers what it was given; `answers` are its replies by recipient, and it waits for `gate` first."""

    answers: dict[str, Reply] = field(default_factory=dict)
    taken: list[tuple[Envelope, bytes]] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    gate: asyncio.Event | None = None
    error: Exception | None = None
    started: int = 0
    keeps: bool = True

    async def deliver(self, envelope: Envelope, content: Content, arrival: Arrival) -> AttemptReport:
        self.started += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        octets = b"".join(map(bytes, content.chunks())) if self.keeps else b""
        assert not self.keeps or len(octets) == content.size
        assert not self.keeps or octets[: content.header_size] == content.header
        self.taken.append((envelope, octets))
        self.arrivals.append(arrival)
        return AttemptReport(
            tuple(outcome_for(each, self.answers.get(str(each), TAKEN)) for each in envelope.recipients)
        )


@dataclass
class RunningEndpoint:
    """An open endpoint, and all that it gave away: messages, events, clients."""

    endpoint: Endpoint
    sink: Sink
    events: list[Event]
    memory: Memory
    port: int
    clients: list[Client] = field(default_factory=list)

    def noted(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    async def client(self, address: str = HOST) -> Client:
        """A client with that address of this machine."""
        return self.known(Client(*await asyncio.open_connection(HOST, self.port, local_addr=(address, 0))))

    def known(self, client: Client) -> Client:
        """A client that will be gone at the end."""
        self.clients.append(client)
        return client


def welcome(_: ReversePath, __: Mailbox, ___: Mailbox | None) -> Reply | None:
    return None


def server_context(ca: CA, folder: Path) -> ssl.SSLContext:
    cert, key = ca.issue(["mx.here.test"]).write(folder, "here")
    return make_server_context(cert, key)


@asynccontextmanager
async def run_endpoint(
    *,
    sink: Sink | None = None,
    limits: ConnectionLimits | None = None,
    scheme: Scheme = Scheme.TCP,
    path: Path | None = None,
    clock: Clock | None = None,
    judge: Callable[[ReversePath, Mailbox, Mailbox | None], Reply | None] = welcome,
    memory: Memory | None = None,
    proxies: Collection[IPv4Network | IPv6Network] = (),
    shares: ClientShares | None = None,
    **changes: Any,
) -> AsyncIterator[RunningEndpoint]:
    """An endpoint that takes everything, but for what is said otherwise."""
    sink = sink or Sink()
    events: list[Event] = []
    ids = itertools.count(1)
    memory = memory or Memory()
    full = memory.left
    service = Service(
        "smtp",
        Domain("mx.here.test"),
        sink,
        judge,
        clock or SystemClock(),
        events.append,
        lambda _: f"id{next(ids)}",
        memory,
    )
    address = SocketAddress(scheme, path=path) if path else SocketAddress(scheme, IPv4Address(HOST), 0)
    endpoint = Endpoint(replace(service, **changes), [address], limits or ConnectionLimits(), proxies, shares)
    await endpoint.open(bind_socket)
    running = RunningEndpoint(endpoint, sink, events, memory, endpoint.ports[0])
    try:
        yield running
    finally:
        await endpoint.close(0)
        for client in running.clients:
            client.writer.transport.abort()
        await eventually(lambda: endpoint.connections == 0)
        await eventually(lambda: memory.left == full)


class Client(RawClient):
    """Speaks with an endpoint."""

    async def hear(self) -> str:
        """One reply, all its lines."""
        return (await self.hear_octets()).decode()

    async def hear_codes(self, count: int) -> list[int]:
        return [int((await self.hear())[:3]) for _ in range(count)]

    async def ask(self, line: str) -> str:
        await self.say(line.encode() + b"\r\n")
        return await self.hear()

    async def hello(self, verb: str = "EHLO") -> str:
        assert (await self.hear()).startswith("220 ")
        return await self.ask(f"{verb} client.example")

    async def send(self, content: bytes, *recipients: str, sender: str = "a@example.org") -> str:
        """A whole message behind EHLO, pipelined as far as it goes; the last reply."""
        lines = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{each}>" for each in recipients or ("b@example.net",)), "DATA"]
        await self.say("".join(line + "\r\n" for line in lines).encode())
        replies = [await self.hear() for _ in lines]
        if not replies[-1].startswith("354"):
            return replies[-1]
        await self.say(content + b".\r\n")
        return await self.hear()

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        try:
            return await self.reader.read(-1)
        except ConnectionError:
            return b""

    async def start_tls(self) -> None:
        assert (await self.ask("STARTTLS")).startswith("220 ")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        await self.writer.start_tls(context)

    def close(self) -> None:
        self.writer.close()
