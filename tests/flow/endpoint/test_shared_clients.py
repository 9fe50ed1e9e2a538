"""Endpoints of two workers: clients are counted together, before any of them is greeted."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import SystemClock
from mailrider.delivery.limits.shares import WorkerShares
from mailrider.lab.ca import CA
from mailrider.model.endpoint_event import ClientConnected, ClientTurnedAway
from mailrider.settings.socket_address import Scheme
from tests.flow.endpoint.running_endpoint import HOST, Client, run_endpoint, server_context
from tests.support.loops import eventually
from tests.support.shared import SharedSupervisor

if TYPE_CHECKING:
    from pathlib import Path


class Two:
    """The shares of two workers whose endpoint takes one client of each address."""

    def __init__(self) -> None:
        self.supervisor = SharedSupervisor(SystemClock())
        self.first, self.second = (
            WorkerShares(SystemClock(), each.client).clients("smtp", 10, 1) for each in self.supervisor.all
        )


@pytest.fixture
async def two() -> Two:
    """See `Two`."""
    return Two()


async def test_a_client_of_one_worker_counts_at_the_other(two: Two) -> None:
    async with run_endpoint(shares=two.first) as one, run_endpoint(shares=two.second) as other:
        first = await one.client()
        assert await first.hear_codes(1) == [220]
        second = await other.client()
        assert await second.hear_codes(1) == [421]
        assert await second.rest() == b""
        assert other.noted(ClientTurnedAway)[0].reason == "it has 1 connections already (max_client_connections)"
        assert other.noted(ClientConnected) == []
        first.close()
        await eventually(lambda: one.endpoint.connections == 0)
        third = await other.client()
        assert await third.hear_codes(1) == [220]


async def test_who_begins_with_tls_is_counted_as_well(two: Two, tmp_path: Path) -> None:
    ca = CA()
    tls = server_context(ca, tmp_path)
    context = ssl.create_default_context(cadata=ca.root_pem.decode())
    context.check_hostname = False

    async def connect(port: int) -> Client:
        return Client(*await asyncio.open_connection(HOST, port, ssl=context, server_hostname="mx.here.test"))

    async with (
        run_endpoint(shares=two.first, scheme=Scheme.TLS, tls=tls) as one,
        run_endpoint(shares=two.second, scheme=Scheme.TLS, tls=tls) as other,
    ):
        first = one.known(await connect(one.port))
        assert await first.hear_codes(1) == [220]
        with suppress(OSError):  # its handshake may end before it is turned away
            assert await other.known(await connect(other.port)).rest() == b""
        await eventually(lambda: other.noted(ClientTurnedAway))
        await eventually(lambda: other.endpoint.connections == 0)


@pytest.mark.parametrize("scheme", [Scheme.TCP, Scheme.TLS])
async def test_who_waits_for_the_supervisor_when_the_endpoint_closes_is_let_go(
    two: Two, tmp_path: Path, scheme: Scheme
) -> None:
    two.supervisor.all[0].to_worker.stopped = True
    async with run_endpoint(shares=two.first, scheme=scheme, tls=server_context(CA(), tmp_path)) as running:
        client = await running.client()
        await eventually(lambda: running.endpoint.connections)
        await running.endpoint.close(0)
        assert (await client.rest())[:3] in {b"", b"421"}


async def test_without_an_answer_the_client_is_told_to_come_again(two: Two) -> None:
    two.supervisor.all[0].to_worker.stopped = True
    async with run_endpoint(shares=two.first) as running:
        client = await running.client()
        assert await client.rest() == b"421 4.3.2 Service not available, try again later\r\n"
