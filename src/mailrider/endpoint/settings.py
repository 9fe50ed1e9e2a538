"""Settings of the endpoints: `submission`, `smtp`, `lmtp`. What is wrong with them as a whole: `endpoint.faults`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from mailrider.delivery.settings import LimitsSettings
from mailrider.endpoint.pipeline.settings import CheckSettings
from mailrider.endpoint.trust import is_private
from mailrider.header.fields import ReceivedDetail
from mailrider.net.settings import SERVER_TLS, ServerTLS
from mailrider.settings.directive import InvalidSetting, Section, block, directive, optional, settings
from mailrider.settings.pipeline import (
    NEVER_USED,
    SENDER_MATCH,
    Match,
    PipelineSettings,
    RouteSettings,
    default_destination,
    destinations,
    refuse_repeated,
)
from mailrider.settings.types import DOMAIN, NETWORK, PATH, TIMEOUT, PathType, choice, integer, many, size
from mailrider.signing.settings import ModifySettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from mailrider.model.domain import Domain
    from mailrider.settings.directive import Duration, Maybe, OptionalDomain, OptionalPath, Setting
    from mailrider.settings.pipeline import Destinations, Target
    from mailrider.settings.socket_address import SocketAddress
    from mailrider.settings.types import IPNetwork


def _password_file(value: object) -> Path:
    path = PATH.accept(value)
    if path.name.startswith("&"):  # maddy refers to a block
        raise ValueError
    return path


PASSWORD_FILE: Final = PathType(
    "path", "the path of a password file, which mailrider auth add USER makes", _password_file
)
MESSAGE_SIZE: Final = size(64 << 10, within=", 64K or more (RFC 5321 4.5.3.1.7),")
HEADER_SIZE: Final = size(1 << 10, 1 << 20, within=" from 1K to 1M,")


@settings
class EndpointRouteSettings(RouteSettings):
    """What is done with mail for some recipients: it goes to a target, or is refused."""

    check: Maybe[CheckSettings] = optional(
        block(CheckSettings),
        doc="What is looked at in messages for these recipients, after the checks of the blocks around this one. SMTP "
        "has one answer to a message, and so what is refused here is refused for its other recipients, too (not in "
        "LMTP).",
    )
    modify: Maybe[ModifySettings] = optional(
        block(ModifySettings),
        doc="What is done to the message that these recipients get, beside what the blocks around this one do.",
    )

    def _validate(self) -> None:
        RouteSettings._validate(self)
        _refuse_idle(self, is_idle=self.deliver_to is None)


@settings
class SourceSettings(PipelineSettings):
    """What is done with mail of some senders, or of all others. Directives outside of a `destination` are for all
    recipients that no `destination` names.
    """

    destination: Destinations[EndpointRouteSettings] = destinations(EndpointRouteSettings)
    default_destination: Maybe[EndpointRouteSettings] = default_destination(EndpointRouteSettings)
    check: Maybe[CheckSettings] = optional(
        block(CheckSettings),
        doc="What is looked at before a message of these senders is accepted, after the checks of the endpoint.",
    )
    modify: Maybe[ModifySettings] = optional(
        block(ModifySettings), doc="What is done to messages of these senders, beside what the endpoint does to all."
    )

    def _validate(self) -> None:
        PipelineSettings._validate(self)
        _refuse_idle(self, is_idle=not self.targets)


def _refuse_idle(given: EndpointRouteSettings | SourceSettings, *, is_idle: bool) -> None:
    """What is done to messages that go nowhere is a mistake."""
    for name in ("check", "modify"):
        if is_idle and getattr(given, name) is not None:
            raise InvalidSetting(name, NEVER_USED.format(name))


@dataclass(frozen=True, slots=True)
class SourceRule:
    """Where mail of these senders goes."""

    matches: tuple[Match, ...]
    pipeline: SourceSettings


def _source(value: object) -> SourceRule:
    match value:
        case SourceRule():
            return value
        case (matches, SourceSettings() as pipeline):
            return SourceRule(many(SENDER_MATCH).accept(matches), pipeline)
        case _:
            raise TypeError


SOURCE: Final = Section(
    'domain, address or "" ... { ... }',
    'domains or addresses of senders, or "" for the null reverse-path, and a block',
    _source,
    settings=SourceSettings,
    arguments=SENDER_MATCH,
)


@settings
class EndpointSettings(PipelineSettings):
    """Accepts mail. The addresses stand before the block: `smtp tcp://192.0.2.1:25 tls://[::1]:465 unix:///run/x { }`.

    `listen` are these addresses.
    """

    destination: Destinations[EndpointRouteSettings] = destinations(EndpointRouteSettings)
    default_destination: Maybe[EndpointRouteSettings] = default_destination(EndpointRouteSettings)
    hostname: OptionalDomain = optional(
        DOMAIN,
        inherits=True,
        required=True,
        shown_default="the global `hostname`",
        doc="The name that we greet with, and that stands in Received fields.",
    )
    tls: Setting[ServerTLS | None, ServerTLS | str | None] = optional(
        SERVER_TLS,
        inherits=True,
        shown_default="the global `tls`",
        doc="The certificate for STARTTLS and `tls://`: PEM files with the chain and its key. "
        "`tls { protocols tls1.0 }` takes the global files, and lets older clients in; `check` warns of it.",
    )
    auth: OptionalPath = optional(
        PASSWORD_FILE,
        shown_default="none: nobody can log in",
        doc="The password file, which `mailrider auth` manages. Passwords are asked for under TLS and on loopback "
        "only. On a unix socket the system says whose process it is, and no login is needed.",
    )
    limits: Maybe[LimitsSettings] = optional(
        block(LimitsSettings, reference="limits"),
        doc="How many messages are accepted, in all, by client (`ip`), by source and destination. A message over a "
        "limit waits for some seconds, and is then refused with 451: its client tries again later.",
    )
    max_message_size: Setting[int, int | str] = directive(
        MESSAGE_SIZE, default=32 << 20, shown_default="32M", doc="Larger messages are refused."
    )
    max_header_size: Setting[int, int | str] = directive(
        HEADER_SIZE, default=1 << 20, shown_default="1M", doc="Messages with a larger header are refused; at most 1M."
    )
    max_recipients: Setting[int, int] = directive(
        integer(100, 100_000),
        default=1000,
        doc="How many recipients one transaction may have; clients send the message again for the others.",
    )
    max_received: Setting[int, int] = directive(
        integer(1, 1000), default=100, doc="A message with more Received fields is refused: it is in a loop."
    )
    read_timeout: Duration = directive(
        TIMEOUT,
        default=timedelta(minutes=5),
        doc="The time for a command, and for each 64 KiB of content; a client that needs more is disconnected.",
    )
    max_connections: Setting[int, int] = directive(
        integer(1, 1_000_000),
        default=10_000,
        doc="How many clients may be connected at once; on unix sockets as many again.",
    )
    max_client_connections: Setting[int, int] = directive(
        integer(1, 1_000_000),
        default=500,
        doc="How many connections one client may have at once: an IPv4 address, the /64 of an "
        "IPv6 address, or on unix sockets a user of this machine.",
    )
    proxy_from: Setting[tuple[IPNetwork, ...], Iterable[IPNetwork | str]] = directive(
        many(NETWORK),
        default=(),
        shown_default="nobody",
        doc="Networks of proxies that pass their clients' connections on with the PROXY protocol, version 1 or 2 "
        "(HAProxy: `send-proxy-v2`). Connections from there must begin with its header, and are treated as connections "
        "of the client that it names; connections from elsewhere must not have it. What can be reached "
        "through a proxy can be reached from beyond this machine, also on loopback. TLS is to be passed through, not "
        "ended by the proxy.",
    )
    spool: OptionalPath = optional(
        PATH,
        shown_default="`spool` in the state directory",
        state_path="spool",
        doc="The directory for large messages while they arrive. Their files have no names, and end with the process.",
    )
    max_spool: Setting[int, int | str] = directive(
        size(1 << 20),
        default=2 << 30,
        shown_default="2G",
        doc="How much of the disk messages may take while they arrive; on unix sockets as much again. One "
        "client may take as much as stays free for all others together, and is asked to come again (452) beyond that. "
        "It is divided among `workers`, but each has at least twice `max_message_size`, so that any message may pass.",
    )
    source: Setting[tuple[SourceRule, ...], Iterable[SourceRule | tuple[Any, SourceSettings]]] = directive(
        many(SOURCE),
        default=(),
        repeatable=True,
        doc="Where mail of these senders goes, by the envelope. A block for an address counts before one for its "
        'domain; `""` is the null reverse-path, that of notifications. Nothing proves that the sender is who '
        "he says.",
    )
    default_source: Maybe[SourceSettings] = optional(
        block(SourceSettings), doc="Where mail of everybody else goes, that of no sender included."
    )
    check: Maybe[CheckSettings] = optional(
        block(CheckSettings),
        doc="What is looked at before a message is accepted, whoever sent it. In a `source` or `destination` it is for "
        "some messages only.",
    )
    modify: Maybe[ModifySettings] = optional(
        block(ModifySettings),
        doc="What is done to every message once it is accepted, such as signing. In a `source` or `destination` it is "
        "for some messages only.",
    )
    listen: tuple[SocketAddress, ...] = field(default=())

    @property
    def needs_login(self) -> bool:
        """True if nothing is accepted before a login."""
        return False

    @property
    def beyond(self) -> list[SocketAddress]:
        """The addresses that other machines can reach; through a proxy they reach loopback, too."""
        return [each for each in self.listen if each.ip is not None and (self.proxy_from or not each.is_local)]

    def _validate(self) -> None:
        PipelineSettings._validate(self)
        refuse_repeated("source", [match for rule in self.source for match in rule.matches])
        own = [name for name in ("deliver_to", "reject", "default_destination") if getattr(self, name) is not None]
        if self.default_source is not None and (own or self.destination):
            name = own[0] if own else "destination"
            raise InvalidSetting(name, f"{name} would never be used: default_source takes everybody; put it in there")

    @property
    def pipelines(self) -> Iterator[SourceSettings | EndpointSettings]:
        """All that a message may go through."""
        yield from (rule.pipeline for rule in self.source)
        yield self.default_source or self

    @property
    def every_target(self) -> Iterator[Target]:
        """All that it may deliver to."""
        for pipeline in self.pipelines:
            yield from pipeline.targets


@settings
class SubmissionSettings(EndpointSettings):
    """Accepts mail from mail programs (RFC 6409): with a login, from this machine, or from a network that is trusted.

    Date and Message-ID are added where they are missing, and Bcc is taken out. The addresses stand before the block:
    `submission tls://0.0.0.0:465 tcp://127.0.0.1:587 { ... }`. `listen` are these addresses.
    """

    origin: OptionalDomain = optional(
        DOMAIN,
        inherits=True,
        shown_default="the global `origin`, or `hostname`",
        doc="The domain of addresses that have none, such as `root`: those of the envelope, and those in From, Sender, "
        "Reply-To, To and Cc.",
    )
    trust: Setting[tuple[IPNetwork, ...], Iterable[IPNetwork | str]] = directive(
        many(NETWORK),
        default=(),
        repeatable=True,
        shown_default="nobody",
        doc="Private networks whose clients need no login, such as printers: `trust 10.20.0.0/16`. They send under "
        "`sender_domains` only. The address of the default gateway and our own do not count, unless named by "
        "themselves (`10.20.0.1/32`): in a container everybody comes from there. Behind `proxy_from` the announced "
        "address counts.",
    )
    sender_domains: Setting[tuple[Domain, ...], Iterable[Domain | str]] = directive(
        many(DOMAIN),
        default=(),
        repeatable=True,
        shown_default="none; required with `trust`",
        doc="The domains that clients of `trust` may send under: MAIL FROM, From and Sender have to be of one of them, "
        "and `<>` is refused.",
    )
    aliases: OptionalPath = optional(
        PATH,
        inherits=True,
        shown_default="the global `aliases`, or none",
        doc="A file of aliases(5), such as `/etc/aliases`, which says who gets mail for `root` and other names without "
        "a domain or of `origin`: `root: alice@example.org, bob@example.net`. `:include:/FILE` reads addresses from "
        "another file, `owner-NAME` is who hears of failures of the list NAME. Programs and files get no mail. The "
        "files belong to root or the daemon's user, nobody else may write to them, and they are read again when they "
        "change. A line that is wrong makes mail for its alias wait (451), and no other.",
    )
    received: Setting[ReceivedDetail, ReceivedDetail | str] = directive(
        choice(ReceivedDetail),
        default=ReceivedDetail.FULL,
        doc="What the Received field tells of who handed the message in, and so what every recipient can read. `full`: "
        "the name that the client called itself, its address, and how it was encrypted. `short`: the address alone. "
        "`none-of-client`: nothing; our own log knows it still.",
    )

    def _validate(self) -> None:
        EndpointSettings._validate(self)
        public = next((each for each in self.trust if not is_private(each)), None)
        if public is not None:
            raise InvalidSetting("trust", f"trust: {public} is not a private network: clients out there log in (auth)")
        if self.trust and not self.sender_domains:
            raise InvalidSetting("trust", "trust: sender_domains D... is needed: what these clients may send under")
        if self.sender_domains and not self.trust:
            raise InvalidSetting("sender_domains", "sender_domains would never be used: it is for clients of trust")

    @property
    def needs_login(self) -> bool:
        """True if nothing is accepted before a login."""
        return self.auth is not None


@settings
class LMTPEndpointSettings(EndpointSettings):
    """Accepts mail over LMTP (RFC 2033), with an answer for each recipient. The addresses stand before the block:
    `lmtp unix:///run/mailrider/lmtp.sock { }`.

    `listen` are these addresses.
    """
