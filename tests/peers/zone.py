"""Zones as tables, written to files, and signed by ldns.

    Zone("good.test", {"@": ["MX 10 mx"], "mx": ["A 127.1.2.3"]}, Signing.VALID)

Names without a final dot are relative to the zone. SOA and NS are added.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Records = Mapping[str, Sequence[str]]


class Signing(Enum):
    """How a zone is signed."""

    NONE = "unsigned"
    VALID = "validates"
    EXPIRED = "bogus: the signatures ran out long ago"


@dataclass(frozen=True)
class Zone:
    """`records`: owner name to its records, each `TYPE RDATA` as in a zone file."""

    name: str
    records: Records
    signing: Signing = Signing.NONE
    ttl: int = 300


@dataclass(frozen=True)
class ZoneFile:
    """A zone on disk; `anchor`: its DS record, for whoever is to validate it."""

    zone: Zone
    path: Path
    anchor: str | None


def write_zone(zone: Zone, folder: Path) -> ZoneFile:
    """Write the zone into `folder` and sign it as it wants to be."""
    path = folder / f"{zone.name}.zone"
    path.write_text(_zone_text(zone))
    if zone.signing is Signing.NONE:
        return ZoneFile(zone, path, None)
    keys = [_make_key(zone, folder, "-k"), _make_key(zone, folder)]
    expired = zone.signing is Signing.EXPIRED
    validity = ["-i", "20200101", "-e", "20200201"] if expired else []
    _run(folder, "ldns-signzone", *validity, path.name, *keys)
    anchor = (folder / f"{keys[0]}.ds").read_text().strip()
    return ZoneFile(zone, path.with_name(f"{path.name}.signed"), anchor)


def _zone_text(zone: Zone) -> str:
    lines = [
        f"$ORIGIN {zone.name}.",
        f"$TTL {zone.ttl}",
        "@ SOA ns hostmaster 1 3600 600 86400 60",
        "@ NS ns",
        "ns A 127.0.0.1",
    ]
    lines += [f"{name} {record}" for name, records in zone.records.items() for record in records]
    return "\n".join(lines) + "\n"


def _make_key(zone: Zone, folder: Path, *options: str) -> str:
    """A new key's file name, without its ending; `-k` makes a key-signing key."""
    return _run(folder, "ldns-keygen", "-a", "ECDSAP256SHA256", *options, zone.name).strip()


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
