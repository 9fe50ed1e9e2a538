from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from mailrider.dns.answer import MXRecord
from mailrider.errors import InvalidValue
from mailrider.lab.dns_replies import UDP_PAYLOAD, encode_replies, read_query
from mailrider.lab.zones import Data, Fault, RawRecord, ZoneTable, find, signed
from mailrider.model.domain import Domain
from mailrider.model.security import TLSARecord


def query(name: str, rdtype: str, **more: object) -> dns.message.Message:
    return dns.message.make_query(name, rdtype, **more)  # type: ignore[arg-type]


def respond(zones: ZoneTable, asked: dns.message.Message, *, tcp: bool = False) -> list[bytes]:
    question = asked.question[0]
    found = find(zones, question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype))
    return list(encode_replies(asked, found, tcp=tcp))


def read(zones: ZoneTable, asked: dns.message.Message, *, tcp: bool = False) -> dns.message.Message:
    (reply,) = respond(zones, asked, tcp=tcp)
    message = dns.message.from_wire(reply)
    assert asked.is_response(message)
    return message


@pytest.mark.parametrize(
    ("rdtype", "item", "shown"),
    [
        ("A", "192.0.2.1", "192.0.2.1"),
        ("A", IPv4Address("192.0.2.1"), "192.0.2.1"),
        ("AAAA", IPv6Address("2001:db8::1"), "2001:db8::1"),
        ("MX", "10 mx.test", "10 mx.test."),
        ("MX", "10 mx.test.", "10 mx.test."),
        ("MX", "0 .", "0 ."),
        ("MX", MXRecord(10, Domain("mx.test")), "10 mx.test."),
        ("MX", MXRecord(0, None, "."), "0 ."),
        ("CNAME", Domain("a.test"), "a.test."),
        ("TXT", "v=STSv1; id=1;", '"v=STSv1; id=1;"'),
        ("TXT", b"\xff", r'"\255"'),
        ("TXT", "", '""'),
        ("TXT", "x" * 300, f'"{"x" * 255}" "{"x" * 45}"'),
        ("TLSA", "3 1 1 " + "ab" * 32, "3 1 1 " + "ab" * 32),
        ("TLSA", TLSARecord(2, 0, 0, b"\xab"), "2 0 0 ab"),
    ],
)
def test_data_is_as_in_a_zone_file_or_one_of_our_values(rdtype: str, item: Data, shown: str) -> None:
    (rrset,) = read({"a.test": {rdtype: item}}, query("a.test", rdtype)).answer
    assert [str(rdata) for rdata in rrset] == [shown]
    assert rrset.ttl == 300


@pytest.mark.parametrize(
    ("item", "octets"),
    [("3 1 1 abcd", b"\3\1\1\xab\xcd"), (RawRecord(b"\3\1"), b"\3\1"), (TLSARecord(3, 1, 1, b""), b"\3\1\1")],
)
def test_malformed_tlsa_records_go_out_as_they_are(item: Data, octets: bytes) -> None:
    (reply,) = respond({"a.test": {"TLSA": item}}, query("a.test", "TLSA"))
    assert len(octets).to_bytes(2) + octets in reply


def test_octets_are_text_or_nothing() -> None:
    with pytest.raises(InvalidValue):
        respond({"a.test": {"A": b"1234"}}, query("a.test", "A"))


@pytest.mark.parametrize(
    ("flags", "want_dnssec", "expected"),
    [(dns.flags.RD, False, False), (dns.flags.RD | dns.flags.AD, False, True), (dns.flags.RD, True, True)],
)
def test_ad_is_said_to_those_who_ask(flags: int, want_dnssec: bool, expected: bool) -> None:
    asked = query("a.test", "A", flags=flags, want_dnssec=want_dnssec)
    assert bool(read({"a.test": signed({"A": "192.0.2.1"})}, asked).flags & dns.flags.AD) is expected
    assert not read({"a.test": {"A": "192.0.2.1"}}, asked).flags & dns.flags.AD


def test_absence_has_an_soa() -> None:
    zones: ZoneTable = {"a.test": {"A": "192.0.2.1"}}
    nodata = read(zones, query("a.test", "MX"))
    assert nodata.rcode() == dns.rcode.NOERROR
    assert nodata.authority[0].name.to_text() == "a.test."
    nxdomain = read(zones, query("b.test", "MX"))
    assert nxdomain.rcode() == dns.rcode.NXDOMAIN
    assert nxdomain.authority[0].name.to_text() == "."


MANY: ZoneTable = {"a.test": {"A": [f"192.0.2.{n}" for n in range(100)]}}


def test_what_does_not_fit_is_truncated_and_whole_over_tcp() -> None:
    for asked in (query("a.test", "A"), query("a.test", "A", use_edns=0, payload=4096)):
        cut = read(MANY, asked)
        assert cut.flags & dns.flags.TC
        assert not cut.answer
        assert len(read(MANY, asked, tcp=True).answer[0]) == 100


def test_edns_allows_larger_datagrams() -> None:
    zones: ZoneTable = {"a.test": {"A": [f"192.0.2.{n}" for n in range(50)]}}
    assert read(zones, query("a.test", "A")).flags & dns.flags.TC
    assert read(zones, query("a.test", "A", use_edns=0, payload=UDP_PAYLOAD)).answer


def test_a_set_too_large_for_any_message_fills_one() -> None:
    zones: ZoneTable = {"huge.test": {"MX": [f"10 mx{n}.huge.test" for n in range(4_000)]}}
    (reply,) = respond(zones, query("huge.test", "MX"), tcp=True)
    assert 65_000 < len(reply) <= 65_535
    message = dns.message.from_wire(reply)
    assert len(message.answer[0]) > 1_000
    assert not message.flags & dns.flags.TC


@pytest.mark.parametrize(
    ("fault", "rcode"),
    [
        (Fault.SERVFAIL, dns.rcode.SERVFAIL),
        (Fault.BOGUS, dns.rcode.SERVFAIL),
        (Fault.REFUSED, dns.rcode.REFUSED),
        (Fault.NOTIMP, dns.rcode.NOTIMP),
        (Fault.FORMERR, dns.rcode.FORMERR),
    ],
)
def test_a_fault_may_be_a_response_code(fault: Fault, rcode: dns.rcode.Rcode) -> None:
    assert read({"a.test": fault}, query("a.test", "A")).rcode() == rcode


@pytest.mark.parametrize(
    ("fault", "udp", "tcp"),
    [
        (Fault.SILENT, 0, 0),
        (Fault.TRUNCATED, 1, 1),
        (Fault.TCP_CLOSED, 1, 0),
        (Fault.TCP_TRUNCATED, 1, 1),
        (Fault.FORGED_FIRST, 3, 3),
        (Fault.WRONG_ID, 1, 1),
        (Fault.WRONG_QUESTION, 1, 1),
        (Fault.GARBAGE, 1, 1),
        (Fault.DAMAGED, 1, 1),
        (Fault.REFERRAL, 1, 1),
    ],
)
def test_a_fault_decides_how_many_messages_go_back(fault: Fault, udp: int, tcp: int) -> None:
    assert len(respond({"a.test": fault}, query("a.test", "A"))) == udp
    assert len(respond({"a.test": fault}, query("a.test", "A"), tcp=True)) == tcp


def test_only_queries_are_answered() -> None:
    asked = query("a.test", "A")
    assert read_query(asked.to_wire() or b"") is not None
    response = dns.message.make_response(asked)
    notify = query("a.test", "A")
    notify.set_opcode(dns.opcode.NOTIFY)
    empty = dns.message.Message()
    for other in (response, notify, empty):
        assert read_query(other.to_wire() or b"") is None
    assert read_query(b"garbage") is None
