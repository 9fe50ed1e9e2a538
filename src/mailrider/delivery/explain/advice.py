"""What is wrong with the way to a domain, and what cures it: from an explanation to advice. Pure.

An explanation holds facts; a postmaster who has never seen them before wants to know which of them keep the mail, who
can mend that, and how. One piece of advice for each cause. Nothing here decides anything: what keeps a message is read
from what an attempt would end in, and from what the policies said.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mailrider.dane.tlsa import select_usable
from mailrider.delivery.mx import HostNotFound
from mailrider.dns.answer import LookupFailed
from mailrider.dns.proof import SIGNED_NAME
from mailrider.dns.servers import CURE
from mailrider.model.outcome import Status
from mailrider.model.security import Mechanism
from mailrider.mtasts.policy import STSMode
from mailrider.mtasts.record import NoRecord
from mailrider.x509.describe import describe_chain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.delivery.explain.plan import CandidatePlan, Contact, Explanation
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.model.reply import Reply
    from mailrider.model.security import Refusal
    from mailrider.policy.dane import TLSALookup


class Responsible(enum.StrEnum):
    """Who can mend what is wrong."""

    OURS = "this machine's operator"
    DOMAIN = "the domain's owner"
    SERVER = "the mail server's operator"


@dataclass(frozen=True, slots=True)
class Advice:
    """`subject` is a name; `keeps_mail`: an ordinary message does not get through because of it."""

    subject: str
    cause: str
    cure: str
    responsible: Responsible
    keeps_mail: bool = True


def advise(explanation: Explanation, settings: RemoteSettings) -> tuple[Advice, ...]:
    """Everything that is wrong, what keeps the mail first."""
    domain = explanation.next_hop.unicode
    if explanation.resolver_fault:
        return (_about_our_resolver(explanation.resolver_fault),)
    found = [*_about_us(explanation, settings)]
    if explanation.unroutable is not None:
        found.append(_about_routing(domain, explanation.unroutable))
    else:
        found += _about_sts(explanation, domain)
    for plan in explanation.plans:
        found += _about_host(plan, explanation, settings)
    found += _about_nothing(explanation, domain)
    ordinary = explanation.outcomes.get("ordinary")
    if ordinary is not None and ordinary.status is Status.DELIVERED:
        found = [replace(advice, keeps_mail=False) for advice in found]  # another server takes it
    return tuple(sorted(dict.fromkeys(found), key=lambda advice: not advice.keeps_mail))


def _about_our_resolver(fault: str) -> Advice:
    return Advice(
        "the resolver",
        _sentence(f"It cannot look up a name that has nothing to do with this domain either: {fault}"),
        f"See that our resolver runs and reaches the internet: `dig {SIGNED_NAME} MX`. The domain may be all right.",
        Responsible.OURS,
    )


def _about_us(explanation: Explanation, settings: RemoteSettings) -> Iterator[Advice]:
    if explanation.dnssec_off:
        yield Advice(
            "the resolver",
            _sentence(explanation.dnssec_off),
            f"{CURE[0].upper()}{CURE[1:]}",
            Responsible.OURS,
            keeps_mail=False,
        )
    if not settings.mx_auth.is_stated:
        yield Advice(
            "the configuration",
            "Without mx_auth nothing is enforced: who controls the network can read and redirect mail.",
            "Write into the target: mx_auth { mtasts, dane, dnssec, local_policy }, a line for each.",
            Responsible.OURS,
            keeps_mail=False,
        )


def _about_nothing(explanation: Explanation, domain: str) -> Iterator[Advice]:
    candidates, sts = explanation.candidates, explanation.sts
    if candidates is None or candidates.authentic or sts is None or sts.policy is not None:
        return
    cause = "Nothing proves which servers are its own: its MX records are not signed, and it has no MTA-STS policy."
    cure = "Sign the zone and publish TLSA records for the mail servers (DANE), or publish an MTA-STS policy."
    yield Advice(domain, cause, cure, Responsible.DOMAIN, keeps_mail=False)


# Routing --------------------------------------------------------------------------------------------------------------

_ROUTING = {
    "5.1.2": (
        "There is no such domain.",
        "Look for a spelling mistake; else the domain must be registered and served.",
    ),
    "5.1.10": ("It says that it takes no mail (null MX).", "Use another address; nothing is broken."),
    "5.4.6": (
        "Its MX leads back to this machine.",
        "If mail for it is to be kept here, this machine must take it as its own; if not, the MX record is wrong.",
    ),
    "5.4.4": ("None of its mail servers has an address.", "Its MX records must name hosts with A or AAAA records."),
}


def _about_routing(domain: str, reply: Reply) -> Advice:
    known = _ROUTING.get(str(reply.status))
    if known is not None:
        return Advice(domain, *known, Responsible.DOMAIN)
    cure = (
        f"Compare `dig {domain} MX` with `dig +cd {domain} MX`. If only the second answers, DNSSEC is broken: "
        "signatures that ran out, or a DS record that fits no key. If neither does, its name servers are down."
    )
    return Advice(domain, _sentence(f"DNS does not tell where its mail goes: {reply.text}"), cure, Responsible.DOMAIN)


# MTA-STS --------------------------------------------------------------------------------------------------------------


def _about_sts(explanation: Explanation, domain: str) -> Iterator[Advice]:
    lookup = explanation.sts
    if lookup is None:
        return
    record = lookup.record
    if isinstance(record, NoRecord) and record.malformed:
        cause = _sentence(f"Its MTA-STS record is wrong: {record.reason}")
        cure = f"At _mta-sts.{domain} exactly one TXT record must stand like: v=STSv1; id=20261121T120000;"
        yield Advice(domain, cause, cure, Responsible.DOMAIN, keeps_mail=False)
    elif isinstance(record, NoRecord) and lookup.policy is not None:
        cause = "Its MTA-STS record is gone, while its policy still holds: a mistake, or somebody hides it."
        cure = f"Restore the TXT record at _mta-sts.{domain}; to end MTA-STS, publish a policy of mode none first."
        yield Advice(domain, cause, cure, Responsible.DOMAIN, keeps_mail=False)
    if lookup.policy is not None and lookup.policy.ignored:
        cause = _sentence(
            f"Lines of its MTA-STS policy are wrong, and count for nothing: {'; '.join(lookup.policy.ignored)}"
        )
        cure = "Each mx line must hold one host name, or one below an asterisk, such as *.example.org."
        yield Advice(domain, cause, cure, Responsible.DOMAIN, keeps_mail=False)
    if lookup.error:
        meanwhile = "the policy from before holds" if lookup.held else "the domain counts as one without MTA-STS"
        cure = (
            f"https://mta-sts.{domain}/.well-known/mta-sts.txt must answer with status 200, no redirect, text/plain, "
            f"at most 64 KiB, and a certificate of a public authority for mta-sts.{domain}; and _mta-sts.{domain} "
            "must be answered in DNS."
        )
        cause = f"Its MTA-STS policy cannot be fetched ({lookup.error}). Meanwhile {meanwhile}."
        yield Advice(domain, cause, cure, Responsible.DOMAIN, keeps_mail=False)


# One host -------------------------------------------------------------------------------------------------------------


def _about_host(plan: CandidatePlan, explanation: Explanation, settings: RemoteSettings) -> Iterator[Advice]:
    mx = str(plan.candidate.host)
    if plan.is_ourselves:
        return
    if isinstance(plan.host, HostNotFound):
        cure = f"Give {mx} an A or AAAA record, or take it out of the domain's MX records."
        if plan.host.reply.is_transient:
            cure = f"The name servers of {mx} must answer; try `dig {mx} A` and `dig {mx} AAAA`."
        yield Advice(mx, _sentence(plan.host.reply.text), cure, Responsible.DOMAIN)
        return
    yield from _about_mismatch(plan, explanation, mx)
    for lookup in plan.tlsa:
        yield from _about_tlsa(lookup, mx, settings.port, plan)
    refusal = plan.demands["ordinary"].refusal
    if refusal is not None and refusal.policy == "dane" and plan.host.doubt:
        cure = f"The name servers of {mx} must answer `dig {mx} CNAME +dnssec`."
        yield Advice(mx, _sentence(refusal.reason), cure, Responsible.SERVER)
    yield from _about_mx_level(plan, mx)
    for contact in plan.contacts:
        yield from _about_contact(contact, plan, mx, settings.port)


def _about_mismatch(plan: CandidatePlan, explanation: Explanation, mx: str) -> Iterator[Advice]:
    policy = explanation.sts.policy if explanation.sts is not None else None
    if plan.sts_match is not False or policy is None:
        return
    named = ", ".join(map(str, policy.mx[:5])) or "no host"
    cure = (
        f"Add the line `mx: {mx}` to the policy, then change the id in the TXT record; or take {mx} out of the "
        "domain's MX records."
    )
    if policy.mode is STSMode.ENFORCE:
        refusal = plan.demands["ordinary"].refusal
        keeps = refusal is not None and refusal.policy == "mtasts"
        cause = f"The domain's MTA-STS policy, in mode enforce, does not name it; it names {named}."
        yield Advice(mx, cause, cure, Responsible.DOMAIN, keeps_mail=keeps)
    else:
        cause = f"The domain's MTA-STS policy does not name it, but is only tested; it names {named}."
        yield Advice(mx, cause, cure, Responsible.DOMAIN, keeps_mail=False)


def _about_tlsa(lookup: TLSALookup, mx: str, port: int, plan: CandidatePlan) -> Iterator[Advice]:
    where = f"_{port}._tcp.{lookup.base}"
    result = lookup.result
    if isinstance(result, LookupFailed):
        cure = (
            f"The name servers of {lookup.base} must answer `dig {where} TLSA +dnssec`, if only that there is none; "
            "some old ones and some firewalls do not."
        )
        keeps = plan.demands["ordinary"].refusal is not None
        cause = _sentence(f"Its TLSA records cannot be looked up, and somebody may be hiding them: {result}")
        yield Advice(mx, cause, cure, Responsible.SERVER, keeps_mail=keeps)
    elif result is not None and result.authentic and result.records:
        unusable = select_usable(result.records).unusable
        if unusable:
            what = "; ".join(f"{each.record}: {each.reason}" for each in unusable[:3])
            cure = f"Publish `{where}. TLSA 3 1 1 ...` with the SHA-256 of the server's public key{_spki(plan)}."
            cause = _sentence(f"Some of its TLSA records cannot be used: {what}")
            yield Advice(mx, cause, cure, Responsible.SERVER, keeps_mail=False)


def _spki(plan: CandidatePlan) -> str:
    """What the server shows now, for whoever wants to publish it."""
    for contact in plan.contacts:
        if contact.evidence is not None and contact.evidence.tls is not None and contact.evidence.tls.chain:
            return f", now {describe_chain(contact.evidence.tls.chain[:1])[0].spki_sha256}"
    return ""


def _about_mx_level(plan: CandidatePlan, mx: str) -> Iterator[Advice]:
    demand = plan.demands["ordinary"]
    wanted = demand.requirement
    if wanted is None or demand.mx_level >= wanted.min_mx:
        return
    cause = f"It has MX level {demand.mx_level.word}, and {wanted.mx_reason} demands {wanted.min_mx.word}."
    cure = "The domain must sign its zone, or publish an MTA-STS policy that names the host; or demand less here."
    yield Advice(mx, cause, cure, Responsible.DOMAIN)


# One address ----------------------------------------------------------------------------------------------------------


def _about_contact(contact: Contact, plan: CandidatePlan, mx: str, port: int) -> Iterator[Advice]:
    where = f"{mx} [{contact.address}]"
    if contact.prohibited:
        cure = "The host needs an address that the world can reach; in a lab: prohibited_addresses none"
        yield Advice(where, "It must not be connected to (prohibited_addresses).", cure, Responsible.DOMAIN)
        return
    judgement = contact.judgements.get("ordinary")
    if judgement is None:
        if "ordinary" in contact.problems:
            yield _about_problem(contact.problems["ordinary"], where, port)
        return
    for note in contact.notes:
        cure = "Mend TLS on the server; meanwhile its mail goes in clear where nothing demands TLS."
        yield Advice(where, _sentence(note.reply.text), cure, Responsible.SERVER, keeps_mail=False)
    wanted = plan.demands["ordinary"].requirement
    if judgement.refusal is not None:
        yield _about_refusal(judgement.refusal, contact, plan, where, port)
    elif wanted is not None and judgement.security.tls_level < wanted.wanted_tls:
        cause = _sentence(f"It would be refused if the domain's MTA-STS policy were enforced: {judgement.reason}")
        cure = f"Before the domain enforces it, {mx} needs TLS, with a certificate of a public authority for its name."
        yield Advice(where, cause, cure, Responsible.SERVER, keeps_mail=False)


def _about_problem(problem: Reply, where: str, port: int) -> Advice:
    text = _sentence(problem.text)
    match str(problem.status):
        case "4.4.1":
            cure = f"Try from another network: if port {port} answers there, our provider blocks it; else it is down."
            return Advice(where, text, cure, Responsible.SERVER)
        case "4.7.5":
            cure = f"TLS must work: try `openssl s_client -starttls smtp -connect {where.partition(' ')[0]}:{port}`."
            return Advice(where, text, cure, Responsible.SERVER)
        case _:
            cure = (
                "It judges us before it hears of any recipient: look at our address's reverse DNS and at block lists."
            )
            return Advice(where, text, cure, Responsible.OURS)


def _about_refusal(refusal: Refusal, contact: Contact, plan: CandidatePlan, where: str, port: int) -> Advice:
    mx = str(plan.candidate.host)
    evidence = contact.evidence
    if evidence is None or evidence.tls is None:
        why = "" if evidence is None else f" ({evidence.clear_reason})"
        cause = f"The session stays in clear{why}, and {refusal.policy} demands TLS."
        cure = (
            "Turn TLS on there. If other networks do see STARTTLS, somebody on the way removes it: a firewall that "
            "inspects SMTP, or an attacker."
        )
        return Advice(where, cause, cure, Responsible.SERVER)
    if refusal.policy == "dane":
        verdict = next((each for each in contact.verdicts if each.mechanism is Mechanism.DANE), None)
        key = describe_chain(evidence.tls.chain[:1])[0].spki_sha256
        base = plan.tlsa[-1].base if plan.tlsa else mx
        cure = (
            f"If the key was changed on purpose, publish `_{port}._tcp.{base}. TLSA 3 1 1 {key}`; next time publish "
            "the new record before the new key goes into service. If it was not, the wrong certificate is installed, "
            "or this is not the true server."
        )
        cause = _sentence(f"Its certificate is not the one in DNS: {verdict.reason if verdict else refusal.reason}")
        return Advice(where, cause, cure, Responsible.SERVER)
    cure = (
        f"It needs a certificate of a public authority for {mx} that has not run out, sent with its intermediates"
        + ("" if refusal.policy == "mtasts" else f"; or demand less here ({refusal.policy})")
        + "."
    )
    cause = _sentence(f"Its certificate does not prove what {refusal.policy} demands: {refusal.reason}")
    return Advice(where, cause, cure, Responsible.SERVER)


def _sentence(text: str) -> str:
    return f"{text.rstrip('.…')}."
