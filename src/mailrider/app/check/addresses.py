"""The addresses that we send from, and whether the world knows them by our name: PTR, and back (RFC 1912 2.1)."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from mailrider.app.check.finding import error, note, ok, warning
from mailrider.dns.answer import LookupFailed, RecordType
from mailrider.model.domain import reverse_name
from mailrider.model.ip import is_global

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.app.check.finding import Finding
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.dns.resolver import Resolver
    from mailrider.model.domain import Domain

    Address = IPv4Address | IPv6Address

_DISCARD = 9  # RFC 863; any port would do, since nothing is sent
# Documentation addresses (RFC 5737, RFC 3849): the way to them is that to everybody.
_ANYWHERE = ("192.0.2.1", "2001:db8::1")


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """An address that others see us come from. `is_sure` False: it is none of the internet, so others see another."""

    address: Address
    is_sure: bool = True


def source_addresses(settings: RemoteSettings, seen: Iterable[Address] = ()) -> list[SourceAddress]:
    """The source addresses of a target. `seen`: those that connections of ours had.

    What is configured goes before what was seen, and that before what the kernel would choose.
    """
    versions = (4,) if settings.force_ipv4 else (4, 6)
    if settings.local_ip is not None:
        versions = (settings.local_ip.version,)
    chosen: dict[Address, SourceAddress] = {}
    for version in versions:
        behind_nat = [each for each in settings.own_addresses if each.version == version]
        local = [settings.local_ip] if settings.local_ip is not None else []
        there = [each for each in seen if each.version == version]
        for address in behind_nat or local or there or _chosen_by_kernel(version):
            is_private = not is_global(address) and not address.is_loopback and address not in behind_nat
            chosen.setdefault(address, SourceAddress(address, not is_private))
    return list(chosen.values())


def _chosen_by_kernel(version: int) -> list[Address]:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    anywhere = _ANYWHERE[0] if version == 4 else _ANYWHERE[1]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((anywhere, _DISCARD))
            return [ip_address(probe.getsockname()[0].partition("%")[0])]
    except OSError:
        return []


async def check_names(
    label: str, hostname: Domain, sources: Sequence[SourceAddress], resolver: Resolver
) -> list[Finding]:
    """Whether each address has our name, and our name each address."""
    findings: list[Finding] = []
    for source in sources:
        if source.is_sure:
            findings += [each async for each in _check_name(label, hostname, source.address, resolver)]
        else:
            findings.append(
                note(
                    label,
                    f"we send from {source.address}, a private address: which one others see is not known here",
                    "write own_addresses with the address that others see, and it is looked at",
                )
            )
    if not sources:
        findings.append(error(label, "this machine has no address to send from", "check its network"))
    return findings


async def _check_name(label: str, hostname: Domain, address: Address, resolver: Resolver) -> AsyncIterator[Finding]:
    cure = f"ask whoever gave you the address for: {reverse_name(address)}. IN PTR {hostname}."
    try:
        names = (await resolver.lookup(reverse_name(address), RecordType.PTR)).records
        ours = await _addresses_of(hostname, address, resolver)
    except LookupFailed as failure:
        yield warning(label, f"whether {address} has our name is not known: {failure}")
        return
    if not names:
        yield error(label, f"{address} has no name (PTR): large receivers refuse its mail", cure)
    elif hostname not in names:
        named = ", ".join(map(str, names[:3]))
        if await _any_leads_back(names[:10], address, resolver):
            yield warning(label, f"{address} has another name (PTR {named}) than we greet with ({hostname})", cure)
        else:
            yield error(label, f"the name of {address} (PTR {named}) does not lead back to it: mail is refused", cure)
    elif address in ours:
        yield ok(label, f"{address} is {hostname}, by PTR and back")
    if address not in ours:
        record = "A" if address.version == 4 else "AAAA"
        found = f"it leads to {', '.join(map(str, ours[:3]))}" if ours else "it has no such address"
        yield error(
            label, f"we greet with {hostname}, which is not {address}: {found}", f"{hostname}. IN {record} {address}"
        )


async def _addresses_of(name: Domain, like: Address, resolver: Resolver) -> Sequence[Address]:
    kind = RecordType.A if like.version == 4 else RecordType.AAAA
    addresses: Sequence[Address] = (await resolver.lookup(name, kind)).records
    return addresses


async def _any_leads_back(names: Sequence[Domain], address: Address, resolver: Resolver) -> bool:
    for name in names:
        try:
            if address in await _addresses_of(name, address, resolver):
                return True
        except LookupFailed:
            continue
    return False
