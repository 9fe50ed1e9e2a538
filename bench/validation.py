"""Validation of DNSSEC in the process, beside unbound on loopback: destinations that nobody has heard of, with DANE.

    python -m bench.validation
    python -m bench.validation --domains 10000 --rounds 1

Every domain is a signed zone of its own below a signed TLD and a signed root, which NSD serves; it has an MX host and a
TLSA record. Two ways to know what is authentic:

- `unbound`: unbound on loopback validates, and mailrider believes it; both ask NSD;
- `in the process`: `dns { validate yes }`, libunbound asks NSD.

First the lookups of a delivery alone (MX, A, AAAA, TLSA), then whole deliveries over TLS with DANE. Processor time is
mailrider's and unbound's together, NSD and the receiver left out. Everything is started anew for each round. Then how
late timers run while 1,000 questions are validated, beside the same without questions; and how much memory it takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dns.dnssec
import dns.dnssectypes
import dns.rdataclass
import dns.rdatatype
import dns.zone
import psutil
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec

import mailrider
from bench.measure import Measurement, machine, measured, print_table, ratio
from bench.tls_sink import tls_sink
from mailrider.clock import SystemClock
from mailrider.dns.answer import RecordType
from mailrider.dns.opening import open_resolver
from mailrider.dns.settings import DNSSettings
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from tests.peers.hierarchy import FORWARDER_CONF
from tests.peers.process import private_directory, running
from tests.peers.resolver import NSD_CONF, NSD_ZONE, answers
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from bench.tls_sink import TLSSink
    from mailrider.dns.resolver import Resolver

TYPES = (RecordType.MX, RecordType.A, RecordType.AAAA, RecordType.TLSA)
AT_ONCE = 50
TICK = 0.005  # seconds
IDLE = 0.0001  # seconds of a turn of the loop in which nothing was done
LIFETIME = 30 * 86400  # seconds that the signatures hold
PATIENCE = 120.0  # seconds until NSD has read its zones


@dataclass(frozen=True, slots=True)
class Internet:
    """NSD is at `authority`; `anchor` is a file with the key of its root."""

    home: Path
    authority: str
    anchor: Path
    domains: int
    sink: TLSSink

    def names(self) -> list[str]:
        """The domains."""
        return [f"d{number}.test" for number in range(self.domains)]


@contextlib.contextmanager
def start_internet(domains: int, sink: TLSSink) -> Iterator[Internet]:
    """Zones signed with one key, and NSD."""
    with private_directory() as home:
        authority, key = new_address(), ec.generate_private_key(ec.SECP256R1())
        files: dict[str, Path] = {}
        delegations: list[str] = []
        for number in range(domains):
            records = f"@ MX 10 mx\nmx A 127.0.0.1\n_{sink.port}._tcp.mx TLSA {sink.tlsa}\n"
            name = f"d{number}.test"
            files[name], ds = write_zone(home, name, records, authority, key)
            delegations.append(f"{name}. NS ns.{name}.\nns.{name}. A {authority}\n{ds}\n")
        files["test"], ds = write_zone(home, "test", "".join(delegations), authority, key)
        files["."], root = write_zone(home, ".", f"test. NS ns.test.\nns.test. A {authority}\n{ds}\n", authority, key)
        anchor = home / "anchor"
        anchor.write_text(f"{root}\n")
        conf = home / "nsd.conf"
        zones = "".join(NSD_ZONE.format(name=name, path=path) for name, path in files.items())
        conf.write_text(NSD_CONF.format(home=home, address=authority, port=53) + zones)
        command = ["/usr/sbin/nsd", "-d", "-c", str(conf)]
        with running(command, log=home / "nsd.log", ready=lambda: answers(authority, 53)):
            yield Internet(home, authority, anchor, domains, sink)


def write_zone(
    home: Path, name: str, records: str, authority: str, key: ec.EllipticCurvePrivateKey
) -> tuple[Path, str]:
    """A zone, signed; and the DS record for its parent."""
    origin = "." if name == "." else f"{name}."
    head = f"$ORIGIN {origin}\n$TTL 3600\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A {authority}\n"
    zone = dns.zone.from_text(head + records, origin=origin, relativize=False)
    public: Any = dns.dnssec.make_dnskey(key.public_key(), dns.dnssectypes.Algorithm.ECDSAP256SHA256, flags=257)
    dns.dnssec.sign_zone(zone, keys=[(key, public)], lifetime=LIFETIME, deterministic=False)
    path = home / f"{'root' if name == '.' else name}.zone"
    zone.to_file(str(path), relativize=False)
    return path, f"{origin} 3600 IN DS {dns.dnssec.make_ds(origin, public, 'SHA256')}"


# The two ways ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """`settings` of `dns { }`, and the processes that validate beside us."""

    name: str
    settings: DNSSettings
    helpers: tuple[psutil.Process, ...] = ()

    def cpu(self) -> float:
        """Seconds of processor that we and they have used."""
        spent = (process.cpu_times() for process in (psutil.Process(), *self.helpers))
        return float(sum(times.user + times.system for times in spent))


@contextlib.contextmanager
def beside_unbound(net: Internet) -> Iterator[Way]:
    """unbound, which knows nothing yet."""
    address, conf = new_address(), net.home / "unbound.conf"
    conf.write_text(
        FORWARDER_CONF.format(
            home=net.home,
            address=address,
            authority=net.authority,
            port=53,
            tls_port=853,
            modules="validator iterator",
            more=f'trust-anchor-file: "{net.anchor}"',
        )
    )
    command = ["/usr/sbin/unbound", "-d", "-c", str(conf)]
    with running(command, log=net.home / "unbound.log", ready=lambda: answers(address, 53)) as process:
        yield Way("unbound", DNSSettings(server=[address]), (psutil.Process(process.pid),))


@contextlib.contextmanager
def in_the_process(net: Internet) -> Iterator[Way]:
    """libunbound."""
    settings = DNSSettings(server=[net.authority], validate="yes", trust_anchor=[net.anchor])
    yield Way("in the process", settings)


# What is measured -----------------------------------------------------------------------------------------------------


async def look_up(net: Internet, way: Way) -> Measurement:
    """Everything that a delivery asks of each domain; all of it must be authentic."""
    async with open_resolver(way.settings, SystemClock(), random.SystemRandom(), discard) as resolver:
        await resolver.lookup(Domain("test"), RecordType.A)  # the root and the TLD are known, as they always are

        async def one(name: str) -> None:
            questions = zip((name, *(f"mx.{name}",) * 2, f"_{net.sink.port}._tcp.mx.{name}"), TYPES, strict=True)
            for question, record_type in questions:
                answer = await resolver.lookup(Domain(question), record_type)
                assert answer.authentic, question

        return await timed(way, f"{way.name}: lookups", net.names(), one, len(TYPES))


async def deliver(net: Internet, way: Way) -> Measurement:
    """A message to each domain."""
    remote = mailrider.Remote(
        hostname="client.test",
        dns=way.settings,
        port=net.sink.port,
        prohibited_addresses="none",
        mx_auth=[mailrider.Dane(), mailrider.DNSSEC()],
    )
    async with remote:

        async def one(name: str) -> None:
            report = await remote.send(b"Subject: x\r\n\r\nx\r\n", sender="a@client.test", recipients=[f"b@{name}"])
            assert report[0].security.tls_level is mailrider.TLSLevel.AUTHENTICATED, report[0]

        return await timed(way, f"{way.name}: deliveries", net.names(), one, 1)


async def timed(way: Way, name: str, names: list[str], one: Callable[[str], Awaitable[None]], each: int) -> Measurement:
    """All names, `AT_ONCE` at once."""
    left = iter(names)

    async def worker() -> None:
        for each_name in left:
            await one(each_name)

    with measured(name, each * len(names), way.cpu) as watch:
        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return watch.result


async def standstill(net: Internet, way: Way, questions: int) -> tuple[list[float], list[float]]:
    """While so many questions are answered (or for a second, with none), seconds, sorted.

    How late a timer is; and what one turn of the loop takes of the processor, which no busy machine disturbs.
    """
    late: list[float] = []
    turns: list[float] = []
    async with open_resolver(way.settings, SystemClock(), random.SystemRandom(), discard) as resolver:
        await resolver.lookup(Domain("test"), RecordType.A)
        asking = asyncio.ensure_future(ask_many(resolver, net.names()[:questions]) if questions else asyncio.sleep(1))
        turning = asyncio.ensure_future(turn(turns))
        while not asking.done():
            began = time.perf_counter()
            await asyncio.sleep(TICK)
            late.append(time.perf_counter() - began - TICK)
        turning.cancel()
        await asking
    return sorted(late), sorted(turns)


async def turn(turns: list[float]) -> None:
    """Note what each turn of the loop takes, until cancelled."""
    while True:
        began = time.thread_time()
        await asyncio.sleep(0)
        turns.append(time.thread_time() - began)
        if turns[-1] < IDLE:
            turns.pop()


async def ask_many(resolver: Resolver, names: list[str]) -> None:
    """All of them are under way before the first is answered; no turn begins more than a few."""
    asking = []
    for number, name in enumerate(names):
        asking.append(asyncio.ensure_future(resolver.lookup(Domain(name), RecordType.MX)))
        if number % 10 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*asking)


def best(net: Internet, rounds: int, measure: Callable[[Internet, Way], Any]) -> list[Measurement]:
    """The fastest round of both ways, which take turns."""
    fastest: dict[str, Measurement] = {}
    for _ in range(rounds):
        for start in (beside_unbound, in_the_process):
            with start(net) as way:
                result: Measurement = uvloop.run(measure(net, way))
            known = fastest.setdefault(way.name, result)
            fastest[way.name] = min(known, result, key=lambda one: one.wall)
    return list(fastest.values())


def compare(net: Internet, rounds: int, measure: Callable[[Internet, Way], Any]) -> None:
    """Both ways, and their ratios: more than 1 means that the process itself is better."""
    theirs, ours = best(net, rounds, measure)
    print_table([theirs, ours])
    better = theirs.cpu_each / ours.cpu_each
    print(f"in the process: {ratio(ours, theirs):.2f} of the rate, {better:.2f} of it for the same processor time\n")


def print_standstill(net: Internet) -> None:
    for questions in (0, min(1000, net.domains)):
        with in_the_process(net) as way:
            late, turns = uvloop.run(standstill(net, way, questions))
        print(f"beside {questions:4} questions: a timer is late by {spread(late)}; a turn of the loop: {spread(turns)}")


def spread(seconds: list[float]) -> str:
    if not seconds:
        return "nothing"
    return f"{seconds[int(len(seconds) * 0.99)] * 1000:.2f} ms (p99), {seconds[-1] * 1000:.2f} ms (worst)"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.validation")
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-deliveries", dest="deliveries", action="store_false", help="lookups only")
    options = parser.parse_args()
    with tls_sink() as sink, start_internet(options.domains, sink) as net:
        print(f"{machine()}; {options.domains} signed zones\n")
        before = psutil.Process().memory_info().rss
        with in_the_process(net) as way:
            first = uvloop.run(look_up(net, way))
        grown = psutil.Process().memory_info().rss - before
        print(f"{first.rate:.0f} questions/s; {grown / 2**20:.0f} MiB more after {first.transactions}\n")
        compare(net, options.rounds, look_up)
        if options.deliveries:
            compare(net, options.rounds, deliver)
        print_standstill(net)


if __name__ == "__main__":
    main()
