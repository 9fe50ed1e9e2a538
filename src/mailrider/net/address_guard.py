"""Which addresses may be connected to where a stranger's word says whom: one rule for MTA-STS policies and TLS reports.

Who owns a zone decides what our lookup of its names gives, and must not be able to make us connect to hosts of our
own network. So we connect only to the public internet, by our own table (`model.ip`), and to what the operator allows.
The connection has to go to the address that was judged: nobody looks the name up a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

from mailrider.model.ip import embedded_ipv4, is_global, is_within

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    Network: TypeAlias = "IPv4Network | IPv6Network"

_EVERYWHERE: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """`allowed`: networks that may be connected to although they are not public. `prohibited` goes before that."""

    allowed: tuple[Network, ...] = ()
    prohibited: tuple[Network, ...] = ()

    @classmethod
    def beside(cls, prohibited: Iterable[Network], allowed: Iterable[Network] = ()) -> AddressGuard:
        """The guard of a target with these `prohibited_addresses`: if there are none, as in labs, all is allowed."""
        networks = tuple(prohibited)
        return cls(tuple(allowed) if networks else _EVERYWHERE, networks)

    def refusal(self, address: IPv4Address | IPv6Address) -> str:
        """Why the address must not be connected to, as `is ...`; empty if it may be."""
        if is_within(address, self.prohibited):
            return "is in prohibited_addresses"
        if not is_global(address) and not self._allows(address):
            return "is no part of the public internet"
        return ""

    def _allows(self, address: IPv4Address | IPv6Address) -> bool:
        """An address that holds others leads to any of them: all have to be allowed, or it has to be itself."""
        if any(address in network for network in self.allowed):
            return True
        inside = embedded_ipv4(address)
        return bool(inside) and all(any(each in network for network in self.allowed) for each in inside)


ANYWHERE: Final = AddressGuard(_EVERYWHERE)
"""For labs."""
