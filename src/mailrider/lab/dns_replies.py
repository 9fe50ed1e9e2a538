"""What the lab's DNS server sends: from what a zone table says to messages. Pure; the forger guesses no better
than by adding one.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from mailrider.dns.answer import MXRecord
from mailrider.errors import InvalidValue
from mailrider.lab.zones import TTL, ChainLink, Data, Fault, RawRecord, TableAnswer
from mailrider.model.domain import Domain
from mailrider.model.security import TLSARecord

if TYPE_CHECKING:
    from collections.abc import Iterator

UDP_PAYLOAD = 1232  # octets that we send at most; 512 to those who do not speak EDNS (RFC 1035 4.2.1)
MAX_MESSAGE = 65535  # octets over TCP: RFC 1035 4.2.2

_IN = dns.rdataclass.IN
_RCODES = {
    Fault.SERVFAIL: dns.rcode.SERVFAIL,
    Fault.BOGUS: dns.rcode.SERVFAIL,
    Fault.REFUSED: dns.rcode.REFUSED,
    Fault.NOTIMP: dns.rcode.NOTIMP,
    Fault.FORMERR: dns.rcode.FORMERR,
}
_TRUNCATED = {Fault.TRUNCATED, Fault.TCP_CLOSED, Fault.TCP_TRUNCATED}


def read_query(message: bytes) -> dns.message.Message | None:
    """The query in a message that came in; None if it is none that a server answers."""
    try:
        query = dns.message.from_wire(message)
    except (dns.exception.DNSException, ValueError):
        return None
    if query.opcode() != dns.opcode.QUERY or query.flags & dns.flags.QR or len(query.question) != 1:
        return None
    return query


def encode_replies(query: dns.message.Message, found: TableAnswer, *, tcp: bool) -> Iterator[bytes]:
    """The messages that go back for a question, in order."""
    fault = found.fault
    if fault is Fault.SILENT or (fault is Fault.TCP_CLOSED and tcp):
        return
    if fault in _RCODES:
        yield _refuse(query, fault)
        return
    if fault in _TRUNCATED and (not tcp or fault is Fault.TCP_TRUNCATED):
        yield _truncate(query)
        return
    true = _encode(query, found, tcp=tcp)
    match fault:
        case Fault.WRONG_ID:
            yield _with_wrong_id(true)
        case Fault.WRONG_QUESTION:
            yield _other_question(query)
        case Fault.FORGED_FIRST:
            yield _with_wrong_id(true)
            yield _other_question(query)
            yield true
        case Fault.GARBAGE:
            yield b"this is no DNS message"
        case Fault.DAMAGED:
            yield true[:-3]
        case _:
            yield true


def _encode(query: dns.message.Message, found: TableAnswer, *, tcp: bool) -> bytes:
    reply = _respond(query)
    if found.fault is Fault.REFERRAL:
        reply.flags &= ~dns.flags.RA
        return reply.to_wire()
    if found.authentic and (query.flags & dns.flags.AD or query.ednsflags & dns.flags.DO):
        reply.flags |= dns.flags.AD
    reply.answer = [_rrset(link) for link in found.links if link.records.data]
    if found.denied_by is not None:
        reply.authority = [_soa(found)]
    if not found.exists:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    try:
        return reply.to_wire(max_size=MAX_MESSAGE if tcp else _udp_limit(query))
    except dns.exception.TooBig:
        return _fill(reply) if tcp else _truncate(query)


def _udp_limit(query: dns.message.Message) -> int:
    return min(UDP_PAYLOAD, max(512, query.payload)) if query.edns >= 0 else 512


def _fill(reply: dns.message.Message) -> bytes:
    """As many of the records as fit, without a word that some are missing: the worst that a hostile server can do."""
    records = [_record(rrset, rdata) for rrset in reply.answer for rdata in rrset]
    reply.answer = []
    reply.use_edns(False)
    bare = reply.to_wire()
    ends = list(accumulate(map(len, records), initial=len(bare)))
    count = bisect_right(ends, MAX_MESSAGE) - 1
    return bare[:6] + count.to_bytes(2) + bare[8:] + b"".join(records[:count])


def _record(rrset: dns.rrset.RRset, rdata: dns.rdata.Rdata) -> bytes:
    octets = rdata.to_digestable()
    header = struct.pack("!HHIH", rrset.rdtype, rrset.rdclass, rrset.ttl, len(octets))
    return rrset.name.to_digestable() + header + octets


def _respond(query: dns.message.Message) -> dns.message.Message:
    reply = dns.message.make_response(query, recursion_available=True, our_payload=UDP_PAYLOAD)
    reply.flags &= ~dns.flags.AD
    return reply


def _refuse(query: dns.message.Message, fault: Fault) -> bytes:
    reply = _respond(query)
    reply.set_rcode(_RCODES[fault])
    if fault is Fault.BOGUS:
        explanation = dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS, "the lab says so")
        reply.use_edns(0, payload=UDP_PAYLOAD, options=[explanation])
    return reply.to_wire()


def _truncate(query: dns.message.Message) -> bytes:
    reply = _respond(query)
    reply.flags |= dns.flags.TC
    return reply.to_wire()


def _with_wrong_id(message: bytes) -> bytes:
    return ((int.from_bytes(message[:2]) + 1) % 65536).to_bytes(2) + message[2:]


def _other_question(query: dns.message.Message) -> bytes:
    other = dns.message.make_query("forged.invalid.", query.question[0].rdtype, id=query.id)
    return _respond(other).to_wire()


def _name(text: str) -> dns.name.Name:
    return dns.name.from_text(text, origin=dns.name.root)


def _rrset(link: ChainLink) -> dns.rrset.RRset:
    rdatas = [_rdata(link.type, item) for item in link.records.data]
    return dns.rrset.from_rdata_list(_name(link.owner), link.records.ttl, rdatas)


def _soa(found: TableAnswer) -> dns.rrset.RRset:
    owner = _name(found.denied_by or ".")
    return dns.rrset.from_text(owner, TTL, _IN, "SOA", f". . 1 3600 600 86400 {TTL}")


@lru_cache(maxsize=16384)  # hostile sets have thousands, and are asked for again
def _rdata(rdtype: str, item: Data) -> dns.rdata.Rdata:
    if isinstance(item, TLSARecord):
        item = str(item)
    if isinstance(item, str) and rdtype == "TLSA":
        item = _tlsa(item)
    elif rdtype == "TXT" and isinstance(item, str | bytes):
        item = _txt(item.encode() if isinstance(item, str) else item)
    if isinstance(item, RawRecord):
        return dns.rdata.GenericRdata(_IN, dns.rdatatype.from_text(rdtype), item.octets)
    if isinstance(item, bytes):
        raise InvalidValue(f"octets stand for the text of a TXT record; for {rdtype} give Raw(octets)")
    if isinstance(item, MXRecord):
        item = f"{item.preference} {item.host or item.text}"
    elif isinstance(item, Domain):
        item = item.ascii
    return dns.rdata.from_text(_IN, rdtype, str(item), origin=dns.name.root, relativize=False)


def _tlsa(text: str) -> RawRecord:
    """By hand: dnspython refuses digests of the wrong length, and those are wanted here."""
    usage, selector, matching_type, *data = text.split()
    return RawRecord(bytes([int(usage), int(selector), int(matching_type)]) + bytes.fromhex("".join(data)))


def _txt(octets: bytes) -> RawRecord:
    pieces = [octets[start : start + 255] for start in range(0, len(octets), 255)] or [b""]
    return RawRecord(b"".join(bytes([len(piece)]) + piece for piece in pieces))
