"""The library through its pool, beside smtp-source and a loop over aiosmtplib, against one smtp-sink in one run.

    python -m bench.pool
    python -m bench.pool --messages 50000 --senders 20 --size 4096

`senders` tasks call `Remote.send` one message after the other; DNS is the lab's, in this process, and cached after the
first answer. aiosmtplib keeps as many connections, each in a task of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvloop
from aiosmtplib import SMTP

from bench.measure import Measurement, machine, measured, print_table
from bench.peers import HOST, Load, MissingError, Sink, run_smtp_source, smtp_sink
from mailrider import Remote
from mailrider.dns.settings import DNSSettings
from mailrider.lab.dns import LabDNS
from mailrider.model.outcome import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from mailrider.lab.zones import ZoneTable

SENDER = "a@example.org"
MX = "mx.bench.test"


@dataclass(frozen=True, slots=True)
class Task:
    """What is sent: `messages` of `size` payload octets by so many `senders`, to so many `domains` in turn."""

    messages: int = 20_000
    size: int = 1024
    senders: int = 20
    domains: int = 1

    def zones(self) -> ZoneTable:
        zones: ZoneTable = {domain: {"MX": f"10 {MX}"} for domain in self.names()}
        return zones | {MX: {"A": HOST}}

    def names(self) -> list[str]:
        return [f"domain{number}.test" for number in range(self.domains)]

    def recipients(self) -> Iterator[str]:
        names = self.names()
        return iter([f"b@{names[number % self.domains]}" for number in range(self.messages)])

    def message(self) -> bytes:
        lines, rest = divmod(self.size, 80)
        return b"Subject: bench\r\n\r\n" + (b"X" * 78 + b"\r\n") * lines + b"X" * max(0, rest - 2) + b"\r\n"


async def in_parallel(count: int, work: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(work())  # type: ignore[arg-type]


async def ours(sink: Sink, task: Task) -> Measurement:
    """All messages through one `Remote`."""
    message = task.message()
    recipients = task.recipients()
    async with (
        LabDNS(task.zones()) as dns,
        Remote(
            hostname="client.bench.test",
            port=sink.port,
            prohibited_addresses=(),
            dns=DNSSettings(server=[str(dns.server)]),
        ) as remote,
    ):

        async def sender() -> None:
            for recipient in recipients:
                (result,) = await remote.send(message, sender=SENDER, recipients=[recipient])
                assert result.status is Status.DELIVERED, result

        with measured(f"mailrider, {task.senders} senders, {task.domains} domains", task.messages) as watch:
            await in_parallel(task.senders, sender)
    return watch.result


async def aiosmtplib(sink: Sink, task: Task) -> Measurement:
    """All messages through as many clients as there are senders, each with a connection that it keeps."""
    message = task.message()
    recipients = task.recipients()

    async def sender() -> None:
        async with SMTP(hostname=HOST, port=sink.port, start_tls=False) as client:
            for recipient in recipients:
                await client.sendmail(SENDER, [recipient], message)

    with measured(f"aiosmtplib, {task.senders} kept connections", task.messages) as watch:
        await in_parallel(task.senders, sender)
    return watch.result


async def compare(task: Task, rounds: int) -> None:
    with smtp_sink() as sink:
        results = []
        load = Load(task.senders, task.messages, task.size)
        results.append(min([run_smtp_source(sink, load) for _ in range(rounds)], key=lambda one: one.wall))
        for domains in (1, 50):
            some = Task(task.messages, task.size, task.senders, domains)
            results.append(min([await ours(sink, some) for _ in range(rounds)], key=lambda one: one.wall))
        results.append(min([await aiosmtplib(sink, task) for _ in range(rounds)], key=lambda one: one.wall))
        print(f"{machine()}; {task.size} octets; smtp-sink used {sink.cpu():.2f} s of CPU")
        print_table(results)


def main() -> int:
    usual = Task()
    parser = argparse.ArgumentParser(prog="python -m bench.pool")
    parser.add_argument("--messages", type=int, default=usual.messages)
    parser.add_argument("--senders", type=int, default=usual.senders)
    parser.add_argument("--size", type=int, default=usual.size, help="payload octets")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest one counts")
    options = parser.parse_args()
    try:
        uvloop.run(compare(Task(options.messages, options.size, options.senders), options.rounds))
    except MissingError as error:
        print(f"bench.pool: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
