"""The lab's policy hosts, as whoever writes a test sees them; what clients make of them is in `test_https`."""

from __future__ import annotations

import asyncio
import gc
import ssl
from typing import TYPE_CHECKING

import pytest

from mailrider.lab.ca import CA
from mailrider.lab.sts import LabSTS, PolicyHost, STSFault, policy
from mailrider.mtasts.policy import STSMode, parse_policy
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POLICY = policy("enforce", "mx.good.test")
CLOCK = FakeClock()


@pytest.fixture(scope="module")
def ca() -> CA:
    return CA()


@pytest.fixture
async def hosts(ca: CA) -> AsyncIterator[LabSTS]:
    async with LabSTS(ca, {"good.test": PolicyHost(POLICY)}, clock=CLOCK) as server:
        yield server
    gc.collect()


async def ask(hosts: LabSTS, ca: CA, domain: str, request: bytes) -> bytes:
    """The answer to any octets, by a client that is as dumb as can be."""
    context = ssl.create_default_context(cadata=ca.root_pem.decode())
    name = f"mta-sts.{domain}"
    reader, writer = await asyncio.open_connection(hosts.address, hosts.port, ssl=context, server_hostname=name)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def get(domain: str, path: str = "/.well-known/mta-sts.txt") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: mta-sts.{domain}\r\n\r\n".encode()


def test_it_writes_policies_that_make_sense_if_asked_to() -> None:
    assert parse_policy(POLICY).mode is STSMode.ENFORCE


async def test_it_serves_the_policy_at_its_well_known_place_only(hosts: LabSTS, ca: CA) -> None:
    answer = await ask(hosts, ca, "good.test", get("good.test"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n" + POLICY)
    assert (await ask(hosts, ca, "good.test", get("good.test", "/other"))).startswith(b"HTTP/1.1 404 ")
    assert (await ask(hosts, ca, "good.test", get("other.test"))).startswith(b"HTTP/1.1 421 ")
    assert [request for request, _ in hosts.requests] == [
        "GET /.well-known/mta-sts.txt HTTP/1.1",
        "GET /other HTTP/1.1",
        "GET /.well-known/mta-sts.txt HTTP/1.1",
    ]


async def test_a_host_that_was_removed_fails_the_handshake(hosts: LabSTS, ca: CA) -> None:
    del hosts["good.test"]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await ask(hosts, ca, "good.test", get("good.test"))


async def test_what_a_host_does_can_change_at_any_time(hosts: LabSTS, ca: CA) -> None:
    await ask(hosts, ca, "good.test", get("good.test"))
    hosts["good.test"] = PolicyHost(status=500)
    assert (await ask(hosts, ca, "good.test", get("good.test"))).startswith(b"HTTP/1.1 500 ")


async def test_a_delay_is_by_the_labs_clock(hosts: LabSTS, ca: CA) -> None:
    hosts["good.test"] = PolicyHost(POLICY, delay=30)
    asking = asyncio.create_task(ask(hosts, ca, "good.test", get("good.test")))
    await hosts.wait_fetched("good.test")
    await CLOCK.advance(29.9)
    assert not asking.done()
    await CLOCK.advance(0.1)
    assert (await asking).endswith(POLICY)


async def test_an_octet_a_second(hosts: LabSTS, ca: CA) -> None:
    hosts["good.test"] = PolicyHost(POLICY, fault=STSFault.SLOW)
    asking = asyncio.create_task(ask(hosts, ca, "good.test", get("good.test")))
    await hosts.wait_fetched("good.test")
    while not asking.done():
        await CLOCK.advance(1)
    assert (await asking).endswith(POLICY)


@pytest.mark.parametrize("nonsense", [b"\r\n\r\n", b"x" * 100_000, b"GET\r\nno colon\r\n\r\n"])
async def test_nonsense_does_no_harm(hosts: LabSTS, ca: CA, nonsense: bytes) -> None:
    await ask(hosts, ca, "good.test", nonsense)
    assert (await ask(hosts, ca, "good.test", get("good.test"))).endswith(POLICY)


async def test_closing_ends_what_is_under_way(ca: CA) -> None:
    before = asyncio.all_tasks()
    async with LabSTS(ca, {"good.test": PolicyHost(fault=STSFault.SILENT)}) as hosts:
        asking = asyncio.create_task(ask(hosts, ca, "good.test", get("good.test")))
        await hosts.wait_fetched("good.test")
    await asyncio.wait([asking])
    assert asyncio.all_tasks() == before
