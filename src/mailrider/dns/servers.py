"""Which DNS servers are asked, and whether their word on DNSSEC counts.

- `parse_server`: the argument of a `server` directive;
- `read_resolv_conf`: the servers that the system is configured with (resolv.conf(5));
- `choose_servers`: who of them is asked. We do not validate signatures: a validating resolver does,
  and says so with the AD bit, which anybody on the path can set (RFC 4035 4.9.3). So it counts only
  from a server on loopback; and if there is one, no other server is ever asked: its failure stays a
  failure, and is not mended by an answer that nobody authenticated.

Only `read_resolv_conf` touches anything outside: one small local file.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from mailrider.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Iterable

DNS_PORT = 53
RESOLV_CONF = Path("/etc/resolv.conf")
MAX_RESOLV_CONF = 65536  # octets; it has a few lines, and a path may be pointed at anything

_BRACKETED = re.compile(r"\[(?P<host>[^]]*:[^]]*)\](?::(?P<port>.+))?")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a DNS server listens, over UDP and TCP."""

    ip: IPv4Address | IPv6Address
    port: int = DNS_PORT

    @property
    def is_loopback(self) -> bool:
        """True for 127.0.0.0/8 and ::1."""
        return self.ip.is_loopback

    @property
    def family(self) -> socket.AddressFamily:
        """The socket family to reach it with."""
        return socket.AF_INET if self.ip.version == 4 else socket.AF_INET6

    @property
    def sockaddr(self) -> tuple[str, int]:
        """What `socket.connect` takes; numeric, so it never asks a resolver."""
        return str(self.ip), self.port

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


def parse_server(text: str) -> ServerAddress:
    """`192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:5353`, `fe80::1%eth0`.

    Raises `InvalidValue`; also for a host name, because looking that up would need a resolver first.
    """
    host, port = text, str(DNS_PORT)
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed:
        host, port = bracketed["host"], bracketed["port"] or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise InvalidValue(f"not a port between 1 and 65535: {port[:20]!r} in {text[:100]!r}")
    return ServerAddress(_parse_ip(host), int(port))


def _parse_ip(text: str) -> IPv4Address | IPv6Address:
    try:
        ip = ip_address(text)
    except ValueError as error:
        raise InvalidValue(
            f"a DNS server is an IP address, or one with a port (127.0.0.1:53, [::1]:53): {text[:100]!r}"
        ) from error
    if ip.version == 6 and ip.ipv4_mapped is not None:  # so that ::ffff:127.0.0.1 is loopback
        return ip.ipv4_mapped
    return ip


def parse_resolv_conf(text: str) -> tuple[ServerAddress, ...]:
    """The `nameserver` lines, in order and once each; whatever is not understood is passed over."""
    servers: dict[ServerAddress, None] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                servers[ServerAddress(_parse_ip(words[1]))] = None
            except InvalidValue:
                continue
    return tuple(servers)


def read_resolv_conf(path: Path = RESOLV_CONF) -> tuple[ServerAddress, ...]:
    """The system's servers; 127.0.0.1 if the file names none or cannot be read (resolv.conf(5))."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_RESOLV_CONF)
    except OSError:
        content = b""
    servers = parse_resolv_conf(content.decode("utf-8", "replace"))
    return servers or (ServerAddress(IPv4Address("127.0.0.1")),)


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """The servers that are `asked`, in order, and those that are `ignored` for the sake of DNSSEC."""

    asked: tuple[ServerAddress, ...]
    ignored: tuple[ServerAddress, ...] = ()

    @property
    def validates(self) -> bool:
        """True if an AD bit counts: everybody who is asked is on loopback."""
        return bool(self.asked) and all(server.is_loopback for server in self.asked)

    @property
    def dnssec_off(self) -> str:
        """Why DNSSEC and DANE are off and what to do, for log and `check`; empty if they are on."""
        if self.validates:
            return ""
        servers = ", ".join(map(str, self.asked)) or "none configured"
        return (
            f"DNSSEC and DANE are off: the DNS server is not on loopback ({servers}), so its word that"
            " an answer was validated could be forged on the way; run a validating resolver on this"
            " host and name it: dns { server 127.0.0.1 }"
        )


def choose_servers(configured: Iterable[ServerAddress]) -> ServerChoice:
    """Only the loopback servers if there are any, else all."""
    servers = tuple(dict.fromkeys(configured))
    loopback = tuple(server for server in servers if server.is_loopback)
    if not loopback:
        return ServerChoice(servers)
    return ServerChoice(loopback, tuple(server for server in servers if not server.is_loopback))
