"""From when until when the signatures of a name hold (RRSIG, RFC 4034 3.1.5), whatever a resolver thinks of them.

It is asked with CD (RFC 4035 3.2.2): a resolver whose clock is wrong takes every signature for wrong, and would say no
more than SERVFAIL. Nothing here is validated, and nothing but a hint for people is made of it.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import dns.exception
import dns.flags
import dns.message
import dns.rdatatype

from mailrider.clock import after
from mailrider.dns.transport import NotAnAnswer, Transport

if TYPE_CHECKING:
    from mailrider.clock import Clock
    from mailrider.dns.servers import ServerAddress, ServerChoice
    from mailrider.model.domain import Domain

PATIENCE: Final = 5.0  # seconds for one question
_QUESTIONS: Final = (dns.rdatatype.SOA, dns.rdatatype.RRSIG)
_PAYLOAD: Final = 1232
_UNREADABLE: Final = (dns.exception.DNSException, ValueError, IndexError, struct.error)


@dataclass(frozen=True, slots=True)
class SignatureTime:
    """When one signature begins to hold, and when it ends."""

    inception: datetime
    expiration: datetime


async def lookup_signature_times(
    name: Domain, choice: ServerChoice, clock: Clock, transport: Transport | None = None
) -> list[SignatureTime]:
    """The times that the first server with any gives; empty if none does."""
    carrier = transport or Transport()
    for server in choice.asked:
        for kind in _QUESTIONS:
            times = await _ask(name, kind, server, clock, carrier)
            if times:
                return times
    return []


async def _ask(
    name: Domain, kind: dns.rdatatype.RdataType, server: ServerAddress, clock: Clock, transport: Transport
) -> list[SignatureTime]:
    query = dns.message.make_query(f"{name.ascii}.", kind, want_dnssec=True, payload=_PAYLOAD)
    query.flags |= dns.flags.CD

    def accept(octets: bytes) -> list[SignatureTime] | None:
        return _read(octets, query)

    with suppress(TimeoutError, OSError, NotAnAnswer):
        async with after(clock, PATIENCE):
            return await transport.ask_udp(server, query.to_wire(), accept)
    return []


def _read(octets: bytes, query: dns.message.Message) -> list[SignatureTime] | None:
    """The times in a reply; None for what does not answer the question."""
    try:
        reply = dns.message.from_wire(octets, ignore_trailing=True)
        if not query.is_response(reply):
            return None
        found = [each for rrset in reply.answer if rrset.rdtype == dns.rdatatype.RRSIG for each in rrset]
        return [SignatureTime(_time(each.inception), _time(each.expiration)) for each in found]
    except _UNREADABLE:
        return None


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
