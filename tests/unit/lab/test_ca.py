"""The lab's authority: each kind of certificate is right but for one thing. OpenSSL is the judge."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from mailrider.lab.ca import CA, Kind, LabCertificate

if TYPE_CHECKING:
    from pathlib import Path

HOST = "mx.example.test"
NOW = datetime(2026, 1, 1, tzinfo=UTC)

GOOD = {
    Kind.VALID,
    Kind.RSA,
    Kind.WILDCARD,
    Kind.NAME_CONSTRAINED,
    Kind.CLIENT,
}
# What chain building alone cannot see: names, purposes, strength.
CHAIN_IS_GOOD = GOOD | {
    Kind.WRONG_NAME,
    Kind.NO_SAN,
    Kind.CLIENT_AUTH_ONLY,
    Kind.WEAK,
}


def leaf(certificate: LabCertificate) -> x509.Certificate:
    return x509.load_der_x509_certificate(certificate.chain_der[0])


def verify(ca: CA, certificate: LabCertificate, at: datetime) -> str:
    """Empty, or what OpenSSL has against the chain."""
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(x509.load_der_x509_certificate(ca.root_der)))
    store.set_time(at)
    first, *others = [
        crypto.X509.from_cryptography(x509.load_der_x509_certificate(der)) for der in certificate.chain_der
    ]
    try:
        crypto.X509StoreContext(store, first, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("intermediate", [True, False])
def test_only_the_kinds_with_a_faulty_chain_fail_in_the_chain(kind: Kind, intermediate: bool) -> None:
    ca = CA(now=NOW, intermediate=intermediate)
    said = verify(ca, ca.issue([HOST], kind), NOW)
    assert (said == "") is (kind in CHAIN_IS_GOOD), said


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Kind.SELF_SIGNED, "self-signed certificate"),
        (Kind.EXPIRED, "certificate has expired"),
        (Kind.NOT_YET_VALID, "certificate is not yet valid"),
        (Kind.EXPIRED_INTERMEDIATE, "certificate has expired"),
        (Kind.CA_FALSE_INTERMEDIATE, "invalid CA certificate"),
        (Kind.NAME_CONSTRAINT_VIOLATED, "permitted subtree violation"),
    ],
)
def test_each_fault_is_the_one_it_is_called(kind: Kind, said: str) -> None:
    ca = CA(now=NOW)
    assert said in verify(ca, ca.issue([HOST], kind), NOW)


def names(certificate: LabCertificate) -> list[str]:
    san = leaf(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return san.value.get_values_for_type(x509.DNSName)


def test_names_stand_where_the_kind_says() -> None:
    ca = CA(now=NOW)
    assert names(ca.issue([HOST, "b.test"])) == [HOST, "b.test"]
    assert names(ca.issue([HOST], Kind.WILDCARD)) == ["*.example.test"]
    assert names(ca.issue([HOST], Kind.WRONG_NAME)) == ["other." + HOST]
    without = leaf(ca.issue([HOST], Kind.NO_SAN))
    assert without.subject.rfc4514_string() == f"CN={HOST}"
    with pytest.raises(x509.ExtensionNotFound):
        without.extensions.get_extension_for_class(x509.SubjectAlternativeName)


@pytest.mark.parametrize("kind", [Kind.VALID, Kind.NAME_CONSTRAINED])
def test_addresses_are_names_too(kind: Kind) -> None:
    ca = CA(now=NOW)
    certificate = ca.issue(["192.0.2.1", "2001:db8::1"], kind)
    san = leaf(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each) for each in san.get_values_for_type(x509.IPAddress)] == ["192.0.2.1", "2001:db8::1"]
    assert verify(ca, certificate, NOW) == ""


def test_keys_and_purposes_are_what_the_kind_says() -> None:
    ca = CA(now=NOW)
    assert isinstance(leaf(ca.issue([HOST])).public_key(), ec.EllipticCurvePublicKey)
    for kind, size in ((Kind.RSA, 2048), (Kind.WEAK, 1024)):
        key = leaf(ca.issue([HOST], kind)).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        assert key.key_size == size
    for kind in Kind:
        usage = leaf(ca.issue([HOST], kind)).extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        client = ExtendedKeyUsageOID.CLIENT_AUTH in usage.value
        assert client is (kind in (Kind.CLIENT, Kind.CLIENT_AUTH_ONLY))


def test_the_chain_is_without_the_root_unless_it_is_asked_for() -> None:
    ca = CA(now=NOW)
    certificate = ca.issue([HOST])
    assert len(certificate.chain_der) == 2
    assert certificate.full_chain_der == (*certificate.chain_der, ca.root_der)
    assert certificate.full_chain_pem == certificate.chain_pem + ca.root_pem
    alone = ca.issue([HOST], Kind.SELF_SIGNED)
    assert alone.full_chain_der == alone.chain_der == (alone.root_der,)
    assert len(CA(now=NOW, intermediate=False).issue([HOST]).chain_der) == 1


def test_files_are_what_servers_load_and_keys_are_private(tmp_path: Path) -> None:
    ca = CA()
    for with_root in (False, True):
        cert, key = ca.issue([HOST]).write(tmp_path, f"mx{with_root}", with_root=with_root)
        assert key.stat().st_mode & 0o777 == 0o600
        assert cert.read_text().count("BEGIN CERTIFICATE") == 2 + with_root
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    context = ssl.create_default_context(cafile=ca.write_root(tmp_path))
    assert context.cert_store_stats()["x509_ca"] >= 1


def test_dates_are_around_now() -> None:
    real = CA().issue([HOST])
    assert leaf(real).not_valid_before_utc < datetime.now(UTC) < leaf(real).not_valid_after_utc
    past = CA(now=NOW - timedelta(days=10_000))
    assert verify(past, past.issue([HOST]), NOW - timedelta(days=10_000)) == ""
    assert "expired" in verify(past, past.issue([HOST]), NOW)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        CA(now=NOW).issue([HOST], "nonsense")
