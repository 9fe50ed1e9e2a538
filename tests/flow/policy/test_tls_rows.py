"""Each thing that can happen to TLS, made by a server, a zone or a policy host, and what a TLS report says of it.

The table of RFC 8460 4.3 as we read it, from the network to the report's octets.
"""

from __future__ import annotations

import gzip
import json
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.app.assemble import open_engine, open_remote
from mailrider.lab.ca import Kind
from mailrider.lab.mx_script import MXTLS, Close, ExtraOctets, MXScript, Stage, TLSFault
from mailrider.lab.sts import PolicyHost
from mailrider.lab.zones import Fault, signed
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Recipient
from mailrider.reporting.recorder import Recorder
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from mailrider.tlsrpt.report import Reporter, build_report
from tests.flow.security.net import MESSAGE, SecureNet, ee
from tests.unit.reporting.world import NOON

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mailrider.model.event import Event

DOMAIN, HOST = "a.test", "mx.a.test"
WRONG_TLSA = "3 1 1 " + "ab" * 32
UNUSABLE_TLSA = "0 0 1 " + "ab" * 32  # PKIX-TA, which mail has no use for (RFC 7672 3.1.3)


async def without(net: SecureNet) -> None:
    await net.add(DOMAIN, None)


async def refused(net: SecureNet) -> None:
    tls = MXTLS(net.ca.issue([HOST], Kind.VALID))
    await net.add(DOMAIN, script=MXScript(tls=tls, replies={Stage.STARTTLS: "454 4.7.0 Not now"}))


async def alert(net: SecureNet) -> None:
    await net.add(DOMAIN, script=MXScript(tls=MXTLS(fault=TLSFault.ALERT)))


async def closed(net: SecureNet) -> None:
    await net.add(DOMAIN, script=MXScript(tls=MXTLS(fault=TLSFault.CLOSE)))


async def garbage(net: SecureNet) -> None:
    await net.add(DOMAIN, script=MXScript(tls=MXTLS(fault=TLSFault.GARBAGE)))


async def injection(net: SecureNet) -> None:
    tls = MXTLS(net.ca.issue([HOST], Kind.VALID))
    await net.add(DOMAIN, script=MXScript(tls=tls, replies={Stage.STARTTLS: ExtraOctets(b"250 Ok\r\n")}))


def published(kind: Kind = Kind.VALID, *named: str, host: PolicyHost | None = None) -> Callable[..., Awaitable[None]]:
    async def prepare(net: SecureNet) -> None:
        await net.add(DOMAIN, kind)
        net.publish(DOMAIN, "testing", *(named or (HOST,)), host=host)

    return prepare


def dane(record: str = "", kind: Kind = Kind.VALID) -> Callable[..., Awaitable[None]]:
    async def prepare(net: SecureNet) -> None:
        certificate = net.ca.issue([HOST], kind)
        await net.add(DOMAIN, certificate, mx_signed=True, host_signed=True, tlsa=record or ee(certificate))

    return prepare


async def bogus_tlsa(net: SecureNet) -> None:
    await net.add(DOMAIN, mx_signed=True, host_signed=True)
    net.set(f"_{net.port}._tcp.{HOST}", Fault.BOGUS)


async def dane_and_sts(net: SecureNet) -> None:
    certificate = net.ca.issue([HOST], Kind.EXPIRED)
    await net.add(DOMAIN, certificate, mx_signed=True, host_signed=True, tlsa=ee(certificate))
    net.publish(DOMAIN, "enforce", HOST)


async def announced_only(net: SecureNet) -> None:
    await net.add(DOMAIN)
    net.set(f"_mta-sts.{DOMAIN}", signed({"TXT": "v=STSv1; id=1;"}))


# For each policy: its type, good sessions, failed ones, and the failures with their reasons.
NONE, STS, TLSA = "no-policy-found", "sts", "tlsa"
Row = tuple[str, int, int, list[tuple[str, str]]]
ROWS: dict[str, tuple[Callable[..., Awaitable[None]], list[Row]]] = {
    "TLS": (published(), [(STS, 1, 0, [])]),
    "no STARTTLS": (without, [(NONE, 0, 1, [("starttls-not-supported", "")])]),
    "STARTTLS refused": (refused, [(NONE, 0, 1, [("starttls-not-supported", "starttls-reply-454")])]),
    "an alert": (alert, [(NONE, 0, 1, [("validation-failure", "tls-remote-alert-handshake-failure")])]),
    "a close": (closed, [(NONE, 0, 1, [("validation-failure", "tls-closed")])]),
    "no TLS": (garbage, [(NONE, 0, 1, [("validation-failure", "tls-protocol-error")])]),
    "an injection": (injection, [(NONE, 0, 1, [("validation-failure", "starttls-injection")])]),
    "PKIX: the name": (
        published(Kind.WRONG_NAME),
        [(STS, 0, 1, [("certificate-host-mismatch", "X509_V_ERR_HOSTNAME_MISMATCH")])],
    ),
    "PKIX: the date": (
        published(Kind.EXPIRED),
        [(STS, 0, 1, [("certificate-expired", "X509_V_ERR_CERT_HAS_EXPIRED")])],
    ),
    "PKIX: the date is to come": (
        published(Kind.NOT_YET_VALID),
        [(STS, 0, 1, [("certificate-expired", "X509_V_ERR_CERT_NOT_YET_VALID")])],
    ),
    "PKIX: the authority": (
        published(Kind.SELF_SIGNED),
        [(STS, 0, 1, [("certificate-not-trusted", "X509_V_ERR_")])],
    ),
    "DANE matches": (dane(), [(TLSA, 1, 0, [])]),
    "DANE does not match": (dane(WRONG_TLSA), [(TLSA, 0, 1, [("validation-failure", "dane-no-match")])]),
    "no TLSA record can be used": (dane(UNUSABLE_TLSA), [(TLSA, 0, 1, [("tlsa-invalid", "no-usable-record")])]),
    "TLSA lookup fails": (bogus_tlsa, [(TLSA, 0, 1, [("dnssec-invalid", "SERVFAIL")])]),
    "a host that the policy does not name": (
        published(Kind.VALID, "other.a.test"),
        [(STS, 0, 1, [("validation-failure", "mx-not-in-policy")])],
    ),
    "the policy host answers 404": (
        published(host=PolicyHost(status=404)),
        [(STS, 0, 1, [("sts-policy-fetch-error", "status-404")])],
    ),
    "the policy host's certificate": (
        published(host=PolicyHost(b"", certificate=Kind.EXPIRED)),
        [(STS, 0, 1, [("sts-webpki-invalid", "X509_V_ERR_CERT_HAS_EXPIRED")])],
    ),
    "no policy is served": (
        published(host=PolicyHost(b"version: STSv1\nmode: enfroce\n")),
        [(STS, 0, 1, [("sts-policy-invalid", "the policy has no max_age")])],
    ),
    "no policy host": (announced_only, [(STS, 0, 1, [("sts-policy-fetch-error", "no-address")])]),
    "DANE good and PKIX not": (
        dane_and_sts,
        [(STS, 0, 1, [("certificate-expired", "X509_V_ERR_CERT_HAS_EXPIRED")]), (TLSA, 1, 0, [])],
    ),
}


async def report_of(
    prepare: Callable[..., Awaitable[None]],
    times: int = 1,
    between: Callable[[SecureNet], None] = lambda _: None,
    **more: Any,
) -> Any:
    """What a report says after some messages; `between` two of them something changes."""
    recorder = Recorder(FakeClock(NOON))

    def emit(event: Event) -> None:
        heard = recorder.listener_for(type(event))
        if heard is not None:
            heard(event)

    async with SecureNet() as net:
        await prepare(net)
        settings = net.settings(mx_auth=net.everything()[:3], **more)
        assert settings.dns is not None
        async with (
            open_engine(settings.dns, emit, reports_tls=True) as engine,
            open_remote(settings, engine) as remote,
        ):
            envelope = Envelope(ReversePath.parse("me@client.test"), (Recipient(Mailbox.parse(f"you@{DOMAIN}")),))
            for number in range(times):
                if number:
                    between(net)
                await remote.deliver(envelope, Content.inspect(MESSAGE))
    ((_, counts),) = [(key, each) for key, each in recorder.take().items() if key[1] == DOMAIN]
    report = build_report(DOMAIN, date(2026, 11, 30), counts, Reporter("Example", "t@c.test", "c.test"), b"s")
    return json.loads(gzip.decompress(report.body))["policies"]


@pytest.mark.parametrize("row", ROWS)
async def test_what_happened_is_what_the_report_says(row: str) -> None:
    prepare, expected = ROWS[row]
    policies = await report_of(prepare)
    found = [
        (
            each["policy"]["policy-type"],
            each["summary"]["total-successful-session-count"],
            each["summary"]["total-failure-session-count"],
            [(failure["result-type"], failure.get("failure-reason-code", "")) for failure in each["failure-details"]],
        )
        for each in policies
    ]
    # A reason that ends in the middle stands for any that begins so.
    for (_, _, _, failures), (_, _, _, wanted) in zip(found, expected, strict=True):
        for number, (result, reason) in enumerate(wanted):
            if reason.endswith(("-", "_")) and failures[number][1].startswith(reason):
                failures[number] = (result, reason)
    assert found == expected


async def test_what_was_served_in_the_place_of_a_policy_stands_in_the_report() -> None:
    prepare, _ = ROWS["no policy is served"]
    ((policy),) = [each["policy"] for each in await report_of(prepare)]
    assert policy == {
        "policy-type": "sts",
        "policy-string": ["version: STSv1", "mode: enfroce"],
        "policy-domain": DOMAIN,
    }


def in_short(policies: Any) -> list[tuple[str, int, int, list[tuple[str, str, int]]]]:
    return [
        (
            each["policy"]["policy-type"],
            each["summary"]["total-successful-session-count"],
            each["summary"]["total-failure-session-count"],
            [
                (failure["result-type"], failure.get("failure-reason-code", ""), failure["failed-session-count"])
                for failure in each["failure-details"]
            ],
        )
        for each in policies
    ]


async def test_in_the_hour_after_a_failed_handshake_connections_in_clear_count_what_failed_then() -> None:
    reason = "tls-remote-alert-handshake-failure"
    assert in_short(await report_of(alert, 3, conn_reuse_limit=1)) == [
        (NONE, 0, 3, [("validation-failure", reason, 3)])
    ]


async def test_a_failed_fetch_beside_an_older_policy_is_a_detail_and_leaves_the_totals() -> None:
    def breaks(net: SecureNet) -> None:
        net.publish(DOMAIN, "testing", HOST, host=PolicyHost(status=500))

    (policy,) = policies = await report_of(published(), 2, breaks)
    # Both messages went over one connection; the fetch has no server, and no session.
    assert in_short(policies) == [(STS, 1, 0, [("sts-policy-fetch-error", "status-500", 1)])]
    assert policy["policy"]["policy-string"][:2] == ["version: STSv1", "mode: testing"]
    assert policy["failure-details"][0].keys() == {"result-type", "failed-session-count", "failure-reason-code"}


async def test_an_address_that_closes_before_ehlo_is_no_session() -> None:
    async def two_hosts(net: SecureNet) -> None:
        await net.add("first.test", script=MXScript(replies={Stage.CONNECT: Close()}))
        await net.add(DOMAIN)
        net.set(DOMAIN, {"MX": ["5 mx.first.test", f"10 {HOST}"]})

    assert in_short(await report_of(two_hosts)) == [(NONE, 1, 0, [])]
