"""Sessions driven directly, without policies, DNS and pool, beside smtp-source in the same run.

    python -m bench.session                       # 20 kept connections, 20,000 transactions
    python -m bench.session --profile             # and where our time goes

What one transaction costs at the least: the machines in `smtp/`, a `Conversation`, a `Channel`, uvloop, the kernel.
`echo` is the same bytes in the same number of writes and reads over bare protocols, with no SMTP in it: the floor.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, cast

import uvloop

from bench.measure import Measurement, best_of, machine, measured, print_table
from bench.peers import HOST, Load, Sink, load_options, run_smtp_source, smtp_sink
from mailrider.clock import SystemClock
from mailrider.delivery.connection.opening import open_session
from mailrider.delivery.connection.peer import Peer, SessionRules
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.event import discard
from mailrider.net.dial import TCPDialer
from mailrider.net.settings import TLSClientSettings
from mailrider.net.tls import make_client_context
from mailrider.smtp.content import Content
from mailrider.smtp.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.delivery.connection.session import Session

CLOCK = SystemClock()
RULES = SessionRules(Domain("client.bench.test"), 60.0, 60.0)
ENVELOPE = Envelope(ReversePath(Mailbox("a", Domain("example.org"))), (Recipient(Mailbox("b", Domain("example.net"))),))


_HEADER = b"Date: Mon, 30 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@bench.test>\r\nSubject: bench\r\n\r\n"


def make_message(size: int) -> bytes:
    """A message with so many octets of payload."""
    lines, rest = divmod(size, 80)
    return _HEADER + (b"X" * 78 + b"\r\n") * lines + b"X" * max(0, rest - 2) + b"\r\n"


async def open_sessions(sink: Sink, count: int) -> list[Session]:
    context = make_client_context(TLSClientSettings())
    dialer = TCPDialer(CLOCK)
    peer = Peer(Domain("mx.bench.test"), HOST, sink.port, None)
    sessions = []
    for _ in range(count):
        channel = await dialer.connect(IPv4Address(HOST), sink.port, CLOCK.monotonic() + 5)
        sessions.append(await open_session(channel, peer, RULES, CLOCK, context, discard))
    return sessions


async def transact(session: Session, turns: Iterator[int], content: Content) -> None:
    """Transactions on one session while there are any left."""
    for _ in turns:
        transaction = Transaction(ENVELOPE, ENVELOPE.recipients, content, session.capabilities)
        lost = await session.transact(transaction, content)
        assert lost is None, lost
        assert transaction.reusable, transaction.decisions


async def ours(sink: Sink, load: Load) -> Measurement:
    content = Content.inspect(make_message(load.size))
    sessions = await open_sessions(sink, load.sessions)
    turns = iter(range(load.messages))
    with measured(f"sessions, {load.sessions} kept connections", load.messages) as watch:
        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(transact(session, turns, content))
    for session in sessions:
        await session.quit()
    return watch.result


class Bare(asyncio.Protocol):
    """The least that a client can do: write, wait for an answer, write."""

    def __init__(self, turns: Iterator[int], content: bytes) -> None:
        self.turns = turns
        self.parts = (b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n", content + b".\r\n")
        self.expected = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.state = -2

    def data_received(self, data: bytes) -> None:
        if self.state == -2:
            self.transport.write(b"EHLO client.bench.test\r\n")
            self.state = -1
        elif data.startswith(b"354") or b"\r\n354" in data:
            self.transport.write(self.parts[1])
            self.state = 1
        elif self.state in (-1, 1):
            if next(self.turns, None) is None:
                self.transport.close()
                self.done.set_result(None)
            else:
                self.state = 0
                self.transport.write(self.parts[0])


async def send_barely(port: int, load: Load) -> None:
    """The same dialogue without looking at it."""
    loop = asyncio.get_running_loop()
    turns, content = iter(range(load.messages)), make_message(load.size)
    bares = [(await loop.create_connection(lambda: Bare(turns, content), HOST, port))[1] for _ in range(load.sessions)]
    for bare in bares:
        await bare.done


async def floor(sink: Sink, load: Load) -> Measurement:
    """What no client of this machine gets below."""
    with measured(f"bare protocols, {load.sessions} kept connections", load.messages) as watch:
        await send_barely(sink.port, load)
    return watch.result


def compare(load: Load, rounds: int, *, profile: bool) -> None:
    """Measure smtp-source, the floor and our sessions, and print them."""
    with smtp_sink() as sink:
        results = [
            best_of(rounds, lambda: run_smtp_source(sink, load)),
            best_of(rounds, lambda: uvloop.run(floor(sink, load))),
            best_of(rounds, lambda: uvloop.run(ours(sink, load))),
        ]
        print(f"{machine()}; {load.size} octets; smtp-sink used {sink.cpu():.2f} s of CPU")
        print_table(results)
        if profile:
            show_profile(lambda: uvloop.run(ours(sink, load)))


def show_profile(work: object) -> None:
    """Where the time of `work` goes, by function."""
    profiler = cProfile.Profile()
    profiler.runcall(cast("type", work))
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


def main() -> None:
    parser = load_options("bench.session", Load(messages=20_000))
    parser.add_argument("--profile", action="store_true", help="show where our time goes")
    options = parser.parse_args()
    compare(Load(options.sessions, options.messages, options.size), options.rounds, profile=options.profile)


if __name__ == "__main__":
    main()
