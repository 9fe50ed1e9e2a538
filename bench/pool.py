"""The library through its pool, beside smtp-source and aiosmtplib, against one sink in one run.

    python -m bench.pool
    python -m bench.pool --messages 50000 --senders 50 --size 4096

In clear against Debian's smtp-sink; over TLS 1.3 with DANE, and at a distance (every reply takes ten milliseconds),
against `bench.tls_sink`. `senders` tasks call `Remote.send`, each one message after the other; DNS is the lab's, in
this process, and cached after the first answer. "kept" means that a connection carries as many messages as there are,
"10 each" what is configured by default. aiosmtplib runs as a loop (one message after the other, a connection for each
domain that is kept), and as many loops at once.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import uvloop
from aiosmtplib import SMTP

import mailrider
from bench.measure import Measurement, best_of, machine, measured, print_table
from bench.peers import HOST, Load, run_smtp_source, smtp_sink
from bench.session import make_message
from bench.tls_sink import NAME, tls_sink
from mailrider.lab.dns import LabDNS
from mailrider.lab.zones import Name, ZoneTable, signed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

SENDER = "a@example.org"
DISTANCE = 0.01  # seconds for a reply: a server in the next country


@dataclass(frozen=True, slots=True)
class Task:
    """What is sent: `messages` of `size` payload octets by so many `senders`, to so many `domains` in turn.

    `reuse`: messages that a connection carries. `tlsa`: the server's record; without one it has no TLS.
    """

    port: int
    messages: int = 20_000
    size: int = 1024
    senders: int = 20
    domains: int = 1
    reuse: int = 1_000_000
    tlsa: str = ""

    @property
    def name(self) -> str:
        """As the table has it."""
        kept = "kept" if self.reuse >= self.messages else f"{self.reuse} each"
        how = "TLS 1.3, DANE" if self.tlsa else "in clear"
        return f"{how}, {self.domains} domains, {kept}"

    def zones(self) -> ZoneTable:
        """One MX host for all domains."""
        zones: ZoneTable = {domain: Name({"MX": f"10 {NAME}"}, signed=bool(self.tlsa)) for domain in self.names()}
        zones[NAME] = Name({"A": HOST}, signed=bool(self.tlsa))
        if self.tlsa:
            zones[f"_{self.port}._tcp.{NAME}"] = signed({"TLSA": self.tlsa})
        return zones

    def names(self) -> list[str]:
        """The domains."""
        return [f"domain{number}.test" for number in range(self.domains)]

    def recipients(self) -> Iterator[str]:
        """A recipient for each message."""
        names = self.names()
        return iter([f"b@{names[number % self.domains]}" for number in range(self.messages)])

    def directives(self, dns: LabDNS) -> dict[str, Any]:
        """The settings of the `Remote`."""
        return {
            "hostname": "client.bench.test",
            "port": self.port,
            "prohibited_addresses": "none",
            "dns": mailrider.DNSSettings(server=[dns.server]),
            "conn_reuse_limit": self.reuse,
            "conn_max_idle_count": self.senders,
            "mx_auth": [mailrider.Dane()] if self.tlsa else None,
        }


async def in_parallel(count: int, work: Callable[[], Awaitable[None]]) -> None:
    """So many tasks of the same work."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(work())  # type: ignore[arg-type]


async def ours(task: Task) -> Measurement:
    """All messages through one `Remote`."""
    message, recipients = make_message(task.size), task.recipients()
    async with LabDNS(task.zones()) as dns, mailrider.Remote(**task.directives(dns)) as remote:

        async def sender() -> None:
            for recipient in recipients:
                (result,) = await remote.send(message, sender=SENDER, recipients=[recipient])
                assert result.status == "delivered", result
                assert bool(task.tlsa) is (result.security.authenticated_by == "dane"), result

        with measured(f"mailrider, {task.name}", task.messages) as watch:
            await in_parallel(task.senders, sender)
    return watch.result


async def aiosmtplib(task: Task) -> Measurement:
    """All messages by loops over clients, each of which keeps a connection for each domain."""
    message, recipients = make_message(task.size), task.recipients()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def sender() -> None:
        clients: dict[str, SMTP] = {}
        for recipient in recipients:
            domain = recipient.partition("@")[2]
            client = clients.get(domain)
            if client is None:
                client = clients[domain] = SMTP(
                    hostname=HOST, port=task.port, start_tls=bool(task.tlsa), tls_context=context
                )
                await client.connect()
            await client.sendmail(SENDER, [recipient], message)
        for client in clients.values():
            await client.quit()

    loops = "a loop" if task.senders == 1 else f"{task.senders} loops"
    how = "TLS" if task.tlsa else "in clear"
    with measured(f"aiosmtplib, {loops}, {how}, {task.domains} domains", task.messages) as watch:
        await in_parallel(task.senders, sender)
    return watch.result


def best(rounds: int, measure: Callable[[Task], Coroutine[Any, Any, Measurement]], task: Task) -> Measurement:
    """The fastest of several rounds, each on a loop of its own."""
    return best_of(rounds, lambda: uvloop.run(measure(task)))


def in_clear(task: Task, rounds: int) -> None:
    """Against smtp-sink."""
    with smtp_sink() as sink:
        task = replace(task, port=sink.port)
        results = [best_of(rounds, lambda: run_smtp_source(sink, Load(task.senders, task.messages, task.size)))]
        results += [best(rounds, ours, each) for each in (task, replace(task, domains=50), replace(task, reuse=10))]
        for loops, domains in ((1, 1), (1, 50), (task.senders, 1)):
            results.append(best(rounds, aiosmtplib, replace(task, senders=loops, domains=domains)))
        print(f"{machine()}; {task.size} octets; smtp-sink used {sink.cpu():.2f} s of CPU")
        print_table(results)


def over_tls(task: Task, rounds: int) -> None:
    """Against a server with TLS 1.3, whose key stands in DNS."""
    with tls_sink() as sink:
        task = replace(task, port=sink.port, tlsa=sink.tlsa)
        results = [best(rounds, ours, each) for each in (task, replace(task, domains=50), replace(task, reuse=10))]
        results += [best(rounds, aiosmtplib, replace(task, senders=loops)) for loops in (1, task.senders)]
        print(f"\nover TLS; bench.tls_sink used {sink.cpu():.2f} s of CPU")
        print_table(results)


def at_a_distance(task: Task) -> None:
    """Against a server that is not in the same room; a tenth and less of the messages, or it would take for ever."""
    with tls_sink(DISTANCE) as sink:
        task = replace(task, port=sink.port, messages=task.messages // 10)
        some = replace(task, senders=1, messages=task.messages // 20)
        results = [uvloop.run(aiosmtplib(replace(some, domains=domains))) for domains in (1, 50)]
        results += [uvloop.run(ours(replace(task, domains=domains))) for domains in (1, 50)]
        print(f"\nevery reply takes {DISTANCE * 1000:g} ms")
        print_table(results)


def main() -> None:
    usual = Task(0)
    parser = argparse.ArgumentParser(prog="python -m bench.pool")
    parser.add_argument("--messages", type=int, default=usual.messages)
    parser.add_argument("--senders", type=int, default=usual.senders)
    parser.add_argument("--size", type=int, default=usual.size, help="payload octets")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest one counts")
    options = parser.parse_args()
    task = Task(0, options.messages, options.size, options.senders)
    in_clear(task, options.rounds)
    over_tls(task, options.rounds)
    at_a_distance(task)


if __name__ == "__main__":
    main()
