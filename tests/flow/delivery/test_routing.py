"""Who is refused at once, who goes where, and that domains do not wait for each other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import mailrider
from mailrider.delivery.destination import Destination
from mailrider.lab.ca import CA
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXTLS, MXScript, Silence, Stage, TLSFault
from tests.flow.delivery.internet import IPV6, REFUSING, internet, outcome, stages
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.lab.zones import ZoneTable
    from mailrider.model.route import Candidates

GOOD = MXScript()


def untouched(net: internet) -> bool:
    """No lookup was made, and nothing was connected to."""
    return not net.dns.queries and not any(server.opened for server in net.servers)


# Refused at once ------------------------------------------------------------------------------------------------------


async def test_a_quarantined_message_fails_for_all_without_lookup_or_connection() -> None:
    async with internet({"a.test": [GOOD], "b.test": [GOOD]}) as net:
        report = await net.send("x@a.test", "y@b.test", "not an address", quarantine=True)
        assert untouched(net)
    assert [outcome(result) for result in report] == [("failed", 550, "5.7.0")] * 3


async def test_a_sender_that_cannot_be_parsed_fails_all_without_lookup_or_connection() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        for sender in ("not an address", "nobody", "a@b@c.test", "a@-b.test", "a\r\nRCPT TO:<x@y.test>@b.test"):
            (result,) = await net.remote.send(b"Subject: x\r\n\r\n", sender, ["x@a.test"])
            assert outcome(result) == ("failed", 501, "5.1.7")
        assert untouched(net)


async def test_a_dot_behind_the_domain_of_an_address_is_named_as_what_is_wrong() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        (sender,) = await net.remote.send(b"Subject: x\r\n\r\n", "y@b.test.", ["x@a.test"])
        (recipient,) = await net.send("x@a.test.")
        assert untouched(net)
    reason = "(a domain in an address does not end in a dot)"
    assert str(sender.reply) == f"501 5.1.7 The sender: not a mail address: 'y@b.test.' {reason}"
    assert str(recipient.reply) == f"501 5.1.3 not a mail address: 'x@a.test.' {reason}"


async def test_recipients_that_cannot_be_parsed_fail_and_the_others_go_on() -> None:
    wrong = ["", "@a.test", "x@", "x y@a.test", "x@a..test", "x@[192.0.2]", "x@[IPv6:1]", "<x@a.test>", "x@a.test\r\n"]
    async with internet({"a.test": [GOOD]}) as net:
        report = await net.send("one@a.test", *wrong, "two@a.test")
        assert net.mx("a.test").messages[0].addresses == ["one@a.test", "two@a.test"]
    assert [outcome(result) for result in report.results[1:-1]] == [("failed", 501, "5.1.3")] * len(wrong)
    assert [result.recipient for result in report] == ["one@a.test", *wrong, "two@a.test"]
    assert {report[0].status, report.results[-1].status} == {"delivered"}


async def test_a_recipient_without_a_domain_fails_511() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        lonely, helped = await net.send("postmaster", "x@a.test")
    assert (outcome(lonely), outcome(helped)[0]) == (("failed", 550, "5.1.1"), "delivered")


async def test_nobody_left_to_deliver_to_needs_no_lookup() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        await net.send("postmaster", "nonsense@")
        assert untouched(net)


# Legal, though rare ---------------------------------------------------------------------------------------------------


async def test_the_null_reverse_path_is_sent_as_it_is() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        (result,) = await net.remote.send(b"Subject: bounce\r\n\r\n", "", ["x@a.test"])
        assert net.mx("a.test").messages[0].sender == ""
        assert b"MAIL FROM:<>" in net.mx("a.test").connections[0].said()
    assert result.status == "delivered"


async def test_a_quoted_local_part_is_quoted_on_the_wire() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        (result,) = await net.send(r'"a \"b\" @ c"@a.test')
        assert rb'RCPT TO:<"a \"b\" @ c"@a.test>' in net.mx("a.test").connections[0].said()
    assert result.status == "delivered"


@pytest.mark.parametrize("local", ["a..b", "a.", ".a"])
async def test_dots_that_no_local_part_has_are_quoted_on_the_wire(local: str) -> None:
    # https://github.com/KumoCorp/kumomta/issues/77: phones of docomo, ezweb and others
    async with internet({"a.test": [GOOD]}) as net:
        (result,) = await net.remote.send(b"Subject: x\r\n\r\n", f"{local}@s.test", [f"{local}@a.test"])
        said = net.mx("a.test").connections[0].said()
        assert f'MAIL FROM:<"{local}"@s.test>'.encode() in said
        assert f'RCPT TO:<"{local}"@a.test>'.encode() in said
    assert (result.status, result.recipient) == ("delivered", f"{local}@a.test")


async def test_the_same_recipient_given_twice_is_one_on_the_wire() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        report = await net.send("x@a.test", "nonsense@", "y@a.test", "x@A.TEST")
        assert net.mx("a.test").connections[0].said().count(b"RCPT TO:<x@a.test>") == 1
    assert [each.status for each in report] == ["delivered", "failed", "delivered", "delivered"]
    assert [each.recipient for each in report] == ["x@a.test", "nonsense@", "y@a.test", "x@A.TEST"]


@pytest.mark.parametrize("domain", ["bücher.test", "BÜCHER.TEST", "xn--bcher-kva.test", "XN--BCHER-KVA.test"])
async def test_an_internationalized_domain_is_looked_up_and_sent_in_a_labels(domain: str) -> None:
    async with internet({"xn--bcher-kva.test": [GOOD]}) as net:
        (result,) = await net.send(f"x@{domain}")
        assert net.dns.asked("xn--bcher-kva.test", "MX") == 1
        assert net.mx("xn--bcher-kva.test").messages[0].addresses == ["x@xn--bcher-kva.test"]
    assert (result.status, result.recipient) == ("delivered", f"x@{domain}")


# Address literals -----------------------------------------------------------------------------------------------------


async def literal_host(net: internet, script: MXScript, address: str) -> LabMX:
    return await net.enter(LabMX(script, address, net.port))


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        pytest.param(new_address, "[{}]", id="IPv4"),
        pytest.param(lambda: "::1", "[IPv6:{}]", id="IPv6", marks=IPV6),
    ],
)
async def test_an_address_literal_is_delivered_straight_to_that_address(make: Callable[[], str], shown: str) -> None:
    async with internet({}) as net:
        address = make()
        script = MXScript(tls=MXTLS(CA().issue(["mx.test"])))
        server = await literal_host(net, script, address)
        (result,) = await net.send(f"x@{shown.format(address)}")
        assert not net.dns.queries
        assert (server.accepted, server.connections[0].sni) == (1, None)
    assert result.status == "delivered"
    assert (result.mx, result.address) == (shown.format(address), address)
    # Nobody vouches for an address, whatever its certificate says.
    assert (result.security.mx_level, result.security.tls_level) == (
        mailrider.MXLevel.NONE,
        mailrider.TLSLevel.ENCRYPTED,
    )


async def test_an_address_literal_of_a_prohibited_address_is_never_connected_to() -> None:
    default = mailrider.RemoteSettings().prohibited_addresses
    async with internet({"a.test": [GOOD]}, directives={"prohibited_addresses": default}) as net:
        (result,) = await net.send("x@[IPv6:::ffff:127.0.0.1]")
    assert (outcome(result), stages(result)) == (("deferred", 451, "4.4.1"), ["prohibited"])


async def test_an_address_literal_falls_back_to_clear_as_others_do() -> None:
    async with internet({}) as net:
        server = await literal_host(net, MXScript(tls=MXTLS(fault=TLSFault.ALERT)), new_address())
        (result,) = await net.send(f"x@[{server.address}]")
    assert (stages(result), result.security.tls_level) == (["fallback", "delivered"], mailrider.TLSLevel.NONE)


# Domains at once ------------------------------------------------------------------------------------------------------


async def test_recipients_of_a_domain_share_a_transaction_whatever_its_case() -> None:
    async with internet({"a.test": [GOOD], "b.test": [GOOD]}) as net:
        report = await net.send("one@a.test", "two@B.test", "three@A.TEST", "four@b.test")
        assert net.mx("a.test").messages[0].addresses == ["one@a.test", "three@a.test"]
        assert net.mx("b.test").messages[0].addresses == ["two@b.test", "four@b.test"]
    assert {result.status for result in report} == {"delivered"}


async def test_a_domain_that_hangs_holds_up_nobody() -> None:
    hanging = MXScript(replies={Stage.END: Silence()})
    async with internet({"slow.test": [hanging], "fast.test": [GOOD], "dead.test": [REFUSING]}) as net:
        sending = asyncio.create_task(net.send("x@slow.test", "x@fast.test", "x@dead.test"))
        await net.mx("fast.test").wait_message()
        await net.mx("slow.test").wait_unanswered()
        assert not sending.done()
        await net.mx("slow.test").__aexit__(None)
        slow, fast, dead = await sending
    assert (slow.status, slow.in_doubt) == ("deferred", True)
    assert (fast.status, dead.status) == ("delivered", "deferred")


async def test_one_domains_failure_never_changes_anothers_outcome() -> None:
    scripts = {
        "good.test": GOOD,
        "never.test": MXScript(replies={Stage.RCPT: "550 5.1.1 Nobody"}),
        "later.test": MXScript(replies={Stage.MAIL: "450 4.2.0 Later"}),
        "odd.test": MXScript(replies={Stage.MAIL: "599 What?"}),
    }
    zones: ZoneTable = {"null.test": {"MX": "0 ."}}
    async with internet({name: [script] for name, script in scripts.items()}, zones) as net:
        report = await net.send(*(f"x@{name}" for name in (*scripts, "null.test", "missing.test")))
    assert [outcome(result)[:2] for result in report] == [
        ("delivered", 250),
        ("failed", 550),
        ("deferred", 450),
        ("failed", 599),
        ("failed", 556),
        ("failed", 550),
    ]


async def test_a_bug_at_one_domain_defers_that_domain_only(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Destination.find

    async def find(destination: Destination) -> Candidates:
        if str(destination.next_hop) == "b.test":
            raise ZeroDivisionError("a bug")
        return await usual(destination)

    monkeypatch.setattr(Destination, "find", find)
    async with internet({"a.test": [GOOD], "b.test": [GOOD]}) as net:
        a, b = await net.send("x@a.test", "x@b.test")
    assert (a.status, outcome(b)) == ("delivered", ("deferred", 451, "4.3.0"))
