"""Settings of the resolver: `dns { }`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.dns.servers import ServerAddress, parse_server
from mailrider.model.directive import Settings, directive, settings
from mailrider.model.valuetype import TIMEOUT, ValueType, integer, many

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mailrider.model.directive import Duration, Setting

MAX_CACHE = 10_000_000  # answers; some hundred bytes each


def _server(value: ServerAddress | str) -> ServerAddress:
    return value if isinstance(value, ServerAddress) else parse_server(value)


SERVER = ValueType("address[:port]", "an IP address, or address:port ([address]:port for IPv6)", _server)


@settings
class DNSSettings(Settings):
    """Whom we ask, how long we wait, how much we remember."""

    server: Setting[tuple[ServerAddress, ...], Iterable[ServerAddress | str]] = directive(
        many(SERVER),
        default=(),
        repeatable=True,
        shown_default="those in /etc/resolv.conf",
        doc="A resolver: an address, or address:port. If any is a loopback address, only those "
        "are asked, and DNSSEC and DANE can work; otherwise both are off.",
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
