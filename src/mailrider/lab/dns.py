"""The lab's DNS server: authoritative for a zone table, and as trusted as a validating resolver.

    async with LabDNS(zones) as server:
        ... ServerAddress(ip_address(server.address), server.port) ...
        assert not server.asked("_25._tcp.mx.plain.test", "TLSA")

UDP and TCP on the same port, on loopback, any free port by default. AD is set if the table says that all that
the answer rests on is signed, and the question had AD or DO (RFC 6840 5.7, 5.8); there are no real signatures.
What is not in the table does not exist; nothing is ever asked of anybody else. `queries` logs what was asked,
the latest `MAX_LOG`, but for the names that each start asks for to prove its resolver; `zones` may be changed at any
time. For faults see `Fault`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

import dns.rdatatype

from mailrider.clock import Clock, SystemClock
from mailrider.dns.proof import BOGUS_NAME, SIGNED_NAME
from mailrider.dns.servers import ServerAddress
from mailrider.lab.dns_replies import encode_replies, read_query
from mailrider.lab.zones import Fault, ZoneTable, find

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from mailrider.clock import Timer

MAX_LOG = 10_000  # queries; a lab may run for days
_PROOF_NAMES = (SIGNED_NAME.ascii, BOGUS_NAME.ascii)
MAX_BINDS = 20  # a port that is free for UDP need not be free for TCP


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """One question that came in; `name` in lower case without a trailing dot."""

    name: str
    type: str
    tcp: bool = False


class LabDNS:
    """A DNS server for a zone table; use it with `async with`."""

    def __init__(
        self, zones: ZoneTable, address: str = "127.0.0.53", port: int = 0, *, clock: Clock | None = None
    ) -> None:
        self.zones = zones
        self.address = address
        self.port = port
        self.queries: deque[AskedQuestion] = deque(maxlen=MAX_LOG)
        self._clock = clock or SystemClock()
        self._pending: set[Timer] = set()
        self._changed = asyncio.Event()
        self._datagrams: asyncio.DatagramTransport | None = None
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Transport] = set()

    @property
    def server(self) -> ServerAddress:
        """Where it listens, for a resolver."""
        return ServerAddress(ip_address(self.address), self.port)

    def asked(self, name: str, rdtype: str) -> int:
        """How often that was asked."""
        return sum(1 for query in self.queries if (query.name, query.type) == (name.lower(), rdtype))

    async def wait_asked(self, name: str, rdtype: str, times: int = 1) -> None:
        """Wait until that has been asked so often."""
        while self.asked(name, rdtype) < times:
            self._changed.clear()
            await self._changed.wait()

    async def __aenter__(self) -> Self:
        for _ in range(MAX_BINDS - 1):
            try:
                await self._bind()
            except OSError:
                if self.port:
                    raise
            else:
                return self
        await self._bind()
        return self

    async def _bind(self) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket(self.server.family, socket.SOCK_DGRAM)
        try:
            sock.bind((self.address, self.port))
            port = sock.getsockname()[1]
            self._listener = await loop.create_server(partial(_Stream, self), self.address, port)
        except OSError:
            sock.close()
            raise
        self._datagrams, _ = await loop.create_datagram_endpoint(partial(_Datagrams, self), sock=sock)
        self.port = port

    async def __aexit__(self, *_: object) -> None:
        for timer in self._pending:
            timer.cancel()
        if self._datagrams is not None:
            self._datagrams.abort()
        if self._listener is not None:
            self._listener.close()
        for connection in self._connections:
            connection.abort()
        await asyncio.sleep(0)  # the loop closes sockets in its next round

    def handle(self, message: bytes, *, tcp: bool, send: Callable[[bytes], None], close: Callable[[], None]) -> None:
        """Answer one message, now or after the delay that the table asks for."""
        query = read_query(message)
        if query is None:
            return
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        rdtype = dns.rdatatype.to_text(query.question[0].rdtype)
        if name in self.zones or name not in _PROOF_NAMES:
            self.queries.append(AskedQuestion(name, rdtype, tcp))
        self._changed.set()
        found = find(self.zones, name, rdtype)

        def answer() -> None:
            if tcp and found.fault is Fault.TCP_CLOSED:
                close()
            for reply in encode_replies(query, found, tcp=tcp):
                send(reply)

        if found.delay:
            self._later(found.delay, answer)
        else:
            answer()

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        def run() -> None:
            self._pending.discard(timer)
            action()

        timer = self._clock.call_at(self._clock.monotonic() + seconds, run)
        self._pending.add(timer)

    def connected(self, connection: asyncio.Transport) -> None:
        """A client has opened a TCP connection."""
        self._connections.add(connection)

    def disconnected(self, connection: asyncio.Transport) -> None:
        """That connection is closed."""
        self._connections.discard(connection)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: LabDNS) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.handle(data, tcp=False, send=partial(self._send, addr), close=lambda: None)

    def _send(self, addr: tuple[str, int], reply: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(reply, addr)


class _Stream(asyncio.Protocol):
    """Messages with a length before each."""

    def __init__(self, server: LabDNS) -> None:
        self._server = server
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.connected(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.disconnected(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= 2:
            end = 2 + int.from_bytes(self._received[:2])
            if len(self._received) < end:
                return
            message = bytes(self._received[2:end])
            del self._received[:end]
            self._server.handle(message, tcp=True, send=self._send, close=self._transport.abort)

    def _send(self, reply: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(len(reply).to_bytes(2) + reply)
