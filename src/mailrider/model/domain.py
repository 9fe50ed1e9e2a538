"""Domain names and address literals, the right-hand sides of mail addresses (RFC 5321 4.1.2, 4.1.3; RFC 5890).

A `Domain` is compared by its A-label form (lower case, no trailing dot) and shown by its U-label form. An
`AddressLiteral` is an IP address in brackets. Unparsed strings are never compared anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

import idna

from mailrider.errors import InvalidValue

MAX_DOMAIN = 253  # octets, without the trailing dot: RFC 1035 2.3.4 less length octets
# Characters of a domain before UTS 46 mapping, which may shorten it: what is longer is not looked at.
MAX_DOMAIN_TEXT = 4 * MAX_DOMAIN

# Letters, digits, hyphens (RFC 5321 Let-dig / Ldh-str), and the underscore that real MX host names use.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


@dataclass(frozen=True, slots=True, order=True)
class Domain:
    """A fully qualified domain name; `ascii` is its A-label form, lower case, without a trailing dot."""

    ascii: str

    def __post_init__(self) -> None:
        labels = self.ascii.split(".")
        if len(self.ascii) > MAX_DOMAIN or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
            raise InvalidValue(f"not a domain name: {self.ascii[:300]!r}")

    @classmethod
    def parse(cls, text: str) -> Domain:
        """A domain in U-label or A-label form, of any case, with or without a trailing dot.

        Raises `InvalidValue` for anything that is not a host-like name; IDNs are mapped per UTS 46 first.
        """
        return _parse_domain(text)

    @property
    def unicode(self) -> str:
        """The U-label form, for people; the A-label form where a label does not decode."""
        return _to_unicode(self.ascii) if "xn--" in self.ascii else self.ascii

    @property
    def parent(self) -> Domain | None:
        """The domain one label up; None above a top-level domain."""
        _, dot, rest = self.ascii.partition(".")
        return Domain(rest) if dot else None

    def __str__(self) -> str:
        return self.ascii


@lru_cache(maxsize=16384)
def _parse_domain(text: str) -> Domain:
    if len(text) > MAX_DOMAIN_TEXT:
        raise InvalidValue(f"not a domain name: {text[:300]!r}...")
    name = text[:-1] if text.endswith(".") else text
    if name.isascii():
        return Domain(name.lower())
    try:
        return Domain(idna.encode(name, uts46=True).decode("ascii").lower())
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidValue(f"not an internationalized domain name: {text[:300]!r} ({error})") from error


@lru_cache(maxsize=1024)
def _to_unicode(ascii_name: str) -> str:
    try:
        return idna.decode(ascii_name)
    except (idna.IDNAError, UnicodeError):
        return ascii_name


@dataclass(frozen=True, slots=True)
class AddressLiteral:
    """An IP address used as a domain: `[192.0.2.1]`, `[IPv6:2001:db8::1]` (RFC 5321 4.1.3)."""

    ip: IPv4Address | IPv6Address

    def __post_init__(self) -> None:
        if self.ip.version == 6 and self.ip.scope_id is not None:
            raise InvalidValue(f"an address literal has no zone: {str(self.ip)[:100]!r}")

    @classmethod
    def parse(cls, text: str) -> AddressLiteral:
        """The literal with its brackets; `InvalidValue` for other tags than `IPv6:` and for malformed addresses."""
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else ""
        tagged = inner[:5].lower() == "ipv6:"
        try:
            ip = ip_address(inner[5:] if tagged else inner)
        except ValueError as error:
            raise InvalidValue(f"not an address literal: {text[:100]!r}") from error
        if (ip.version == 6) is not tagged:
            raise InvalidValue(f"not an address literal: {text[:100]!r} (IPv6 needs the tag IPv6:, IPv4 none)")
        return cls(ip)

    @property
    def ascii(self) -> str:
        """The form that goes on the wire; same name as in `Domain`, so that either can stand in an address."""
        return str(self)

    @property
    def unicode(self) -> str:
        """The same as `ascii`: a literal has no other form."""
        return str(self)

    def __str__(self) -> str:
        return f"[IPv6:{self.ip}]" if self.ip.version == 6 else f"[{self.ip}]"


# What recipients are routed to.
NextHop = Domain | AddressLiteral


def parse_next_hop(text: str) -> NextHop:
    """A domain, or an address literal in brackets. Raises `InvalidValue`."""
    return AddressLiteral.parse(text) if text.startswith("[") else Domain.parse(text)


def owner_of(name: Domain | str) -> str:
    """Whose domain it is: two labels, or three where two letters at the end follow a short label (`example.co.uk`).

    A guess without a list of public suffixes: where it puts strangers together, they share what one owner gets.
    """
    labels = str(name).split(".")
    is_short = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    return ".".join(labels[-3 if is_short else -2 :])


def reverse_name(address: IPv4Address | IPv6Address) -> Domain:
    """`1.2.0.192.in-addr.arpa` for 192.0.2.1: where its PTR records stand (RFC 1035 3.5, RFC 3596 2.5)."""
    return Domain(address.reverse_pointer)
