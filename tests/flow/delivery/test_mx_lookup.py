"""What DNS says of a domain, and which candidates follow from it."""

from __future__ import annotations

import itertools
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXScript, PortState, Stage
from mailrider.lab.zones import Fault, Records
from mailrider.net.local import OwnAddresses
from tests.flow.delivery.internet import REFUSING, internet, outcome, stages
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from mailrider.delivery.mx import Address
    from mailrider.lab.zones import ZoneTable

GOOD = MXScript()
NEVER_521 = MXScript(replies={Stage.CONNECT: "521 5.3.2 No mail here"})


async def ends(zone: Any, **more: Any) -> tuple[str, int, str]:
    """What becomes of a recipient at a domain with that zone."""
    async with internet({}, {"a.test": zone, **more}) as net:
        return outcome(await net.send_one("x@a.test"))


# Answers --------------------------------------------------------------------------------------------------------------


async def test_no_such_domain_fails_512() -> None:
    async with internet({}) as net:
        assert outcome(await net.send_one("x@missing.test")) == ("failed", 550, "5.1.2")
        assert net.dns.asked("missing.test", "A") == 0


async def test_a_domain_without_mx_is_its_own_host() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        net.dns.zones["b.test"] = {"A": net.mx("a.test").address}
        result = await net.send_one("x@b.test")
        assert net.mx("a.test").messages[0].addresses == ["x@b.test"]
    assert (result.status, result.mx) == ("delivered", "b.test")


async def test_a_domain_without_mx_and_without_address_fails_544() -> None:
    assert await ends({"TXT": "nothing to see here"}) == ("failed", 550, "5.4.4")


async def test_null_mx_fails_5110_without_connecting() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        net.dns.zones["a.test"] = {"MX": "0 .", "A": net.mx("a.test").address}
        assert outcome(await net.send_one("x@a.test")) == ("failed", 556, "5.1.10")
        assert net.mx("a.test").opened == 0
        assert {query.type for query in net.dns.queries} == {"MX"}


async def test_a_null_mx_among_others_is_dropped() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        net.dns.zones["a.test"] = {"MX": ["0 .", "10 mx0.a.test"]}
        result = await net.send_one("x@a.test")
    assert (result.status, stages(result)) == ("delivered", ["delivered"])


SILENT = (Fault.SILENT, Fault.GARBAGE)  # or as good as that
FAULTS = [Fault.SERVFAIL, Fault.REFUSED, Fault.NOTIMP, Fault.FORMERR, Fault.SILENT, Fault.GARBAGE, Fault.REFERRAL]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_a_lookup_that_fails_defers_443_whatever_the_cause(fault: Fault) -> None:
    # Not even an address beside it makes up for that: the domain may have an MX.
    zones: ZoneTable = {"b.test": {"MX": fault, "A": "127.0.0.1"}}
    async with internet({"a.test": [GOOD]}, zones, dns_timeout=1 if fault in SILENT else 50) as net:
        result = await net.send_one("x@b.test")
        assert net.dns.asked("b.test", "A") == 0
        assert any(type(event).__name__ == "LookupDidFail" for event in net.events)
    assert outcome(result) == ("deferred", 451, "4.4.3")


async def test_a_resolver_that_is_not_there_defers_443() -> None:
    async with internet({"a.test": [GOOD]}, dns_timeout=1) as net:
        await net.dns.__aexit__(None)
        assert outcome(await net.send_one("x@a.test")) == ("deferred", 451, "4.4.3")


# Aliases --------------------------------------------------------------------------------------------------------------


async def test_a_cname_at_the_domain_is_followed_and_the_recipient_stays_as_it_is() -> None:
    async with internet({"a.test": [GOOD]}, {"b.test": {"CNAME": "c.test"}, "c.test": {"CNAME": "a.test"}}) as net:
        assert (await net.send_one("x@b.test")).status == "delivered"
        assert net.mx("a.test").messages[0].addresses == ["x@b.test"]


async def test_a_cname_to_a_name_without_mx_leads_to_that_names_address() -> None:
    async with internet({"a.test": [GOOD]}, {"b.test": {"CNAME": "c.test"}}) as net:
        net.dns.zones["c.test"] = {"A": net.mx("a.test").address}
        assert (await net.send_one("x@b.test")).status == "delivered"


async def test_a_cname_to_nowhere_fails_512() -> None:
    assert await ends({"CNAME": "missing.test"}) == ("failed", 550, "5.1.2")


async def test_a_cname_loop_defers_443() -> None:
    assert await ends({"CNAME": "b.test"}, **{"b.test": {"CNAME": "a.test"}}) == ("deferred", 451, "4.4.3")


@pytest.mark.parametrize(("links", "status"), [(16, "delivered"), (17, "deferred")])
async def test_a_chain_of_sixteen_links_is_followed_and_no_longer_one(links: int, status: str) -> None:
    async with internet({"a.test": [GOOD]}) as net:
        names = [f"link{number}.test" for number in range(links)] + ["a.test"]
        net.dns.zones |= {name: {"CNAME": target} for name, target in itertools.pairwise(names)}
        result = await net.send_one("x@link0.test")
    assert result.status == status
    assert status == "delivered" or outcome(result) == ("deferred", 451, "4.4.3")


async def test_an_mx_that_is_an_alias_is_followed() -> None:
    # RFC 5321 5.1 forbids it, and much of the world does it.
    async with internet(
        {"a.test": [GOOD]}, {"b.test": {"MX": "10 mx.b.test"}, "mx.b.test": {"CNAME": "mx0.a.test"}}
    ) as net:
        result = await net.send_one("x@b.test")
    assert (result.status, result.mx) == ("delivered", "mx.b.test")


# Candidates in turn ---------------------------------------------------------------------------------------------------


async def test_a_better_preference_is_tried_first() -> None:
    async with internet({"a.test": [REFUSING, REFUSING, GOOD]}) as net:
        result = await net.send_one("x@a.test")
    assert [attempt.mx for attempt in result.attempts] == ["mx0.a.test", "mx1.a.test", "mx2.a.test"]


async def test_worse_candidates_are_not_even_looked_up_if_a_better_one_takes_it() -> None:
    async with internet({"a.test": [GOOD, GOOD]}) as net:
        await net.send_one("x@a.test")
        assert (net.dns.asked("mx0.a.test", "A"), net.dns.asked("mx1.a.test", "A")) == (1, 0)


async def test_equal_preferences_share_the_load() -> None:
    zone: ZoneTable = {"a.test": {"MX": Records([f"10 mx{number}.a.test" for number in range(2)], ttl=0)}}
    async with internet({"a.test": [GOOD, GOOD]}, zone, {"conn_reuse_limit": 1}) as net:
        for _ in range(40):
            assert (await net.send_one("x@a.test")).status == "delivered"
        # 2 in 2**40 that this fails, if all is well.
        assert all(server.accepted for server in net.servers)


async def test_at_most_ten_candidates_are_tried() -> None:
    async with internet({"a.test": [REFUSING] * 12}) as net:
        result = await net.send_one("x@a.test")
    assert outcome(result) == ("deferred", 451, "4.4.1")
    # The eleventh is named as the first that was not reached.
    assert [attempt.mx for attempt in result.attempts] == [f"mx{number}.a.test" for number in range(11)]
    assert result.attempts[-1].address is None


async def test_at_most_twenty_addresses_are_tried() -> None:
    async with internet({}) as net:
        for host in range(5):
            net.dns.zones[f"mx{host}.a.test"] = {"A": [f"127.0.3.{host * 10 + number}" for number in range(6)]}
        net.dns.zones["a.test"] = {"MX": [f"{host} mx{host}.a.test" for host in range(5)]}
        result = await net.send_one("x@a.test")
    assert outcome(result) == ("deferred", 451, "4.4.1")
    assert len([attempt for attempt in result.attempts if attempt.address]) == 20


async def test_a_candidate_without_an_address_leads_to_the_next() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        net.dns.zones["a.test"] = {"MX": ["5 gone.a.test", "10 mx0.a.test"]}
        result = await net.send_one("x@a.test")
    assert (result.status, stages(result)) == ("delivered", ["lookup", "delivered"])


async def test_no_candidate_has_an_address_fails_544() -> None:
    assert await ends({"MX": ["5 gone.test", "10 empty.test"]}, **{"empty.test": {"TXT": "x"}}) == (
        "failed",
        550,
        "5.4.4",
    )


async def test_one_of_the_address_lookups_failed_defers() -> None:
    assert await ends({"MX": ["5 gone.test", "10 broken.test"]}, **{"broken.test": Fault.SERVFAIL}) == (
        "deferred",
        451,
        "4.4.3",
    )


async def test_no_address_here_and_521_there_is_not_yet_a_failure() -> None:
    async with internet({"a.test": [NEVER_521]}) as net:
        net.dns.zones["a.test"] = {"MX": ["5 mx0.a.test", "10 gone.test"]}
        assert outcome(await net.send_one("x@a.test")) == ("deferred", 451, "4.3.2")


# Ourselves ------------------------------------------------------------------------------------------------------------


async def test_our_own_name_as_best_mx_is_a_loop() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        net.dns.zones["a.test"] = {"MX": ["10 Client.Test", "20 mx0.a.test"]}
        looped = await net.send_one("x@a.test")
        assert outcome(looped) == ("failed", 554, "5.4.6")
        assert "loops back to this server: client.test has its name or an address of it" in looped.reply.text
        assert net.mx("a.test").opened == 0


async def test_a_domain_without_mx_that_has_our_name_is_a_loop() -> None:
    assert await ends({"TXT": "x"}) != ("failed", 554, "5.4.6")
    async with internet({}, {"client.test": {"A": "127.0.0.1"}}) as net:
        assert outcome(await net.send_one("x@client.test")) == ("failed", 554, "5.4.6")


async def test_our_address_in_own_addresses_is_ourselves_whatever_its_name() -> None:
    async with internet({"a.test": [GOOD]}, directives={"own_addresses": ["127.9.9.9"]}) as net:
        net.dns.zones |= {"nat.test": {"A": ["127.0.0.1", "127.9.9.9"]}, "a.test": {"MX": "10 nat.test"}}
        assert outcome(await net.send_one("x@a.test")) == ("failed", 554, "5.4.6")
        assert outcome(await net.send_one("x@nat.test")) == ("failed", 554, "5.4.6")


async def test_an_address_of_one_of_our_interfaces_is_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(_: OwnAddresses, address: Address) -> tuple[bool, float]:
        return address == ip_address("192.0.2.1"), 0.0

    monkeypatch.setattr(OwnAddresses, "look_up", look_up)
    assert await ends({"MX": "10 mx.a.test"}, **{"mx.a.test": {"A": "192.0.2.1"}}) == ("failed", 554, "5.4.6")
    async with internet({}) as net:
        assert outcome(await net.send_one("x@[192.0.2.1]")) == ("failed", 554, "5.4.6")


async def test_we_and_all_of_equal_or_worse_preference_are_dropped() -> None:
    async with internet({"a.test": [REFUSING, GOOD, GOOD]}) as net:
        net.dns.zones["a.test"] = {"MX": ["10 mx0.a.test", "20 client.test", "20 mx1.a.test", "30 mx2.a.test"]}
        result = await net.send_one("x@a.test")
        assert [server.opened for server in net.servers] == [0, 0, 0]
    assert (outcome(result), stages(result)) == (("deferred", 451, "4.4.1"), ["connect"])


async def test_a_better_candidate_than_ourselves_takes_it() -> None:
    async with internet({"a.test": [GOOD]}) as net:
        net.dns.zones["a.test"] = {"MX": ["10 mx0.a.test", "20 client.test"]}
        assert (await net.send_one("x@a.test")).status == "delivered"


async def test_ourselves_among_those_beyond_the_limit_is_a_loop_too() -> None:
    names = ["client.test", *(f"mx{number}.many.test" for number in range(11))]
    async with internet({}) as net:
        net.dns.zones["a.test"] = {"MX": [f"10 {name}" for name in names]}
        assert outcome(await net.send_one("x@a.test")) == ("failed", 554, "5.4.6")


# Hostile --------------------------------------------------------------------------------------------------------------


async def test_a_message_full_of_mx_records_is_bounded_and_outcomes_are_right() -> None:
    async with internet({}, dns_timeout=50) as net:
        net.dns.zones["a.test"] = {"MX": [f"{number % 7} mx{number}.many.test" for number in range(4_000)]}
        result = await net.send_one("x@a.test")
        assert len(net.dns.queries) < 30
    # Those that were not asked have not said that they have no address.
    assert outcome(result) == ("deferred", 451, "4.4.1")


async def test_a_dead_host_is_not_waited_for_beyond_its_time() -> None:
    async with internet({}, directives={"connect_timeout": 0.3}) as net:
        server = await net.enter(LabMX(MXScript(), new_address(), net.port, port_state=PortState.UNANSWERED))
        addresses = [server.address, *(new_address() for _ in range(3))]
        for address in addresses[1:]:
            await net.enter(LabMX(MXScript(), address, net.port, port_state=PortState.UNANSWERED))
        net.dns.zones |= {"a.test": {"MX": "10 mx.test"}, "mx.test": {"A": addresses}}
        result = await net.send_one("x@a.test")
    # How the addresses share the time: tests/unit/delivery/connection/test_connect_time.py.
    assert (outcome(result), len(result.attempts)) == (("deferred", 451, "4.4.1"), 4)
