"""What it costs to accept a message over SMTP, until it is handed on: the budget is 0.10 ms of CPU.

    python -m bench.endpoint                      # 20 kept connections, 20,000 messages
    python -m bench.endpoint --profile            # and where the time goes
    python -m bench.endpoint --idle 10000         # what a crowd that says nothing costs

The clients run in a process of their own, and pipeline as a relaying server does. The sink takes everything at once.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import resource
import sys
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, cast

import uvloop

from bench.measure import best_of, machine, measured, print_table
from bench.session import make_message, show_profile
from mailrider.clock import SystemClock
from mailrider.endpoint.intake import Memory
from mailrider.endpoint.listener import ConnectionLimits, Endpoint
from mailrider.endpoint.service import Service
from mailrider.endpoint.sockets import bind_socket
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from mailrider.model.outcome import AttemptReport, Delivered
from mailrider.model.reply import Reply
from mailrider.settings.socket_address import Scheme, SocketAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measure import Measurement
    from mailrider.endpoint.pipeline.check import Arrival
    from mailrider.model.envelope import Envelope
    from mailrider.smtp.content import Content

HOST = "127.0.0.1"
ENVELOPE = b"MAIL FROM:<a@example.org> BODY=8BITMIME\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
TAKEN = Reply.make(250, "2.0.0", "Queued")


class Sink:
    """Takes everything, and tells when it had enough."""

    def __init__(self, enough: int) -> None:
        self.left = enough
        self.done = asyncio.Event()

    async def deliver(self, envelope: Envelope, content: Content, arrival: Arrival) -> AttemptReport:
        self.left -= 1
        if not self.left:
            self.done.set()
        return AttemptReport(tuple(Delivered(each, TAKEN) for each in envelope.recipients))


class Client(asyncio.Protocol):
    """Sends one message after the other."""

    def __init__(self, turns: Iterator[int], content: bytes) -> None:
        self.turns = turns
        self.content = content + b".\r\n"
        self.state = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.state == 0:
            self.transport.write(b"EHLO client.bench.test\r\n")
            self.state = 1
        elif data.startswith(b"354") or b"\r\n354" in data:
            self.transport.write(self.content)
        elif data.startswith(b"250") and data.count(b"\r\n250") != 1:
            if next(self.turns, None) is None:
                self.transport.write(b"QUIT\r\n")
            else:
                self.transport.write(ENVELOPE)


def send(port: int, sessions: int, messages: int, size: int) -> None:
    """The clients' process."""

    async def run() -> None:
        turns = iter(range(messages))
        loop = asyncio.get_running_loop()
        content = make_message(size)
        made = [(await loop.create_connection(lambda: Client(turns, content), HOST, port))[0] for _ in range(sessions)]
        while any(not transport.is_closing() for transport in made):  # noqa: ASYNC110 # a look now and then is no work
            await asyncio.sleep(0.05)

    uvloop.run(run())


async def accept(sessions: int, messages: int, size: int) -> Measurement:
    sink = Sink(messages)
    endpoint = make_endpoint(sink)
    await endpoint.open(bind_socket)
    process = multiprocessing.get_context("spawn").Process(
        target=send, args=(endpoint.ports[0], sessions, messages, size)
    )
    process.start()
    while endpoint.connections < sessions:  # noqa: ASYNC110 # a look now and then is no work
        await asyncio.sleep(0.001)
    with measured(f"accepting, {sessions} kept connections", messages) as watch:
        await sink.done.wait()
    await asyncio.to_thread(process.join)
    await endpoint.close(0)
    return watch.result


def make_endpoint(sink: Sink) -> Endpoint:
    ids = itertools.count(1)
    service = Service(
        "smtp",
        Domain("mx.bench.test"),
        sink,
        lambda _, __, ___: None,
        SystemClock(),
        discard,
        lambda _: f"{next(ids):016x}",
        Memory(),
    )
    return Endpoint(service, [SocketAddress(Scheme.TCP, IPv4Address(HOST), 0)], ConnectionLimits(100_000, 100_000))


async def idle(clients: int) -> None:
    """A crowd that says EHLO and nothing more."""
    endpoint = make_endpoint(Sink(1))
    await endpoint.open(bind_socket)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    process = multiprocessing.get_context("spawn").Process(target=stay, args=(endpoint.ports[0], clients))
    process.start()
    while endpoint.connections < clients:  # noqa: ASYNC110 # a look now and then is no work
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    begin = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.sleep(2)
    end = resource.getrusage(resource.RUSAGE_SELF)
    cpu = end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime
    print(f"{clients} idle clients: {grown / clients:.1f} KiB each, {cpu / 2:.2%} of a processor")
    process.terminate()
    process.join()
    await endpoint.close(0)


def stay(port: int, clients: int) -> None:
    """Connects, and stays."""

    async def run() -> None:
        kept = [await asyncio.open_connection(HOST, port) for _ in range(clients)]
        for reader, writer in kept:
            await reader.readline()  # who does not wait for the greeting is sent away
            writer.write(b"EHLO client.bench.test\r\n")
        await asyncio.sleep(600)

    uvloop.run(run())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.endpoint")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=4096, help="payload octets")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest one counts")
    parser.add_argument("--idle", type=int, default=0, metavar="CLIENTS", help="a crowd instead")
    parser.add_argument("--profile", action="store_true", help="show where our time goes")
    options = parser.parse_args()
    if options.idle:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        uvloop.run(idle(options.idle))
        return 0

    def work() -> Measurement:
        return uvloop.run(accept(options.sessions, options.messages, options.size))

    print(f"{machine()}; {options.size} octets")
    print_table([best_of(options.rounds, work)])
    if options.profile:
        show_profile(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
