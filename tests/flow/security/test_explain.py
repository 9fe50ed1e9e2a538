"""`mailrider explain`, read as a postmaster would who has never seen this program: what is wrong, who mends it, how.

The command runs as from a shell, against broken domains; what must be found on the page stands in the tables. It runs
the code that delivers: what it says of a message is what then becomes of one.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import pytest

from mailrider.lab.ca import Kind
from mailrider.lab.mx_script import MXTLS, Close, MXScript, PortState, Stage, TLSFault
from mailrider.lab.sts import PolicyHost, policy
from mailrider.lab.zones import Fault, Name, Records
from mailrider.smtp.commands import Connect, Ehlo, Quit, StartTLS
from tests.flow.security.net import SecureNet, ee, send, told_nothing
from tests.support.commands import Ran, run, run_here, start

if TYPE_CHECKING:
    from pathlib import Path

Make: TypeAlias = Callable[[SecureNet], Awaitable[object]]

DOMAIN, MX = "good.test", "mx.good.test"

CONFIGURATION = """
hostname client.test
state_dir {folder}
dns {{
    server {dns}
    timeout {net.dns_timeout:g}s
    attempts 1
}}
tls_client {{
    root_ca {root}
}}
target.remote {{
    port {port}
    prohibited_addresses none
    mx_auth {{
        mtasts {{
            cache ram
            https_port {https_port}
            root_ca {root}
        }}
        dane
        dnssec
        {more}
    }}
}}
"""


async def explain(net: SecureNet, folder: Path, *arguments: str, domain: str = DOMAIN, more: str = "") -> Ran:
    file = folder / "mailrider.conf"
    file.write_text(
        CONFIGURATION.format(
            net=net, folder=folder, dns=net.dns.server, root=net.root, port=net.port, https_port=net.sts.port, more=more
        )
    )
    return await run("-c", file, "explain", domain, *arguments)


def in_short(page: str) -> str:
    """The first section: all that somebody in a hurry reads."""
    return page[: page.index("\nDNS\n")]


# Broken domains -------------------------------------------------------------------------------------------------------


async def key_changed(net: SecureNet) -> None:
    """They renewed the key, and forgot DNS."""
    await net.add(DOMAIN, mx_signed=True, host_signed=True, tlsa=f"3 1 1 {'ab' * 32}")


async def policy_forgotten(net: SecureNet) -> None:
    """They moved to another provider, and left the old policy."""
    await net.add(DOMAIN)
    net.publish(DOMAIN, "enforce", "mx.old.test")


async def policy_host_expired(net: SecureNet) -> None:
    """Nobody renewed the web server's certificate."""
    await net.add(DOMAIN)
    net.publish(DOMAIN, "enforce", MX, host=PolicyHost(policy("enforce", MX), certificate=Kind.EXPIRED))


async def certificate_expired(net: SecureNet) -> None:
    """Nobody renewed the mail server's."""
    await net.add(DOMAIN, Kind.EXPIRED)
    net.publish(DOMAIN, "enforce", MX)


async def signatures_ran_out(net: SecureNet) -> None:
    """The signer died."""
    await net.add(DOMAIN)
    net.set(DOMAIN, Fault.BOGUS)


async def starttls_stripped(net: SecureNet) -> None:
    """A firewall inspects SMTP."""
    certificate = net.ca.issue([MX])
    script = MXScript(tls=MXTLS(certificate), hides_starttls=True)
    await net.add(DOMAIN, script=script, mx_signed=True, host_signed=True, tlsa=ee(certificate))


async def tlsa_unanswered(net: SecureNet) -> None:
    """Name servers that do not know the type."""
    await net.add(DOMAIN, mx_signed=True, host_signed=True, tlsa=Fault.SERVFAIL)


async def records_useless(net: SecureNet) -> None:
    """They copied the records of a web server."""
    certificate = net.ca.issue([MX])
    await net.add(DOMAIN, certificate, mx_signed=True, host_signed=True, tlsa="1" + ee(certificate)[1:])


async def two_records(net: SecureNet) -> None:
    await net.add(DOMAIN)
    net.publish(DOMAIN, "enforce", MX)
    net.set(f"_mta-sts.{DOMAIN}", {"TXT": ["v=STSv1; id=1;", "v=STSv1; id=2;"]})


async def in_testing_fails(net: SecureNet) -> None:
    await net.add(DOMAIN, Kind.SELF_SIGNED)
    net.publish(DOMAIN, "testing", MX)


async def in_testing_misses(net: SecureNet) -> None:
    await net.add(DOMAIN)
    net.publish(DOMAIN, "testing", "mx.old.test")


async def port_blocked(net: SecureNet) -> None:
    await net.add(DOMAIN)
    await net.mx[DOMAIN].set_port_state(PortState.CLOSED)


async def handshake_broken(net: SecureNet) -> None:
    await net.add(DOMAIN, script=MXScript(tls=MXTLS(fault=TLSFault.ALERT)))
    net.publish(DOMAIN, "enforce", MX)


async def greeting_refused(net: SecureNet) -> None:
    await net.add(DOMAIN, script=MXScript(replies={Stage.CONNECT: Close("554 5.7.1 You are on a list")}))


async def without_address(net: SecureNet) -> None:
    await net.add(DOMAIN)
    net.set(MX, {"TXT": "no address here"})


async def null_mx(net: SecureNet) -> None:
    net.set(DOMAIN, {"MX": "0 ."})


async def nowhere(_: SecureNet) -> None:
    """No such domain."""


async def unprotected(net: SecureNet) -> None:
    await net.add(DOMAIN)


@dataclass(frozen=True)
class Page:
    """What must be found in the first section: the cause, the cure and who it is for; `keeps_mail`: marked with a ✗."""

    make: Make
    cause: str
    cure: str
    responsible: str
    keeps_mail: bool = True


DOMAINS_OWNER, SERVERS_OPERATOR = "Cure, for the domain's owner: ", "Cure, for the mail server's operator: "

PAGES = {
    "the key changed": Page(
        key_changed,
        "Its certificate is not the one in DNS: no TLSA record matches",
        "If the key was changed on purpose, publish `_",
        SERVERS_OPERATOR,
    ),
    "the policy was forgotten": Page(
        policy_forgotten,
        "The domain's MTA-STS policy, in mode enforce, does not name it; it names mx.old.test",
        "Add the line `mx: mx.good.test` to the policy, then change the id in the TXT record",
        DOMAINS_OWNER,
    ),
    "the policy host's certificate expired": Page(
        policy_host_expired,
        "Its MTA-STS policy cannot be fetched (https://mta-sts.good.test",
        "and a certificate of a public authority for mta-sts.good.test",
        DOMAINS_OWNER,
        keeps_mail=False,
    ),
    "the server's certificate expired": Page(
        certificate_expired,
        "Its certificate does not prove what mtasts demands: TLS level encrypted",
        "It needs a certificate of a public authority for mx.good.test that has not run out",
        SERVERS_OPERATOR,
    ),
    "the signatures ran out": Page(
        signatures_ran_out,
        "DNS does not tell where its mail goes: MX lookup of good.test failed: SERVFAIL",
        "Compare `dig good.test MX` with `dig +cd good.test MX`. If only the second answers, DNSSEC is broken",
        DOMAINS_OWNER,
    ),
    "STARTTLS is stripped": Page(
        starttls_stripped,
        "The session stays in clear (the server does not offer STARTTLS), and dane demands TLS",
        "If other networks do see STARTTLS, somebody on the way removes it",
        SERVERS_OPERATOR,
    ),
    "TLSA is not answered": Page(
        tlsa_unanswered,
        "Its TLSA records cannot be looked up, and somebody may be hiding them: TLSA lookup of _",
        "The name servers of mx.good.test must answer `dig _",
        SERVERS_OPERATOR,
    ),
    "useless TLSA records": Page(
        records_useless,
        "usage 1, PKIX-EE, is not for mail (RFC 7672 3.1.3)",
        "TLSA 3 1 1 ...` with the SHA-256 of the server's public key, now ",
        SERVERS_OPERATOR,
        keeps_mail=False,
    ),
    "two MTA-STS records": Page(
        two_records,
        "Its MTA-STS record is wrong: 2 TXT records begin with v=STSv1;, one is allowed",
        "At _mta-sts.good.test exactly one TXT record must stand like: v=STSv1; id=20261121T120000;",
        DOMAINS_OWNER,
        keeps_mail=False,
    ),
    "a testing policy that would refuse": Page(
        in_testing_fails,
        "It would be refused if the domain's MTA-STS policy were enforced: the server's certificate cannot be",
        "Before the domain enforces it, mx.good.test needs TLS, with a certificate of a public authority",
        SERVERS_OPERATOR,
        keeps_mail=False,
    ),
    "a testing policy that names others": Page(
        in_testing_misses,
        "The domain's MTA-STS policy does not name it, but is only tested; it names mx.old.test",
        "Add the line `mx: mx.good.test` to the policy",
        DOMAINS_OWNER,
        keeps_mail=False,
    ),
    "the port is blocked": Page(
        port_blocked, "refused the connection", "Try from another network: if port ", SERVERS_OPERATOR
    ),
    "TLS is broken": Page(
        handshake_broken, "TLS handshake with mx.good.test failed", "openssl s_client -starttls smtp", SERVERS_OPERATOR
    ),
    "they do not like us": Page(
        greeting_refused,
        "mx.good.test said: 554",
        "look at our address's reverse DNS and at block lists",
        "Cure, for this machine's operator: ",
    ),
    "the server has no address": Page(
        without_address,
        "The mail server mx.good.test has no address",
        "Give mx.good.test an A or AAAA record",
        DOMAINS_OWNER,
    ),
    "null MX": Page(null_mx, "It says that it takes no mail (null MX)", "Use another address", DOMAINS_OWNER),
    "no such domain": Page(nowhere, "There is no such domain", "Look for a spelling mistake", DOMAINS_OWNER),
    "nothing protects it": Page(
        unprotected,
        "Nothing proves which servers are its own",
        "or publish an MTA-STS policy",
        DOMAINS_OWNER,
        keeps_mail=False,
    ),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
async def test_the_cause_and_the_cure_are_found_in_short(page: Page, tmp_path: Path) -> None:
    async with SecureNet() as net:
        await page.make(net)
        ran = await explain(net, tmp_path)
        as_json = await explain(net, tmp_path, "--json")
        async with net.remote(mx_auth=net.everything()[:3]) as remote:
            result = await send(remote, f"x@{DOMAIN}")
    end = {"delivered": os.EX_OK, "deferred": os.EX_TEMPFAIL, "failed": os.EX_UNAVAILABLE}[result.status]
    assert (ran.code, as_json.code, ran.err) == (end, end, "")
    short = in_short(ran.out)
    (cause,) = [line for line in short.splitlines() if page.cause in line and not line.startswith("  ✗ an ordinary")]
    assert cause.lstrip().startswith("✗" if page.keeps_mail else "·")
    cure = short.splitlines()[short.splitlines().index(cause) + 1]
    assert page.responsible in cure
    assert page.cure in cure
    # The verdict is that of a delivery, made a moment later.
    assert ("✗ an ordinary message now: " in short) is (result.status != "delivered")
    (facts,) = as_json.objects
    assert facts["verdicts"]["ordinary"]["status"] == result.status
    assert facts["verdicts"]["ordinary"]["reply"]["enhanced"] == str(result.reply.status)
    assert any(page.cause in advice["cause"] and page.cure in advice["cure"] for advice in facts["advice"])


async def test_it_says_what_to_publish_and_that_helps(tmp_path: Path) -> None:
    """The cure on the page, word for word, mends the domain."""
    async with SecureNet() as net:
        await key_changed(net)
        short = in_short((await explain(net, tmp_path)).out)
        owner, record = short.split("publish `")[1].split("`")[0].split(". TLSA ")
        net.set(owner, Name({"TLSA": record}, signed=True))
        mended = (await explain(net, tmp_path)).out
    (verdict,) = in_short(mended).splitlines()[2:]
    assert verdict.startswith(f"  ✓ an ordinary message now: goes to {MX} ")
    assert verdict.endswith("TLS level authenticated by DANE, MX level dnssec")


# Everything on the page -----------------------------------------------------------------------------------------------


async def test_a_healthy_domain_from_top_to_bottom(tmp_path: Path) -> None:
    async with SecureNet() as net:
        certificate = net.ca.issue([MX])
        server = await net.add(
            DOMAIN, certificate, mx_signed=True, host_signed=True, tlsa=[ee(certificate), "0 0 1 ff"]
        )
        net.publish(DOMAIN, "enforce", MX)
        ran = await explain(net, tmp_path, more="local_policy { min_tls_level authenticated\n }")
        heads = [line for line in ran.out.splitlines() if line and not line.startswith(" ")]
        assert heads == [
            "Mail for good.test, in short",
            "DNS",
            "MTA-STS",
            "What this target enforces (mx_auth)",
            "mx.good.test (preference 10)",
            "What would become of a message now",
        ]
        for fact in (
            "MX 10 mx.good.test",
            "✓ signed: DNSSEC authenticated this answer",
            "✓ TXT record found, id 1",
            "✓ policy of mode enforce, id 1, ",
            "0 seconds old, holds for 7 days",
            "names mx.good.test",
            "local_policy: TLS level authenticated, MX level none at least",
            f"✓ {server.address}: signed",
            "✓ named by the MTA-STS policy",
            "✓ TLSA at mx.good.test: authenticated",
            "✓ 3 1 1 ",
            "✗ 0 0 1 ff is not usable: usage 0, PKIX-TA, is not for mail",
            "demands TLS level authenticated",
            f"✓ [{server.address}] TLSv1.3, TLS_AES_256_GCM_SHA384",
            "certificate 0: mailrider lab valid for mx.good.test, EC secp256r1, until ",
            "✓ DANE: 3 1 1 ",
            "✓ PKIX: valid for mx.good.test until ",
            "offers 8BITMIME",
            "✓ an ordinary message: goes to mx.good.test",
            "✓ a message with REQUIRETLS: goes to mx.good.test",
            "✓ a message with TLS-Required: No: goes to mx.good.test",
        ):
            assert fact in ran.out, fact
        assert told_nothing(server)
        sent = [type(command) for connection in server.connections for command in connection.commands]
        assert set(sent) <= {Connect, Ehlo, StartTLS, Quit}


async def test_the_same_facts_are_in_the_json(tmp_path: Path) -> None:
    async with SecureNet() as net:
        certificate = net.ca.issue([MX])
        server = await net.add(DOMAIN, certificate, mx_signed=True, host_signed=True, tlsa=ee(certificate))
        net.publish(DOMAIN, "enforce", MX)
        ran = await explain(net, tmp_path, "--json")
    (facts,) = ran.objects
    assert (facts["next_hop"], facts["resolver_validates"], facts["unroutable"]) == (DOMAIN, True, None)
    assert facts["validated_by"].startswith("validated by 127.")
    assert facts["advice"] == []
    assert facts["mx_auth"] == {"mtasts": True, "dane": True, "dnssec": True, "local_policy": None}
    assert facts["mx"] == {"authentic": True, "implicit": False, "canonical": DOMAIN}
    assert (facts["mtasts"]["record"], facts["mtasts"]["error"]) == ("1", None)
    assert facts["mtasts"]["policy"].items() >= {"mode": "enforce", "mx": [MX], "max_age": 604800}.items()
    (host,) = facts["candidates"]
    assert (host["mx"], host["preference"], host["signed"], host["sts_match"]) == (MX, 10, True, True)
    assert [lookup["usable"] for lookup in host["tlsa"]] == [[ee(certificate)]]
    assert {kind: demand["mx_level"] for kind, demand in host["demands"].items()} == {
        "ordinary": "dnssec",
        "requiretls": "dnssec",
        "tls_required_no": "none",
    }
    (address,) = host["addresses"]
    assert (address["address"], address["tls_version"]) == (server.address, "TLSv1.3")
    assert {name: each["ok"] for name, each in address["certificate"].items()} == {"dane": True, "pkix": True}
    assert [each["issuer"] for each in address["chain"]] == ["mailrider lab intermediate", "mailrider lab root"]
    assert address["judgements"]["ordinary"]["authenticated_by"] == "dane"
    assert {kind: verdict["status"] for kind, verdict in facts["verdicts"].items()} == {
        "ordinary": "delivered",
        "requiretls": "delivered",
        "tls_required_no": "delivered",
    }


async def test_without_connecting_it_says_what_dns_and_policies_say(tmp_path: Path) -> None:
    async with SecureNet() as net:
        await policy_forgotten(net)
        ran = await explain(net, tmp_path, "--no-connect")
        assert net.mx[DOMAIN].opened == 0
    assert "✗ mx.good.test: The domain's MTA-STS policy, in mode enforce, does not name it" in ran.out
    assert ran.out.count("is not known, since no mail server was called (--no-connect)") == 2


async def test_aliases_and_unsigned_answers_are_told(tmp_path: Path) -> None:
    async with SecureNet() as net:
        server = await net.add(DOMAIN, Kind.SELF_SIGNED)
        net.set("www.test", {"CNAME": DOMAIN})
        net.set("real.test", {"A": server.address})
        net.set(MX, Name({"CNAME": "real.test"}, signed=True))
        net.set(f"_{net.port}._tcp.{MX}", {"TLSA": f"3 1 1 {'ab' * 32}"})
        ran = await explain(net, tmp_path, domain="WWW.test")
    for fact in (
        "Mail for www.test, in short",
        "by way of a CNAME to good.test",
        "not signed: anybody on the way could have changed this answer",
        "a CNAME to real.test",
        "TLSA at mx.good.test: 1, not authenticated, so they do not count",
        "✗ PKIX: self-signed",
    ):
        assert fact in ran.out, fact


async def test_an_address_literal_and_a_mail_address(tmp_path: Path) -> None:
    async with SecureNet() as net:
        server = await net.add(DOMAIN)
        literal = await explain(net, tmp_path, domain=f"x@[{server.address}]")
        address = await explain(net, tmp_path, domain=f"somebody@{DOMAIN}")
    assert f"Mail for [{server.address}], in short" in literal.out
    assert "not for address literals" in literal.out
    assert "TLS level encrypted, MX level none" in literal.out
    assert "Mail for good.test, in short" in address.out


async def test_what_is_no_domain_is_a_mistake_of_usage(tmp_path: Path) -> None:
    async with SecureNet() as net:
        ran = await explain(net, tmp_path, domain="no domain")
    assert (ran.code, ran.out) == (64, "")


def test_where_all_mail_goes_to_a_smarthost_it_says_who_looks_at_that(tmp_path: Path) -> None:
    file = tmp_path / "mailrider.conf"
    file.write_text("hostname mx.example.org\ntarget.smtp isp {\nhost tcp://127.0.0.1:2525\n}\n")
    ran = run_here("-c", file, "explain", DOMAIN)
    said = "no target.remote is configured: mail goes to target.smtp isp; mailrider check calls its servers"
    assert (ran.code, said in ran.err) == (os.EX_CONFIG, True)


async def test_one_connection_does_for_all_kinds_of_message(tmp_path: Path) -> None:
    async with SecureNet() as net:
        server = await net.add(DOMAIN)
        ran = await explain(net, tmp_path)
        assert server.opened == 1
    assert "✓ an ordinary message: goes to mx.good.test" in ran.out


async def test_a_dead_resolver_of_ours_is_ours_and_a_broken_domain_is_its_owners(tmp_path: Path) -> None:
    async with SecureNet(dns_timeout=2) as net:
        net.dns.zones[DOMAIN] = Fault.SERVFAIL
        broken = in_short((await explain(net, tmp_path)).out)
        net.dns.zones["iana.org"] = Fault.SILENT
        dead = in_short((await explain(net, tmp_path)).out)
    assert "good.test: DNS does not tell where its mail goes" in broken
    assert "Cure, for the domain's owner" in broken
    assert "the resolver: It cannot look up a name that has nothing to do with this domain either" in dead
    assert "good.test: DNS" not in dead


async def test_a_fallback_in_clear_is_told(tmp_path: Path) -> None:
    async with SecureNet() as net:
        await net.add(DOMAIN, script=MXScript(tls=MXTLS(fault=TLSFault.ALERT)))
        ran = await explain(net, tmp_path)
    assert "a message that does not demand TLS goes in clear" in ran.out
    assert "Mend TLS on the server; meanwhile its mail goes in clear" in ran.out


async def test_nothing_that_a_stranger_writes_reaches_the_terminal_as_a_command(tmp_path: Path) -> None:
    escape = "\x1b]0;pwned\x07\x1b[2J\u009b31m\u202e"
    async with SecureNet() as net:
        script = MXScript(replies={Stage.CONNECT: Close(f"554 5.7.1 {escape}")})
        await net.add(DOMAIN, script=script)
        net.set(f"_mta-sts.{DOMAIN}", {"TXT": f"v=STSv1; id=1; {escape}=x"})
        page, facts = await explain(net, tmp_path), await explain(net, tmp_path, "--json")
        net.publish(DOMAIN, "enforce", host=PolicyHost(b"version: " + escape.encode() + b"\n"))
        net.mx[DOMAIN].script = MXScript(tls=MXTLS(net.ca.issue([MX])))
        again = await explain(net, tmp_path)
    for ran in (page, facts, again):
        text = ran.out + ran.err
        assert not {"\x1b", "\x07", "\u009b", "\u202e", "\r"} & set(text)


async def test_hosts_behind_a_dead_one_are_told_as_well(tmp_path: Path) -> None:
    async with SecureNet() as net:
        await port_blocked(net)
        await net.add("other.test")
        net.set(DOMAIN, {"MX": Records([f"10 {MX}", "20 mx.other.test"])})
        ran = await explain(net, tmp_path)
    short = in_short(ran.out)
    assert "✓ an ordinary message now: goes to mx.other.test" in short
    # Another server takes it, so nothing keeps the mail.
    assert "✗" not in short
    assert "refused the connection" in short


async def test_a_host_that_is_prohibited_is_not_called(tmp_path: Path) -> None:
    async with SecureNet() as net:
        await net.add(DOMAIN)
        settings = replace(net.settings(), prohibited_addresses=("127.0.0.0/8",))
        file = tmp_path / "mailrider.conf"
        file.write_text(
            f"hostname client.test\nstate_dir {tmp_path}\ndns {{ server {net.dns.server} }}\n"
            f"target.remote {{ port {settings.port}\n }}\n"
        )
        ran = await run("-c", file, "explain", DOMAIN)
        assert net.mx[DOMAIN].opened == 0
    assert "It must not be connected to (prohibited_addresses)" in ran.out
    assert "nothing: TLS is used where it is offered, and can be prevented" in ran.out


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_a_terminal_gets_colour_and_a_file_does_not(is_terminal: bool, tmp_path: Path) -> None:
    async with SecureNet() as net:
        await unprotected(net)
        await explain(net, tmp_path, "--no-connect")  # for its configuration
        ours, theirs = os.openpty() if is_terminal else os.pipe()
        command = ("-c", tmp_path / "mailrider.conf", "explain", "--no-connect", DOMAIN)
        process = await start(*command, stdout=theirs)
        os.close(theirs)
        assert await process.wait() == 0
        written = os.read(ours, 65536)
        os.close(ours)
    assert b"Mail for good.test, in short" in written
    assert (b"\x1b[" in written) is is_terminal
