"""The public key of a certificate, cut out of octets that a stranger sent."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.x509.keys import subject_public_key_info
from tests.support.certificates import Issued, authority, ec_key, issue, rsa_key

GOOD = {
    "ec": issue(),
    "curve": issue(key=ec_key(ec.SECP521R1())),
    "rsa": issue(key=rsa_key(2048)),
    "ed25519": issue(key=ed25519.Ed25519PrivateKey.generate()),
    "many_names": issue(names=[f"host{n}.example.net" for n in range(3000)]),  # lengths of three octets
    "ca": authority(),
}
DER = GOOD["ec"].der


@pytest.mark.parametrize("issued", GOOD.values(), ids=GOOD)
def test_the_key_is_the_one_that_cryptography_finds(issued: Issued) -> None:
    assert subject_public_key_info(issued.der) == issued.spki


def test_a_version_1_certificate_has_no_version_field() -> None:
    # [0] { INTEGER 2 } at the head of the signed part goes, and both lengths with it.
    assert DER[8:13] == b"\xa0\x03\x02\x01\x02"
    lengths = [int.from_bytes(DER[at : at + 2], "big") - 5 for at in (2, 6)]
    v1 = b"\x30\x82%b\x30\x82%b" % tuple(length.to_bytes(2, "big") for length in lengths) + DER[13:]
    assert subject_public_key_info(v1) == GOOD["ec"].spki


def test_every_prefix_is_refused() -> None:
    for end in range(len(DER)):
        with pytest.raises(InvalidValue):
            subject_public_key_info(DER[:end])


def test_octets_behind_the_certificate_are_refused() -> None:
    with pytest.raises(InvalidValue, match="3 octets stand behind the certificate"):
        subject_public_key_info(DER + b"abc")


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "the certificate is missing"),
        (b"\x31\x00", "the certificate is missing"),
        (b"\x30\x80\x00\x00", "the length of the certificate is not DER"),  # indefinite: BER
        (b"\x30\x85\x00\x00\x00\x00\x00", "the length of the certificate is not DER"),
        (b"\x30\x84\xff\xff\xff\xff", "the certificate is cut off"),
        (b"\x30\x82\x01", "the certificate is cut off"),
        (b"\x30\x00", "the part that is signed is missing"),
        (b"\x30\x02\x30\x00", "the serial number is missing"),
        (b"\x30\x04\x30\x02\xa0\x00", "the serial number is missing"),
        (b"\x30\x05\x30\x03\x02\x01\x01", "the signature algorithm is missing"),
        (b"\x30\x0d\x30\x0b\x02\x01\x01" + b"\x30\x00" * 4, "the public key is missing"),
    ],
)
def test_the_reason_names_the_field(octets: bytes, reason: str) -> None:
    with pytest.raises(InvalidValue, match=reason):
        subject_public_key_info(octets)


@given(st.binary(max_size=200))
def test_any_octets_have_a_key_or_are_invalid(octets: bytes) -> None:
    try:
        found = subject_public_key_info(octets)
    except InvalidValue:
        return
    assert found in octets


@given(st.integers(0, len(DER) - 1), st.integers(0, 255))
def test_a_changed_octet_never_leads_outside(at: int, value: int) -> None:
    changed = DER[:at] + bytes((value,)) + DER[at + 1 :]
    try:
        found = subject_public_key_info(changed)
    except InvalidValue:
        return
    assert found in changed
