"""Settings of the targets with a fixed next hop: `target.smtp { }` (smarthost) and `target.lmtp { }`."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.delivery.settings import MAX_CONNECTIONS, MAX_CONNECTIONS_PER_HOST, EightBit, LimitsSettings
from mailrider.model.security import TLSLevel
from mailrider.net.settings import TLSClientSettings
from mailrider.settings.directive import InvalidSetting, MissingSecret, Settings, block, directive, settings
from mailrider.settings.socket_address import SOCKET_ADDRESS, Scheme
from mailrider.settings.types import (
    BOOLEAN,
    DOMAIN,
    IP_ADDRESS,
    TIMEOUT,
    Unacceptable,
    ValueType,
    Words,
    choice,
    duration,
    integer,
    many,
)
from mailrider.smtp.sasl import Credentials

if TYPE_CHECKING:
    from mailrider.settings.directive import Duration, OptionalDomain, Setting
    from mailrider.settings.socket_address import SocketAddress
    from mailrider.settings.types import IPAddress


class StartTLSUse(enum.StrEnum):
    """Whether STARTTLS is used on `tcp://` and `unix://`."""

    REQUIRED = "required"
    OFFERED = "offered"
    NO = "no"


def _credentials(value: object) -> Credentials | None:
    if value is None or isinstance(value, Credentials):
        return value
    words = value.split() if isinstance(value, str) else list(value) if isinstance(value, Iterable) else []
    if words == ["off"]:
        return None
    if len(words) != 3 or words[0] != "plain" or not all(words):
        # What was given is not repeated: the password is in it.
        raise Unacceptable("expected plain USER PASSWORD, or off")
    return Credentials(words[1], words[2])


CREDENTIALS = ValueType("credentials", "plain USER PASSWORD, or off", _credentials, words=Words.WORDS)


@settings
class SmarthostSettings(Settings):
    """Delivery of everything to fixed servers (a smarthost), tried in the order in which they are given."""

    host: Setting[tuple[SocketAddress, ...], Iterable[SocketAddress | str]] = directive(
        many(SOCKET_ADDRESS),
        default=(),
        repeatable=True,
        shown_default="none; at least one is required",
        doc="A server: `tcp://HOST:PORT` (with STARTTLS, see there), `tls://HOST:PORT` (TLS at once) or `unix:///PATH`.",
    )
    hostname: OptionalDomain = directive(
        DOMAIN,
        default=None,
        inherits=True,
        required=True,
        shown_default="the global `hostname`",
        doc="The name that we greet with (EHLO or LHLO).",
    )
    auth: Setting[Credentials | MissingSecret | None, Credentials | Iterable[str] | str | None] = directive(
        CREDENTIALS,
        default=None,
        secret=True,
        shown_default="off",
        doc="`plain USER PASSWORD` logs in, once TLS has proved what `min_tls_level` demands. `{file:PATH}` as the "
        "password takes it from a file, `{env:NAME}` from the environment.",
    )
    starttls: Setting[StartTLSUse, StartTLSUse | str] = directive(
        choice(StartTLSUse),
        default=StartTLSUse.REQUIRED,
        doc="Whether STARTTLS is demanded, used where it is offered, or not used, on `tcp://`.",
    )
    min_tls_level: Setting[TLSLevel, TLSLevel | str] = directive(
        choice(TLSLevel),
        default=TLSLevel.AUTHENTICATED,
        doc="What TLS must prove. `authenticated`: the certificate is valid for HOST. Without TLS (`starttls no`, and "
        "`unix://`) nothing is proved, and nothing is demanded.",
    )
    limits: Setting[LimitsSettings | None, LimitsSettings | None] = directive(
        block(LimitsSettings, reference="limits"),
        default=None,
        doc="How many messages may leave, in all and by source and destination.",
    )
    local_ip: Setting[IPAddress | None, IPAddress | str | None] = directive(
        IP_ADDRESS, default=None, shown_default="any", doc="The source address of our connections."
    )
    connect_timeout: Duration = directive(
        TIMEOUT, default=timedelta(minutes=1), doc="The time for looking up a server's addresses and connecting."
    )
    command_timeout: Duration = directive(
        TIMEOUT, default=timedelta(minutes=5), doc="The time for the reply to any command, and for the TLS handshake."
    )
    submission_timeout: Duration = directive(
        TIMEOUT, default=timedelta(minutes=12), doc="The time for the reply to the final dot."
    )
    max_connections_per_host: Setting[int, int] = directive(
        integer(1, MAX_CONNECTIONS),
        default=MAX_CONNECTIONS_PER_HOST,
        unit="connections",
        doc="How many connections may be open to one address of a server at once. Further messages wait for one of "
        "them, 5 minutes at most.",
    )
    conn_reuse_limit: Setting[int, int] = directive(
        integer(1),
        default=100,
        unit="transactions",
        doc="How many transactions one connection may carry.",
    )
    conn_max_idle_count: Setting[int, int] = directive(
        integer(0),
        default=10,
        unit="connections",
        doc="How many idle connections are kept. Each of several workers keeps its part, rounded up.",
    )
    conn_max_idle_time: Duration = directive(
        duration(bare_seconds=True),
        default=timedelta(seconds=150),
        shown_default="150",
        unit="seconds",
        doc="How long an idle connection is considered usable.",
    )
    tls_client: Setting[TLSClientSettings | None, TLSClientSettings | None] = directive(
        block(TLSClientSettings),
        default=None,
        inherits=True,
        shown_default="the global `tls_client`",
        doc="How TLS is used. A block here replaces the global one as a whole.",
    )
    eight_bit: Setting[EightBit, str] = directive(
        choice(EightBit), default=EightBit.SEND, doc="8-bit content to a server without 8BITMIME; as in target.remote."
    )
    debug: Setting[bool | None, bool | None] = directive(
        BOOLEAN,
        default=None,
        inherits=True,
        shown_default="the global `debug`",
        doc="Write the SMTP dialogue and every decision to the log.",
    )

    def _validate(self) -> None:
        if not self.host:
            raise InvalidSetting("host", "expected at least one server, such as tls://smtp.example.org:465")
        for each in self.host:
            if each.scheme is not Scheme.UNIX and not each.port:
                raise InvalidSetting("host", f"expected a port of 1 to 65535, not 0: {each}")
        clear = [each for each in self.host if each.scheme is Scheme.TCP and self.starttls is not StartTLSUse.REQUIRED]
        if self.auth is not None and any(not each.is_local for each in clear):
            raise InvalidSetting("auth", f"{clear[0]} could get the password in clear; use starttls required or tls://")
        remote = [each for each in self.host if not each.is_local]
        if self.auth is not None and remote and self.min_tls_level is TLSLevel.NONE:
            # Whoever stands in between would only have to show some certificate.
            text = f"anybody could answer for {remote[0]} and get the password; use min_tls_level authenticated"
            raise InvalidSetting("auth", text)


@settings
class LMTPSettings(SmarthostSettings):
    """Delivery of everything to a local mail store over LMTP (RFC 2033), such as Dovecot's."""

    starttls: Setting[StartTLSUse, StartTLSUse | str] = directive(
        choice(StartTLSUse),
        default=StartTLSUse.OFFERED,
        doc="Whether STARTTLS is demanded, used where it is offered, or not used, on `tcp://`.",
    )
    min_tls_level: Setting[TLSLevel, TLSLevel | str] = directive(
        choice(TLSLevel),
        default=TLSLevel.NONE,
        doc="What TLS must prove. `authenticated`: the certificate is valid for HOST.",
    )
