"""The two security scales, what a connection must prove, and what it proved.

Every connection is ranked on two ordered scales: `MXLevel` (is this the right host?) and `TLSLevel` (is the channel
safe?). The pair is only partially ordered, so `Security` has `satisfies` and no `<`.

Policies state a `Requirement` before the connection is made; requirements fold with `strictest`. The connection then
carries `PeerEvidence`, which holds only what the peer proved; `policy.judge` compares the two.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from mailrider.errors import InvalidValue, LocalError
from mailrider.model.value import value

if TYPE_CHECKING:
    from mailrider.model.domain import Domain, NextHop
    from mailrider.model.tls_problem import TLSProblem

_T = TypeVar("_T")


class _Level(enum.IntEnum):
    """An ordered scale whose members are shown by their lower-case names."""

    word: str
    """The name as it stands in configuration and reports."""

    def __init__(self, _: int) -> None:
        self.word = self._name_.lower()

    def __str__(self) -> str:
        return self.word


class MXLevel(_Level):
    """How sure we are that this host serves the recipient's domain."""

    NONE = 0
    MTASTS = 1
    DNSSEC = 2


class TLSLevel(_Level):
    """How safe the channel to the host is."""

    NONE = 0
    ENCRYPTED = 1
    AUTHENTICATED = 2


class Mechanism(enum.StrEnum):
    """What authenticated a certificate."""

    PKIX = "pkix"
    DANE = "dane"


@value
class Security:
    """The levels that a connection has for one next hop, and how TLS reached its own."""

    mx_level: MXLevel = MXLevel.NONE
    tls_level: TLSLevel = TLSLevel.NONE
    authenticated_by: Mechanism | None = None
    tls_version: str | None = None
    cipher: str | None = None

    def satisfies(self, minimum: Requirement) -> bool:
        """True if both levels reach what is required."""
        return self.mx_level >= minimum.min_mx and self.tls_level >= minimum.min_tls


NO_SECURITY = Security()


@dataclass(frozen=True, slots=True, order=True)
class TLSARecord:
    """One TLSA record as it stands in DNS, usable or not (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching_type: int
    data: bytes

    def __post_init__(self) -> None:
        if not all(0 <= field <= 255 for field in (self.usage, self.selector, self.matching_type)):
            raise InvalidValue(f"TLSA fields are octets: {self}")

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching_type} {self.data.hex()}"


@dataclass(frozen=True, slots=True)
class DANETrust:
    """What DANE demands of the certificate: a match with one of `records`.

    `records` are the usable ones, never empty. `names` are the reference identifiers for DANE-TA
    (RFC 7672 3.2.2). `base_domain` is where the records stand, and the SNI (RFC 7672 8.1).
    """

    records: tuple[TLSARecord, ...]
    base_domain: Domain
    names: tuple[Domain, ...]


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a connection must be before a message may use it.

    `mx_reason` and `tls_reason` say who demands the minimum, for people. `dane`, if present, decides the certificate
    alone. `sni` None means the MX host. `wanted_tls` is what a policy in testing mode would demand: falling short of it
    is reported, and refuses nothing. `problem`: what is wrong with a policy, so that it demands less than it means to.
    """

    min_mx: MXLevel = MXLevel.NONE
    min_tls: TLSLevel = TLSLevel.NONE
    dane: DANETrust | None = None
    sni: Domain | None = None
    mx_reason: str = ""
    tls_reason: str = ""
    wanted_tls: TLSLevel = TLSLevel.NONE
    problem: TLSProblem | None = None

    @property
    def demands_tls(self) -> bool:
        """True if a connection in clear can never do."""
        return self.min_tls > TLSLevel.NONE or self.dane is not None


NO_REQUIREMENT = Requirement()


def strictest(one: Requirement, other: Requirement) -> Requirement:
    """Both requirements at once: each minimum is the higher one and keeps its reason.

    Commutative and associative in what it demands; with equal minima the first reason stays. Raises `LocalError` for
    two DANE demands or SNIs that differ: one certificate cannot be judged by both, and neither may be forgotten.
    """
    if one is NO_REQUIREMENT:
        return other
    if other is NO_REQUIREMENT:
        return one
    mx = one if one.min_mx >= other.min_mx else other
    tls = one if one.min_tls >= other.min_tls else other
    return Requirement(
        min_mx=mx.min_mx,
        min_tls=tls.min_tls,
        dane=_only(one.dane, other.dane),
        sni=_only(one.sni, other.sni),
        mx_reason=mx.mx_reason,
        tls_reason=tls.tls_reason,
        wanted_tls=max(one.wanted_tls, other.wanted_tls),
        problem=one.problem or other.problem,
    )


def _only(one: _T | None, other: _T | None) -> _T | None:
    if one is not None and other is not None and one != other:
        raise LocalError(f"two policies contradict each other: {one} and {other}")
    return other if one is None else one


@dataclass(frozen=True)
class TLSEvidence:
    """What the peer proved in the TLS handshake.

    `version` as `TLSv1.3`; `chain` as sent, DER, leaf first; `sni` is the name that we asked for.
    """

    version: str
    cipher: str
    chain: tuple[bytes, ...]
    sni: str | None = None

    @cached_property
    def chain_digest(self) -> bytes:
        """SHA-256 over the chain, with lengths: the key of cached verdicts."""
        digest = hashlib.sha256()
        for certificate in self.chain:
            digest.update(len(certificate).to_bytes(4))
            digest.update(certificate)
        return digest.digest()


@dataclass(frozen=True, slots=True)
class PeerEvidence:
    """What one connection proved about its peer; nothing here comes from DNS or policy.

    `tls` is None for a connection in clear; then `clear_because` says why (not offered, refused, handshake failed), and
    `clear_for_now` whether the server called it temporary (454, RFC 3207 4). `starttls_refused`: it offered STARTTLS,
    and did not want it. `lenient`: nothing demanded TLS, so secure renegotiation (RFC 5746) was not insisted on.
    """

    host: NextHop
    address: str
    port: int
    tls: TLSEvidence | None = None
    clear_because: TLSProblem | None = None
    clear_for_now: bool = False
    starttls_refused: bool = False
    lenient: bool = False

    @property
    def clear_reason(self) -> str:
        """Why there is no TLS, for people; empty if there is."""
        return "" if self.clear_because is None else self.clear_because.text


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a certificate chain proves what it should, and why (not), for people.

    `problems`: all that is wrong; empty if the chain is good.
    """

    ok: bool
    mechanism: Mechanism
    reason: str
    problems: tuple[TLSProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A policy's no to a candidate or connection. `policy` is its name in the configuration, or `requiretls`.

    `for_now`: it rests on something that failed and may work next time, not on what the peer or DNS said. `problems`
    are what it rests on.
    """

    policy: str
    code: int
    enhanced: str
    reason: str
    for_now: bool = False
    problems: tuple[TLSProblem, ...] = ()
