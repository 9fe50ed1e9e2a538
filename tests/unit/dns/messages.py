"""DNS messages for the tests, made by dnspython from what stands in a zone file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from mailrider.dns.answer import RecordType
from mailrider.dns.wire import FailedReply, Question, ServerReply, decode_reply
from mailrider.model.domain import Domain

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[str, str, str | bytes]  # owner, type, data (bytes: as they are on the wire)

SOA = ". . 1 3600 600 86400 60"


def ask(name: str, record_type: str, question_id: int = 4711) -> Question:
    return Question(Domain(name), RecordType(record_type), question_id)


def message(
    question: Question,
    answer: Sequence[Row] = (),
    *,
    soa: str | None = None,
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    flags: str = "QR RD RA",
    ttl: int = 300,
) -> bytes:
    """A reply to the question; `soa` is the owner of the SOA in the authority section (MINIMUM 60, its TTL `ttl`)."""
    reply = dns.message.make_response(dns.message.from_wire(question.encode()))
    reply.flags = dns.flags.from_text(flags)
    reply.set_rcode(rcode)
    reply.answer = [_rrset(owner, rdtype, data, ttl) for owner, rdtype, data in answer]
    if soa is not None:
        reply.authority = [_rrset(soa, "SOA", SOA, ttl)]
    wire = reply.to_wire(max_size=65535)
    assert wire is not None
    return wire


def reply(question: Question, answer: Sequence[Row] = (), **more: object) -> ServerReply:
    """The same, read back; for tests of what is made of it."""
    decoded = decode_reply(message(question, answer, **more), question)  # type: ignore[arg-type]
    assert isinstance(decoded, ServerReply), decoded
    return decoded


def failure(decoded: ServerReply | FailedReply | None) -> FailedReply:
    assert isinstance(decoded, FailedReply), decoded
    return decoded


def _rrset(owner: str, rdtype: str, data: str | bytes, ttl: int) -> dns.rrset.RRset:
    name = dns.name.from_text(owner)
    if isinstance(data, str):
        return dns.rrset.from_text(name, ttl, "IN", rdtype, data)
    rdata = dns.rdata.GenericRdata(dns.rdataclass.IN, dns.rdatatype.from_text(rdtype), data)
    return dns.rrset.from_rdata(name, ttl, rdata)
