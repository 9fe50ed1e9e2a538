"""Settings of the resolver: `dns { }`."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.dns.servers import RECURSIVE, ServerAddress, parse_server, parse_servers
from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.settings.directive import InvalidSetting, Settings, directive, settings
from mailrider.settings.types import (
    DOMAIN,
    PATH,
    TIMEOUT,
    Unacceptable,
    ValueType,
    Words,
    choice,
    integer,
    many,
    parsed,
)

if TYPE_CHECKING:
    from mailrider.settings.directive import Duration, Paths, Setting

MAX_CACHE = 10_000_000  # answers; some hundred bytes each


class Validate(enum.StrEnum):
    """Whether signatures are checked in this process."""

    NO = "no"
    AUTO = "auto"
    YES = "yes"


# RFC 8375 and what ICANN reserves for private use: names of the local network, which nobody can sign.
INSECURE = tuple(map(Domain, ("local", "internal", "home.arpa")))


SERVER = ValueType(
    "address[:port] | tls://address#name | recursive",
    "an IP address, address:port ([address]:port for IPv6), tls://address#name, or recursive",
    parsed(ServerAddress, parse_server),
)


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


SERVERS = ValueType(
    "address[:port] [trust] | tls://address[:port]#name | recursive", SERVER.expected, _servers, words=Words.LINE
)


@settings
class DNSSettings(Settings):
    """Which DNS servers are asked, who validates, how long an answer may take, and how many are kept."""

    server: Setting[tuple[ServerAddress, ...], Iterable[ServerAddress | str]] = directive(
        SERVERS,
        default=(),
        repeatable=True,
        shown_default="those in /etc/resolv.conf",
        doc="A resolver: an address, or address:port. Its word that an answer was validated counts if it is on "
        "loopback (but 127.0.0.11 and 127.0.0.54 only forward, and never count), or if `trust` stands behind it: "
        "`server 10.0.0.53 trust`, for one in the same pod or at the other end of a protected link. If any counts, "
        "only those that count are asked, and DNSSEC and DANE can work; otherwise both are off. Of /etc/resolv.conf "
        "only 127.0.0.1 and ::1 count. With `validate` a server need not be trusted, and two more kinds can be asked: "
        "`tls://192.0.2.53#dns.example.net`, over TLS with the name that its certificate must have (then all servers "
        "are asked over TLS; Debian's libunbound cannot do that), and `recursive` alone: the servers of the root, and "
        "from there down. That leaves out what a resolver of your network says: do not use it where internal names "
        "exist only there.",
    )
    validate: Setting[Validate, Validate | str] = directive(
        choice(Validate),
        default=Validate.NO,
        doc="Whether DNSSEC signatures are checked in this process, by the library libunbound (Debian: "
        "`libunbound8`). `no`: never, so a resolver must do it. `auto`: if the library is there and no server "
        "counts, or those that do were found not to validate. If no server hands signatures on, the servers are asked "
        "without validation, DNSSEC and DANE are off, the log says so, and it is tried again each minute. `yes`: "
        "always; if it cannot be, lookups fail and mail waits. Once it worked, only a restart can turn it off.",
    )
    insecure: Setting[tuple[Domain, ...], Iterable[Domain | str]] = directive(
        many(DOMAIN),
        default=INSECURE,
        repeatable=True,
        doc="Domains that `validate` does not validate, with all below them (RFC 7646): names of your own network that "
        "nobody signs, below a domain that is signed. What is named here takes the place of the default.",
    )
    trust_anchor: Paths = directive(
        many(PATH),
        default=(),
        repeatable=True,
        doc="Files with DS or DNSKEY records, one a line, that `validate` trusts beside the keys of the root that this "
        "package and Debian's `dns-root-data` bring.",
    )
    timeout: Duration = directive(TIMEOUT, default=timedelta(seconds=5), doc="How long one query waits for its answer.")
    attempts: Setting[int, int] = directive(
        integer(1, 20), default=3, unit="queries", doc="How often a question is asked, the first time included."
    )
    cache: Setting[int, int] = directive(
        integer(0, MAX_CACHE),
        default=10_000,
        unit="answers",
        doc="How many answers are kept, each for its TTL; 0 turns the cache off.",
    )

    def _validate(self) -> None:
        special = [server for server in self.server if not server.is_plain]
        if not special:
            return
        if RECURSIVE in special and len(self.server) > 1:
            raise InvalidSetting("server", "recursive stands alone: other servers are not asked then")
        if len(special) < len(self.server):
            raise InvalidSetting("server", f"{special[0]} beside a plain server: what is asked could be read then")
        if self.validate is Validate.NO:
            raise InvalidSetting("server", f"{special[0]} needs libunbound: say validate yes (or auto)")
