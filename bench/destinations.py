"""A thousand destinations, each with MX, TLSA and MTA-STS of its own: when nothing is known of them, and when all is.

    python -m bench.destinations
    python -m bench.destinations --domains 200 --only mailrider

Every domain has an MX host of its own name, signed records (unbound validates them), a TLSA record, and an MTA-STS
policy in mode enforce, which nginx serves over HTTPS; all hosts are one receiver with TLS 1.3. System and resolver are
started anew; then each domain gets one message (cold), and another one (warm). The clock stops when the receiver
has them all. Processor time is the system's alone, not that of resolver, policy host or receiver. `connections` is how
many the receiver saw: what comes soon after may find one still open.

Postfix looks at DANE; it has no MTA-STS. So mailrider is measured with DANE alone, too.
"""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import uvloop

from bench.measure import Measurement, machine, measured, ratio
from bench.network import SMTP_PORT, ZONE, Network, domain, tlsa_of
from bench.office import Mail, Office
from bench.systems import MAILRIDER_TUNED, POSTFIX_TUNED, WORKERS
from mailrider.net.tls import make_server_context
from tests.peers.certificate import Authority
from tests.peers.nginx import Site, start_nginx
from tests.peers.process import private_directory
from tests.peers.resolver import ResolverSettings, start_resolver
from tests.peers.zone import Signing, Zone
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.systems import Relay, System
    from tests.peers.certificate import Certificate

NAMES_EACH = 50  # of a policy host's certificate
POLICY = f"version: STSv1\r\nmode: enforce\r\nmx: *.{ZONE}\r\nmax_age: 604800\r\n".encode()
POLICY_FILE = ".well-known/mta-sts.txt"


@dataclass(frozen=True, slots=True)
class World:
    """What lasts for the whole run: the receiver's certificate, the policy host, and who certified it."""

    receiver: Certificate
    policy_address: str
    root: Path

    @contextlib.contextmanager
    def network(self, domains: int) -> Iterator[Network]:
        """The domains, and a resolver that knows nothing yet."""
        address = new_address()
        records: dict[str, list[str]] = {}
        for number in range(domains):
            records |= {
                f"d{number}": [f"MX 10 mx{number}"],
                f"mx{number}": [f"A {address}"],
                f"_{SMTP_PORT}._tcp.mx{number}": [f"TLSA {tlsa_of(self.receiver)}"],
                f"_mta-sts.d{number}": ['TXT "v=STSv1; id=1;"'],
                f"mta-sts.d{number}": [f"A {self.policy_address}"],
            }
        with start_resolver(ResolverSettings((Zone(ZONE, records, Signing.VALID, ttl=3600),))) as resolver:
            yield Network(resolver.address, address)


@contextlib.contextmanager
def world(domains: int) -> Iterator[World]:
    """Policy hosts for so many domains."""
    with private_directory() as home:
        authority, sites = Authority(home), {}
        for first in range(0, domains, NAMES_EACH):
            names = [f"mta-sts.{domain(number)}" for number in range(first, min(first + NAMES_EACH, domains))]
            others = f"server_name {' '.join(names)};"
            sites[names[0]] = Site(authority.issue(*names), {POLICY_FILE: POLICY}, others)
        with start_nginx(sites) as nginx:
            yield World(authority.issue(f"*.{ZONE}"), nginx.address, authority.root)


def systems(root: Path) -> Sequence[System]:
    """Those that are measured."""
    dane = replace(MAILRIDER_TUNED, name="mailrider, DANE", dane=True)
    both = replace(dane, name="mailrider, DANE and MTA-STS", policy_root=str(root))
    several = (each for one in (dane, both) for each in map(one.with_workers, WORKERS))
    return replace(POSTFIX_TUNED, name="Postfix, DANE", dane=True), dane, both, *several


async def cold_and_warm(
    net: Network, relay: Relay, world: World, options: argparse.Namespace
) -> list[tuple[Measurement, int]]:
    """Two messages to each domain, the second ones when all first ones have arrived; and how many connections."""
    office, figures = Office(options.size), []
    context = make_server_context(world.receiver.chain, world.receiver.key)
    async with (
        office.receiving(net.mx_address, context),
        office.sending(relay.address, relay.port, options.sessions) as sender,
    ):
        for first in (0, options.domains):
            connected = office.connections
            with measured("warm" if first else "cold", options.domains, relay.group.cpu) as watch:
                for number in range(options.domains):
                    sender.submit(Mail(first + number, domain(number)))
                await office.delivered(first + options.domains)
            figures.append((watch.result, office.connections - connected))
    return figures


def print_line(name: str, one: Measurement, connections: int, base: Measurement) -> None:
    """`base`: what the last column is relative to."""
    print(
        f"{name:28} {one.name:5} {one.wall:7.2f} {one.rate:8.0f} {one.cpu_each:7.3f}"
        f" {connections:11} {ratio(one, base):6.2f}",
        flush=True,
    )


def compare(world: World, options: argparse.Namespace) -> None:
    """All systems, one after the other; `x` compares warm with cold."""
    chosen = [each for each in systems(world.root) if options.only.lower() in each.name.lower()]
    for system in chosen:
        print(f"    {system.name}: {system.configuration}")
    print(f"\n{'':28} {'':5} {'wall s':>7} {'per s':>8} {'cpu ms':>7} {'connections':>11} {'x':>6}")
    for _ in range(options.rounds):
        for system in chosen:
            with world.network(options.domains) as net, system.start(net) as relay:
                found = uvloop.run(cold_and_warm(net, relay, world, options))
            for one, connections in found:
                print_line(system.name, one, connections, found[0][0])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.destinations")
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--size", type=int, default=4096, help="payload octets")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="", metavar="NAME", help="systems whose name contains this")
    options = parser.parse_args()
    with world(options.domains) as everything:
        print(f"{machine()}; {options.domains} domains; {options.size} octets, {options.sessions} sessions")
        compare(everything, options)


if __name__ == "__main__":
    main()
