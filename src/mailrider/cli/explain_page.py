"""An explanation as a page that is read from top to bottom: in short, then DNS, policies, each host, and the verdicts.

Everything that a stranger may have written is cleaned of what a terminal would obey.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mailrider.dane.tlsa import select_usable, show
from mailrider.delivery.explain.advice import advise
from mailrider.delivery.mx import HostNotFound
from mailrider.dns.answer import LookupFailed
from mailrider.model.outcome import Status
from mailrider.model.reply import clean_text
from mailrider.mtasts.record import STSRecord
from mailrider.policy.sts.lookup import Origin
from mailrider.report.lines import print_line, takes_symbols
from mailrider.x509.describe import describe_chain

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from mailrider.delivery.explain.plan import CandidatePlan, Contact, Explanation
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.model.outcome import Outcome
    from mailrider.model.security import Security, TLSEvidence
    from mailrider.policy.dane import TLSALookup
    from mailrider.policy.sts.lookup import PolicyLookup

_KINDS = {
    "ordinary": "an ordinary message",
    "requiretls": "a message with REQUIRETLS",
    "tls_required_no": "a message with TLS-Required: No",
}
_NOT_CALLED = "what would become of a message is not known, since no mail server was called (--no-connect)"
_MARKS = {True: ("✓ ", "green"), False: ("✗ ", "red"), None: ("· ", "dim")}
_ASCII_MARKS = {True: ("+ ", "green"), False: ("x ", "red"), None: ("- ", "dim")}


class _Page:
    """Lines, indented; a mark in front says good, bad, or neither."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._marks = _MARKS if takes_symbols(self._console) else _ASCII_MARKS

    def head(self, text: str) -> None:
        print_line(Text(f"\n{clean_text(text)}", style="bold"), self._console)

    def say(self, text: str, *, good: bool | None = None, depth: int = 1) -> None:
        mark, style = self._marks[good]
        print_line(Text.assemble("  " * depth, (mark, style), clean_text(text)), self._console)


def print_page(explanation: Explanation, settings: RemoteSettings, now: datetime) -> None:
    """Print the page on standard output, in colour if that is a terminal."""
    page = _Page()
    page.head(f"Mail for {explanation.next_hop.unicode}, in short")
    _print_summary(page, explanation, settings)
    page.head("DNS")
    _print_dns(page, explanation)
    page.head("MTA-STS")
    _print_sts(page, explanation.sts, now)
    _print_enforced(page, settings)
    for plan in explanation.plans:
        page.head(f"{plan.candidate.host} (preference {plan.candidate.preference})")
        _print_plan(page, plan)
    page.head("What would become of a message now")
    if not explanation.outcomes:
        page.say(_NOT_CALLED)
    for kind, outcome in explanation.outcomes.items():
        _print_outcome(page, _KINDS[kind], outcome)


def _print_summary(page: _Page, explanation: Explanation, settings: RemoteSettings) -> None:
    ordinary = explanation.outcomes.get("ordinary")
    if ordinary is not None:
        _print_outcome(page, "an ordinary message now", ordinary)
    else:
        page.say(_NOT_CALLED)
    for advice in advise(explanation, settings):
        page.say(f"{advice.subject}: {advice.cause}", good=False if advice.keeps_mail else None)
        page.say(f"Cure, for {advice.responsible}: {advice.cure}", depth=2)


def _print_dns(page: _Page, explanation: Explanation) -> None:
    if explanation.dnssec_off:
        page.say(explanation.dnssec_off, good=False)
    elif explanation.validated_by:
        page.say(f"DNSSEC is {explanation.validated_by}")
    if explanation.unroutable is not None:
        page.say(str(explanation.unroutable), good=False)
    found = explanation.candidates
    if found is None:
        return
    if found.implicit:
        page.say("no MX record: the domain itself is the mail server (implicit MX)")
    for candidate in found.candidates:
        page.say(f"MX {candidate.preference} {candidate.host}")
    if found.canonical is not None and found.canonical != found.next_hop:
        page.say(f"by way of a CNAME to {found.canonical}")
    if found.authentic:
        page.say("signed: DNSSEC authenticated this answer", good=True)
    else:
        page.say("not signed: anybody on the way could have changed this answer")


def _print_sts(page: _Page, lookup: PolicyLookup | None, now: datetime) -> None:
    if lookup is None:
        page.say("not for address literals")
        return
    if isinstance(lookup.record, STSRecord):
        page.say(f"TXT record found, id {lookup.record.id}", good=True)
    elif lookup.record is not None:
        page.say(f"not announced: {lookup.record.reason}", good=False if lookup.record.malformed else None)
    held = lookup.held
    if held is not None:
        policy = held.policy
        whence = "fetched just now" if lookup.origin is Origin.FETCHED else "from the cache"
        page.say(f"policy of mode {policy.mode.value}, id {held.id}, {whence}", good=True)
        page.say(f"{_span(now - held.fetched)} old, holds for {_span(policy.max_age)}", depth=2)
        page.say(f"names {', '.join(map(str, policy.mx)) or 'no host'}", depth=2)
    elif isinstance(lookup.record, STSRecord):
        page.say("but there is no policy, so the domain is treated as one without MTA-STS", good=False)
    if lookup.error:
        page.say(lookup.error, good=False)


def _span(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"


def _print_enforced(page: _Page, settings: RemoteSettings) -> None:
    page.head("What this target enforces (mx_auth)")
    auth = settings.mx_auth
    if not auth.policies:
        page.say(
            "nothing: TLS is used where it is offered, and can be prevented by whoever controls the network", good=False
        )
        return
    for name in ("mtasts", "dane", "dnssec"):
        page.say(name if getattr(auth, name) is not None else f"not {name}")
    local = auth.local_policy
    if local is not None:
        page.say(f"local_policy: TLS level {local.min_tls_level.word}, MX level {local.min_mx_level.word} at least")


def _print_plan(page: _Page, plan: CandidatePlan) -> None:
    if plan.is_ourselves:
        page.say("this is ourselves: it and all of equal or worse preference are not tried", good=False)
        return
    host = plan.host
    if isinstance(host, HostNotFound):
        page.say(str(host.reply), good=False)
    else:
        signed = "signed" if host.signed else "not signed, so TLSA records cannot be asked for"
        page.say(f"{', '.join(map(str, host.addresses))}: {signed}", good=True if host.signed else None)
        if host.canonical is not None:
            page.say(f"a CNAME to {host.canonical}")
    if plan.sts_match is not None:
        page.say(
            "named by the MTA-STS policy" if plan.sts_match else "not named by the MTA-STS policy", good=plan.sts_match
        )
    for lookup in plan.tlsa:
        _print_tlsa(page, lookup)
    _print_demands(page, plan)
    for contact in plan.contacts:
        _print_contact(page, contact)


def _print_tlsa(page: _Page, lookup: TLSALookup) -> None:
    where = f"TLSA at {lookup.base}"
    answer = lookup.result
    if answer is None:
        page.say(f"{where}: the name would be too long")
    elif isinstance(answer, LookupFailed):
        page.say(f"{where}: {answer}; the host cannot be used, since somebody may be hiding records", good=False)
    elif not answer.records:
        page.say(f"{where}: none")
    elif not answer.authentic:
        page.say(f"{where}: {len(answer.records)}, not authenticated, so they do not count")
    else:
        sorted_out = select_usable(answer.records)
        page.say(f"{where}: authenticated", good=True)
        for record in sorted_out.usable:
            page.say(f"{show(record)} is usable", good=True, depth=2)
        for each in sorted_out.unusable:
            page.say(f"{each.record} is not usable: {each.reason}", good=False, depth=2)
        for each in sorted_out.superseded:
            page.say(f"{each.record} does not count: {each.reason}", depth=2)
        if not sorted_out.usable:
            page.say("none is usable, so TLS is demanded, with any certificate (RFC 7672 2.2)", depth=2)


def _print_demands(page: _Page, plan: CandidatePlan) -> None:
    for kind, demand in plan.demands.items():
        who = _KINDS[kind]
        if demand.refusal is not None:
            page.say(f"{who}: refused by {demand.refusal.policy}: {demand.refusal.reason}", good=False)
            continue
        wanted = demand.requirement
        if wanted is None:
            continue
        terms = []
        if wanted.min_tls:
            terms.append(f"TLS level {wanted.min_tls.word} ({wanted.tls_reason})")
        if wanted.min_mx:
            terms.append(f"MX level {wanted.min_mx.word} ({wanted.mx_reason})")
        text = f"demands {' and '.join(terms)}" if terms else "demands nothing"
        if demand.mx_level < wanted.min_mx:
            page.say(f"{who} {text}, but the host has MX level {demand.mx_level.word}", good=False)
        else:
            page.say(f"{who} {text}; the host has MX level {demand.mx_level.word}")


def _print_contact(page: _Page, contact: Contact) -> None:
    where = f"[{contact.address}]"
    if contact.prohibited:
        page.say(f"{where} must not be connected to (prohibited_addresses)", good=False)
        return
    for note in contact.notes:
        page.say(f"{where} {note.reply.text}; a message that does not demand TLS goes in clear", good=False)
    if contact.problem is not None:
        page.say(f"{where} {contact.problem.text}", good=False)
    evidence = contact.evidence
    if evidence is None:
        return
    if evidence.tls is None:
        page.say(f"{where} in clear: {evidence.clear_reason}", good=False)
    else:
        page.say(f"{where} {evidence.tls.version}, {evidence.tls.cipher}", good=True)
        _print_chain(page, evidence.tls)
        for verdict in contact.verdicts:
            page.say(f"{verdict.mechanism.upper()}: {verdict.reason}", good=verdict.ok, depth=2)
    _print_judgements(page, contact)
    if contact.capabilities is not None:
        page.say(f"offers {', '.join(sorted(contact.capabilities.keywords)) or 'no extension'}", depth=2)


def _print_chain(page: _Page, tls: TLSEvidence) -> None:
    for number, summary in enumerate(describe_chain(tls.chain)):
        if summary.problem:
            page.say(f"certificate {number}: {summary.problem}", good=False, depth=2)
            continue
        until = "?" if summary.not_after is None else f"{summary.not_after:%Y-%m-%d}"
        names = f" for {', '.join(summary.names[:5])}" if summary.names else ""
        text = f"certificate {number}: {summary.subject}{names}, {summary.key}, until {until}, by {summary.issuer}"
        page.say(text, depth=2)
        page.say(f"3 1 1 {summary.spki_sha256}", depth=3)


def _print_judgements(page: _Page, contact: Contact) -> None:
    for kind, judgement in contact.judgements.items():
        security, refusal = judgement.security, judgement.refusal
        if refusal is not None:
            page.say(f"{_KINDS[kind]}: refused by {refusal.policy}: {refusal.reason}", good=False, depth=2)
        else:
            page.say(f"{_KINDS[kind]}: {_levels(security)}", good=True, depth=2)

    for kind, problem in contact.problems.items():
        page.say(f"{_KINDS[kind]}: {problem.text}", good=False, depth=2)


def _levels(security: Security) -> str:
    by = f" by {security.authenticated_by.upper()}" if security.authenticated_by else ""
    return f"TLS level {security.tls_level.word}{by}, MX level {security.mx_level.word}"


def _print_outcome(page: _Page, who: str, outcome: Outcome) -> None:
    if outcome.status is not Status.DELIVERED:
        page.say(f"{who}: {outcome.status.value}, {outcome.reply}", good=False)
        return
    page.say(f"{who}: goes to {outcome.mx} [{outcome.address}], {_levels(outcome.security)}", good=True)
