"""Which TLSA records count (RFC 6698 2.1 and 4.1, RFC 7671 9, RFC 7672 3.1).

A record is *usable* if we understand it and its data can be what it says. The difference matters: records that are
usable and match nothing refuse the host, while records of which none is usable demand TLS and nothing more (RFC 7672
2.2). So everything that makes a record unusable is decided here, from the record alone, before any certificate is
seen; a server can never talk its way out of a record.

Data of matching type 0 must decode as the certificate or key that it claims to be; otherwise it is malformed, and RFC
6698 4.1 calls a record with malformed data unusable. (OpenSSL, and with it Postfix, reads it the same way.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mailrider.errors import InvalidValue
from mailrider.model.security import TLSARecord
from mailrider.x509.certificate import parse_certificate
from mailrider.x509.keys import PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterable

# Certificate usages
DANE_TA = 2  # a trust anchor: a CA above the server's certificate
DANE_EE = 3  # the server's own certificate or key
# Selectors
CERT = 0
SPKI = 1
# Matching types
FULL = 0
SHA256 = 1
SHA512 = 2

MAX_RECORDS = 32  # usable records that are compared; real hosts have 1 to 4, twice that while keys are changed
_MAX_SHOWN = 16  # hexadecimal digits of the data that people are shown
_DIGEST_OCTETS = {SHA256: 32, SHA512: 64}
_PKIX_USAGES = {0: "PKIX-TA", 1: "PKIX-EE"}


class Undecodable(Protocol):
    """A TLSA record that the resolver could not decode (`dns.answer.MalformedTLSA`)."""

    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class IgnoredRecord:
    """A record that does not count, as text, and why, for people."""

    record: str
    reason: str


@dataclass(frozen=True, slots=True)
class UsableSet:
    """The records of one RRset, sorted out.

    `usable` are the ones to match, DANE-EE first, and never more than 32. `unusable` are not understood or malformed.
    `superseded` are usable, but a stronger digest (or the limit) stands before them.
    """

    usable: tuple[TLSARecord, ...]
    unusable: tuple[IgnoredRecord, ...] = ()
    superseded: tuple[IgnoredRecord, ...] = ()


def select_usable(records: Iterable[TLSARecord | Undecodable]) -> UsableSet:
    """Sort out an RRset. The order of the records makes no difference; DNS does not keep it."""
    good: list[TLSARecord] = []
    unusable: list[IgnoredRecord] = []
    for record in records:
        if not isinstance(record, TLSARecord):
            unusable.append(IgnoredRecord(record.text, "it cannot be decoded"))
        elif reason := why_unusable(record):
            unusable.append(IgnoredRecord(show(record), reason))
        else:
            good.append(record)
    good = sorted(set(good), key=_preference)
    strongest = _strongest_digests(good)
    usable = [r for r in good if r.matching_type in (FULL, strongest.get((r.usage, r.selector)))]
    weaker = [
        IgnoredRecord(show(r), "a stronger digest stands beside it (RFC 7671 9)") for r in good if r not in usable
    ]
    surplus = [IgnoredRecord(show(r), f"more than {MAX_RECORDS} usable records") for r in usable[MAX_RECORDS:]]
    return UsableSet(tuple(usable[:MAX_RECORDS]), tuple(sorted(unusable, key=str)), (*weaker, *surplus))


def why_unusable(record: TLSARecord) -> str | None:
    """Why a record cannot be used, in a postmaster's words; None if it can."""
    if name := _PKIX_USAGES.get(record.usage):
        return f"usage {record.usage}, {name}, is not for mail (RFC 7672 3.1.3)"
    if record.usage not in (DANE_TA, DANE_EE):
        return f"usage {record.usage} is unknown"
    if record.selector not in (CERT, SPKI):
        return f"selector {record.selector} is unknown"
    if record.matching_type == FULL:
        return _why_malformed(record)
    octets = _DIGEST_OCTETS.get(record.matching_type)
    if octets is None:
        return f"matching type {record.matching_type} is unknown"
    if len(record.data) != octets:
        return f"a digest of matching type {record.matching_type} has {octets} octets, this one {len(record.data)}"
    return None


def _why_malformed(record: TLSARecord) -> str | None:
    try:
        if record.selector == CERT:
            parse_certificate(record.data)
        else:
            PublicKey.parse(record.data)
    except InvalidValue as error:
        return f"its data is not a {'certificate' if record.selector == CERT else 'public key'}: {error}"
    return None


def _preference(record: TLSARecord) -> tuple[int, int, int, bytes]:
    """DANE-EE first, since it needs no chain."""
    return -record.usage, record.selector, -record.matching_type, record.data


def _strongest_digests(records: Iterable[TLSARecord]) -> dict[tuple[int, int], int]:
    """The strongest digest type of each usage and selector. RFC 7671 9: by itself, not by what is published beside."""
    strongest: dict[tuple[int, int], int] = {}
    for record in records:
        if record.matching_type != FULL:
            key = record.usage, record.selector
            strongest[key] = max(record.matching_type, strongest.get(key, FULL))
    return strongest


def show(record: TLSARecord) -> str:
    """A record as people are shown it: `3 1 1 6f1c0a9e5d3b7a24...`."""
    digits = record.data.hex()
    cut = f"{digits[:_MAX_SHOWN]}..." if len(digits) > _MAX_SHOWN else digits
    return f"{record.usage} {record.selector} {record.matching_type} {cut}"
