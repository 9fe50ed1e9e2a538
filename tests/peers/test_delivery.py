"""mailrider delivers to servers that none of us wrote, found through a resolver that none of us wrote.

Postfix and OpenSMTPD receive; unbound validates in front of NSD. What the receiver stored is compared byte for byte
with what should have arrived: the message, its line ends mended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from tests.peers.resolver import ResolverSettings, start_resolver
from tests.peers.zone import Signing, Zone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.certificate import Authority
    from tests.peers.opensmtpd import OpenSMTPD
    from tests.peers.postfix import Postfix
    from tests.peers.receiver import Receiver
    from tests.peers.resolver import Resolver

HEADER = b"From: a@example.org\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@x>\r\n"
HEADER_LF = HEADER.replace(b"\r\n", b"\n")

# What is given to mailrider, and what must arrive.
MESSAGES = {
    "ascii": (HEADER + b"\r\nIt travels.\r\n", HEADER + b"\r\nIt travels.\r\n"),
    "8-bit": (HEADER + b"\r\n\xc3\xbc\xff\xfe\x80\r\n", HEADER + b"\r\n\xc3\xbc\xff\xfe\x80\r\n"),
    "dots": (HEADER + b"\r\n.\r\n..\r\n.x\r\nend.\r\n", HEADER + b"\r\n.\r\n..\r\n.x\r\nend.\r\n"),
    "bare LF": (HEADER_LF + b"\none\n.two\n\nthree\n", HEADER + b"\r\none\r\n.two\r\n\r\nthree\r\n"),
    "bare CR": (HEADER + b"\r\none\rtwo\r\r\nthree\r\n", HEADER + b"\r\none\r\ntwo\r\n\r\nthree\r\n"),
    "no final line end": (HEADER + b"\r\nthe end", HEADER + b"\r\nthe end\r\n"),
    "30 MB": (HEADER + b"\r\n" + b".all work and no play\r\n" * 1_350_000,) * 2,
}

BOGUS = Zone("bogus.test", {"@": ["MX 10 mx"]}, Signing.EXPIRED)


@pytest.fixture(scope="module")
def resolver(postfix: Postfix) -> Iterator[Resolver]:
    """Knows Postfix as the MX of example.net, and a domain whose signatures have run out."""
    with start_resolver(ResolverSettings((mx_zone(postfix), BOGUS))) as server:
        yield server


def mx_zone(receiver: Receiver) -> Zone:
    """example.net, with the receiver as its MX."""
    return Zone("example.net", {"@": ["MX 10 mx"], "mx": [f"A {receiver.address}"]})


def remote(resolver: Resolver, authority: Authority, **directives: Any) -> mailrider.Remote:
    return mailrider.Remote(
        hostname="client.example.org",
        port=2525,
        prohibited_addresses="none",
        dns=mailrider.DNSSettings(server=[f"{resolver.address}:{resolver.port}"]),
        tls_client=mailrider.TLSClientSettings(root_ca=[authority.root]),
        **{"mx_auth": None, **directives},
    )


async def stored_by(receiver: Receiver, recipient: str) -> bytes:
    (message,) = await asyncio.to_thread(receiver.mailbox.wait_for, recipient)
    return message.content


@pytest.mark.parametrize(("given", "arrives"), MESSAGES.values(), ids=MESSAGES)
async def test_postfix_gets_it_byte_for_byte_over_tls(
    given: bytes, arrives: bytes, postfix: Postfix, resolver: Resolver, authority: Authority, recipient: str
) -> None:
    async with remote(resolver, authority) as sender:
        (result,) = await sender.send(given, "a@example.org", [recipient])
    assert result.status == "delivered", result
    assert result.security.tls_level == mailrider.TLSLevel.AUTHENTICATED
    assert result.security.authenticated_by == "pkix"
    assert await stored_by(postfix, recipient) == arrives


@pytest.mark.parametrize(("given", "arrives"), MESSAGES.values(), ids=MESSAGES)
async def test_opensmtpd_gets_it_byte_for_byte_in_clear(
    given: bytes, arrives: bytes, opensmtpd: OpenSMTPD, authority: Authority, recipient: str
) -> None:
    with start_resolver(ResolverSettings((mx_zone(opensmtpd),))) as resolver:
        async with remote(resolver, authority) as sender:
            (result,) = await sender.send(given, "a@example.org", [recipient])
    assert result.status == "delivered", result
    assert result.security.tls_level == mailrider.TLSLevel.NONE
    assert await stored_by(opensmtpd, recipient) == arrives


async def test_a_server_whose_tls_is_broken_gets_it_in_clear(
    broken_tls: OpenSMTPD, authority: Authority, recipient: str
) -> None:
    message = MESSAGES["ascii"][0]
    with start_resolver(ResolverSettings((mx_zone(broken_tls),))) as resolver:
        async with remote(resolver, authority) as sender:
            (result,) = await sender.send(message, "a@example.org", [recipient])
    assert [each.result for each in result.attempts] == ["fallback", "delivered"]
    assert await stored_by(broken_tls, recipient) == message


async def test_an_internationalized_recipient_gets_it(
    postfix: Postfix, resolver: Resolver, authority: Authority
) -> None:
    recipient = "grüße-von-mailrider@example.net"
    header = (
        "From: ü@example.org\r\nSubject: Grüße\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@x.test>\r\n"
    )
    message = f"{header}\r\nä\r\n".encode()
    async with remote(resolver, authority) as sender:
        (result,) = await sender.send(message, "ü@example.org", [recipient])
    assert result.status == "delivered", result
    assert await stored_by(postfix, recipient) == message


async def test_each_of_120_recipients_gets_it(receiver: Receiver, authority: Authority, recipient: str) -> None:
    everybody = [f"{n}.{recipient}" for n in range(120)]
    message = MESSAGES["ascii"][0]
    with start_resolver(ResolverSettings((mx_zone(receiver),))) as resolver:
        async with remote(resolver, authority) as sender:
            report = await sender.send(message, "a@example.org", everybody)
    assert [result.recipient for result in report] == everybody
    assert {result.status for result in report} == {"delivered"}
    for one in everybody:
        assert await stored_by(receiver, one) == message


async def test_a_domain_with_a_wrong_signature_is_deferred(resolver: Resolver, authority: Authority) -> None:
    async with remote(resolver, authority) as sender:
        (result,) = await sender.send(MESSAGES["ascii"][0], "a@example.org", ["x@bogus.test"])
    assert (result.status, result.reply.code, str(result.reply.enhanced)) == ("deferred", 451, "4.4.3")
