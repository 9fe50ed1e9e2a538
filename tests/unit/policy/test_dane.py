"""What TLSA records demand before a connection is made (RFC 7672 2 and 3)."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from mailrider.delivery.mx import HostNotFound, find_host
from mailrider.dns.answer import LookupFailed, LookupFailure, MalformedTLSA, RecordType
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.event import LookupDidFail, discard
from mailrider.model.route import Candidate, Candidates, Host
from mailrider.model.security import NO_REQUIREMENT, MXLevel, Refusal, Requirement, TLSARecord, TLSLevel
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.policy.dane import BoundDANE, DANEPolicies, reference_names
from mailrider.testing.clock import FakeClock
from mailrider.testing.resolver import FakeResolver, Row, TableRow

if TYPE_CHECKING:
    from mailrider.dns.answer import Answer
    from mailrider.model.event import Event

Table: TypeAlias = "dict[tuple[str, str], Row]"

DOMAIN = Domain("good.test")
MX, ALIAS_OF = Domain("mx.signed.test"), Domain("real.signed.test")
A = IPv4Address("192.0.2.1")
NEVER = float("inf")
EE = TLSARecord(3, 1, 1, bytes(32))
OTHER = TLSARecord(3, 1, 1, b"\xab" * 32)
PKIX_EE = TLSARecord(1, 1, 1, bytes(32))
ENCRYPTED = Requirement(
    min_tls=TLSLevel.ENCRYPTED,
    tls_reason="dane",
    problem=TLSProblem(TLSProblemKind.NO_USABLE_TLSA, "none of the host's TLSA records can be used"),
)


class Asked:
    """The outcome of asking the policy about one host."""

    def __init__(self, result: Requirement | Refusal, resolver: FakeResolver, bound: BoundDANE) -> None:
        self.result = result
        self.tlsa = [name.ascii for name, kind in resolver.lookups if kind is RecordType.TLSA]
        self.types = {kind for _, kind in resolver.lookups}
        self.lookups = bound.lookups

    @property
    def records(self) -> tuple[TLSARecord, ...]:
        """The records that a certificate must match."""
        assert isinstance(self.result, Requirement)
        return self.result.dane.records if self.result.dane else ()

    @property
    def base(self) -> Domain | None:
        assert isinstance(self.result, Requirement)
        return self.result.dane.base_domain if self.result.dane else None


async def ask(
    rows: Table, *, signed: tuple[str, ...] = ("signed.test",), host: str = "mx.signed.test", port: int = 25,
    authentic: bool = False, canonical: str = "", validates: bool = True, events: list[Event] | None = None,
) -> Asked:  # fmt: skip
    """What DANE demands of `host`, an MX of good.test, when DNS is `rows`."""
    resolver = FakeResolver(rows, signed=signed, validates=validates)
    candidate = Candidate(Domain(host))
    found = await find_host(resolver, candidate, FakeClock(), NEVER, force_ipv4=True)
    assert not isinstance(found, HostNotFound)
    candidates = Candidates(DOMAIN, (candidate,), authentic, canonical=Domain(canonical) if canonical else None)
    bound = await DANEPolicies(resolver, port, discard if events is None else events.append).bind(candidates, "m1")
    assert (await bound.admit(candidate)).level is MXLevel.NONE, "DANE says nothing about whose host it is"
    return Asked(await bound.requirement(found), resolver, bound)


HERE: Table = {("mx.signed.test", "A"): A}


def tlsa(*records: TLSARecord | MalformedTLSA, at: str = "mx.signed.test", port: int = 25) -> Table:
    return {(f"_{port}._tcp.{at}", "TLSA"): list(records)}


# The records ----------------------------------------------------------------------------------------------------------


async def test_usable_records_demand_a_match_and_give_the_sni() -> None:
    asked = await ask({**HERE, **tlsa(EE, OTHER)})
    assert asked.records == (EE, OTHER)
    assert isinstance(asked.result, Requirement)
    assert (asked.result.min_tls, asked.result.sni, asked.result.tls_reason) == (TLSLevel.AUTHENTICATED, MX, "dane")


async def test_the_records_stand_at_the_port_that_is_called() -> None:
    asked = await ask({**HERE, **tlsa(EE, port=2525), **tlsa(OTHER)}, port=2525)
    assert (asked.records, asked.tlsa) == ((EE,), ["_2525._tcp.mx.signed.test"])


async def test_without_records_dane_is_silent() -> None:
    assert (await ask(HERE)).result is NO_REQUIREMENT


UNUSABLE = [PKIX_EE, TLSARecord(3, 1, 1, b"short"), TLSARecord(9, 9, 9, b""), MalformedTLSA("3 1")]


@pytest.mark.parametrize("record", UNUSABLE)
async def test_records_of_which_none_is_usable_demand_tls_with_any_certificate(
    record: TLSARecord | MalformedTLSA,
) -> None:
    asked = await ask({**HERE, **tlsa(record)})
    # RFC 7672 2.2. The SNI stays the MX host's: no record chooses the certificate.
    assert asked.result == ENCRYPTED


async def test_a_usable_record_counts_beside_unusable_ones() -> None:
    assert (await ask({**HERE, **tlsa(PKIX_EE, EE)})).records == (EE,)


async def test_an_unauthenticated_answer_counts_as_none() -> None:
    rows: Table = {**HERE, ("_25._tcp.mx.signed.test", "TLSA"): TableRow([EE], authentic=False)}
    assert (await ask(rows)).result is NO_REQUIREMENT


async def test_records_behind_a_cname_of_their_own_count_and_the_base_domain_stays() -> None:
    rows: Table = {
        **HERE,
        ("_25._tcp.mx.signed.test", "CNAME"): Domain("tlsa.signed.test"),
        ("tlsa.signed.test", "TLSA"): EE,
    }
    asked = await ask(rows)
    assert (asked.records, asked.base) == ((EE,), MX)


async def test_records_behind_an_unsigned_cname_do_not() -> None:
    rows: Table = {
        **HERE,
        ("_25._tcp.mx.signed.test", "CNAME"): Domain("tlsa.plain.test"),
        ("tlsa.plain.test", "TLSA"): EE,
    }
    assert (await ask(rows)).result is NO_REQUIREMENT


# Is the host signed? --------------------------------------------------------------------------------------------------


async def test_nothing_is_asked_about_a_host_that_is_not_signed() -> None:
    asked = await ask({("mx.plain.test", "A"): A, **tlsa(EE, at="mx.plain.test")}, host="mx.plain.test")
    assert (asked.result, asked.tlsa) == (NO_REQUIREMENT, [])


async def test_nothing_is_asked_of_a_resolver_that_is_not_to_be_believed() -> None:
    asked = await ask({**HERE, **tlsa(EE)}, validates=False)
    assert (asked.result, asked.tlsa) == (NO_REQUIREMENT, [])


async def test_an_address_literal_has_no_records() -> None:
    resolver, literal = FakeResolver({}), AddressLiteral(ip_address("192.0.2.1"))
    candidate = Candidate(literal)
    bound = await DANEPolicies(resolver, 25).bind(Candidates(literal, (candidate,)))
    assert await bound.requirement(Host(candidate, (A,))) is NO_REQUIREMENT
    assert resolver.lookups == []


# CNAMEs (RFC 7672 2.2.2) ----------------------------------------------------------------------------------------------

ALIASED: Table = {("mx.signed.test", "CNAME"): ALIAS_OF, ("real.signed.test", "A"): A}
BOTH = ["_25._tcp.real.signed.test", "_25._tcp.mx.signed.test"]


async def test_of_a_signed_alias_the_expanded_name_is_asked_first() -> None:
    asked = await ask({**ALIASED, **tlsa(EE, at="real.signed.test"), **tlsa(OTHER)})
    assert (asked.records, asked.base, asked.tlsa) == ((EE,), ALIAS_OF, BOTH[:1])


async def test_then_the_alias_itself() -> None:
    asked = await ask({**ALIASED, **tlsa(OTHER)})
    assert (asked.records, asked.base, asked.tlsa) == ((OTHER,), MX, BOTH)


async def test_the_first_set_decides_usable_or_not() -> None:
    asked = await ask({**ALIASED, **tlsa(PKIX_EE, at="real.signed.test"), **tlsa(EE)})
    assert (asked.result, asked.tlsa) == (ENCRYPTED, BOTH[:1])


async def test_a_chain_of_aliases_is_expanded_to_its_end() -> None:
    rows: Table = {
        ("mx.signed.test", "CNAME"): Domain("middle.signed.test"),
        ("middle.signed.test", "CNAME"): ALIAS_OF,
        ("real.signed.test", "A"): A,
        **tlsa(OTHER, at="middle.signed.test"),
    }
    asked = await ask(rows)
    assert (asked.result, asked.tlsa) == (NO_REQUIREMENT, BOTH)


async def test_a_signed_alias_into_an_unsigned_zone_is_asked_by_its_own_name_only() -> None:
    rows: Table = {
        ("mx.signed.test", "CNAME"): Domain("real.plain.test"),
        ("real.plain.test", "A"): A,
        **tlsa(OTHER, at="real.plain.test"),
        **tlsa(EE),
    }
    asked = await ask(rows)
    assert (asked.records, asked.base, asked.tlsa) == ((EE,), MX, BOTH[1:])


async def test_an_unsigned_alias_into_a_signed_zone_is_not_asked_at_all() -> None:
    rows: Table = {
        ("mx.plain.test", "CNAME"): ALIAS_OF,
        ("real.signed.test", "A"): A,
        **tlsa(EE, at="real.signed.test"),
        **tlsa(EE, at="mx.plain.test"),
    }
    asked = await ask(rows, host="mx.plain.test")
    assert (asked.result, asked.tlsa) == (NO_REQUIREMENT, [])


async def test_signed_then_unsigned_then_signed_again_is_not_a_signed_chain() -> None:
    rows: Table = {
        ("mx.signed.test", "CNAME"): Domain("middle.plain.test"),
        ("middle.plain.test", "CNAME"): ALIAS_OF,
        ("real.signed.test", "A"): A,
        **tlsa(OTHER, at="real.signed.test"),
        **tlsa(EE),
    }
    asked = await ask(rows)
    assert (asked.records, asked.tlsa) == ((EE,), BOTH[1:])


# Failures: nobody may make DANE go away (RFC 7672 2.1.2) --------------------------------------------------------------


@pytest.mark.parametrize("failure", [f for f in LookupFailure if f is not LookupFailure.NO_RESOLVER])
async def test_a_failed_lookup_refuses_the_host(failure: LookupFailure) -> None:
    events: list[Event] = []
    asked = await ask({**HERE, ("_25._tcp.mx.signed.test", "TLSA"): failure}, events=events)
    assert isinstance(asked.result, Refusal)
    assert (asked.result.policy, asked.result.code, asked.result.enhanced) == ("dane", 451, "4.7.1")
    assert asked.result.for_now
    assert asked.result.problems == (TLSProblem(TLSProblemKind.TLSA_LOOKUP_FAILED, asked.result.reason, failure),)
    assert "_25._tcp.mx.signed.test" in asked.result.reason
    assert [type(event) for event in events] == [LookupDidFail]
    assert [event.message for event in events if isinstance(event, LookupDidFail)] == ["m1"]


async def test_a_failed_lookup_stops_the_search() -> None:
    asked = await ask({**ALIASED, ("_25._tcp.real.signed.test", "TLSA"): LookupFailure.SERVFAIL, **tlsa(EE)})
    assert isinstance(asked.result, Refusal)
    assert asked.tlsa == BOTH[:1]


async def test_a_host_whose_alias_cannot_be_checked_is_refused() -> None:
    """Its addresses came unauthenticated by way of a CNAME. Was that one signed? Who hides it must not win."""

    class Hiding(FakeResolver):
        async def lookup(self, name: Domain, record_type: RecordType, *, fresh: bool = False) -> Answer[Any]:
            if record_type is RecordType.CNAME:
                raise LookupFailed(name, record_type, LookupFailure.SERVFAIL)
            return await super().lookup(name, record_type, fresh=fresh)

    resolver = Hiding({("mx.signed.test", "CNAME"): Domain("real.plain.test"), ("real.plain.test", "A"): A})
    candidate = Candidate(MX)
    found = await find_host(resolver, candidate, FakeClock(), NEVER, force_ipv4=True)
    assert isinstance(found, Host)
    bound = await DANEPolicies(resolver, 25).bind(Candidates(DOMAIN, (candidate,)))
    refusal = await bound.requirement(found)
    assert isinstance(refusal, Refusal)
    assert (refusal.enhanced, refusal.for_now) == ("4.7.1", True)
    assert refusal.reason.startswith("it is not known whether mx.signed.test is signed: CNAME lookup")


async def test_behind_a_resolver_that_is_not_to_be_believed_no_alias_is_checked() -> None:
    asked = await ask({**ALIASED, ("_25._tcp.mx.signed.test", "TLSA"): EE}, validates=False)
    assert (asked.result, asked.types) == (NO_REQUIREMENT, {RecordType.A})


async def test_a_name_too_long_to_have_records_has_none() -> None:
    long = ".".join(["a" * 60] * 4 + ["test"])
    asked = await ask({(long, "A"): TableRow([A], authentic=True)}, host=long)
    assert (asked.result, asked.tlsa) == (NO_REQUIREMENT, [])
    ((lookup,),) = asked.lookups.values()
    assert lookup.result is None


# Reference names (RFC 7672 3.2.2) -------------------------------------------------------------------------------------

NAMES = {
    "MX not authenticated": (False, "mx.signed.test", None, ["mx.signed.test"]),
    "MX authenticated": (True, "mx.signed.test", None, ["mx.signed.test", "good.test"]),
    "and the domain is an alias": (
        True,
        "mx.signed.test",
        "www.signed.test",
        ["mx.signed.test", "good.test", "www.signed.test"],
    ),
    "the domain is an alias, not authenticated": (False, "mx.signed.test", "www.signed.test", ["mx.signed.test"]),
    "the host is an alias": (False, "real.signed.test", None, ["real.signed.test", "mx.signed.test"]),
    "both, authenticated": (
        True,
        "real.signed.test",
        "www.signed.test",
        ["real.signed.test", "mx.signed.test", "good.test", "www.signed.test"],
    ),
    "the domain is its own mail server": (True, "good.test", None, ["good.test", "mx.signed.test"]),
}


@pytest.mark.parametrize(("authentic", "base", "canonical", "names"), NAMES.values(), ids=NAMES)
def test_names_that_a_trust_anchors_certificate_may_have(
    authentic: bool, base: str, canonical: str | None, names: list[str]
) -> None:
    found = Candidates(DOMAIN, (Candidate(MX),), authentic, canonical=Domain(canonical) if canonical else None)
    assert [name.ascii for name in reference_names(Domain(base), MX, found)] == names


async def test_an_unsigned_mx_lends_the_domains_name_to_nobody() -> None:
    asked = await ask({**HERE, **tlsa(EE)}, authentic=False, canonical="www.signed.test")
    assert isinstance(asked.result, Requirement)
    assert asked.result.dane is not None
    assert asked.result.dane.names == (MX,)


async def test_a_thousand_records_are_bounded() -> None:
    records = [TLSARecord(3, 1, 1, number.to_bytes(32)) for number in range(1000)]
    assert len((await ask({**HERE, **tlsa(*records)})).records) == 32


async def test_what_a_large_set_demands_is_not_remembered() -> None:
    # A zone can give another set of 64 KiB for every message.
    records = [TLSARecord(3, 1, 1, bytes([index]) + bytes(638)) for index in range(100)]
    first, again = [(await ask({**HERE, **tlsa(*records)})).result for _ in range(2)]
    assert first == again == ENCRYPTED
    assert first is not again
    first, again = [(await ask({**HERE, **tlsa(EE)})).result for _ in range(2)]
    assert first is again, "a small one is"
