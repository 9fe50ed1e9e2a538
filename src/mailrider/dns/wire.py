"""DNS messages: a question to octets, octets to a reply. Pure; dnspython does the wire format.

A query asks for what DNSSEC needs: AD (RFC 6840 5.7) and DO (RFC 3225), with EDNS (RFC 6891) and a payload
that is never fragmented. A reply is read record by record and not with `dns.message`: that gives up a whole
message for one record that it does not like (a TLSA digest of the wrong length), decodes what nobody asked
for, and takes 0.1 s of the event loop for a hostile 64 KiB. Here only the records that are looked at are
decoded, at most `MAX_RECORDS` of them.

What always holds:

- a message that does not answer this very question (id, name, type, class) is None: it may be forged, and
  whoever waits goes on waiting;
- a message that does, and says that the server cannot tell, or that cannot be read, is a `FailedReply`;
- only a reply that reads as NOERROR or NXDOMAIN from somebody who resolves names is a `ServerReply`: nothing else
  can ever be taken for the absence of a record.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
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
import dns.wire

from mailrider.dns.answer import LookupFailure, MalformedTLSA, MXRecord, RecordType
from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.model.security import TLSARecord

if TYPE_CHECKING:
    from typing import Any

    from mailrider.dns.answer import Record

PAYLOAD = 1232  # octets over UDP: what passes every path unfragmented (fragments can be forged)
MAX_MESSAGE = 65535  # octets: the length field over TCP, RFC 1035 4.2.2
MAX_RECORDS = 100  # of one set; an attempt tries 10 hosts and 20 addresses, and sane sets have 1 to 12
MAX_DETAIL = 200  # characters of a server's own words

_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")

# Behind a query's question: what we can take, and that we want to know what is authentic (RFC 6891 6.1.2, RFC 3225 3).
_OPT = b"\0" + _RECORD.pack(dns.rdatatype.OPT, PAYLOAD, dns.flags.DO, 0)
_POINTER = 0xC000 | _HEADER.size  # to the name in the question, RFC 1035 4.1.4

# What raises while octets are read: dnspython's own, and what its value classes let through.
_UNREADABLE = (dns.exception.DNSException, ValueError, IndexError, struct.error)

_FAILURES: dict[int, LookupFailure] = {
    dns.rcode.SERVFAIL: LookupFailure.SERVFAIL,
    dns.rcode.REFUSED: LookupFailure.REFUSED,
    dns.rcode.NOTIMP: LookupFailure.NOTIMP,
    dns.rcode.FORMERR: LookupFailure.FORMERR,
    dns.rcode.BADVERS: LookupFailure.FORMERR,  # of EDNS version 0: it does not speak DNS of this century
}

NUMBERS = {record_type: dns.rdatatype.from_text(record_type) for record_type in RecordType}  # RFC 1035 3.2.2 and later


@dataclass(frozen=True, slots=True)
class FailedReply:
    """Why something was not learnt; `detail` is for people."""

    failure: LookupFailure
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the random id that the answer must repeat. Not `edns`: as RFC 1035 knows it, without AD."""

    name: Domain
    record_type: RecordType
    id: int
    edns: bool = True

    def encode(self) -> bytes:
        """The query as a message, without the length that goes before it over TCP."""
        if not self.edns:
            return _HEADER.pack(self.id, dns.flags.RD, 1, 0, 0, 0) + self.section()
        flags = dns.flags.RD | dns.flags.AD
        return _HEADER.pack(self.id, flags, 1, 0, 0, 1) + self.section() + _OPT

    def section(self) -> bytes:
        """The question section alone (RFC 1035 4.1.2)."""
        labels = self.name.ascii.encode("ascii").split(b".")
        name = b"".join(len(label).to_bytes() + label for label in labels)
        return b"%b\0%b" % (name, _QUESTION.pack(NUMBERS[self.record_type], dns.rdataclass.IN))


@dataclass(slots=True)
class RecordSet:
    """Where in the message the records of one name and type are; `ttl` is the lowest one, seconds."""

    ttl: int
    places: list[tuple[int, int]] = field(default_factory=list)  # offset and length of each rdata


@dataclass(slots=True)
class ServerReply:
    """What a server says to a question.

    `exists` is False for NXDOMAIN (which is about the last name of a CNAME chain, RFC 6604 3). `authentic` is the
    AD bit. If `truncated` there is nothing else in it. `denials` has the owner of each SOA in the authority section
    and for how long it lets us remember an absence, seconds (RFC 2308 5).
    """

    message: bytes
    exists: bool = True
    authentic: bool = False
    truncated: bool = False
    sets: dict[tuple[str, int], RecordSet] = field(default_factory=dict)
    denials: dict[str, int] = field(default_factory=dict)

    def has(self, name: Domain, record_type: RecordType) -> bool:
        """True if there is any such record, readable or not."""
        return (name.ascii, NUMBERS[record_type]) in self.sets

    def ttl(self, name: Domain, record_type: RecordType) -> int:
        """Seconds that those records may be kept."""
        return self.sets[name.ascii, NUMBERS[record_type]].ttl

    def records(self, name: Domain, record_type: RecordType) -> tuple[Record, ...] | FailedReply:
        """The records there, decoded, as the server ordered them (MX by preference, if they are too many).

        Unreadable ones are left out; a `FailedReply` if all are, so that damage never looks like absence.
        """
        places = self.sets[name.ascii, NUMBERS[record_type]].places
        if len(places) > MAX_RECORDS:
            # Any part of a set of hosts or addresses does; but part of a TLSA or TXT set means another thing.
            if record_type in (RecordType.TLSA, RecordType.TXT):
                return FailedReply(LookupFailure.MALFORMED, f"{len(places)} {record_type} records at {name}")
            if record_type is RecordType.MX:
                places = sorted(places, key=self._leading_octets)
            places = places[:MAX_RECORDS]
        decoded = [self._decode(record_type, *place) for place in places]
        records = tuple(record for record in decoded if record is not None)
        return records or FailedReply(LookupFailure.MALFORMED, f"no {record_type} record at {name} can be read")

    def _leading_octets(self, place: tuple[int, int]) -> bytes:
        return self.message[place[0] : place[0] + 2]  # of an MX record: its preference

    def _decode(self, record_type: RecordType, start: int, length: int) -> Record | None:
        octets = self.message[start : start + length]
        try:
            match record_type:
                case RecordType.A:
                    return IPv4Address(octets)
                case RecordType.AAAA:
                    return IPv6Address(octets)
                case RecordType.TLSA:
                    return _decode_tlsa(octets)
                case _:
                    return _translate(self._decode_rdata(record_type, start, length))
        except _UNREADABLE:
            return None

    def _decode_rdata(self, record_type: RecordType, start: int, length: int) -> dns.rdata.Rdata:
        parser = dns.wire.Parser(self.message, start)
        with parser.restrict_to(length):
            return dns.rdata.from_wire_parser(dns.rdataclass.IN, NUMBERS[record_type], parser)


def _decode_tlsa(octets: bytes) -> TLSARecord | MalformedTLSA:
    # Not by dnspython, which refuses a digest whose length does not fit its type. Such a record exists, and that
    # alone has a meaning (RFC 7672 2.2); whether it is usable is for DANE to say.
    if len(octets) <= 3:  # RFC 6698 2.1: three octets and then the association data
        return MalformedTLSA(octets.hex())
    return TLSARecord(octets[0], octets[1], octets[2], octets[3:])


def _translate(rdata: Any) -> Record:
    """dnspython's value as ours; `InvalidValue` for a CNAME or PTR to something that is no host name."""
    if rdata.rdtype == dns.rdatatype.TXT:
        return b"".join(rdata.strings)
    if rdata.rdtype in (dns.rdatatype.CNAME, dns.rdatatype.PTR):
        return Domain.parse(_text(rdata.target))
    text = _text(rdata.exchange)
    try:
        return MXRecord(rdata.preference, Domain.parse(text), text)
    except InvalidValue:
        return MXRecord(rdata.preference, None, text)


def _text(name: dns.name.Name) -> str:
    """A name as `Domain.ascii` has it; `.` is the root, and odd octets are escaped, so it is always ASCII."""
    return name.to_text(omit_final_dot=True).lower()


def decode_reply(message: bytes, question: Question) -> ServerReply | FailedReply | None:
    """What the message says to the question; None if it does not answer it at all."""
    parser = dns.wire.Parser(message)
    try:
        message_id, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(message)
        if message_id != question.id or not flags & dns.flags.QR or dns.opcode.from_flags(flags):
            return None
        parser.seek(_HEADER.size)
        if not _repeats(message, parser, questions, question):
            # A server that refuses to read the question need not repeat it (RFC 1035 4.1.1).
            return _refusal(flags & 15, "") if questions == 0 and flags & 15 else None
    except _UNREADABLE:
        return None
    if flags & dns.flags.TC:
        return ServerReply(message, truncated=True)
    scan = _Scan(message, parser, question)
    try:
        scan.answers(answers)
        scan.authorities(authorities)
        scan.additionals(additionals)
    except _UNREADABLE as error:
        return FailedReply(LookupFailure.MALFORMED, f"{type(error).__name__}: {error}"[:MAX_DETAIL])
    rcode = scan.rcode << 4 | flags & 15
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return _refusal(rcode, scan.explanation)
    if not scan.sets and not flags & (dns.flags.RA | dns.flags.AA):
        # A referral: this server is no resolver, and knows nothing of the name.
        return FailedReply(LookupFailure.REFUSED, "the server offers no recursion")
    return ServerReply(
        message,
        exists=rcode == dns.rcode.NOERROR,
        authentic=bool(flags & dns.flags.AD),
        sets=scan.sets,
        denials=scan.denials,
    )


def _repeats(message: bytes, parser: dns.wire.Parser, questions: int, question: Question) -> bool:
    if questions != 1:
        return False
    section = question.section()
    if message.startswith(section, _HEADER.size):  # octet by octet, as nearly every server does
        parser.seek(_HEADER.size + len(section))
        return True
    name = _text(parser.get_name(decompress=True))
    rdtype, rdclass = _QUESTION.unpack(parser.get_bytes(_QUESTION.size))
    asked = (question.name.ascii, NUMBERS[question.record_type], dns.rdataclass.IN)
    return (name, rdtype, rdclass) == asked


def _refusal(rcode: int, explanation: str) -> FailedReply:
    failure = _FAILURES.get(rcode)
    if failure is not None:
        return FailedReply(failure, explanation)
    return FailedReply(LookupFailure.SERVFAIL, f"response code {rcode} {explanation}".rstrip())


class _Scan:
    """One pass over the records behind the question; notes where those are that somebody may look at."""

    def __init__(self, message: bytes, parser: dns.wire.Parser, question: Question) -> None:
        self._parser = parser
        self._message = message
        self._wanted = {NUMBERS[question.record_type], dns.rdatatype.CNAME}
        self._owners: dict[int, str] = {_POINTER: question.name.ascii}
        self.sets: dict[tuple[str, int], RecordSet] = {}
        self.denials: dict[str, int] = {}
        self.rcode = 0  # the upper eight of its twelve bits, RFC 6891 6.1.3
        self.explanation = ""  # RFC 8914

    def answers(self, count: int) -> None:
        for _ in range(count):
            owner, rdtype, rdclass, ttl, start, length = self._next()
            if rdtype in self._wanted and rdclass == dns.rdataclass.IN:
                found = self.sets.setdefault((owner, rdtype), RecordSet(ttl))
                found.ttl = min(found.ttl, ttl)
                found.places.append((start, length))

    def authorities(self, count: int) -> None:
        for _ in range(count):
            owner, rdtype, _, ttl, start, length = self._next()
            if rdtype == dns.rdatatype.SOA and length >= 22:  # two names of one octet, five numbers of four
                # RFC 2308 5: the lower of the record's own TTL and its last field, MINIMUM.
                minimum = int.from_bytes(self._message[start + length - 4 : start + length])
                self.denials[owner] = min(ttl, minimum)

    def additionals(self, count: int) -> None:
        for _ in range(count):
            _, rdtype, _, ttl, start, length = self._next()
            if rdtype == dns.rdatatype.OPT:
                self.rcode = ttl >> 24
                if length:
                    self.explanation = _explanation(self._message, start, length)

    def _next(self) -> tuple[str, int, int, int, int, int]:
        """The next record's owner, type, class, TTL, and the offset and length of its rdata, which is skipped."""
        owner = self._owner()
        rdtype, rdclass, ttl, length = _RECORD.unpack(self._parser.get_bytes(_RECORD.size))
        start = self._parser.current
        self._parser.get_bytes(length)
        if ttl > 0x7FFFFFFF and rdtype != dns.rdatatype.OPT:
            ttl = 0  # RFC 2181 8
        return owner, rdtype, rdclass, ttl, start, length

    def _owner(self) -> str:
        # Most owners are a pointer to the question: the same few names, thousands of times in a large answer.
        start = self._parser.current
        pointer = int.from_bytes(self._message[start : start + 2])
        owner = self._owners.get(pointer)
        if owner is not None:
            self._parser.seek(start + 2)
            return owner
        owner = _text(self._parser.get_name(decompress=True))
        if pointer >= 0xC000:
            self._owners[pointer] = owner
        return owner


def _explanation(message: bytes, start: int, length: int) -> str:
    """The server's own words on what went wrong, as `DNSSEC BOGUS (signature expired)`; made safe to show."""
    parser = dns.wire.Parser(message, start)
    try:
        with parser.restrict_to(length):
            opt: Any = dns.rdata.from_wire_parser(dns.rdataclass.IN, dns.rdatatype.OPT, parser)
        errors = [option for option in opt.options if isinstance(option, dns.edns.EDEOption)]
    except _UNREADABLE:
        return ""  # only an explanation is lost
    words = [f"{_words(error.code)} ({error.text})" if error.text else _words(error.code) for error in errors]
    return "".join(c if c.isprintable() else "?" for c in ", ".join(words))[:MAX_DETAIL]


def _words(code: dns.edns.EDECode) -> str:
    return dns.edns.EDECode.to_text(code).replace("_", " ")
