"""A report by mail goes where a stranger's record says: only to the public internet, and what the operator allows."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from mailrider.app.assemble import open_engine, open_remote
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.event import discard
from mailrider.model.outcome import Delivered
from mailrider.smtp.content import Content
from tests.flow.security.net import SecureNet

if TYPE_CHECKING:
    from mailrider.settings.types import IPNetwork

LOOPBACK = (ip_network("127.0.0.0/8"),)
ELSEWHERE = (ip_network("203.0.113.0/24"),)


@pytest.mark.parametrize(
    ("is_report", "prohibited", "allowed", "expected"),
    [
        (True, ELSEWHERE, (), "nobody"),
        (True, ELSEWHERE, LOOPBACK, "delivered"),
        (True, LOOPBACK, LOOPBACK, "nobody"),
        (True, (), (), "delivered"),
        (False, ELSEWHERE, (), "delivered"),
    ],
    ids=["a report", "allowed", "prohibited", "a lab", "other mail"],
)
async def test_a_report_reaches_no_server_in_a_private_network_unless_that_is_allowed(
    *, is_report: bool, prohibited: tuple[IPNetwork, ...], allowed: tuple[IPNetwork, ...], expected: str
) -> None:
    async with SecureNet() as net:
        await net.add("a.test")
        settings = replace(net.settings(), prohibited_addresses=prohibited)
        assert settings.dns is not None
        async with (
            open_engine(settings.dns, discard, report_networks=allowed) as engine,
            open_remote(settings, engine) as remote,
        ):
            recipients = (Recipient(Mailbox.parse("reports@a.test")),)
            envelope = Envelope(ReversePath.parse("tls@client.test"), recipients, tls_report=is_report)
            (outcome,) = await remote.deliver(envelope, Content.inspect(b"Subject: hello\r\n\r\nhello\r\n"))
        opened = net.mx["a.test"].opened
    assert (isinstance(outcome, Delivered), opened) == ((True, 1) if expected == "delivered" else (False, 0))
