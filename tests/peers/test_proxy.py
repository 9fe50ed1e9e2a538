"""Clients behind a real HAProxy: both versions of the PROXY protocol, in clear and with TLS passed through."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from mailrider.lab.ca import CA
from mailrider.model.endpoint_event import ClientTurnedAway
from mailrider.settings.socket_address import Scheme
from tests.flow.endpoint.running_endpoint import HOST, MESSAGE, Client, run_endpoint, server_context
from tests.peers.haproxy import start_haproxy
from tests.support.loopback import free_port, new_address

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2", "send-proxy-v2 check inter 100ms"])
@pytest.mark.parametrize("scheme", [Scheme.TCP, Scheme.TLS])
async def test_haproxy_announces_its_clients(words: str, scheme: Scheme, tmp_path: Path) -> None:
    proxy, source, client_address, port = new_address(), new_address(), new_address(), free_port()
    tls = server_context(CA(), tmp_path) if scheme is Scheme.TLS else None
    async with run_endpoint(proxies=[ip_network(f"{source}/32")], scheme=scheme, tls=tls) as running:
        started = start_haproxy(proxy, port, f"{HOST}:{running.port}", words, source)
        # The proxy opens connections of its own to see that we are there: the loop must turn meanwhile.
        await asyncio.to_thread(started.__enter__)
        try:
            connection = await asyncio.open_connection(proxy, port, local_addr=(client_address, 0))
            client = running.known(Client(*connection))
            if tls is not None:
                context = ssl.create_default_context()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                await client.writer.start_tls(context)
            await client.hello()
            assert (await client.send(MESSAGE))[:3] == "250"
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)
        envelope, octets = running.sink.taken[0]
        assert envelope.client == client_address
        assert octets.startswith(f"Received: from client.example ([{client_address}])\r\n".encode())
        assert not running.noted(ClientTurnedAway)
