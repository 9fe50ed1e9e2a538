"""Validation in this process: whom it asks, what turns it on, and that nothing from outside turns it off."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mailrider.dns.anchors import parse_anchors
from mailrider.dns.answer import LookupFailed, LookupFailure, RecordType
from mailrider.dns.probe import Prober
from mailrider.dns.proof import LATER, SOON
from mailrider.dns.servers import RECURSIVE
from mailrider.dns.validating import Failing, Unvalidated, Waiting
from mailrider.dns.validation import DAY, Proven
from mailrider.model.event import (
    AnswerValidated,
    Bug,
    DNSSECValidationFails,
    DNSSECValidationWorks,
    DNSServerUnfit,
    Event,
    RootKeysMissing,
    SecurityUnavailable,
)
from mailrider.testing.clock import FakeClock
from tests.unit.dns.world import (
    BOGUS,
    HERE,
    NAME,
    ONE,
    PATIENCE,
    ROOT_KEY,
    TLS,
    TWO,
    UNSIGNED,
    Server,
    World,
    validating,
)

if TYPE_CHECKING:
    from mailrider.dns.caching import CachingResolver
    from mailrider.model.domain import Domain

FIT, SILENT, STRIPS, OTHER_KEYS = Server.FIT, Server.SILENT, Server.STRIPS, Server.OTHER_KEYS
A = RecordType.A
ROOT_ANCHOR = parse_anchors(f". IN DNSKEY {ROOT_KEY}")


def world(**servers: Server) -> World:
    made = World()
    addresses = {"one": ONE, "two": TWO, "here": HERE, "tls": TLS, "recursive": RECURSIVE}
    made.servers = {addresses[name]: behaviour for name, behaviour in servers.items()}
    return made


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events if not isinstance(event, AnswerValidated)]


async def failure(resolver: CachingResolver, name: Domain = NAME) -> LookupFailed:
    with pytest.raises(LookupFailed) as raised:
        await resolver.lookup(name, A)
    return raised.value


async def test_what_the_validator_calls_secure_is_authentic_and_an_ad_bit_is_nothing() -> None:
    clock, events = FakeClock(), list[Event]()
    async with validating(world(one=FIT), clock, events, anchors=ROOT_ANCHOR) as resolver:
        assert (await resolver.lookup(NAME, A)).authentic
        assert not (await resolver.lookup(UNSIGNED, A)).authentic
        assert resolver.validates
        assert resolver.validates_itself
        assert resolver.dnssec_off == ""
    assert kinds(events) == [DNSSECValidationWorks]
    assert [event.validity for event in events if isinstance(event, AnswerValidated)] == ["secure", "insecure"]


async def test_what_is_bogus_is_a_failure_that_says_why() -> None:
    clock, events = FakeClock(), list[Event]()
    async with validating(world(one=FIT), clock, events, anchors=ROOT_ANCHOR) as resolver:
        failed = await failure(resolver, BOGUS)
    assert failed.failure is LookupFailure.BOGUS
    assert failed.detail == "wrong signature"
    assert [event.validity for event in events if isinstance(event, AnswerValidated)] == ["bogus"]


async def test_what_is_asked_fresh_goes_to_a_validator_without_caches_which_is_opened_once() -> None:
    here, clock = world(one=FIT), FakeClock()
    async with validating(here, clock, [], anchors=ROOT_ANCHOR) as resolver:
        await resolver.lookup(NAME, A)
        await resolver.lookup(NAME, A)  # in our own cache
        await resolver.lookup(NAME, A, fresh=True)
        await resolver.lookup(NAME, A, fresh=True)
        assert here.validators == [((ONE,), True), ((ONE,), False)]
    assert here.asked == [("signed.test", True), ("signed.test", False), ("signed.test", False)]


async def test_a_fresh_question_does_not_join_one_that_a_cache_may_answer() -> None:
    here, clock = world(one=FIT), FakeClock()
    async with validating(here, clock, [], anchors=ROOT_ANCHOR) as resolver:
        await asyncio.gather(resolver.lookup(NAME, A), resolver.lookup(NAME, A), resolver.lookup(NAME, A, fresh=True))
    assert sorted(here.asked) == [("signed.test", False), ("signed.test", True)]


# Before the first probe has ended -------------------------------------------------------------------------------------


async def test_lookups_wait_for_the_first_probe() -> None:
    here, clock = world(one=SILENT, two=FIT), FakeClock()
    async with validating(here, clock, [], auto=True, anchors=ROOT_ANCHOR) as resolver:
        await clock.advance(0)
        await clock.advance(1)  # the probe of the silent one lasts
        lookup = asyncio.create_task(resolver.lookup(NAME, A))
        await clock.advance(PATIENCE - 1.1)
        assert not lookup.done()
        assert isinstance(resolver.source, Waiting)
        await clock.advance(0.1)
        assert (await lookup).authentic
    assert here.asked == [("signed.test", True)]


async def test_and_not_longer_than_a_question_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    here, clock = world(one=FIT), FakeClock()
    monkeypatch.setattr(Prober, "probe", lambda _, __: asyncio.Event().wait())
    async with validating(here, clock, [], anchors=ROOT_ANCHOR) as resolver:
        lookup = asyncio.create_task(failure(resolver))
        await clock.advance(0)
        await clock.advance(PATIENCE)
        failed = await lookup
    assert failed.failure is LookupFailure.TIMEOUT
    assert failed.detail == "validation could not begin within 15 s"


async def test_a_library_that_never_answers_holds_no_lookup_longer_than_that() -> None:
    here, clock = world(one=FIT), FakeClock()
    async with validating(here, clock, [], anchors=ROOT_ANCHOR) as resolver:
        await resolver.lookup(NAME, A)
        here.servers[ONE] = SILENT
        lookup = asyncio.create_task(failure(resolver, UNSIGNED))
        await clock.advance(PATIENCE)
        failed = await lookup
    assert failed.failure is LookupFailure.TIMEOUT
    assert failed.detail == "not validated within 15 s"


# Which servers --------------------------------------------------------------------------------------------------------


async def test_a_server_that_strips_signatures_is_dropped_with_a_message_and_taken_back_when_it_stops() -> None:
    here, clock, events = world(one=STRIPS, two=FIT), FakeClock(), list[Event]()
    async with validating(here, clock, events, anchors=ROOT_ANCHOR) as resolver:
        await resolver.lookup(NAME, A)
        assert here.validators == [((TWO,), True)]
        unfit = next(event for event in events if isinstance(event, DNSServerUnfit))
        assert (unfit.server, unfit.reason) == (
            "192.0.2.1:53",
            "the root's keys come without signatures (RRSIG) over UDP",
        )
        here.servers[ONE] = FIT
        await clock.advance(SOON)
        assert here.validators == [((ONE, TWO), True)]
        assert (await resolver.lookup(NAME, A)).authentic
    assert kinds(events) == [DNSServerUnfit, DNSSECValidationWorks, DNSSECValidationWorks]


async def test_a_server_that_is_silent_later_is_kept_beside_one_that_answers() -> None:
    here, clock, events = world(one=FIT, two=FIT), FakeClock(), list[Event]()
    async with validating(here, clock, events, anchors=ROOT_ANCHOR):
        await clock.advance(0)
        here.servers[TWO] = SILENT
        await clock.advance(LATER)
        await clock.advance(PATIENCE)
        assert here.validators == [((ONE, TWO), True)]
    assert kinds(events) == [DNSSECValidationWorks, DNSServerUnfit]


async def test_servers_over_tls_and_the_root_are_probed_through_the_validator_alone() -> None:
    for here in (world(tls=FIT), world(recursive=FIT)):
        async with validating(here, FakeClock(), [], anchors=ROOT_ANCHOR) as resolver:
            assert (await resolver.lookup(NAME, A)).authentic


# No server is fit -----------------------------------------------------------------------------------------------------


async def test_yes_and_no_server_that_is_fit_lookups_fail_until_one_is() -> None:
    here, clock, events = world(one=STRIPS), FakeClock(), list[Event]()
    async with validating(here, clock, events, anchors=ROOT_ANCHOR) as resolver:
        failed = await failure(resolver)
        assert failed.failure is LookupFailure.NO_RESOLVER
        assert "192.0.2.1:53: the root's keys come without signatures" in failed.detail
        assert resolver.dnssec_off == ""
        here.servers[ONE] = FIT
        await clock.advance(SOON)
        assert (await resolver.lookup(NAME, A)).authentic
    assert kinds(events) == [DNSServerUnfit, DNSSECValidationFails, DNSSECValidationWorks]


async def test_auto_and_no_server_that_is_fit_they_are_asked_without_validation_loudly_and_probed_each_minute() -> None:
    here, clock, events = world(one=STRIPS), FakeClock(), list[Event]()
    async with validating(here, clock, events, auto=True, anchors=ROOT_ANCHOR) as resolver:
        assert not (await resolver.lookup(NAME, A)).authentic  # though it has AD
        assert not resolver.validates
        assert not resolver.validates_itself
        assert "DNSSEC and DANE are off: no DNS server is fit for validation" in resolver.dnssec_off
        here.servers[ONE] = FIT
        await clock.advance(SOON)
        assert resolver.cached(NAME, A) is None  # what was said without validation is forgotten
        assert (await resolver.lookup(NAME, A)).authentic
    assert kinds(events) == [DNSServerUnfit, SecurityUnavailable, DNSSECValidationWorks]


@pytest.mark.parametrize("server", ["tls", "recursive"])
async def test_auto_never_asks_without_validation_where_that_would_leave_tls_or_the_recursion(server: str) -> None:
    here = world(**{server: STRIPS})
    async with validating(here, FakeClock(), [], auto=True, anchors=ROOT_ANCHOR) as resolver:
        assert (await failure(resolver)).failure is LookupFailure.NO_RESOLVER


@pytest.mark.parametrize("auto", [True, False])
async def test_keys_of_the_root_that_fit_no_anchor_never_turn_dnssec_off(auto: bool) -> None:
    clock, events = FakeClock(), list[Event]()
    async with validating(world(one=OTHER_KEYS, two=STRIPS), clock, events, auto=auto) as resolver:
        failed = await failure(resolver)
        assert isinstance(resolver.source, Failing)
    assert "fit no trust anchor: no key fits" in failed.detail
    assert DNSSECValidationFails in kinds(events)
    assert SecurityUnavailable not in kinds(events)


# Once proven ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [STRIPS, SILENT, OTHER_KEYS])
async def test_once_it_worked_nothing_from_outside_turns_it_off(later: Server) -> None:
    here, clock, events = world(one=FIT), FakeClock(), list[Event]()
    async with validating(here, clock, events, auto=True, anchors=ROOT_ANCHOR) as resolver:
        await resolver.lookup(NAME, A)
        here.servers[ONE] = later
        await clock.advance(LATER)
        await clock.advance(PATIENCE)
        assert resolver.validates_itself
        lookup = asyncio.create_task(failure(resolver, UNSIGNED))
        await clock.advance(PATIENCE)
        assert (await lookup).failure in (LookupFailure.BOGUS, LookupFailure.TIMEOUT)
    assert SecurityUnavailable not in kinds(events)
    assert DNSSECValidationFails not in kinds(events)


async def test_nor_does_a_reload_after_which_the_servers_strip() -> None:
    proven, clock = Proven(), FakeClock()
    async with validating(world(one=FIT), clock, [], auto=True, anchors=ROOT_ANCHOR, proven=proven) as resolver:
        await resolver.lookup(NAME, A)
    events = list[Event]()
    async with validating(world(two=STRIPS), clock, events, auto=True, proven=proven) as resolver:
        assert (await failure(resolver)).failure is LookupFailure.BOGUS
        assert resolver.validates_itself
    assert SecurityUnavailable not in kinds(events)


async def test_nor_does_the_start_of_another_worker_while_the_servers_strip() -> None:
    told = list[str]()
    first = Proven(tell=lambda: told.append("it works"))
    async with validating(world(one=FIT), FakeClock(), [], auto=True, anchors=ROOT_ANCHOR, proven=first) as resolver:
        await resolver.lookup(NAME, A)
    assert told == ["it works"]
    events = list[Event]()
    later = Proven(has_worked=True)
    async with validating(world(two=STRIPS), FakeClock(), events, auto=True, proven=later) as resolver:
        assert (await failure(resolver)).failure is LookupFailure.BOGUS
        assert resolver.validates_itself
    assert SecurityUnavailable not in kinds(events)


async def test_what_is_known_to_work_is_not_told_again() -> None:
    told = list[str]()
    for proven in (Proven(tell=lambda: told.append("it works")), Proven(has_worked=True, tell=pytest.fail)):
        clock = FakeClock()
        for _ in range(2):
            async with validating(world(one=FIT), clock, [], auto=True, anchors=ROOT_ANCHOR, proven=proven) as resolver:
                await resolver.lookup(NAME, A)
    assert told == ["it works"]


async def test_without_that_the_servers_may_be_asked_without_validation() -> None:
    events = list[Event]()
    async with validating(world(two=STRIPS), FakeClock(), events, auto=True, proven=Proven()) as resolver:
        await resolver.lookup(NAME, A)
        assert not resolver.validates_itself
    assert SecurityUnavailable in kinds(events)


# A server that counts -------------------------------------------------------------------------------------------------


async def test_auto_believes_a_server_that_counts_and_asks_the_library_nothing() -> None:
    here = world(here=FIT)
    async with validating(here, FakeClock(), [], auto=True, anchors=ROOT_ANCHOR) as resolver:
        assert (await resolver.lookup(NAME, A)).authentic
        assert isinstance(resolver.source, Unvalidated)
        assert resolver.validates
        assert resolver.dnssec_off == ""
    assert here.opened == []


async def test_yes_validates_what_a_server_that_counts_says() -> None:
    async with validating(world(here=FIT), FakeClock(), [], anchors=ROOT_ANCHOR) as resolver:
        assert not (await resolver.lookup(UNSIGNED, A)).authentic  # though it has AD
        assert resolver.validates_itself


async def test_auto_validates_itself_once_a_proof_takes_the_trust_of_all_servers_away() -> None:
    clock, events = FakeClock(), list[Event]()
    async with validating(world(here=FIT), clock, events, auto=True, anchors=ROOT_ANCHOR) as resolver:
        await resolver.lookup(NAME, A)
        resolver.choose(replace(resolver.choice, disproved={HERE: "it lies"}))
        assert resolver.cached(NAME, A) is None
        assert isinstance(resolver.source, Waiting)  # nobody is asked without validation meanwhile
        assert not (await resolver.lookup(UNSIGNED, A)).authentic
        assert resolver.validates_itself
        resolver.choose(replace(resolver.choice, disproved={}))  # it validates again: we go on by ourselves
        assert resolver.validates_itself
    assert kinds(events) == [DNSSECValidationWorks]


async def test_auto_believes_a_server_that_validates_again_where_we_could_not() -> None:
    clock = FakeClock()
    async with validating(world(here=STRIPS), clock, [], auto=True, anchors=ROOT_ANCHOR) as resolver:
        await clock.advance(0)
        resolver.choose(replace(resolver.choice, disproved={HERE: "it lies"}))
        await clock.advance(0)
        assert not resolver.validates
        resolver.choose(replace(resolver.choice, disproved={}))
        await clock.advance(SOON)
        assert resolver.validates
        assert not resolver.validates_itself
        assert (await resolver.lookup(NAME, A)).authentic


# The root's keys, faults, the rhythm ----------------------------------------------------------------------------------


async def test_a_key_of_the_root_that_we_lack_is_said_at_once_and_each_day() -> None:
    clock, events = FakeClock(), list[Event]()
    async with validating(world(one=FIT), clock, events):
        await clock.advance(0)
        assert [event.tags for event in events if isinstance(event, RootKeysMissing)] == [(ROOT_ANCHOR[0].tag,)]
        for _ in range(23):
            await clock.advance(LATER)
        assert kinds(events).count(RootKeysMissing) == 1
        await clock.advance(DAY - 23 * LATER)
        assert kinds(events).count(RootKeysMissing) == 2


async def test_a_library_that_makes_no_context_is_no_reason_to_turn_dnssec_off_for_good() -> None:
    here, clock, events = world(one=FIT), FakeClock(), list[Event]()
    here.broken = "out of descriptors"
    async with validating(here, clock, events, anchors=ROOT_ANCHOR) as resolver:
        assert "out of descriptors" in (await failure(resolver)).detail
        here.broken = ""
        await clock.advance(SOON)
        assert (await resolver.lookup(NAME, A)).authentic


async def test_a_bug_in_a_probe_is_told_and_does_not_end_the_probing(monkeypatch: pytest.MonkeyPatch) -> None:
    here, clock, events = world(one=FIT), FakeClock(), list[Event]()
    with monkeypatch.context() as patch:
        patch.setattr("mailrider.dns.validation.next_plan", None)
        async with validating(here, clock, events, anchors=ROOT_ANCHOR) as resolver:
            await clock.advance(0)
            assert kinds(events) == [Bug]
            patch.undo()
            await clock.advance(SOON)
            assert resolver.validates_itself


async def test_a_closed_resolver_fails() -> None:
    async with validating(world(one=FIT), FakeClock(), [], anchors=ROOT_ANCHOR) as resolver:
        pass
    assert (await failure(resolver)).failure is LookupFailure.NO_RESOLVER
