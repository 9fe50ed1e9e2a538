"""Settings of the resolver: `dns { }`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.dns.servers import ServerAddress, parse_server, parse_servers
from mailrider.errors import InvalidValue
from mailrider.settings.directive import Settings, directive, settings
from mailrider.settings.types import TIMEOUT, Unacceptable, ValueType, Words, integer

if TYPE_CHECKING:
    from mailrider.settings.directive import Duration, Setting

MAX_CACHE = 10_000_000  # answers; some hundred bytes each


def _server(value: ServerAddress | str) -> ServerAddress:
    return value if isinstance(value, ServerAddress) else parse_server(value)


SERVER = ValueType("address[:port]", "an IP address, or address:port ([address]:port for IPv6)", _server)


def _servers(value: object) -> tuple[ServerAddress, ...]:
    if isinstance(value, str):
        try:
            return parse_servers(value.split(), SERVER.accept)
        except Unacceptable:
            raise
        except InvalidValue as error:  # trust that cannot be
            raise Unacceptable(str(error)) from error
    if isinstance(value, Iterable):
        return tuple(server for item in value for server in _servers(item))
    return (SERVER.accept(value),)


SERVERS = ValueType("address[:port] [trust]", SERVER.expected, _servers, words=Words.LINE)


@settings
class DNSSettings(Settings):
    """Whom we ask, how long we wait, how much we remember."""

    server: Setting[tuple[ServerAddress, ...], Iterable[ServerAddress | str]] = directive(
        SERVERS,
        default=(),
        repeatable=True,
        shown_default="those in /etc/resolv.conf",
        doc="A resolver: an address, or address:port. Its word that an answer was validated counts if it is on "
        "loopback (but 127.0.0.11 and 127.0.0.54 only forward, and never count), or if `trust` stands behind it: "
        "`server 10.0.0.53 trust`, for one in the same pod or at the other end of a protected link. If any counts, "
        "only those that count are asked, and DNSSEC and DANE can work; otherwise both are off. Of /etc/resolv.conf "
        "only 127.0.0.1 and ::1 count.",
    )
    timeout: Duration = directive(TIMEOUT, default=timedelta(seconds=5), doc="How long one query waits for its answer.")
    attempts: Setting[int, int] = directive(
        integer(1, 20), default=3, unit="queries", doc="How often a question is asked in all."
    )
    cache: Setting[int, int] = directive(
        integer(0, MAX_CACHE),
        default=10_000,
        unit="answers",
        doc="How many answers are kept, each for its TTL; 0 turns the cache off.",
    )
