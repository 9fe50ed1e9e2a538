"""The header of the PROXY protocol, versions 1 and 2: whose connection a proxy passes on to us. Pure.

`parse_proxy_header` is given what has arrived so far. Version 1 is a line, version 2 has a binary form; both are told
apart by their first octets, and both have a bound. Whether the sender may say such a thing is for the caller to know:
whoever may, can claim to be anybody.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from mailrider.errors import InvalidValue
from mailrider.model.ip import unmapped

MAX_LINE: Final = 107  # octets of version 1, its CRLF included
MAX_BODY: Final = 4096  # octets behind the fixed part of version 2: addresses, and what else the proxy knows

_LINE: Final = b"PROXY "
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = len(_SIGNATURE) + 4
_LOCAL, _PROXY = 0x20, 0x21  # version and command
_UNSPECIFIED, _IPV4, _IPV6, _UNIX = range(4)  # families
_DATAGRAM: Final = 2


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """`size` octets were the header. `client` is who connected to the proxy; empty: the proxy speaks for itself, or
    for somebody who has no IP address."""

    size: int
    client: str = ""


def parse_proxy_header(octets: bytes) -> ProxyHeader | None:
    """The header at the beginning; None: there is more of it to come. Raises `InvalidValue` for what is none."""
    if octets[: len(_LINE)] == _LINE[: len(octets)]:
        return _parse_line(octets)
    if octets[: len(_SIGNATURE)] == _SIGNATURE[: len(octets)]:
        return _parse_binary(octets)
    raise InvalidValue("no PROXY header")


def _parse_line(octets: bytes) -> ProxyHeader | None:
    end = octets.find(b"\r\n", 0, MAX_LINE)
    if end < 0:
        if len(octets) >= MAX_LINE:
            raise InvalidValue(f"a PROXY header has at most {MAX_LINE} octets")
        return None
    words = octets[:end].decode("ascii", "replace").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader(end + 2)
    try:
        _, family, source, target, *ports = words
        version = {"TCP4": 4, "TCP6": 6}[family]
        addresses = [ip_address(each) for each in (source, target)]
        # An address with a zone would bring any text with it.
        fits = "%" not in source + target and all(each.version == version for each in addresses)
        fits = fits and len(ports) == 2 and all(map(_is_port, ports))
    except (KeyError, ValueError):
        fits = False
    if not fits:
        raise InvalidValue("a malformed PROXY header")
    return ProxyHeader(end + 2, unmapped(source))


def _is_port(text: str) -> bool:
    return text.isdecimal() and int(text) <= 65535


def _parse_binary(octets: bytes) -> ProxyHeader | None:
    if len(octets) < _FIXED:
        return None
    command, family, length = octets[12], octets[13], int.from_bytes(octets[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise InvalidValue("a PROXY header of a version or command that is not known")
    if length > MAX_BODY:
        raise InvalidValue(f"a PROXY header with more than {MAX_BODY} octets behind its beginning")
    size = _FIXED + length
    if len(octets) < size:
        return None
    if command == _LOCAL:
        return ProxyHeader(size)
    return ProxyHeader(size, _client(family >> 4, family & 15, octets[_FIXED:size]))


def _client(family: int, transport: int, body: bytes) -> str:
    if family in (_UNSPECIFIED, _UNIX):
        return ""
    if family == _IPV4 and transport < _DATAGRAM and len(body) >= 12:
        return str(IPv4Address(body[:4]))
    if family == _IPV6 and transport < _DATAGRAM and len(body) >= 36:
        return unmapped(str(IPv6Address(body[:16])))
    raise InvalidValue("a malformed PROXY header")
