"""Settings of delivery: `target.remote { }` and `limits { }`."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from mailrider.dns.settings import DNSSettings
from mailrider.errors import ConfigError
from mailrider.model.ip import is_within, networks
from mailrider.net.settings import TLSClientSettings
from mailrider.policy.settings import SAFE, UNSTATED, MXAuth
from mailrider.settings.directive import InvalidSetting, Settings, block, directive, optional, settings
from mailrider.settings.types import (
    BOOLEAN,
    DOMAIN,
    IP_ADDRESS,
    MAX_NUMBER,
    NETWORK,
    PORT,
    TIMEOUT,
    ValueType,
    Words,
    choice,
    duration,
    integer,
    many,
    show_duration,
)
from mailrider.signing.settings import ModifySettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mailrider.model.domain import Domain
    from mailrider.policy.settings import Policy
    from mailrider.settings.directive import Duration, IPAddresses, Maybe, OptionalDomain, Setting
    from mailrider.settings.types import IPAddress, IPNetwork

# Loopback, unspecified, link-local and multicast, and the same IPv4 networks as IPv6 sees them.
PROHIBITED_ADDRESSES = networks(
    "127.0.0.0/8",
    "0.0.0.0/8",  # RFC 1122 3.2.1.3: "this host", which connects to ourselves
    "169.254.0.0/16",
    "224.0.0.0/4",
    "::1/128",
    "::/128",
    "fe80::/10",
    "ff00::/8",
    "::ffff:127.0.0.0/104",
    "::ffff:0.0.0.0/104",
    "::ffff:169.254.0.0/112",
    "::ffff:224.0.0.0/100",
)


# --- limits -------------------------------------------------------------------------------------

_RATE = re.compile(r"rate\s+(?P<burst>[0-9]{1,12})(?:\s+(?P<period>\S.*))?")
_CONCURRENCY = re.compile(r"concurrency\s+(?P<maximum>[0-9]{1,12})")

_COUNT = integer(1, MAX_NUMBER)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `burst` messages in any `period`."""

    burst: int
    period: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "burst", _COUNT.accept(self.burst))
        object.__setattr__(self, "period", TIMEOUT.accept(self.period))

    def __str__(self) -> str:
        return f"rate {self.burst} {show_duration(self.period)}"


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `maximum` messages at once."""

    maximum: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "maximum", _COUNT.accept(self.maximum))

    def __str__(self) -> str:
        return f"concurrency {self.maximum}"


Limit = Rate | Concurrency


def _limit(value: Limit | str) -> Limit:
    if isinstance(value, Limit):
        return value
    if rate := _RATE.fullmatch(value):
        return Rate(int(rate["burst"]), TIMEOUT.accept(rate["period"] or "1s"))
    if concurrency := _CONCURRENCY.fullmatch(value):
        return Concurrency(int(concurrency["maximum"]))
    raise ValueError


LIMIT = ValueType(
    "rate BURST [PERIOD] | concurrency MAX",
    "rate BURST [PERIOD], such as rate 20 1s, or concurrency MAX",
    _limit,
    choices=("rate", "concurrency"),
    words=Words.LINE,
)


def _scope(doc: str) -> Setting[tuple[Limit, ...], Iterable[Limit | str]]:
    limits: Setting[tuple[Limit, ...], Iterable[Limit | str]] = directive(
        many(LIMIT), default=(), shown_default="no limit", repeatable=True, doc=doc
    )
    return limits


@settings
class LimitsSettings(Settings):
    """How many messages may pass. `SCOPE rate BURST [PERIOD]`: at most BURST in any PERIOD (`1s` if there is none).
    `SCOPE concurrency MAX`: at most MAX at once. Several lines may share a scope, and all of them hold. All that refer
    to one named block share it. A message that is held back by a limit has not failed: it is tried again when it may.

    `name` is that of a block at the top level; a block without one (None) is its owner's alone.
    """

    public_name: ClassVar[str] = "Limits"
    all: Setting[tuple[Limit, ...], Iterable[Limit | str]] = _scope("All messages together.")
    ip: Setting[tuple[Limit, ...], Iterable[Limit | str]] = _scope("Messages of one submitting client, by its address.")
    source: Setting[tuple[Limit, ...], Iterable[Limit | str]] = _scope(
        "Messages of one sender's domain, as it is when the message leaves; those with the null reverse-path together."
    )
    destination: Setting[tuple[Limit, ...], Iterable[Limit | str]] = _scope(
        "Messages to one recipient domain, as it is when the message leaves."
    )
    name: str | None = field(default=None)


# What Postfix opens to one destination, too; most servers allow one client 50.
MAX_CONNECTIONS_PER_HOST = 20
# In all, of one target: half of the 1,024 descriptors that a process usually has.
MAX_CONNECTIONS = 500


# --- What all targets have that deliver at once ---------------------------------------------------


class EightBit(enum.StrEnum):
    """What becomes of 8-bit content at a server without 8BITMIME (RFC 6152)."""

    SEND = "send"
    STRICT = "strict"


HOSTNAME: Final[Any] = optional(
    DOMAIN,
    inherits=True,
    required=True,
    shown_default="the global `hostname`",
    doc="The name that we greet with (EHLO, LHLO). It should resolve to our address, and our "
    "address to it: many servers check that.",
)
LIMITS: Final[Any] = optional(
    block(LimitsSettings, reference="limits"),
    doc="How many messages may leave, in all and by source and destination.",
)
LOCAL_IP: Final[Any] = optional(
    IP_ADDRESS,
    shown_default="any",
    doc="The source address of our connections. Servers without an address of its family cannot be used.",
)
COMMAND_TIMEOUT: Final[Any] = directive(
    TIMEOUT,
    default=timedelta(minutes=5),
    doc="The time for the reply to any command, and for the TLS handshake.",
)
SUBMISSION_TIMEOUT: Final[Any] = directive(
    TIMEOUT,
    default=timedelta(minutes=12),
    doc="The time for the reply to the final dot. RFC 5321 4.5.3.2.6 recommends 10 minutes "
    "or more: giving up early makes duplicates.",
)
PER_HOST: Final[Any] = directive(
    integer(1, MAX_CONNECTIONS),
    default=MAX_CONNECTIONS_PER_HOST,
    unit="connections",
    doc="How many connections may be open to one address of one server at once, whatever domains it serves. "
    "Further messages wait for one of them, 5 minutes at most. Many servers refuse a client that opens more than "
    "20 to 50; raise it for a server that takes long to greet, or that is far away.",
)
IDLE_COUNT: Final[Any] = directive(
    integer(0),
    default=10,
    unit="connections",
    doc="How many idle connections are kept for each recipient domain, or for each server that is named here. Each "
    "of several workers keeps its part, rounded up.",
)
IDLE_TIME: Final[Any] = directive(
    duration(bare_seconds=True),
    default=timedelta(seconds=150),
    shown_default="150",
    unit="seconds",
    doc="How long an idle connection is considered usable.",
)
TLS_CLIENT: Final[Any] = optional(
    block(TLSClientSettings),
    inherits=True,
    shown_default="the global `tls_client`",
    doc="How TLS is used. A block here replaces the global one as a whole.",
)
EIGHT_BIT: Final[Any] = directive(
    choice(EightBit),
    default=EightBit.SEND,
    doc="8-bit content to a server without 8BITMIME. `send`: as it is, since converting it "
    "would break its signatures. `strict`: failed with 554 5.6.3 (RFC 6152).",
)
DEBUG: Final[Any] = optional(
    BOOLEAN,
    inherits=True,
    shown_default="the global `debug`",
    doc="Write the SMTP dialogue and every decision to the log.",
)


def greeting_name(hostname: Domain | None) -> Domain:
    """The name that we greet with. Raises `ConfigError` if there is none."""
    if hostname is None:
        raise ConfigError("hostname is required: the name that we greet other servers with (EHLO)")
    return hostname


# --- target.remote ------------------------------------------------------------------------------


@settings
class RemoteSettings(Settings):
    """Delivery to the mail servers that DNS names for each recipient's domain.

    None in `hostname`, `debug`, `tls_client` stands for the global setting of that name;
    what comes out of a configuration file has them filled in.
    """

    hostname: OptionalDomain = HOSTNAME
    limits: Maybe[LimitsSettings] = LIMITS
    local_ip: Setting[IPAddress | None, IPAddress | str | None] = LOCAL_IP
    force_ipv4: Setting[bool, bool] = directive(
        BOOLEAN,
        default=False,
        doc="Use IPv4 addresses only. Domains whose servers have IPv6 alone cannot be reached.",
    )
    connect_timeout: Duration = directive(
        TIMEOUT,
        default=timedelta(minutes=5),
        doc="The time for looking up a host's addresses and connecting. The greeting has a timer "
        "of its own, of 5 minutes (RFC 5321 4.5.3.2.1).",
    )
    command_timeout: Duration = COMMAND_TIMEOUT
    submission_timeout: Duration = SUBMISSION_TIMEOUT
    debug: Maybe[bool] = DEBUG
    requiretls_override: Setting[bool, bool] = directive(
        BOOLEAN,
        default=True,
        doc="Obey `TLS-Required: No` in a message: it may go without the security that the "
        "policies demand (RFC 8689 5).",
    )
    relaxed_requiretls: Setting[bool, bool] = directive(
        BOOLEAN,
        default=True,
        doc="A message that was sent with REQUIRETLS may go to a server that does not offer the "
        "extension, if the levels that it demands are reached (RFC 8689).",
    )
    max_connections_per_host: Setting[int, int] = PER_HOST
    conn_reuse_limit: Setting[int, int] = directive(
        integer(1),
        default=10,
        unit="transactions",
        doc="How many transactions one connection may carry. One whose DATA failed is never used again.",
    )
    conn_max_idle_count: Setting[int, int] = IDLE_COUNT
    conn_max_idle_time: Duration = IDLE_TIME
    tls_client: Maybe[TLSClientSettings] = TLS_CLIENT
    mx_auth: Setting[MXAuth, MXAuth | Iterable[Policy] | None] = directive(
        block(MXAuth, convert=MXAuth.of, reference="mx_auth", shorthand={"off": MXAuth}),
        default=SAFE,
        file_default=UNSTATED,
        shown_default="in a file none, and a warning in the log; for programs and without a file mtasts, dane and "
        "dnssec",
        doc="The policies that authenticate MX hosts. Without them nothing is enforced: TLS is "
        "used where it is offered, and whoever controls the network can prevent it. `mx_auth off` says that this is "
        "known and meant.",
    )
    modify: Maybe[ModifySettings] = optional(
        block(ModifySettings),
        doc="What is done to each message on its way out. What is signed already for that domain and selector is not "
        "signed again.",
    )
    port: Setting[int, int] = directive(PORT, default=25, doc="The port of the MX hosts; others than 25 are for labs.")
    prohibited_addresses: Setting[tuple[IPNetwork, ...], Iterable[IPNetwork | str]] = directive(
        many(NETWORK, none=True),
        default=PROHIBITED_ADDRESSES,
        shown_default="loopback, unspecified, link-local and multicast networks",
        doc="Networks that are never connected to, whatever DNS says: mail would go round in circles, and other "
        "people's DNS could send us into our own network. `none` allows all; for labs.",
    )
    tlsrpt: Setting[bool, bool | str] = directive(
        BOOLEAN,
        default=True,
        doc="Count the TLS sessions of this target for TLS reports, if a global `tlsrpt { }` sends them. `no`: the "
        "reports say nothing of this target.",
    )
    eight_bit: Setting[EightBit, str] = EIGHT_BIT
    own_addresses: IPAddresses = directive(
        many(IP_ADDRESS),
        default=(),
        only_global=True,
        doc="Addresses that reach us through NAT.",
    )
    dns: Maybe[DNSSettings] = optional(block(DNSSettings), only_global=True, doc="The resolver.")

    def _validate(self) -> None:
        if self.force_ipv4 and self.local_ip is not None and self.local_ip.version == 6:
            raise InvalidSetting("local_ip", f"expected an IPv4 address beside force_ipv4 yes, not {self.local_ip}")

    @property
    def prohibits(self) -> Callable[[IPAddress], bool]:
        """Tells if an address must never be connected to; an IPv6 address is also the IPv4 address in it."""
        return partial(is_within, networks=self.prohibited_addresses)
