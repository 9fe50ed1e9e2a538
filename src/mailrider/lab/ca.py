"""A certificate authority for the lab: certificates of every kind, good and bad, for hosts that do not exist.

`CA()` is a root of its own, in memory; `issue` makes a key and a certificate for some names, or one with the fault that
`Kind` names. Fast (P-256 keys unless the kind says otherwise), and made for tests and trials only: nothing here is fit
to protect anything. Profiles follow RFC 5280; the faults each break exactly one rule of it or of RFC 9525.
"""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailrider.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

LIFETIME = timedelta(days=397)
"""How long a leaf is valid: what public authorities may give at most."""
CA_LIFETIME = timedelta(days=3650)
SLACK = timedelta(days=1)
"""How far before now validity begins: clocks differ."""


class Kind(enum.StrEnum):
    """What is to be right or wrong with a certificate; everything else about it is right."""

    VALID = "valid"
    RSA = "rsa"
    """Valid, with an RSA key of 2048 bits."""
    WILDCARD = "wildcard"
    """Valid for `*.` and all but the first label of each name."""
    NAME_CONSTRAINED = "name-constrained"
    """Valid, from an intermediate that may issue for these names and those below them only."""
    CLIENT = "client"
    """Valid for a client: its names are mail domains or hosts, its purpose clientAuth."""
    SELF_SIGNED = "self-signed"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    WRONG_NAME = "wrong-name"
    """For `other.` and each name instead."""
    NO_SAN = "no-san"
    """The first name stands in the subject's common name, as long ago (RFC 9525 6.3)."""
    CLIENT_AUTH_ONLY = "client-auth-only"
    """A server's certificate whose extended key usage says clientAuth."""
    CA_FALSE_INTERMEDIATE = "ca-false-intermediate"
    """From an intermediate that is no authority (RFC 5280 4.2.1.9)."""
    NAME_CONSTRAINT_VIOLATED = "name-constraint-violated"
    """From an intermediate that may issue for other names only (RFC 5280 4.2.1.10)."""
    EXPIRED_INTERMEDIATE = "expired-intermediate"
    WEAK = "weak"
    """An RSA key of 1024 bits."""


@dataclass(frozen=True, slots=True)
class LabCertificate:
    """A certificate with its key. `chain_der` is what a server should send: leaf first, without the root."""

    chain_der: tuple[bytes, ...]
    key_pem: bytes
    root_der: bytes

    @property
    def chain_pem(self) -> bytes:
        """The chain without the root."""
        return b"".join(_pem(der) for der in self.chain_der)

    @property
    def full_chain_der(self) -> tuple[bytes, ...]:
        """The chain with the root at its end; a self-signed certificate is its own root."""
        return self.chain_der if self.chain_der[-1] == self.root_der else (*self.chain_der, self.root_der)

    @property
    def full_chain_pem(self) -> bytes:
        return b"".join(_pem(der) for der in self.full_chain_der)

    def write(self, folder: Path, name: str, *, with_root: bool = False) -> tuple[Path, Path]:
        """Write `NAME.pem` (the chain) and `NAME.key` into `folder`; their paths."""
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        cert.write_bytes(self.full_chain_pem if with_root else self.chain_pem)
        key.touch(mode=0o600)
        key.write_bytes(self.key_pem)
        return cert, key


@dataclass(frozen=True, slots=True)
class _Issuer:
    name: x509.Name
    key: Key
    chain_der: tuple[bytes, ...]  # what follows a leaf of this issuer, root left out


class CA:
    """A root authority, and an intermediate under it that issues (unless `intermediate` is False)."""

    def __init__(self, name: str = "mailrider lab", *, intermediate: bool = True, now: datetime | None = None) -> None:
        self._now = now or SystemClock().now()
        self._name = name
        self._serials = itertools.count(1)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(f"{name} root")
        root = _Issuer(subject, key, ())
        self.root_der = self._ca_certificate(root, subject, key)
        self._root = root
        self._issuer = self._intermediate("intermediate") if intermediate else root

    @property
    def root_pem(self) -> bytes:
        """The root certificate: what those who trust this authority need."""
        return _pem(self.root_der)

    def write_root(self, folder: Path) -> Path:
        """Write the root certificate as `root.pem` into `folder`; its path."""
        path = folder / "root.pem"
        path.write_bytes(self.root_pem)
        return path

    def issue(self, names: Sequence[str], kind: Kind | str = Kind.VALID) -> LabCertificate:
        """A new key and certificate for `names`: domains (A-labels) or IP addresses, at least one."""
        kind = Kind(kind)
        key = _new_key(kind)
        subject = _named(names[0] if kind is Kind.NO_SAN else f"{self._name} {kind}")
        if kind is Kind.SELF_SIGNED:
            der = self._leaf(_Issuer(subject, key, ()), subject, key, names, kind)
            return LabCertificate((der,), _key_pem(key), der)
        issuer = self._issuer_for(names, kind)
        der = self._leaf(issuer, subject, key, names, kind)
        return LabCertificate((der, *issuer.chain_der), _key_pem(key), self.root_der)

    def _issuer_for(self, names: Sequence[str], kind: Kind) -> _Issuer:
        if kind is Kind.CA_FALSE_INTERMEDIATE:
            return self._intermediate("no authority", is_ca=False)
        if kind is Kind.EXPIRED_INTERMEDIATE:
            return self._intermediate("expired", ends=self._now - SLACK)
        if kind is Kind.NAME_CONSTRAINED:
            return self._intermediate("constrained", permitted=names)
        if kind is Kind.NAME_CONSTRAINT_VIOLATED:
            return self._intermediate("constrained", permitted=["elsewhere.invalid"])
        return self._issuer

    def _intermediate(self, what: str, **limits: Any) -> _Issuer:
        """`limits` are those of `_ca_certificate`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _named(f"{self._name} {what}")
        der = self._ca_certificate(self._root, subject, key, **limits)
        return _Issuer(subject, key, (der,))

    def _ca_certificate(
        self,
        issuer: _Issuer,
        subject: x509.Name,
        key: Key,
        *,
        is_ca: bool = True,
        ends: datetime | None = None,
        permitted: Sequence[str] = (),
    ) -> bytes:
        begins = (ends or self._now) - (CA_LIFETIME if ends else SLACK)
        builder = self._builder(issuer, subject, key, begins, ends or self._now + CA_LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        builder = builder.add_extension(_key_usage(is_ca=is_ca), critical=True)
        if permitted:
            trees = [_general_name(name, as_constraint=True) for name in permitted]
            builder = builder.add_extension(x509.NameConstraints(trees, None), critical=True)
        return _signed(builder, issuer.key)

    def _leaf(self, issuer: _Issuer, subject: x509.Name, key: Key, names: Sequence[str], kind: Kind) -> bytes:
        begins, ends = self._validity(kind)
        builder = self._builder(issuer, subject, key, begins, ends)
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        # RFC 5246 7.4.2: encipherment is for RSA key exchange, which only RSA keys can do.
        usage = _key_usage(is_ca=False, enciphers=isinstance(key, rsa.RSAPrivateKey))
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([_purpose(kind)]), critical=False)
        if kind is not Kind.NO_SAN:
            san = x509.SubjectAlternativeName([_general_name(_name_for(name, kind)) for name in names])
            builder = builder.add_extension(san, critical=False)
        return _signed(builder, issuer.key)

    def _validity(self, kind: Kind) -> tuple[datetime, datetime]:
        if kind is Kind.EXPIRED:
            return self._now - LIFETIME, self._now - SLACK
        if kind is Kind.NOT_YET_VALID:
            return self._now + SLACK, self._now + LIFETIME
        return self._now - SLACK, self._now + LIFETIME

    def _builder(
        self, issuer: _Issuer, subject: x509.Name, key: Key, begins: datetime, ends: datetime
    ) -> x509.CertificateBuilder:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.name)
            .public_key(key.public_key())
            .serial_number(next(self._serials))
            .not_valid_before(begins.astimezone(UTC))
            .not_valid_after(ends.astimezone(UTC))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(authority, critical=False)
        )


def _new_key(kind: Kind) -> Key:
    if kind is Kind.RSA:
        return rsa.generate_private_key(65537, 2048)
    if kind is Kind.WEAK:
        return rsa.generate_private_key(65537, 1024)  # noqa: S505 (weak is what was asked for)
    return ec.generate_private_key(ec.SECP256R1())


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _name_for(name: str, kind: Kind) -> str:
    """The name as a certificate of that kind has it."""
    if kind is Kind.WILDCARD:
        return "*." + name.partition(".")[2]
    return f"other.{name}" if kind is Kind.WRONG_NAME else name


def _general_name(name: str, *, as_constraint: bool = False) -> x509.GeneralName:
    try:
        address = ip_address(name)
    except ValueError:
        return x509.DNSName(name)
    if not as_constraint:
        return x509.IPAddress(address)
    network = f"{address}/{address.max_prefixlen}"
    return x509.IPAddress(ip_network(network))


def _purpose(kind: Kind) -> x509.ObjectIdentifier:
    client = kind in (Kind.CLIENT_AUTH_ONLY, Kind.CLIENT)
    return ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH


def _key_usage(*, is_ca: bool, enciphers: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=enciphers,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, key: Key) -> bytes:
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
