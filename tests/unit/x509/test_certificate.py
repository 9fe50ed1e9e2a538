"""Reading certificates: names for people, odd serial numbers, and what is left out of a chain."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from mailrider.errors import InvalidValue
from mailrider.x509.certificate import MAX_NAME_TEXT, parse_certificate, read_chain, readable_name
from tests.support.certificates import authority, issue

DER = issue(authority("Test Root")).der


def name(**parts: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(getattr(NameOID, part.upper()), value) for part, value in parts.items()])


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        (name(common_name="R11", organization_name="Let's Encrypt"), "R11 (Let's Encrypt)"),
        (name(common_name="mx.example.net"), "mx.example.net"),
        (name(common_name="Example", organization_name="Example"), "Example"),
        (name(organization_name="Example", organizational_unit_name="Root CA"), "Root CA (Example)"),
        (name(organization_name="Example"), "Example"),
        (name(country_name="CH"), "C=CH"),
        (name(), "(no name)"),
        (name(common_name="evil\r\n250 ok\x1b[31m"), "evil 250 ok [31m"),
    ],
)
def test_what_people_know_a_name_by(subject: x509.Name, told: str) -> None:
    assert readable_name(subject) == told


def test_a_long_name_is_cut() -> None:
    told = readable_name(name(common_name="x" * 64, organization_name="y" * 64))
    assert len(told) == MAX_NAME_TEXT
    assert told.endswith("...")


def test_a_name_of_bits_is_shown_as_digits() -> None:
    # The library takes this type only, and gives it no public name.
    bits = x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"\x00\x01", x509.name._ASN1Type.BitString)
    assert "0001" in readable_name(x509.Name([bits]))


@pytest.mark.parametrize("serial", [b"\x00", b"\x80", b"\xff"])
def test_a_serial_number_that_is_not_positive_is_coped_with(serial: bytes) -> None:
    # RFC 5280 4.1.2.2
    odd = issue(serial=1).der.replace(b"\x02\x01\x01", b"\x02\x01" + serial, 1)
    certificate = parse_certificate(odd)
    assert certificate.der == odd
    assert certificate.subject == "a server"


def test_so_is_one_in_the_authority_key_identifier() -> None:
    issuer = [x509.DirectoryName(name(common_name="Old Root"))]
    odd = x509.AuthorityKeyIdentifier(b"\x11" * 20, issuer, 1)
    der = issue(key_ids=False, extensions=[odd]).der
    assert der.count(b"\x82\x01\x01") == 1
    assert parse_certificate(der.replace(b"\x82\x01\x01", b"\x82\x01\x00")).subject == "a server"


def test_the_same_octets_are_the_same_certificate() -> None:
    assert parse_certificate(DER) == parse_certificate(DER)
    assert len({parse_certificate(DER), parse_certificate(DER), parse_certificate(issue().der)}) == 2


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"\x55\x1d\x11", b"\x55\x1d\x25", "it cannot be decoded"),  # two extended key usages: RFC 5280 4.2
        (b"mx.example.net", b"mx.ex\xffmple.net", "it cannot be decoded"),  # a DNS name that is not ASCII
        (b"260814120000Z", b"269914120000Z", "it cannot be decoded"),  # the 99th month
        (bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d027f"), "not a public key of a kind"),
    ],
)
def test_what_cannot_be_decoded_is_invalid(old: bytes, new: bytes, reason: str) -> None:
    assert old in DER
    with pytest.raises(InvalidValue, match=reason):
        parse_certificate(DER.replace(old, new))


def test_an_extension_that_is_not_there() -> None:
    assert parse_certificate(DER).extension(x509.NameConstraints) is None


def test_reading_no_chain() -> None:
    sent = read_chain([])
    assert sent.leaf is None
    assert sent.certificates == ()
    assert sent.complaints == ("the server sent no certificate",)


def test_an_unreadable_leaf_leaves_the_others() -> None:
    sent = read_chain([b"junk", DER])
    assert sent.leaf is None
    assert sent.certificates == (parse_certificate(DER),)
    assert sent.complaints == ("the server's certificate cannot be read: the certificate is missing",)
