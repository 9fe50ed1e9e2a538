"""Whether mail gets out at all: a connection to port 25 of a server of a domain that was named, over each family."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from mailrider.app.check.finding import error, note, ok, warning
from mailrider.clock import after
from mailrider.dns.answer import LookupFailed, RecordType
from mailrider.model.reply import clean_text

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.app.check.finding import Finding
    from mailrider.clock import Clock
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.dns.resolver import Resolver
    from mailrider.model.domain import Domain

    Address = IPv4Address | IPv6Address

PATIENCE: Final = 10.0  # seconds for a connection, and as many for its greeting
HOSTS: Final = 2  # of the domain that are called, over each family
LONGEST: Final = 1000  # octets of a greeting that are shown


@dataclass(frozen=True, slots=True)
class ConnectResult:
    """What came of a call. `source`: the address that it came from; `fault`: why there was no connection."""

    host: str
    address: Address
    source: Address | None = None
    greeting: str = ""
    fault: str = ""


async def check_port(
    label: str, settings: RemoteSettings, against: Domain, resolver: Resolver, clock: Clock
) -> tuple[list[Finding], list[Address]]:
    """What was found, and the addresses that we were seen to come from."""
    try:
        hosts = await _hosts(against, resolver)
        calls = {4: await _call(hosts, RecordType.A, settings, resolver, clock)}
        if not settings.force_ipv4:
            calls[6] = await _call(hosts, RecordType.AAAA, settings, resolver, clock)
    except LookupFailed as failure:
        return [warning(label, f"port {settings.port} was not tried: {failure}")], []
    tried = [each for reached in calls.values() for each in reached]
    sources = [each.source for each in tried if each.source is not None]
    if not tried:
        return [warning(label, f"port {settings.port} was not tried: {against} has no server that we may call")], []
    if not sources:
        faults = "; ".join(f"{each.host} [{each.address}]: {each.fault}" for each in tried)
        text = f"port {settings.port} is closed: no server of {against} can be reached ({faults})"
        cure = "ask your hoster to open port 25, or send through a smarthost (target.smtp)"
        return [error(label, text, cure)], []
    return [each for version, reached in calls.items() for each in _about(label, version, reached, against)], sources


def _about(label: str, version: int, reached: list[ConnectResult], against: Domain) -> list[Finding]:
    there = next((each for each in reached if each.source is not None), None)
    if there is None:
        if not reached:
            return []
        first = reached[0]
        text = f"over IPv{version} no server of {against} can be reached: {first.host} [{first.address}]: {first.fault}"
        return [note(label, text, "mail goes over the other family")]
    where = f"{there.host} [{there.address}], a server of {against}"
    if there.greeting.startswith("220"):
        return [ok(label, f"connected to {where}, from {there.source}")]
    said = f"said: {there.greeting}" if there.greeting else "said nothing"
    return [warning(label, f"connected to {where}, from {there.source}; it {said}")]


async def _hosts(domain: Domain, resolver: Resolver) -> list[Domain]:
    answer = await resolver.lookup(domain, RecordType.MX)
    named = sorted((each for each in answer.records if each.host is not None), key=lambda each: each.preference)
    return [each.host for each in named[:HOSTS]] if answer.records else [domain]


async def _call(
    hosts: list[Domain], kind: RecordType, settings: RemoteSettings, resolver: Resolver, clock: Clock
) -> list[ConnectResult]:
    tried: list[ConnectResult] = []
    for host in hosts:
        addresses = (await resolver.lookup(host, kind)).records
        allowed = [each for each in addresses if not settings.prohibits(each) and _is_usable(each, settings)]
        if allowed:
            tried.append(await _connect(host, allowed[0], settings, clock))
            if tried[-1].source is not None:
                break
    return tried


def _is_usable(address: Address, settings: RemoteSettings) -> bool:
    return settings.local_ip is None or settings.local_ip.version == address.version


async def _connect(host: Domain, address: Address, settings: RemoteSettings, clock: Clock) -> ConnectResult:
    local = None if settings.local_ip is None else (str(settings.local_ip), 0)
    try:
        async with after(clock, PATIENCE):
            reader, writer = await asyncio.open_connection(str(address), settings.port, local_addr=local)
    except TimeoutError:
        return ConnectResult(host.ascii, address, fault="no answer")
    except OSError as failure:
        return ConnectResult(host.ascii, address, fault=failure.strerror or str(failure))
    try:
        source = ip_address(writer.get_extra_info("sockname")[0].partition("%")[0])
        greeting = b""
        with suppress(TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
            async with after(clock, PATIENCE):
                greeting = await reader.readline()
                writer.write(b"QUIT\r\n")
                await writer.drain()
        return ConnectResult(
            host.ascii, address, source, clean_text(greeting[:LONGEST].decode("ascii", "replace").strip())
        )
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
