"""A root of our own: zones from `.` down, signed by ldns, served by NSD, asked through an unbound that only forwards.

    with start_hierarchy(ZONES) as root:
        ... root.forwarder, root.port ...; root.anchor is the file with the root's key

Each zone says how it is signed and how its parent vouches for it. The forwarder validates nothing; it hands on what the
zones say, signatures included, as a provider's resolver does.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.peers.process import private_directory, running
from tests.peers.resolver import NSD_CONF, NSD_ZONE, answers
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

FORWARDER_CONF = """
server:
    interface: {address}@{port}
    interface: {address}@{tls_port}
    port: {port}
    access-control: 127.0.0.0/8 allow
    do-daemonize: no
    use-syslog: no
    logfile: ""
    username: ""
    chroot: ""
    directory: "{home}"
    pidfile: "{home}/forwarder.pid"
    num-threads: 1
    module-config: "{modules}"
    do-not-query-localhost: no
    local-zone: "test." nodefault
    trust-anchor-signaling: no
    {more}
stub-zone:
    name: "."
    stub-addr: {authority}@{port}
    stub-prime: no
remote-control:
    control-enable: no
"""


@dataclass(frozen=True)
class SignedZone:
    """A zone below our root. `records` as in `tests.peers.zone`.

    `algorithm` None: not signed. `options` are ldns-signzone's. `ds`: what stands in the parent: the zone's own (True),
    nothing (False), or this text. `altered`: what is replaced in the file after signing.
    """

    name: str
    records: Mapping[str, Sequence[str]] = field(default_factory=dict)
    algorithm: str | None = "ECDSAP256SHA256"
    options: tuple[str, ...] = ()
    ds: bool | str = True
    altered: tuple[str, str] | None = None
    delegated: bool = True

    @property
    def parent(self) -> str:
        """The zone above; the root's is empty."""
        return self.name.partition(".")[2] or "."


@dataclass(frozen=True)
class Hierarchy:
    """A running root. `anchor` is a file with its key in zone-file form, `bind_anchor` one as delv reads it."""

    authority: str
    forwarder: str
    port: int
    tls_port: int
    anchor: Path
    bind_anchor: Path
    home: Path


@contextlib.contextmanager
def start_hierarchy(
    zones: Sequence[SignedZone],
    *,
    port: int = 53,
    modules: str = "iterator",
    more: str = "",
    validates: bool = False,
    authority: str | None = None,
    also: Sequence[str] = (),
) -> Iterator[Hierarchy]:
    """NSD with all zones and a forwarder before it, while the block lasts. `validates`: the forwarder does.

    `authority` is NSD's address; it listens at those in `also` too.
    """
    authority = authority or new_address()
    forwarder, tls_port = new_address(), 853
    with private_directory() as home:
        files = write_zones(zones, home, authority)
        nsd = home / "nsd.conf"
        nsd.write_text(
            NSD_CONF.format(home=home, address=authority, port=port)
            + "".join(f"server:\n    ip-address: {each}@{port}\n" for each in also)
            + "".join(NSD_ZONE.format(name=name, path=path) for name, path in files.items())
        )
        key = (home / "root.ds").read_text().strip()
        anchor, bind_anchor = home / "anchor", home / "anchor.bind"
        anchor.write_text(f"{key}\n")
        tag, algorithm, digest_type, *digest = key.split()[-4:]
        bind_anchor.write_text(
            f'trust-anchors {{ . static-ds {tag} {algorithm} {digest_type} "{"".join(digest)}"; }};\n'
        )
        if validates:
            modules, more = "validator iterator", f'{more}\n    trust-anchor-file: "{anchor}"'
        conf = home / "forwarder.conf"
        conf.write_text(
            FORWARDER_CONF.format(
                home=home,
                address=forwarder,
                authority=authority,
                port=port,
                tls_port=tls_port,
                modules=modules,
                more=more,
            )
        )
        with (
            running(
                ["/usr/sbin/nsd", "-d", "-c", str(nsd)],
                log=home / "nsd.log",
                ready=lambda: answers(authority, port),
            ),
            running(
                ["/usr/sbin/unbound", "-d", "-c", str(conf)],
                log=home / "forwarder.log",
                ready=lambda: answers(forwarder, port),
            ),
        ):
            yield Hierarchy(authority, forwarder, port, tls_port, anchor, bind_anchor, home)


def write_zones(zones: Sequence[SignedZone], home: Path, authority: str) -> dict[str, Path]:
    """Write and sign all zones, children first, so that their DS records stand in their parents.

    `authority` is the address of their server.
    """
    files: dict[str, Path] = {}
    delegations: dict[str, list[str]] = {}
    for zone in sorted(zones, key=lambda zone: -len(_labels(zone.name))):
        below = delegations.get(zone.name, [])
        files[zone.name], ds = _write(zone, below, home, authority)
        if zone.name == ".":
            assert ds is not None, "the root is signed"
            (home / "root.ds").write_text(ds)
        elif zone.delegated:
            lines = delegations.setdefault(zone.parent, [])
            lines.append(f"{zone.name}. NS ns.{zone.name}.")
            lines.append(f"ns.{zone.name}. A {authority}")
            if isinstance(zone.ds, str):
                lines.append(f"{zone.name}. DS {zone.ds}")
            elif zone.ds and ds is not None:
                lines.append(ds)
    return files


def _labels(name: str) -> list[str]:
    return [label for label in name.split(".") if label]


def _write(zone: SignedZone, below: Sequence[str], home: Path, authority: str) -> tuple[Path, str | None]:
    origin = "." if zone.name == "." else f"{zone.name}."
    stem = "root" if zone.name == "." else zone.name
    lines = [f"$ORIGIN {origin}", "$TTL 300", "@ SOA ns hostmaster 1 3600 600 86400 60", "@ NS ns", f"ns A {authority}"]
    lines += [f"{name} {record}" for name, records in zone.records.items() for record in records]
    path = home / f"{stem}.zone"
    path.write_text("\n".join([*lines, *below]) + "\n")
    if zone.algorithm is None:
        return path, None
    bits = ("-b", "2048") if zone.algorithm.startswith("RSA") else ()
    keys = [_run(home, "ldns-keygen", "-a", zone.algorithm, *bits, *kind, origin).strip() for kind in (("-k",), ())]
    _run(home, "ldns-signzone", *zone.options, path.name, *keys)
    signed = path.with_name(f"{path.name}.signed")
    if zone.altered is not None:
        text = signed.read_text()
        altered = re.sub(*zone.altered, text)
        assert altered != text, f"nothing to alter in {zone.name}"
        signed.write_text(altered)
    return signed, (home / f"{keys[0]}.ds").read_text().strip()


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
