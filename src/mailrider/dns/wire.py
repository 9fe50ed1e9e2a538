"""DNS messages: a question to octets, octets to a reply. Pure.

A query asks for what DNSSEC needs: AD (RFC 6840 5.7) and DO (RFC 3225), with EDNS (RFC 6891) and a payload
that is never fragmented. A reply is read record by record and not with `dns.message`: that gives up a whole
message for one record that it does not like (a TLSA digest of the wrong length), decodes what nobody asked
for, and takes half a second of the event loop for a hostile 64 KiB. Here only the records that are looked at are
decoded, at most `MAX_RECORDS` of them, and nothing in a message makes more work than its bounds say.

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
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from mailrider.dns.answer import LookupFailure, MalformedTLSA, MXRecord, RecordType
from mailrider.dns.names import NameReader
from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.model.security import TLSARecord

if TYPE_CHECKING:
    from mailrider.dns.answer import Record

PAYLOAD = 1232  # octets over UDP: what passes every path unfragmented (fragments can be forged)
MAX_MESSAGE = 65535  # octets: the length field over TCP, RFC 1035 4.2.2
MAX_RECORDS = 100  # of one set; an attempt tries 10 hosts and 20 addresses, and sane sets have 1 to 12
MAX_SCANNED = 2000  # records of one message, of all kinds: each of them is looked at
MAX_STRINGS = 4096  # strings of one TXT set; of the longest records that anybody reads, DKIM keys, each has 32
MAX_OPTIONS = 1024  # octets of EDNS options in which an explanation is looked for; a few hundred are usual
MAX_DETAIL = 200  # characters of a server's own words

_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")

# Behind a query's question: what we can take, and that we want to know what is authentic (RFC 6891 6.1.2, RFC 3225 3).
_OPT = b"\0" + _RECORD.pack(dns.rdatatype.OPT, PAYLOAD, dns.flags.DO, 0)
_POINTERS = 0xC000  # two octets from here on are a pointer, RFC 1035 4.1.4
_POINTER = _POINTERS | _HEADER.size  # to the name in the question

# What raises while octets are read.
_UNREADABLE = (ValueError, IndexError, struct.error)

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
                places = sorted(places, key=lambda place: self.message[place[0] : place[0] + 2])  # the preference
            places = places[:MAX_RECORDS]
        decode = _Decoder(self.message, record_type)
        decoded = [decode(*place) for place in places]
        records = tuple(record for record in decoded if record is not None)
        return records or FailedReply(LookupFailure.MALFORMED, f"no {record_type} record at {name} can be read")


class _Decoder:
    """Reads the records of one set: None for one that cannot be read, or has no use."""

    def __init__(self, message: bytes, record_type: RecordType) -> None:
        self._message = message
        self._type = record_type
        self._names = NameReader(message)
        self._strings_left = MAX_STRINGS

    def __call__(self, start: int, length: int) -> Record | None:
        octets = self._message[start : start + length]
        try:
            match self._type:
                case RecordType.A:
                    return IPv4Address(octets)
                case RecordType.AAAA:
                    return IPv6Address(octets)
                case RecordType.TLSA:
                    return _decode_tlsa(octets)
                case RecordType.TXT:
                    return self._text(octets)
                case RecordType.MX:
                    return _mail_exchange(int.from_bytes(octets[:2]), self._name(start + 2, start + length))
                case RecordType.CNAME | RecordType.PTR:
                    # `InvalidValue` for what is no host name.
                    return Domain.parse(self._name(start, start + length))
        except _UNREADABLE:
            return None

    def _name(self, start: int, end: int) -> str:
        name, behind = self._names.read(start)
        if behind != end:
            raise ValueError("a name that ends elsewhere than its record")
        return name

    def _text(self, octets: bytes) -> bytes:
        strings: list[bytes] = []
        place = 0
        while place < len(octets) or not strings:  # RFC 1035 3.3.14: one or more strings
            self._strings_left -= 1
            end = place + 1 + octets[place]
            if end > len(octets) or self._strings_left < 0:
                raise ValueError("strings that end outside the record, or too many")
            strings.append(octets[place + 1 : end])
            place = end
        return b"".join(strings)


def _decode_tlsa(octets: bytes) -> TLSARecord | MalformedTLSA:
    # Not by dnspython, which refuses a digest whose length does not fit its type. Such a record exists, and that
    # alone has a meaning (RFC 7672 2.2); whether it is usable is for DANE to say.
    if len(octets) <= 3:  # RFC 6698 2.1: three octets and then the association data
        return MalformedTLSA(octets.hex())
    return TLSARecord(octets[0], octets[1], octets[2], octets[3:])


def _mail_exchange(preference: int, name: str) -> MXRecord:
    try:
        return MXRecord(preference, Domain.parse(name), name)
    except InvalidValue:
        return MXRecord(preference, None, name)


def decode_reply(message: bytes, question: Question) -> ServerReply | FailedReply | None:
    """What the message says to the question; None if it does not answer it at all."""
    names = NameReader(message)
    try:
        message_id, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(message)
        if message_id != question.id or not flags & dns.flags.QR or dns.opcode.from_flags(flags):
            return None
        behind = _behind_question(message, names, questions, question)
    except _UNREADABLE:
        return None
    if behind is None:
        # A server that refuses to read the question need not repeat it (RFC 1035 4.1.1).
        return _refusal(flags & 15, "") if questions == 0 and flags & 15 else None
    if flags & dns.flags.TC:
        return ServerReply(message, truncated=True)
    if answers + authorities + additionals > MAX_SCANNED:
        return FailedReply(LookupFailure.MALFORMED, f"more than {MAX_SCANNED} records")
    scan = _Scan(message, names, behind, question)
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


def _behind_question(message: bytes, names: NameReader, questions: int, question: Question) -> int | None:
    """Where the answers begin; None if the message is about another question."""
    if questions != 1:
        return None
    section = question.section()
    if message.startswith(section, _HEADER.size):  # octet by octet, as nearly every server does
        return _HEADER.size + len(section)
    name, place = names.read(_HEADER.size)
    asked = (question.name.ascii, NUMBERS[question.record_type], dns.rdataclass.IN)
    return place + _QUESTION.size if (name, *_QUESTION.unpack_from(message, place)) == asked else None


def _refusal(rcode: int, explanation: str) -> FailedReply:
    failure = _FAILURES.get(rcode)
    if failure is not None:
        return FailedReply(failure, explanation)
    return FailedReply(LookupFailure.SERVFAIL, f"response code {rcode} {explanation}".rstrip())


class _Scan:
    """One pass over the records behind the question; notes where those are that somebody may look at."""

    def __init__(self, message: bytes, names: NameReader, place: int, question: Question) -> None:
        self._message = message
        self._names = names
        self._place = place
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
                    self.explanation = _explanation(self._message[start : start + length])

    def _next(self) -> tuple[str, int, int, int, int, int]:
        """The next record's owner, type, class, TTL, and the offset and length of its rdata, which is skipped."""
        message, place = self._message, self._place
        # Most owners are a pointer to the question: the same few names, thousands of times in a large answer.
        pointer = int.from_bytes(message[place : place + 2])
        owner = self._owners.get(pointer)
        if owner is not None:
            place += 2
        else:
            owner, place = self._names.read(place)
            if pointer >= _POINTERS:
                self._owners[pointer] = owner
        rdtype, rdclass, ttl, length = _RECORD.unpack_from(message, place)
        start = place + _RECORD.size
        self._place = start + length
        if self._place > len(message):
            raise ValueError("a record that ends behind the message")
        if ttl > 0x7FFFFFFF and rdtype != dns.rdatatype.OPT:
            ttl = 0  # RFC 2181 8
        return owner, rdtype, rdclass, ttl, start, length


def _explanation(options: bytes) -> str:
    """The server's own words on what went wrong, as `DNSSEC BOGUS (signature expired)` (RFC 8914); safe to show."""
    if len(options) > MAX_OPTIONS:
        return ""
    try:
        read = dns.rdata.from_wire(dns.rdataclass.ANY, dns.rdatatype.OPT, options, 0, len(options))
    except dns.exception.DNSException:
        return ""  # only an explanation is lost
    words = []
    for option in getattr(read, "options", ()):
        if isinstance(option, dns.edns.EDEOption):
            code = dns.edns.EDECode.to_text(option.code).replace("_", " ")
            words.append(f"{code} ({option.text})" if option.text else code)
    return "".join(c if c.isprintable() else "?" for c in ", ".join(words)[:MAX_DETAIL])
