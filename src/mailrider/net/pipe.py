"""TLS without a socket: ciphertext in, plaintext out, and back (RFC 8446, RFC 5246).

`TLSPipe` owns an `SSLObject` over two memory buffers. It knows neither transports nor time; the channel feeds it and
sends what it produces. What always holds:

- certificates are captured, never judged here: who accepts what is decided afterwards from the evidence;
- errors of OpenSSL come out as `TLSFailed`, with a reason that a person can read;
- no renegotiation and no session resumption: the contexts of `net.tls` switch both off.
"""

from __future__ import annotations

import _ssl
import ipaddress
import re
import ssl
from typing import TypeAlias

from mailrider.errors import InvalidValue
from mailrider.model.security import TLSEvidence
from mailrider.net.errors import TLSFailed, TLSFailureKind

Bytes: TypeAlias = bytes | bytearray | memoryview

RECORD = 16384
"""The most plaintext that one TLS record carries (RFC 8446 5.1): asking OpenSSL for less would only split it."""


class PeerObject(ssl.SSLObject):
    """An `SSLObject` that also remembers the name a client asked for (RFC 6066 3)."""

    requested_name: str | None = None


class TLSPipe:
    """One TLS connection over bytes; for both roles."""

    __slots__ = ("_incoming", "_object", "_outgoing", "_peer", "_sni", "fed")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, sni: str | None, peer: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        try:
            self._object = context.wrap_bio(
                self._incoming, self._outgoing, server_side=server_side, server_hostname=sni
            )
        except ValueError as error:  # UnicodeError is one
            raise InvalidValue(f"not a host name that TLS can ask for: {sni!r}") from error
        self._sni = sni
        self._peer = peer
        self.fed = 0

    def feed(self, data: Bytes) -> None:
        """Take ciphertext from the peer."""
        self.fed += self._incoming.write(data)

    def take(self) -> bytes:
        """Ciphertext for the peer; empty if there is none."""
        return self._outgoing.read()

    def shake_hands(self) -> bool:
        """Go on with the handshake: True once it is done; `TLSFailed` (and an alert to take) if it cannot be."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise self._failure("the TLS handshake failed", error) from error
        return True

    def read(self) -> bytes | None:
        """Plaintext, at most a record; empty if there is none yet, None if the peer has closed TLS properly."""
        if not self._incoming.pending:
            return b""
        try:
            # Empty means close_notify: OpenSSL steps over empty records by itself.
            return self._object.read(RECORD) or None
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLZeroReturnError:
            return None
        except ssl.SSLError as error:
            raise self._failure("TLS failed", error) from error

    def encrypt(self, data: Bytes) -> bytes:
        """`data` as records, with whatever else waits for the peer."""
        view = memoryview(data)
        try:
            written = self._object.write(view)
            while written < len(view):  # OpenSSL takes a record at a time
                written += self._object.write(view[written:])
        except ssl.SSLError as error:
            raise self._failure("TLS failed", error) from error
        return self._outgoing.read()

    def close(self) -> bytes:
        """The close_notify alert for the peer, if it can still be made; nothing can be encrypted after it."""
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # the usual one: the peer's own close_notify has not arrived, and nobody waits for it
        return self._outgoing.read()

    def evidence(self) -> TLSEvidence:
        """What the peer proved in the handshake that is now done."""
        cipher = self._object.cipher()
        name = self._sni if self._sni is not None else getattr(self._object, "requested_name", None)
        return TLSEvidence(
            version=self._object.version() or "",
            cipher=cipher[0] if cipher else "",
            chain=chain_as_sent(self._object),
            sni=name,
        )

    def _failure(self, what: str, error: ssl.SSLError) -> TLSFailed:
        kind, reason = explain(error)
        alert = remote_alert(error)
        if kind is TLSFailureKind.PROTOCOL and not self.fed:
            kind = TLSFailureKind.LOCAL  # it failed before the peer had said anything
        elif kind is TLSFailureKind.PROTOCOL:
            alert = self._alert_to_send()
        return TLSFailed(f"{self._peer}: {what}: {reason}", kind, alert)

    def _alert_to_send(self) -> str:
        """The name of the alert that waits to be sent; empty if there is none, or it is encrypted."""
        waiting = self._outgoing.read()
        self._outgoing.write(waiting)
        # RFC 8446 5.1, 6: content type 21, version, two octets of length, level fatal, description; it comes last.
        *_, kind, _, _, high, low, level, description = bytes(7) + waiting
        return _ALERT_NAMES.get(description, "") if (kind, high, low, level) == (21, 0, 2, 2) else ""


def chain_as_sent(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """The peer's certificates in DER, as it sent them, its own first; empty if it sent none."""
    public = getattr(tls, "get_unverified_chain", None)
    if public is not None:  # Python 3.13
        return tuple(public())
    chain = tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return tuple(certificate.public_bytes(_ssl.ENCODING_DER) for certificate in chain or ())


def client_name(server_name: str | None) -> str | None:
    """What to put into SNI for `server_name`: a host name without trailing dot; nothing for an address (RFC 6066 3)."""
    if not server_name:
        return None
    name = server_name.rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name
    return None


# OpenSSL's names for alerts that it received: most have ALERT in them, the extensions' ones do not.
_ALERT = re.compile(
    r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_(?P<alert>\w+)|(?P<extension>UNSUPPORTED_EXTENSION|UNRECOGNIZED_NAME"
    r"|CERTIFICATE_UNOBTAINABLE|BAD_CERTIFICATE_STATUS_RESPONSE|BAD_CERTIFICATE_HASH_VALUE))$"
)

# RFC 8446 6, and what TLS 1.2 has besides (RFC 5246 7.2).
_ALERT_NAMES = {
    10: "unexpected_message",
    20: "bad_record_mac",
    22: "record_overflow",
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    47: "illegal_parameter",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
}

_PLAIN_WORDS = {
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS, or none of its versions that we accept",
    "UNSUPPORTED_PROTOCOL": "the peer offers only TLS versions that we do not accept",
    "NO_SHARED_CIPHER": "no cipher that both sides accept",
    "NO_CIPHERS_AVAILABLE": "our own list of ciphers has none for the TLS versions that we accept",
    "NO_PROTOCOLS_AVAILABLE": "our own settings leave no TLS version",
    "DH_KEY_TOO_SMALL": "the peer's Diffie-Hellman group is too small",
    "HTTP_REQUEST": "the peer speaks HTTP",
}


def explain(error: ssl.SSLError) -> tuple[TLSFailureKind, str]:
    """Whose doing an OpenSSL error is, and what it says, in words."""
    if isinstance(error, ssl.SSLZeroReturnError | ssl.SSLEOFError):
        return TLSFailureKind.CLOSED, "the peer closed TLS"
    name = error.reason or ""
    alert = _ALERT.match(name)
    if alert is not None:
        return TLSFailureKind.ALERT, f'the peer sent the alert "{_words(alert["alert"] or alert["extension"])}"'
    return TLSFailureKind.PROTOCOL, _PLAIN_WORDS.get(name) or _words(name) or str(error)


def remote_alert(error: ssl.SSLError) -> str:
    """The name of the alert that the peer sent, as RFC 8446 6 writes it; empty if it sent none."""
    alert = _ALERT.match(error.reason or "")
    return (alert["alert"] or alert["extension"]).lower() if alert is not None else ""


def _words(name: str) -> str:
    return name.replace("_", " ").lower()
