"""TLS contexts: what we offer and accept, made once from the settings and used for every connection.

The client context accepts any certificate: chains are captured and judged afterwards (by x509 and dane), so that one
handshake serves PKIX and DANE alike. Both kinds of context refuse renegotiation, compression and session resumption:
a resumed session would carry no certificate to judge.

What this Python's `ssl` cannot do is a `ConfigError` that names the directive, what was given and what is possible;
nothing that was asked for is ever silently left out.
"""

from __future__ import annotations

import difflib
import platform
import re
import ssl
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from mailrider.errors import ConfigError, do_all
from mailrider.files import read_regular
from mailrider.model.text import few
from mailrider.net.pipe import PeerObject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mailrider.net.settings import TLSClientSettings

ClientContext = ssl.SSLContext
"""What `make_client_context` makes, by a name for those who only hand it on."""
ServerContext = ssl.SSLContext
"""The same of `make_server_context`."""

PROTOCOLS = {
    "tls1.0": ssl.TLSVersion.TLSv1,
    "tls1.1": ssl.TLSVersion.TLSv1_1,
    "tls1.2": ssl.TLSVersion.TLSv1_2,
    "tls1.3": ssl.TLSVersion.TLSv1_3,
}
"""The words of the `protocols` directive, weakest first."""

CURVES = {
    "x25519": "X25519",
    "x448": "X448",
    "p256": "prime256v1",
    "p384": "secp384r1",
    "p521": "secp521r1",
}
"""The words of the `curves` directive, and OpenSSL's."""

# RFC 7435: what is opportunistic should not fail where weak is possible, because what follows is no encryption at all.
# So OpenSSL's own default list, and keys from 1024 bits on (level 1), not Python's stricter one.
_CIPHERS = "DEFAULT:@SECLEVEL=1"
# TLS 1.0 and 1.1 sign with MD5 and SHA-1, which OpenSSL 3 does at level 0 only.
_OLD_CIPHERS = "DEFAULT:@SECLEVEL=0"

# What OpenSSL says where key and certificate are not a pair: of one kind, or of two.
_OF_OTHERS = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
# The lines that begin what is looked for (RFC 7468 5.1, 10, and the older ones that OpenSSL reads too).
MAX_PEM: Final = 16 << 20  # octets of a file: the certificates of all authorities are a quarter of a MiB
_CERTIFICATE = re.compile(rb"-----BEGIN (X509 |TRUSTED )?CERTIFICATE-----")
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z0-9]+ )?PRIVATE KEY-----")


class _NewerContext(Protocol):
    """What `ssl.SSLContext` has from Python 3.15 on."""

    def set_ciphersuites(self, ciphersuites: str, /) -> None: ...

    def set_groups(self, groups: str, /) -> None: ...


# In `ssl` since Python 3.12; the number is OpenSSL's.
OP_LEGACY_SERVER_CONNECT = getattr(ssl, "OP_LEGACY_SERVER_CONNECT", 0x4)


def make_client_context(settings: TLSClientSettings, *, strict: bool = False) -> ssl.SSLContext:
    """The context for outbound connections; `ConfigError` for what cannot be.

    `strict` is for connections that something demands TLS of: servers without secure renegotiation (RFC 5746) are
    refused. Others get what TLS they can do, because what follows a failure is no encryption at all (RFC 7435).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _restrict(context)
    if strict:
        context.options &= ~OP_LEGACY_SERVER_CONNECT
    else:
        context.options |= OP_LEGACY_SERVER_CONNECT
    old = _set_protocols(context, *settings.protocols)
    context.set_ciphers(_OLD_CIPHERS if old else _CIPHERS)
    steps: list[Callable[[], None]] = []
    if settings.ciphers:
        steps.append(partial(_set_ciphers, context, settings.ciphers, old=old))
    if settings.curves:
        steps.append(partial(_set_curves, context, settings.curves))
    if settings.cert is not None and settings.key is not None:
        steps.append(partial(_load_certificate, context, settings.cert, settings.key))
    do_all(steps)
    return context


def make_server_context(
    cert: Path,
    key: Path,
    *,
    protocols: tuple[str, str] = ("tls1.2", "tls1.3"),
    ciphers: Sequence[str] = (),
    client_ca: Path | None = None,
    choose: Callable[[str | None], ssl.SSLContext | None] | None = None,
    weak: bool = False,
) -> ssl.SSLContext:
    """The context for inbound connections, with the chain in `cert` (PEM, leaf first) and its `key`.

    `client_ca` demands a client certificate of those authorities. `choose` is given the name that a client asks for
    and may return another context for it. `weak` admits keys and signatures that nobody should use (labs).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    old = _set_protocols(context, *protocols)
    context.set_ciphers(_OLD_CIPHERS if old or weak else _CIPHERS)
    if ciphers:
        _set_ciphers(context, ciphers, old=old or weak)
    # RFC 8446 2.2: without tickets a client cannot resume; and each would cost a write and a key.
    context.num_tickets = 0
    _load_certificate(context, cert, key)
    if client_ca is not None:
        _demand_client_certificate(context, client_ca)
    context.sslobject_class = PeerObject
    context.sni_callback = _remember_name(choose)
    return context


def default_root_paths() -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Files and directories in which the system keeps its trusted roots, as this Python knows them."""
    paths = ssl.get_default_verify_paths()
    return tuple(map(Path, filter(None, (paths.cafile,)))), tuple(map(Path, filter(None, (paths.capath,))))


# Where systems keep all their trusted roots in one file: Debian and Alpine; Fedora; BSD and macOS.
_ROOT_FILES = tuple(
    map(Path, ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"))
)


def system_roots() -> str:
    """One file with the system's trusted roots, for a library that is not Python's; empty if there is none."""
    files, _ = default_root_paths()
    return next((str(path) for path in (*files, *_ROOT_FILES) if path.is_file()), "")


def _restrict(context: ssl.SSLContext) -> None:
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET


def _set_protocols(context: ssl.SSLContext, lowest: str, highest: str) -> bool:
    """Set the versions; True if one of them is older than TLS 1.2."""
    low, high = PROTOCOLS[lowest], PROTOCOLS[highest]
    with warnings.catch_warnings():
        # Python deprecates asking for TLS 1.0 and 1.1, OpenSSL still has them; the operator wants it.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = low, high
    return low < ssl.TLSVersion.TLSv1_2


def _set_ciphers(context: ssl.SSLContext, ciphers: Sequence[str], *, old: bool) -> None:
    """Set the ciphers of TLS 1.2 and older, and of TLS 1.3, each in the order given."""
    newer = [name for name in ciphers if name.startswith("TLS_")]
    older = [name for name in ciphers if name not in newer]
    if newer:
        _needs_newer(context, "set_ciphersuites", "ciphers", newer[0], "leave out the TLS 1.3 ciphers")
        _apply(_newer(context).set_ciphersuites, newer, "ciphers")
    if older:
        for name in older:  # OpenSSL skips unknown ones as long as it knows any
            if name[0] not in "!-+@":
                bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                _apply(bare.set_ciphers, [name], "ciphers", _cipher_names)
        if not any(name.startswith("@SECLEVEL") for name in older):
            older.append("@SECLEVEL=0" if old else "@SECLEVEL=1")
        _apply(context.set_ciphers, older, "ciphers")


def _cipher_names() -> list[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    return [str(cipher["name"]) for cipher in context.get_ciphers()]


def _set_curves(context: ssl.SSLContext, curves: Sequence[str]) -> None:
    given = " ".join(curves)
    if hasattr(context, "set_groups"):
        try:
            _newer(context).set_groups(":".join(CURVES[curve] for curve in curves))
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"curves: OpenSSL does not take {given!r}") from error
    elif len(curves) > 1:
        _needs_newer(context, "set_groups", "curves", given, "name one curve, or none for OpenSSL's own list")
    elif not _takes_curve(context, given):
        # Some patch levels of Python (3.11.2 of Debian 12) use a function of OpenSSL that knows no X25519 and X448.
        others = [curve for curve in CURVES if _takes_curve(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), curve)]
        raise ConfigError(
            f"curves: Python {platform.python_version()} cannot ask OpenSSL for {given!r}, only for one of "
            f"{few(others)}; name one of these, or none for OpenSSL's own list"
        )


def _takes_curve(context: ssl.SSLContext, curve: str) -> bool:
    """True if it is set now."""
    try:
        context.set_ecdh_curve(CURVES[curve])
    except (ssl.SSLError, ValueError):
        return False
    return True


def _apply(
    setter: Callable[[str], object],
    names: Sequence[str],
    directive: str,
    known: Callable[[], list[str]] | None = None,
) -> None:
    try:
        setter(":".join(names))
    except (ssl.SSLError, ValueError) as error:
        given = " ".join(names)
        hint = _instead(given, known()) if known is not None else ""
        raise ConfigError(f"{directive}: OpenSSL does not take {given!r}{hint}") from error


def _newer(context: ssl.SSLContext) -> _NewerContext:
    return context  # type: ignore[return-value] # asked only where it has them


def _needs_newer(context: ssl.SSLContext, method: str, directive: str, given: str, instead: str) -> None:
    if not hasattr(context, method):
        here = ".".join(map(str, sys.version_info[:2]))
        raise ConfigError(f"{directive}: {given!r} needs Python 3.15 or newer, this is {here}; {instead}")


def _instead(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it may be one of {few(known)}"


def _load_certificate(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    do_all(partial(_try_to_read, directive, path) for directive, path in (("cert", cert), ("key", key)))
    try:
        # Without a function OpenSSL would ask for a password on the terminal.
        context.load_cert_chain(cert, key, password=lambda: _no_password(key))
    except ssl.SSLError as error:
        raise ConfigError(_why_not_usable(cert, key, error)) from error


def _why_not_usable(cert: Path, key: Path, error: ssl.SSLError) -> str:
    """Which of the two files is wrong, and how. OpenSSL itself names none, and often says no more than "PEM lib"."""
    if error.reason in _OF_OTHERS:
        return (
            f"key: {key} is not the key of the first certificate in {cert}; the server's own certificate must come "
            "first there, and the key must be the one that it was made for"
        )
    for directive, path, label, what in (
        ("cert", cert, _CERTIFICATE, "certificate"),
        ("key", key, _PRIVATE_KEY, "private key"),
    ):
        fault = _fault_of_pem(path, label, what)
        if fault:
            return f"{directive}: {path} cannot be used: {fault}"
    if not _can_be_read(cert):
        return f"cert: {cert} cannot be used: a certificate in it is damaged or cut off"
    if error.reason is None:
        return f"key: {key} cannot be used: the private key in it is damaged or cut off"
    return f"cert: {cert} with key {key} cannot be used: OpenSSL says {error.reason.replace('_', ' ').lower()!r}"


def _fault_of_pem(path: Path, label: re.Pattern[bytes], what: str) -> str:
    """Why a file has nothing of that kind; empty if it has."""
    content = path.read_bytes()
    if not content.strip():
        return "it is empty"
    if label.search(content) is None:
        return f"it has no {what} in PEM (text with a line -----BEGIN {what.upper()}-----)"
    return ""


def _can_be_read(certificates: Path) -> bool:
    """True if OpenSSL can read each certificate of a file."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificates)
    except ssl.SSLError:
        return False
    return True


def _try_to_read(directive: str, path: Path) -> None:
    try:
        size = read_regular(path, 0)[1].st_size
    except OSError as error:
        raise ConfigError(f"{directive}: {path} cannot be read: {error.strerror}") from error
    if size > MAX_PEM:
        raise ConfigError(f"{directive}: {path} is larger than {MAX_PEM} octets")


def _no_password(key: Path) -> str:
    raise ConfigError(f"key: {key} is encrypted; only a key without a password can be used")


def _demand_client_certificate(context: ssl.SSLContext, authorities: Path) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    _try_to_read("client_ca", authorities)
    try:
        context.load_verify_locations(authorities)
    except ssl.SSLError as error:
        fault = _fault_of_pem(authorities, _CERTIFICATE, "certificate")
        why = fault or "a certificate in it is damaged or cut off"
        raise ConfigError(f"client_ca: {authorities} cannot be used: {why}") from error


def _remember_name(
    choose: Callable[[str | None], ssl.SSLContext | None] | None,
) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    def chosen(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if isinstance(tls, PeerObject):
            tls.requested_name = name
        other = choose(name) if choose is not None else None
        if other is not None:
            tls.context = other

    return chosen
