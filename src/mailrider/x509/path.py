"""From a server's certificate to a trust anchor: the path, and everything that is wrong with it (RFC 5280 6).

OpenSSL builds the path and checks signatures, dates, CA flags, path lengths, name constraints and critical
extensions. What its store does not ask is asked here: the purpose (it would take a client certificate for a server's)
and the strength of keys and signatures. Trust anchors are judged like the rest, their dates too, as OpenSSL does;
only their own signature is nobody's business. An anchor need not be self-signed: whoever trusts an intermediate CA
says so (RFC 5280 6.1.1 (d)), and DANE-TA depends on it. Revocation is not looked up.

Each judgement has a store of its own. A shared one would keep the time of its first judgement for good (OpenSSL
lets a later `set_time` fall by the wayside), and accept certificates long after their end.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from mailrider.x509.keys import weak_signature

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from mailrider.x509.certificate import Certificate


@dataclass(frozen=True, slots=True)
class Path:
    """The certificates from the server's to the anchor, empty if there is no path, and what speaks against it."""

    certificates: tuple[Certificate, ...]
    problems: tuple[str, ...]


class _Fault(enum.IntEnum):
    """The OpenSSL verification errors that we have words for; all of them come with a certificate."""

    UNABLE_TO_GET_ISSUER_CERT = 2
    CERT_SIGNATURE_FAILURE = 7
    CERT_NOT_YET_VALID = 9
    CERT_HAS_EXPIRED = 10
    DEPTH_ZERO_SELF_SIGNED_CERT = 18
    SELF_SIGNED_CERT_IN_CHAIN = 19
    UNABLE_TO_GET_ISSUER_CERT_LOCALLY = 20
    UNABLE_TO_VERIFY_LEAF_SIGNATURE = 21
    PATH_LENGTH_EXCEEDED = 25
    UNHANDLED_CRITICAL_EXTENSION = 34
    PERMITTED_VIOLATION = 47
    EXCLUDED_VIOLATION = 48
    INVALID_CA = 79


def find_path(leaf: Certificate, others: Iterable[Certificate], anchors: Iterable[Certificate], now: datetime) -> Path:
    """The path from `leaf` over some of `others` to one of `anchors`, judged at `now` (aware).

    The leaf's own purpose, key and dates are judged even where there is no path, so that people see all of it at once.
    """
    others = tuple(others)
    anchors = tuple(anchors)
    store = crypto.X509Store()
    for anchor in anchors:
        store.add_cert(anchor.openssl)
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(now.astimezone(UTC))
    context = crypto.X509StoreContext(store, leaf.openssl, [other.openssl for other in others])
    known = {_der(certificate.openssl): certificate for certificate in (*anchors, *others, leaf)}
    try:
        certificates = tuple(known[_der(certificate)] for certificate in context.get_verified_chain())
        problems = []
    except crypto.X509StoreContextError as error:
        certificates = ()
        problems = [_explain(error, leaf, known)]
    problems += _date_problems(leaf, now) + _leaf_problems(leaf)
    for index, certificate in enumerate(certificates):
        is_anchor = index == len(certificates) - 1
        problems += _issuer_problems(certificate, is_leaf=index == 0, is_anchor=is_anchor)
    return Path(certificates, tuple(dict.fromkeys(problems)))


def _der(certificate: crypto.X509) -> bytes:
    """OpenSSL's own encoding, which is that of the peer only if it was DER to the last octet."""
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def _explain(error: crypto.X509StoreContextError, leaf: Certificate, known: dict[bytes, Certificate]) -> str:
    code, depth, words = error.errors
    try:
        fault = _Fault(code)
        blamed = known[_der(error.certificate)]
    except (ValueError, KeyError, crypto.Error):
        return f"OpenSSL says: {words}"
    return _words(fault, blamed, "" if depth == 0 or blamed is leaf else f"its issuer {blamed.subject}: ")


def _words(fault: _Fault, blamed: Certificate, whose: str) -> str:
    """The error in a postmaster's words. `whose` begins the sentence where it is not about the server's certificate."""
    match fault:
        case _Fault.DEPTH_ZERO_SELF_SIGNED_CERT:
            return "self-signed"
        case _Fault.SELF_SIGNED_CERT_IN_CHAIN:
            return f"issued under the root {blamed.subject}, which is not trusted"
        case (
            _Fault.UNABLE_TO_GET_ISSUER_CERT
            | _Fault.UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            | _Fault.UNABLE_TO_VERIFY_LEAF_SIGNATURE
        ):
            return f"{whose}issued by {blamed.issuer}, which is not trusted and was not sent by the server"
        case _Fault.CERT_NOT_YET_VALID:
            return f"{whose}{_not_yet(blamed)}"
        case _Fault.CERT_HAS_EXPIRED:
            return f"{whose}{_expired(blamed)}"
        case _Fault.CERT_SIGNATURE_FAILURE:
            return f"{whose}its signature is not by {blamed.issuer}, as it says"
        case _Fault.INVALID_CA:
            return f"{whose}it may not issue certificates (not a CA)"
        case _Fault.PATH_LENGTH_EXCEEDED:
            return f"{whose}it may not have so many CAs below it"
        case _Fault.UNHANDLED_CRITICAL_EXTENSION:
            return f"{whose}it has a critical extension that we do not understand"
        case _Fault.PERMITTED_VIOLATION | _Fault.EXCLUDED_VIOLATION:
            return f"{whose}its issuer may not issue for such a name (name constraints)"


def _date_problems(certificate: Certificate, now: datetime) -> list[str]:
    if now < certificate.not_before:
        return [_not_yet(certificate)]
    return [_expired(certificate)] if now > certificate.not_after else []


def _not_yet(certificate: Certificate) -> str:
    return f"not valid before {date(certificate.not_before)}"


def _expired(certificate: Certificate) -> str:
    return f"expired on {date(certificate.not_after)}"


def date(moment: datetime) -> str:
    """A moment as reasons show it: `2026-01-31 12:00 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _leaf_problems(leaf: Certificate) -> list[str]:
    """What is wrong with a server's certificate whoever issued it: purpose (RFC 5280 4.2.1.3, 4.2.1.12) and key."""
    usage = leaf.extension(x509.KeyUsage)
    # TLS signs with the key, or agrees on one, or is sent one encrypted; a server's key may do one of these.
    useful = usage is None or usage.digital_signature or usage.key_encipherment or usage.key_agreement
    problems = [_purpose_problem(leaf), leaf.key.weakness, None if useful else "its key may not be used for TLS"]
    return [problem for problem in problems if problem]


def _issuer_problems(certificate: Certificate, *, is_leaf: bool, is_anchor: bool) -> list[str]:
    """What is wrong with one certificate of a path, beyond what `_leaf_problems` finds."""
    problems = [] if is_anchor else [weak_signature(certificate.parsed)]
    if not is_leaf:
        problems += [_purpose_problem(certificate), certificate.key.weakness]
    whose = "" if is_leaf else f"its issuer {certificate.subject}: "
    return [f"{whose}{problem}" for problem in problems if problem]


def _purpose_problem(certificate: Certificate) -> str | None:
    """An extended key usage, where there is one, must allow TLS servers; a CA's limits what it issues."""
    usage = certificate.extension(x509.ExtendedKeyUsage)
    if usage is None or ExtendedKeyUsageOID.SERVER_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage:
        return None
    return "not meant for servers (its extended key usage is another one)"
