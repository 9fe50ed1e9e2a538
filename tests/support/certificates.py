"""Certificates to order: good ones by default, and wrong in exactly the way a test asks for.

Everything is dated around `NOW`, not around today, so that a test is true in any year; give `NOW` to what is tested
(`openssl -attime` understands it too).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailrider.model.security import TLSARecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def tlsa(self, usage: int, selector: int, matching_type: int) -> TLSARecord:
        """The record that this certificate matches."""
        data = self.der if selector == 0 else self.spki
        digest = {0: lambda octets: octets, 1: _sha256, 2: _sha512}[matching_type]
        return TLSARecord(usage, selector, matching_type, digest(data))


def _sha256(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()


def _sha512(octets: bytes) -> bytes:
    return hashlib.sha512(octets).digest()


def ec_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """An RSA key; the same one each time, since making one takes long."""
    return rsa.generate_private_key(65537, bits)


def issue(
    issuer: Issued | None = None,
    *,
    names: Sequence[str] = ("mx.example.net",),
    common_name: str | None = "a server",
    ca: bool = False,
    path_length: int | None = None,
    not_before: datetime = NOW - 30 * DAY,
    not_after: datetime = NOW + 60 * DAY,
    purposes: Sequence[x509.ObjectIdentifier] | None = (SERVER,),
    key_usage: Sequence[str] | None = None,
    key: CertificateIssuerPrivateKeyTypes | None = None,
    digest: hashes.HashAlgorithm | None = None,
    serial: int | None = None,
    extensions: Sequence[x509.ExtensionType] = (),
    critical: Sequence[x509.ExtensionType] = (),
    rsa_padding: Any = None,
    key_ids: bool = True,
) -> Issued:
    """A certificate by `issuer`, or self-signed without one.

    `key_ids`: with the identifiers of its own and its issuer's key, as RFC 5280 4.2.1.1 wants CAs to write them.
    """
    own_key = key or ec_key()
    subject = _name(common_name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(own_key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, path_length), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if key_usage is not None:
        usage = x509.KeyUsage(**{name: name in key_usage for name in KEY_USAGES})
        builder = builder.add_extension(usage, critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    for extension in critical:
        builder = builder.add_extension(extension, critical=True)
    signer = issuer.key if issuer else own_key
    if key_ids:
        own_id = x509.SubjectKeyIdentifier.from_public_key(own_key.public_key())
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = builder.add_extension(own_id, critical=False).add_extension(issuer_id, critical=False)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    return Issued(builder.sign(signer, digest or algorithm, rsa_padding=rsa_padding), own_key)  # type: ignore[arg-type]


def authority(common_name: str = "Test Root", issuer: Issued | None = None, **options: Any) -> Issued:
    """A CA, self-signed without an `issuer`."""
    settings: dict[str, Any] = {
        "names": (),
        "ca": True,
        "purposes": None,
        "not_before": NOW - 1000 * DAY,
        "not_after": NOW + 1000 * DAY,
    }
    return issue(issuer, common_name=common_name, **(settings | options))


def signed_over_sha1(good: Issued, issuer: Issued | None = None) -> Issued:
    """The same certificate, signed over SHA-1 by an RSA key, as nobody does any more (and no library helps with)."""
    signer = (issuer or good).key
    assert isinstance(signer, rsa.RSAPrivateKey)
    sha256_with_rsa, sha1_with_rsa = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    signed = good.certificate.tbs_certificate_bytes.replace(sha256_with_rsa, sha1_with_rsa)
    der = good.der.replace(good.certificate.tbs_certificate_bytes, signed).replace(sha256_with_rsa, sha1_with_rsa)
    signature = signer.sign(signed, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
    return Issued(x509.load_der_x509_certificate(der.replace(good.certificate.signature, signature)), good.key)


def _name(common_name: str | None) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
