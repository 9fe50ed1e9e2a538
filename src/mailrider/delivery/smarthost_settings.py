"""Settings of the targets with a fixed next hop: `target.smtp { }` (smarthost) and `target.lmtp { }`."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.delivery.settings import (
    COMMAND_TIMEOUT,
    DEBUG,
    EIGHT_BIT,
    HOSTNAME,
    IDLE_COUNT,
    IDLE_TIME,
    LIMITS,
    LOCAL_IP,
    PER_HOST,
    SUBMISSION_TIMEOUT,
    TLS_CLIENT,
)
from mailrider.model.security import TLSLevel
from mailrider.settings.directive import InvalidSetting, MissingSecret, Settings, directive, optional, settings
from mailrider.settings.socket_address import SOCKET_ADDRESS, Scheme
from mailrider.settings.types import (
    TIMEOUT,
    Unacceptable,
    ValueType,
    Words,
    choice,
    integer,
    many,
)
from mailrider.smtp.sasl import Credentials

if TYPE_CHECKING:
    from mailrider.delivery.settings import EightBit, LimitsSettings
    from mailrider.net.settings import TLSClientSettings
    from mailrider.settings.directive import Duration, Maybe, OptionalDomain, Setting
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
    hostname: OptionalDomain = HOSTNAME
    auth: Setting[Credentials | MissingSecret | None, Credentials | Iterable[str] | str | None] = optional(
        CREDENTIALS,
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
    limits: Maybe[LimitsSettings] = LIMITS
    local_ip: Setting[IPAddress | None, IPAddress | str | None] = LOCAL_IP
    connect_timeout: Duration = directive(
        TIMEOUT, default=timedelta(minutes=1), doc="The time for looking up a server's addresses and connecting."
    )
    command_timeout: Duration = COMMAND_TIMEOUT
    submission_timeout: Duration = SUBMISSION_TIMEOUT
    max_connections_per_host: Setting[int, int] = PER_HOST
    conn_reuse_limit: Setting[int, int] = directive(
        integer(1),
        default=100,
        unit="transactions",
        doc="How many transactions one connection may carry.",
    )
    conn_max_idle_count: Setting[int, int] = IDLE_COUNT
    conn_max_idle_time: Duration = IDLE_TIME
    tls_client: Maybe[TLSClientSettings] = TLS_CLIENT
    eight_bit: Setting[EightBit, str] = EIGHT_BIT
    debug: Maybe[bool] = DEBUG

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
