"""OpenSSL's errors in words, and the names of alerts (RFC 8446 6, RFC 5246 7.2)."""

from __future__ import annotations

import re
import ssl

from mailrider.net.errors import TLSFailureKind

# OpenSSL's names for alerts that it received: most have ALERT in them, the extensions' ones do not.
_ALERT = re.compile(
    r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_(?P<alert>\w+)|(?P<extension>UNSUPPORTED_EXTENSION|UNRECOGNIZED_NAME"
    r"|CERTIFICATE_UNOBTAINABLE|BAD_CERTIFICATE_STATUS_RESPONSE|BAD_CERTIFICATE_HASH_VALUE))$"
)

# RFC 8446 6, and what TLS 1.2 has besides (RFC 5246 7.2).
ALERT_NAMES = {
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
