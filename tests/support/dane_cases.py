"""DANE, as a table: what a server sends, what stands in DNS, and whether the one satisfies the other.

The TLSA base domain is `mx.example.net`. The unit tests read it for our verdict and its reason, the tests against
Debian's `openssl s_client` for whether other people's software agrees; `openssl` is its verdict where, by intention,
it is another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypedDict

from cryptography import x509

from tests.support.certificates import CLIENT, DAY, NOW, Issued, authority, ec_key, issue, rsa_key, signed_over_sha1

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mailrider.model.security import TLSARecord


class _Dates(TypedDict):
    not_before: datetime
    not_after: datetime


OLD: _Dates = {"not_before": NOW - 90 * DAY, "not_after": NOW - DAY}


@dataclass(frozen=True)
class DANECase:
    """`chain` is sent, leaf first; `records` stand in DNS and are usable. `reason` must occur in our verdict."""

    name: str
    chain: Sequence[Issued]
    records: Sequence[TLSARecord]
    ok: bool
    reason: str
    now: datetime = NOW
    openssl: bool | None = None

    def __str__(self) -> str:
        return self.name


@cache
def dane_cases() -> tuple[DANECase, ...]:
    return (*_end_entities(), *_anchors(), *_anchors_in_dns(), *_own_certificate(), *_ta_checks(), *_names(), *_sets())


def _end_entities() -> list[DANECase]:
    """DANE-EE(3), RFC 7671 5.1."""
    root = authority("Test Root")
    key = ec_key()
    leaf, renewed, stranger = issue(root, key=key), issue(root, key=key), issue(root)
    self_signed, expired = issue(), issue(root, **OLD)
    cases = []
    for selector, thing in ((0, "certificate"), (1, "key")):
        for matching in (0, 1, 2):
            kind = f"3_{selector}_{matching}"
            match, mismatch = leaf.tlsa(3, selector, matching), stranger.tlsa(3, selector, matching)
            cases += [
                DANECase(f"{kind}_match", [leaf], [match], True, f"is the server's {thing}"),
                DANECase(f"{kind}_mismatch", [leaf], [mismatch], False, f"the server has 3 {selector} {matching}"),
            ]
    return [
        *cases,
        DANECase("key_match_survives_renewal", [renewed], [leaf.tlsa(3, 1, 1)], True, "is the server's key"),
        DANECase("certificate_match_does_not", [renewed], [leaf.tlsa(3, 0, 1)], False, "the server has 3 0 1"),
        DANECase("ee_self_signed", [self_signed], [self_signed.tlsa(3, 1, 1)], True, "is the server's key"),
        DANECase("ee_expired", [expired], [expired.tlsa(3, 1, 1)], True, "is the server's key"),
        DANECase("ee_not_yet_valid", [leaf], [leaf.tlsa(3, 1, 1)], True, "is the server's", now=NOW - 900 * DAY),
        *(
            DANECase(f"ee_{what}", [one], [one.tlsa(3, 1, 1)], True, "is the server's key")
            for what, one in {
                "of_another_name": issue(names=["other.example"]),
                "without_any_name": issue(names=(), common_name=None),
                "for_clients": issue(purposes=[CLIENT]),
                "that_is_a_ca": authority("mx.example.net"),
            }.items()
        ),
        # Nothing but the match counts; OpenSSL still minds the size of the key.
        DANECase(
            "ee_with_a_weak_key",
            [issue(key=rsa_key(1024))],
            [issue(key=rsa_key(1024)).tlsa(3, 1, 1)],
            True,
            "is the server's key",
            openssl=False,
        ),
        DANECase("ee_is_never_the_issuer", [leaf, root], [root.tlsa(3, 1, 1)], False, "the server has 3 1 1"),
    ]


def _anchors() -> list[DANECase]:
    """DANE-TA(2), RFC 7671 5.2, with an anchor that the server sends."""
    root = authority("Test Root")
    middle = authority("Middle", root)
    leaf, direct = issue(middle), issue(root)
    stranger = authority("Stranger")
    cases = []
    for selector, thing in ((0, "certificate"), (1, "key")):
        for matching in (0, 1, 2):
            kind = f"2_{selector}_{matching}"
            of_root, of_middle = root.tlsa(2, selector, matching), middle.tlsa(2, selector, matching)
            of_stranger = stranger.tlsa(2, selector, matching)
            full = [leaf, middle, root]
            cases += [
                DANECase(f"{kind}_root", full, [of_root], True, f"is the {thing} of Test Root (certificate 3 sent)"),
                DANECase(f"{kind}_middle", full, [of_middle], True, f"is the {thing} of Middle (certificate 2 sent)"),
                DANECase(f"{kind}_middle_without_root", full[:2], [of_middle], True, "valid for mx.example.net until"),
                DANECase(f"{kind}_direct", [direct, root], [of_root], True, "issued by Test Root"),
                DANECase(f"{kind}_mismatch", full, [of_stranger], False, f"no TLSA record matches: 2 {selector} "),
                # The record matches, but no path leads there.
                DANECase(f"{kind}_sent_for_show", [*full, stranger], [of_stranger], False, "no TLSA record matches: 2"),
            ]
    return [
        *cases,
        DANECase(
            "ta_not_sent",
            [leaf, middle],
            [root.tlsa(2, 0, 1)],
            False,
            "of the certificates that the server sent besides its own (1)",
        ),
        DANECase("ta_and_nothing_sent", [direct], [root.tlsa(2, 1, 1)], False, "sent no certificate but its own"),
        DANECase("ta_with_a_gap", [leaf, root], [root.tlsa(2, 0, 1)], False, "issued by Middle, which is not trusted"),
    ]


def _anchors_in_dns() -> list[DANECase]:
    """DANE-TA(2) with the whole anchor in DNS, sent or not (RFC 7671 5.2.1 and 5.2.3)."""
    root = authority("Test Root")
    middle = authority("Middle", root)
    leaf, direct = issue(middle), issue(root)
    impostor = authority("Test Root", key_ids=False)
    rsa_root = authority("RSA Root", key=rsa_key(2048))
    weak_root = authority("Weak Root", key=rsa_key(1024))
    sha1 = signed_over_sha1(issue(rsa_root), rsa_root)
    whole, bare = root.tlsa(2, 0, 0), root.tlsa(2, 1, 0)
    return [
        DANECase("whole_certificate_over_middle", [leaf, middle], [whole], True, "certificate of Test Root (from DNS)"),
        DANECase("whole_certificate_direct", [direct], [whole], True, "issued by Test Root"),
        DANECase("whole_certificate_with_a_gap", [leaf], [whole], False, "issued by Middle, which is not trusted"),
        DANECase("whole_certificate_of_the_middle", [leaf], [middle.tlsa(2, 0, 0)], True, "issued by Middle"),
        DANECase("bare_key_signed_the_middle", [leaf, middle], [bare], True, "signed the certificate of Middle (from"),
        DANECase("bare_key_signed_the_leaf", [direct], [bare], True, "signed the certificate of a server (from DNS)"),
        DANECase("bare_key_with_a_gap", [leaf], [bare], False, "no certificate has a strong signature by it"),
        DANECase("bare_rsa_key", [issue(rsa_root)], [rsa_root.tlsa(2, 1, 0)], True, "valid for mx.example.net"),
        DANECase(
            "bare_weak_key",
            [issue(weak_root)],
            [weak_root.tlsa(2, 1, 0)],
            False,
            "no certificate has a strong",
            openssl=True,
        ),
        # OpenSSL does not look at how the certificate below a bare key was signed.
        DANECase(
            "bare_key_signed_over_sha1",
            [sha1],
            [rsa_root.tlsa(2, 1, 0)],
            False,
            "no certificate has a strong",
            openssl=True,
        ),
        DANECase(
            "bare_key_of_an_impostor",
            [direct],
            [impostor.tlsa(2, 1, 0)],
            False,
            "no certificate has a strong signature",
        ),
        DANECase(
            "whole_certificate_of_an_impostor",
            [issue(root, key_ids=False)],
            [impostor.tlsa(2, 0, 0)],
            False,
            "its signature is not by Test Root",
        ),
    ]


def _own_certificate() -> list[DANECase]:
    """DANE-TA(2) that names the server's own certificate: a frequent mistake, and no match."""
    own, issued, namesake = issue(), issue(authority("Test Root")), authority("a server")
    hint = "DANE-TA(2) needs that of its issuer; usage 3 would match"
    return [
        *(
            DANECase(f"2_{s}_{m}_{what}", [one], [one.tlsa(2, s, m)], False, hint)
            for what, one in {"of_the_leaf": issued, "of_the_self_signed_leaf": own}.items()
            for s, m in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2))
        ),
        DANECase("2_1_0_of_the_leaf", [issued], [issued.tlsa(2, 1, 0)], False, hint),
        # The key in DNS did sign it: then the server is its own CA.
        DANECase("2_1_0_of_the_self_signed_leaf", [own], [own.tlsa(2, 1, 0)], True, "is the key that signed"),
        DANECase("2_1_0_beside_a_namesake", [own, namesake], [own.tlsa(2, 1, 0)], True, "is the key that signed"),
        DANECase("leaf_sent_twice", [own, own], [own.tlsa(2, 0, 1)], False, hint),
    ]


def _ta_checks() -> list[DANECase]:
    """What DANE-TA asks of the path beyond the match: dates, CA flags, purposes."""
    root, old_root = authority("Test Root"), authority("Old Root", **OLD)
    old_middle, no_ca = authority("Old Middle", root, **OLD), issue(root, common_name="No CA")
    narrow = authority("Narrow", root, path_length=0)
    below = authority("Below", narrow)
    client_root = authority("Client Root", purposes=[CLIENT])
    ta = root.tlsa(2, 0, 1)

    def case(name: str, chain: list[Issued], record: TLSARecord, ok: bool, reason: str) -> DANECase:
        return DANECase(f"ta_{name}", chain, [record], ok, reason)

    return [
        case("leaf_expired", [issue(root, **OLD), root], ta, False, "but: expired on 2026-06-14 12:00 UTC"),
        case("leaf_not_yet_valid", [issue(root, not_before=NOW + DAY), root], ta, False, "but: not valid before"),
        case("middle_expired", [issue(old_middle), old_middle, root], ta, False, "its issuer Old Middle: expired on"),
        case("expired_itself", [issue(old_root), old_root], old_root.tlsa(2, 0, 1), False, "Old Root: expired on"),
        case("expired_itself_by_key", [issue(old_root), old_root], old_root.tlsa(2, 1, 1), False, "Root: expired on"),
        case("expired_itself_in_dns", [issue(old_root)], old_root.tlsa(2, 0, 0), False, "Old Root: expired on"),
        case("expired_but_bare_key", [issue(old_root)], old_root.tlsa(2, 1, 0), True, "valid for mx.example.net"),
        case("bare_key_leaf_expired", [issue(root, **OLD)], root.tlsa(2, 1, 0), False, "but: expired on 2026-06-14"),
        case("issuer_is_no_ca", [issue(no_ca), no_ca, root], ta, False, "it may not issue certificates (not a CA)"),
        case("path_too_long", [issue(below), below, narrow, root], ta, False, "may not have so many CAs below it"),
        case("leaf_for_clients", [issue(root, purposes=[CLIENT]), root], ta, False, "but: not meant for servers"),
        case(
            "for_clients",
            [issue(client_root), client_root],
            client_root.tlsa(2, 0, 1),
            False,
            "its issuer Client Root: not meant for servers",
        ),
        case("leaf_with_a_weak_key", [issue(root, key=rsa_key(1024)), root], ta, False, "its key is too weak"),
    ]


def _names() -> list[DANECase]:
    """Names under DANE-TA (RFC 7672 3.2.3)."""
    root = authority("Test Root")
    permitted = x509.NameConstraints([x509.DNSName("example.org")], None)
    fenced = authority("Fenced", root, critical=[permitted])

    def case(name: str, ok: bool, reason: str, *names: str, cn: str = "x") -> DANECase:
        return DANECase(name, [issue(root, names=names, common_name=cn), root], [root.tlsa(2, 0, 1)], ok, reason)

    return [
        case("ta_name", True, "valid for mx.example.net", "a.example", "mx.example.net"),
        case("ta_wildcard", True, "valid for mx.example.net", "*.example.net"),
        case("ta_other_name", False, "valid only for a.example, not for mx.example.net", "a.example"),
        case("ta_common_name", True, "valid for mx.example.net", cn="mx.example.net"),
        case("ta_common_name_wildcard", True, "valid for mx.example.net", cn="*.example.net"),
        case("ta_common_name_beside_dns_name", False, "valid only for a.example", "a.example", cn="mx.example.net"),
        case("ta_no_name", False, "valid only for nobody", cn="nobody"),
        DANECase(
            "ta_common_name_past_a_constraint",
            [issue(fenced, names=(), common_name="mx.example.net"), fenced, root],
            [root.tlsa(2, 0, 1)],
            False,
            "name constraints",
        ),
        # OpenSSL takes the wildcard for no DNS name when it looks at the constraint, and for one when at the host.
        DANECase(
            "ta_common_name_wildcard_past_a_constraint",
            [issue(fenced, names=(), common_name="*.example.net"), fenced, root],
            [root.tlsa(2, 0, 1)],
            False,
            "it names no host",
            openssl=True,
        ),
    ]


def _sets() -> list[DANECase]:
    """Several records: one match suffices."""
    root = authority("Test Root")
    leaf, next_leaf, stranger = issue(root), issue(root), authority("Stranger")
    expired = issue(root, **OLD)
    return [
        DANECase("key_roll_over", [leaf], [next_leaf.tlsa(3, 1, 1), leaf.tlsa(3, 1, 1)], True, "is the server's key"),
        DANECase(
            "ta_beside_a_stale_ee", [leaf, root], [next_leaf.tlsa(3, 1, 1), root.tlsa(2, 0, 1)], True, "Test Root"
        ),
        DANECase("ee_beside_a_stale_ta", [leaf, root], [leaf.tlsa(3, 1, 1), stranger.tlsa(2, 0, 1)], True, "server's"),
        DANECase(
            "all_stale",
            [leaf, root],
            [next_leaf.tlsa(3, 1, 1), stranger.tlsa(2, 0, 1)],
            False,
            "; 2 0 1 ",
        ),
        DANECase(
            "expired_for_the_ta_but_ee_matches",
            [expired, root],
            [root.tlsa(2, 0, 1), expired.tlsa(3, 1, 1)],
            True,
            "is the server's key",
        ),
    ]
