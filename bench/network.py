"""The network that all systems are measured in: a validating resolver, sinks, sources. Everything is on loopback.

Domains `d0.bench.test`, `d1.bench.test`, ... have one MX host, `mx.bench.test`, at the sink's address; unbound answers
from NSD's signed zone. The load is Debian's smtp-source, the receiver Debian's smtp-sink: neither is ours.
"""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.peers import Load, find_program, load_options
from mailrider.x509.describe import describe_chain
from tests.peers.certificate import Authority
from tests.peers.process import NotReadyError, accepts, private_directory, running, wait_until
from tests.peers.resolver import ResolverSettings, start_resolver
from tests.peers.zone import Signing, Zone
from tests.support.loopback import new_address

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from tests.peers.certificate import Certificate
    from tests.peers.zone import Records

ZONE = "bench.test"
MX = f"mx.{ZONE}"
SMTP_PORT = 25
PATIENCE = 120.0  # seconds for a round


class UnfinishedError(RuntimeError):
    """A system did not do what was asked of it in a round."""


@dataclass(frozen=True, slots=True)
class Network:
    """`resolver`: the address of a validating resolver; `mx_address`: where the only MX host is.

    `sink`: address and port at which an smtp-sink has to listen, if something stands in front of it.
    """

    resolver: str
    mx_address: str
    sink: tuple[str, int] | None = None

    @property
    def sink_at(self) -> tuple[str, int]:
        """Where the sink listens."""
        return self.sink or (self.mx_address, SMTP_PORT)


def domain(number: int) -> str:
    """The domain of that number."""
    return f"d{number}.{ZONE}"


@contextlib.contextmanager
def network(domains: int, tlsa: str | None = None, more: Records | None = None) -> Iterator[Network]:
    """The domains, resolvable while the block lasts. `tlsa`: the MX host's record; without one it has no DANE.

    `more`: further records of the zone.
    """
    address = new_address()
    records = {**(more or {}), **{f"d{number}": [f"MX 10 {MX}."] for number in range(domains)}}
    records["mx"] = [f"A {address}"]
    if tlsa is not None:
        records[f"_{SMTP_PORT}._tcp.mx"] = [f"TLSA {tlsa}"]
    with start_resolver(ResolverSettings((Zone(ZONE, records, Signing.VALID, ttl=3600),))) as resolver:
        yield Network(resolver.address, address)


def tlsa_of(certificate: Certificate) -> str:
    """The record that its key matches."""
    leaf, end, _ = certificate.chain.read_text().partition("-----END CERTIFICATE-----\n")
    return f"3 1 1 {describe_chain([ssl.PEM_cert_to_DER_cert(leaf + end)])[0].spki_sha256}"


_STUNNEL = """\
foreground = yes
pid =
syslog = no
debug = err
[smtp]
accept = {address}:{port}
connect = {sink}:{sink_port}
protocol = smtp
cert = {certificate.chain}
key = {certificate.key}
"""


@contextlib.contextmanager
def tls_network(domains: int) -> Iterator[Network]:
    """The same with an MX host that offers STARTTLS, and whose key stands in the signed zone.

    smtp-sink has no TLS, so Debian's stunnel speaks it in front of one: in C, as the sink itself, so that the receivers
    take as little of the machine as they can.
    """
    with private_directory() as home:
        certificate = Authority(home).issue(MX)
        with network(domains, tlsa_of(certificate)) as net:
            sink, sink_port = new_address(), 2526
            text = _STUNNEL.format(
                address=net.mx_address, port=SMTP_PORT, sink=sink, sink_port=sink_port, certificate=certificate
            )
            (home / "stunnel.conf").write_text(text)
            with running(
                ["stunnel4", str(home / "stunnel.conf")],
                log=home / "stunnel.log",
                ready=lambda: accepts(net.mx_address, SMTP_PORT),
            ):
                yield replace(net, sink=(sink, sink_port))


@dataclass(frozen=True, slots=True)
class Traffic:
    """`messages` of `size` payload octets over `sessions` connections at a time, to so many `domains`.

    `kept`: a session goes on to the next message (smtp-source -d). With several domains each has a source of its own,
    and the sessions are shared out, at least one each. `to_one`: all these sources send to the first domain.
    """

    messages: int
    sessions: int = 20
    size: int = 4096
    domains: int = 1
    kept: bool = True
    to_one: bool = False

    def sources(self, address: str, port: int) -> list[list[str]]:
        """The commands that make it."""
        each, sessions = self.messages // self.domains, max(1, self.sessions // self.domains)
        options = ["-s", str(sessions), "-m", str(each), "-l", str(self.size), *(["-d"] if self.kept else [])]
        return [
            [
                *(find_program("smtp-source"), *options, "-f", "sender@client.bench.test"),
                *("-t", f"recipient@{domain(0 if self.to_one else number)}", f"inet:{address}:{port}"),
            ]
            for number in range(self.domains)
        ]


def traffic_options(program: str, *, messages: int, rounds: int) -> argparse.ArgumentParser:
    """A parser for what makes traffic and chooses systems, with these defaults; slower systems get fewer messages."""
    parser = load_options(program, Load(messages=messages, size=4096), rounds)
    parser.add_argument("--only", default="", metavar="NAME", help="systems whose name contains this")
    return parser


@contextlib.contextmanager
def counting_sink(address: str, port: int, messages: int) -> Iterator[subprocess.Popen[bytes]]:
    """An smtp-sink that ends of its own when it has so many messages."""
    command = [find_program("smtp-sink"), "-u", "nobody", "-M", str(messages), f"inet:{address}:{port}", "1000"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: process.poll() is not None or accepts(address, port), "smtp-sink")
            yield process
        finally:
            process.terminate()


def send(traffic: Traffic, address: str, port: int) -> list[subprocess.Popen[bytes]]:
    """Start the sources."""
    return [
        subprocess.Popen(each, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for each in traffic.sources(address, port)
    ]


def wait_for(sink: subprocess.Popen[bytes], sources: list[subprocess.Popen[bytes]]) -> None:
    """Until the sink has every message and the sources have ended well. Raises `UnfinishedError`, within a bound."""

    def all_done() -> bool:
        if any(source.poll() for source in sources):
            raise UnfinishedError("it refused some message, or a connection: smtp-source gave up")
        return sink.poll() is not None and all(source.poll() is not None for source in sources)

    try:
        wait_until(all_done, "the delivery of all messages", PATIENCE)
    except NotReadyError as error:
        raise UnfinishedError(str(error)) from error
    finally:
        for source in sources:
            source.terminate()
            source.wait()


def wait_all(processes: list[subprocess.Popen[bytes]]) -> None:
    """Until all have ended well; raises `CalledProcessError` for one that did not."""
    for process in processes:
        if process.wait(PATIENCE):
            raise subprocess.CalledProcessError(process.returncode, process.args)
