"""Settings of TLS: `tls_client { }` for connections that we open, `tls` for those that we accept.

Only what the configuration says: whether the Python at hand can do it (several curves, ciphers of
TLS 1.3) is for `net.channel` to find out when it makes its contexts, before any connection.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mailrider.settings.directive import InvalidSetting, Section, Settings, directive, optional, settings
from mailrider.settings.types import PATH, ValueType, Words, choice, either, many

if TYPE_CHECKING:
    from mailrider.settings.directive import OptionalPath, Paths, Setting

_CIPHER = re.compile(r"[A-Za-z0-9_+!@=.-]{1,100}")


class TLSVersion(enum.StrEnum):
    """Protocol versions, oldest first; their order is the order of their values."""

    TLS1_0 = "tls1.0"
    TLS1_1 = "tls1.1"
    TLS1_2 = "tls1.2"
    TLS1_3 = "tls1.3"


class Curve(enum.StrEnum):
    """Groups for the key exchange, by their usual names."""

    X25519 = "x25519"
    X448 = "x448"
    P256 = "p256"
    P384 = "p384"
    P521 = "p521"


def _protocols(value: object) -> tuple[TLSVersion, TLSVersion]:
    given = value.split() if isinstance(value, str) else value
    if not isinstance(given, Iterable):
        raise TypeError
    versions = tuple(TLSVersion(each) for each in given)
    if not 1 <= len(versions) <= 2 or versions[0] > versions[-1]:
        raise ValueError
    return versions[0], versions[1] if len(versions) == 2 else max(TLSVersion)


def _cipher(value: object) -> str:
    if not isinstance(value, str) or not _CIPHER.fullmatch(value):
        raise ValueError
    return value


PROTOCOLS = ValueType(
    "MIN [MAX]",
    f"the oldest and the newest protocol version, of {either(TLSVersion)}",
    _protocols,
    choices=tuple(TLSVersion),
    words=Words.LINE,
)
CIPHER = ValueType("cipher", "a cipher name as OpenSSL writes it", _cipher)


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """Our certificate, as PEM files: the chain, leaf first, and its key. Without them there is no TLS.

    `protocols`: the oldest and the newest version; None: from TLS 1.2 on. `position`: where the files stand in the
    configuration, for errors.
    """

    cert: Path | None = None
    key: Path | None = None
    protocols: tuple[TLSVersion, TLSVersion] | None = None
    position: Any = field(default=None, compare=False, repr=False)

    @property
    def is_on(self) -> bool:
        """True if there is a certificate."""
        return self.cert is not None and self.key is not None

    @property
    def versions(self) -> tuple[TLSVersion, TLSVersion]:
        """The oldest and the newest protocol version."""
        return self.protocols or (TLSVersion.TLS1_2, TLSVersion.TLS1_3)

    def __str__(self) -> str:
        return f"{self.cert} {self.key}" if self.is_on else "off"


@settings
class ServerTLSOptions(Settings):
    """Options of `tls CERT KEY { ... }`."""

    protocols: Setting[tuple[TLSVersion, TLSVersion] | None, Iterable[str]] = optional(
        PROTOCOLS,
        shown_default="tls1.2 tls1.3",
        doc="The oldest and the newest protocol version that clients may speak. With one version, the newest is "
        "tls1.3. tls1.0 and tls1.1 are insecure: for old printers and cameras, best on an endpoint of their own.",
    )


def _server_tls(value: ServerTLS | str | Iterable[str]) -> ServerTLS:
    if isinstance(value, ServerTLS):
        return value
    words = value.split() if isinstance(value, str) else list(value)
    if words == ["off"]:
        return ServerTLS()
    if words[:1] == ["file"]:  # maddy's word for it
        words = words[1:]
    if len(words) != 2:
        raise ValueError
    return ServerTLS(Path(words[0]), Path(words[1]))


SERVER_TLS = Section(
    "CERT KEY { ... } | off",
    "a file with the certificate and one with its key, or off",
    _server_tls,
    words=Words.WORDS,
    settings=ServerTLSOptions,
    arguments=PATH,
    bare=True,
)


@settings
class TLSClientSettings(Settings):
    """How connections that we open use TLS."""

    protocols: Setting[tuple[TLSVersion, TLSVersion], Iterable[str]] = directive(
        PROTOCOLS,
        default=(TLSVersion.TLS1_2, TLSVersion.TLS1_3),
        doc="The oldest and the newest protocol version that is spoken. With one version, the "
        "newest is tls1.3. tls1.0 and tls1.1 are insecure, and work when they are asked for.",
    )
    ciphers: Setting[tuple[str, ...], Iterable[str]] = directive(
        many(CIPHER),
        default=(),
        shown_default="those of the system's OpenSSL",
        doc="The cipher suites that are offered, best first. An error if the Python at hand cannot restrict them so.",
    )
    curves: Setting[tuple[Curve, ...], Iterable[str]] = directive(
        many(choice(Curve)),
        default=(),
        shown_default="those of the system's OpenSSL",
        doc="The groups for the key exchange. An error if the Python at hand cannot restrict them so: before 3.15 it "
        "takes one curve at most, and Debian 12's takes neither x25519 nor x448 (both are in OpenSSL's own list).",
    )
    root_ca: Paths = directive(
        many(PATH),
        default=(),
        shown_default="the system's",
        doc="PEM files with the certificates of the authorities that are trusted, instead of the system's.",
    )
    cert: OptionalPath = optional(PATH, doc="PEM file with our own certificate chain; needs `key`.")
    key: OptionalPath = optional(PATH, doc="PEM file with the private key of `cert`.")

    def _validate(self) -> None:
        if (self.cert is None) is not (self.key is None):
            given, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise InvalidSetting(given, f"{given} needs {missing} beside it")
