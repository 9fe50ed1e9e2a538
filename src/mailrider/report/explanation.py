"""An explanation as one JSON object; the same facts as the page, for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailrider.dane.tlsa import select_usable
from mailrider.delivery.explain.advice import advise
from mailrider.delivery.mx import HostNotFound
from mailrider.dns.answer import LookupFailed
from mailrider.model.plain import reply_facts
from mailrider.model.route import Host
from mailrider.mtasts.record import STSRecord
from mailrider.x509.describe import CertificateSummary, describe_chain

if TYPE_CHECKING:
    from datetime import datetime

    from mailrider.delivery.explain.plan import CandidatePlan, Contact, Demand, Explanation
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.model.outcome import Outcome
    from mailrider.model.reply import Reply
    from mailrider.model.security import Requirement
    from mailrider.policy.dane import TLSALookup
    from mailrider.policy.judge import Judgement
    from mailrider.policy.sts.lookup import PolicyLookup


def as_json_object(explanation: Explanation, settings: RemoteSettings, now: datetime) -> dict[str, Any]:
    """Everything that an explanation holds, and what it means for a target of these settings. `now` is for ages."""
    found = explanation.candidates
    return {
        "next_hop": str(explanation.next_hop),
        "advice": [
            {
                "subject": advice.subject,
                "cause": advice.cause,
                "cure": advice.cure,
                "whose": advice.responsible.name.lower(),
                "keeps_mail": advice.keeps_mail,
            }
            for advice in advise(explanation, settings)
        ],
        "mx_auth": _enforced(settings),
        "resolver_validates": not explanation.dnssec_off,
        "validated_by": explanation.validated_by or None,
        "unroutable": _reply(explanation.unroutable),
        "mx": None
        if found is None
        else {
            "authentic": found.authentic,
            "implicit": found.implicit,
            "canonical": None if found.canonical is None else str(found.canonical),
        },
        "mtasts": _sts(explanation.sts, now),
        "candidates": [_plan(plan) for plan in explanation.plans],
        "verdicts": {kind: _outcome(outcome) for kind, outcome in explanation.outcomes.items()},
    }


def _enforced(settings: RemoteSettings) -> dict[str, Any]:
    auth = settings.mx_auth
    local = auth.local_policy
    return {
        "mtasts": auth.mtasts is not None,
        "dane": auth.dane is not None,
        "dnssec": auth.dnssec is not None,
        "local_policy": None
        if local is None
        else {"min_mx_level": local.min_mx_level.word, "min_tls_level": local.min_tls_level.word},
    }


def _reply(reply: Reply | None) -> dict[str, Any] | None:
    return None if reply is None else reply_facts(reply)


def _sts(lookup: PolicyLookup | None, now: datetime) -> dict[str, Any] | None:
    if lookup is None:
        return None
    held = lookup.held
    return {
        "record": lookup.record.id if isinstance(lookup.record, STSRecord) else None,
        "record_problem": None
        if lookup.record is None or isinstance(lookup.record, STSRecord)
        else lookup.record.reason,
        "policy": None
        if held is None
        else {
            "id": held.id,
            "mode": held.policy.mode.value,
            "max_age": int(held.policy.max_age.total_seconds()),
            "mx": [str(pattern) for pattern in held.policy.mx],
            "fetched": held.fetched.isoformat(),
            "age": int((now - held.fetched).total_seconds()),
            "expires": None if lookup.expires is None else lookup.expires.isoformat(),
            "origin": None if lookup.origin is None else lookup.origin.value,
        },
        "error": lookup.error or None,
    }


def _plan(plan: CandidatePlan) -> dict[str, Any]:
    host = plan.host if isinstance(plan.host, Host) else None
    return {
        "mx": str(plan.candidate.host),
        "preference": plan.candidate.preference,
        "is_ourselves": plan.is_ourselves,
        "signed": None if host is None else host.signed,
        "canonical": None if host is None or host.canonical is None else str(host.canonical),
        "problem": _reply(plan.host.reply) if isinstance(plan.host, HostNotFound) else None,
        "sts_match": plan.sts_match,
        "tlsa": [_tlsa(lookup) for lookup in plan.tlsa],
        "demands": {kind: _demand(demand) for kind, demand in plan.demands.items()},
        "addresses": [_contact(contact) for contact in plan.contacts],
    }


def _tlsa(lookup: TLSALookup) -> dict[str, Any]:
    answer = lookup.result
    entry: dict[str, Any] = {"base_domain": str(lookup.base), "authentic": None, "failure": None}
    if isinstance(answer, LookupFailed):
        return entry | {"failure": str(answer)}
    if answer is None:
        return entry
    sorted_out = select_usable(answer.records)
    return entry | {
        "authentic": answer.authentic,
        "usable": [str(record) for record in sorted_out.usable],
        "unusable": [{"record": each.record, "reason": each.reason} for each in sorted_out.unusable],
        "superseded": [{"record": each.record, "reason": each.reason} for each in sorted_out.superseded],
    }


def _demand(demand: Demand) -> dict[str, Any]:
    refusal = demand.refusal
    return {
        "mx_level": demand.mx_level.word,
        "requirement": _requirement(demand.requirement),
        "refusal": None if refusal is None else {"policy": refusal.policy, "reason": refusal.reason},
    }


def _requirement(requirement: Requirement | None) -> dict[str, Any] | None:
    if requirement is None:
        return None
    return {
        "min_mx_level": requirement.min_mx.word,
        "mx_by": requirement.mx_reason or None,
        "min_tls_level": requirement.min_tls.word,
        "tls_by": requirement.tls_reason or None,
        "dane": requirement.dane is not None,
        "sni": None if requirement.sni is None else str(requirement.sni),
    }


def _contact(contact: Contact) -> dict[str, Any]:
    evidence = contact.evidence
    tls = None if evidence is None else evidence.tls
    return {
        "address": str(contact.address),
        "prohibited": contact.prohibited,
        "problem": _reply(contact.problem),
        "problems": {kind: _reply(problem) for kind, problem in contact.problems.items()},
        "tls_version": None if tls is None else tls.version,
        "cipher": None if tls is None else tls.cipher,
        "no_tls_because": None if evidence is None else evidence.clear_reason or None,
        "certificate": {
            verdict.mechanism.value: {"ok": verdict.ok, "reason": verdict.reason} for verdict in contact.verdicts
        },
        "fallbacks": [note.reply.text for note in contact.notes],
        "chain": [] if tls is None else [_certificate(each) for each in describe_chain(tls.chain)],
        "extensions": None if contact.capabilities is None else dict(contact.capabilities.keywords),
        "judgements": {kind: _judgement(each) for kind, each in contact.judgements.items()},
    }


def _certificate(summary: CertificateSummary) -> dict[str, Any]:
    return {
        "subject": summary.subject,
        "issuer": summary.issuer,
        "names": list(summary.names),
        "not_before": None if summary.not_before is None else summary.not_before.isoformat(),
        "not_after": None if summary.not_after is None else summary.not_after.isoformat(),
        "key": summary.key,
        "sha256": summary.sha256,
        "spki_sha256": summary.spki_sha256,
        "problem": summary.problem or None,
    }


def _judgement(judgement: Judgement) -> dict[str, Any]:
    refusal = judgement.refusal
    return {
        "mx_level": judgement.security.mx_level.word,
        "tls_level": judgement.security.tls_level.word,
        "authenticated_by": judgement.security.authenticated_by,
        "reason": judgement.reason,
        "refusal": None if refusal is None else {"policy": refusal.policy, "reason": refusal.reason},
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status.value,
        "mx": outcome.mx,
        "address": outcome.address,
        "mx_level": outcome.security.mx_level.word,
        "tls_level": outcome.security.tls_level.word,
        "authenticated_by": outcome.security.authenticated_by,
        "reply": reply_facts(outcome.reply),
    }
