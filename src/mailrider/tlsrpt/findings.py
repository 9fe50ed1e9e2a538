"""From what was seen of one connection to what a TLS report says of it (RFC 8460 4.3, 4.4). Pure.

Each policy is judged by itself: a match by DANE does not make the line of MTA-STS a success where PKIX failed, and a
policy in mode testing counts as if it were enforced.

| what happened | policies | result | reason |
|---|---|---|---|
| STARTTLS not offered, or refused with N | all | starttls-not-supported | none, or `starttls-reply-N` |
| alert, violation, close | all | validation-failure | `tls-remote-alert-NAME`, `tls-local-alert-NAME`, ... |
| bytes behind the 220 | all | validation-failure | `starttls-injection` |
| PKIX: name, dates, rest | sts | certificate-host-mismatch, -expired, -not-trusted | OpenSSL's name |
| DANE: no match, name, dates | tlsa | validation-failure, certificate-host-mismatch, -expired | `dane-no-match` |
| no usable TLSA record | tlsa | tlsa-invalid | `no-usable-record` |
| lookup of TLSA failed | tlsa of the MX host | dnssec-invalid | how it failed |
| MX host not named by the policy | sts | validation-failure | `mx-not-in-policy` |
| the policy could not be had | sts | sts-policy-fetch-error, sts-webpki-invalid, sts-policy-invalid | how |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.tlsrpt.report import Failure, PolicyType, ReportedPolicy, ResultType, SessionFinding

if TYPE_CHECKING:
    from mailrider.model.tls_session import PoliciesSeen, STSSeen, TLSHostRefused, TLSSessionSeen

_UNSPECIFIED: Final = "X509_V_ERR_UNSPECIFIED"

# Ours alone, or nobody's fault that can be told: such a connection is in no report.
_NOT_REPORTED: Final = frozenset({TLSProblemKind.STARTTLS_NOT_USED, TLSProblemKind.LOCAL, TLSProblemKind.TIMED_OUT})

_HANDSHAKE: Final = {
    TLSProblemKind.REMOTE_ALERT: "tls-remote-alert-",
    TLSProblemKind.LOCAL_ALERT: "tls-local-alert-",
    TLSProblemKind.PROTOCOL: "tls-protocol-error",
    TLSProblemKind.CLOSED: "tls-closed",
    TLSProblemKind.STARTTLS_INJECTION: "starttls-injection",
}
_CERTIFICATE: Final = {
    TLSProblemKind.WRONG_NAME: ResultType.CERTIFICATE_HOST_MISMATCH,
    TLSProblemKind.EXPIRED: ResultType.CERTIFICATE_EXPIRED,
    TLSProblemKind.NOT_YET_VALID: ResultType.CERTIFICATE_EXPIRED,
}
_POLICY: Final = {
    TLSProblemKind.STS_FETCH_FAILED: ResultType.STS_POLICY_FETCH_ERROR,
    TLSProblemKind.STS_HOST_CERTIFICATE: ResultType.STS_WEBPKI_INVALID,
    TLSProblemKind.STS_POLICY_INVALID: ResultType.STS_POLICY_INVALID,
}
_REFUSED: Final = {
    TLSProblemKind.MX_NOT_IN_POLICY: PolicyType.STS,
    TLSProblemKind.TLSA_LOOKUP_FAILED: PolicyType.TLSA,
}


def session_findings(seen: TLSSessionSeen) -> tuple[SessionFinding, ...]:
    """What a connection came to under each policy; none if it is in no report."""
    if seen.problem is not None and seen.problem.kind in _NOT_REPORTED:
        return ()
    policies = seen.policies
    without_tls = () if seen.problem is None else (_without_tls(seen, seen.problem),)
    findings: list[SessionFinding] = []
    if policies.dane is not None:
        failures = list(without_tls)
        if not policies.dane.is_usable:
            failures.append(_failure(seen, ResultType.TLSA_INVALID, "no-usable-record"))
        failures += [_by_dane(seen, problem) for problem in seen.dane]
        policy = ReportedPolicy(PolicyType.TLSA, policies.dane.base_domain, policies.dane.records)
        findings.append(SessionFinding(policy, tuple(failures)))
    if policies.sts is not None and policies.sts.problem is not None:
        findings.append(SessionFinding(sts_policy(policies), (_policy_failure(policies.sts.problem),)))
    elif policies.sts is not None:
        failures = list(without_tls)
        if not policies.sts.names_host:
            failures.append(_failure(seen, ResultType.VALIDATION_FAILURE, "mx-not-in-policy"))
        failures += [_by_pkix(seen, problem) for problem in seen.pkix]
        findings.append(SessionFinding(sts_policy(policies), tuple(failures)))
    if not findings and policies.all_asked:
        findings.append(SessionFinding(ReportedPolicy(PolicyType.NO_POLICY, policies.domain), without_tls))
    return tuple(findings)


def refusal_findings(refused: TLSHostRefused) -> tuple[SessionFinding, ...]:
    """What a host that a policy refused before connecting counts: one failed session of that policy."""
    policies, problem = refused.policies, refused.problem
    match _REFUSED.get(problem.kind):
        case PolicyType.STS if policies.sts is not None:
            failure = Failure(ResultType.VALIDATION_FAILURE, mx_host=refused.mx, reason="mx-not-in-policy")
            return (SessionFinding(sts_policy(policies), (failure,)),)
        case PolicyType.TLSA:
            failure = Failure(ResultType.DNSSEC_INVALID, mx_host=refused.mx, reason=problem.code)
            return (SessionFinding(ReportedPolicy(PolicyType.TLSA, refused.mx), (failure,)),)
        case _:
            return ()


def fetch_findings(domain: str, held: STSSeen | None, problem: TLSProblem) -> tuple[SessionFinding, ...]:
    """What a failed fetch counts while an older policy, `held`, is in force: a detail, and no session."""
    if held is None or problem.kind not in _POLICY:
        return ()
    policy = ReportedPolicy(PolicyType.STS, domain, held.lines, held.mx)
    return (SessionFinding(policy, (_policy_failure(problem),), counts_session=False),)


def sts_policy(policies: PoliciesSeen) -> ReportedPolicy:
    """The MTA-STS policy as reports show it; by its domain alone where it could not be had."""
    sts = policies.sts
    lines, mx = ((), ()) if sts is None else (sts.lines, sts.mx)
    return ReportedPolicy(PolicyType.STS, policies.domain, lines, mx)


def _without_tls(seen: TLSSessionSeen, problem: TLSProblem) -> Failure:
    if problem.kind is TLSProblemKind.STARTTLS_NOT_OFFERED:
        return _failure(seen, ResultType.STARTTLS_NOT_SUPPORTED, "")
    if problem.kind is TLSProblemKind.STARTTLS_REFUSED:
        return _failure(seen, ResultType.STARTTLS_NOT_SUPPORTED, f"starttls-reply-{problem.code}")
    reason = _HANDSHAKE.get(problem.kind, "tls-protocol-error")
    if reason.endswith("-"):
        reason += problem.code.replace("_", "-").lower() or "unknown"
    return _failure(seen, ResultType.VALIDATION_FAILURE, reason)


def _by_pkix(seen: TLSSessionSeen, problem: TLSProblem) -> Failure:
    result = _CERTIFICATE.get(problem.kind, ResultType.CERTIFICATE_NOT_TRUSTED)
    return _failure(seen, result, problem.code or _UNSPECIFIED)


def _by_dane(seen: TLSSessionSeen, problem: TLSProblem) -> Failure:
    if problem.kind in _CERTIFICATE:
        return _failure(seen, _CERTIFICATE[problem.kind], "")
    reason = "dane-no-match" if problem.kind is TLSProblemKind.DANE_NO_MATCH else problem.code or _UNSPECIFIED
    return _failure(seen, ResultType.VALIDATION_FAILURE, reason)


def _policy_failure(problem: TLSProblem) -> Failure:
    """What kept us from the policy; it has no place, since no mail server had a part in it."""
    result = _POLICY.get(problem.kind, ResultType.STS_POLICY_FETCH_ERROR)
    return Failure(result, reason=problem.code or problem.text)


def _failure(seen: TLSSessionSeen, result: ResultType, reason: str) -> Failure:
    return Failure(result, seen.local_address, seen.mx, seen.helo, seen.address, reason)
