"""Private keys that sign: RSA (RFC 6376 3.3.1, RFC 8301) and Ed25519 (RFC 8463), made, kept as PEM, and used.

Signatures are over SHA-256, the only digest that DKIM still has (RFC 8301 3.1). A key is given out as `public`, the
`p=` of its record in DNS, and never leaves otherwise but as PEM, for its file.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from mailrider.errors import InvalidValue
from mailrider.x509.key_kind import KeyKind

MIN_RSA = 1024  # bits: RFC 8301 3.2, verifiers take nothing shorter
GOOD_RSA = 2048  # bits: RFC 8301 3.2, signers should use no less


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """A private key; its text in errors and logs is that of its public half."""

    _key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

    @classmethod
    def make(cls, kind: KeyKind) -> SigningKey:
        """A new one; RSA takes a tenth of a second, and more."""
        if kind is KeyKind.ED25519:
            return cls(ed25519.Ed25519PrivateKey.generate())
        return cls(rsa.generate_private_key(65537, int(kind.removeprefix("rsa"))))

    @classmethod
    def load(cls, pem: bytes) -> SigningKey:
        """From unencrypted PEM, PKCS #8 or PKCS #1. Raises `InvalidValue` for what cannot sign here."""
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidValue("not an unencrypted private key in PEM") from error
        if isinstance(key, rsa.RSAPrivateKey):
            if key.key_size < MIN_RSA:
                raise InvalidValue(f"an RSA key of {key.key_size} bits proves nothing (RFC 8301 3.2)")
            return cls(key)
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return cls(key)
        raise InvalidValue("neither an RSA nor an Ed25519 key")

    def pem(self) -> bytes:
        """PKCS #8, unencrypted: for a file that nobody else can read."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def name(self) -> str:
        """`rsa` or `ed25519`: the key's kind in DNS (RFC 6376 3.6.1, RFC 8463 4.2)."""
        return "rsa" if isinstance(self._key, rsa.RSAPrivateKey) else "ed25519"

    @property
    def is_short(self) -> bool:
        """True for an RSA key that receivers take, and that should be longer."""
        return isinstance(self._key, rsa.RSAPrivateKey) and self._key.key_size < GOOD_RSA

    @property
    def public(self) -> str:
        """The public key in base64: RSA with its structure (RFC 6376 3.6.1), Ed25519 bare (RFC 8463 4.2)."""
        key = self._key.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        else:
            octets = key.public_bytes_raw()
        return base64.b64encode(octets).decode()

    def sign(self, octets: bytes) -> bytes:
        """The signature; RSA PKCS #1 v1.5 over SHA-256, or Ed25519 over the digest itself (RFC 8463 3)."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(octets, padding.PKCS1v15(), hashes.SHA256())
        return self._key.sign(hashlib.sha256(octets).digest())

    def has_signed(self, signature: bytes, octets: bytes) -> bool:
        """True if that is a signature of this key over these octets."""
        key = self._key.public_key()
        try:
            if isinstance(key, rsa.RSAPublicKey):
                key.verify(signature, octets, padding.PKCS1v15(), hashes.SHA256())
            else:
                key.verify(signature, hashlib.sha256(octets).digest())
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"SigningKey({self.name}, {self.public[:16]}...)"
