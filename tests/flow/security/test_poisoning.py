"""A kept connection never lends one message's trust, or distrust, to another: poisoning, by name.

Two messages, one after the other, and a connection that the first one leaves behind. Each test says how many
connections the server saw and what it was told on them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.lab.ca import Kind
from mailrider.lab.mx_script import MXTLS, MXScript, TLSFault
from mailrider.lab.zones import Name, Records
from mailrider.model.event import ConnectionReused, FellBackToClear
from mailrider.smtp.capabilities import FULL_OFFER
from mailrider.smtp.commands import Mail, StartTLS
from tests.flow.security.net import MESSAGE, WAIVED, SecureNet, ee, fate, levels, send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mailrider.lab.mx import LabMX

A, B = "a.test", "b.test"
MX = "mx.a.test"
DELIVERED = ("delivered", 250, "2.0.0")
NO_TLS_AUTHENTICATION = ("deferred", 451, "4.7.1")
NO_MX_AUTHENTICATION = ("deferred", 451, "4.7.0")


@pytest.fixture
async def net() -> AsyncIterator[SecureNet]:
    async with SecureNet() as net:
        yield net


def share_host(net: SecureNet, *, b_signed: bool = False) -> None:
    """The domain b.test has the same MX host as a.test."""
    net.set(B, Name({"MX": Records([f"10 {MX}"], ttl=0)}, signed=b_signed))


def transactions(mx: LabMX) -> list[int]:
    """How many MAIL each connection heard, in the order in which they were made."""
    return [sum(isinstance(command, Mail) for command in each.commands) for each in mx.connections]


def publish_key(net: SecureNet, record: str) -> None:
    net.tlsa(MX, Records([record], ttl=0))


def offer_requiretls(mx: LabMX) -> None:
    mx.script = replace(mx.script, offer=replace(FULL_OFFER, requiretls=True))


# A message that waives its security -----------------------------------------------------------------------------------

WEAK = {
    "in clear": (None, {}),
    "a certificate of nobody": (Kind.SELF_SIGNED, {}),
    "an expired certificate": (Kind.EXPIRED, {}),
    "a key that DANE does not know": (Kind.VALID, {"host_signed": True, "tlsa": "3 1 1 " + "ab" * 32}),
}


@pytest.mark.parametrize(("certificate", "how"), WEAK.values(), ids=WEAK)
async def test_tls_required_no_and_then_an_ordinary_message(
    net: SecureNet, certificate: Kind | None, how: dict[str, Any]
) -> None:
    mx = await net.add(A, certificate, **how)
    policies = [mailrider.Dane(), mailrider.LocalPolicy(min_tls_level="authenticated")]
    async with net.remote(mx_auth=policies) as remote:
        assert fate(await send(remote, f"x@{A}", message=WAIVED)) == DELIVERED
        assert fate(await send(remote, f"x@{A}")) == NO_TLS_AUTHENTICATION
        assert transactions(mx) == [1, 0], "the ordinary message had a look at a connection of its own"
        assert fate(await send(remote, f"x@{A}", message=WAIVED)) == DELIVERED
    assert transactions(mx) == [2, 0], "and the next one that waives may use what the first one left"


async def test_an_ordinary_message_and_then_tls_required_no_which_gains_nothing_and_loses_nothing(
    net: SecureNet,
) -> None:
    mx = await net.add(A)
    async with net.remote(mx_auth=[mailrider.LocalPolicy(min_tls_level="authenticated")]) as remote:
        await send(remote, f"x@{A}")
        result = await send(remote, f"x@{A}", message=WAIVED)
    assert levels(result) == ("none", "authenticated", "pkix")
    assert transactions(mx) == [2]


# A message that demands more ------------------------------------------------------------------------------------------


async def test_requiretls_after_an_ordinary_message_on_a_connection_that_is_good_enough(net: SecureNet) -> None:
    mx = await net.add(A, mx_signed=True)
    offer_requiretls(mx)
    async with net.remote() as remote:
        assert levels(await send(remote, f"x@{A}")) == ("none", "authenticated", "pkix")
        result = await send(remote, f"x@{A}", requiretls=True)
    assert fate(result) == DELIVERED
    assert levels(result) == ("dnssec", "authenticated", "pkix"), "the level is this message's own"
    assert transactions(mx) == [2]
    assert [message.mail.requiretls for message in mx.messages] == [False, True]


async def test_requiretls_after_an_ordinary_message_on_a_connection_that_is_not(net: SecureNet) -> None:
    mx = await net.add(A, Kind.SELF_SIGNED, mx_signed=True)
    async with net.remote() as remote:
        assert fate(await send(remote, f"x@{A}")) == DELIVERED
        assert fate(await send(remote, f"x@{A}", requiretls=True)) == ("failed", 550, "5.7.10")
    assert transactions(mx) == [1, 0]


async def test_requiretls_after_an_ordinary_message_where_dane_finds_another_key(net: SecureNet) -> None:
    """Without `mx_auth` an ordinary message does not ask for TLSA; REQUIRETLS does, and the connection fails it."""
    mx = await net.add(A, mx_signed=True, host_signed=True, tlsa="3 1 1 " + "ab" * 32)
    async with net.remote() as remote:
        assert fate(await send(remote, f"x@{A}")) == DELIVERED
        assert fate(await send(remote, f"x@{A}", requiretls=True)) == ("failed", 550, "5.7.10")
    assert transactions(mx) == [1, 0]


async def test_that_the_extension_is_missing_is_never_said_for_good_of_an_old_connection(net: SecureNet) -> None:
    mx = await net.add(A, mx_signed=True)
    async with net.remote(relaxed_requiretls=False) as remote:
        assert fate(await send(remote, f"x@{A}")) == DELIVERED
        offer_requiretls(mx)
        assert fate(await send(remote, f"x@{A}", requiretls=True)) == DELIVERED
    assert transactions(mx) == [1, 1]


# Two domains on one host ----------------------------------------------------------------------------------------------


async def test_a_signed_domain_lends_nothing_to_an_unsigned_one_on_the_same_host(net: SecureNet) -> None:
    mx = await net.add(A, mx_signed=True)
    share_host(net)
    policies = [mailrider.DNSSEC(), mailrider.LocalPolicy(min_mx_level="dnssec")]
    async with net.remote(mx_auth=policies) as remote:
        assert levels(await send(remote, f"x@{A}"))[0] == "dnssec"
        assert fate(await send(remote, f"x@{B}")) == NO_MX_AUTHENTICATION
    assert transactions(mx) == [1]


async def test_a_signed_and_an_unsigned_domain_share_a_connection_and_each_has_its_own_level(net: SecureNet) -> None:
    mx = await net.add(A, mx_signed=True)
    share_host(net)
    async with net.remote(mx_auth=[mailrider.DNSSEC(), mailrider.LocalPolicy()]) as remote:
        results = [await send(remote, f"x@{domain}") for domain in (A, B, A)]
    assert [levels(result)[0] for result in results] == ["dnssec", "none", "dnssec"]
    assert transactions(mx) == [3]
    assert len(net.happened(ConnectionReused)) == 2


async def test_one_domains_policy_does_not_bind_another_and_is_not_lifted_by_it(net: SecureNet) -> None:
    mx = await net.add(A, Kind.SELF_SIGNED)
    share_host(net)
    net.publish(B, "enforce", MX)
    async with net.remote(mx_auth=[net.mtasts()]) as remote:
        results = [fate(await send(remote, f"x@{domain}")) for domain in (A, B, A)]
    assert results == [DELIVERED, NO_TLS_AUTHENTICATION, DELIVERED]
    assert transactions(mx) == [2, 0]


async def test_a_fallback_to_clear_serves_only_the_domain_that_had_to_fall_back(net: SecureNet) -> None:
    mx = await net.add(A, script=MXScript(tls=MXTLS(fault=TLSFault.ALERT)))
    share_host(net)
    async with net.remote() as remote:
        for _ in range(2):
            assert levels(await send(remote, f"x@{A}"))[1] == "none"
        assert transactions(mx) == [0, 2]
        mx.script = MXScript(tls=MXTLS(net.ca.issue([MX])))
        assert levels(await send(remote, f"x@{B}")) == ("none", "authenticated", "pkix")
    assert transactions(mx) == [0, 2, 1]
    assert len(net.happened(FellBackToClear)) == 1


async def test_two_domains_that_both_fell_back_do_not_share_either(net: SecureNet) -> None:
    mx = await net.add(A, script=MXScript(tls=MXTLS(fault=TLSFault.ALERT)))
    share_host(net)
    async with net.remote() as remote:
        for domain in (A, B, A):
            assert levels(await send(remote, f"x@{domain}"))[1] == "none"
    assert transactions(mx) == [0, 2, 0, 1]


async def test_a_server_without_tls_is_no_fallback_and_serves_all(net: SecureNet) -> None:
    mx = await net.add(A, None)
    share_host(net)
    async with net.remote() as remote:
        for domain in (A, B):
            assert levels(await send(remote, f"x@{domain}"))[1] == "none"
    assert transactions(mx) == [2]


async def test_another_sni_is_another_connection(net: SecureNet) -> None:
    """Under DANE the server is asked for the TLSA base domain, here the CNAME's target (RFC 7672 8.1)."""
    certificate = net.ca.issue([MX, "real.test"])
    mx = await net.add(A, certificate)
    net.set("real.test", Name({"A": Records([mx.address], ttl=0)}, signed=True))
    net.set(MX, Name({"CNAME": Records(["real.test"], ttl=0)}, signed=True))
    net.tlsa("real.test", ee(certificate))
    async with net.remote(mx_auth=[mailrider.Dane()]) as remote:
        for message in (WAIVED, MESSAGE, WAIVED, MESSAGE):
            assert fate(await send(remote, f"x@{A}", message=message)) == DELIVERED
    assert [connection.sni for connection in mx.connections] == [MX, "real.test"]
    assert transactions(mx) == [2, 2]


# What changed between two messages ------------------------------------------------------------------------------------


async def test_a_tlsa_set_that_changed_between_two_messages(net: SecureNet) -> None:
    old, new = net.ca.issue([MX]), net.ca.issue([MX])
    mx = await net.add(A, old, host_signed=True)
    publish_key(net, ee(old))
    async with net.remote(mx_auth=[mailrider.Dane()]) as remote:
        assert levels(await send(remote, f"x@{A}"))[2] == "dane"
        publish_key(net, ee(new))
        assert fate(await send(remote, f"x@{A}")) == NO_TLS_AUTHENTICATION, "the server still shows the old key"
        assert transactions(mx) == [1, 0]
        mx.script = MXScript(tls=MXTLS(new))
        assert levels(await send(remote, f"x@{A}"))[2] == "dane"
        assert transactions(mx) == [1, 0, 1]
        assert levels(await send(remote, f"x@{A}"))[2] == "dane"
    assert transactions(mx) == [1, 0, 2], "not the one with the old key"


async def test_tlsa_records_that_appeared_between_two_messages(net: SecureNet) -> None:
    mx = await net.add(A, None, host_signed=True)
    uncached = mailrider.DNSSettings(server=[net.dns.server], timeout=net.dns_timeout, attempts=1, cache=0)
    async with net.remote(mx_auth=[mailrider.Dane()], dns=uncached) as remote:
        assert levels(await send(remote, f"x@{A}"))[1] == "none"
        publish_key(net, ee(net.ca.issue([MX])))
        assert fate(await send(remote, f"x@{A}")) == NO_TLS_AUTHENTICATION
    assert transactions(mx) == [1, 0]


async def test_an_sts_policy_that_changed_between_two_messages(net: SecureNet) -> None:
    mx = await net.add(A, Kind.SELF_SIGNED)
    net.publish(A, "testing", MX)
    async with net.remote(mx_auth=[net.mtasts()]) as remote:
        assert levels(await send(remote, f"x@{A}")) == ("mtasts", "encrypted", None)
        net.publish(A, "enforce", MX)
        assert fate(await send(remote, f"x@{A}")) == NO_TLS_AUTHENTICATION
        assert transactions(mx) == [1, 0]
        net.publish(A, "none")
        assert levels(await send(remote, f"x@{A}")) == ("none", "encrypted", None)
    assert transactions(mx) == [2, 0]


async def test_an_sts_policy_that_names_the_host_no_more(net: SecureNet) -> None:
    mx = await net.add(A)
    net.publish(A, "enforce", MX)
    async with net.remote(mx_auth=[net.mtasts()]) as remote:
        assert levels(await send(remote, f"x@{A}")) == ("mtasts", "authenticated", "pkix")
        net.publish(A, "enforce", "other.a.test")
        assert fate(await send(remote, f"x@{A}")) == NO_MX_AUTHENTICATION
    assert transactions(mx) == [1]


async def test_a_host_that_dns_names_no_more_gets_no_more_mail_though_a_connection_is_kept(net: SecureNet) -> None:
    mx = await net.add(A)
    other = await net.add(B)
    async with net.remote() as remote:
        await send(remote, f"x@{A}")
        net.set(A, Name({"MX": Records(["10 mx.b.test"], ttl=0)}))
        await send(remote, f"x@{A}")
    assert transactions(mx) == [1]
    assert transactions(other) == [1]


async def test_every_reused_connection_began_with_starttls_if_the_message_says_it_had_tls(net: SecureNet) -> None:
    mx = await net.add(A)
    async with net.remote() as remote:
        results = [await send(remote, f"x@{A}") for _ in range(5)]
    assert {levels(result)[1] for result in results} == {"authenticated"}
    assert [sum(isinstance(command, StartTLS) for command in each.commands) for each in mx.connections] == [1]
