"""Answers to DNS questions; provenance travels with the data.

A lookup gives an `Answer` (records, or the fact that there are none) or raises `LookupFailed`: we do not know. The two
must never be mixed up: absence is a fact that policies may rest on, failure is not.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, TypeVar

from mailrider.errors import NetworkError
from mailrider.model.domain import Domain
from mailrider.model.security import TLSARecord

MAX_CNAMES = 16  # links of a CNAME chain that we follow; longer ones are mistakes or attacks


class RecordType(enum.StrEnum):
    """The record types that delivery asks for, and PTR, for which `check` and SPF ask."""

    A = "A"
    AAAA = "AAAA"
    MX = "MX"
    CNAME = "CNAME"
    TLSA = "TLSA"
    TXT = "TXT"
    PTR = "PTR"


@dataclass(frozen=True, slots=True, order=True)
class MXRecord:
    """An MX record. `host` is None for `.` (null MX, RFC 7505) and for a target that is no host name.

    `text` is the target as it stood, for reports; exactly `.` for a null MX.
    """

    preference: int
    host: Domain | None
    text: str = ""

    @property
    def is_null(self) -> bool:
        """True for the target `.`."""
        return self.text == "."


@dataclass(frozen=True, slots=True)
class MalformedTLSA:
    """A TLSA record that could not be decoded: unusable, but it exists (RFC 7671 5.1)."""

    text: str


Record = IPv4Address | IPv6Address | MXRecord | Domain | TLSARecord | MalformedTLSA | bytes
RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, slots=True)
class Answer(Generic[RecordT]):
    """What DNS says at a name, CNAMEs followed.

    `records` is empty for NODATA and for NXDOMAIN (`exists` False). `authentic`: the whole answer, denial and CNAMEs
    included, was validated by a resolver that we trust. `canonical` is the last name of the CNAME chain, `chain` the
    names in between, first to last. `expires` is a `Clock.monotonic` reading. TXT records are `bytes`, their strings
    joined.
    """

    name: Domain
    records: tuple[RecordT, ...]
    authentic: bool
    expires: float
    exists: bool = True
    canonical: Domain | None = None
    chain: tuple[Domain, ...] = ()


class LookupFailure(enum.StrEnum):
    """Why a lookup told us nothing."""

    SERVFAIL = "SERVFAIL"
    REFUSED = "REFUSED"
    NOTIMP = "NOTIMP"
    FORMERR = "FORMERR"
    TIMEOUT = "time-out"
    NO_RESOLVER = "no resolver answers"
    CNAME_LOOP = "CNAME loop"
    CNAME_CHAIN = "CNAME chain too long"
    MALFORMED = "malformed answer"
    BOGUS = "DNSSEC bogus"


class LookupFailed(NetworkError):
    """DNS could not be asked, or its answer could not be believed; always temporary."""

    enhanced = "4.4.3"
    public = "Temporary failure in name resolution"

    def __init__(self, name: Domain, record_type: RecordType, failure: LookupFailure, detail: str = "") -> None:
        super().__init__(f"{record_type} lookup of {name} failed: {failure}{f' ({detail})' if detail else ''}")
        self.name = name
        self.record_type = record_type
        self.failure = failure
        self.detail = detail
