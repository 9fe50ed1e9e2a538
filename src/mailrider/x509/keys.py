"""Public keys and signatures: where a key stands in a certificate, how strong it is, and whether it made a signature.

DANE compares the octets of SubjectPublicKeyInfo as the server sent them (RFC 6698 2.1.2). Libraries decode a key and
encode it anew, which need not give the same octets, and refuse keys that they do not know; so the field is cut out
here with just enough DER (X.690 8.1, RFC 5280 4.1), and nothing inside it is looked at. The bytes come from a stranger:
every length is compared with what is there, and nothing is read twice, so the work is bounded by a handful of steps.

Strength is that of OpenSSL's security level 2, which is also what Python and Debian ask of a TLS peer: 112 bits. RSA
and DSA keys below 2,048 bits, curves below 224 bits, and signatures over SHA-1 or MD5 prove nothing here (NIST
SP 800-131A). pyOpenSSL's store asks for no level at all, so it is asked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mailrider.errors import InvalidValue

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes


MIN_MODULUS = 2048  # bits of RSA and DSA: 112 bits of strength
MIN_CURVE = 224  # bits of an elliptic curve: 112 bits of strength
MIN_DIGEST = 28  # octets: SHA-224, 112 bits of strength


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that can be used: its kind is known and its numbers are well-formed."""

    key: PublicKeyTypes

    @classmethod
    def parse(cls, spki: bytes) -> PublicKey:
        """A DER SubjectPublicKeyInfo, with nothing behind it; `InvalidValue` for anything else."""
        try:
            return cls(load_der_public_key(spki))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidValue("not a public key of a kind that is known here") from error

    @property
    def kind(self) -> str:
        """`RSA 2048`, `EC secp256r1`, `Ed25519`: for people."""
        match self.key:
            case rsa.RSAPublicKey(key_size=bits):
                return f"RSA {bits}"
            case dsa.DSAPublicKey(key_size=bits):
                return f"DSA {bits}"
            case ec.EllipticCurvePublicKey(curve=curve):
                return f"EC {curve.name}"
            case other:
                return type(other).__name__.removesuffix("PublicKey")

    @property
    def weakness(self) -> str | None:
        """Why the key proves nothing, or None."""
        match self.key:
            case rsa.RSAPublicKey(key_size=bits) | dsa.DSAPublicKey(key_size=bits) if bits < MIN_MODULUS:
                return f"its key is too weak: {self.kind} bits, fewer than {MIN_MODULUS}"
            case ec.EllipticCurvePublicKey(key_size=bits) if bits < MIN_CURVE:
                return f"its key is too weak: {self.kind}, fewer than {MIN_CURVE} bits"
            case _:
                return None

    def signed(self, certificate: x509.Certificate) -> bool:
        """True if the private half of this key (RSA, ECDSA, EdDSA) signed `certificate`; names are not looked at."""
        try:
            return self._verifies(certificate)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            return False

    def _verifies(self, certificate: x509.Certificate) -> bool:
        signature, octets = certificate.signature, certificate.tbs_certificate_bytes
        digest = certificate.signature_hash_algorithm  # None where the algorithm's name says it all
        parameters: Any = certificate.signature_algorithm_parameters
        match self.key:
            case rsa.RSAPublicKey() as key if digest and isinstance(parameters, padding.PKCS1v15 | padding.PSS):
                key.verify(signature, octets, parameters, digest)
            case ec.EllipticCurvePublicKey() as key if isinstance(parameters, ec.ECDSA):
                key.verify(signature, octets, parameters)
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey() as key if digest is None:
                key.verify(signature, octets)
            case _:
                return False  # made by a key of another kind, or a kind of no use for signing
        return True


def weak_signature(certificate: x509.Certificate) -> str | None:
    """Why the signature on a certificate proves nothing, or None."""
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return f"it is signed with an unknown algorithm, {certificate.signature_algorithm_oid.dotted_string}"
    if digest is not None and digest.digest_size < MIN_DIGEST:
        return f"it is signed over {digest.name.upper()}, which is too weak"
    return None


_INTEGER = 0x02
_SEQUENCE = 0x30
_VERSION = 0xA0  # [0] EXPLICIT
_MAX_LENGTH_OCTETS = 4  # 4 GiB: more than any certificate, and small enough to stay an ordinary integer


def subject_public_key_info(certificate: bytes) -> bytes:
    """The field of that name in a DER certificate, as it stands; `InvalidValue` if this is none, or more than one."""
    at, end = _element(certificate, 0, len(certificate), _SEQUENCE, "the certificate")
    if end != len(certificate):
        raise InvalidValue(f"{len(certificate) - end} octets stand behind the certificate")
    at, end = _element(certificate, at, end, _SEQUENCE, "the part that is signed")
    if certificate[at : at + 1] == bytes((_VERSION,)):
        _, at = _element(certificate, at, end, _VERSION, "the version")
    _, at = _element(certificate, at, end, _INTEGER, "the serial number")
    for field in ("the signature algorithm", "the issuer", "the validity", "the subject"):
        _, at = _element(certificate, at, end, _SEQUENCE, field)
    _, after = _element(certificate, at, end, _SEQUENCE, "the public key")
    return certificate[at:after]


def _element(data: bytes, at: int, end: int, tag: int, what: str) -> tuple[int, int]:
    """Where the contents of the element at `at` begin, and where they end, which is where the next one begins."""
    if end - at < 2 or data[at] != tag:
        raise InvalidValue(f"{what} is missing")
    length = data[at + 1]
    body = at + 2
    if length & 0x80:
        octets = length & 0x7F
        if not 0 < octets <= _MAX_LENGTH_OCTETS:
            raise InvalidValue(f"the length of {what} is not DER")
        length = int.from_bytes(data[body : body + octets], "big")
        body += octets
    if body + length > end:
        raise InvalidValue(f"{what} is cut off")
    return body, body + length
