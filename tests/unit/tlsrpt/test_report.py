"""The report as JSON (RFC 8460 4), and what bounds it."""

from __future__ import annotations

import gzip
import json
from datetime import date, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mailrider.tlsrpt.report import (
    MAX_DETAILS,
    MAX_POLICIES,
    DayCounts,
    Failure,
    PolicyType,
    ReportedPolicy,
    Reporter,
    ResultType,
    SessionFinding,
    TLSReport,
    build_report,
    send_offset,
)

DAY = date(2026, 11, 30)
REPORTER = Reporter("Example Inc.", "tls@sender.test", "sender.test")
SECRET = b"s" * 32
STS = ReportedPolicy(
    PolicyType.STS,
    "rcpt.test",
    ("version: STSv1", "mode: enforce", "mx: mx.rcpt.test", "max_age: 86400"),
    ("mx.rcpt.test",),
)
TLSA = ReportedPolicy(PolicyType.TLSA, "mx.rcpt.test", ("3 1 1 ABCD",))
NONE = ReportedPolicy(PolicyType.NO_POLICY, "rcpt.test")
EXPIRED = Failure(
    ResultType.CERTIFICATE_EXPIRED, "192.0.2.1", "mx.rcpt.test", "mx", "198.51.100.1", "X509_V_ERR_CERT_HAS_EXPIRED"
)


def built(*sessions: list[SessionFinding]) -> TLSReport:
    counts = DayCounts()
    for findings in sessions:
        counts.add(findings)
    return build_report("rcpt.test", DAY, counts, REPORTER, SECRET)


def content(report: TLSReport) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(gzip.decompress(report.body))
    return read


def test_a_report_as_a_whole() -> None:
    report = built([SessionFinding(STS, (EXPIRED,)), SessionFinding(TLSA)], [SessionFinding(STS), SessionFinding(TLSA)])
    assert content(report) == {
        "organization-name": "Example Inc.",
        "date-range": {"start-datetime": "2026-11-30T00:00:00Z", "end-datetime": "2026-11-30T23:59:59Z"},
        "contact-info": "tls@sender.test",
        "report-id": report.report_id,
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": ["version: STSv1", "mode: enforce", "mx: mx.rcpt.test", "max_age: 86400"],
                    "policy-domain": "rcpt.test",
                    "mx-host": ["mx.rcpt.test"],
                },
                "summary": {"total-successful-session-count": 1, "total-failure-session-count": 1},
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "sending-mta-ip": "192.0.2.1",
                        "receiving-mx-hostname": "mx.rcpt.test",
                        "receiving-mx-helo": "mx",
                        "receiving-ip": "198.51.100.1",
                        "failed-session-count": 1,
                        "failure-reason-code": "X509_V_ERR_CERT_HAS_EXPIRED",
                    }
                ],
            },
            {
                "policy": {"policy-type": "tlsa", "policy-string": ["3 1 1 ABCD"], "policy-domain": "mx.rcpt.test"},
                "summary": {"total-successful-session-count": 2, "total-failure-session-count": 0},
                "failure-details": [],
            },
        ],
    }


def test_its_names() -> None:
    report = built([SessionFinding(NONE)])
    day, _, rest = report.report_id.partition(".")
    name, _, domain = rest.partition("@")
    assert (day, domain) == ("20261130", "sender.test")
    assert name.isalnum()
    assert report.file_name == f"sender.test!rcpt.test!1795996800!1796083199!{name}.json.gz"
    assert report.subject == f"Report Domain: rcpt.test Submitter: sender.test Report-ID: <{report.report_id}>"


def test_the_same_counts_give_the_same_octets_in_whatever_order_they_came() -> None:
    one = built([SessionFinding(STS)], [SessionFinding(TLSA)])
    other = built([SessionFinding(TLSA)], [SessionFinding(STS)])
    assert one == other


def test_nothing_is_null_or_empty() -> None:
    report = built(
        [SessionFinding(ReportedPolicy(PolicyType.STS, "rcpt.test"), (Failure(ResultType.STS_POLICY_FETCH_ERROR),))]
    )
    policy = content(report)["policies"][0]
    assert policy["policy"] == {"policy-type": "sts", "policy-domain": "rcpt.test"}
    assert policy["failure-details"] == [{"result-type": "sts-policy-fetch-error", "failed-session-count": 1}]


def test_a_session_with_two_failures_counts_once() -> None:
    other = Failure(ResultType.CERTIFICATE_HOST_MISMATCH)
    summary = content(built([SessionFinding(STS, (EXPIRED, other, EXPIRED))]))["policies"][0]
    assert summary["summary"]["total-failure-session-count"] == 1
    assert [detail["failed-session-count"] for detail in summary["failure-details"]] == [1, 1]


def test_a_failed_fetch_beside_an_older_policy_is_a_detail_and_no_session() -> None:
    fetch = Failure(ResultType.STS_POLICY_FETCH_ERROR, reason="500")
    policy = content(built([SessionFinding(STS)], *[[SessionFinding(STS, (fetch,), counts_session=False)]] * 3))
    found = policy["policies"][0]
    assert found["summary"] == {"total-successful-session-count": 1, "total-failure-session-count": 0}
    assert found["failure-details"][0]["failed-session-count"] == 3


def test_too_many_kinds_of_failure_are_told_without_addresses() -> None:
    counts = DayCounts()
    for index in range(10 * MAX_DETAILS):
        failure = Failure(ResultType.VALIDATION_FAILURE, "", "mx.test", "mx", f"2001:db8::{index:x}", "tls-closed")
        counts.add([SessionFinding(STS, (failure,))])
    failures = counts.policies[STS].failures
    assert len(failures) == MAX_DETAILS + 1
    assert sum(failures.values()) == counts.policies[STS].failed == 10 * MAX_DETAILS
    assert failures[Failure(ResultType.VALIDATION_FAILURE, "", "mx.test", "", "", "tls-closed")] == 9 * MAX_DETAILS


def test_even_hostile_reasons_are_bounded() -> None:
    counts = DayCounts()
    for index in range(10 * MAX_DETAILS):
        counts.add([SessionFinding(STS, (Failure(ResultType.VALIDATION_FAILURE, mx_host=f"mx{index}.test"),))])
    assert len(counts.policies[STS].failures) <= 2 * MAX_DETAILS + 1
    assert sum(counts.policies[STS].failures.values()) == 10 * MAX_DETAILS


def test_policies_are_bounded() -> None:
    counts = DayCounts()
    for index in range(3 * MAX_POLICIES):
        counts.add([SessionFinding(ReportedPolicy(PolicyType.TLSA, f"mx{index}.test"))])
    assert len(counts.policies) == MAX_POLICIES


def test_a_strangers_strings_are_cut_and_made_safe() -> None:
    failure = Failure(ResultType.VALIDATION_FAILURE, mx_helo="evil\r\n" + "x" * 1000)
    assert failure.mx_helo.startswith("evil??x")
    assert len(failure.mx_helo) == 255
    assert len(ReportedPolicy(PolicyType.STS, "d.test", ("x" * 999,) * 100).strings) == 64


@given(st.integers(0, 5), st.integers(0, 5))
def test_merging_adds_up(ours: int, theirs: int) -> None:
    one, other, both = DayCounts(), DayCounts(), DayCounts()
    for counts, times in ((one, ours), (other, theirs), (both, ours + theirs)):
        for _ in range(times):
            counts.add([SessionFinding(STS, (EXPIRED,)), SessionFinding(TLSA)])
    one.merge(other)
    assert one.as_json() == both.as_json()


@given(st.text(max_size=20), st.integers(1, 10))
def test_reports_are_spread_over_the_hours(domain: str, hours: int) -> None:
    spread = timedelta(hours=hours)
    offset = send_offset(domain, DAY, SECRET, spread)
    assert timedelta(minutes=5) <= offset <= spread
    assert offset == send_offset(domain, DAY, SECRET, spread)


def test_what_was_written_is_read_back_as_it_was() -> None:
    counts = DayCounts()
    sts = ReportedPolicy(PolicyType.STS, "a.test", ("version: STSv1",), ("mx.a.test",))
    failure = Failure(ResultType.CERTIFICATE_EXPIRED, "192.0.2.1", "mx.a.test", "helo", "192.0.2.2", "X509_V_ERR_X")
    for _ in range(3):
        counts.add([SessionFinding(sts, (failure,)), SessionFinding(ReportedPolicy(PolicyType.TLSA, "mx.a.test"))])
    assert DayCounts.from_json(counts.as_json()) == counts


def test_details_without_a_session_are_nothing_to_report() -> None:
    counts = DayCounts()
    policy = ReportedPolicy(PolicyType.STS, "a.test")
    counts.add([SessionFinding(policy, (Failure(ResultType.STS_POLICY_FETCH_ERROR),), counts_session=False)])
    assert (counts.has_failures, counts.has_sessions) == (True, False)


def test_lines_of_a_policy_stay_as_they_were_but_for_what_json_between_strangers_may_not_hold() -> None:
    (tab, line_end, noncharacter, surrogate) = ReportedPolicy(
        PolicyType.STS, "d.test", ("mode:\tenforce ", "a\r\nb", "a\ufdd0b", "a\ud800b")
    ).strings
    assert (tab, line_end, noncharacter, surrogate) == ("mode:\tenforce ", "a??b", "a?b", "a?b")


def test_strings_are_cut_by_octets_in_whole_characters() -> None:
    policy = ReportedPolicy(PolicyType.STS, "d.test", ("\u20ac" * 100, "\t" + "\u20ac" * 100))
    assert policy.strings == ("\u20ac" * 85, "\t" + "\u20ac" * 84)
