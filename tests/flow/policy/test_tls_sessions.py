"""What the lab's domains count in TLS reports (RFC 8460): each shows one thing that happens to TLS in the world."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.app.assemble import open_engine, open_remote
from mailrider.config import load
from mailrider.delivery.settings import RemoteSettings
from mailrider.lab.internet import Internet
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.tls_session import TLSHostRefused, TLSSessionSeen
from mailrider.smtp.content import Content
from mailrider.tlsrpt.findings import refusal_findings, session_findings
from mailrider.tlsrpt.report import DayCounts
from tests.support.loopback import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mailrider.delivery.remote import RemoteDelivery
    from mailrider.model.event import Event

PLAIN = b"Subject: hello\r\n\r\nIt travels.\r\n"


class Sender:
    """Sends to the lab's domains, and adds up what TLS reports would say."""

    def __init__(self, remote: RemoteDelivery, events: list[Event]) -> None:
        self._remote = remote
        self._events = events

    async def send(self, domain: str, content: bytes = PLAIN) -> list[dict[str, Any]]:
        self._events.clear()
        envelope = Envelope(ReversePath.parse("me@sender.test"), (Recipient(Mailbox.parse(f"you@{domain}")),))
        await self._remote.deliver(envelope, Content.inspect(content))
        counts = DayCounts()
        for event in self._events:
            if isinstance(event, TLSSessionSeen):
                assert event.policies.domain == domain
                counts.add(session_findings(event))
            elif isinstance(event, TLSHostRefused):
                counts.add(refusal_findings(event))
        return counts.as_json()


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Sender]:
    async with Internet(folder, port=free_port(), dns_port=0, https_port=0) as internet:
        configuration = await asyncio.to_thread(load, internet.configuration_file)
        settings = configuration.targets["lab"].settings
        assert isinstance(settings, RemoteSettings)
        events: list[Event] = []
        async with (
            open_engine(configuration.globals.dns, events.append, reports_tls=True) as engine,
            open_remote(settings, engine) as remote,
        ):
            yield Sender(remote, events)


def in_short(policies: list[dict[str, Any]]) -> list[tuple[str, int, int, list[tuple[str, str]]]]:
    return [
        (
            each["policy"]["policy-type"],
            each["summary"]["total-successful-session-count"],
            each["summary"]["total-failure-session-count"],
            [(f["result-type"], f.get("failure-reason-code", "")) for f in each["failure-details"]],
        )
        for each in policies
    ]


EXPECTED = {
    "plain.test": [("no-policy-found", 0, 1, [("starttls-not-supported", "")])],
    "tls.test": [("no-policy-found", 1, 0, [])],
    "brokentls.test": [("no-policy-found", 0, 1, [("validation-failure", "tls-remote-alert-handshake-failure")])],
    "dane.test": [("tlsa", 1, 0, [])],
    "danebad.test": [("tlsa", 0, 1, [("validation-failure", "dane-no-match")])],
    "danestrip.test": [("tlsa", 0, 1, [("starttls-not-supported", "")])],
    "sts.test": [("sts", 1, 0, [])],
    "ststesting.test": [("sts", 0, 1, [("certificate-expired", "X509_V_ERR_CERT_HAS_EXPIRED")])],
    "stsstrip.test": [("sts", 0, 1, [("starttls-not-supported", "")])],
    "greylist.test": [("no-policy-found", 0, 1, [("starttls-not-supported", "")])],
    "servfail.test": [],
    "noaddress.test": [],
}


async def test_each_domain_of_the_lab_counts_what_it_shows(tmp_path: Path) -> None:
    async with lab(tmp_path) as sender:
        assert {domain: in_short(await sender.send(domain)) for domain in EXPECTED} == EXPECTED


async def test_a_policy_is_shown_with_its_lines_and_its_records(tmp_path: Path) -> None:
    async with lab(tmp_path) as sender:
        (sts,) = await sender.send("sts.test")
        (tlsa,) = await sender.send("dane.test")
    assert sts["policy"]["policy-string"][:2] == ["version: STSv1", "mode: enforce"]
    assert (sts["policy"]["policy-domain"], sts["policy"]["mx-host"]) == ("sts.test", ["mx.sts.test"])
    assert tlsa["policy"]["policy-domain"] == "mx.dane.test"
    assert tlsa["policy"]["policy-string"][0].startswith("3 1 1 ")


async def test_messages_on_a_kept_connection_are_one_session(tmp_path: Path) -> None:
    async with lab(tmp_path) as sender:
        first = await sender.send("sts.test")
        later = [await sender.send("sts.test") for _ in range(4)]
    assert (in_short(first), later) == ([("sts", 1, 0, [])], [[]] * 4)


@pytest.mark.parametrize(
    "field", [b"TLS-Required: No\r\n", b"TLS-Report-Submitter: sender.test\r\n"], ids=["tls-required-no", "a-report"]
)
async def test_what_no_policy_binds_and_reports_themselves_are_never_counted(tmp_path: Path, field: bytes) -> None:
    async with lab(tmp_path) as sender:
        assert await sender.send("plain.test", field + PLAIN) == []
