"""What a channel costs: small request and reply, and a large write, beside a bare asyncio.Protocol.

    python -m bench.channel

Client and server are in one process on loopback, so a round trip is both sides' work; `python` is the time in our own
code for one exchange on a transport that does nothing. Ratios travel, seconds do not.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import time
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import uvloop

from mailrider.clock import SystemClock
from mailrider.lab.ca import CA
from mailrider.net.channel import Channel
from mailrider.net.dial import TCPDialer
from mailrider.net.listen import listen
from mailrider.net.settings import TLSClientSettings
from mailrider.net.tls import make_client_context, make_server_context

CLOCK = SystemClock()
LOOPBACK = IPv4Address("127.0.0.1")
REQUEST = b"MAIL FROM:<somebody@example.org> SIZE=1234 BODY=8BITMIME\r\n"
ROUNDS = 20_000
LARGE = 64 * 1024 * 1024
CHUNK = 64 * 1024


class BareEcho(asyncio.Protocol):
    """The yardstick's server."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BareClient(BareEcho):
    """The yardstick's client: one request after the other."""

    def __init__(self) -> None:
        self.left = ROUNDS
        self.done = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.left -= 1
        if self.left:
            self.transport.write(REQUEST)
        else:
            self.done.set_result(None)


class Echo:
    """A receiver that sends back what it gets."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def data_received(self, data: bytes) -> None:
        self.channel.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        pass


class Client(Echo):
    """One request after the other, over a channel."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.left = ROUNDS
        self.done = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.left -= 1
        if self.left:
            self.channel.write(REQUEST)
        elif not self.done.done():
            self.done.set_result(None)


class Sink(Echo):
    """Counts what it gets, and answers when it has all."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.left = LARGE

    def data_received(self, data: bytes) -> None:
        self.left -= len(data)
        if not self.left:
            self.channel.write(b"250 ok\r\n")


async def bare() -> float:
    """CPU seconds of all rounds between bare protocols."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(BareEcho, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, client = await loop.create_connection(BareClient, "127.0.0.1", port)
    began = time.process_time()
    transport.write(REQUEST)
    await client.done
    took = time.process_time() - began
    transport.close()
    server.close()
    return took


Work = Callable[[Channel], Coroutine[Any, Any, None]]


async def over_channels(make: type[Echo], work: Work, contexts: Contexts | None) -> float:
    """CPU seconds of `work` on a channel to a server whose receivers `make` makes."""
    tasks = set()

    def accept(channel: Channel) -> Echo:
        if contexts is not None:
            tasks.add(asyncio.ensure_future(channel.start_tls_server(contexts[1])))
        return make(channel)

    async with await listen(CLOCK, LOOPBACK, 0, accept) as listener:
        channel = await TCPDialer(CLOCK).connect(LOOPBACK, listener.port, CLOCK.monotonic() + 5)
        if contexts is not None:
            await channel.start_tls_client(contexts[0], "mx.bench.test", CLOCK.monotonic() + 5)
        began = time.process_time()
        await work(channel)
        took = time.process_time() - began
        await channel.close()
    return took


async def small(channel: Channel) -> None:
    client = Client(channel)
    channel.receiver = client
    channel.write(REQUEST)
    await client.done


async def large(channel: Channel) -> None:
    client = Client(channel)
    client.left = 1
    channel.receiver = client
    content = bytes(CHUNK)
    for _ in range(LARGE // CHUNK):
        channel.write(content)
        if channel.needs_drain:
            await channel.drain()
    await client.done


class Nowhere(asyncio.Transport):
    """A transport that costs nothing."""

    def write(self, data: object) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


async def in_python() -> float:
    """Seconds for one request and reply in our own code, the loop and the sockets left out."""
    channel = Channel(CLOCK)
    channel.connection_made(Nowhere())
    client = Client(channel)
    channel.receiver = client
    began = time.perf_counter()
    for _ in range(ROUNDS):
        channel.data_received(REQUEST)
    return (time.perf_counter() - began) / ROUNDS


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def make_contexts() -> Contexts:
    with tempfile.TemporaryDirectory() as folder:
        cert, key = CA().issue(["mx.bench.test"]).write(Path(folder), "mx")
        return make_client_context(TLSClientSettings()), make_server_context(cert, key)


async def main() -> None:
    contexts = make_contexts()
    yardstick = min([await bare() for _ in range(3)])
    plain = min([await over_channels(Echo, small, None) for _ in range(3)])
    tls = min([await over_channels(Echo, small, contexts) for _ in range(3)])
    row = "{:34} {:8.1f} us {:6.2f} x"
    for name, took in (("bare protocol", yardstick), ("channel", plain), ("channel, TLS", tls)):
        print(row.format(f"request and reply, {name}", took / ROUNDS * 1e6, took / yardstick))
    print("{:34} {:8.2f} us".format("of it in our own code, a side", await in_python() * 1e6))
    for name, some in (("clear", None), ("TLS", contexts)):
        took = min([await over_channels(Sink, large, some) for _ in range(3)])
        print("{:34} {:8.2f} us a KiB".format(f"large write, {name}", took / LARGE * 1024 * 1e6))


if __name__ == "__main__":
    uvloop.run(main())
