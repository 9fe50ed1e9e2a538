"""What a domain's MTA-STS policy means for its MX hosts (RFC 8461 4 and 5)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mailrider.dns.answer import LookupFailure
from mailrider.model import event as events
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.route import Candidate, Candidates, Host
from mailrider.model.security import NO_REQUIREMENT, MXLevel, Requirement, TLSLevel
from mailrider.model.tls_problem import TLSProblemKind
from mailrider.mtasts.policy import STSMode
from mailrider.policy.base import NOT_AWARDED, Admission
from mailrider.policy.sts.policy import BoundSTS, STSPolicies
from tests.support.problems import problem
from tests.unit.policy.sts.sts_world import EXAMPLE, World, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MX, OTHER = Candidate(Domain("mx.example.com")), Candidate(Domain("mx.evil.test"))
CANDIDATES = Candidates(EXAMPLE, (MX, OTHER))
MATCH = Admission(MXLevel.MTASTS)


class Policies:
    """The policy `mtasts` of a target, over a small internet in memory."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.source = world.source()
        self._policies = STSPolicies(self.source, world.clock, world.events.append)

    async def bound(self) -> BoundSTS | None:
        """What an attempt has, once the candidates are known."""
        bound = await self._policies.prepare(EXAMPLE).bind(CANDIDATES)
        assert bound is None or isinstance(bound, BoundSTS)
        return bound

    async def present(self) -> BoundSTS:
        bound = await self.bound()
        assert bound is not None
        return bound


@pytest.fixture
async def net() -> AsyncIterator[Policies]:
    policies = Policies(World())
    async with policies.source:
        yield policies


def host(candidate: Candidate) -> Host:
    return Host(candidate, (ip_address("192.0.2.1"),))


# Modes ----------------------------------------------------------------------------------------------------------------


async def test_a_host_that_an_enforced_policy_names_is_admitted_and_must_prove_itself(net: Policies) -> None:
    net.world.publish("1", text("enforce"))
    bound = await net.present()
    assert await bound.admit(MX) == MATCH
    assert await bound.requirement(host(MX)) == Requirement(min_tls=TLSLevel.AUTHENTICATED, tls_reason="mtasts")


async def test_a_host_that_it_does_not_name_is_refused(net: Policies) -> None:
    net.world.publish("1", text("enforce"))
    admission = await (await net.present()).admit(OTHER)
    refusal = admission.refusal
    assert admission.level is MXLevel.NONE
    assert refusal is not None
    assert (refusal.policy, refusal.code, refusal.enhanced, refusal.for_now) == ("mtasts", 451, "4.7.0", False)
    assert refusal.reason == "mx.evil.test is not among the MX hosts of the domain's MTA-STS policy"
    assert refusal.problems == (problem(refusal.reason, TLSProblemKind.MX_NOT_IN_POLICY),)


async def test_a_testing_policy_awards_its_level_and_refuses_nobody(net: Policies) -> None:
    net.world.publish("1", text("testing"))
    bound = await net.present()
    assert await bound.admit(MX) == MATCH
    assert await bound.admit(OTHER) == NOT_AWARDED
    assert await bound.requirement(host(MX)) == Requirement(wanted_tls=TLSLevel.AUTHENTICATED)
    assert [(event.mx, event.address) for event in net.world.happened(events.TestingPolicyMissed)] == [
        ("mx.evil.test", None)
    ]


async def test_what_a_testing_policy_misses_names_the_message(net: Policies) -> None:
    net.world.publish("1", text("testing"))
    policies = STSPolicies(net.source, net.world.clock, net.world.events.append)
    bound = await policies.prepare(EXAMPLE).bind(CANDIDATES, "0d7m3k9q2xv4t")
    assert bound is not None
    await bound.admit(OTHER)
    assert [event.message for event in net.world.happened(events.TestingPolicyMissed)] == ["0d7m3k9q2xv4t"]


async def test_a_testing_policy_that_may_have_changed_leaves_a_doubt(net: Policies) -> None:
    net.world.publish("1", text("testing"))
    await net.present()
    net.world.announce("2")
    net.world.block_host()
    admission = await (await net.present()).admit(OTHER)
    assert (admission.level, admission.refusal) == (MXLevel.NONE, None)
    assert "no connection" in str(admission.doubt)


async def test_a_policy_of_mode_none_is_as_if_there_were_none(net: Policies) -> None:
    net.world.publish("1", text("none"))
    assert await net.bound() is None


@pytest.mark.parametrize("attack", ["block_host", "break_dns"])
async def test_a_policy_of_mode_none_that_may_have_been_replaced_leaves_a_doubt(net: Policies, attack: str) -> None:
    net.world.publish("1", text("none"))
    await net.bound()
    net.world.announce("2")
    getattr(net.world, attack)()
    bound = await net.present()
    admission = await bound.admit(MX)
    assert (admission.level, admission.refusal) == (MXLevel.NONE, None)
    assert admission.doubt
    assert await bound.requirement(host(MX)) == NO_REQUIREMENT


async def test_a_domain_without_a_policy_has_nothing_to_say(net: Policies) -> None:
    assert await net.bound() is None


async def test_an_address_literal_has_no_policy_and_nothing_is_asked(net: Policies) -> None:
    literal = AddressLiteral(ip_address("192.0.2.1"))
    prepared = STSPolicies(net.source, net.world.clock, net.world.events.append).prepare(literal)
    assert await prepared.bind(Candidates(literal, (Candidate(literal),))) is None
    prepared.cancel()
    assert net.world.resolver.lookups == []


# Fetched once more before a mismatch refuses (RFC 8461 5.1) -----------------------------------------------------------


async def test_before_a_mismatch_refuses_the_policy_is_fetched_once_more(net: Policies) -> None:
    net.world.publish("1", text("enforce", mx="mx.old.test"))
    await net.present()
    await net.world.clock.advance(3600)
    net.world.serve(text("enforce"))  # the new one, whose id nobody has announced
    bound = await net.present()
    assert await bound.admit(MX) == MATCH
    assert net.world.fetches() == 2


async def test_once_an_attempt_is_enough(net: Policies) -> None:
    net.world.publish("1", text("enforce", mx="mx.old.test"))
    await net.present()
    await net.world.clock.advance(3600)
    bound = await net.present()
    for candidate in (MX, OTHER, MX):
        assert (await bound.admit(candidate)).refusal is not None
    assert net.world.fetches() == 2


async def test_a_policy_that_this_attempt_fetched_is_not_fetched_again(net: Policies) -> None:
    net.world.publish("1", text("enforce", mx="mx.old.test"))
    assert (await (await net.present()).admit(MX)).refusal is not None
    assert net.world.fetches() == 1


async def test_if_it_cannot_be_fetched_again_the_refusal_is_for_now(net: Policies) -> None:
    net.world.publish("1", text("enforce", mx="mx.old.test"))
    await net.present()
    await net.world.clock.advance(3600)
    net.world.block_host()
    refusal = (await (await net.present()).admit(MX)).refusal
    assert refusal is not None
    assert refusal.for_now
    assert "no connection" in refusal.reason


async def test_a_policy_replaced_by_none_refuses_nobody(net: Policies) -> None:
    net.world.publish("1", text("enforce", mx="mx.old.test"))
    await net.present()
    await net.world.clock.advance(3600)
    net.world.serve(text("none"))
    bound = await net.present()
    assert await bound.admit(MX) == NOT_AWARDED
    assert await bound.requirement(host(MX)) is NO_REQUIREMENT


# Doubt: there may be a policy that we could not get (RFC 8461 3.3) ----------------------------------------------------


async def test_a_policy_that_cannot_be_fetched_is_a_doubt_and_no_refusal(net: Policies) -> None:
    net.world.announce("1")
    bound = await net.present()
    admission = await bound.admit(MX)
    assert (admission.level, admission.refusal) == (MXLevel.NONE, None)
    assert "no connection" in str(admission.doubt)
    assert bound.mode is None
    assert await bound.requirement(host(MX)) is NO_REQUIREMENT


async def test_so_is_a_record_that_cannot_be_looked_up(net: Policies) -> None:
    net.world.break_dns()
    admission = await (await net.present()).admit(MX)
    assert (admission.level, admission.refusal) == (MXLevel.NONE, None)
    assert str(admission.doubt).startswith("TXT lookup of _mta-sts.example.com failed")


@pytest.mark.parametrize("attack", ["break_dns", "strip_record", "block_host"])
async def test_whoever_blocks_dns_or_the_policy_host_later_changes_nothing(net: Policies, attack: str) -> None:
    net.world.publish("1", text("enforce"))
    await net.present()
    getattr(net.world, attack)()
    await net.world.clock.advance(2 * 86_400)
    bound = await net.present()
    assert bound.mode is STSMode.ENFORCE
    assert (await bound.admit(OTHER)).refusal is not None
    assert (await bound.requirement(host(MX))) == Requirement(min_tls=TLSLevel.AUTHENTICATED, tls_reason="mtasts")


# After a TLS failure --------------------------------------------------------------------------------------------------


async def test_after_a_tls_failure_the_id_is_asked_for_again(net: Policies) -> None:
    net.world.publish("1", text("enforce"))
    await net.present()
    bound = await net.present()
    asked = net.world.asked()
    net.world.publish("2", text("testing"))
    await bound.tls_failed()
    assert net.world.asked() == asked + 1
    assert bound.mode is STSMode.TESTING


async def test_a_policy_that_nobody_waits_for_is_given_up(net: Policies) -> None:
    net.world.publish("1", text("enforce"))
    net.world.hosts.gate.clear()
    prepared = STSPolicies(net.source, net.world.clock, net.world.events.append).prepare(EXAMPLE)
    prepared.cancel()
    net.world.hosts.gate.set()
    assert await net.bound() is not None, "and the next one is served"


async def test_what_is_known_takes_no_time(net: Policies) -> None:
    net.world.resolver.answers["_mta-sts.example.com", "TXT"] = [b"v=STSv1; id=1;"]
    net.world.serve(text("enforce"))
    await net.present()
    net.world.resolver.answers["_mta-sts.example.com", "TXT"] = LookupFailure.SERVFAIL
    prepared = STSPolicies(net.source, net.world.clock, net.world.events.append).prepare(EXAMPLE)
    coroutine = prepared.bind(CANDIDATES)
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)  # it never waits
    assert isinstance(done.value.value, BoundSTS)


# --- What TLS reports are told --------------------------------------------------------------------


async def test_a_report_shows_the_lines_of_a_policy_as_they_were_fetched(net: Policies) -> None:
    net.world.announce("id1")
    net.world.serve(b"version: STSv1\r\nmode:enforce\r\nmx: mx.example.com\r\nmax_age: 604800 \r\n")
    seen = (await net.present()).seen(OTHER)
    assert seen is not None
    assert seen.lines == ("version: STSv1", "mode:enforce", "mx: mx.example.com", "max_age: 604800 ")
    assert (seen.mx, seen.names_host) == (("mx.example.com",), False)


async def test_a_report_shows_what_was_served_in_the_place_of_a_policy(net: Policies) -> None:
    net.world.announce("id1")
    net.world.serve(b"version: STSv1\nmode: enfroce\n")
    seen = (await net.present()).seen(MX)
    assert seen is not None
    assert (seen.lines, seen.mx) == (("version: STSv1", "mode: enfroce"), ())
    assert seen.problem is not None
    assert seen.problem.kind is TLSProblemKind.STS_POLICY_INVALID


async def test_a_policy_as_large_as_allowed_is_read_beside_the_event_loop_and_binds_as_any_other(net: Policies) -> None:
    net.world.announce("id1")
    others = "".join(f"mx: mx{number}.other.test\n" for number in range(2000))
    net.world.serve(f"version: STSv1\nmode: enforce\nmax_age: 604800\n{others}mx: mx.example.com\n".encode())
    bound = await net.present()
    assert (bound.mode, bound.matches(MX), bound.matches(OTHER)) == (STSMode.ENFORCE, True, False)
    net.world.announce("id2")
    net.world.serve(b"nonsense\n" * 2000)
    assert (await net.present()).lookup.error
