"""Known security faults of libunbound, and the versions in which they are mended.

Pure but for `debian_version`, which reads the list of installed packages: Debian mends faults in the version that it
has, so there the package's version counts. This table knows what was published when it was written, and no more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DPKG_STATUS: Final = Path("/var/lib/dpkg/status")
PACKAGE: Final = "libunbound8"
MAX_STATUS: Final = 64 * 1024 * 1024  # octets; a machine with 5,000 packages has 8 MiB

_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Advisory:
    """One fault. `mended` is NLnet Labs' version; `debian` the packages of older versions in which it is mended."""

    name: str
    what: str
    mended: str
    debian: tuple[str, ...] = ()


# https://nlnetlabs.nl/projects/unbound/security-advisories/ and the changelogs of Debian's package: those that concern
# a client in a process, which answers nobody.
ADVISORIES: Final = (
    Advisory(
        "CVE-2022-3204",
        "a delegation to unresponsive servers takes much time (NRDelegation)",
        "1.16.3",
    ),
    Advisory(
        "CVE-2023-50387",
        "a zone with many keys and signatures takes much time (KeyTrap)",
        "1.19.1",
        ("1.17.1-2+deb12u2",),
    ),
    Advisory(
        "CVE-2023-50868",
        "a zone with NSEC3 takes much time",
        "1.19.1",
        ("1.17.1-2+deb12u2",),
    ),
    Advisory("CVE-2024-8508", "answers with very large sets take much time", "1.21.1", ("1.17.1-2+deb12u3",)),
    Advisory("CVE-2024-43167", "a forwarder that cannot be read ends the process", "1.21.0", ("1.17.1-2+deb12u3",)),
    Advisory("CVE-2025-11411", "servers of a zone can be put in the place of others", "1.24.2", ("1.17.1-2+deb12u4",)),
    Advisory(
        "CVE-2026-33278",
        "a signed zone can end this process or run code in it (CVE-2026-42959 too, and CVE-2026-42960: forged answers)",
        "1.25.1",
    ),
    Advisory(
        "CVE-2026-44690",
        "a wildcard of one zone can be taken for data of another (and CVE-2026-56416: signed records damage memory)",
        "1.25.2",
    ),
    Advisory("CVE-2026-81642", "a key of a zone can end this process or run code in it", "1.26.1"),
)


def unmended(version: str, package: str | None = None) -> tuple[Advisory, ...]:
    """The faults that this version has; `package` is Debian's version of it, where there is one."""
    return tuple(each for each in ADVISORIES if not _is_mended(each, version, package))


def _is_mended(advisory: Advisory, version: str, package: str | None) -> bool:
    if _order(version) >= _order(advisory.mended):
        return True
    if package is None:
        return False
    same = [each for each in advisory.debian if each.partition("-")[0] == package.partition("-")[0]]
    return any(_order(package) >= _order(each) for each in same)


def _order(version: str) -> tuple[tuple[int, int | str], ...]:
    """Numbers as numbers, the rest as text. Enough for versions of one package in one release."""
    return tuple((1, int(part)) if part.isdigit() else (0, part) for part in _DIGITS.split(version))


def debian_version(path: Path = DPKG_STATUS) -> str | None:
    """The version of Debian's package, if it is installed; without its epoch."""
    try:
        with path.open("rb") as file:
            status = file.read(MAX_STATUS).decode("utf-8", "replace")
    except OSError:
        return None
    found = re.search(rf"^Package: {PACKAGE}$(?P<fields>(?:\n.+)*)", status, re.MULTILINE)
    version = found and re.search(r"^Version: (?:\d+:)?(\S+)$", found["fields"], re.MULTILINE)
    return version[1] if version else None
