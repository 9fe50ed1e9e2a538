"""Addresses and families that nothing could be connected to lately: they come last for some minutes (RFC 8305 3).

Nothing is left out: what failed before may be all that there is. Only the order of one host's addresses changes, so a
network whose IPv6 leads nowhere delays one connection and not each. Bounded; a connection that is made clears the
memory of its address and its family.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mailrider.model.bounded import BoundedMap

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.clock import Clock
    from mailrider.model.route import Host

    Address = IPv4Address | IPv6Address

REMEMBERED = 300.0  # seconds
MAX_ENTRIES = 10_000
IN_A_ROW = 3  # addresses of a family that did not answer, and none between that did: it is the family


class Reach:
    """What the connections of a target have taught."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: BoundedMap[Address, float] = BoundedMap(MAX_ENTRIES)
        self._in_a_row = {4: 0, 6: 0}
        self._family_until = {4: 0.0, 6: 0.0}

    def failed(self, address: Address, *, answered: bool = False) -> None:
        """No connection came about. `answered`: it was refused, so packets come there and back."""
        until = self._clock.monotonic() + REMEMBERED
        self._failed[address] = until
        if answered:
            self._in_a_row[address.version] = 0
            return
        self._in_a_row[address.version] += 1
        if self._in_a_row[address.version] >= IN_A_ROW:
            self._family_until[address.version] = until

    def worked(self, address: Address) -> None:
        """A connection was made."""
        self._failed.pop(address, None)
        self._in_a_row[address.version] = 0
        self._family_until[address.version] = 0.0

    def ordered(self, host: Host) -> Host:
        """The host with its addresses: those that failed last, else in the order that they are in."""
        now, addresses = self._clock.monotonic(), host.addresses
        if len(addresses) < 2 or not (self._failed or any(now < until for until in self._family_until.values())):
            return host
        order = tuple(sorted(addresses, key=lambda each: self._badness(each, now)))
        return host if order == addresses else replace(host, addresses=order)

    def _badness(self, address: Address, now: float) -> tuple[bool, bool]:
        return now < self._failed.get(address, 0.0), now < self._family_until[address.version]
