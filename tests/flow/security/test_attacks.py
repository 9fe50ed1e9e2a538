"""What an attacker can do, row by row: what is refused, what is deferred, what is only reported.

The attacker owns the path, forges unsigned DNS, has a zone, hosts and good certificates of his own, and can make any
lookup or fetch fail. He cannot sign for others, neither zones nor certificates. "cached" rows are about a domain whose
policy we have from before; first a message is delivered in peace.

In every row but those that say `delivered`, no server may have heard a word of the message: neither the true one nor
his. That is asserted on the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from mailrider.lab.ca import Kind
from mailrider.lab.mx_script import MXTLS, ExtraOctets, MXScript, Stage, TLSFault
from mailrider.lab.sts import PolicyHost, STSFault, policy
from mailrider.lab.zones import Fault, Name, Records
from tests.flow.security.net import SecureNet, ee, fate, levels, send, ta, told_nothing

if TYPE_CHECKING:
    from mailrider.lab.mx_script import Action

VICTIM, MX = "victim.test", "mx.victim.test"
EVIL, EVIL_MX = "evil.test", "mx.evil.test"
RECORD = f"_mta-sts.{VICTIM}"
POLICY_HOST = f"mta-sts.{VICTIM}"

Attack: TypeAlias = Callable[[SecureNet], None]


# What he does ---------------------------------------------------------------------------------------------------------


def nothing(_: SecureNet) -> None:
    """He sleeps."""


def change(net: SecureNet, **how: Any) -> None:
    net.mx[VICTIM].script = replace(net.mx[VICTIM].script, **how)


def strips_starttls(net: SecureNet) -> None:
    change(net, hides_starttls=True)


def breaks_the_handshake(net: SecureNet) -> None:
    change(net, tls=MXTLS(fault=TLSFault.ALERT))


def refuses_starttls(reply: Action) -> Attack:
    return lambda net: change(net, replies={Stage.STARTTLS: reply})


def injects_behind_starttls(net: SecureNet) -> None:
    change(net, replies={Stage.STARTTLS: ExtraOctets(b"250 OK\r\n")})


def shows(kind: Kind, name: str = MX) -> Attack:
    return lambda net: change(net, tls=MXTLS(net.ca.issue([name], kind)))


def forges_mx(net: SecureNet) -> None:
    """To his own host, whose certificate is as good as any."""
    net.zones[VICTIM] = {"MX": Records([f"10 {EVIL_MX}"], ttl=0)}


def forges_address(net: SecureNet) -> None:
    """The name stays, the server is his."""
    net.zones[MX] = {"A": Records([net.mx[EVIL].address], ttl=0)}


def hides_record(fault: Fault | None = None) -> Attack:
    return lambda net: net.set(RECORD, fault or {"TXT": Records([], ttl=0)})


def blocks_policy_host(net: SecureNet) -> None:
    net.set(POLICY_HOST, Fault.SERVFAIL)


def serves(host: PolicyHost) -> Attack:
    """A new id leads to a policy host that is his, or that he has in his hand."""
    return lambda net: net.publish(VICTIM, "enforce", host=host)


def hides_tlsa(fault: Fault) -> Attack:
    return lambda net: net.set(f"_{net.port}._tcp.{MX}", fault)


def breaks_signature(name: str) -> Attack:
    return lambda net: net.set(name, Fault.BOGUS)


def together(*attacks: Attack) -> Attack:
    def all_of_them(net: SecureNet) -> None:
        for attack in attacks:
            attack(net)

    return all_of_them


# Whom he attacks ------------------------------------------------------------------------------------------------------


async def plain(net: SecureNet) -> None:
    await net.add(VICTIM)


async def enforce(net: SecureNet) -> None:
    await net.add(VICTIM)
    net.publish(VICTIM, "enforce", MX)


async def in_testing_mode(net: SecureNet) -> None:
    await net.add(VICTIM)
    net.publish(VICTIM, "testing", MX)


async def dane(net: SecureNet) -> None:
    certificate = net.ca.issue([MX], Kind.SELF_SIGNED)
    await net.add(VICTIM, certificate, mx_signed=True, host_signed=True, tlsa=ee(certificate))


# What comes of it -----------------------------------------------------------------------------------------------------

HOST_REFUSED = "deferred", 451, "4.7.0"
CHANNEL_REFUSED = "deferred", 451, "4.7.1"
TLS_FAILED = "deferred", 451, "4.7.5"
DNS_FAILED = "deferred", 451, "4.4.3"
VIOLATION = TLS_FAILED
DELIVERED = "delivered", 250, "2.0.0"

IN_CLEAR = "none", "none", None
ENCRYPTED = "none", "encrypted", None
AUTHENTIC = "mtasts", "authenticated", "pkix"
UNAUTHENTIC = "mtasts", "encrypted", None


@dataclass(frozen=True)
class Row:
    """`cached`: a message was delivered before. `reported` are events that must be there, `levels` those delivered."""

    victim: Any
    attack: Attack
    outcome: tuple[str, int, str]
    levels: tuple[str, str, str | None] | None = None
    reported: tuple[str, ...] = ()
    cached: bool = False
    dns_timeout: float = 30


def cached(attack: Attack, outcome: tuple[str, int, str] = CHANNEL_REFUSED, *reported: str) -> Row:
    """A domain in enforce mode, whose policy we have."""
    return Row(enforce, attack, outcome, AUTHENTIC if outcome == DELIVERED else None, reported, cached=True)


def silent(row: Row) -> Row:
    """DNS does not answer, and is waited for."""
    return replace(row, dns_timeout=2)


def unknown(attack: Attack, *reported: str) -> Row:
    """A domain in enforce mode that we have never sent to: trust on first use has its price (RFC 8461 10.2)."""
    both = together(attack, shows(Kind.SELF_SIGNED))
    return Row(enforce, both, DELIVERED, ENCRYPTED, reported)


REFUSED, MISSED, FELL_BACK = "CandidateRefused", "TestingPolicyMissed", "FellBackToClear"
FETCH_FAILED, LOOKUP_FAILED, UNUSABLE = "PolicyFetchFailed", "RecordLookupFailed", "RecordUnusable"
REDIRECT = PolicyHost(status=301, location=f"https://{EVIL}/.well-known/mta-sts.txt")
OLD = PolicyHost(policy("enforce", "mx.old.test"))
FOR_ANYBODY = PolicyHost(policy("none"), certificate=Kind.SELF_SIGNED)

TABLE = {
    # Nothing protects a plain domain, and nobody is told that it does.
    "plain: strips STARTTLS": Row(plain, strips_starttls, DELIVERED, IN_CLEAR),
    "plain: breaks the handshake": Row(plain, breaks_the_handshake, DELIVERED, IN_CLEAR, (FELL_BACK,)),
    "plain: swaps the certificate": Row(plain, shows(Kind.SELF_SIGNED), DELIVERED, ENCRYPTED),
    "plain: injects behind STARTTLS": Row(plain, injects_behind_starttls, VIOLATION),
    # MTA-STS in enforce mode, known: on the path.
    "cached: nothing": cached(nothing, DELIVERED),
    "cached: strips STARTTLS": cached(strips_starttls, CHANNEL_REFUSED, REFUSED),
    "cached: refuses STARTTLS": cached(refuses_starttls("502 5.5.1 No"), CHANNEL_REFUSED, REFUSED),
    "cached: refuses STARTTLS for now": cached(refuses_starttls("454 4.7.0 Later"), CHANNEL_REFUSED, REFUSED),
    "cached: breaks the handshake": cached(breaks_the_handshake, TLS_FAILED),
    "cached: injects behind STARTTLS": cached(injects_behind_starttls, VIOLATION),
    "cached: a self-signed certificate": cached(shows(Kind.SELF_SIGNED), CHANNEL_REFUSED, REFUSED),
    "cached: an expired certificate": cached(shows(Kind.EXPIRED)),
    "cached: a certificate for clients": cached(shows(Kind.CLIENT_AUTH_ONLY)),
    "cached: his own good certificate": cached(shows(Kind.VALID, EVIL_MX)),
    "cached: a certificate of the mail domain": cached(shows(Kind.VALID, VICTIM)),
    # In DNS.
    "cached: forges the MX": cached(forges_mx, HOST_REFUSED, REFUSED),
    "cached: forges the address": cached(forges_address, CHANNEL_REFUSED, REFUSED),
    "cached: removes the record": cached(hides_record(), DELIVERED, UNUSABLE),
    "cached: removes the record, strips STARTTLS": cached(together(hides_record(), strips_starttls)),
    "cached: breaks the record's DNS": cached(hides_record(Fault.SERVFAIL), DELIVERED, LOOKUP_FAILED),
    "cached: silences the record's DNS": silent(cached(hides_record(Fault.SILENT), DELIVERED, LOOKUP_FAILED)),
    "cached: breaks the record's DNS, forges the MX": cached(
        together(hides_record(Fault.SERVFAIL), forges_mx), HOST_REFUSED, LOOKUP_FAILED, REFUSED
    ),
    "cached: everything at once": cached(
        together(hides_record(Fault.SERVFAIL), blocks_policy_host, forges_address), CHANNEL_REFUSED, LOOKUP_FAILED
    ),
    # At the policy host, behind a new id that he announces.
    "cached: blocks the policy host": cached(
        together(serves(FOR_ANYBODY), blocks_policy_host), DELIVERED, FETCH_FAILED
    ),
    "cached: blocks the policy host, strips STARTTLS": cached(
        together(serves(FOR_ANYBODY), blocks_policy_host, strips_starttls), CHANNEL_REFUSED, FETCH_FAILED
    ),
    "cached: serves mode none, without a certificate for it": cached(
        together(serves(FOR_ANYBODY), strips_starttls), CHANNEL_REFUSED, FETCH_FAILED
    ),
    "cached: an old policy is served, which names other hosts": cached(serves(OLD), HOST_REFUSED, REFUSED),
    "cached: redirects the policy": cached(
        together(serves(REDIRECT), strips_starttls),
        CHANNEL_REFUSED,
        FETCH_FAILED,
    ),
    "cached: makes the policy endless": cached(
        together(serves(PolicyHost(fault=STSFault.ENDLESS)), strips_starttls), CHANNEL_REFUSED, FETCH_FAILED
    ),
    "cached: makes the policy's header endless": cached(
        together(serves(PolicyHost(fault=STSFault.ENDLESS_HEADER)), strips_starttls), CHANNEL_REFUSED, FETCH_FAILED
    ),
    "cached: a bomb for a policy": cached(
        together(serves(PolicyHost(fault=STSFault.COMPRESSED)), strips_starttls), CHANNEL_REFUSED, FETCH_FAILED
    ),
    "cached: HTML for a policy": cached(
        together(serves(PolicyHost(policy("none"), content_type="text/html")), strips_starttls),
        CHANNEL_REFUSED,
        FETCH_FAILED,
    ),
    # MTA-STS in enforce mode, not known yet.
    "unknown: removes the record": unknown(hides_record()),
    "unknown: breaks the record's DNS": unknown(hides_record(Fault.SERVFAIL), LOOKUP_FAILED),
    "unknown: blocks the policy host": unknown(blocks_policy_host, FETCH_FAILED),
    "unknown: redirects the policy": unknown(serves(REDIRECT), FETCH_FAILED),
    "unknown: makes the policy endless": unknown(serves(PolicyHost(fault=STSFault.ENDLESS)), FETCH_FAILED),
    "unknown: a policy host of his": unknown(serves(FOR_ANYBODY), FETCH_FAILED),
    "unknown: only the path": Row(enforce, strips_starttls, CHANNEL_REFUSED, None, (REFUSED, "PolicyFetched")),
    # MTA-STS in testing mode: reported, never refused.
    "testing: strips STARTTLS": Row(in_testing_mode, strips_starttls, DELIVERED, ("mtasts", "none", None), (MISSED,)),
    "testing: breaks the handshake": Row(
        in_testing_mode, breaks_the_handshake, DELIVERED, ("mtasts", "none", None), (MISSED, FELL_BACK)
    ),
    "testing: swaps the certificate": Row(in_testing_mode, shows(Kind.WRONG_NAME), DELIVERED, UNAUTHENTIC, (MISSED,)),
    "testing: forges the MX": Row(
        in_testing_mode, forges_mx, DELIVERED, ("none", "authenticated", "pkix"), (MISSED,)
    ),
    # DANE.
    "dane: nothing": Row(dane, nothing, DELIVERED, ("dnssec", "authenticated", "dane")),
    "dane: strips STARTTLS": Row(dane, strips_starttls, CHANNEL_REFUSED, None, (REFUSED,)),
    "dane: breaks the handshake": Row(dane, breaks_the_handshake, TLS_FAILED),
    "dane: a certificate that the whole world trusts": Row(dane, shows(Kind.VALID), CHANNEL_REFUSED, None, (REFUSED,)),
    "dane: hides the TLSA records": Row(
        dane, hides_tlsa(Fault.SERVFAIL), CHANNEL_REFUSED, None, (REFUSED, "LookupDidFail")
    ),
    "dane: forges the TLSA records": Row(dane, hides_tlsa(Fault.BOGUS), CHANNEL_REFUSED, None, (REFUSED,)),
    "dane: silences the TLSA records": silent(
        Row(dane, hides_tlsa(Fault.SILENT), CHANNEL_REFUSED, None, (REFUSED,))
    ),
    "dane: damages the TLSA answer": Row(dane, hides_tlsa(Fault.DAMAGED), CHANNEL_REFUSED, None, (REFUSED,)),
    "dane: forges the MX": Row(dane, breaks_signature(VICTIM), DNS_FAILED, None, ("LookupDidFail",)),
    "dane: forges the address": Row(dane, breaks_signature(MX), DNS_FAILED, None, ("LookupDidFail",)),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
async def test_attack(row: Row) -> None:
    async with SecureNet(dns_timeout=row.dns_timeout) as net:
        await row.victim(net)
        await net.add(EVIL)
        mx_auth = [net.mtasts(), *net.everything()[1:3]]
        # One transaction for each connection: he who is on the path meets every message.
        async with net.remote(mx_auth=mx_auth, conn_reuse_limit=1) as remote:
            if row.cached:
                assert fate(await send(remote, f"x@{VICTIM}")) == DELIVERED
                net.mx[VICTIM].connections.clear()
                net.events.clear()
            row.attack(net)
            result = await send(remote, f"x@{VICTIM}")
        assert fate(result) == row.outcome, result.reply
        if row.outcome == DELIVERED:
            assert levels(result) == row.levels
        else:
            assert told_nothing(net.mx[VICTIM])
            assert told_nothing(net.mx[EVIL])
        assert set(row.reported) <= {type(event).__name__ for event in net.events}


async def test_what_is_only_reported_is_never_a_refusal() -> None:
    """In testing mode, and where there is no policy, nobody's mail is held up."""
    delivered = [name for name, row in TABLE.items() if row.outcome == DELIVERED]
    assert {name.partition(":")[0] for name in delivered} == {"plain", "cached", "unknown", "testing", "dane"}
    for name, row in TABLE.items():
        if name.startswith(("testing", "unknown: r", "unknown: b")):
            assert row.outcome == DELIVERED


# CNAMEs (RFC 7672 2.2.2): an alias is as safe as its weakest link, and no weaker --------------------------------------

ALIASES = {
    # alias signed, target signed, where the (wrong) TLSA record stands: is the host refused?
    "both signed, record at the target": (True, True, "target", True),
    "both signed, record at the alias": (True, True, "alias", True),
    "a signed alias into an unsigned zone, record at the alias": (True, False, "alias", True),
    "a signed alias into an unsigned zone, record at the target": (True, False, "target", False),
    "an unsigned alias into a signed zone, record at the target": (False, True, "target", False),
    "an unsigned alias into a signed zone, record at the alias": (False, True, "alias", False),
}


@pytest.mark.parametrize(("alias_signed", "target_signed", "where", "refused"), ALIASES.values(), ids=ALIASES)
async def test_aliases(alias_signed: bool, target_signed: bool, where: str, refused: bool) -> None:
    async with SecureNet() as net:
        await net.add(VICTIM, Kind.SELF_SIGNED)
        net.set("real.test", Name({"A": net.mx[VICTIM].address}, signed=target_signed))
        net.set(MX, Name({"CNAME": "real.test"}, signed=alias_signed))
        holder = "real.test" if where == "target" else MX
        # In an unsigned zone there are no signed records.
        is_signed = target_signed if where == "target" else alias_signed
        net.set(f"_{net.port}._tcp.{holder}", Name({"TLSA": f"3 1 1 {'00' * 32}"}, signed=is_signed))
        async with net.remote(mx_auth=net.everything()) as remote:
            result = await send(remote, f"x@{VICTIM}")
        assert fate(result) == (CHANNEL_REFUSED if refused else DELIVERED)
        assert told_nothing(net.mx[VICTIM]) is refused


async def test_under_dane_the_server_is_asked_for_the_name_of_the_records() -> None:
    async with SecureNet() as net:
        real = net.ca.issue(["real.test"])
        by_name = {"real.test": real}
        other = net.ca.issue(["default.test"])
        server = await net.add(VICTIM, script=MXScript(tls=MXTLS(other, by_name)), mx_signed=True)
        net.set("real.test", Name({"A": server.address}, signed=True))
        net.set(MX, Name({"CNAME": "real.test"}, signed=True))
        net.tlsa("real.test", ee(real))
        async with net.remote(mx_auth=net.everything()) as remote:
            assert levels(await send(remote, f"x@{VICTIM}")) == ("dnssec", "authenticated", "dane")
        assert server.connections[0].sni == "real.test"


# Reference names (RFC 7672 3.2.2): an MX record that anybody could have written lends nobody a name -------------------


@pytest.mark.parametrize(("mx_signed", "outcome"), [(True, DELIVERED), (False, CHANNEL_REFUSED)])
async def test_a_certificate_of_the_mail_domain_counts_only_if_the_mx_is_signed(
    mx_signed: bool, outcome: tuple[str, int, str]
) -> None:
    async with SecureNet() as net:
        certificate = net.ca.issue([VICTIM])
        await net.add(VICTIM, certificate, mx_signed=mx_signed, host_signed=True, tlsa=ta(certificate))
        async with net.remote(mx_auth=net.everything()) as remote:
            result = await send(remote, f"x@{VICTIM}")
        assert fate(result) == outcome
        assert told_nothing(net.mx[VICTIM]) is (outcome != DELIVERED)


async def test_his_host_with_records_of_its_own_gets_no_mx_level() -> None:
    """DANE proves that it is his host; that the domain wanted it there is another question."""
    async with SecureNet() as net:
        await net.add(VICTIM)
        certificate = net.ca.issue([EVIL_MX])
        await net.add(EVIL, certificate, host_signed=True, tlsa=ee(certificate))
        forges_mx(net)
        async with net.remote(mx_auth=net.everything()) as remote:
            assert levels(await send(remote, f"x@{VICTIM}")) == ("none", "authenticated", "dane")
        async with net.remote(mx_auth=net.everything(min_mx_level="dnssec")) as remote:
            net.mx[EVIL].connections.clear()
            assert fate(await send(remote, f"x@{VICTIM}")) == HOST_REFUSED
            assert net.mx[EVIL].opened == 1, "the minimum is checked before connecting"


# Too much of everything -----------------------------------------------------------------------------------------------


async def test_thousands_of_tlsa_records_are_bounded_and_refuse() -> None:
    async with SecureNet() as net:
        await net.add(VICTIM, mx_signed=True, host_signed=True, tlsa=[f"3 1 1 {n:064x}" for n in range(1500)])
        async with net.remote(mx_auth=net.everything()) as remote:
            result = await send(remote, f"x@{VICTIM}")
        assert fate(result) == CHANNEL_REFUSED
        assert len(result.reply.text) < 1500
        assert told_nothing(net.mx[VICTIM])


async def test_a_policy_of_a_mebibyte_is_no_policy() -> None:
    async with SecureNet() as net:
        await net.add(VICTIM)
        net.publish(VICTIM, "enforce", host=PolicyHost(policy("enforce", *[f"mx{n}.test" for n in range(80_000)])))
        async with net.remote(mx_auth=net.everything()) as remote:
            assert fate(await send(remote, f"x@{VICTIM}")) == DELIVERED
        assert "PolicyFetchFailed" in {type(event).__name__ for event in net.events}


async def test_a_record_of_thousands_of_octets_is_no_record() -> None:
    async with SecureNet() as net:
        await net.add(VICTIM)
        net.set(RECORD, {"TXT": f"v=STSv1; id=1; x={'y' * 20_000}"})
        async with net.remote(mx_auth=net.everything()) as remote:
            assert levels(await send(remote, f"x@{VICTIM}")) == ("none", "authenticated", "pkix")
        assert "RecordUnusable" in {type(event).__name__ for event in net.events}


async def test_a_certificate_of_a_thousand_names_is_read_and_its_reason_is_short() -> None:
    async with SecureNet() as net:
        certificate = net.ca.issue([f"host{n}.evil.test" for n in range(1000)])
        await net.add(VICTIM, certificate)
        net.publish(VICTIM, "enforce", MX)
        async with net.remote(mx_auth=net.everything()) as remote:
            result = await send(remote, f"x@{VICTIM}")
        assert fate(result) == CHANNEL_REFUSED
        assert len(result.reply.text) < 1500
        assert "and 995 more" in result.reply.text


async def test_five_hundred_mx_records_are_ten_candidates() -> None:
    async with SecureNet() as net:
        await net.add(VICTIM)
        net.publish(VICTIM, "enforce", MX)
        net.set(VICTIM, {"MX": [f"10 mx{n}.evil.test" for n in range(500)]})
        async with net.remote(mx_auth=net.everything()) as remote:
            result = await send(remote, f"x@{VICTIM}")
        assert fate(result) == HOST_REFUSED
        *tried, beyond = result.attempts
        assert (len(tried), beyond.address) == (10, None)


# After a TLS failure (RFC 8461 5.1): the domain may have changed its policy meanwhile ---------------------------------


async def test_after_a_tls_failure_the_id_is_asked_for_again_once_an_attempt() -> None:
    async with SecureNet() as net:
        for name in ("one.test", "two.test", "three.test"):
            await net.add(name)
        hosts = [f"mx.{name}" for name in ("one.test", "two.test", "three.test")]
        net.set(VICTIM, {"MX": [f"{preference} {host}" for preference, host in enumerate(hosts)]})
        net.publish(VICTIM, "enforce", *hosts)
        net.set(RECORD, {"TXT": "v=STSv1; id=1;"})  # kept for its five minutes
        async with net.remote(mx_auth=[net.mtasts()], conn_reuse_limit=1) as remote:
            assert fate(await send(remote, f"x@{VICTIM}")) == DELIVERED
            for name in ("one.test", "two.test", "three.test"):
                net.mx[name].script = MXScript(tls=MXTLS(net.ca.issue([f"mx.{name}"], Kind.EXPIRED)))
                net.mx[name].connections.clear()
            # They gave up enforcing, and said so.
            net.publish(VICTIM, "testing", *hosts)
            asked = net.dns.asked(RECORD, "TXT")
            result = await send(remote, f"x@{VICTIM}")
        assert (fate(result), result.mx) == (DELIVERED, "mx.two.test")
        assert told_nothing(net.mx["one.test"])
        assert net.dns.asked(RECORD, "TXT") == asked + 1


async def test_and_if_nothing_has_changed_all_are_refused_and_it_was_asked_once() -> None:
    async with SecureNet() as net:
        hosts = []
        for name in ("one.test", "two.test", "three.test"):
            await net.add(name, Kind.EXPIRED)
            hosts.append(f"mx.{name}")
        net.set(VICTIM, {"MX": [f"{preference} {host}" for preference, host in enumerate(hosts)]})
        net.publish(VICTIM, "enforce", *hosts)
        async with net.remote(mx_auth=[net.mtasts()]) as remote:
            result = await send(remote, f"x@{VICTIM}")
        assert fate(result) == CHANNEL_REFUSED
        assert len(result.attempts) == 3
        assert net.dns.asked(RECORD, "TXT") == 2
        assert net.sts.fetches(VICTIM) == 1
