"""Where a server listens, as configurations write it: `tcp://HOST:PORT`, `tls://HOST:PORT`, `unix://PATH`.

`tls` is TLS at once (RFC 8314 3.3). HOST is a name, an IPv4 address, or an IPv6 address in brackets; whether a name may
stand there is for whoever uses the address.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.settings.types import ValueType, parsed

_NETWORK = re.compile(r"(?P<scheme>tcp|tls)://(?:\[(?P<six>[^]]+)\]|(?P<host>[^:/\[\]]+)):(?P<port>[0-9]{1,5})")
_UNIX = re.compile(r"unix://(?P<path>/[^\0]*)")
SENDMAIL_SOCKET = "submission.sock"  # in `runtime_dir`: where programs of this machine hand in mail
MAX_PATH = 107  # octets: what Linux takes for the address of a unix socket


class Scheme(enum.StrEnum):
    """How the first octet is spoken."""

    TCP = "tcp"
    TLS = "tls"
    UNIX = "unix"


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """One of the three forms. `host` and `port` for `tcp` and `tls`, `path` for `unix`."""

    scheme: Scheme
    host: Domain | IPv4Address | IPv6Address | None = None
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> SocketAddress:
        """An address as written. Raises `InvalidValue`."""
        if match := _UNIX.fullmatch(text):
            if len(match["path"].encode()) > MAX_PATH:
                raise InvalidValue(f"the path of a unix socket has at most {MAX_PATH} octets: {text[:200]!r}")
            return cls(Scheme.UNIX, path=Path(match["path"]))
        match = _NETWORK.fullmatch(text)
        if match is None or int(match["port"]) > 65535:
            raise InvalidValue(f"not tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH: {text[:200]!r}")
        return cls(Scheme(match["scheme"]), _host(match["six"] or match["host"]), int(match["port"]))

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """The address, where it is written as one."""
        return None if isinstance(self.host, Domain) else self.host

    @property
    def is_local(self) -> bool:
        """True for loopback and unix sockets: nobody beyond this machine gets there."""
        return self.scheme is Scheme.UNIX or (self.ip is not None and self.ip.is_loopback)

    @property
    def ipv4_counterpart(self) -> SocketAddress | None:
        """For all IPv6 addresses of this machine (`[::]`) the same of IPv4; None for others."""
        if isinstance(self.host, IPv6Address) and self.host.is_unspecified:
            return SocketAddress(self.scheme, IPv4Address(0), self.port)
        return None

    def __str__(self) -> str:
        if self.scheme is Scheme.UNIX:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if isinstance(self.host, IPv6Address) else str(self.host)
        return f"{self.scheme}://{host}:{self.port}"


def _host(text: str) -> Domain | IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        return Domain.parse(text)


SOCKET_ADDRESS = ValueType(
    "address", "tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH", parsed(SocketAddress, SocketAddress.parse)
)
