"""How long a message is under way at half load: from its end of data at the system to its end of data at the receiver.

    python -m bench.delay
    python -m bench.delay --only mailrider --seconds 20

Each system's capacity is measured first: 20 sessions that send as fast as it takes. Then messages come at half of that
rate, evenly, whatever became of those before (a sender that waited would hide what is slow):

1. over 20 sessions;
2. over 300 sessions, which are all open all the time, and have their turns;
3. over 20 sessions, while a tenth of the mail goes to a destination that accepts connections and never says a word
   (that tenth is not counted).

Sender and receiver are one process, with one clock. `late` is how far the sender was behind its plan: a system that
does not take a message in time delays the next one on that session, and the other columns do not show it. The first
second of each is not counted. Everything is in clear; queues are durable.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import uvloop

from bench.measure import machine
from bench.network import SMTP_PORT, ZONE, domain, network
from bench.office import BACKLOG, Mail, Office
from bench.systems import MAILRIDERS, POSTFIX_TUNED
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from bench.network import Network
    from bench.office import Sender
    from bench.systems import Relay, System

SESSIONS, CROWD = 20, 300
SYSTEMS: tuple[System, ...] = (replace(POSTFIX_TUNED, receivers=str(2 * CROWD)), *MAILRIDERS)
DOMAINS = 10
SILENT = f"silent.{ZONE}"
SILENT_SHARE = 10  # every tenth message
WARM_UP = 1.0  # seconds
GRACE = 30.0  # seconds for what is still under way at the end
WANTED = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Delays:
    """What one case came to: seconds, sorted."""

    case: str
    rate: float
    delays: Sequence[float]
    late: Sequence[float]
    lost: int

    def line(self, system: str) -> str:
        """In milliseconds."""
        figures = (at(self.delays, 0.5), at(self.delays, 0.99), at(self.delays, 1.0), at(self.late, 0.99))
        told = f"{system:20} {self.case:34} {self.rate:6.0f} {len(self.delays):7}"
        told += "".join(f" {figure * 1000:8.1f}" for figure in figures)
        return f"{told}  {self.lost} not within {GRACE:.0f} s" if self.lost else told


def at(ordered: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


@dataclass(slots=True)
class Trial:
    """One running system, and all that it is sent."""

    net: Network
    relay: Relay
    seconds: float
    office: Office
    numbers: Iterator[int]
    counted: int = 0  # messages so far that must arrive

    async def capacity(self, messages: int) -> float:
        """Messages a second, when they come as fast as they are taken."""
        async with self.office.sending(self.relay.address, self.relay.port, SESSIONS) as sender:
            began = time.monotonic()
            for _ in range(messages):
                self._submit(sender)
            await self.office.delivered(self.counted)
            return messages / (time.monotonic() - began)

    def _submit(self, sender: Sender) -> int:
        number = next(self.numbers)
        sender.submit(Mail(number, domain(number % DOMAINS)))
        self.counted += 1
        return number

    async def at_rate(self, case: str, rate: float, sessions: int, *, silent: bool = False) -> Delays:
        """Evenly spaced messages."""
        due: dict[int, float] = {}
        lost = 0
        async with self.office.sending(self.relay.address, self.relay.port, sessions) as sender:
            begin = time.monotonic()
            for turn in range(int(rate * self.seconds)):
                when = begin + turn / rate
                while (left := when - time.monotonic()) > 0:  # noqa: ASYNC110 # a plan, no condition
                    await asyncio.sleep(left)
                if silent and turn % SILENT_SHARE == 0:
                    sender.submit(Mail(next(self.numbers), SILENT))
                else:
                    due[self._submit(sender)] = when
            try:
                await self.office.delivered(self.counted, GRACE)
            except TimeoutError:
                lost = sum(number not in self.office.received for number in due)
        return self._delays(case, rate, {number: when for number, when in due.items() if when > begin + WARM_UP}, lost)

    def _delays(self, case: str, rate: float, due: dict[int, float], lost: int) -> Delays:
        sent, received = self.office.sent, self.office.received
        delays = sorted(received[number] - sent[number] for number in due if number in received)
        late = sorted(sent[number] - when for number, when in due.items() if number in sent)
        return Delays(case, rate, delays, late, lost)


@contextlib.asynccontextmanager
async def silence(address: str) -> AsyncIterator[None]:
    """A server that accepts connections, and that is all."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, address, SMTP_PORT, backlog=BACKLOG)
    try:
        yield
    finally:
        server.close()


async def try_out(system: System, net: Network, silent: str, relay: Relay, options: argparse.Namespace) -> None:
    """All cases, one after the other, with one running system; prints each."""
    trial = Trial(net, relay, options.seconds, Office(options.size), itertools.count(1))
    async with trial.office.receiving(net.mx_address), silence(silent):
        await trial.capacity(system.capacity // 10)  # everybody has woken up
        most = await trial.capacity(system.capacity // 3)
        half = most * options.load
        cases = (
            trial.at_rate(f"{SESSIONS} sessions", half, SESSIONS),
            trial.at_rate(f"{CROWD} sessions", half, CROWD),
            trial.at_rate("a destination that never answers", half, SESSIONS, silent=True),
        )
        print(f"{system.name:20} {f'(takes {most:.0f} a second)':34}", flush=True)
        for case in cases:
            gc.collect()
            print((await case).line(system.name), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.delay")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each case")
    parser.add_argument("--load", type=float, default=0.5, help="the share of what the system can take")
    parser.add_argument("--size", type=int, default=4096, help="payload octets")
    parser.add_argument("--only", default="", metavar="NAME", help="systems whose name contains this")
    options = parser.parse_args()
    gc.disable()  # ours would be taken for the system's
    silent = new_address()
    more = {"silent": ["MX 10 mx.silent"], "mx.silent": [f"A {silent}"]}
    print(f"{machine()}; {options.size} octets; wanted: 99 % within {WANTED * 1000:.0f} ms")
    systems = [each for each in SYSTEMS if options.only.lower() in each.name.lower()]
    for system in systems:
        print(f"    {system.name}: {system.configuration}")
    print(f"\n{'ms':20} {'':34} {'per s':>6} {'count':>7} {'p50':>8} {'p99':>8} {'worst':>8} {'late p99':>8}")
    with network(DOMAINS, more=more) as net:
        for system in systems:
            with system.start(net) as relay:
                uvloop.run(try_out(system, net, silent, relay, options))


if __name__ == "__main__":
    main()
