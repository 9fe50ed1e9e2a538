"""A TLS report: what was seen of one domain in one UTC day, as values and as the JSON that is sent (RFC 8460 4).

`DayCounts` adds up sessions; `build_report` freezes them into a `TLSReport`, whose octets never change again: a retry
sends the same octets under the same id. Everything here is pure, and bounded: a stranger's zone and servers decide
how many policies and failures there are.
"""

from __future__ import annotations

import enum
import gzip
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from mailrider.model.text import cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date

MAX_POLICIES: Final = 20  # of one domain and day: its MTA-STS policy, and one for each MX host with TLSA records
MAX_DETAILS: Final = 100  # failures of one policy that are told apart; what comes later is told without addresses
MAX_STRING: Final = 255  # octets of each string that a stranger's server or zone has a part in
MAX_STRINGS: Final = 64  # lines of a policy, or records of a TLSA set

HASH_LENGTH: Final = 16  # letters and digits of a report id


class PolicyType(enum.StrEnum):
    """The kinds of policies in a report (RFC 8460 4.2)."""

    TLSA = "tlsa"
    STS = "sts"
    NO_POLICY = "no-policy-found"


class ResultType(enum.StrEnum):
    """What went wrong in a session (RFC 8460 4.3)."""

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    CERTIFICATE_HOST_MISMATCH = "certificate-host-mismatch"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    DANE_REQUIRED = "dane-required"
    STS_POLICY_FETCH_ERROR = "sts-policy-fetch-error"
    STS_POLICY_INVALID = "sts-policy-invalid"
    STS_WEBPKI_INVALID = "sts-webpki-invalid"


@dataclass(frozen=True, slots=True, order=True)
class ReportedPolicy:
    """One policy that was applied. `strings` as RFC 8460 4.4 wants them; `mx_hosts` for MTA-STS only."""

    type: PolicyType
    domain: str
    strings: tuple[str, ...] = ()
    mx_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "strings", tuple(map(_clip_line, self.strings[:MAX_STRINGS])))
        object.__setattr__(self, "mx_hosts", tuple(map(clip, self.mx_hosts[:MAX_STRINGS])))

    def as_json(self) -> dict[str, Any]:
        """The `policy` object (RFC 8460 4.4)."""
        shown: dict[str, Any] = {"policy-type": self.type.value}
        if self.strings:
            shown["policy-string"] = list(self.strings)
        shown["policy-domain"] = self.domain
        if self.mx_hosts:
            shown["mx-host"] = list(self.mx_hosts)
        return shown


@dataclass(frozen=True, slots=True, order=True)
class Failure:
    """One kind of failure at one place; an empty field is left out of the report."""

    result: ResultType
    sending_ip: str = ""
    mx_host: str = ""
    mx_helo: str = ""
    receiving_ip: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        for name in ("mx_host", "mx_helo", "reason"):
            object.__setattr__(self, name, clip(getattr(self, name)))

    def as_json(self, sessions: int) -> dict[str, Any]:
        """The `failure-details` object (RFC 8460 4.4)."""
        shown = {
            "result-type": self.result.value,
            "sending-mta-ip": self.sending_ip,
            "receiving-mx-hostname": self.mx_host,
            "receiving-mx-helo": self.mx_helo,
            "receiving-ip": self.receiving_ip,
            "failed-session-count": sessions,
            "failure-reason-code": self.reason,
        }
        return {name: each for name, each in shown.items() if each != ""}

    def without_place(self) -> Failure:
        """The same failure, told apart by less: for when there are too many."""
        return Failure(self.result, self.sending_ip, self.mx_host, "", "", self.reason)


def clip(text: str) -> str:
    """A string of a stranger's, made safe and short. I-JSON wants no surrogates and noncharacters (RFC 7493 2.1)."""
    if text.isprintable():
        return cut(text, MAX_STRING)
    return cut("".join(c if c.isprintable() else "?" for c in text[:MAX_STRING]), MAX_STRING)


def _clip_line(line: str) -> str:
    """A line as it was, but for what no line has: a tab is white space like any other."""
    return cut("\t".join(map(clip, line.split("\t"))), MAX_STRING) if "\t" in line else clip(line)


@dataclass(frozen=True, slots=True)
class SessionFinding:
    """What one session came to under one policy: a success if there are no `failures`.

    `counts_session` False: only details, as for a policy that could not be fetched while an older one is in force.
    """

    policy: ReportedPolicy
    failures: tuple[Failure, ...] = ()
    counts_session: bool = True


@dataclass(slots=True)
class PolicyCounts:
    """The sessions of one policy."""

    successful: int = 0
    failed: int = 0
    failures: dict[Failure, int] = field(default_factory=dict)

    def add(self, finding: SessionFinding) -> None:
        """One session more. RFC 8460 4.4: a session counts once, whatever number of failures it has."""
        if finding.counts_session and finding.failures:
            self.failed += 1
        elif finding.counts_session:
            self.successful += 1
        for failure in dict.fromkeys(finding.failures):
            self.add_failure(failure, 1)

    def add_failure(self, failure: Failure, times: int) -> None:
        """Count a kind of failure; the rarest details go where there are too many kinds."""
        if failure not in self.failures and len(self.failures) >= MAX_DETAILS:
            failure = failure.without_place()
            if failure not in self.failures and len(self.failures) >= 2 * MAX_DETAILS:
                failure = Failure(failure.result)
        self.failures[failure] = self.failures.get(failure, 0) + times


@dataclass(slots=True)
class DayCounts:
    """The sessions of one domain in one UTC day."""

    policies: dict[ReportedPolicy, PolicyCounts] = field(default_factory=dict)

    def add(self, findings: Iterable[SessionFinding]) -> None:
        """What one session came to under each of its policies."""
        for finding in findings:
            counts = self.policies.get(finding.policy)
            if counts is None:
                if len(self.policies) >= MAX_POLICIES:
                    continue
                counts = self.policies[finding.policy] = PolicyCounts()
            counts.add(finding)

    def merge(self, other: DayCounts) -> None:
        """Add another process's counts of the same domain and day."""
        for policy, counts in other.policies.items():
            mine = self.policies.get(policy)
            if mine is None:
                if len(self.policies) >= MAX_POLICIES:
                    continue
                mine = self.policies[policy] = PolicyCounts()
            mine.successful += counts.successful
            mine.failed += counts.failed
            for failure, times in counts.failures.items():
                mine.add_failure(failure, times)

    @property
    def has_sessions(self) -> bool:
        """False if there are only details, such as of a policy that could not be fetched on a day without mail."""
        return any(counts.successful or counts.failed for counts in self.policies.values())

    @property
    def has_failures(self) -> bool:
        """True if any session or fetch failed."""
        return any(counts.failures for counts in self.policies.values())

    @classmethod
    def from_json(cls, policies: Iterable[Mapping[str, Any]]) -> DayCounts:
        """The inverse of `as_json`, for what we wrote ourselves."""
        counts = cls()
        for each in policies:
            policy, summary = each["policy"], each["summary"]
            key = ReportedPolicy(
                PolicyType(policy["policy-type"]),
                policy["policy-domain"],
                tuple(policy.get("policy-string", ())),
                tuple(policy.get("mx-host", ())),
            )
            counts.policies[key] = PolicyCounts(
                summary["total-successful-session-count"],
                summary["total-failure-session-count"],
                {_failure(details): details["failed-session-count"] for details in each["failure-details"]},
            )
        return counts

    def as_json(self) -> list[dict[str, Any]]:
        """The `policies` array, sorted, so that the same counts always give the same octets."""
        return [
            {
                "policy": policy.as_json(),
                "summary": {
                    "total-successful-session-count": counts.successful,
                    "total-failure-session-count": counts.failed,
                },
                "failure-details": [failure.as_json(times) for failure, times in sorted(counts.failures.items())],
            }
            for policy, counts in sorted(self.policies.items(), key=lambda item: item[0])
        ]


def _failure(details: Mapping[str, Any]) -> Failure:
    return Failure(
        ResultType(details["result-type"]),
        details.get("sending-mta-ip", ""),
        details.get("receiving-mx-hostname", ""),
        details.get("receiving-mx-helo", ""),
        details.get("receiving-ip", ""),
        details.get("failure-reason-code", ""),
    )


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports: `organization` by its name, `contact` by its mail address, `domain` that of the address."""

    organization: str
    contact: str
    domain: str


@dataclass(frozen=True, slots=True)
class TLSReport:
    """A report as it is sent. `body` is the gzipped JSON."""

    domain: str
    day: date
    report_id: str
    file_name: str
    subject: str
    body: bytes


def build_report(domain: str, day: date, counts: DayCounts, reporter: Reporter, secret: bytes) -> TLSReport:
    """The report of one domain and UTC day. The same arguments give the same octets."""
    drawn = f"{day.isoformat()} {domain} {reporter.domain}".encode()
    name = hashlib.blake2b(drawn, key=secret[:64], digest_size=HASH_LENGTH // 2).hexdigest()
    report_id = f"{day:%Y%m%d}.{name}@{reporter.domain}"
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    end = begin + timedelta(days=1, seconds=-1)
    content: Mapping[str, Any] = {
        "organization-name": reporter.organization,
        "date-range": {"start-datetime": _stamp(begin), "end-datetime": _stamp(end)},
        "contact-info": reporter.contact,
        "report-id": report_id,
        "policies": counts.as_json(),
    }
    octets = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return TLSReport(
        domain=domain,
        day=day,
        report_id=report_id,
        # RFC 8460 5.1: sender "!" policy-domain "!" begin "!" end "!" unique-id "." extension
        file_name=f"{reporter.domain}!{domain}!{begin.timestamp():.0f}!{end.timestamp():.0f}!{name}.json.gz",
        # RFC 8460 5.3
        subject=f"Report Domain: {domain} Submitter: {reporter.domain} Report-ID: <{report_id}>",
        body=gzip.compress(octets, mtime=0),
    )


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def send_offset(domain: str, day: date, secret: bytes, spread: timedelta) -> timedelta:
    """How long after the day's end a domain's report is due: at least 5 minutes, at most `spread` (RFC 8460 4.1)."""
    digest = hashlib.blake2b(f"{day.isoformat()} {domain}".encode(), key=secret[:64], digest_size=8).digest()
    least = timedelta(minutes=5)
    return least + max(spread - least, timedelta()) * (int.from_bytes(digest) / 2**64)
