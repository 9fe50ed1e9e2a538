"""What a connection counts in a TLS report: the table of RFC 8460 4.3 as we read it."""

from __future__ import annotations

from typing import Any

import pytest

from mailrider.model.tls_problem import TLSProblem
from mailrider.model.tls_problem import TLSProblemKind as Kind
from mailrider.model.tls_session import DANESeen, PoliciesSeen, STSSeen, TLSHostRefused, TLSSessionSeen
from mailrider.tlsrpt.findings import fetch_findings, refusal_findings, session_findings
from mailrider.tlsrpt.report import DayCounts, SessionFinding

STS = STSSeen(("version: STSv1", "mode: enforce", "max_age: 86400", "mx: mx.a.test"), ("mx.a.test",))
DANE = DANESeen("mx.a.test", ("3 1 1 abcd",))


def problem(kind: Kind, code: str = "", text: str = "for people") -> TLSProblem:
    return TLSProblem(kind, text, code)


def seen(
    *, sts: STSSeen | None = None, dane: DANESeen | None = None, asked: bool = True, **more: Any
) -> TLSSessionSeen:
    policies = PoliciesSeen("a.test", sts, dane, asked)
    return TLSSessionSeen(policies, "mx.a.test", "helo.a.test", "192.0.2.25", "192.0.2.1", **more)


def shown(findings: tuple[SessionFinding, ...]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(each.policy.type.value, [(f.result.value, f.reason) for f in each.failures]) for each in findings]


WITHOUT_TLS = [
    (problem(Kind.STARTTLS_NOT_OFFERED), ("starttls-not-supported", "")),
    (problem(Kind.STARTTLS_REFUSED, "454"), ("starttls-not-supported", "starttls-reply-454")),
    (problem(Kind.REMOTE_ALERT, "handshake_failure"), ("validation-failure", "tls-remote-alert-handshake-failure")),
    (problem(Kind.LOCAL_ALERT, "protocol_version"), ("validation-failure", "tls-local-alert-protocol-version")),
    (problem(Kind.PROTOCOL), ("validation-failure", "tls-protocol-error")),
    (problem(Kind.CLOSED), ("validation-failure", "tls-closed")),
    (problem(Kind.STARTTLS_INJECTION), ("validation-failure", "starttls-injection")),
]


@pytest.mark.parametrize(("why", "expected"), WITHOUT_TLS)
def test_without_tls_every_policy_has_the_same_failure(why: TLSProblem, expected: tuple[str, str]) -> None:
    assert shown(session_findings(seen(sts=STS, dane=DANE, problem=why))) == [("tlsa", [expected]), ("sts", [expected])]
    assert shown(session_findings(seen(problem=why))) == [("no-policy-found", [expected])]


@pytest.mark.parametrize("kind", [Kind.TIMED_OUT, Kind.LOCAL, Kind.STARTTLS_NOT_USED])
def test_what_timed_out_or_is_our_own_doing_is_in_no_report(kind: Kind) -> None:
    assert session_findings(seen(sts=STS, dane=DANE, problem=problem(kind))) == ()


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        (Kind.WRONG_NAME, "X509_V_ERR_HOSTNAME_MISMATCH", "certificate-host-mismatch"),
        (Kind.EXPIRED, "X509_V_ERR_CERT_HAS_EXPIRED", "certificate-expired"),
        (Kind.NOT_YET_VALID, "X509_V_ERR_CERT_NOT_YET_VALID", "certificate-expired"),
        (Kind.NOT_TRUSTED, "X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN", "certificate-not-trusted"),
        (Kind.UNREADABLE, "", "certificate-not-trusted"),
    ],
)
def test_what_pkix_finds_is_a_failure_of_mta_sts_alone(kind: Kind, code: str, expected: str) -> None:
    found = session_findings(seen(sts=STS, dane=DANE, pkix=(problem(kind, code),)))
    assert shown(found) == [("tlsa", []), ("sts", [(expected, code or "X509_V_ERR_UNSPECIFIED")])]


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        (problem(Kind.DANE_NO_MATCH), ("validation-failure", "dane-no-match")),
        (problem(Kind.WRONG_NAME, "X509_V_ERR_HOSTNAME_MISMATCH"), ("certificate-host-mismatch", "")),
        (problem(Kind.EXPIRED, "X509_V_ERR_CERT_HAS_EXPIRED"), ("certificate-expired", "")),
        (problem(Kind.NO_CERTIFICATE), ("validation-failure", "X509_V_ERR_UNSPECIFIED")),
    ],
)
def test_what_dane_finds_is_a_failure_of_the_tlsa_records_alone(why: TLSProblem, expected: tuple[str, str]) -> None:
    assert shown(session_findings(seen_dane(why))) == [
        ("tlsa", [expected]),
        ("sts", []),
    ]


def seen_dane(why: TLSProblem) -> TLSSessionSeen:
    policies = PoliciesSeen("a.test", STS, DANE, all_asked=True)
    return TLSSessionSeen(policies, "mx.a.test", "helo.a.test", "192.0.2.25", "192.0.2.1", dane=(why,))


def test_records_of_which_none_can_be_used_are_a_failure() -> None:
    found = session_findings(seen(dane=DANESeen("mx.a.test", ("9 9 9 ab",), is_usable=False)))
    assert shown(found) == [("tlsa", [("tlsa-invalid", "no-usable-record")])]


def test_a_testing_policy_that_does_not_name_the_host_fails_as_if_it_were_enforced() -> None:
    testing = STSSeen(STS.lines, ("other.test",), names_host=False)
    found = session_findings(seen(sts=testing, pkix=(problem(Kind.WRONG_NAME, "X509_V_ERR_HOSTNAME_MISMATCH"),)))
    assert shown(found) == [
        (
            "sts",
            [
                ("validation-failure", "mx-not-in-policy"),
                ("certificate-host-mismatch", "X509_V_ERR_HOSTNAME_MISMATCH"),
            ],
        )
    ]
    counts = DayCounts()
    counts.add(found)
    assert counts.as_json()[0]["summary"] == {"total-successful-session-count": 0, "total-failure-session-count": 1}


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        (problem(Kind.STS_FETCH_FAILED, "status-404"), ("sts-policy-fetch-error", "status-404")),
        (
            problem(Kind.STS_HOST_CERTIFICATE, "X509_V_ERR_CERT_HAS_EXPIRED"),
            ("sts-webpki-invalid", "X509_V_ERR_CERT_HAS_EXPIRED"),
        ),
        (problem(Kind.STS_POLICY_INVALID, text="no mode"), ("sts-policy-invalid", "no mode")),
    ],
)
def test_a_policy_that_is_announced_and_not_to_be_had_stands_by_its_domain_alone(
    why: TLSProblem, expected: tuple[str, str]
) -> None:
    (finding,) = session_findings(seen(sts=STSSeen(problem=why)))
    assert finding.policy.as_json() == {"policy-type": "sts", "policy-domain": "a.test"}
    assert shown((finding,)) == [("sts", [expected])]
    assert finding.counts_session


def test_a_failed_fetch_beside_an_older_policy_is_a_detail_and_no_session() -> None:
    (finding,) = fetch_findings("a.test", STS, problem(Kind.STS_FETCH_FAILED, "status-500"))
    assert (finding.policy.strings, finding.policy.mx_hosts, finding.counts_session) == (STS.lines, STS.mx, False)
    assert shown((finding,)) == [("sts", [("sts-policy-fetch-error", "status-500")])]
    assert fetch_findings("a.test", None, problem(Kind.STS_FETCH_FAILED, "status-500")) == ()


def test_without_a_policy_flaws_of_the_certificate_are_no_failure() -> None:
    assert shown(session_findings(seen(pkix=(problem(Kind.NOT_TRUSTED),)))) == [("no-policy-found", [])]


def test_that_no_policy_was_found_is_said_only_where_both_kinds_were_asked_for() -> None:
    assert session_findings(seen(asked=False)) == ()


def test_a_failure_says_where_it_was() -> None:
    (finding,) = session_findings(seen(problem=problem(Kind.STARTTLS_NOT_OFFERED)))
    assert finding.failures[0].as_json(1) == {
        "result-type": "starttls-not-supported",
        "sending-mta-ip": "192.0.2.1",
        "receiving-mx-hostname": "mx.a.test",
        "receiving-mx-helo": "helo.a.test",
        "receiving-ip": "192.0.2.25",
        "failed-session-count": 1,
    }


def refused(why: TLSProblem) -> TLSHostRefused:
    return TLSHostRefused(PoliciesSeen("a.test", STS), "mx9.a.test", why)


def test_a_host_that_the_policy_does_not_name_is_one_failed_session_without_addresses() -> None:
    (finding,) = refusal_findings(refused(problem(Kind.MX_NOT_IN_POLICY)))
    assert finding.failures[0].as_json(1) == {
        "result-type": "validation-failure",
        "receiving-mx-hostname": "mx9.a.test",
        "failed-session-count": 1,
        "failure-reason-code": "mx-not-in-policy",
    }


def test_a_failed_lookup_of_tlsa_records_is_a_failed_session_of_the_mx_host() -> None:
    (finding,) = refusal_findings(refused(problem(Kind.TLSA_LOOKUP_FAILED, "servfail")))
    assert finding.policy.as_json() == {"policy-type": "tlsa", "policy-domain": "mx9.a.test"}
    assert shown((finding,)) == [("tlsa", [("dnssec-invalid", "servfail")])]


def test_other_refusals_are_no_sessions() -> None:
    assert refusal_findings(refused(problem(Kind.MX_LEVEL))) == ()


def test_a_file_that_is_no_policy_is_shown_as_it_was_served() -> None:
    lines = ("version: STSv1", "mode: enfroce")
    why = TLSProblem(Kind.STS_POLICY_INVALID, "the mode is wrong", lines=lines)
    (finding,) = session_findings(seen(sts=STSSeen(lines, problem=why)))
    assert finding.policy.as_json() == {
        "policy-type": "sts",
        "policy-string": list(lines),
        "policy-domain": "a.test",
    }
    assert shown((finding,)) == [("sts", [("sts-policy-invalid", "the mode is wrong")])]
