"""The names of the lab and what is wrong with them: plain tables, and pure lookups in them.

    zones: ZoneTable = {
        "plain.test": {"MX": ["10 mx1.plain.test", "20 mx2.plain.test"]},
        "mx1.plain.test": {"A": "127.0.2.1", "AAAA": Fault.SERVFAIL},
        "signed.test": signed({"MX": "10 mx.signed.test"}),
        "mx.signed.test": signed({"A": "127.0.2.2", "TLSA": ["3 1 1 " + "ab" * 32, Raw(b"\\x03\\x01")]}),
        "www.signed.test": signed({"CNAME": "signed.test"}),
        "dead.test": Fault.SILENT,
        "slow.test": {"MX": Records(["10 mx1.plain.test"], ttl=0, delay=3)},
    }

A name maps to its records by type, or to a `Fault` that it has for all types. Names are lower case without a
trailing dot; data is absolute, as in a zone file, or one of our values; the text of a TXT record stands
unquoted. There are no zone cuts: each name is its own zone, so signed and unsigned ones mix along a CNAME
chain as a test needs it. The answer is authenticated if every link of it is signed. A name that is not there
is denied by the nearest name above it that is: the denial is as signed as that one, and shares the fault that it
has for all types. A name with others below it exists (RFC 8020). Tables may be changed while a server works with them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from mailrider.dns.answer import MXRecord
from mailrider.model.domain import Domain
from mailrider.model.security import TLSARecord

TTL = 300  # seconds, where nothing else is said
MAX_LINKS = 24  # of a chain that is handed out in one answer: more than any client should follow


class Fault(enum.Enum):
    """What a server does wrong instead of answering."""

    SERVFAIL = "SERVFAIL"
    REFUSED = "REFUSED"
    NOTIMP = "NOTIMP"
    FORMERR = "FORMERR"
    BOGUS = "SERVFAIL, because a signature is wrong"
    SILENT = "no answer"
    TRUNCATED = "truncated over UDP, whole over TCP"
    TCP_CLOSED = "truncated over UDP, closed over TCP"
    TCP_TRUNCATED = "truncated over UDP and TCP"
    WRONG_ID = "an answer with the wrong id"
    WRONG_QUESTION = "an answer to another question"
    FORGED_FIRST = "forged answers before the true one"
    GARBAGE = "octets that are no DNS message"
    DAMAGED = "an answer that breaks off in the middle"
    REFERRAL = "neither records nor recursion"


@dataclass(frozen=True, slots=True)
class RawRecord:
    """Record data as octets, however wrong they are."""

    octets: bytes


Data = str | bytes | IPv4Address | IPv6Address | MXRecord | Domain | TLSARecord | RawRecord


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one name and type, and how the server answers for them.

    `signed` None: as the name is. `ttl` and `delay` in seconds. `alone`: a CNAME that is answered without what is
    behind it, as by a server that does not have the target's zone.
    """

    data: Sequence[Data] = ()
    signed: bool | None = None
    fault: Fault | None = None
    ttl: int = TTL
    delay: float = 0.0
    alone: bool = False


RecordsLike = Records | Fault | Data | Sequence[Data]


@dataclass(frozen=True, slots=True)
class Name:
    """What stands at one name, by type."""

    records: Mapping[str, RecordsLike]
    signed: bool = False
    fault: Fault | None = None  # for every type


NameLike = Name | Fault | Mapping[str, RecordsLike]
ZoneTable = dict[str, NameLike]


def signed(records: Mapping[str, RecordsLike] | None = None) -> Name:
    """A name in a signed zone."""
    return Name(records or {}, signed=True)


@dataclass(frozen=True, slots=True)
class ChainLink:
    """The records that one name contributes to an answer; `type` is the asked one or CNAME."""

    owner: str
    type: str
    records: Records


@dataclass(frozen=True, slots=True)
class TableAnswer:
    """What a table says to a question.

    `denied_by` is the owner of the SOA if there are no records at the end of the chain; `exists` is then False for
    NXDOMAIN. `fault` and `delay` are those of all the links together.
    """

    links: tuple[ChainLink, ...]
    authentic: bool
    exists: bool = True
    denied_by: str | None = None
    fault: Fault | None = None
    delay: float = 0.0


def find(table: ZoneTable, name: str, rdtype: str) -> TableAnswer:
    """The answer to a question, CNAMEs followed; endless chains break off after `MAX_LINKS`."""
    links: list[ChainLink] = []
    authentic = True
    owner = name.lower()
    while True:
        node = _node(table, owner)
        if node is None:
            is_above = any(name.endswith(f".{owner}") for name in table)
            return _absent(table, owner, links, authentic=authentic, exists=is_above)
        records = _records(node, rdtype)
        link_type = rdtype
        if records is None and rdtype != "CNAME":
            records, link_type = _records(node, "CNAME"), "CNAME"
        if records is None:
            return _absent(table, owner, links, authentic=authentic, exists=True)
        links.append(ChainLink(owner, link_type, records))
        authentic = authentic and (node.signed if records.signed is None else records.signed)
        if not records.data and not records.fault:
            return _found(links, authentic, denied_by=owner)
        if link_type == rdtype or records.fault or records.alone or len(links) >= MAX_LINKS:
            return _found(links, authentic)
        owner = str(records.data[0]).lower().removesuffix(".")


def _found(
    links: Sequence[ChainLink], authentic: bool, *, exists: bool = True, denied_by: str | None = None
) -> TableAnswer:
    return TableAnswer(
        links=tuple(links),
        authentic=authentic,
        exists=exists,
        denied_by=denied_by,
        fault=next((link.records.fault for link in links if link.records.fault), None),
        delay=sum(link.records.delay for link in links),
    )


def _absent(table: ZoneTable, owner: str, links: list[ChainLink], *, authentic: bool, exists: bool) -> TableAnswer:
    above = owner
    while above and above not in table:
        above = above.partition(".")[2]
    node = _node(table, above) or Name({})
    if node.fault:
        links = [*links, ChainLink(owner, "SOA", Records(fault=node.fault))]
    return _found(links, authentic and node.signed, exists=exists, denied_by=above)


def _node(table: ZoneTable, owner: str) -> Name | None:
    node = table.get(owner)
    if node is None or isinstance(node, Name):
        return node
    if isinstance(node, Fault):
        return Name({}, fault=node)
    return Name(node)


def _records(node: Name, rdtype: str) -> Records | None:
    if node.fault is not None:
        return Records(fault=node.fault)
    records = node.records.get(rdtype)
    if records is None or isinstance(records, Records):
        return records
    if isinstance(records, Fault):
        return Records(fault=records)
    if isinstance(records, Sequence) and not isinstance(records, str | bytes):
        return Records(records)
    return Records([records])
