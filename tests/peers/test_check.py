"""`mailrider check` tries out real resolvers: unbound that validates, one that does not, and one beyond loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.resolver import ResolverSettings, start_resolver
from tests.peers.zone import Signing, Zone
from tests.support.commands import Ran, run_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.resolver import Resolver

RECORDS = {"@": ["MX 10 mx", "A 127.9.9.9"], "mx": ["A 127.9.9.9"]}
ZONES = (
    Zone("signed.test", RECORDS, Signing.VALID),
    Zone("bogus.test", RECORDS, Signing.EXPIRED),
    Zone("plain.test", RECORDS),
)
CONFIGURATION = """
hostname client.test
state_dir {folder}
dns {{
    server {server}
    timeout 30s
    attempts 1
}}
target.remote {{
    requiretls_override no
    mx_auth {{
        dane
        dnssec
        local_policy
    }}
}}
"""


@pytest.fixture(scope="module")
def validating() -> Iterator[Resolver]:
    with start_resolver(ResolverSettings(ZONES)) as server:
        yield server


@pytest.fixture(scope="module")
def believing() -> Iterator[Resolver]:
    """As it comes where nobody cares: no validator in it."""
    with start_resolver(ResolverSettings(ZONES, validates=False)) as server:
        yield server


def check(server: str, folder: Path, signed: str = "signed.test", bogus: str = "bogus.test") -> Ran:
    file = folder / "mailrider.conf"
    file.write_text(CONFIGURATION.format(folder=folder, server=server))
    return run_here("-c", file, "check", "--signed", signed, "--bogus", bogus)


def test_a_validating_resolver_is_found_to_validate(validating: Resolver, tmp_path: Path) -> None:
    ran = check(validating.address, tmp_path)
    assert "ok       resolver: it validates: signed.test is authentic, bogus.test is refused" in ran.out.splitlines()
    assert "ok       clock: it fits the signatures of signed.test" in ran.out


def test_one_that_believes_everything_is_found_out(believing: Resolver, tmp_path: Path) -> None:
    ran = check(believing.address, tmp_path)
    assert "warning  resolver: signed.test is signed, but came without AD: it does not validate" in ran.out
    assert "DNSSEC and DANE are off" in ran.out
    assert "run a validating resolver, such as unbound, on this host" in ran.out


def test_one_that_does_not_validate_all_zones_is_found_out(validating: Resolver, tmp_path: Path) -> None:
    ran = check(validating.address, tmp_path, bogus="plain.test")
    assert "warning  resolver: it gave an answer for plain.test, whose signature is wrong" in ran.out


def test_a_dead_one_is_told(validating: Resolver, tmp_path: Path) -> None:
    ran = check(f"{validating.address}:9", tmp_path)
    assert "resolver: MX lookup of signed.test failed" in ran.out
    assert ran.code == 69
    assert "mail is deferred as long as DNS fails" in ran.out


def test_beyond_loopback_the_best_resolver_is_not_believed(tmp_path: Path) -> None:
    ran = check("192.0.2.53", tmp_path)
    assert "warning  resolver: DNSSEC and DANE are off" in ran.out
    assert "192.0.2.53:53 is not on loopback, so its answers could be forged on the way" in ran.out
    assert "dane and dnssec are listed, but the resolver cannot support them" in ran.out
    assert ran.code == 69  # nobody answers there
