"""Keys: which are known, which are strong enough, and who signed what."""

from __future__ import annotations

import itertools

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mailrider.errors import InvalidValue
from mailrider.x509.certificate import parse_certificate
from mailrider.x509.keys import PublicKey, weak_signature
from tests.support.certificates import Issued, authority, ec_key, issue, rsa_key, signed_over_sha1

PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
AUTHORITIES = {
    "rsa": authority(key=rsa_key(2048)),
    "ec": authority(),
    "p521": authority(key=ec_key(ec.SECP521R1())),
    "ed25519": authority(key=ed25519.Ed25519PrivateKey.generate()),
    "ed448": authority(key=ed448.Ed448PrivateKey.generate()),
}
LEAVES = {
    **{name: issue(issuer) for name, issuer in AUTHORITIES.items()},
    "rsa-pss": issue(AUTHORITIES["rsa"], rsa_padding=PSS),
    "rsa-sha512": issue(AUTHORITIES["rsa"], digest=hashes.SHA512()),
}


def spki(key: dsa.DSAPrivateKey | x25519.X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("issued", "kind", "weak"),
    [
        (issue(key=rsa_key(1024)), "RSA 1024", True),
        (issue(key=rsa_key(2048)), "RSA 2048", False),
        (issue(key=ec_key(ec.SECP192R1())), "EC secp192r1", True),
        (issue(key=ec_key(ec.SECP224R1())), "EC secp224r1", False),
        (issue(key=ec_key()), "EC secp256r1", False),
        (AUTHORITIES["ed25519"], "Ed25519", False),
        (AUTHORITIES["ed448"], "Ed448", False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_strength(issued: Issued, kind: str, weak: bool) -> None:
    key = PublicKey.parse(issued.spki)
    assert key.kind == kind
    assert bool(key.weakness) is weak


@pytest.mark.parametrize(("bits", "weak"), [(1024, True), (2048, False)])
def test_strength_of_dsa(bits: int, weak: bool) -> None:
    key = PublicKey.parse(spki(dsa.generate_private_key(bits)))
    assert key.kind == f"DSA {bits}"
    assert bool(key.weakness) is weak


@pytest.mark.parametrize("octets", [b"", b"\x30", b"junk", AUTHORITIES["ec"].spki[:-1], AUTHORITIES["ec"].spki + b"\0"])
def test_what_is_no_key(octets: bytes) -> None:
    with pytest.raises(InvalidValue, match="not a public key"):
        PublicKey.parse(octets)


@pytest.mark.parametrize(("issuer", "leaf"), list(itertools.product(AUTHORITIES, LEAVES)))
def test_only_the_issuers_key_signed(issuer: str, leaf: str) -> None:
    key = PublicKey.parse(AUTHORITIES[issuer].spki)
    certificate = parse_certificate(LEAVES[leaf].der)
    assert key.signed(certificate.parsed) is (leaf.split("-")[0] == issuer)


@pytest.mark.parametrize("leaf", LEAVES)
def test_another_key_of_the_same_kind_did_not_sign(leaf: str) -> None:
    certificate = parse_certificate(LEAVES[leaf].der)
    for other in (authority(), authority(key=rsa_key(3072)), authority(key=ed25519.Ed25519PrivateKey.generate())):
        assert not PublicKey.parse(other.spki).signed(certificate.parsed)


def test_a_key_that_cannot_sign_signed_nothing() -> None:
    key = PublicKey.parse(spki(x25519.X25519PrivateKey.generate()))
    assert key.kind == "X25519"
    assert not key.signed(parse_certificate(LEAVES["ec"].der).parsed)


def test_sha1_is_a_weak_signature() -> None:
    weak = signed_over_sha1(LEAVES["rsa"], AUTHORITIES["rsa"])
    assert weak_signature(weak.certificate) == "it is signed over SHA1, which is too weak"
    assert weak_signature(LEAVES["rsa"].certificate) is None
    assert weak_signature(LEAVES["ed25519"].certificate) is None


def test_an_unknown_signature_algorithm_is_weak_and_by_nobody() -> None:
    ecdsa_with_sha256, unheard_of = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d04037f")
    certificate = parse_certificate(LEAVES["ec"].der.replace(ecdsa_with_sha256, unheard_of))
    assert weak_signature(certificate.parsed) == "it is signed with an unknown algorithm, 1.2.840.10045.4.3.127"
    assert not PublicKey.parse(AUTHORITIES["ec"].spki).signed(certificate.parsed)
