"""Which IPv4 address stands in an IPv6 address, and which addresses are one client.

Whoever forbids an IPv4 network means every way of writing its addresses: an AAAA record can name 127.0.0.1 in several,
and what stands at the other end decides where the packets go.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network

_LOW_32_BITS = (
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped: RFC 4291 2.5.5.2
    IPv6Network("::/96"),  # IPv4-compatible: RFC 4291 2.5.5.1
    IPv6Network("64:ff9b::/96"),  # NAT64: RFC 6052 2.1
)
_NOT_COMPATIBLE = frozenset((IPv6Address("::"), IPv6Address("::1")))


def embedded_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address in an IPv4-mapped, IPv4-compatible, NAT64 or 6to4 address (RFC 3056 2)."""
    if isinstance(address, IPv4Address) or address in _NOT_COMPATIBLE:
        return None
    if any(address in network for network in _LOW_32_BITS):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour


def is_within(address: IPv4Address | IPv6Address, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """True if the address, or the IPv4 address in it, belongs to one of the networks."""
    inner = embedded_ipv4(address)
    forms = (address,) if inner is None else (address, inner)
    return any(form in network for network in networks for form in forms)


def unmapped(text: str) -> str:
    """An address as the kernel tells it, but one of IPv4 on a dual-stack socket (`::ffff:192.0.2.1`) as IPv4."""
    return text[7:] if text[:7].lower() == "::ffff:" and "." in text else text


@lru_cache(maxsize=4096)
def client_key(text: str) -> str:
    """Whom an IP address stands for where clients are counted: an IPv4 address for itself, an IPv6 one for its /64.

    A /64 is the least that a provider gives to a customer (RFC 6177): whoever has one has all of its addresses. What is
    no address, such as the name of a user on a unix socket, stands for itself.
    """
    try:
        address = ip_address(unmapped(text).partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, IPv4Address) or address.is_loopback:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
