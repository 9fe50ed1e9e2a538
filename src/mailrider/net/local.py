"""Which addresses are ours.

The kernel is asked, not the list of interfaces: packets to an address of this machine have that very address as their
source, whatever interface it stands on. (That an address can be bound says nothing: with `ip_nonlocal_bind` each can.)
Loopback does not count (labs live there), and answers are kept for a minute, since addresses
come and go; where the kernel gives none, the next question is asked anew.
"""

from __future__ import annotations

import socket
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from mailrider.model.ip import embedded_ipv4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mailrider.clock import Clock

KEPT = 60.0  # seconds
MAX_KEPT = 10_000
ROUTES = "/proc/net/route"
ROUTES_IPV6 = "/proc/net/ipv6_route"
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
_DISCARD = 9  # RFC 863; any port would do


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="ascii")


class OwnAddresses:
    """Tells our own addresses from others. `behind_nat`: those that reach us though no interface has them."""

    def __init__(self, clock: Clock, behind_nat: Iterable[IPv4Address | IPv6Address] = ()) -> None:
        self._clock = clock
        self._behind_nat = frozenset(behind_nat)
        self._known: dict[IPv4Address | IPv6Address, tuple[bool, float]] = {}

    def __call__(self, address: IPv4Address | IPv6Address) -> bool:
        """True if mail sent to that address would come back to us."""
        return self.look_up(address)[0]

    def look_up(self, address: IPv4Address | IPv6Address) -> tuple[bool, float]:
        """The same as a pair with the moment until which it is known; a past one if the kernel does not say."""
        now = self._clock.monotonic()
        known = self._known.get(address)
        if known is not None and now < known[1]:
            return known
        ours = self._is_ours(address)
        if ours is None:
            return False, now
        if len(self._known) >= MAX_KEPT:
            self._known.clear()
        known = self._known[address] = (ours, now + KEPT)
        return known

    def _is_ours(self, address: IPv4Address | IPv6Address) -> bool | None:
        """None if the kernel does not say."""
        forms = (address, *embedded_ipv4(address))  # what is sent to ourselves through a translator comes back too
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            forms = (address.ipv4_mapped,)  # the same address, written otherwise; the kernel has every ::ffff:127.0.0.1
        answers = {self._is_one_of_ours(form) for form in forms}
        return True if True in answers else None if None in answers else False

    def _is_one_of_ours(self, address: IPv4Address | IPv6Address) -> bool | None:
        if address in self._behind_nat:
            return True
        if address.is_loopback or address.is_unspecified or address.is_multicast:
            return False
        return has_address(address)


class Gateways:
    """The machines that our default routes lead to; in a container those stand for whoever comes from outside."""

    def __init__(self, clock: Clock, read: Callable[[str], str] = _read_text) -> None:
        self._clock = clock
        self._read = read
        self._until = 0.0
        self._known: frozenset[IPv4Address | IPv6Address] | None = None

    def __call__(self) -> frozenset[IPv4Address | IPv6Address] | None:
        """All of them; None if the system does not say."""
        now = self._clock.monotonic()
        if now >= self._until:
            self._until = now + KEPT
            try:
                self._known = default_gateways(self._read(ROUTES), self._read_ipv6())
            except (OSError, ValueError, IndexError):
                self._known = None
        return self._known

    def _read_ipv6(self) -> str:
        try:
            return self._read(ROUTES_IPV6)
        except FileNotFoundError:  # a kernel without IPv6
            return ""


def default_gateways(routes: str, routes_ipv6: str) -> frozenset[IPv4Address | IPv6Address]:
    """The gateways in the kernel's tables (proc(5)). Pure. Raises `ValueError` and `IndexError` for other text."""
    found: set[IPv4Address | IPv6Address] = set()
    for line in routes.splitlines()[1:]:
        words = line.split()
        if words[1] == words[7] == "00000000":
            # As the machine keeps it, the last octet first on most.
            found.add(IPv4Address(int(words[2], 16).to_bytes(4, sys.byteorder)))
    for line in routes_ipv6.splitlines():
        words = line.split()
        if int(words[0], 16) == 0 and words[1] == "00":
            found.add(IPv6Address(int(words[4], 16)))
    return frozenset(each for each in found if not each.is_unspecified)


def container(read: Callable[[str], str] = _read_text) -> bool:
    """True if this is a container, as far as its makers say so."""
    for path in CONTAINER_MARKS:
        try:
            read(path)
        except OSError:
            continue
        return True
    return False


def has_address(address: IPv4Address | IPv6Address) -> bool | None:
    """Whether the machine has that address; None if the kernel does not say: there is no route, or no descriptor."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), _DISCARD))  # chooses a source, and sends nothing
            source = probe.getsockname()[0]
    except OSError:
        return None
    return _unscoped(source) == _unscoped(str(address))


def _unscoped(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text.partition("%")[0])
