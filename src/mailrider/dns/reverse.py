"""The name at which the PTR records of an address stand (RFC 1035 3.5, RFC 3596 2.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.model.domain import Domain

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address


def reverse_name(address: IPv4Address | IPv6Address) -> Domain:
    """`1.2.0.192.in-addr.arpa` for 192.0.2.1."""
    return Domain(address.reverse_pointer)
