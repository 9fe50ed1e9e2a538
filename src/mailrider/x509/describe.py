"""A certificate chain as people want to see it, for `explain` and for logs. Nothing is decided from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from mailrider.errors import InvalidValue
from mailrider.model.reply import clean_text
from mailrider.x509.certificate import MAX_CHAIN, parse_certificate, shorten
from mailrider.x509.keys import subject_public_key_info
from mailrider.x509.names import dns_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mailrider.x509.certificate import Certificate

MAX_NAMES_SHOWN = 100  # a certificate may hold thousands
_MAX_NAME = 255  # characters


@dataclass(frozen=True, slots=True)
class CertificateSummary:
    """One certificate of a chain. All text is printable and bounded.

    `names` are the DNS names and addresses of subjectAltName, at most 100. `key` is as in `RSA 2048`. `sha256` and
    `spki_sha256` are what TLSA records `3 0 1` and `3 1 1` hold, hexadecimal. For a certificate that cannot be read
    `problem` says why, and only the digests that could be made are there.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime | None
    not_after: datetime | None
    key: str
    is_self_issued: bool
    sha256: str
    spki_sha256: str
    problem: str = ""


def describe_chain(chain: Sequence[bytes]) -> tuple[CertificateSummary, ...]:
    """What a server sent, DER, in its order; at most the first ten."""
    return tuple(_describe(der) for der in chain[:MAX_CHAIN])


def _describe(der: bytes) -> CertificateSummary:
    sha256 = hashlib.sha256(der).hexdigest()
    try:
        certificate = parse_certificate(der)
    except InvalidValue as error:
        return CertificateSummary("", "", (), None, None, "", False, sha256, _spki_sha256(der), str(error))
    names = _all_names(certificate)
    return CertificateSummary(
        subject=certificate.subject,
        issuer=certificate.issuer,
        names=tuple(shorten(clean_text(name), _MAX_NAME) for name in names[:MAX_NAMES_SHOWN]),
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        key=certificate.key.kind,
        is_self_issued=certificate.is_self_issued,
        sha256=sha256,
        spki_sha256=_spki_sha256(der),
    )


def _spki_sha256(der: bytes) -> str:
    try:
        return hashlib.sha256(subject_public_key_info(der)).hexdigest()
    except InvalidValue:
        return ""


def _all_names(certificate: Certificate) -> list[str]:
    names = certificate.extension(x509.SubjectAlternativeName)
    addresses = names.get_values_for_type(x509.IPAddress) if names else []
    return [*dns_names(certificate), *map(str, addresses)]
