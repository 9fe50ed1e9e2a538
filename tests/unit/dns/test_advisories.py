"""Known faults of libunbound: which a version has, on Debian by the package's own version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mailrider.dns.advisories import ADVISORIES, debian_version, unmended

if TYPE_CHECKING:
    from pathlib import Path

MENDED = "1.17.1-2+deb12u4"
HIJACK = "CVE-2025-11411"
OF_2026 = ["CVE-2026-33278", "CVE-2026-44690", "CVE-2026-81642"]


@pytest.mark.parametrize(
    ("version", "package", "expected"),
    [
        ("1.26.1", None, []),
        ("1.27.0", None, []),
        ("1.26.0", None, OF_2026[2:]),
        ("1.25.1", None, OF_2026[1:]),
        ("1.24.2", None, OF_2026),
        ("1.24.1", None, [HIJACK, *OF_2026]),
        ("1.9.6", None, [each.name for each in ADVISORIES]),
        ("1.17.1", "1.17.1-2+deb12u4", OF_2026),
        ("1.17.1", "1.17.1-2+deb12u10", OF_2026),
        ("1.17.1", "1.17.1-2+deb12u3", [HIJACK, *OF_2026]),
        ("1.17.1", "1.17.1-2", [each.name for each in ADVISORIES[1:]]),
        ("1.18.0", "1.18.0-1+deb12u9", [each.name for each in ADVISORIES[1:]]),
        ("1.17.1", None, [each.name for each in ADVISORIES[1:]]),
    ],
)
def test_what_a_version_lacks(version: str, package: str | None, expected: list[str]) -> None:
    assert [each.name for each in unmended(version, package)] == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            "Package: a\nVersion: 1\n\nPackage: libunbound8\nStatus: x\nVersion: 1.17.1-2+deb12u4\nX: y\n",
            "1.17.1-2+deb12u4",
        ),
        ("Package: libunbound8\nVersion: 3:1.22.0-1\n", "1.22.0-1"),
        ("Package: libunbound8\nStatus: x\n\nPackage: b\nVersion: 2\n", None),
        ("Package: libunbound\nVersion: 2\n", None),
        ("", None),
    ],
)
def test_the_package_s_version(tmp_path: Path, status: str, expected: str | None) -> None:
    path = tmp_path / "status"
    path.write_text(status)
    assert debian_version(path) == expected


def test_where_there_are_no_packages(tmp_path: Path) -> None:
    assert debian_version(tmp_path / "none") is None
