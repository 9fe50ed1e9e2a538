"""Reports by POST (RFC 8460 5.4): what each answer means, and where we never connect to."""

from __future__ import annotations

import gc
from ipaddress import IPv4Address, ip_network
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import SystemClock
from mailrider.lab.ca import CA, Kind
from mailrider.lab.sts import LabSTS, PolicyHost, STSFault
from mailrider.model.handover import DIRECT
from mailrider.net.address_guard import ANYWHERE, AddressGuard
from mailrider.net.fetch import FetchFailed
from mailrider.net.https import HTTPSPoster
from mailrider.reporting.courier import ReportCourier
from mailrider.reporting.store import EndpointKind
from mailrider.testing.resolver import FakeResolver
from tests.unit.reporting.test_mail import REPORTER, made

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mailrider.model.envelope import Envelope
    from mailrider.model.handover import Handover
    from mailrider.model.outcome import AttemptReport
    from mailrider.smtp.content import Content

LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.fixture(scope="module")
def ca() -> CA:
    return CA()


@pytest.fixture
async def hosts(ca: CA) -> AsyncIterator[LabSTS]:
    async with LabSTS(ca) as server:
        yield server
    gc.collect()


class _NoQueue:
    async def deliver(self, envelope: Envelope, content: Content, _handover: Handover = DIRECT) -> AttemptReport:
        raise AssertionError("nothing is mailed here")


async def post(hosts: LabSTS, root: Path, host: PolicyHost, *, allowed: bool = True) -> tuple[str, str]:
    hosts["a.test"] = host
    resolver = FakeResolver({("mta-sts.a.test", "A"): IPv4Address(hosts.address)})
    clock = SystemClock()
    async with HTTPSPoster(resolver, clock, guard=AddressGuard(LOOPBACK if allowed else ()), root_ca=[root]) as poster:
        courier = ReportCourier(REPORTER, poster, _NoQueue(), (), clock)
        sent = await courier.send(made(), EndpointKind.HTTPS, f"https://mta-sts.a.test:{hosts.port}/tlsrpt")
    return sent.state.value, sent.note


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (200, "delivered"),
        (202, "delivered"),
        (301, "failed"),
        (404, "failed"),
        (408, "waiting"),
        (425, "waiting"),
        (429, "waiting"),
        (500, "waiting"),
        (503, "waiting"),
    ],
)
async def test_what_an_answer_means(ca: CA, hosts: LabSTS, tmp_path: Path, status: int, state: str) -> None:
    host = PolicyHost(status=status, location="https://elsewhere.test/" if status == 301 else "")
    assert await post(hosts, ca.write_root(tmp_path), host) == (state, f"status {status}")


async def test_what_arrives_is_the_gzipped_report_with_its_type_and_no_encoding(
    ca: CA, hosts: LabSTS, tmp_path: Path
) -> None:
    await post(hosts, ca.write_root(tmp_path), PolicyHost())
    ((_, fields, body),) = hosts.reports
    assert (fields["content-type"], "content-encoding" in fields) == ("application/tlsrpt+gzip", False)
    assert body == made().body


async def test_an_endless_answer_is_read_to_a_bound(ca: CA, hosts: LabSTS, tmp_path: Path) -> None:
    assert await post(hosts, ca.write_root(tmp_path), PolicyHost(fault=STSFault.ENDLESS)) == ("delivered", "status 200")


async def test_a_certificate_that_does_not_verify_is_tried_again(ca: CA, hosts: LabSTS, tmp_path: Path) -> None:
    state, note = await post(hosts, ca.write_root(tmp_path), PolicyHost(certificate=Kind.EXPIRED))
    assert (state, "certificate not valid" in note, list(hosts.reports)) == ("waiting", True, [])


async def test_an_address_in_a_private_network_is_never_connected_to(ca: CA, hosts: LabSTS, tmp_path: Path) -> None:
    state, note = await post(hosts, ca.write_root(tmp_path), PolicyHost(), allowed=False)
    assert (state, "no part of the public internet" in note, list(hosts.reports)) == ("waiting", True, [])


@pytest.mark.parametrize("name", ["MTA-STS.A.test", "mta-sts.a.test."])
async def test_a_host_may_be_written_in_capitals_and_with_its_last_dot(
    ca: CA, hosts: LabSTS, tmp_path: Path, name: str
) -> None:
    hosts["a.test"] = PolicyHost()
    resolver = FakeResolver({("mta-sts.a.test", "A"): IPv4Address(hosts.address)})
    root = ca.write_root(tmp_path)
    async with HTTPSPoster(resolver, SystemClock(), guard=AddressGuard(LOOPBACK), root_ca=[root]) as poster:
        courier = ReportCourier(REPORTER, poster, _NoQueue(), (), SystemClock())
        sent = await courier.send(made(), EndpointKind.HTTPS, f"https://{name}:{hosts.port}/tlsrpt")
    assert (sent.state.value, len(hosts.reports)) == ("delivered", 1)


@pytest.mark.parametrize("host", ["127.0.0.44", "[::1]", "[::ffff:127.0.0.44]", "0x7f.1", "127.0.0.44."])
async def test_a_url_whose_host_is_an_address_is_never_connected_to(host: str) -> None:
    async with HTTPSPoster(FakeResolver(), SystemClock(), guard=ANYWHERE) as poster:
        with pytest.raises(FetchFailed, match="no host in"):
            await poster.post(f"https://{host}/", b"", "text/plain", 5)
