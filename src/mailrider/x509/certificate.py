"""One certificate, read once: the edge where a stranger's octets become a value (RFC 5280 4).

What always holds: making a `Certificate` decodes everything that is asked of it later, so nothing that a peer sent
raises further in; a certificate that cannot be read is `InvalidValue` with a reason. Subject and issuer are text for
people, printable and bounded. It never looks at a clock, and never trusts anything.
"""

from __future__ import annotations

import binascii
import re
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import NameOID
from OpenSSL import crypto

from mailrider.errors import InvalidValue
from mailrider.model.reply import clean_text
from mailrider.x509.keys import PublicKey, subject_public_key_info

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

MAX_CERTIFICATE = 65_536  # octets; with a hundred names and a post-quantum signature a real one has 20,000
MAX_CHAIN = 10  # certificates that are looked at; real chains have 2 to 4, a misconfigured server sends its CA bundle
MAX_NAME_TEXT = 100  # characters of a subject or issuer that people are shown
MAX_REASON = 1000  # characters of a verdict's reason; much of it can be names that a stranger chose

# RFC 7468 5.1, and the older label that OpenSSL reads too.
_PEM = re.compile(rb"-----BEGIN (X509 |)CERTIFICATE-----(.*?)-----END \1CERTIFICATE-----", re.DOTALL)

# A name in a form that is equal wherever OpenSSL calls two names equal: case, spaces and string type do not count.
NameKey = tuple[tuple[str, str | bytes], ...]

ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)


@dataclass(frozen=True)
class Certificate:
    """A certificate that could be read. Equal to another one if its octets are."""

    der: bytes
    parsed: x509.Certificate = field(repr=False, compare=False)
    openssl: crypto.X509 = field(repr=False, compare=False)
    key: PublicKey = field(repr=False, compare=False)

    def extension(self, kind: type[ExtensionT]) -> ExtensionT | None:
        """An extension of that kind; None if there is none."""
        try:
            return self.parsed.extensions.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None

    @cached_property
    def not_before(self) -> datetime:
        return self.parsed.not_valid_before_utc

    @cached_property
    def not_after(self) -> datetime:
        return self.parsed.not_valid_after_utc

    @cached_property
    def subject(self) -> str:
        """Whose certificate it is, in a few words."""
        return readable_name(self.parsed.subject)

    @cached_property
    def issuer(self) -> str:
        """Who issued it, in a few words."""
        return readable_name(self.parsed.issuer)

    @cached_property
    def subject_key(self) -> NameKey:
        return _name_key(self.parsed.subject)

    @cached_property
    def issuer_key(self) -> NameKey:
        return _name_key(self.parsed.issuer)

    @property
    def is_self_issued(self) -> bool:
        """True if subject and issuer are the same; a self-signed certificate is, RFC 5280 3.2."""
        return self.subject_key == self.issuer_key


def parse_certificate(der: bytes) -> Certificate:
    """A DER certificate with nothing behind it; `InvalidValue` says what is wrong with anything else."""
    if len(der) > MAX_CERTIFICATE:
        raise InvalidValue(f"it has {len(der)} octets, more than {MAX_CERTIFICATE}")
    key = PublicKey.parse(subject_public_key_info(der))
    try:
        return Certificate(der, _decode(der), crypto.load_certificate(crypto.FILETYPE_ASN1, der), key)
    except crypto.Error as error:
        raise InvalidValue("OpenSSL cannot decode it") from error


def pem_certificates(data: bytes) -> list[bytes]:
    """The certificates of a file in PEM, as DER; at least one, or `InvalidValue`."""
    try:
        found = [binascii.a2b_base64(body) for _, body in _PEM.findall(data)]
    except binascii.Error as error:
        raise InvalidValue(f"damaged PEM: {error}") from error
    if not found:
        raise InvalidValue("there is no certificate in PEM")
    return found


def _decode(der: bytes) -> x509.Certificate:
    with warnings.catch_warnings():
        # RFC 5280 4.1.2.2: certificates with serial number 0 exist (private roots do), and are to be coped with.
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            certificate = x509.load_der_x509_certificate(der)
            # These decode on first use, and keep what they found.
            _ = certificate.extensions, certificate.subject, certificate.issuer
            _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        except (ValueError, TypeError, UnsupportedAlgorithm, *_X509_ERRORS) as error:
            detail = clean_text((str(error).splitlines() or [""])[0])[:MAX_NAME_TEXT]
            raise InvalidValue(f"it cannot be decoded ({detail or type(error).__name__})") from error
    return certificate


_X509_ERRORS = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


def readable_name(name: x509.Name) -> str:
    """What people know a subject or issuer by: `R11 (Let's Encrypt)`. Clean and bounded, since a stranger chose it."""
    first = _attribute(name, NameOID.COMMON_NAME) or _attribute(name, NameOID.ORGANIZATIONAL_UNIT_NAME)
    organization = _attribute(name, NameOID.ORGANIZATION_NAME)
    if first and organization and organization != first:
        text = f"{first} ({organization})"
    else:
        text = first or organization or clean_text(name.rfc4514_string())
    return shorten(text, MAX_NAME_TEXT) or "(no name)"


def _attribute(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    for attribute in name.get_attributes_for_oid(oid):
        value = attribute.value
        return clean_text(value if isinstance(value, str) else value.hex())
    return ""


def shorten(text: str, limit: int) -> str:
    """The text, cut to `limit` characters with a mark that it was."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def as_reason(parts: Iterable[str]) -> str:
    """What a verdict says, from its parts."""
    return shorten("; ".join(parts), MAX_REASON)


def _name_key(name: x509.Name) -> NameKey:
    return tuple(
        (attribute.oid.dotted_string, " ".join(value.casefold().split()) if isinstance(value, str) else value)
        for attribute in name
        for value in (attribute.value,)
    )


@dataclass(frozen=True, slots=True)
class SentChain:
    """What a server sent, as far as it could be read: its own certificate first, then what should lead to a root.

    `leaf` is None if the server's own could not be read, or there is none; `complaints` say what was left out.
    """

    leaf: Certificate | None
    others: tuple[Certificate, ...] = ()
    complaints: tuple[str, ...] = ()

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """All that could be read."""
        return self.others if self.leaf is None else (self.leaf, *self.others)


def read_chain(chain: Sequence[bytes]) -> SentChain:
    """Read a chain, DER, leaf first. Never raises: certificates that cannot be read, or come too late, are left out.

    One that does not belong there is no reason to refuse a server whose other certificates lead to a root.
    """
    if not chain:
        return SentChain(None, (), ("the server sent no certificate",))
    readable: dict[int, Certificate] = {}
    complaints: list[str] = []
    for index, der in enumerate(chain[:MAX_CHAIN]):
        try:
            readable[index] = parse_certificate(der)
        except InvalidValue as error:
            which = "the server's certificate" if index == 0 else f"certificate {index + 1} of {len(chain)} sent"
            complaints.append(f"{which} cannot be read: {error}")
    if len(chain) > MAX_CHAIN:
        complaints.append(f"the server sent {len(chain)} certificates, only the first {MAX_CHAIN} were looked at")
    leaf = readable.pop(0, None)
    return SentChain(leaf, tuple(readable.values()), tuple(complaints))
