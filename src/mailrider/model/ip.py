"""Which IPv4 addresses stand in an IPv6 address, and which addresses are one client.

Whoever forbids an IPv4 network means every way of writing its addresses: an AAAA record can name 127.0.0.1 in several,
and what stands at the other end decides where the packets go.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """These networks, for a table."""
    return tuple(map(ip_network, texts))


# Networks whose addresses hold an IPv4 address, and how many bits follow it. A table of our own, since what
# `ipaddress` knows differs from Python to Python.
_HOLDING = (
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped: RFC 4291 2.5.5.2
    (IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated: RFC 2765 2.1
    (IPv6Network("::/96"), 0),  # IPv4-compatible: RFC 4291 2.5.5.1
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64: RFC 6052 2.1
    (IPv6Network("2002::/16"), 80),  # 6to4: RFC 3056 2
)
_TEREDO = IPv6Network("2001::/32")  # RFC 4380 4: the server's address, and the client's with all its bits turned
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")  # RFC 8215: a site's own, with prefixes of any length (RFC 6052 2.2)
_NOT_COMPATIBLE = frozenset((IPv6Address("::"), IPv6Address("::1")))
# What the registries of special addresses (RFC 6890) do not call globally reachable.
_NOT_GLOBAL = networks(
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
_UNICAST = IPv6Network("2000::/3")  # RFC 4291 2.4: all that was ever given out
_NOT_GLOBAL_6 = networks("2001::/23", "2001:db8::/32", "3fff::/20")
_THIS_NETWORK = 1 << 24  # 0.0.0.0/8 is below


def embedded_ipv4(address: IPv4Address | IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that may stand in an IPv6 address, since a translator or tunnel would send there."""
    if isinstance(address, IPv4Address) or address in _NOT_COMPATIBLE:
        return ()
    bits = int(address)
    for network, place in _HOLDING:
        if address in network:
            return (_ipv4(bits >> place),)
    if address in _TEREDO:
        return _ipv4(bits >> 64), _ipv4(~bits)
    if address in _LOCAL_NAT64:
        return _in_local_nat64(bits)
    return ()


def _ipv4(bits: int) -> IPv4Address:
    return IPv4Address(bits & 0xFFFFFFFF)


def _in_local_nat64(bits: int) -> tuple[IPv4Address, ...]:
    """RFC 6052 2.2: behind a prefix of 48, 56, 64 or 96 bits, and around the octet at bit 64; we do not know which.

    Where another place holds an address, zeros are just what is not used.
    """
    around = bits >> 64 << 56 | bits & (1 << 56) - 1  # without that octet: 120 bits
    found = {_ipv4(around >> place) for place in (40, 32, 24)} | {_ipv4(bits)}
    used = {each for each in found if int(each) >= _THIS_NETWORK}
    return tuple(sorted(used or found))


def is_within(address: IPv4Address | IPv6Address, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """True if the address, or an IPv4 address in it, belongs to one of the networks."""
    forms = (address, *embedded_ipv4(address))
    return any(form in network for network in networks for form in forms)


def is_global(address: IPv4Address | IPv6Address) -> bool:
    """True if it is an address of the public internet; where an IPv4 address stands in it, that one counts."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_GLOBAL)
    inside = embedded_ipv4(address)
    if inside:
        return all(map(is_global, inside))
    return address in _UNICAST and not any(address in network for network in _NOT_GLOBAL_6)


def unmapped(text: str) -> str:
    """An IP address in text; one of IPv4 that a dual-stack socket shows as IPv6 (`::ffff:192.0.2.1`) as IPv4."""
    if text[:7].lower() != "::ffff:":
        return text
    try:
        return str(IPv6Address(text).ipv4_mapped or text)
    except ValueError:
        return text


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
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"
