"""REQUIRETLS and TLS-Required (RFC 8689), every case, against real servers on loopback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

import mailrider
from mailrider.lab.ca import Kind
from mailrider.lab.mx_script import MXTLS, MXScript, PortState, Stage, TLSFault
from mailrider.lab.zones import Fault, Name
from mailrider.smtp.capabilities import FULL_OFFER
from tests.flow.security.net import MESSAGE, WAIVED, SecureNet, ee, fate, levels, send, told_nothing

if TYPE_CHECKING:
    from mailrider.lab.mx_script import Step

Make: TypeAlias = Callable[[SecureNet, str], Awaitable[object]]

OFFERS = replace(FULL_OFFER, requiretls=True)
NAME = "good.test"

DELIVERED = "delivered", 250, "2.0.0"
NOT_QUALIFIED = "failed", 550, "5.7.10"
NO_EXTENSION = "failed", 550, "5.7.30"
LATER = "deferred", 451, "4.7.0"


# Domains --------------------------------------------------------------------------------------------------------------


def server(net: SecureNet, domain: str, kind: Kind = Kind.VALID, **script: Any) -> MXScript:
    return MXScript(tls=MXTLS(net.ca.issue([f"mx.{domain}"], kind)), **script)


def by_dane(**script: Any) -> Make:
    """MX signed, DANE matches: both levels are the best."""

    async def make(net: SecureNet, domain: str) -> None:
        certificate = net.ca.issue([f"mx.{domain}"], Kind.SELF_SIGNED)
        offer = MXScript(**{"tls": MXTLS(certificate), **script})
        await net.add(domain, script=offer, mx_signed=True, host_signed=True, tlsa=ee(certificate))

    return make


def by_sts(mode: str = "enforce", kind: Kind = Kind.VALID, **script: Any) -> Make:
    """The MX is named by an MTA-STS policy, and PKIX vouches for it."""

    async def make(net: SecureNet, domain: str) -> None:
        await net.add(domain, script=server(net, domain, kind, **script))
        net.publish(domain, mode, f"mx.{domain}")

    return make


def signed_mx(kind: Kind = Kind.VALID, **script: Any) -> Make:
    async def make(net: SecureNet, domain: str) -> None:
        await net.add(domain, script=server(net, domain, kind, **script), mx_signed=True)

    return make


async def plain(net: SecureNet, domain: str) -> None:
    """A good certificate, but nothing says that it is the right host."""
    await net.add(domain, script=server(net, domain, offer=OFFERS))


def then(make: Make, change: Callable[[SecureNet, str], object]) -> Make:
    """A domain, with something done to it."""

    async def both(net: SecureNet, domain: str) -> None:
        await make(net, domain)
        change(net, domain)

    return both


def put(prefix: str, zone: Any) -> Callable[[SecureNet, str], object]:
    return lambda net, domain: net.set(prefix.format(port=net.port) + domain, zone)


async def nowhere(_: SecureNet, __: str) -> None:
    """No such domain."""


async def closed(net: SecureNet, domain: str) -> None:
    await by_dane()(net, domain)
    await net.mx[domain].set_port_state(PortState.CLOSED)


async def names_another(net: SecureNet, domain: str) -> None:
    """MTA-STS in enforce mode that does not name the MX."""
    await net.add(domain, script=server(net, domain))
    net.publish(domain, "enforce", "mx.other.test")


async def two_hosts(net: SecureNet, domain: str, first: Make, second: Make) -> None:
    """A domain whose MX hosts are those of two others."""
    await first(net, f"one.{domain}")
    await second(net, f"two.{domain}")
    net.set(domain, Name({"MX": [f"10 mx.one.{domain}", f"20 mx.two.{domain}"]}, signed=True))


def pair(first: Make, second: Make) -> Make:
    return lambda net, domain: two_hosts(net, domain, first, second)


def told(reply: Step, stage: Stage = Stage.CONNECT) -> dict[str, Any]:
    return {"replies": {stage: reply}}


@dataclass(frozen=True)
class Row:
    """`strict`: `relaxed_requiretls no`. `listed`: `mx_auth` has everything, else nothing."""

    make: Make
    outcome: tuple[str, int, str]
    levels: tuple[str, str, str | None] | None = None
    strict: bool = False
    listed: bool = True


DANE_LEVELS, STS_LEVELS = ("dnssec", "authenticated", "dane"), ("mtasts", "authenticated", "pkix")
BY_STARTTLS = told("454 4.7.0 TLS is not available for now", Stage.STARTTLS)

TABLE = {
    # Who qualifies: MX level mtasts or better, and an authenticated channel.
    "DNSSEC and DANE": Row(by_dane(), DELIVERED, DANE_LEVELS),
    "MTA-STS and PKIX": Row(by_sts(), DELIVERED, STS_LEVELS),
    "MTA-STS in testing mode and PKIX": Row(by_sts("testing"), DELIVERED, STS_LEVELS),
    "DNSSEC and PKIX": Row(signed_mx(), DELIVERED, ("dnssec", "authenticated", "pkix")),
    # The evidence is gathered whatever mx_auth says.
    "DNSSEC and DANE, nothing listed": Row(by_dane(), DELIVERED, DANE_LEVELS, listed=False),
    "plain, nothing listed": Row(plain, NOT_QUALIFIED, listed=False),
    # Who does not.
    "PKIX alone": Row(plain, NOT_QUALIFIED),
    "DNSSEC, self-signed": Row(signed_mx(Kind.SELF_SIGNED), NOT_QUALIFIED),
    "MTA-STS in testing mode, expired": Row(by_sts("testing", Kind.EXPIRED), NOT_QUALIFIED),
    "MTA-STS in enforce mode, expired": Row(by_sts("enforce", Kind.EXPIRED), NOT_QUALIFIED),
    "MTA-STS in enforce mode does not name it": Row(names_another, NOT_QUALIFIED),
    "DANE mismatch": Row(
        then(by_dane(), put("_{port}._tcp.mx.", Name({"TLSA": f"3 1 1 {'00' * 32}"}, signed=True))), NOT_QUALIFIED
    ),
    "no STARTTLS": Row(signed_mx(hides_starttls=True), NOT_QUALIFIED),
    "STARTTLS refused for good": Row(signed_mx(**told("502 5.5.1 No", Stage.STARTTLS)), NOT_QUALIFIED),
    # Strict mode: the extension too.
    "strict, offered": Row(by_dane(offer=OFFERS), DELIVERED, DANE_LEVELS, strict=True),
    "strict, not offered": Row(by_dane(), NO_EXTENSION, strict=True),
    "strict, neither levels nor extension": Row(signed_mx(Kind.EXPIRED), NOT_QUALIFIED, strict=True),
    "strict, here the extension is missing, there the levels": Row(
        pair(by_dane(), signed_mx(Kind.EXPIRED)), NOT_QUALIFIED, strict=True
    ),
    "strict, the second offers it": Row(pair(by_dane(), by_dane(offer=OFFERS)), DELIVERED, DANE_LEVELS, strict=True),
    "relaxed, the second has the levels": Row(pair(signed_mx(Kind.EXPIRED), by_dane()), DELIVERED, DANE_LEVELS),
    # What could have qualified, had nothing failed.
    "the MTA-STS record cannot be looked up": Row(then(plain, put("_mta-sts.", Fault.SERVFAIL)), LATER),
    "the MTA-STS policy cannot be fetched": Row(then(by_sts(), put("mta-sts.", Fault.SERVFAIL)), LATER),
    "the TLSA records cannot be looked up": Row(then(by_dane(), put("_{port}._tcp.mx.", Fault.BOGUS)), LATER),
    "the address cannot be looked up": Row(then(by_dane(), put("mx.", Fault.SERVFAIL)), LATER),
    "nobody answers": Row(closed, LATER),
    "the handshake fails": Row(by_dane(tls=MXTLS(fault=TLSFault.ALERT)), LATER),
    "TLS is not available for now": Row(by_dane(**BY_STARTTLS), LATER),
    "one does not qualify, the other is down": Row(pair(signed_mx(Kind.EXPIRED), closed), LATER),
    "one lacks the extension, the other is down": Row(pair(by_dane(), closed), LATER, strict=True),
    # What failed could not have helped: no MX level can come of it.
    "plain, and the TLSA records cannot be looked up": Row(
        then(plain, put("_{port}._tcp.mx.", Fault.BOGUS)), NOT_QUALIFIED
    ),
    "plain, and the address cannot be looked up": Row(then(plain, put("mx.", Fault.SERVFAIL)), NOT_QUALIFIED),
    # Who qualifies has the last word on the message.
    "a full mailbox": Row(by_dane(**told("452 4.2.2 Full", Stage.RCPT)), ("deferred", 452, "4.2.2")),
    "nobody of that name": Row(by_dane(**told("550 5.1.1 Nobody", Stage.RCPT)), ("failed", 550, "5.1.1")),
    "no such domain": Row(nowhere, ("failed", 550, "5.1.2")),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
async def test_a_message_with_requiretls(row: Row) -> None:
    async with SecureNet() as net:
        await row.make(net, NAME)
        mx_auth = net.everything() if row.listed else None
        async with net.remote(mx_auth=mx_auth, relaxed_requiretls=not row.strict) as remote:
            result = await send(remote, f"x@{NAME}", requiretls=True)
        assert fate(result) == row.outcome, result.reply
        if row.levels is not None:
            assert levels(result) == row.levels
        elif result.reply.code in (550, 451) and str(result.reply.status) != "5.1.1":
            assert all(map(told_nothing, net.mx.values()))


@pytest.mark.parametrize(("strict", "offers"), [(False, False), (False, True), (True, False), (True, True)])
async def test_a_bounce_is_never_failed_for_want_of_the_extension(strict: bool, offers: bool) -> None:
    """RFC 8689 5: its sender could not be told."""
    async with SecureNet() as net:
        await by_dane(offer=OFFERS if offers else FULL_OFFER)(net, NAME)
        async with net.remote(mx_auth=net.everything(), relaxed_requiretls=not strict) as remote:
            result = await send(remote, f"x@{NAME}", sender="", requiretls=True)
        assert (fate(result), levels(result)) == (DELIVERED, DANE_LEVELS)
        (message,) = net.mx[NAME].messages
        assert message.mail.requiretls is offers


async def test_but_it_needs_the_levels() -> None:
    async with SecureNet() as net:
        await plain(net, NAME)
        async with net.remote(mx_auth=net.everything()) as remote:
            assert fate(await send(remote, f"x@{NAME}", sender="", requiretls=True)) == NOT_QUALIFIED


@pytest.mark.parametrize("offers", [False, True])
async def test_the_parameter_is_passed_on_where_it_is_offered(offers: bool) -> None:
    async with SecureNet() as net:
        await by_dane(offer=OFFERS if offers else FULL_OFFER)(net, NAME)
        async with net.remote(mx_auth=net.everything()) as remote:
            assert fate(await send(remote, f"x@{NAME}", requiretls=True)) == DELIVERED
            assert fate(await send(remote, f"x@{NAME}")) == DELIVERED
        demanded, ordinary = net.mx[NAME].messages
        assert (demanded.mail.requiretls, ordinary.mail.requiretls) == (offers, False)


async def test_each_domain_is_judged_by_itself() -> None:
    async with SecureNet() as net:
        await by_dane(offer=OFFERS)(net, "strict.test")
        await by_dane()(net, "lacks.test")
        await plain(net, "plain.test")
        await closed(net, "down.test")
        recipients = [f"x@{name}.test" for name in ("strict", "lacks", "plain", "down")]
        async with net.remote(mx_auth=net.everything(), relaxed_requiretls=False) as remote:
            report = await remote.send(MESSAGE, "a@client.test", recipients, requiretls=True)
        assert [fate(result) for result in report] == [DELIVERED, NO_EXTENSION, NOT_QUALIFIED, LATER]


async def test_the_reply_says_to_the_sender_what_was_missing() -> None:
    async with SecureNet() as net:
        await signed_mx(Kind.EXPIRED)(net, NAME)
        await plain(net, "plain.test")
        async with net.remote(mx_auth=net.everything()) as remote:
            expired, unnamed = await remote.send(
                MESSAGE, "a@client.test", [f"x@{NAME}", "x@plain.test"], requiretls=True
            )
        assert expired.reply.text.startswith(
            "REQUIRETLS: mx.good.test does not reach the levels that it demands: TLS level encrypted"
        )
        assert "expired" in expired.reply.text
        assert unnamed.reply.text == (
            "REQUIRETLS: mx.plain.test does not reach the levels that it demands: "
            "MX level none, requiretls demands mtasts"
        )


# TLS-Required: No -----------------------------------------------------------------------------------------------------


async def danger(net: SecureNet, domain: str) -> None:
    """Everything would refuse it: DANE, MTA-STS, the local minimum."""
    await net.add(domain, None, mx_signed=True, host_signed=True, tlsa=f"3 1 1 {'00' * 32}")
    net.publish(domain, "enforce", "mx.other.test")


REFUSED = "deferred", 451, "4.7.0"
WAIVERS = {
    "one field": (WAIVED, {}, {}, DELIVERED),
    "no field": (MESSAGE, {}, {}, REFUSED),
    "two fields": (b"TLS-Required: No\r\n" + WAIVED, {}, {}, REFUSED),
    "two fields, one in disguise": (b"tls-required :\r\n\tno\r\n" + WAIVED, {}, {}, REFUSED),
    "smuggled behind a bare CR": (b"Subject: x\rTLS-Required: No\r\n" + MESSAGE, {}, {}, REFUSED),
    "in the body": (MESSAGE + b"TLS-Required: No\r\n", {}, {}, REFUSED),
    "override off": (WAIVED, {"requiretls_override": False}, {}, REFUSED),
    "in a REQUIRETLS message": (WAIVED, {}, {"requiretls": True}, REFUSED),
}


@pytest.mark.parametrize(("message", "directives", "arguments", "outcome"), WAIVERS.values(), ids=WAIVERS)
async def test_tls_required_no(
    message: bytes, directives: dict[str, Any], arguments: dict[str, Any], outcome: tuple[str, int, str]
) -> None:
    async with SecureNet() as net:
        await danger(net, NAME)
        async with net.remote(mx_auth=net.everything(min_tls_level="authenticated"), **directives) as remote:
            result = await send(remote, f"x@{NAME}", message=message, **arguments)
        assert fate(result) == outcome
        assert told_nothing(net.mx[NAME]) is (outcome != DELIVERED)


async def test_a_message_that_waives_security_still_gets_what_there_is() -> None:
    async with SecureNet() as net:
        await net.add(NAME)
        async with net.remote(mx_auth=net.everything()) as remote:
            result = await send(remote, f"x@{NAME}", message=WAIVED)
        assert levels(result) == ("none", "authenticated", "pkix")


async def test_its_connection_carries_no_message_that_needs_more() -> None:
    """The waiving message opens a connection with a bad certificate; the next one must not use it."""
    async with SecureNet() as net:
        await net.add(NAME, Kind.EXPIRED)
        async with net.remote(mx_auth=net.everything(min_tls_level="authenticated")) as remote:
            assert fate(await send(remote, f"x@{NAME}", message=WAIVED)) == DELIVERED
            assert fate(await send(remote, f"x@{NAME}")) == ("deferred", 451, "4.7.1")
            assert fate(await send(remote, f"x@{NAME}", requiretls=True)) == NOT_QUALIFIED
            assert fate(await send(remote, f"x@{NAME}", message=WAIVED)) == DELIVERED
        assert net.mx[NAME].accepted == 2


async def test_a_requiretls_message_may_reuse_a_connection_that_is_good_enough() -> None:
    async with SecureNet() as net:
        await by_dane()(net, NAME)
        async with net.remote(mx_auth=net.everything()) as remote:
            assert fate(await send(remote, f"x@{NAME}")) == DELIVERED
            assert fate(await send(remote, f"x@{NAME}", requiretls=True)) == DELIVERED
        assert net.mx[NAME].opened == 1


async def test_waiving_for_one_message_waives_nothing_for_the_next() -> None:
    async with SecureNet() as net:
        await danger(net, NAME)
        async with net.remote(mx_auth=[mailrider.Dane(), mailrider.LocalPolicy()]) as remote:
            assert fate(await send(remote, f"x@{NAME}", message=WAIVED)) == DELIVERED
            assert fate(await send(remote, f"x@{NAME}")) == ("deferred", 451, "4.7.1")


async def test_the_local_minimum_binds_a_requiretls_message_as_well() -> None:
    async with SecureNet() as net:
        await signed_mx()(net, NAME)
        async with net.remote(mx_auth=[mailrider.LocalPolicy(min_mx_level="dnssec")]) as remote:
            assert fate(await send(remote, f"x@{NAME}", requiretls=True)) == DELIVERED
        await by_sts()(net, "sts.test")
        async with net.remote(mx_auth=[net.mtasts(), mailrider.LocalPolicy(min_mx_level="dnssec")]) as remote:
            result = await send(remote, "x@sts.test", requiretls=True)
        assert fate(result) == LATER
        assert "local_policy demands dnssec" in result.reply.text


async def test_a_fallback_that_is_remembered_helps_no_message_that_demands_tls() -> None:
    """Somebody broke one handshake: that must not keep TLS out for those who need it."""
    async with SecureNet() as net:
        await net.add(NAME, script=MXScript(tls=MXTLS(fault=TLSFault.ALERT)), mx_signed=True)
        async with net.remote(mx_auth=net.everything()) as remote:
            assert levels(await send(remote, f"x@{NAME}", message=WAIVED))[1] == "none"
            net.mx[NAME].script = server(net, NAME)
            assert levels(await send(remote, f"x@{NAME}"))[1] == "authenticated"
            assert fate(await send(remote, f"x@{NAME}", requiretls=True)) == DELIVERED


async def test_a_connection_that_asked_for_another_name_is_not_reused() -> None:
    """Under DANE the name is that of the records; for a message that waives it, that of the host."""
    async with SecureNet() as net:
        host = await net.add(NAME, mx_signed=True)
        certificate = net.ca.issue(["real.test"])
        host.script = MXScript(tls=MXTLS(certificate))
        net.set(f"mx.{NAME}", Name({"CNAME": "real.test"}, signed=True))
        net.set("real.test", Name({"A": host.address}, signed=True))
        net.tlsa("real.test", ee(certificate))
        async with net.remote(mx_auth=net.everything()) as remote:
            assert levels(await send(remote, f"x@{NAME}")) == DANE_LEVELS
            assert levels(await send(remote, f"x@{NAME}", message=WAIVED))[1] == "encrypted"
        assert [connection.sni for connection in host.connections] == ["real.test", f"mx.{NAME}"]
