"""PKIX, as a table: what a server sends, whom we trust, and whether that proves `mx.example.net`.

The unit tests read it for our verdict and its reason, the tests against Debian's `openssl verify` for whether other
people's software agrees. Where it does not, by intention, the case says so (`openssl`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

from tests.support.certificates import (
    ANY,
    CLIENT,
    DAY,
    NOW,
    SERVER,
    Issued,
    authority,
    ec_key,
    issue,
    rsa_key,
    signed_over_sha1,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


@dataclass(frozen=True)
class PKIXCase:
    """`chain` is sent, leaf first. `reason` must occur in our verdict. `openssl`: its verdict, if it is another."""

    name: str
    chain: Sequence[Issued]
    trusted: Sequence[Issued]
    ok: bool
    reason: str
    host: str = "mx.example.net"
    now: datetime = NOW
    openssl: bool | None = None

    def __str__(self) -> str:
        return self.name


@cache
def pkix_cases() -> tuple[PKIXCase, ...]:
    return (*_paths(), *_dates(), *_names(), *_purposes(), *_strengths(), *_limits())


def _paths() -> list[PKIXCase]:
    root, other = authority("Test Root"), authority("Other Root")
    middle = authority("Middle", root)
    leaf, deep, own = issue(root), issue(middle), issue()
    impostor = authority("Test Root", key_ids=False)  # the name of the root, another key
    plain = issue(root, key_ids=False)
    return [
        PKIXCase("root_signed_it", [leaf], [root], True, "valid for mx.example.net until 2026-08-14 12:00 UTC"),
        PKIXCase("root_is_sent_too", [leaf, root], [root], True, "issued by Test Root"),
        PKIXCase("over_an_intermediate", [deep, middle], [root], True, "issued by Middle, under Test Root"),
        PKIXCase("intermediate_is_trusted_itself", [deep], [middle], True, "issued by Middle"),
        PKIXCase("chain_in_wrong_order_with_strangers", [deep, other, root, middle], [root], True, "issued by Middle"),
        PKIXCase("intermediate_not_sent", [deep], [root], False, "issued by Middle, which is not trusted and was not"),
        PKIXCase("root_not_trusted", [leaf], [other], False, "issued by Test Root, which is not trusted"),
        PKIXCase("sent_root_not_trusted", [deep, middle, root], [other], False, "under the root Test Root, which is"),
        PKIXCase("self_signed", [own], [root], False, "self-signed"),
        PKIXCase("self_signed_and_trusted", [own], [own], True, "issued by a server"),
        PKIXCase("trusted_itself", [deep], [deep], True, "issued by Middle"),
        PKIXCase("nobody_is_trusted", [leaf], [], False, "no trusted roots are configured"),
        PKIXCase("root_of_the_same_name", [plain], [impostor], False, "its signature is not by Test Root, as it says"),
        PKIXCase("two_roots_of_the_same_name", [leaf], [authority("Test Root"), root, other], True, "by Test Root"),
        PKIXCase(
            "issuer_is_no_ca",
            [issue(own, common_name="victim"), own],
            [own],
            False,
            "its issuer a server: it may not issue certificates (not a CA)",
        ),
    ]


def _dates() -> list[PKIXCase]:
    root = authority("Test Root")
    old_root = authority("Old Root", not_after=NOW - DAY)
    old_middle = authority("Old Middle", root, not_after=NOW - DAY)
    key = ec_key()
    renewed = [authority("Renewed Root", key=key, not_after=NOW + days * DAY) for days in (-1, 500)]
    leaf = issue(root)
    return [
        PKIXCase("expired", [issue(root, not_after=NOW - DAY)], [root], False, "expired on 2026-06-14 12:00 UTC"),
        PKIXCase("not_yet_valid", [issue(root, not_before=NOW + DAY)], [root], False, "not valid before 2026-06-16"),
        PKIXCase("first_second", [leaf], [root], True, "valid for", now=leaf.certificate.not_valid_before_utc),
        PKIXCase("a_second_before", [leaf], [root], False, "not valid before", now=NOW - 30 * DAY - DAY / 86400),
        PKIXCase("a_second_after", [leaf], [root], False, "expired on 2026-08-14", now=NOW + 60 * DAY + DAY / 86400),
        PKIXCase(
            "intermediate_expired",
            [issue(old_middle), old_middle],
            [root],
            False,
            "its issuer Old Middle: expired on 2026-06-14",
        ),
        PKIXCase("root_expired", [issue(old_root)], [old_root], False, "its issuer Old Root: expired on 2026-06-14"),
        PKIXCase(
            "renewed_root_beside_the_expired",
            [issue(renewed[0])],
            renewed,
            True,
            "issued by Renewed Root",
        ),
        PKIXCase(
            "expired_and_self_signed",
            [issue(not_after=NOW - DAY)],
            [root],
            False,
            "self-signed; expired on 2026-06-14 12:00 UTC",
        ),
    ]


def _names() -> list[PKIXCase]:
    root = authority("Test Root")

    def named(*names: str, common_name: str | None = "x") -> list[Issued]:
        return [issue(root, names=names, common_name=common_name)]

    trusted = [root]
    return [
        PKIXCase("second_name", named("a.example", "mx.example.net"), trusted, True, "valid for mx.example.net"),
        PKIXCase("upper_case", named("MX.Example.NET"), trusted, True, "valid for mx.example.net"),
        PKIXCase("wildcard", named("*.example.net"), trusted, True, "valid for mx.example.net"),
        PKIXCase(
            "wildcard_over_an_a_label",
            named("*.example.net"),
            trusted,
            True,
            "valid for xn--bcher-kva",
            host="xn--bcher-kva.example.net",
        ),
        PKIXCase(
            "wildcard_is_one_label", named("*.net"), trusted, False, "valid only for *.net, not for mx.example.net"
        ),
        PKIXCase(
            "wildcard_over_two_labels", named("*.example.net"), trusted, False, "not for a.b", host="a.b.example.net"
        ),
        PKIXCase("wildcard_is_no_label", named("*.example.net"), trusted, False, "not for", host="example.net"),
        PKIXCase("wildcard_over_a_lone_label", named("*.example.net"), trusted, False, "not for mx", host="mx"),
        PKIXCase("wildcard_within_a_label", named("m*.example.net"), trusted, False, "valid only for m*", openssl=True),
        PKIXCase("wildcard_in_the_middle", named("mx.*.net"), trusted, False, "valid only for mx.*.net, not for"),
        PKIXCase(
            "other_name",
            named("a.example", "b.example"),
            trusted,
            False,
            "valid only for a.example, b.example, not for mx.example.net",
        ),
        PKIXCase(
            "many_other_names",
            named(*(f"a{n}.example" for n in range(12))),
            trusted,
            False,
            "a4.example and 7 more, not for mx.example.net",
        ),
        PKIXCase("parent_domain", named("example.net"), trusted, False, "valid only for example.net, not for mx."),
        # RFC 9525 2: the common name is no identity. OpenSSL 3 still takes it where there is no DNS name.
        PKIXCase(
            "common_name_only", named(common_name="mx.example.net"), trusted, False, "names no host", openssl=True
        ),
        PKIXCase("bad_name_beside_the_good", named("*", "192.0.2.1", "mx.example.net"), trusted, True, "valid for mx"),
    ]


def _purposes() -> list[PKIXCase]:
    root, client_root = authority("Test Root"), authority("Client Root", purposes=[CLIENT])
    client_middle = authority("Client Middle", root, purposes=[CLIENT])
    server_middle = authority("Server Middle", root, purposes=[SERVER, CLIENT])
    not_for = "not meant for servers"
    return [
        PKIXCase("no_purpose_is_any", [issue(root, purposes=None)], [root], True, "valid for"),
        PKIXCase("server_and_client", [issue(root, purposes=[CLIENT, SERVER])], [root], True, "valid for"),
        PKIXCase("any_purpose", [issue(root, purposes=[ANY])], [root], True, "valid for", openssl=False),
        PKIXCase("client_only", [issue(root, purposes=[CLIENT])], [root], False, not_for),
        PKIXCase("ca_for_servers", [issue(server_middle), server_middle], [root], True, "valid for"),
        PKIXCase(
            "ca_for_clients",
            [issue(client_middle), client_middle],
            [root],
            False,
            f"its issuer Client Middle: {not_for}",
        ),
        PKIXCase("root_for_clients", [issue(client_root)], [client_root], False, f"its issuer Client Root: {not_for}"),
        PKIXCase("key_may_sign", [issue(root, key_usage=["digital_signature"])], [root], True, "valid for"),
        PKIXCase("key_may_decrypt", [issue(root, key_usage=["key_encipherment"])], [root], True, "valid for"),
        PKIXCase("key_may_agree", [issue(root, key_usage=["key_agreement"])], [root], True, "valid for"),
        PKIXCase("key_for_else", [issue(root, key_usage=["crl_sign"])], [root], False, "may not be used for TLS"),
    ]


def _strengths() -> list[PKIXCase]:
    root = authority("Test Root")
    rsa_root = authority("RSA Root", key=rsa_key(2048))
    weak_root = authority("Weak Root", key=rsa_key(1024))
    sha1_root = signed_over_sha1(authority("SHA-1 Root", key=rsa_key(2048)))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return [
        PKIXCase("rsa_2048", [issue(rsa_root, key=rsa_key(2048))], [rsa_root], True, "valid for"),
        PKIXCase("rsa_pss", [issue(rsa_root, rsa_padding=pss)], [rsa_root], True, "valid for"),
        PKIXCase("p384", [issue(root, key=ec_key(ec.SECP384R1()))], [root], True, "valid for"),
        PKIXCase("ed25519", [issue(root, key=ed25519.Ed25519PrivateKey.generate())], [root], True, "valid for"),
        PKIXCase(
            "rsa_1024", [issue(root, key=rsa_key(1024))], [root], False, "too weak: RSA 1024 bits, fewer than 2048"
        ),
        PKIXCase("p192", [issue(root, key=ec_key(ec.SECP192R1()))], [root], False, "too weak: EC secp192r1"),
        PKIXCase("signed_by_rsa_1024", [issue(weak_root)], [weak_root], False, "its issuer Weak Root: its key is too"),
        PKIXCase(
            "signed_over_sha1", [signed_over_sha1(issue(rsa_root), rsa_root)], [rsa_root], False, "signed over SHA1"
        ),
        PKIXCase("root_signed_over_sha1", [issue(sha1_root)], [sha1_root], True, "issued by SHA-1 Root"),
    ]


def _limits() -> list[PKIXCase]:
    root = authority("Test Root")
    narrow = authority("Narrow", root, path_length=0)
    below = authority("Below", narrow)
    no_signer = authority("No Signer", root, key_usage=["digital_signature"])
    permitted = x509.NameConstraints([x509.DNSName("example.org")], None)
    excluded = x509.NameConstraints(None, [x509.DNSName("example.net")])
    fenced = authority("Fenced", root, critical=[permitted])
    banned = authority("Banned", root, critical=[excluded])
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
    number = x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4"))
    odd = authority("Odd", root, critical=[x509.NameConstraints([number], None)])
    odd_names = x509.SubjectAlternativeName([x509.DNSName("mx.example.net"), number])
    odd_leaf = issue(odd, names=(), extensions=[odd_names])
    cas = [authority("CA 0")]
    for depth in range(1, 9):
        cas.append(authority(f"CA {depth}", cas[-1]))
    longest = [issue(cas[-1]), *reversed(cas)]
    return [
        PKIXCase(
            "path_too_long", [issue(below), below, narrow], [root], False, "its issuer Narrow: it may not have so"
        ),
        PKIXCase("ca_may_not_sign", [issue(no_signer), no_signer], [root], False, "it may not issue certificates"),
        PKIXCase("name_not_permitted", [issue(fenced), fenced], [root], False, "name constraints"),
        PKIXCase("name_excluded", [issue(banned), banned], [root], False, "name constraints"),
        PKIXCase(
            "name_permitted",
            [issue(fenced, names=["mx.example.org"]), fenced],
            [root],
            True,
            "valid for mx.example.org",
            host="mx.example.org",
        ),
        PKIXCase("critical_extension", [issue(root, critical=[unknown])], [root], False, "critical extension"),
        # An error that we have no words of our own for
        PKIXCase("odd_constraint", [odd_leaf, odd], [root], False, "OpenSSL says: unsupported name constraint type"),
        PKIXCase("other_extension", [issue(root, extensions=[unknown])], [root], True, "valid for"),
        PKIXCase("ten_certificates", longest, [cas[0]], True, "issued by CA 8, under CA 0"),
    ]
