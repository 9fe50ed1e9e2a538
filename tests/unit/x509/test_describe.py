"""Chains as `explain` shows them."""

from __future__ import annotations

import hashlib
import ipaddress

from cryptography import x509

from mailrider.x509.certificate import MAX_CHAIN
from mailrider.x509.describe import MAX_NAMES_SHOWN, describe_chain
from tests.support.certificates import DAY, NOW, authority, issue, rsa_key

ROOT = authority("Test Root", key=rsa_key(2048))


def test_a_servers_certificate() -> None:
    leaf = issue(ROOT, names=["mx.example.net", "*.example.org"], common_name="mx")
    (summary,) = describe_chain([leaf.der])
    assert summary.subject == "mx"
    assert summary.issuer == "Test Root"
    assert summary.names == ("mx.example.net", "*.example.org")
    assert (summary.not_before, summary.not_after) == (NOW - 30 * DAY, NOW + 60 * DAY)
    assert summary.key == "EC secp256r1"
    assert not summary.is_self_issued
    assert summary.sha256 == leaf.tlsa(3, 0, 1).data.hex()
    assert summary.spki_sha256 == leaf.tlsa(3, 1, 1).data.hex()
    assert summary.problem == ""


def test_a_root() -> None:
    (summary,) = describe_chain([ROOT.der])
    assert summary.is_self_issued
    assert summary.names == ()
    assert summary.key == "RSA 2048"


def test_addresses_are_shown_after_the_names() -> None:
    alternative = x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address("192.0.2.1")), x509.DNSName("mx.example.net")]
    )
    (summary,) = describe_chain([issue(names=(), extensions=[alternative]).der])
    assert summary.names == ("mx.example.net", "192.0.2.1")


def test_names_are_bounded() -> None:
    (summary,) = describe_chain([issue(names=[f"h{n}.example" for n in range(500)]).der])
    assert len(summary.names) == MAX_NAMES_SHOWN


def test_what_cannot_be_read_still_has_its_digest() -> None:
    octets = ROOT.der[:-1]
    (summary,) = describe_chain([octets])
    assert summary.problem == "the certificate is cut off"
    assert summary.sha256 == hashlib.sha256(octets).hexdigest()
    assert summary.spki_sha256 == ""
    assert summary.not_after is None


def test_a_key_that_we_do_not_know_still_has_its_digest() -> None:
    rsa_encryption, unheard_of = bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d01017f")
    octets = ROOT.der.replace(rsa_encryption, unheard_of)
    (summary,) = describe_chain([octets])
    assert summary.problem.startswith("not a public key")
    assert summary.spki_sha256 == hashlib.sha256(ROOT.spki.replace(rsa_encryption, unheard_of)).hexdigest()


def test_the_chain_keeps_its_order_and_is_bounded() -> None:
    leaf = issue(ROOT)
    summaries = describe_chain([leaf.der, ROOT.der] + [b"junk"] * 50)
    assert [summary.subject for summary in summaries[:3]] == ["a server", "Test Root", ""]
    assert len(summaries) == MAX_CHAIN
