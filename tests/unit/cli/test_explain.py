"""Explanations as advice, page and JSON, from facts that are put together by hand."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.cli.explain import exit_code
from mailrider.cli.explain_page import print_page
from mailrider.delivery.explain.advice import Responsible, advise
from mailrider.delivery.explain.plan import CandidatePlan, Contact, Demand, Explanation
from mailrider.delivery.mx import LOOP, NO_ADDRESS, NO_SUCH_DOMAIN, NULL_MX, HostNotFound
from mailrider.dns.answer import LookupFailed, LookupFailure, RecordType
from mailrider.model.address import Mailbox
from mailrider.model.domain import Domain
from mailrider.model.envelope import Recipient
from mailrider.model.outcome import Deferred, Delivered, Failed
from mailrider.model.reply import Reply
from mailrider.model.route import Candidate, Candidates, Host
from mailrider.model.security import (
    NO_REQUIREMENT,
    MXLevel,
    PeerEvidence,
    Refusal,
    Requirement,
    Security,
    TLSEvidence,
    TLSLevel,
)
from mailrider.mtasts.policy import MXPattern, STSMode, STSPolicy
from mailrider.mtasts.record import NoRecord, STSRecord
from mailrider.policy.dane import TLSALookup
from mailrider.policy.judge import Judgement
from mailrider.policy.settings import UNSTATED
from mailrider.policy.sts.cache import CachedPolicy
from mailrider.policy.sts.lookup import Origin, PolicyLookup
from mailrider.report.explanation import as_json_object
from tests.support.problems import problem

if TYPE_CHECKING:
    from mailrider.model.outcome import Outcome

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
DOMAIN, MX = Domain("good.test"), Candidate(Domain("mx.good.test"), 10)
ADDRESS = ip_address("192.0.2.1")
SETTINGS = mailrider.RemoteSettings(
    hostname="client.test", mx_auth=[mailrider.MTASTS(), mailrider.Dane(), mailrider.DNSSEC()]
)
NO_POLICY = PolicyLookup(DOMAIN, None, None, None, NoRecord("no TXT record begins with v=STSv1;"))
HELD = CachedPolicy(DOMAIN, STSPolicy(STSMode.ENFORCE, timedelta(days=7), (MXPattern(MX.host),)), "1", NOW)  # type: ignore[arg-type]

DAMAGED = replace(HELD, policy=replace(HELD.policy, ignored=("no host can match mx: '192.0.2.86'",)))


def demands(refusal: Refusal | None = None, requirement: Requirement = NO_REQUIREMENT) -> dict[str, Demand]:
    demand = Demand(MXLevel.NONE, None if refusal else requirement, refusal)
    return dict.fromkeys(("ordinary", "requiretls", "tls_required_no"), demand)


PLAN = CandidatePlan(MX, False, Host(MX, (ADDRESS,), signed=True), None, (), demands())
HEALTHY = Explanation(
    next_hop=DOMAIN,
    candidates=Candidates(DOMAIN, (MX,), authentic=True, canonical=DOMAIN),
    unroutable=None,
    sts=NO_POLICY,
    plans=(PLAN,),
    outcomes={},
    dnssec_off="",
)


def with_plan(**changes: Any) -> Explanation:
    return replace(HEALTHY, plans=(replace(PLAN, **changes),))


def page(explanation: Explanation, settings: mailrider.RemoteSettings = SETTINGS) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        print_page(explanation, settings, NOW)
    return out.getvalue()


def test_who_validates_is_said() -> None:
    by = "validated here by libunbound 0 with the trust anchors key 38696 of ., from what 192.0.2.1:53 says"
    explanation = replace(HEALTHY, validated_by=by)
    assert f"DNSSEC is {by}" in page(explanation)
    assert as_json_object(explanation, SETTINGS, NOW)["validated_by"] == by
    assert as_json_object(HEALTHY, SETTINGS, NOW)["validated_by"] is None


def test_of_a_healthy_domain_there_is_nothing_to_say() -> None:
    assert advise(HEALTHY, SETTINGS) == ()


LATER = Reply.make(451, "4.4.3", "AAAA lookup of mx.good.test failed: SERVFAIL")
FAILED = LookupFailed(Domain("_25._tcp.mx.good.test"), RecordType.TLSA, LookupFailure.TIMEOUT)
DANE_REFUSAL = Refusal("dane", 451, "4.7.1", "it is not known whether mx.good.test is signed", for_now=True)

ADVICE = {
    "a resolver that is not on loopback": (
        replace(HEALTHY, dnssec_off="DNSSEC and DANE are off: it is not on loopback"),
        ("the resolver", Responsible.OURS, False, "DNSSEC and DANE are off", "dns { server 127.0.0.1 }"),
    ),
    "no such domain": (
        replace(HEALTHY, unroutable=NO_SUCH_DOMAIN, candidates=None, plans=()),
        ("good.test", Responsible.DOMAIN, True, "There is no such domain", "spelling mistake"),
    ),
    "null MX": (
        replace(HEALTHY, unroutable=NULL_MX, candidates=None, plans=()),
        ("good.test", Responsible.DOMAIN, True, "null MX", "Use another address"),
    ),
    "a loop": (
        replace(HEALTHY, unroutable=LOOP, candidates=None, plans=()),
        ("good.test", Responsible.DOMAIN, True, "leads back to this machine", "must take it as its own"),
    ),
    "no address": (
        replace(HEALTHY, unroutable=NO_ADDRESS, candidates=None, plans=()),
        ("good.test", Responsible.DOMAIN, True, "has an address", "A or AAAA records"),
    ),
    "DNS fails": (
        replace(HEALTHY, unroutable=LATER, candidates=None, plans=()),
        ("good.test", Responsible.DOMAIN, True, "DNS does not tell", "dig +cd good.test MX"),
    ),
    "our resolver is dead": (
        replace(HEALTHY, unroutable=LATER, candidates=None, plans=(), resolver_fault="MX lookup of iana.org failed"),
        ("the resolver", Responsible.OURS, True, "MX lookup of iana.org failed", "dig iana.org MX"),
    ),
    "the record is gone, the policy holds": (
        replace(HEALTHY, sts=replace(NO_POLICY, held=HELD, origin=Origin.CACHE)),
        ("good.test", Responsible.DOMAIN, False, "somebody hides it", "a policy of mode none first"),
    ),
    "the policy cannot be fetched, the old one holds": (
        replace(
            HEALTHY, sts=PolicyLookup(DOMAIN, HELD, Origin.CACHE, NOW, STSRecord("2"), problem("https://sts: 404"))
        ),
        ("good.test", Responsible.DOMAIN, False, "(https://sts: 404). Meanwhile the policy from before holds", "200"),
    ),
    "lines of the policy are wrong": (
        replace(HEALTHY, sts=PolicyLookup(DOMAIN, DAMAGED, Origin.FETCHED, NOW, STSRecord("1"))),
        ("good.test", Responsible.DOMAIN, False, "no host can match mx: '192.0.2.86'", "one host name"),
    ),
    "an address that cannot be looked up": (
        with_plan(host=HostNotFound(MX, LATER)),
        ("mx.good.test", Responsible.DOMAIN, True, "AAAA lookup", "`dig mx.good.test A`"),
    ),
    "an alias that cannot be checked": (
        with_plan(host=Host(MX, (ADDRESS,), doubt="SERVFAIL"), demands=demands(DANE_REFUSAL)),
        ("mx.good.test", Responsible.SERVER, True, "whether mx.good.test is signed", "dig mx.good.test CNAME +dnssec"),
    ),
    "TLSA records that cannot be looked up": (
        with_plan(tlsa=(TLSALookup(Domain("mx.good.test"), FAILED),), demands=demands(DANE_REFUSAL)),
        (
            "mx.good.test",
            Responsible.SERVER,
            True,
            "somebody may be hiding them",
            "dig _25._tcp.mx.good.test TLSA +dnssec",
        ),
    ),
    "an MX level that is too low": (
        with_plan(demands=demands(requirement=Requirement(min_mx=MXLevel.DNSSEC, mx_reason="local_policy"))),
        ("mx.good.test", Responsible.DOMAIN, True, "MX level none, and local_policy demands dnssec", "sign its zone"),
    ),
    "an address that must not be connected to": (
        with_plan(contacts=(Contact(ADDRESS, prohibited=True),)),
        ("mx.good.test [192.0.2.1]", Responsible.DOMAIN, True, "must not be connected to", "that the world can reach"),
    ),
}


@pytest.mark.parametrize(("explanation", "expected"), ADVICE.values(), ids=ADVICE)
def test_one_cause_one_cure(explanation: Explanation, expected: tuple[str, Responsible, bool, str, str]) -> None:
    (advice,) = advise(explanation, SETTINGS)
    subject, responsible, keeps_mail, cause, cure = expected
    assert (advice.subject, advice.responsible, advice.keeps_mail) == (subject, responsible, keeps_mail)
    assert cause in advice.cause
    assert cure in advice.cure
    # And both are on the page, and in the JSON.
    assert advice.cause in page(explanation)
    assert advice.cure in page(explanation)
    (facts,) = as_json_object(explanation, SETTINGS, NOW)["advice"]
    assert (facts["cause"], facts["cure"], facts["whose"]) == (advice.cause, advice.cure, responsible.name.lower())


def test_ourselves_are_no_trouble() -> None:
    explanation = with_plan(is_ourselves=True, host=HostNotFound(MX, LATER))
    assert advise(explanation, SETTINGS) == ()
    assert "this is ourselves: it and all of equal or worse preference are not tried" in page(explanation)


def test_without_mx_auth_we_are_the_trouble() -> None:
    (advice,) = advise(HEALTHY, mailrider.RemoteSettings(hostname="client.test", mx_auth=UNSTATED))
    assert (advice.subject, advice.responsible) == ("the configuration", Responsible.OURS)
    assert advise(HEALTHY, mailrider.RemoteSettings(hostname="client.test", mx_auth=None)) == ()


def test_what_keeps_the_mail_comes_first() -> None:
    explanation = replace(
        with_plan(host=HostNotFound(MX, LATER)), dnssec_off="DNSSEC and DANE are off: it is not on loopback"
    )
    assert [advice.keeps_mail for advice in advise(explanation, SETTINGS)] == [True, False]


def judged(chain: tuple[bytes, ...]) -> Explanation:
    """An address whose certificate local_policy does not like."""
    tls = TLSEvidence("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", chain)
    refusal = Refusal("local_policy", 451, "4.7.1", "TLS level encrypted, local_policy demands authenticated: no")
    judgement = Judgement(Security(tls_level=TLSLevel.ENCRYPTED), None, refusal)
    contact = Contact(
        ADDRESS, evidence=PeerEvidence(MX.host, str(ADDRESS), 25, tls), judgements={"ordinary": judgement}
    )
    return with_plan(contacts=(contact,))


def test_a_certificate_that_cannot_be_read_is_told_and_shown() -> None:
    explanation = judged((b"nonsense",))
    (advice,) = advise(explanation, SETTINGS)
    assert "or demand less here (local_policy)" in advice.cure
    assert "certificate 0: " in page(explanation)
    json.dumps(as_json_object(explanation, SETTINGS, NOW))


def test_odd_facts_are_shown_too() -> None:
    lookups = (TLSALookup(Domain("mx.good.test"), None),)
    implicit = Candidates(DOMAIN, (MX,), authentic=True, implicit=True, canonical=DOMAIN)
    held = replace(HELD, policy=STSPolicy(STSMode.NONE, timedelta(hours=3)), fetched=NOW - timedelta(minutes=5))
    sts = PolicyLookup(DOMAIN, held, Origin.FETCHED, NOW, STSRecord("1"))
    text = page(replace(with_plan(tlsa=lookups), candidates=implicit, sts=sts))
    for fact in (
        "no MX record: the domain itself is the mail server (implicit MX)",
        "TLSA at mx.good.test: the name would be too long",
        "policy of mode none, id 1, fetched just now",
        "5 minutes old, holds for 3 hours",
        "names no host",
    ):
        assert fact in text, fact
    text = page(
        replace(HEALTHY, sts=PolicyLookup(DOMAIN, None, None, None, STSRecord("1"), problem("https://sts: no")))
    )
    assert "but there is no policy, so the domain is treated as one without MTA-STS" in text


def ends(outcome: Outcome | None) -> int:
    return exit_code(replace(HEALTHY, outcomes={} if outcome is None else {"ordinary": outcome}))


def test_it_ends_as_a_message_would_now() -> None:
    who = Recipient(Mailbox("postmaster", DOMAIN))
    reply = Reply.make(250, "2.0.0", "Ok")
    assert ends(Delivered(who, reply)) == os.EX_OK
    assert ends(Deferred(who, LATER)) == os.EX_TEMPFAIL
    assert ends(Failed(who, NULL_MX)) == os.EX_UNAVAILABLE
    assert ends(None) == os.EX_OK, "nobody was asked"


def test_other_kinds_of_message_do_not_change_how_it_ends() -> None:
    who = Recipient(Mailbox("postmaster", DOMAIN))
    outcomes: dict[str, Outcome] = {
        "ordinary": Delivered(who, Reply.make(250, "2.0.0", "Ok")),
        "requiretls": Failed(who, NULL_MX),
    }
    assert exit_code(replace(HEALTHY, outcomes=outcomes)) == os.EX_OK
