"""MTA-STS as the world serves it: the policy from nginx, the record from NSD through unbound, the mail to Postfix."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.lab.ca import CA, Kind
from mailrider.policy.sts.events import PolicyFetched, PolicyFetchFailed
from tests.peers.certificate import Certificate as Files
from tests.peers.nginx import Site, start_nginx
from tests.peers.postfix import PostfixSettings, start_postfix
from tests.peers.resolver import ResolverSettings, start_resolver
from tests.peers.zone import Signing, Zone
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.peers.nginx import Nginx
    from tests.peers.resolver import Resolver

PORT = 2525
PATH = ".well-known/mta-sts.txt"
MESSAGE = b"From: a@client.test\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\nSubject: x\r\n\r\nIt travels.\r\n"


def policy(mode: str, *mx: str, end: str = "\r\n") -> bytes:
    lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {each}" for each in mx), "max_age: 86400", ""]
    return end.join(lines).encode()


@dataclass(frozen=True)
class Case:
    """A mail domain whose policy host serves `file`; what becomes of a message, and what was said of the fetch."""

    file: bytes | None
    outcome: tuple[str, str]  # the status, and MX level or enhanced code
    failure: str = ""
    kind: Kind = Kind.VALID
    mx_kind: Kind = Kind.VALID
    directives: str = ""


DELIVERED, PLAIN = ("delivered", "mtasts"), ("delivered", "none")
HOST_REFUSED, CHANNEL_REFUSED = ("deferred", "4.7.0"), ("deferred", "4.7.1")
NO_MATTER = policy("enforce", "mx.elsewhere.test")  # if this were believed, it would refuse

CASES: Mapping[str, Case] = {
    "enforce": Case(policy("enforce", "mx.enforce.test"), DELIVERED),
    "wildcard": Case(policy("enforce", "*.wildcard.test"), DELIVERED),
    "linefeeds": Case(policy("enforce", "mx.linefeeds.test", end="\n"), DELIVERED),
    "case": Case(policy("enforce", "MX.Case.Test"), DELIVERED),
    "mismatch": Case(policy("enforce", "mx.elsewhere.test"), HOST_REFUSED),
    "deep": Case(policy("enforce", "*.test"), HOST_REFUSED),
    "expiredmx": Case(policy("enforce", "mx.expiredmx.test"), CHANNEL_REFUSED, mx_kind=Kind.EXPIRED),
    "testing": Case(policy("testing", "mx.testing.test"), DELIVERED, mx_kind=Kind.SELF_SIGNED),
    "testingmismatch": Case(policy("testing", "mx.elsewhere.test"), PLAIN),
    "none": Case(policy("none"), PLAIN),
    # What is no policy leaves the domain without one (RFC 8461 3.3), and is told.
    "missing": Case(None, PLAIN, "status"),
    "redirect": Case(NO_MATTER, PLAIN, "redirect", directives="return 301 https://mta-sts.mismatch.test$request_uri;"),
    "html": Case(NO_MATTER, PLAIN, "media-type", directives="types { } default_type text/html;"),
    "large": Case(NO_MATTER + b"x: y\r\n" * 20_000, PLAIN, "too-large"),
    "garbage": Case(b"<html></html>\n", PLAIN, "malformed-policy"),
    "expired": Case(NO_MATTER, PLAIN, "certificate", Kind.EXPIRED),
    "selfsigned": Case(NO_MATTER, PLAIN, "certificate", Kind.SELF_SIGNED),
    "wrongname": Case(NO_MATTER, PLAIN, "certificate", Kind.WRONG_NAME),
    "forclients": Case(NO_MATTER, PLAIN, "certificate", Kind.CLIENT_AUTH_ONLY),
}


@dataclass
class World:
    resolver: Resolver
    nginx: Nginx
    root: Path

    def remote(self, events: list[Any]) -> mailrider.Remote:
        return mailrider.Remote(
            mailrider.RemoteSettings(
                hostname="client.test",
                port=PORT,
                prohibited_addresses="none",
                # The port is that of the RFC, 443.
                mx_auth=[mailrider.MTASTS(cache="ram", root_ca=[self.root])],
                dns=mailrider.DNSSettings(server=[f"{self.resolver.address}:{self.resolver.port}"]),
                tls_client=mailrider.TLSClientSettings(root_ca=[self.root]),
            ),
            on_event=events.append,
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="mailrider-peers-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        ca = CA()
        sites, listeners, addresses = {}, {}, {}
        for case_name, case in CASES.items():
            host = f"mta-sts.{case_name}.test"
            issued = ca.issue([host], case.kind).write(folder, host)
            sites[host] = Site(Files(*issued), {PATH: case.file} if case.file is not None else {}, case.directives)
            addresses[case_name] = new_address()
            mx = ca.issue([f"mx.{case_name}.test"], case.mx_kind).write(folder, f"mx.{case_name}")
            listeners[addresses[case_name]] = Files(*mx)
        with start_nginx(sites) as nginx:
            zones = tuple(
                Zone(
                    f"{case_name}.test",
                    {
                        "@": ["MX 10 mx"],
                        "mx": [f"A {addresses[case_name]}"],
                        "mta-sts": [f"A {nginx.address}"],
                        "_mta-sts": ['TXT "v=STSv1; " "id=20261121T000000;"'],
                    },
                    Signing.NONE,
                )
                for case_name in CASES
            )
            domains = tuple(zone.name for zone in zones)
            settings = PostfixSettings(domains=domains, listeners=listeners)
            with start_postfix(settings), start_resolver(ResolverSettings(zones)) as resolver:
                yield World(resolver, nginx, ca.write_root(folder))


@pytest.mark.parametrize("name", CASES)
async def test_policies_served_by_nginx(name: str, world: World) -> None:
    case, events = CASES[name], list[Any]()
    async with world.remote(events) as remote:
        (result,) = await remote.send(MESSAGE, "a@client.test", [f"x@{name}.test"])
    detail = result.security.mx_level.word if result.status == "delivered" else str(result.reply.status)
    assert (result.status, detail) == case.outcome, (result.reply, events)
    failures = [event.failure for event in events if isinstance(event, PolicyFetchFailed)]
    assert failures == ([case.failure] if case.failure else [])


async def test_a_hundred_messages_at_once_cause_one_fetch(world: World) -> None:
    events: list[Any] = []
    before = world.nginx.fetches("mta-sts.enforce.test")
    async with world.remote(events) as remote:
        reports = await asyncio.gather(
            *(remote.send(MESSAGE, "a@client.test", [f"x{number}@enforce.test"]) for number in range(100))
        )
    assert {report[0].security.mx_level.word for report in reports} == {"mtasts"}
    assert len([event for event in events if isinstance(event, PolicyFetched)]) == 1
    assert world.nginx.fetches("mta-sts.enforce.test") == before + 1
