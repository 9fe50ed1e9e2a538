"""A validating resolver over zones of our own: NSD serves them, unbound asks it and validates.

Both live in one temporary folder, on loopback addresses of their own; the system's resolver is
neither asked nor touched. unbound knows the zones and nothing else: any other name is NXDOMAIN, so
no query ever leaves the machine. It trusts the keys of the signed zones, so it sets AD on what
validates and answers SERVFAIL for what does not.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.peers.process import private_directory, running
from tests.peers.zone import ZoneFile, write_zone
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.zone import Zone

NSD_CONF = """
server:
    ip-address: {address}@{port}
    server-count: 1
    username: ""
    database: ""
    zonesdir: "{home}"
    pidfile: "{home}/nsd.pid"
    zonelistfile: "{home}/zone.list"
    xfrdfile: "{home}/xfrd.state"
    xfrdir: "{home}"
remote-control:
    control-enable: no
"""
NSD_ZONE = """
zone:
    name: "{name}"
    zonefile: "{path}"
"""
_UNBOUND_CONF = """
server:
    interface: {address}@{port}
    port: {port}
    access-control: 127.0.0.0/8 allow
    do-daemonize: no
    use-syslog: no
    logfile: ""
    log-servfail: yes
    username: ""
    chroot: ""
    directory: "{home}"
    pidfile: "{home}/unbound.pid"
    num-threads: 1
    module-config: "{modules}"
    do-not-query-localhost: no
    qname-minimisation: no
    local-zone: "." static
remote-control:
    control-enable: no
"""
_UNBOUND_ZONE = """
server:
    local-zone: "{name}" transparent
stub-zone:
    name: "{name}"
    stub-addr: {address}@{port}
"""


@dataclass(frozen=True)
class ResolverSettings:
    """Where the two listen; the resolver's port is 53. Not `validates`: the resolver believes everything."""

    zones: tuple[Zone, ...]
    address: str = field(default_factory=new_address)
    port: int = 53
    authority_address: str = field(default_factory=new_address)
    authority_port: int = 53
    validates: bool = True


@dataclass(frozen=True)
class Resolver:
    """A running resolver."""

    address: str
    port: int


@contextlib.contextmanager
def start_resolver(settings: ResolverSettings) -> Iterator[Resolver]:
    """NSD and unbound, answering while the block lasts. Needs root."""
    with private_directory() as home:
        zones = [write_zone(zone, home) for zone in settings.zones]
        nsd = _write_nsd_conf(home, settings, zones)
        unbound = _write_unbound_conf(home, settings, zones)
        with running(
            ["/usr/sbin/nsd", "-d", "-c", str(nsd)],
            log=home / "nsd.log",
            ready=lambda: answers(settings.authority_address, settings.authority_port),
        ):
            with running(
                ["/usr/sbin/unbound", "-d", "-c", str(unbound)],
                log=home / "unbound.log",
                ready=lambda: answers(settings.address, settings.port),
            ):
                yield Resolver(settings.address, settings.port)


def _write_nsd_conf(home: Path, settings: ResolverSettings, zones: list[ZoneFile]) -> Path:
    path = home / "nsd.conf"
    server = NSD_CONF.format(home=home, address=settings.authority_address, port=settings.authority_port)
    path.write_text(server + "".join(NSD_ZONE.format(name=z.zone.name, path=z.path) for z in zones))
    return path


def _write_unbound_conf(home: Path, settings: ResolverSettings, zones: list[ZoneFile]) -> Path:
    path = home / "unbound.conf"
    modules = "validator iterator" if settings.validates else "iterator"
    server = _UNBOUND_CONF.format(home=home, address=settings.address, port=settings.port, modules=modules)
    stubs = [
        _UNBOUND_ZONE.format(name=z.zone.name, address=settings.authority_address, port=settings.authority_port)
        for z in zones
    ]
    anchors = [f"server:\n    trust-anchor: '{z.anchor}'\n" for z in zones if z.anchor]
    path.write_text("".join([server, *stubs, *anchors]))
    return path


def answers(address: str, port: int) -> bool:
    """Whether a DNS server there answers anything to the question for the root's SOA."""
    question = bytes.fromhex("4d52 0100 0001 0000 0000 0000 00 0006 0001")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        try:
            client.connect((address, port))
            client.send(question)
            return client.recv(512)[:2] == question[:2]
        except OSError:
            return False
