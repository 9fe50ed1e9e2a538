"""Programs that are not ours read our reports: parsedmarc, strict I-JSON, and what is built for the largest senders."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.model.tls_session import DANESeen, PoliciesSeen, STSSeen, TLSHostRefused, TLSSessionSeen
from mailrider.reporting.mail import compose
from mailrider.tlsrpt.findings import refusal_findings, session_findings
from mailrider.tlsrpt.report import DayCounts, Reporter, TLSReport, build_report

if TYPE_CHECKING:
    from collections.abc import Sequence

REPORTER = Reporter("Beispiel & Söhne «Mail»", "tls@sender.test", "sender.test")
NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)
STS = STSSeen(("version: STSv1", "mode: enforce", "mx: mx.a.test", "note:\tw\u00e4rt\ud800\ufdd0"), ("mx.a.test",))
DANE = DANESeen("mx.a.test", ("3 1 1 " + "ab" * 32,))
BROKEN = STSSeen(("<html>",), problem=TLSProblem(TLSProblemKind.STS_POLICY_INVALID, "no mode", lines=("<html>",)))
WRONG_NAME = TLSProblem(TLSProblemKind.WRONG_NAME, "another name", "X509_V_ERR_HOSTNAME_MISMATCH")
SERVER, OURS = "192.0.2.25", "192.0.2.1"


def everything() -> TLSReport:
    """A report of each kind of policy, with failures whose strings a stranger chose."""
    counts = DayCounts()
    for policies, more in [
        (PoliciesSeen("a.test", STS, DANE), {}),
        (PoliciesSeen("a.test", STS), {"pkix": (WRONG_NAME,)}),
        (PoliciesSeen("a.test", BROKEN), {}),
        (PoliciesSeen("a.test", all_asked=True), {"problem": TLSProblem(TLSProblemKind.STARTTLS_NOT_OFFERED, "no")}),
    ]:
        counts.add(session_findings(TLSSessionSeen(policies, "mx.a.test", 'evil"\r\n\ud800\x00', SERVER, OURS, **more)))  # type: ignore[arg-type]
    refused = TLSProblem(TLSProblemKind.MX_NOT_IN_POLICY, "not named")
    counts.add(refusal_findings(TLSHostRefused(PoliciesSeen("a.test", STS), "mx2.a.test", refused)))
    return build_report("a.test", date(2026, 11, 30), counts, REPORTER, b"s" * 32)


def content() -> Any:
    return json.loads(gzip.decompress(everything().body))


# parsedmarc ----------------------------------------------------------------------------------------------------------


def as_parsedmarc_has_it(report: Any) -> list[tuple[str, str, int, int, list[str]]]:
    return [
        (
            each["policy_domain"],
            each["policy_type"],
            each["successful_session_count"],
            each["failed_session_count"],
            [details["result_type"] for details in each["failure_details"]],
        )
        for each in report["policies"]
    ]


EXPECTED = [
    ("a.test", "no-policy-found", 0, 1, ["starttls-not-supported"]),
    ("a.test", "sts", 0, 1, ["sts-policy-invalid"]),
    ("a.test", "sts", 1, 2, ["certificate-host-mismatch", "validation-failure"]),
    ("mx.a.test", "tlsa", 1, 0, []),
]


def test_parsedmarc_reads_the_mail() -> None:
    parsedmarc = pytest.importorskip("parsedmarc")
    mail = compose(everything(), REPORTER, ["reports@a.test", "reports@b.test"], NOW)
    parsed = parsedmarc.parse_report_email(mail, offline=True)
    assert parsed["report_type"] == "smtp_tls"
    report = parsed["report"]
    assert sorted(as_parsedmarc_has_it(report)) == EXPECTED
    assert (report["organization_name"], report["report_id"]) == (REPORTER.organization, everything().report_id)
    assert (report["begin_date"], report["end_date"]) == ("2026-11-30T00:00:00Z", "2026-11-30T23:59:59Z")


def test_parsedmarc_reads_the_saved_body_of_a_post() -> None:
    parsedmarc = pytest.importorskip("parsedmarc")
    parsed = parsedmarc.parse_report_file(everything().body, offline=True)
    assert (parsed["report_type"], sorted(as_parsedmarc_has_it(parsed["report"]))) == ("smtp_tls", EXPECTED)
    (rows,) = [parsedmarc.parsed_smtp_tls_reports_to_csv_rows(parsed["report"])]
    failed = [row for row in rows if row.get("result_type") == "certificate-host-mismatch"]
    assert [(row["sending_mta_ip"], row["receiving_ip"]) for row in failed] == [(OURS, SERVER)]


# I-JSON (RFC 7493) ---------------------------------------------------------------------------------------------------


def _each_name_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), "RFC 7493 2.3: no name twice"
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def _strings(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for name, each in value.items() for text in (name, *_strings(each))]
        case list():
            return [text for each in value for text in _strings(each)]
        case _:
            assert type(value) is int, f"neither a text nor a whole number: {value!r}"
            assert 0 <= value < 2**53, "RFC 7493 2.2"
            return []


def test_a_report_is_strict_i_json_whatever_strangers_wrote() -> None:
    octets = gzip.decompress(everything().body)
    assert not octets.startswith(b"\xef\xbb\xbf")
    value = json.loads(octets.decode("utf-8"), object_pairs_hook=_each_name_once, parse_constant=_no_constant)
    for text in _strings(value):
        for code in map(ord, text):
            assert not 0xD800 <= code <= 0xDFFF, "RFC 7493 2.1: no surrogates"
            assert not 0xFDD0 <= code <= 0xFDEF, "RFC 7493 2.1: no noncharacters"
            assert code & 0xFFFE != 0xFFFE, "RFC 7493 2.1: no noncharacters"
    moment = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")  # RFC 7493 4.3, RFC 3339
    assert all(moment.fullmatch(each) for each in value["date-range"].values())


# What is built for the largest senders -------------------------------------------------------------------------------

# Their reports, with other names: readers that take these take ours. Google shows mx-host as a list and has
# failure-details where something failed; Microsoft leaves both out where there is nothing, and has times to the second.
GOOGLE: dict[str, Any] = {
    "organization-name": "Google Inc.",
    "date-range": {"start-datetime": "2026-11-30T00:00:00Z", "end-datetime": "2026-11-30T23:59:59Z"},
    "contact-info": "smtp-tls-reporting@reporter.test",
    "report-id": "2026-11-30T00:00:00Z_a.test",
    "policies": [
        {
            "policy": {
                "policy-type": "sts",
                "policy-string": ["version: STSv1", "mode: testing", "mx: mx.a.test", "max_age: 86400"],
                "policy-domain": "a.test",
                "mx-host": ["mx.a.test"],
            },
            "summary": {"total-successful-session-count": 7, "total-failure-session-count": 1},
            "failure-details": [
                {
                    "result-type": "certificate-host-mismatch",
                    "sending-mta-ip": "192.0.2.25",
                    "receiving-mx-hostname": "mx.a.test",
                    "receiving-mx-helo": "mx",
                    "receiving-ip": "192.0.2.1",
                    "failed-session-count": 1,
                    "failure-reason-code": "why",
                }
            ],
        }
    ],
}
MICROSOFT: dict[str, Any] = {
    "organization-name": "Microsoft Corporation",
    "date-range": {"start-datetime": "2026-11-30T00:00:00Z", "end-datetime": "2026-11-30T23:59:59Z"},
    "contact-info": "tlsrpt-noreply@reporter.test",
    "report-id": "133773120000000000+a.test",
    "policies": [
        {
            "policy": {"policy-type": "tlsa", "policy-string": ["3 1 1 ABCD"], "policy-domain": "a.test"},
            "summary": {"total-successful-session-count": 7, "total-failure-session-count": 0},
        }
    ],
}


def fits(ours: Any, theirs: Any, *, all_of_theirs: bool, where: str = "") -> list[str]:
    """Where ours is of another shape: a type that differs; a name that they have and we lack, or that they never have.

    `all_of_theirs` False: that names are missing, or more, does not count.
    """
    if type(ours) is not type(theirs):
        return [f"{where}: {type(ours).__name__}, not {type(theirs).__name__}"]
    if isinstance(ours, list):
        return [text for each in ours for text in fits(each, theirs[0], all_of_theirs=all_of_theirs, where=where)]
    if not isinstance(ours, dict):
        return []
    wrong = [f"{where}/{name} is new" for name in ours.keys() - theirs.keys() if all_of_theirs]
    for name, value in theirs.items():
        if name in ours:
            wrong += fits(ours[name], value, all_of_theirs=all_of_theirs, where=f"{where}/{name}")
        elif name not in _OPTIONAL:
            wrong.append(f"{where}/{name} is missing")
    return wrong


_OPTIONAL = {
    *("policy-string", "mx-host", "sending-mta-ip", "receiving-mx-hostname", "receiving-mx-helo", "receiving-ip"),
    "failure-reason-code",
}


def test_a_reader_of_googles_reports_finds_each_name_with_its_type_and_no_other() -> None:
    assert fits(content(), GOOGLE, all_of_theirs=True) == []


def test_a_reader_of_microsofts_reports_finds_each_name_with_its_type() -> None:
    assert fits(content(), MICROSOFT, all_of_theirs=False) == []


def test_the_shapes_can_tell_a_wrong_one() -> None:
    wrong = {**content(), "policies": [{"policy": {"policy-type": 1}, "summary": {}}], "more": ""}
    assert {each.partition(" ")[0] for each in fits(wrong, GOOGLE, all_of_theirs=True)} >= {
        "/more",
        "/policies/failure-details",
        "/policies/policy/policy-domain",
        "/policies/policy/policy-type:",
        "/policies/summary/total-failure-session-count",
    }
