"""PKIX verdicts: the table, and what does not fit into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mailrider.model.domain import Domain
from mailrider.model.security import Mechanism, Verdict
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.x509 import names
from mailrider.x509.anchors import Anchors
from mailrider.x509.certificate import MAX_CERTIFICATE, MAX_CHAIN, MAX_REASON, parse_certificate
from mailrider.x509.verify import judge_chain
from mailrider.x509.verify_error import VerifyError
from tests.support.certificates import DAY, NOW, Issued, authority, issue
from tests.support.pkix_cases import PKIXCase, pkix_cases

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = authority("Test Root")
LEAF = issue(ROOT)
MX = Domain("mx.example.net")


def anchors(*issued: Issued) -> Anchors:
    return Anchors(parse_certificate(one.der) for one in issued)


def verify(*chain: bytes, names: tuple[Domain, ...] = (MX,), trusted: tuple[Issued, ...] = (ROOT,)) -> Verdict:
    return judge_chain(chain, anchors(*trusted), names, NOW).verdict


@pytest.mark.parametrize("case", pkix_cases(), ids=str)
def test_pkix(case: PKIXCase) -> None:
    chain = [one.der for one in case.chain]
    verdict = judge_chain(chain, anchors(*case.trusted), [Domain(case.host)], case.now).verdict
    assert case.reason in verdict.reason
    assert verdict.ok is case.ok
    assert bool(verdict.problems) is not case.ok
    assert verdict.mechanism is Mechanism.PKIX


def test_any_one_of_the_names_suffices() -> None:
    verdict = verify(LEAF.der, names=(Domain("a.example"), MX))
    assert verdict.ok
    assert "valid for mx.example.net" in verdict.reason


def test_all_names_that_were_wanted_are_told() -> None:
    verdict = verify(LEAF.der, names=(Domain("a.example"), Domain("b.example")))
    assert verdict.reason == "valid only for mx.example.net, not for a.example or b.example"


def test_of_thousands_of_names_only_those_that_can_match_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # Reading each took the event loop half a second for a certificate, and a hostile server sends one after the other.
    read: list[str] = []
    # Which names are read shows nowhere else but in the time that it takes.
    monkeypatch.setattr(names, "_pattern", lambda name: read.append(name))
    noise = [f"{number:x}.example" for number in range(3000)]
    crowd = issue(ROOT, names=(*noise, "MX.Example.NET", "*.example.net", "*.net"))
    assert not verify(crowd.der, names=(MX,)).ok
    assert set(read) == {"MX.Example.NET", "*.example.net"}


def test_without_a_name_nothing_is_proven() -> None:
    verdict = verify(LEAF.der, names=())
    assert not verdict.ok
    assert verdict.reason == "there is no host name that it could prove"


def test_no_certificate_is_a_verdict() -> None:
    text = "the server sent no certificate"
    assert verify() == Verdict(False, Mechanism.PKIX, text, (TLSProblem(TLSProblemKind.NO_CERTIFICATE, text),))


@pytest.mark.parametrize("junk", [b"", b"\x30", b"junk", b"\x30\x82\xff\xff", LEAF.der[:-1], LEAF.der + b"\0"])
def test_a_certificate_that_cannot_be_read_is_a_verdict(junk: bytes) -> None:
    verdict = verify(junk, ROOT.der)
    assert not verdict.ok
    assert verdict.reason.startswith("the server's certificate cannot be read: ")
    assert [problem.kind for problem in verdict.problems] == [TLSProblemKind.UNREADABLE]


def test_an_enormous_certificate_is_a_verdict() -> None:
    verdict = verify(b"\x30" * (MAX_CERTIFICATE + 1))
    assert verdict.reason == "the server's certificate cannot be read: it has 65537 octets, more than 65536"


def test_junk_behind_the_servers_certificate_does_no_harm() -> None:
    assert verify(LEAF.der, b"junk", b"").ok


def test_junk_in_place_of_the_intermediate_is_named() -> None:
    middle = authority("Middle", ROOT)
    verdict = verify(issue(middle).der, middle.der[:-1])
    assert verdict.reason == (
        "issued by Middle, which is not trusted and was not sent by the server; "
        "certificate 2 of 2 sent cannot be read: the certificate is cut off"
    )


def test_an_intermediate_past_the_tenth_certificate_is_not_looked_at() -> None:
    middle = authority("Middle", ROOT)
    filler = [authority(f"Filler {number}").der for number in range(MAX_CHAIN - 1)]
    assert verify(issue(middle).der, *filler[:-1], middle.der).ok
    verdict = verify(issue(middle).der, *filler, middle.der)
    assert not verdict.ok
    assert verdict.reason.endswith("the server sent 11 certificates, only the first 10 were looked at")


def test_a_loop_of_cross_signed_cas_ends() -> None:
    one = authority("One", authority("Two"))
    two = authority("Two", one)
    assert not verify(issue(one).der, one.der, two.der).ok


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = issue(names=["a.example"], not_after=NOW - DAY, key_usage=["crl_sign"])
    assert verify(wrong.der).reason == (
        "self-signed; expired on 2026-06-14 12:00 UTC; its key may not be used for TLS; "
        "valid only for a.example, not for mx.example.net"
    )


@pytest.mark.parametrize(
    ("certificate", "kind", "code"),
    [
        (lambda: issue(ROOT, names=["a.example"]), "wrong-name", "X509_V_ERR_HOSTNAME_MISMATCH"),
        (lambda: issue(ROOT, not_after=NOW - DAY), "expired", "X509_V_ERR_CERT_HAS_EXPIRED"),
        (lambda: issue(ROOT, not_before=NOW + DAY), "not-yet-valid", "X509_V_ERR_CERT_NOT_YET_VALID"),
        (lambda: issue(ROOT, key_usage=["crl_sign"]), "not-trusted", "X509_V_ERR_INVALID_PURPOSE"),
        (lambda: issue(), "not-trusted", "X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT"),
        (
            lambda: issue(authority("Unknown")),
            "not-trusted",
            "X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
        ),
    ],
)
def test_each_problem_has_a_kind_and_the_name_that_openssl_gives_it(
    certificate: Callable[[], Issued], kind: str, code: str
) -> None:
    verdict = verify(certificate().der)
    assert (kind, code) in [(problem.kind.value, problem.code) for problem in verdict.problems]
    assert {problem.kind.value for problem in verdict.problems} == {kind}


@pytest.mark.parametrize(
    ("number", "name"), [(10, "CERT_HAS_EXPIRED"), (62, "HOSTNAME_MISMATCH"), (999, "UNSPECIFIED")]
)
def test_an_error_of_openssl_that_nobody_knows_is_unspecified(number: int, name: str) -> None:
    assert VerifyError.of(number).code == f"X509_V_ERR_{name}"


def test_the_same_anchors_serve_many_moments() -> None:
    # OpenSSL's store keeps the first time that it is given; a verdict must not.
    trusted = anchors(ROOT)
    moments = [NOW, NOW + 61 * DAY, NOW, NOW - 31 * DAY, NOW]
    verdicts = [judge_chain([LEAF.der], trusted, [MX], moment).verdict.ok for moment in moments]
    assert verdicts == [True, False, True, False, True]


def test_a_root_with_serial_number_zero_is_trusted() -> None:
    # RFC 5280 4.1.2.2: such certificates exist, and are to be coped with.
    root = issue(common_name="Zero", ca=True, names=(), purposes=None, serial=1)
    zero = root.der.replace(b"\x02\x01\x01", b"\x02\x01\x00", 1)
    trusted = Anchors([parse_certificate(zero)])
    assert judge_chain([issue(root).der], trusted, [MX], NOW).verdict.ok


def test_a_name_that_reads_as_a_number_matches_nothing() -> None:
    assert not verify(LEAF.der, names=(Domain("1_0"),)).ok


def test_a_reason_is_bounded_whatever_the_names() -> None:
    names = [f"{'x' * 60}.{'y' * 60}.{'z' * 60}.{n}.example" for n in range(200)]
    verdict = verify(issue(ROOT, names=names).der, names=tuple(Domain(f"{'w' * 63}.{n}.example") for n in range(20)))
    assert len(verdict.reason) == MAX_REASON
    assert verdict.reason.endswith("...")
