"""A printer on a private network at a submission endpoint, beside users who log in."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.endpoint.trust import Trust
from mailrider.model.domain import Domain
from mailrider.model.envelope import Ret
from tests.flow.endpoint.running_endpoint import MESSAGE, run_endpoint

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from tests.flow.endpoint.running_endpoint import Client, RunningEndpoint

PROXY = "127.0.0.9"
TRUST = Trust([ip_network("10.20.0.0/16")], [Domain("example.org")], lambda _: False, lambda: [ip_address("10.20.0.1")])
LOCAL = "PROXY UNKNOWN\r\n"


def run_with_trust(**changes: Any) -> AbstractAsyncContextManager[RunningEndpoint]:
    networks = [ip_network(f"{PROXY}/32")]
    return run_endpoint(proxies=networks, is_submission=True, origin=Domain("example.org"), trust=TRUST, **changes)


async def coming_from(running: RunningEndpoint, address: str) -> Client:
    client = await running.client(PROXY)
    await client.say(f"PROXY TCP4 {address} 10.20.0.2 12345 25\r\n".encode() if address else LOCAL.encode())
    await client.hello()
    return client


async def test_a_client_of_the_network_sends_under_the_domains_without_a_login() -> None:
    async with run_with_trust() as running:
        client = await coming_from(running, "10.20.3.4")
        assert (await client.ask("MAIL FROM:<scanner@example.org> RET=FULL")).startswith("250")
        await client.ask("RCPT TO:<b@example.net>")
        await client.ask("DATA")
        await client.say(MESSAGE + b".\r\n")
        assert (await client.hear()).startswith("250")
        envelope, _ = running.sink.taken[0]
        assert envelope.ret is Ret.FULL  # it writes under our own domains
        assert running.sink.arrivals[0].trusted
        assert (await client.ask("MAIL FROM:<scanner>")).startswith("250")  # the domain is ours


@pytest.mark.parametrize("line", ["MAIL FROM:<>", "MAIL FROM:<boss@example.net>", "MAIL FROM:<a@sub.example.org>"])
async def test_it_sends_under_no_other_domain_and_never_without_a_sender(line: str) -> None:
    async with run_with_trust() as running:
        client = await coming_from(running, "10.20.3.4")
        assert (await client.ask(line)).startswith("550 5.7.1")


@pytest.mark.parametrize("address", ["10.21.0.1", "192.0.2.1", "10.20.0.1", ""])
async def test_everybody_else_is_refused(address: str) -> None:
    async with run_with_trust() as running:
        client = await coming_from(running, address)
        assert (await client.ask("MAIL FROM:<scanner@example.org>")).startswith("550 5.7.1")


async def test_where_users_log_in_everybody_else_is_asked_to() -> None:
    async with run_with_trust(needs_login=True) as running:
        stranger = await coming_from(running, "192.0.2.1")
        assert (await stranger.ask("MAIL FROM:<scanner@example.org>")).startswith("530")
        printer = await coming_from(running, "10.20.3.4")
        assert (await printer.ask("MAIL FROM:<scanner@example.org>")).startswith("250")


async def test_programs_of_this_machine_are_not_bound_to_the_domains() -> None:
    async with run_with_trust() as running:
        client = await running.client("127.0.0.1")
        await client.hello()
        assert (await client.ask("MAIL FROM:<a@example.net>")).startswith("250")
