"""The resolver port: how the engine asks DNS, whoever answers.

`dns.caching` implements it over the network; tests implement it with a dict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mailrider.dns.answer import Answer, MalformedTLSA, MXRecord, RecordType

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address
    from typing import Self

    from mailrider.model.domain import Domain
    from mailrider.model.security import TLSARecord


class Resolver(Protocol):
    """Asks DNS; every name is absolute. Raises `LookupFailed`, and nothing else, when it cannot tell."""

    @property
    def validates(self) -> bool:
        """True if answers can be authentic at all: the word of every server that is asked counts."""

    @property
    def changes(self) -> int:
        """How often all answers were taken back, since others are asked now: nothing rests on earlier ones any more."""

    @property
    def dnssec_off(self) -> str:
        """Why DNSSEC and DANE are off, for people; empty if they are on."""

    @property
    def validated_by(self) -> str:
        """Who validates, for people; empty if DNSSEC and DANE are off."""

    async def lookup(self, name: Domain, record_type: RecordType, *, fresh: bool = False) -> Answer[Any]:
        """The records of that type at `name`, CNAMEs followed (at most 16), or their absence.

        `fresh`: what is in the cache is not good enough, though it is fresh by its TTL.
        """

    def cached(self, name: Domain, record_type: RecordType) -> Answer[Any] | None:
        """The answer, if it is in the cache and fresh: lets the hot path go on without waiting."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


async def lookup_mx(resolver: Resolver, name: Domain) -> Answer[MXRecord]:
    """The MX records at `name`."""
    return resolver.cached(name, RecordType.MX) or await resolver.lookup(name, RecordType.MX)


async def lookup_a(resolver: Resolver, name: Domain) -> Answer[IPv4Address]:
    """The IPv4 addresses of `name`."""
    return resolver.cached(name, RecordType.A) or await resolver.lookup(name, RecordType.A)


async def lookup_aaaa(resolver: Resolver, name: Domain) -> Answer[IPv6Address]:
    """The IPv6 addresses of `name`."""
    return resolver.cached(name, RecordType.AAAA) or await resolver.lookup(name, RecordType.AAAA)


async def lookup_cname(resolver: Resolver, name: Domain) -> Answer[Domain]:
    """The CNAME that stands at `name` itself, not followed: tells whether that link is authentic."""
    return resolver.cached(name, RecordType.CNAME) or await resolver.lookup(name, RecordType.CNAME)


async def lookup_tlsa(resolver: Resolver, name: Domain) -> Answer[TLSARecord | MalformedTLSA]:
    """The TLSA records at `name`; those that cannot be decoded are there as `MalformedTLSA`."""
    return resolver.cached(name, RecordType.TLSA) or await resolver.lookup(name, RecordType.TLSA)


async def lookup_txt(resolver: Resolver, name: Domain) -> Answer[bytes]:
    """The TXT records at `name`, the strings of each joined."""
    return resolver.cached(name, RecordType.TXT) or await resolver.lookup(name, RecordType.TXT)
