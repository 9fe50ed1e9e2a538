"""Which DNS servers are asked, and whether their word on DNSSEC counts.

- `parse_server`, `parse_servers`: the arguments of a `server` directive;
- `read_resolv_conf`: the servers that the system is configured with (resolv.conf(5));
- `choose_servers`: who of them is asked where we do not validate signatures ourselves (`dns.validating`). Then a
  validating resolver does, and says so with the AD bit, which anybody on the path can set (RFC 4035 4.9.3). So it
  counts only from a server on loopback, or from one that the operator marks `trust`; and if there is one that
  counts, no other server is ever asked: its failure stays a failure, and is not mended by an answer that nobody
  authenticated.

Not everything on loopback validates. Docker's DNS (127.0.0.11, in every container of a user-defined network)
and the forwarder of systemd-resolved (127.0.0.54) hand on the AD bit of whoever they ask, over any network. So
127.0.0.1 and ::1 count, another loopback address only if the operator names it, and those two never. A forwarder
on 127.0.0.1 cannot be told by its address; `dns.proof` finds those that do not even stand before a validator.

Only `read_resolv_conf` touches anything outside: one small local file.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DNS_PORT = 53
TLS_PORT = 853  # RFC 7858 3.1
TLS_PREFIX = "tls://"
RECURSIVE_WORD = "recursive"
RESOLV_CONF = Path("/etc/resolv.conf")
TRUST = "trust"
MAX_RESOLV_CONF = 65536  # octets; it has a few lines, and a path may be pointed at anything

# Loopback addresses that never count, whoever names them, and what listens there.
FORWARDERS: Mapping[IPv4Address | IPv6Address, str] = {
    IPv4Address("127.0.0.11"): "Docker's DNS, which hands on what another server says, AD bit included",
    IPv4Address("127.0.0.54"): "systemd-resolved's forwarder, which hands on what another server says, AD bit included",
}
CURE = (
    "let mailrider validate by itself: dns { validate auto }, with libunbound (Debian: apt-get install libunbound8); "
    "or run a validating resolver, such as unbound, on this host and name it: dns { server 127.0.0.1 }"
)
SYSTEMD_RESOLVED = IPv4Address("127.0.0.53")
_USUAL = frozenset((IPv4Address("127.0.0.1"), IPv6Address("::1")))  # these count from resolv.conf too

_BRACKETED = re.compile(r"\[(?P<host>[^]]*:[^]]*)\](?::(?P<port>.+))?")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a DNS server listens, over UDP and TCP. `trusted`: the operator says that the way to it is safe.

    With a `tls_name` it is asked over TLS, and its certificate must have that name; only `dns.unbound` can do that.
    """

    ip: IPv4Address | IPv6Address
    port: int = DNS_PORT
    trusted: bool = False
    tls_name: str = ""

    @property
    def is_plain(self) -> bool:
        """True if it is asked over UDP and TCP, as we can do ourselves."""
        return not self.tls_name and self.port != 0

    @property
    def family(self) -> socket.AddressFamily:
        """The socket family to reach it with."""
        return socket.AF_INET if self.ip.version == 4 else socket.AF_INET6

    @property
    def sockaddr(self) -> tuple[str, int]:
        """What `socket.connect` takes; numeric, so it never asks a resolver."""
        return str(self.ip), self.port

    def __str__(self) -> str:
        if self.port == 0:
            return RECURSIVE_WORD
        place = f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"
        return f"{TLS_PREFIX}{place}#{self.tls_name}" if self.tls_name else place


# Stands for no server: `server recursive` asks those of the root, and from there down. No server has the port 0.
RECURSIVE = ServerAddress(IPv4Address(0), 0)


def parse_server(text: str) -> ServerAddress:
    """`192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:5353`, `fe80::1%eth0`.

    Also `tls://192.0.2.1#dns.example.net`, with or without a port, and `recursive`. Raises `InvalidValue`; also for a
    host name, because looking that up would need a resolver first.
    """
    if text == RECURSIVE_WORD:
        return RECURSIVE
    if text.startswith(TLS_PREFIX):
        return _parse_tls_server(text)
    return _parse_place(text, DNS_PORT)


def _parse_tls_server(text: str) -> ServerAddress:
    place, _, name = text.removeprefix(TLS_PREFIX).partition("#")
    try:
        return replace(_parse_place(place, TLS_PORT), tls_name=Domain.parse(name).ascii)
    except InvalidValue as error:
        expected = "a DNS server over TLS is an address and the name in its certificate"
        raise InvalidValue(f"{expected}: tls://192.0.2.53#dns.example.net, not {text[:100]!r}") from error


def _parse_place(text: str, default_port: int) -> ServerAddress:
    host, port = text, str(default_port)
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed:
        host, port = bracketed["host"], bracketed["port"] or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise InvalidValue(f"not a port between 1 and 65535: {port[:20]!r} in {text[:100]!r}")
    return ServerAddress(_parse_ip(host), int(port))


def parse_servers(
    words: Iterable[str], parse: Callable[[str], ServerAddress] = parse_server
) -> tuple[ServerAddress, ...]:
    """The arguments of a `server` directive: addresses, each with the word `trust` behind it or not.

    Raises `InvalidValue`; also for `trust` behind an address that is known to forward what others say.
    """
    servers: list[ServerAddress] = []
    for word in words:
        if word != TRUST:
            servers.append(parse(word))
            continue
        if not servers or servers[-1].trusted:
            raise InvalidValue("trust stands behind the address of a DNS server: server 10.0.0.53 trust")
        server = servers.pop()
        if not server.is_plain:
            raise InvalidValue(f"{server} needs no trust: what it says is validated here")
        if server.ip in FORWARDERS:
            raise InvalidValue(f"{server.ip} cannot be trusted: it is {FORWARDERS[server.ip]}")
        servers.append(replace(server, trusted=True))
    return tuple(servers)


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
    """Who is asked, of the `configured` servers.

    `counting` are those whose word on DNSSEC counts by where they are; `disproved` those of them that were found not
    to validate, and what showed it. Where one counts and is not disproved, only such servers are asked. Where all are
    disproved, DNSSEC is off, and who is asked stays as it was.
    """

    configured: tuple[ServerAddress, ...]
    counting: tuple[ServerAddress, ...] = ()
    disproved: Mapping[ServerAddress, str] = field(default_factory=dict)

    @property
    def asked(self) -> tuple[ServerAddress, ...]:
        """The servers that are asked, in order."""
        return self._believed or self.counting or self.configured

    @property
    def ignored(self) -> tuple[ServerAddress, ...]:
        """The servers that are not asked, because others count."""
        return tuple(server for server in self.configured if server not in self.asked)

    @property
    def validates(self) -> bool:
        """True if an AD bit counts: everybody who is asked counts."""
        return bool(self._believed)

    @property
    def dnssec_off(self) -> str:
        """Why DNSSEC and DANE are off, for log, `explain` and `check`; empty if they are on. `CURE` helps."""
        if self._believed:
            return ""
        reasons = [f"{server}: {self.disproved[server]}" for server in self.counting]
        reasons = reasons or [f"{server} {_why_not(server)}" for server in self.configured] or ["none is configured"]
        return f"DNSSEC and DANE are off: no DNS server is known to validate ({'; '.join(reasons)})"

    @property
    def _believed(self) -> tuple[ServerAddress, ...]:
        return tuple(server for server in self.counting if server not in self.disproved)


def _why_not(server: ServerAddress) -> str:
    if server.ip in FORWARDERS:
        return f"is {FORWARDERS[server.ip]}"
    if server.ip.is_loopback:
        return "is on loopback, but may forward what others say: name it in dns { } if it validates"
    return "is not on loopback, so its answers could be forged on the way"


def choose_servers(configured: Iterable[ServerAddress], *, named: bool = True) -> ServerChoice:
    """Who of these servers counts. `named`: by the operator, and not just by the system's resolv.conf."""
    servers: dict[tuple[IPv4Address | IPv6Address, int], ServerAddress] = {}
    for server in configured:
        known = servers.setdefault((server.ip, server.port), server)
        if server.trusted and not known.trusted:
            servers[server.ip, server.port] = server
    counting = tuple(server for server in servers.values() if _counts(server, named=named))
    return ServerChoice(tuple(servers.values()), counting)


def _counts(server: ServerAddress, *, named: bool) -> bool:
    if server.ip in FORWARDERS or not server.is_plain:
        return False
    return server.trusted or server.ip in _USUAL or (named and server.ip.is_loopback)


def configured_servers(named: Iterable[ServerAddress]) -> ServerChoice:
    """The servers that the operator names, else those of the system."""
    servers = tuple(named)
    return choose_servers(servers) if servers else choose_servers(read_resolv_conf(), named=False)
