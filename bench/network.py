"""The network that all systems are measured in: a validating resolver, sinks, sources. Everything is on loopback.

Domains `d0.bench.test`, `d1.bench.test`, ... have one MX host, `mx.bench.test`, at the sink's address; unbound answers
from NSD's signed zone. The load is Debian's smtp-source, the receiver Debian's smtp-sink: neither is ours.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.peers import find_program
from tests.peers.process import accepts, loopback_address
from tests.peers.resolver import ResolverSettings, start_resolver
from tests.peers.zone import Signing, Zone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.zone import Records

ZONE = "bench.test"
MX = f"mx.{ZONE}"
SMTP_PORT = 25
PATIENCE = 900.0  # seconds for a round


@dataclass(frozen=True, slots=True)
class Network:
    """`resolver`: the address of a validating resolver; `mx_address`: where the only MX host is."""

    resolver: str
    mx_address: str


def domain(number: int) -> str:
    """The domain of that number."""
    return f"d{number}.{ZONE}"


@contextlib.contextmanager
def network(domains: int, tlsa: str | None = None, more: Records | None = None) -> Iterator[Network]:
    """The domains, resolvable while the block lasts. `tlsa`: the MX host's record; without one it has no DANE.

    `more`: further records of the zone.
    """
    address = loopback_address()
    records = {**(more or {}), **{f"d{number}": [f"MX 10 {MX}."] for number in range(domains)}}
    records["mx"] = [f"A {address}"]
    if tlsa is not None:
        records[f"_{SMTP_PORT}._tcp.mx"] = [f"TLSA {tlsa}"]
    with start_resolver(ResolverSettings((Zone(ZONE, records, Signing.VALID, ttl=3600),))) as resolver:
        yield Network(resolver.address, address)


@dataclass(frozen=True, slots=True)
class Traffic:
    """`messages` of `size` payload octets over `sessions` connections at a time, to so many `domains`.

    `kept`: a session goes on to the next message (smtp-source -d). With several domains each has a source of its own,
    and the sessions are shared out, at least one each.
    """

    messages: int
    sessions: int = 20
    size: int = 4096
    domains: int = 1
    kept: bool = True

    def sources(self, address: str, port: int) -> list[list[str]]:
        """The commands that make it."""
        each, sessions = self.messages // self.domains, max(1, self.sessions // self.domains)
        options = ["-s", str(sessions), "-m", str(each), "-l", str(self.size), *(["-d"] if self.kept else [])]
        return [
            [
                *(find_program("smtp-source"), *options, "-f", "sender@client.bench.test"),
                *("-t", f"recipient@{domain(number)}", f"inet:{address}:{port}"),
            ]
            for number in range(self.domains)
        ]


@contextlib.contextmanager
def counting_sink(address: str, port: int, messages: int) -> Iterator[subprocess.Popen[bytes]]:
    """An smtp-sink that ends of its own when it has so many messages."""
    command = [find_program("smtp-sink"), "-u", "nobody", "-M", str(messages), f"inet:{address}:{port}", "1000"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            while not accepts(address, port):
                time.sleep(0.01)
            yield process
        finally:
            process.terminate()


def send(traffic: Traffic, address: str, port: int) -> list[subprocess.Popen[bytes]]:
    """Start the sources."""
    return [
        subprocess.Popen(each, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for each in traffic.sources(address, port)
    ]


def wait_all(processes: list[subprocess.Popen[bytes]]) -> None:
    """Until all have ended well; raises `CalledProcessError` for one that did not."""
    for process in processes:
        if process.wait(PATIENCE):
            raise subprocess.CalledProcessError(process.returncode, process.args)
