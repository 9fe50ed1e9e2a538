"""Connections through a proxy: everything counts for the client that it announces, and nobody else may announce one."""

from __future__ import annotations

import base64
import ssl
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.endpoint.listener import ConnectionLimits
from mailrider.header.fields import ReceivedDetail
from mailrider.lab.ca import CA
from mailrider.model.endpoint_event import ClientConnected, ClientCutOff, ClientTurnedAway, MailTaken
from mailrider.net import listen
from mailrider.settings.socket_address import Scheme
from mailrider.testing.clock import FakeClock
from tests.flow.endpoint.running_endpoint import MESSAGE, Client, RunningEndpoint, run_endpoint, server_context
from tests.support.loops import eventually

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from mailrider.smtp.sasl import Credentials

PROXY = "127.0.0.9"
NETWORK = ip_network(f"{PROXY}/32")
LINE = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 25\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
SECRET = base64.b64encode(b"\0anna\0open sesame").decode()


class AnyLogin:
    async def verify(self, _: Credentials) -> bool:
        return True


def run_behind_proxy(**changes: Any) -> AbstractAsyncContextManager[RunningEndpoint]:
    return run_endpoint(proxies=[NETWORK], **changes)


async def through(running: RunningEndpoint, header: bytes = LINE) -> Client:
    client = await running.client(PROXY)
    await client.say(header)
    return client


async def test_the_announced_client_is_the_client() -> None:
    async with run_behind_proxy() as running:
        client = await through(running)
        await client.hello()
        assert (await client.send(MESSAGE))[:3] == "250"
        envelope, octets = running.sink.taken[0]
        assert envelope.client == "192.0.2.1"
        assert octets.startswith(b"Received: from client.example ([192.0.2.1])\r\n")
        assert (running.noted(ClientConnected)[0].client, running.noted(MailTaken)[0].client) == (
            "192.0.2.1",
            "192.0.2.1",
        )


async def test_a_header_may_come_in_pieces_and_what_stands_behind_it_is_smtp() -> None:
    async with run_behind_proxy() as running:
        client = await through(running, LINE[:9])
        await client.say(LINE[9:])
        assert await client.hear_codes(1) == [220]
        early = await through(running, LINE + b"EHLO too.early\r\n")
        assert await early.hear_codes(1) == [554]


async def test_shares_are_those_of_the_announced_clients() -> None:
    async with run_behind_proxy(limits=ConnectionLimits(most=100, most_of_one=1)) as running:
        clients = [
            await through(running),
            await through(running),
            await through(running, LINE.replace(b"192.0.2.1", b"192.0.2.2")),
        ]
        assert [await client.hear_codes(1) for client in clients] == [[220], [421], [220]]


@pytest.mark.parametrize("header", [LINE, LOCAL, b"PROXY UNKNOWN\r\n", LINE.replace(b"192.0.2.1", b"127.0.0.1")])
async def test_nobody_is_trusted_as_loopback_through_a_proxy(header: bytes) -> None:
    async with run_behind_proxy(authenticator=AnyLogin(), needs_login=True) as running:
        client = await through(running, header)
        assert "AUTH" not in await client.hello(), "in clear, passwords are for loopback alone"
        assert (await client.ask(f"AUTH PLAIN {SECRET}"))[:3] == "502"
        direct = await running.client()
        assert "AUTH" in await direct.hello()


async def test_a_proxy_may_speak_for_itself() -> None:
    async with run_behind_proxy() as running:
        client = await through(running, LOCAL)
        await client.hello()
        assert (await client.send(MESSAGE))[:3] == "250"
        assert running.sink.taken[0][0].client == PROXY


async def test_from_others_the_header_is_no_command() -> None:
    async with run_behind_proxy() as running:
        client = await running.client()
        assert await client.hear_codes(1) == [220]
        await client.say(LINE)
        assert (await client.rest())[:3] == b"421"
        assert running.noted(ClientCutOff)[0].client == "127.0.0.1"


async def test_a_proxy_without_a_header_is_turned_away_at_once_or_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    async with run_behind_proxy(clock=clock) as running:
        wrong = await through(running, b"EHLO client.example\r\n")
        assert await wrong.rest() == b""
        silent = await running.client(PROXY)
        await silent.say(b"PROXY")
        await eventually(lambda: clock.pending == 1)
        await clock.advance(listen.PROXY_TIMEOUT)
        assert await silent.rest() == b""
        monkeypatch.setattr(listen, "MAX_UNANNOUNCED", 1)
        waiting, one_too_many = await running.client(PROXY), await running.client(PROXY)
        assert await one_too_many.rest() == b""
        assert [(event.client, event.reason) for event in running.noted(ClientTurnedAway)] == [
            (PROXY, "no PROXY header"),
            (PROXY, "no PROXY header within 5 seconds"),
            (PROXY, "too many connections without a PROXY header"),
        ]
        waiting.close()
        await eventually(lambda: clock.pending == 0)


async def test_who_waits_for_its_header_does_not_outlive_the_endpoint() -> None:
    clock = FakeClock()
    async with run_behind_proxy(clock=clock) as running:
        client = await running.client(PROXY)
        await client.say(b"PROXY ")
        await eventually(lambda: clock.pending == 1)  # the time that its header may take
        await running.endpoint.close(0)
        assert await client.rest() == b""


async def test_tls_comes_behind_the_header(tmp_path: Path) -> None:
    async with run_behind_proxy(scheme=Scheme.TLS, tls=server_context(CA(), tmp_path)) as running:
        client = await through(running)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        await client.writer.start_tls(context)
        await client.hello()
        assert (await client.send(MESSAGE))[:3] == "250"
        assert b"([192.0.2.1])\r\n\t(using TLSv1.3" in running.sink.taken[0][1]


async def test_what_the_recipients_read_of_the_client_can_be_hidden() -> None:
    async with run_endpoint(received=ReceivedDetail.NONE) as running:
        client = await running.client()
        await client.hello()
        assert (await client.send(MESSAGE))[:3] == "250"
        octets = running.sink.taken[0][1]
        assert octets.startswith(b"Received: by mx.here.test with ESMTP id id1\r\n\tfor ")
        assert b"127.0.0.1" not in octets
        assert b"client.example" not in octets
