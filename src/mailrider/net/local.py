"""Which addresses are ours.

The kernel is asked, not the list of interfaces: an address that can be bound is one of this machine's, whatever
interface it stands on now. Loopback does not count (spec section 4, step 4: labs live there), and answers are kept for
a minute, since addresses come and go.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.clock import Clock

KEPT = 60.0  # seconds
MAX_KEPT = 10_000


class OwnAddresses:
    """Tells our own addresses from others. `behind_nat`: those that reach us though no interface has them."""

    def __init__(self, clock: Clock, behind_nat: Iterable[IPv4Address | IPv6Address] = ()) -> None:
        self._clock = clock
        self._behind_nat = frozenset(behind_nat)
        self._known: dict[IPv4Address | IPv6Address, tuple[float, bool]] = {}

    def __call__(self, address: IPv4Address | IPv6Address) -> bool:
        """True if mail sent to that address would come back to us."""
        mapped = address.ipv4_mapped if address.version == 6 else None
        if mapped is not None:
            address = mapped
        if address in self._behind_nat:
            return True
        if address.is_loopback or address.is_unspecified or address.is_multicast:
            return False
        now = self._clock.monotonic()
        until, known = self._known.get(address, (0.0, False))
        if now < until:
            return known
        if len(self._known) >= MAX_KEPT:
            self._known.clear()
        ours = _can_be_bound(address)
        self._known[address] = (now + KEPT, ours)
        return ours


def _can_be_bound(address: IPv4Address | IPv6Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
