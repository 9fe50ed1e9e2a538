from __future__ import annotations

import pytest

from mailrider.lab.zones import MAX_LINKS, ChainLink, Fault, Name, Records, TableAnswer, ZoneTable, find, signed

ZONES: ZoneTable = {
    "plain.test": {"MX": ["10 mx.plain.test"], "TXT": "text", "NULL": []},
    "mx.plain.test": {"A": "192.0.2.1", "AAAA": Fault.SERVFAIL},
    "signed.test": signed({"MX": "10 mx.signed.test", "A": Records(["192.0.2.1"], signed=False)}),
    "www.signed.test": signed({"CNAME": "MX.plain.test."}),
    "mx.signed.test": signed({"A": "192.0.2.2"}),
    "alias.signed.test": signed({"CNAME": "mx.signed.test"}),
    "half.plain.test": {"CNAME": "alias.signed.test"},
    "alone.signed.test": signed({"CNAME": Records(["mx.signed.test"], alone=True, delay=1)}),
    "slow.test": {"CNAME": Records(["slower.test"], delay=1)},
    "slower.test": {"A": Records(["192.0.2.3"], delay=2, ttl=5)},
    "loop.test": {"CNAME": "loop.test"},
    "dangling.test": signed({"CNAME": "gone.signed.test"}),
    "dead.test": Fault.SILENT,
    "bogus.test": Name({}, signed=True, fault=Fault.BOGUS),
    "empty.signed.test": signed(),
    "a.b.c.test": {"A": "192.0.2.4"},
}


def look(name: str, rdtype: str = "A") -> TableAnswer:
    return find(ZONES, name, rdtype)


def test_records_may_stand_alone_or_in_a_list() -> None:
    assert look("mx.plain.test").links == (ChainLink("mx.plain.test", "A", Records(["192.0.2.1"])),)
    assert look("PLAIN.test", "MX").links == (ChainLink("plain.test", "MX", Records(["10 mx.plain.test"])),)


@pytest.mark.parametrize(
    ("name", "rdtype", "authentic"),
    [
        ("mx.plain.test", "A", False),
        ("signed.test", "MX", True),
        ("signed.test", "A", False),
        ("alias.signed.test", "A", True),
        ("www.signed.test", "A", False),
        ("half.plain.test", "A", False),
        ("half.plain.test", "CNAME", False),
        ("www.signed.test", "CNAME", True),
        ("gone.signed.test", "A", True),
        ("_25._tcp.mx.signed.test", "TLSA", True),
        ("signed.test", "TXT", True),
        ("empty.signed.test", "A", True),
        ("dangling.test", "A", True),
        ("gone.plain.test", "A", False),
        ("plain.test", "A", False),
        ("nowhere", "A", False),
    ],
)
def test_an_answer_or_denial_is_authenticated_if_every_link_is_signed(name: str, rdtype: str, authentic: bool) -> None:
    assert look(name, rdtype).authentic is authentic


@pytest.mark.parametrize(
    ("name", "rdtype", "exists", "denied_by"),
    [
        ("plain.test", "A", True, "plain.test"),
        ("plain.test", "NULL", True, "plain.test"),
        ("gone.plain.test", "A", False, "plain.test"),
        ("x.y.plain.test", "A", False, "plain.test"),
        ("c.test", "A", True, ""),
        ("nowhere.example", "A", False, ""),
        ("dangling.test", "A", False, "signed.test"),
        ("plain.test", "CNAME", True, "plain.test"),
    ],
)
def test_what_is_not_there_is_denied_by_the_nearest_name_above(
    name: str, rdtype: str, exists: bool, denied_by: str
) -> None:
    found = look(name, rdtype)
    assert found.exists is exists
    assert found.denied_by == denied_by


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("dead.test", Fault.SILENT),
        ("_mta-sts.dead.test", Fault.SILENT),
        ("bogus.test", Fault.BOGUS),
        ("slow.test", None),
    ],
)
def test_a_name_without_records_may_have_a_fault_for_all_types_and_all_below(name: str, fault: Fault | None) -> None:
    assert look(name, "TXT" if fault else "A").fault is fault


def test_a_fault_belongs_to_its_type() -> None:
    assert look("mx.plain.test", "AAAA").fault is Fault.SERVFAIL
    assert find({**ZONES, "x.test": {"CNAME": "mx.plain.test"}}, "x.test", "AAAA").fault is Fault.SERVFAIL


def test_delays_add_up_along_a_chain() -> None:
    assert look("slow.test").delay == 3
    assert [link.owner for link in look("slow.test").links] == ["slow.test", "slower.test"]


def test_a_cname_may_be_answered_alone() -> None:
    found = look("alone.signed.test")
    assert [link.type for link in found.links] == ["CNAME"]
    assert found.denied_by is None


def test_an_endless_chain_breaks_off() -> None:
    assert len(look("loop.test").links) == MAX_LINKS
