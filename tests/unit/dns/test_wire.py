from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.dns.answer import LookupFailure, MalformedTLSA, MXRecord, RecordType
from mailrider.dns.wire import (
    MAX_DETAIL,
    MAX_OPTIONS,
    MAX_RECORDS,
    MAX_SCANNED,
    MAX_STRINGS,
    PAYLOAD,
    FailedReply,
    Question,
    ServerReply,
    decode_reply,
)
from mailrider.model.domain import Domain
from mailrider.model.security import TLSARecord
from tests.unit.dns.messages import Row, ask, failure, message, reply

A_QUESTION = ask("host.test", "A")


def test_a_query_asks_for_recursion_and_dnssec_with_a_payload_that_is_never_fragmented() -> None:
    query = dns.message.from_wire(ask("_25._tcp.mx.test", "TLSA", 4711).encode())
    assert query.id == 4711
    assert query.question[0].to_text() == "_25._tcp.mx.test. IN TLSA"
    assert query.flags == dns.flags.RD | dns.flags.AD
    assert query.edns == 0
    assert query.ednsflags == dns.flags.DO
    assert query.payload == PAYLOAD


LABELS = st.text("abcxyz019_-", min_size=1, max_size=63).filter(lambda label: label.strip("-") == label)


@given(st.lists(LABELS, min_size=1, max_size=3), st.sampled_from(RecordType), st.integers(0, 65535))
def test_a_query_is_the_one_that_dnspython_would_write(labels: list[str], record_type: RecordType, id: int) -> None:
    name = ".".join([*labels, "test"])
    theirs = dns.message.make_query(name, record_type.value, use_edns=0, want_dnssec=True, payload=PAYLOAD, id=id)
    theirs.flags |= dns.flags.AD
    assert ask(name, record_type.value, id).encode() == theirs.to_wire()


@pytest.mark.parametrize(
    ("record_type", "data", "expected"),
    [
        ("A", "192.0.2.1", IPv4Address("192.0.2.1")),
        ("AAAA", "2001:db8::1", IPv6Address("2001:db8::1")),
        ("MX", "10 MX.Example.org.", MXRecord(10, Domain("mx.example.org"), "mx.example.org")),
        ("MX", "0 .", MXRecord(0, None, ".")),
        ("MX", r"5 not\032a\032host.test.", MXRecord(5, None, r"not\032a\032host.test")),
        ("MX", "5 192.0.2.1.", MXRecord(5, None, "192.0.2.1")),
        ("CNAME", "Target.test.", Domain("target.test")),
        ("TLSA", f"3 1 1 {'ab' * 32}", TLSARecord(3, 1, 1, b"\xab" * 32)),
        ("TXT", '"v=STSv1; " "id=1;"', b"v=STSv1; id=1;"),
        ("TXT", r'"\255\000"', b"\xff\0"),
        ("TLSA", b"\x03\x01\x01\xab", TLSARecord(3, 1, 1, b"\xab")),
        ("TLSA", b"\xff\xff\xff\xab", TLSARecord(255, 255, 255, b"\xab")),
        ("TLSA", b"\x03\x01\x01", MalformedTLSA("030101")),
        ("TLSA", b"", MalformedTLSA("")),
    ],
)
def test_records_become_our_values(record_type: str, data: str | bytes, expected: object) -> None:
    found = reply(ask("name.test", record_type), [("name.test.", record_type, data)])
    assert found.records(Domain("name.test"), RecordType(record_type)) == (expected,)


def test_names_are_compared_without_regard_to_case() -> None:
    found = reply(ask("name.test", "A"), [("NAME.Test.", "A", "192.0.2.1")])
    assert found.has(Domain("name.test"), RecordType.A)


def test_a_message_may_spell_the_question_in_another_case() -> None:
    wire = message(A_QUESTION, [("host.test.", "A", "192.0.2.1")]).replace(b"\x04host", b"\x04hOSt")
    assert isinstance(decode_reply(wire, A_QUESTION), ServerReply)


@pytest.mark.parametrize(
    "other",
    [ask("host.test", "A", 4712), ask("other.test", "A"), ask("host.test", "AAAA"), ask("sub.host.test", "A")],
    ids=["id", "name", "type", "longer name"],
)
def test_what_answers_another_question_is_no_answer(other: object) -> None:
    assert decode_reply(message(other, [("host.test.", "A", "192.0.2.1")]), A_QUESTION) is None  # type: ignore[arg-type]


def test_a_refusal_of_another_question_is_no_answer() -> None:
    assert decode_reply(message(ask("other.test", "A"), rcode=dns.rcode.SERVFAIL), A_QUESTION) is None


def test_what_is_no_response_to_a_query_is_no_answer() -> None:
    wire = message(A_QUESTION)
    chaos = wire.replace(b"\0\x01\0\x01", b"\0\x01\0\x03", 1)
    two_questions = wire[:4] + b"\0\2" + wire[6:]
    for forged in (b"", b"x" * 11, A_QUESTION.encode(), wire[:2] + b"\xa8" + wire[3:], chaos, two_questions):
        assert decode_reply(forged, A_QUESTION) is None


@pytest.mark.parametrize(
    ("rcode", "expected"),
    [
        (dns.rcode.SERVFAIL, LookupFailure.SERVFAIL),
        (dns.rcode.REFUSED, LookupFailure.REFUSED),
        (dns.rcode.NOTIMP, LookupFailure.NOTIMP),
        (dns.rcode.FORMERR, LookupFailure.FORMERR),
        (dns.rcode.BADVERS, LookupFailure.FORMERR),
        (dns.rcode.NOTAUTH, LookupFailure.SERVFAIL),
        (dns.rcode.YXDOMAIN, LookupFailure.SERVFAIL),
    ],
)
def test_a_server_that_cannot_tell_is_a_failure_and_never_an_absence(
    rcode: dns.rcode.Rcode, expected: LookupFailure
) -> None:
    assert failure(decode_reply(message(A_QUESTION, rcode=rcode, soa="test."), A_QUESTION)).failure is expected


def test_an_unusual_response_code_is_named() -> None:
    refused = failure(decode_reply(message(A_QUESTION, rcode=dns.rcode.NOTAUTH), A_QUESTION))
    assert refused.detail == "response code 9"


def test_a_refusal_need_not_repeat_the_question() -> None:
    bare = struct.pack("!HHHHHH", 4711, 0x8001, 0, 0, 0, 0)
    assert failure(decode_reply(bare, A_QUESTION)).failure is LookupFailure.FORMERR


def test_an_answer_must_repeat_the_question() -> None:
    assert decode_reply(struct.pack("!HHHHHH", 4711, 0x8180, 0, 0, 0, 0), A_QUESTION) is None


def test_a_referral_is_a_failure_and_never_an_absence() -> None:
    lame = message(A_QUESTION, flags="QR RD", soa="test.")
    assert failure(decode_reply(lame, A_QUESTION)).failure is LookupFailure.REFUSED


@pytest.mark.parametrize("flags", ["QR RD AA", "QR RD RA"])
def test_a_resolver_and_an_authority_may_both_deny(flags: str) -> None:
    assert isinstance(decode_reply(message(A_QUESTION, flags=flags), A_QUESTION), ServerReply)


def _with_ede(*options: dns.edns.Option, rcode: dns.rcode.Rcode = dns.rcode.SERVFAIL) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(A_QUESTION.encode()), recursion_available=True)
    response.set_rcode(rcode)
    response.use_edns(0, options=list(options))
    wire = response.to_wire()
    assert wire is not None
    return wire


def test_a_servers_own_explanation_is_kept_and_made_safe_to_show() -> None:
    bogus = dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "expired\r\n\x1b[31m")
    other = dns.edns.EDEOption(dns.edns.EDECode.NETWORK_ERROR)
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    explained = failure(decode_reply(_with_ede(cookie, bogus, other), A_QUESTION))
    assert explained.detail == "DNSSEC BOGUS (expired???[31m), NETWORK ERROR"
    endless = dns.edns.EDEOption(dns.edns.EDECode.OTHER, "x" * 500)
    assert len(failure(decode_reply(_with_ede(endless), A_QUESTION)).detail) == MAX_DETAIL


def test_an_explanation_that_cannot_be_read_takes_nothing_else_with_it() -> None:
    broken = dns.edns.GenericOption(dns.edns.OptionType.EDE, b"\0\6\xff\xfe")
    assert decode_reply(_with_ede(broken), A_QUESTION) == FailedReply(LookupFailure.SERVFAIL)
    assert isinstance(decode_reply(_with_ede(broken, rcode=dns.rcode.NOERROR), A_QUESTION), ServerReply)


def test_ad_is_reported() -> None:
    assert not reply(A_QUESTION).authentic
    assert reply(A_QUESTION, flags="QR RD RA AD").authentic


def test_a_truncated_reply_has_nothing_else_in_it() -> None:
    cut = message(A_QUESTION, [("host.test.", "A", "192.0.2.1")], flags="QR RD RA TC")[:-7]
    decoded = decode_reply(cut, A_QUESTION)
    assert isinstance(decoded, ServerReply)
    assert decoded.truncated
    assert not decoded.sets


def test_one_damaged_record_does_not_lose_the_rest() -> None:
    question = ask("name.test", "MX")
    rows: list[Row] = [
        ("name.test.", "MX", b"\0"),
        ("name.test.", "MX", "10 mx.test."),
        ("name.test.", "MX", b"\0\1\xc0\xff"),
    ]
    assert reply(question, rows).records(question.name, RecordType.MX) == (MXRecord(10, Domain("mx.test"), "mx.test"),)


@pytest.mark.parametrize(
    ("record_type", "data"),
    [("A", b"\1\2\3"), ("A", b""), ("AAAA", b"\1\2\3\4"), ("MX", b""), ("TXT", b""), ("TXT", b"\5abc"), ("CNAME", b""),
     ("CNAME", "."), ("CNAME", r"no\032host.test.")],
)  # fmt: skip
def test_damage_is_a_failure_and_never_an_absence(record_type: str, data: str | bytes) -> None:
    question = ask("name.test", record_type)
    found = reply(question, [("name.test.", record_type, data)])
    assert found.has(question.name, question.record_type)
    read = found.records(question.name, question.record_type)
    assert isinstance(read, FailedReply)
    assert read.failure is LookupFailure.MALFORMED


def test_the_lowest_ttl_of_a_set_counts_and_an_impossible_one_is_zero() -> None:
    wire = message(A_QUESTION, [("host.test.", "A", "192.0.2.1"), ("host.test.", "A", "192.0.2.2")], ttl=300)
    first, second = wire.find(b"\0\0\1\x2c"), wire.rfind(b"\0\0\1\x2c")
    lower = wire[:second] + b"\0\0\0\x09" + wire[second + 4 :]
    impossible = wire[:first] + b"\x80\0\0\0" + wire[first + 4 :]
    for changed, expected in ((wire, 300), (lower, 9), (impossible, 0)):
        found = decode_reply(changed, A_QUESTION)
        assert isinstance(found, ServerReply)
        assert found.ttl(A_QUESTION.name, RecordType.A) == expected


@pytest.mark.parametrize(("ttl", "expected"), [(300, 60), (10, 10)])
def test_an_absence_lives_as_long_as_the_soa_says(ttl: int, expected: int) -> None:
    assert reply(A_QUESTION, soa="test.", ttl=ttl).denials == {"test": expected}
    assert reply(A_QUESTION, soa=".", ttl=ttl, rcode=dns.rcode.NXDOMAIN).denials == {".": expected}


def test_records_of_other_names_types_and_classes_are_passed_over() -> None:
    rows: list[Row] = [
        ("other.test.", "A", "192.0.2.1"),
        ("host.test.", "AAAA", "::1"),
        ("host.test.", "RRSIG", b"x" * 20),
    ]
    found = reply(A_QUESTION, rows)
    assert not found.has(A_QUESTION.name, RecordType.A)
    chaos = message(A_QUESTION, [("host.test.", "A", "192.0.2.1")]).replace(
        b"\0\1\0\1\0\0\1\x2c", b"\0\1\0\3\0\0\1\x2c"
    )
    decoded = decode_reply(chaos, A_QUESTION)
    assert isinstance(decoded, ServerReply)
    assert not decoded.sets


def test_of_too_many_mx_records_the_best_are_kept() -> None:
    question = ask("huge.test", "MX")
    rows = [("huge.test.", "MX", f"{1000 - n} mx{n}.test.") for n in range(600)]
    records = reply(question, rows).records(question.name, RecordType.MX)
    assert isinstance(records, tuple)
    assert [record.preference for record in records if isinstance(record, MXRecord)] == list(range(401, 501))


def test_of_too_many_addresses_some_are_kept() -> None:
    rows = [("host.test.", "A", f"192.0.{n // 256}.{n % 256}") for n in range(600)]
    assert len(reply(A_QUESTION, rows).records(A_QUESTION.name, RecordType.A)) == MAX_RECORDS  # type: ignore[arg-type]


@pytest.mark.parametrize(("record_type", "data"), [("TLSA", "3 1 0 {:04x}"), ("TXT", '"{}"')])
def test_a_part_of_a_set_that_means_something_as_a_whole_is_not_believed(record_type: str, data: str) -> None:
    question = ask("huge.test", record_type)
    rows = [("huge.test.", record_type, data.format(n)) for n in range(MAX_RECORDS + 1)]
    records = reply(question, rows).records(question.name, question.record_type)
    assert isinstance(records, FailedReply)
    assert records.failure is LookupFailure.MALFORMED


def _stuffed(question: Question, record: bytes, count: int, *, section: int = 6) -> bytes:
    """A reply with so many copies of a record; `section`: where its count stands in the header."""
    wire = message(question)
    head = wire[: wire.find(b"\0\0\x29")]
    counts = b"".join((count if place == section else 0).to_bytes(2) for place in (6, 8, 10))
    return head[:6] + counts + head[12:] + record * count


def _record(record_type: int, rdata: bytes, owner: bytes = b"\xc0\x0c") -> bytes:
    return owner + struct.pack("!HHIH", record_type, 1, 300, len(rdata)) + rdata


def test_of_a_large_message_no_more_records_are_read_than_are_kept() -> None:
    question = ask("huge.test", "MX")
    found = decode_reply(_stuffed(question, _record(15, b"\0\x0a\0"), MAX_SCANNED), question)
    assert isinstance(found, ServerReply)
    assert len(found.records(question.name, RecordType.MX)) == MAX_RECORDS  # type: ignore[arg-type]


@pytest.mark.parametrize("section", [6, 8, 10])
def test_a_message_of_thousands_of_records_is_malformed_and_not_read(section: int) -> None:
    wire = _stuffed(A_QUESTION, _record(6, b"\0" * 22), MAX_SCANNED + 1, section=section)
    refused = failure(decode_reply(wire, A_QUESTION))
    assert (refused.failure, refused.detail) == (LookupFailure.MALFORMED, f"more than {MAX_SCANNED} records")


def test_a_message_whose_names_all_point_into_a_deep_one_is_read_to_a_bound() -> None:
    deep = _record(1, b"", b"\1a" * 120 + b"\0")
    wire = _stuffed(A_QUESTION, deep, 240)
    assert "labels in one message" in failure(decode_reply(wire, A_QUESTION)).detail


@pytest.mark.parametrize(("strings", "is_read"), [(MAX_STRINGS, True), (MAX_STRINGS + 1, False)])
def test_a_text_of_thousands_of_strings_is_not_put_together(strings: int, is_read: bool) -> None:
    question = ask("name.test", "TXT")
    found = decode_reply(_stuffed(question, _record(16, b"\0" * strings), 1), question)
    assert isinstance(found, ServerReply)
    records = found.records(question.name, RecordType.TXT)
    assert records == (b"",) if is_read else isinstance(records, FailedReply)


def test_in_thousands_of_options_no_explanation_is_looked_for() -> None:
    others, bogus = dns.edns.GenericOption(65001, b""), dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS)  # type: ignore[arg-type]
    counts = ((MAX_OPTIONS - 6) // 4, (MAX_OPTIONS - 6) // 4 + 1)
    read = [failure(decode_reply(_with_ede(*[others] * count, bogus), A_QUESTION)).detail for count in counts]
    assert read == ["DNSSEC BOGUS", ""]


SAMPLE_QUESTION = ask("www.test", "MX")
SAMPLE = message(
    SAMPLE_QUESTION,
    [("www.test.", "CNAME", "host.test."), ("host.test.", "MX", "10 mx.test."), ("host.test.", "MX", "20 mx2.test.")],
    soa="test.",
    flags="QR RD RA AD",
)


def test_a_reply_that_breaks_off_anywhere_is_never_an_absence() -> None:
    for end in range(len(SAMPLE)):
        decoded = decode_reply(SAMPLE[:end], SAMPLE_QUESTION)
        assert decoded is None or failure(decoded).failure is LookupFailure.MALFORMED


def test_octets_behind_a_reply_change_nothing() -> None:
    whole, longer = (decode_reply(wire, SAMPLE_QUESTION) for wire in (SAMPLE, SAMPLE + b"\0junk"))
    assert isinstance(whole, ServerReply)
    assert isinstance(longer, ServerReply)
    assert whole.sets == longer.sets


def _read_all(wire: bytes) -> None:
    decoded = decode_reply(wire, SAMPLE_QUESTION)
    if isinstance(decoded, ServerReply):
        for owner, _ in decoded.sets:
            try:
                name = Domain.parse(owner)
            except ValueError:
                continue
            for record_type in (RecordType.MX, RecordType.CNAME):
                if decoded.has(name, record_type):
                    assert decoded.records(name, record_type)


@given(st.binary(max_size=200))
def test_any_octets_behind_the_question_are_read_or_refused(tail: bytes) -> None:
    _read_all(SAMPLE[: SAMPLE_QUESTION.encode().find(b"\0\0\x29")] + tail)


@given(st.lists(st.tuples(st.integers(4, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_damage_to_a_reply_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    wire = bytearray(SAMPLE)
    for place, octet in changes:
        wire[place] = octet
    _read_all(bytes(wire))
