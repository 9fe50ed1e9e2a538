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

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from mailrider.x509.keys import weak_signature
from mailrider.x509.verify_error import VerifyError, problem_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from mailrider.model.tls_problem import TLSProblem
    from mailrider.x509.certificate import Certificate


@dataclass(frozen=True, slots=True)
class Path:
    """The certificates from the server's to the anchor, empty if there is no path, and what speaks against it."""

    certificates: tuple[Certificate, ...]
    problems: tuple[TLSProblem, ...]


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
        problems: list[TLSProblem] = []
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


def _explain(error: crypto.X509StoreContextError, leaf: Certificate, known: dict[bytes, Certificate]) -> TLSProblem:
    code, depth, words = error.errors
    fault = VerifyError.of(code)
    text = f"OpenSSL says: {words}"
    try:
        blamed = known[_der(error.certificate)]
    except (KeyError, crypto.Error):
        return problem_of(fault, text)
    whose = "" if depth == 0 or blamed is leaf else f"its issuer {blamed.subject}: "
    return problem_of(fault, _words(fault, blamed, whose) or text)


def _words(fault: VerifyError, blamed: Certificate, whose: str) -> str:
    """The error in a postmaster's words; empty if there are none for it.

    `whose` begins the sentence where it is not about the server's certificate.
    """
    match fault:
        case VerifyError.DEPTH_ZERO_SELF_SIGNED_CERT:
            return "self-signed"
        case VerifyError.SELF_SIGNED_CERT_IN_CHAIN:
            return f"issued under the root {blamed.subject}, which is not trusted"
        case (
            VerifyError.UNABLE_TO_GET_ISSUER_CERT
            | VerifyError.UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            | VerifyError.UNABLE_TO_VERIFY_LEAF_SIGNATURE
        ):
            return f"{whose}issued by {blamed.issuer}, which is not trusted and was not sent by the server"
        case VerifyError.CERT_NOT_YET_VALID:
            return f"{whose}{_not_yet(blamed)}"
        case VerifyError.CERT_HAS_EXPIRED:
            return f"{whose}{_expired(blamed)}"
        case VerifyError.CERT_SIGNATURE_FAILURE:
            return f"{whose}its signature is not by {blamed.issuer}, as it says"
        case VerifyError.INVALID_CA:
            return f"{whose}it may not issue certificates (not a CA)"
        case VerifyError.PATH_LENGTH_EXCEEDED:
            return f"{whose}it may not have so many CAs below it"
        case VerifyError.UNHANDLED_CRITICAL_EXTENSION:
            return f"{whose}it has a critical extension that we do not understand"
        case VerifyError.PERMITTED_VIOLATION | VerifyError.EXCLUDED_VIOLATION:
            return f"{whose}its issuer may not issue for such a name (name constraints)"
        case _:
            return ""


def _date_problems(certificate: Certificate, now: datetime) -> list[TLSProblem]:
    if now < certificate.not_before:
        return [problem_of(VerifyError.CERT_NOT_YET_VALID, _not_yet(certificate))]
    if now > certificate.not_after:
        return [problem_of(VerifyError.CERT_HAS_EXPIRED, _expired(certificate))]
    return []


def _not_yet(certificate: Certificate) -> str:
    return f"not valid before {date(certificate.not_before)}"


def _expired(certificate: Certificate) -> str:
    return f"expired on {date(certificate.not_after)}"


def date(moment: datetime) -> str:
    """A moment as reasons show it: `2026-01-31 12:00 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _leaf_problems(leaf: Certificate) -> list[TLSProblem]:
    """What is wrong with a server's certificate whoever issued it: purpose (RFC 5280 4.2.1.3, 4.2.1.12) and key."""
    usage = leaf.extension(x509.KeyUsage)
    # TLS signs with the key, or agrees on one, or is sent one encrypted; a server's key may do one of these.
    useful = usage is None or usage.digital_signature or usage.key_encipherment or usage.key_agreement
    return _problems(
        "",
        (VerifyError.INVALID_PURPOSE, _purpose_problem(leaf)),
        (VerifyError.EE_KEY_TOO_SMALL, leaf.key.weakness),
        (VerifyError.INVALID_PURPOSE, None if useful else "its key may not be used for TLS"),
    )


def _issuer_problems(certificate: Certificate, *, is_leaf: bool, is_anchor: bool) -> list[TLSProblem]:
    """What is wrong with one certificate of a path, beyond what `_leaf_problems` finds."""
    found = [] if is_anchor else [(VerifyError.CA_MD_TOO_WEAK, weak_signature(certificate.parsed))]
    if not is_leaf:
        found.append((VerifyError.INVALID_PURPOSE, _purpose_problem(certificate)))
        found.append((VerifyError.CA_KEY_TOO_SMALL, certificate.key.weakness))
    return _problems("" if is_leaf else f"its issuer {certificate.subject}: ", *found)


def _problems(whose: str, *found: tuple[VerifyError, str | None]) -> list[TLSProblem]:
    return [problem_of(error, f"{whose}{text}") for error, text in found if text]


def _purpose_problem(certificate: Certificate) -> str | None:
    """An extended key usage, where there is one, must allow TLS servers; a CA's limits what it issues."""
    usage = certificate.extension(x509.ExtendedKeyUsage)
    if usage is None or ExtendedKeyUsageOID.SERVER_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage:
        return None
    return "not meant for servers (its extended key usage is another one)"
