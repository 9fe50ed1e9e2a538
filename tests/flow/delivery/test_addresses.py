"""Which addresses of a host are tried, in which order, and from where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXScript, PortState, Stage
from mailrider.lab.zones import Fault
from tests.flow.delivery.internet import IPV6, REFUSING, Shut, internet, outcome, stages
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from mailrider.lab.zones import RecordsLike, ZoneTable

GOOD = MXScript()
V4 = [f"198.51.100.{number}" for number in range(1, 9)]
V6 = [f"2001:db8::{number}" for number in range(1, 9)]
# Nothing of these is ever connected to; that they are tried is seen in the report.
DOCUMENTATION = {"prohibited_addresses": ["198.51.100.0/24", "2001:db8::/32"]}


async def tried(a: RecordsLike, aaaa: RecordsLike, **directives: Any) -> list[str | None]:
    """The addresses that are tried of a host with those."""
    zones: ZoneTable = {"a.test": {"MX": "10 mx.test"}, "mx.test": {"A": a, "AAAA": aaaa}}
    async with internet({}, zones, DOCUMENTATION | directives, dns_timeout=2 if a is Fault.SILENT else 50) as net:
        result = await net.send_one("x@a.test")
    assert result.status == "deferred"
    return [attempt.address for attempt in result.attempts]


# The families in turn; the lab, as other servers do, gives those of a family in any order.
ORDERS: dict[str, tuple[RecordsLike, RecordsLike, str]] = {
    "both families": (V4[:2], V6[:2], "6464"),
    "more of one": (V4[:1], V6[:3], "6466"),
    "at most six": (V4, V6, "646464"),
    "at most six of one": (V4, [], "444444"),
    "AAAA fails": (V4[:2], Fault.SERVFAIL, "44"),
    "A fails": (Fault.SERVFAIL, V6[:2], "66"),
    "A is silent": (Fault.SILENT, V6[:1], "6"),
}


@pytest.mark.parametrize(("a", "aaaa", "families"), ORDERS.values(), ids=ORDERS)
async def test_families_are_interleaved_ipv6_first(a: RecordsLike, aaaa: RecordsLike, families: str) -> None:
    addresses = await tried(a, aaaa)
    assert "".join("6" if address in V6 else "4" for address in addresses) == families
    assert len(set(addresses)) == len(addresses)
    assert set(addresses) <= {*V4, *V6}


async def test_force_ipv4_never_asks_for_ipv6() -> None:
    zones: ZoneTable = {"a.test": {"MX": "10 mx.test"}, "mx.test": {"A": V4[:1], "AAAA": V6[:1]}}
    async with internet({}, zones, DOCUMENTATION | {"force_ipv4": True}) as net:
        result = await net.send_one("x@a.test")
        assert net.dns.asked("mx.test", "AAAA") == 0
    assert [attempt.address for attempt in result.attempts] == V4[:1]


async def test_with_force_ipv4_a_host_with_ipv6_alone_has_no_address() -> None:
    zones: ZoneTable = {"a.test": {"MX": "10 mx.test"}, "mx.test": {"AAAA": V6[:1]}}
    async with internet({}, zones, DOCUMENTATION | {"force_ipv4": True}) as net:
        assert outcome(await net.send_one("x@a.test")) == ("failed", 550, "5.4.4")


@pytest.mark.parametrize(("local_ip", "usable"), [("127.0.0.9", V4[0]), ("::1", V6[0])])
async def test_only_addresses_of_the_family_of_local_ip_are_tried(local_ip: str, usable: str) -> None:
    assert await tried(V4[:1], V6[:1], local_ip=local_ip) == [usable]


async def test_a_host_without_an_address_of_that_family_leads_to_the_next() -> None:
    async with internet({"a.test": [GOOD]}, directives={"local_ip": "127.0.0.9"}) as net:
        net.dns.zones |= {"a.test": {"MX": ["5 six.test", "10 mx0.a.test"]}, "six.test": {"AAAA": V6[0]}}
        result = await net.send_one("x@a.test")
    assert (result.status, stages(result)) == ("delivered", ["connect", "delivered"])
    assert "six.test has no address of the family of local_ip" in result.attempts[0].reply.text


async def test_local_ip_is_where_connections_come_from() -> None:
    source = new_address()
    async with internet({"a.test": [GOOD]}, directives={"local_ip": source}) as net:
        assert (await net.send_one("x@a.test")).status == "delivered"
        assert net.mx("a.test").connections[0].client_address == source


async def test_a_local_ip_that_is_not_ours_defers_and_blames_nobody_else() -> None:
    async with internet({"a.test": [GOOD]}, directives={"local_ip": "198.51.100.77"}) as net:
        result = await net.send_one("x@a.test")
        assert net.mx("a.test").opened == 0
    assert outcome(result) == ("deferred", 451, "4.3.0")
    assert "198.51.100.77" not in result.reply.text  # our configuration is nobody's business


@IPV6
async def test_a_host_is_reached_over_ipv6_and_over_ipv4_if_that_is_dead() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        six = await net.enter(LabMX(GOOD, "::1", net.port))
        net.dns.zones["mx0.a.test"] = {"A": net.mx("a.test").address, "AAAA": "::1"}
        result = await net.send_one("x@a.test")
        assert (result.address, six.accepted) == ("::1", 1)
    async with internet({"a.test": [GOOD]}) as net:
        net.dns.zones["mx0.a.test"] = {"A": net.mx("a.test").address, "AAAA": "::1"}
        result = await net.send_one("x@a.test")
        assert (result.address, stages(result)) == (net.mx("a.test").address, ["connect", "delivered"])


async def test_everything_up_to_ehlo_moves_on_to_the_next_address() -> None:
    ends: list[MXScript | Shut] = [
        REFUSING,
        MXScript(replies={Stage.CONNECT: "450 4.3.2 Busy"}),
        MXScript(replies={Stage.EHLO: "421 4.3.2 Bye"}),
    ]
    async with internet({"a.test": [*ends, GOOD]}) as net:
        addresses = [server.address for server in net.servers]
        net.dns.zones |= {"b.test": {"MX": "10 mx.test"}, "mx.test": {"A": addresses}}
        result = await net.send_one("x@b.test")
    # In whatever order they came: the report says what each address did, up to the one that took it.
    does = dict(zip(addresses, ["connect", "greeting", "ehlo", "delivered"], strict=True))
    assert stages(result) == [does[str(attempt.address)] for attempt in result.attempts]
    assert (result.status, {attempt.mx for attempt in result.attempts}) == ("delivered", {"mx.test"})


async def test_prohibited_addresses_are_passed_over_one_by_one() -> None:
    bad = new_address()
    async with internet({"a.test": [GOOD]}, directives={"prohibited_addresses": [bad]}) as net:
        good = net.mx("a.test").address
        net.dns.zones["mx0.a.test"] = {"A": [bad, good]}
        result = await net.send_one("x@a.test")
    does = {bad: "prohibited", good: "delivered"}
    assert result.status == "delivered"
    assert stages(result) == [does[str(attempt.address)] for attempt in result.attempts]


@IPV6
async def test_ipv6_that_leads_nowhere_delays_one_connection_by_its_head_start_and_no_other() -> None:
    async with internet({}, directives={"conn_max_idle_count": 0}) as net:
        dead = await net.enter(LabMX(GOOD, "::1", net.port, port_state=PortState.UNANSWERED))
        good = await net.enter(LabMX(GOOD, new_address(), net.port))
        net.dns.zones |= {"a.test": {"MX": "10 mx.test"}, "mx.test": {"A": good.address, "AAAA": dead.address}}
        for _ in range(3):
            result = await net.send_one("x@a.test")  # connect_timeout is 5 minutes: else this test would not end
            assert stages(result) == ["delivered"]
            assert result.attempts[0].address == good.address
