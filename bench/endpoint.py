"""What it costs to accept a message over SMTP, until it is handed on: the budget is 0.10 ms of CPU.

    python -m bench.endpoint                      # 20 kept connections, 20,000 messages
    python -m bench.endpoint --profile            # and where the time goes
    python -m bench.endpoint --idle 10000         # what a crowd that says nothing costs

The clients run in a process of their own, and pipeline as a relaying server does. The sink takes everything at once.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import resource
import sys
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import uvloop

from bench.measure import best_of, machine, measured, print_table
from bench.peers import HOST, Load, load_options
from bench.session import send_barely, show_profile
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
    from bench.measure import Measurement
    from mailrider.endpoint.pipeline.check import Arrival
    from mailrider.model.envelope import Envelope
    from mailrider.smtp.content import Content

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


def send(port: int, load: Load) -> None:
    """The clients' process."""
    uvloop.run(send_barely(port, load))


async def accept(load: Load) -> Measurement:
    sink = Sink(load.messages)
    endpoint = make_endpoint(sink)
    await endpoint.open(bind_socket)
    process = multiprocessing.get_context("spawn").Process(target=send, args=(endpoint.ports[0], load))
    process.start()
    while endpoint.connections < load.sessions:  # noqa: ASYNC110 # a look now and then is no work
        await asyncio.sleep(0.001)
    with measured(f"accepting, {load.sessions} kept connections", load.messages) as watch:
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
    parser = load_options("bench.endpoint", Load(messages=20_000, size=4096))
    parser.add_argument("--idle", type=int, default=0, metavar="CLIENTS", help="a crowd instead")
    parser.add_argument("--profile", action="store_true", help="show where our time goes")
    options = parser.parse_args()
    if options.idle:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        uvloop.run(idle(options.idle))
        return 0

    def work() -> Measurement:
        return uvloop.run(accept(Load(options.sessions, options.messages, options.size)))

    print(f"{machine()}; {options.size} octets")
    print_table([best_of(options.rounds, work)])
    if options.profile:
        show_profile(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
