"""Discovery and cache of MTA-STS policies: RFC 8461 3.1, 3.3, 5.1 and 10, on a clock that stands still."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mailrider.dns.answer import RecordType
from mailrider.errors import LocalError
from mailrider.model.domain import Domain
from mailrider.model.tls_problem import TLSProblemKind
from mailrider.mtasts.policy import MXPattern, STSMode, STSPolicy
from mailrider.mtasts.record import NoRecord, STSRecord
from mailrider.policy.sts.cache import CachedPolicy
from mailrider.policy.sts.events import (
    PolicyFetched,
    PolicyFetchFailed,
    PolicyLinesIgnored,
    RecordLookupFailed,
    RecordUnusable,
)
from mailrider.policy.sts.lookup import Origin, PolicyLookup, PolicyMemory
from mailrider.policy.sts.source import RELOAD_AFTER, RETRY_AFTER
from mailrider.testing.resolver import TableRow
from tests.support.kept import kept
from tests.support.problems import problem
from tests.unit.policy.sts.sts_world import DAY, EXAMPLE, HOUR, WEEK, DurableStore, World, text

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = Domain("example.net")
TOO_LONG = Domain(".".join(["a" * 49] * 5))


@pytest.fixture
def world() -> World:
    return World()


def names(found: PolicyLookup) -> list[str]:
    """The MX patterns of the policy that is to be applied."""
    return [str(pattern) for pattern in found.policy.mx] if found.policy else []


# --- A domain without, a domain with ------------------------------------------------------------


async def test_a_domain_without_a_record_has_no_policy_and_nothing_is_fetched(world: World) -> None:
    world.serve(text())
    async with world.source() as source:
        found = await source.lookup(EXAMPLE)
    assert found.policy is None
    assert not found.is_uncertain
    assert isinstance(found.record, NoRecord)
    assert world.fetches() == 0
    assert world.events == []


async def test_an_announced_policy_is_fetched_with_its_evidence(world: World) -> None:
    world.publish("id1", text("enforce", "mx.example.com"))
    async with world.source() as source:
        found = await source.lookup(EXAMPLE)
    week = timedelta(seconds=WEEK)
    policy = STSPolicy(STSMode.ENFORCE, week, (MXPattern(Domain("mx.example.com")),))
    now = world.clock.now()
    assert found == PolicyLookup(
        domain=EXAMPLE,
        held=CachedPolicy(EXAMPLE, policy, "id1", now),
        origin=Origin.FETCHED,
        expires=now + week,
        record=STSRecord("id1"),
    )
    assert found.policy == policy
    assert world.events == [PolicyFetched(EXAMPLE, "id1", STSMode.ENFORCE, week, changed=True)]


async def test_lines_that_no_host_can_match_are_told_and_the_rest_of_the_policy_holds(world: World) -> None:
    world.publish("id1", text("enforce", "mx.example.com") + b"mx: 192.0.2.86\n")
    async with world.source() as source:
        assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]
    (told,) = world.happened(PolicyLinesIgnored)
    assert told == PolicyLinesIgnored(EXAMPLE, "no host can match mx: '192.0.2.86'")


async def test_a_new_policy_without_a_line_that_a_host_can_match_leaves_the_older_one_in_force(world: World) -> None:
    world.publish("id1", text("enforce", "mx.example.com"))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.publish("id2", text("enforce", "192.0.2.86"))
        found = await source.lookup(EXAMPLE)
    assert names(found) == ["mx.example.com"]
    assert "no host can match mx: '192.0.2.86'" in found.error


async def test_it_is_fetched_once_and_then_held(world: World) -> None:
    world.publish("id1", text())
    async with world.source() as source:
        first = await source.lookup(EXAMPLE)
        await world.clock.advance(HOUR)
        second = await source.lookup(EXAMPLE)
    assert world.fetches() == 1
    assert second.origin is Origin.CACHE
    assert second.held == first.held
    assert second.expires == first.expires


async def test_the_record_is_looked_up_below_the_recipient_domain_and_its_cname_is_followed(world: World) -> None:
    # RFC 8461 3.1: the record may be a CNAME; the policy is nevertheless that of the recipient domain.
    world.resolver.answers["_mta-sts.example.com", "CNAME"] = Domain("_mta-sts.provider.example")
    world.resolver.answers["_mta-sts.provider.example", "TXT"] = b"v=STSv1; id=theirs;"
    world.serve(text())
    world.serve(text(mx="wrong.example"), Domain("provider.example"))
    async with world.source() as source:
        found = await source.lookup(EXAMPLE)
    assert names(found) == ["mx.example.com"]
    assert found.held is not None
    assert found.held.id == "theirs"


async def test_a_domain_too_long_for_a_record_has_no_policy(world: World) -> None:
    async with world.source() as source:
        for found in [await source.lookup(TOO_LONG), await source.lookup(TOO_LONG), await source.recheck_id(TOO_LONG)]:
            assert found.policy is None
            assert not found.is_uncertain
    assert world.resolver.lookups == []


async def test_a_policy_for_a_name_too_long_to_have_a_host_is_never_fetched() -> None:
    # Nobody can have fetched it: somebody has put it into the cache by hand.
    world = World(DurableStore())
    policy = STSPolicy(STSMode.ENFORCE, timedelta(days=1), (MXPattern(EXAMPLE),))
    await world.store.save(CachedPolicy(TOO_LONG, policy, "id1", world.clock.now()))
    async with world.source() as source:
        found = await source.refetch(TOO_LONG)
    assert "not a domain name" in found.error
    assert world.happened(PolicyFetchFailed)
    assert not world.hosts.fetches


async def test_nothing_is_waited_for_while_the_resolver_remembers_the_record(world: World) -> None:
    world.serve(text())
    world.resolver.answers["_mta-sts.example.com", "TXT"] = TableRow([b"v=STSv1; id=id1;"], ttl=HOUR)
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        await source.lookup(OTHER)
        tasks = len(asyncio.all_tasks())
        question = source.lookup(EXAMPLE)
        with pytest.raises(StopIteration) as answered:
            question.send(None)  # ends without having waited once
        assert answered.value.value.policy is not None
        assert len(asyncio.all_tasks()) == tasks
    assert world.asked() == 1


# --- Single flight ------------------------------------------------------------------------------


async def test_a_hundred_messages_to_a_new_domain_cause_one_fetch(world: World) -> None:
    world.publish("id1", text())
    async with world.source() as source:
        answers = await asyncio.gather(*(source.lookup(EXAMPLE) for _ in range(100)))
    assert all(names(found) == ["mx.example.com"] for found in answers)
    assert world.fetches() == 1
    assert world.asked() == 1


async def test_cancelling_who_asked_first_disturbs_nobody(world: World) -> None:
    world.publish("id1", text())
    world.hosts.gate.clear()
    async with world.source() as source:
        first, *others = [asyncio.create_task(source.lookup(EXAMPLE)) for _ in range(3)]
        await world.clock.advance(0)
        first.cancel()
        await world.clock.advance(0)
        world.hosts.gate.set()
        answers = await asyncio.gather(*others)
    assert first.cancelled()
    assert all(names(found) == ["mx.example.com"] for found in answers)
    assert world.fetches() == 1


async def test_when_all_who_asked_have_gone_the_next_one_asks_anew(world: World) -> None:
    world.publish("id1", text())
    world.hosts.gate.clear()
    async with world.source() as source:
        only = asyncio.create_task(source.lookup(EXAMPLE))
        await world.clock.advance(0)
        only.cancel()
        await world.clock.advance(0)
        assert world.hosts.under_way == 0
        world.hosts.gate.set()
        assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]


async def test_different_domains_do_not_wait_for_each_other(world: World) -> None:
    world.publish("id1", text())
    world.publish("id1", text(mx="mx.example.net"), OTHER)
    async with world.source() as source:
        world.hosts.gate.clear()
        slow = asyncio.create_task(source.lookup(EXAMPLE))
        await world.clock.advance(0)
        other = asyncio.create_task(source.lookup(OTHER))
        await world.clock.advance(0)
        assert world.hosts.under_way == 2
        world.hosts.gate.set()
        await asyncio.gather(slow, other)


async def test_closing_ends_what_is_under_way_and_leaves_nothing_behind(world: World) -> None:
    world.publish("id1", text())
    world.hosts.gate.clear()
    before = asyncio.all_tasks()
    async with world.source() as source:
        question = asyncio.create_task(source.lookup(EXAMPLE))
        await world.clock.advance(0)
    with pytest.raises(LocalError, match="closed"):
        await question
    assert asyncio.all_tasks() == before
    assert world.clock.pending == 0
    assert world.hosts.under_way == 0


async def test_a_source_that_was_never_opened_can_be_closed(world: World) -> None:
    await world.source().__aexit__()


async def test_a_bug_reaches_everybody_who_asked(world: World) -> None:
    world.publish("id1", text())
    world.hosts.bug = ZeroDivisionError()
    async with world.source() as source:
        answers = await asyncio.gather(*(source.lookup(EXAMPLE) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, ZeroDivisionError) for answer in answers)


# --- How long a policy holds --------------------------------------------------------------------


async def test_a_policy_holds_to_the_end_of_its_max_age_and_no_longer(world: World) -> None:
    world.publish("id1", text(max_age=HOUR - 600))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.block_host()
        await world.clock.advance(HOUR - 600)
        assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]
        await world.clock.advance(1)
        found = await source.lookup(EXAMPLE)
    assert found.policy is None
    assert found.is_uncertain
    assert "refused" in found.error


async def test_the_record_renews_nothing(world: World) -> None:
    world.publish("id1", text(max_age=1000))
    async with world.source() as source:
        expires = (await source.lookup(EXAMPLE)).expires
        for _ in range(9):
            await world.clock.advance(100)
            assert (await source.lookup(EXAMPLE)).expires == expires
        world.block_host()
        await world.clock.advance(101)
        assert (await source.lookup(EXAMPLE)).policy is None


async def test_an_expired_policy_is_fetched_again_under_the_same_id(world: World) -> None:
    world.publish("id1", text(max_age=1000))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        await world.clock.advance(1001)
        found = await source.lookup(EXAMPLE)
    assert found.origin is Origin.FETCHED
    assert world.fetches() == 2


async def test_a_max_age_of_zero_serves_those_who_waited_and_nobody_later(world: World) -> None:
    world.publish("id1", text(max_age=0))
    async with world.source() as source:
        answers = await asyncio.gather(*(source.lookup(EXAMPLE) for _ in range(3)))
        assert [names(found) for found in answers] == [["mx.example.com"]] * 3
        assert world.fetches() == 1
        await world.clock.advance(0.001)
        assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]
        assert world.fetches() == 2
        world.block_host()
        await world.clock.advance(0.001)
        assert (await source.lookup(EXAMPLE)).policy is None


@pytest.mark.parametrize("jump", [timedelta(days=400), timedelta(days=-400), timedelta(days=30_000)])
async def test_a_jump_of_the_wall_clock_neither_ends_nor_prolongs_a_policy(world: World, jump: timedelta) -> None:
    world.publish("id1", text(max_age=1000))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.block_host()
        world.clock.jump(jump)
        await world.clock.advance(999)
        found = await source.lookup(EXAMPLE)
        assert names(found) == ["mx.example.com"]
        assert found.expires == world.clock.now() + timedelta(seconds=1)
        world.clock.jump(-jump)
        await world.clock.advance(2)
        assert (await source.lookup(EXAMPLE)).policy is None


# --- New ids ------------------------------------------------------------------------------------


async def test_a_new_id_replaces_the_policy(world: World) -> None:
    world.publish("id1", text(mx="old.example.com"))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.publish("id2", text(mx="new.example.com"))
        found = await source.lookup(EXAMPLE)
    assert names(found) == ["new.example.com"]
    assert found.held is not None
    assert found.held.id == "id2"
    assert world.fetches() == 2


async def test_without_a_new_id_a_changed_file_goes_unseen(world: World) -> None:
    world.publish("id1", text(mx="old.example.com"))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.serve(text(mx="new.example.com"))
        assert names(await source.lookup(EXAMPLE)) == ["old.example.com"]


async def test_ids_have_no_order(world: World) -> None:
    world.publish("id9", text(mx="old.example.com"))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.publish("id1", text(mx="new.example.com"))
        assert names(await source.lookup(EXAMPLE)) == ["new.example.com"]


async def test_a_policy_is_taken_back_with_mode_none(world: World) -> None:
    # RFC 8461 8.3
    world.publish("id1", text("enforce"))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.publish("id2", text("none", max_age=DAY))
        found = await source.lookup(EXAMPLE)
        assert found.policy is None
        assert not found.is_uncertain
        assert found.held is not None
        assert found.held.policy.mode is STSMode.NONE
        world.strip_record()
        world.block_host()
        assert (await source.lookup(EXAMPLE)).policy is None


async def test_a_testing_policy_is_a_policy(world: World) -> None:
    world.publish("id1", text("testing"))
    async with world.source() as source:
        found = await source.lookup(EXAMPLE)
    assert found.policy is not None
    assert found.policy.mode is STSMode.TESTING


# --- Failures without a policy in force ---------------------------------------------------------

BROKEN_FILES = {
    "unreachable": (None, "connect", (TLSProblemKind.STS_FETCH_FAILED, "connect")),
    "malformed": (
        b"version: STSv1\n",
        "malformed-policy",
        (TLSProblemKind.STS_POLICY_INVALID, "", ("version: STSv1",)),
    ),
    "a web page": (b"<html>", "malformed-policy", (TLSProblemKind.STS_POLICY_INVALID, "", ("<html>",))),
}


@pytest.mark.parametrize(("body", "failure", "kind"), BROKEN_FILES.values(), ids=BROKEN_FILES)
async def test_an_announced_policy_that_cannot_be_had_is_as_none_and_said_so(
    world: World, body: bytes | None, failure: str, kind: tuple[TLSProblemKind, str]
) -> None:
    world.announce("id1")
    if body is not None:
        world.serve(body)
    async with world.source() as source:
        found = await source.lookup(EXAMPLE)
    assert found.policy is None
    assert found.is_uncertain
    assert found.error
    assert world.events == [PolicyFetchFailed(EXAMPLE, failure, problem(found.error, *kind), in_force=None)]


async def test_a_failed_fetch_is_not_repeated_for_five_minutes(world: World) -> None:
    world.announce("id1")
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.serve(text())
        for _ in range(3):
            await world.clock.advance(RETRY_AFTER / 3 - 1)
            found = await source.lookup(EXAMPLE)
            assert found.policy is None
            assert found.is_uncertain
        world.announce("id2")
        await source.lookup(EXAMPLE)
        await source.recheck_id(EXAMPLE)
        assert world.fetches() == 1
        await world.clock.advance(3)
        assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]
    assert world.fetches() == 2


async def test_a_failure_is_forgotten_once_made_good(world: World) -> None:
    world.announce("id1")
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.serve(text())
        await world.clock.advance(RETRY_AFTER)
        assert (await source.lookup(EXAMPLE)).error == ""
        assert (await source.lookup(EXAMPLE)).error == ""


async def test_a_domain_that_withdraws_its_record_after_a_failed_fetch_is_certain_to_have_no_policy(
    world: World,
) -> None:
    world.announce("id1")
    async with world.source() as source:
        assert (await source.lookup(EXAMPLE)).is_uncertain
        world.strip_record()
        assert not (await source.lookup(EXAMPLE)).is_uncertain


async def test_dns_failing_is_as_no_policy_and_said_so(world: World) -> None:
    world.break_dns()
    world.serve(text())
    async with world.source() as source:
        found = await source.lookup(EXAMPLE)
        assert found.policy is None
        assert found.record is None
        assert found.is_uncertain
        assert world.events == [RecordLookupFailed(EXAMPLE, found.error, in_force=None)]
        assert "SERVFAIL" in found.error
        world.announce("id1")
        assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]  # at once: nothing protects the mail meanwhile
    assert world.fetches() == 1


async def test_a_malformed_record_is_said_once(world: World) -> None:
    world.say("v=STSv1; id=not an id;")
    world.serve(text())
    async with world.source() as source:
        for _ in range(3):
            assert (await source.lookup(EXAMPLE)).policy is None
        assert len(world.happened(RecordUnusable)) == 1
        world.say("v=STSv1;")
        await source.lookup(EXAMPLE)
    assert len(world.happened(RecordUnusable)) == 2
    assert world.fetches() == 0


# --- Attacks: a policy is in force --------------------------------------------------------------


def strip(world: World) -> None:
    world.strip_record()


def break_dns(world: World) -> None:
    world.break_dns()


def spoil_record(world: World) -> None:
    world.say("v=STSv1; id=;")


def two_records(world: World) -> None:
    records = [b"v=STSv1; id=id1;", b"v=STSv1; id=id2;"]
    world.resolver.answers["_mta-sts.example.com", "TXT"] = TableRow(records, ttl=0)


def block(world: World) -> None:
    world.announce("id2")
    world.block_host()


def spoil_policy(world: World) -> None:
    world.publish("id2", b"version: STSv1\nmode: none\n")


def everything(world: World) -> None:
    world.break_dns()
    world.block_host()


ATTACKS = {
    "TXT record stripped": (strip, RecordUnusable),
    "TXT record malformed": (spoil_record, RecordUnusable),
    "a second TXT record added": (two_records, RecordUnusable),
    "DNS broken": (break_dns, RecordLookupFailed),
    "new id, policy host blocked": (block, PolicyFetchFailed),
    "new id, malformed policy": (spoil_policy, PolicyFetchFailed),
    "DNS broken, policy host blocked": (everything, RecordLookupFailed),
}


@pytest.mark.parametrize(("attack", "event"), ATTACKS.values(), ids=ATTACKS)
async def test_an_unexpired_policy_stays_in_force_and_the_attack_is_told(
    world: World, attack: Callable[[World], None], event: type[RecordUnusable | RecordLookupFailed | PolicyFetchFailed]
) -> None:
    world.publish("id1", text(max_age=10 * DAY))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.events.clear()
        attack(world)
        for day in range(10):
            found = await source.lookup(EXAMPLE)
            assert names(found) == ["mx.example.com"], f"day {day}"
            assert not found.is_uncertain
            await world.clock.advance(DAY - 1 if day == 9 else DAY)
            if day == 0:
                assert world.happened(event)[0].in_force is STSMode.ENFORCE


async def test_a_stripped_record_is_told_once_until_it_is_back(world: World) -> None:
    world.publish("id1", text())
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        for _ in range(2):
            world.strip_record()
            for _ in range(3):
                await source.lookup(EXAMPLE)
            world.announce("id1")
            await source.lookup(EXAMPLE)
    assert len(world.happened(RecordUnusable)) == 2


async def test_with_a_policy_in_force_nothing_is_waited_for_while_dns_is_not_to_be_asked(world: World) -> None:
    world.publish("id1", text())
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        assert source.peek(EXAMPLE) is None  # the record is not at hand: DNS is to be asked
        world.break_dns()
        await source.lookup(EXAMPLE)
        found = source.peek(EXAMPLE)
        assert found is not None
        assert names(found) == ["mx.example.com"]
        assert "SERVFAIL" in found.error


async def test_a_new_id_at_hand_is_not_answered_without_fetching(world: World) -> None:
    world.serve(text())
    world.resolver.answers["_mta-sts.example.com", "TXT"] = TableRow([b"v=STSv1; id=id1;"], ttl=1)
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        assert source.peek(EXAMPLE) is not None
        await world.clock.advance(2)
        world.resolver.answers["_mta-sts.example.com", "TXT"] = TableRow([b"v=STSv1; id=id2;"], ttl=HOUR)
        await world.resolver.lookup(Domain("_mta-sts.example.com"), RecordType.TXT)
        assert source.peek(EXAMPLE) is None
        assert (await source.lookup(EXAMPLE)).origin is Origin.FETCHED


async def test_with_a_policy_in_force_mail_does_not_wait_for_a_silent_dns_again_and_again(world: World) -> None:
    world.publish("id1", text())
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.break_dns()
        for _ in range(5):
            assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]
        assert world.asked() == 2
        await world.clock.advance(RELOAD_AFTER + 1)
        await source.lookup(EXAMPLE)
        assert world.asked() == 2
        await world.clock.advance(RETRY_AFTER)
        await source.lookup(EXAMPLE)
        assert world.asked() == 3
        world.announce("id1")
        await source.recheck_id(EXAMPLE)
        found = await source.lookup(EXAMPLE)
        assert found.error == ""
        assert found.record == STSRecord("id1")


async def test_once_the_policy_has_expired_a_silent_dns_is_asked_each_time(world: World) -> None:
    world.publish("id1", text(max_age=100))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.break_dns()
        await source.lookup(EXAMPLE)
        await world.clock.advance(101)
        asked = world.asked()
        await source.lookup(EXAMPLE)
        await source.lookup(EXAMPLE)
        assert world.asked() == asked + 2


# --- refetch: before a mismatch refuses ---------------------------------------------------------


async def test_refetch_sees_a_file_that_changed_under_its_id(world: World) -> None:
    world.publish("id1", text(mx="old.example.com"))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.serve(text(mx="new.example.com"))
        found = await source.refetch(EXAMPLE)
        assert names(found) == ["new.example.com"]
        assert found.origin is Origin.FETCHED
        assert names(await source.lookup(EXAMPLE)) == ["new.example.com"]


async def test_refetch_works_without_any_record(world: World) -> None:
    world.publish("id1", text(mx="old.example.com"))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.strip_record()
        world.serve(text(mx="new.example.com"))
        found = await source.refetch(EXAMPLE)
    assert names(found) == ["new.example.com"]
    assert found.held is not None
    assert found.held.id == "id1"


async def test_refetch_takes_the_id_that_is_announced_now(world: World) -> None:
    world.serve(text())
    world.resolver.answers["_mta-sts.example.com", "TXT"] = TableRow([b"v=STSv1; id=id1;"], ttl=5)
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        await world.clock.advance(10)
        world.resolver.answers["_mta-sts.example.com", "TXT"] = TableRow([b"v=STSv1; id=id2;"], ttl=HOUR)
        await world.resolver.lookup(Domain("_mta-sts.example.com"), RecordType.TXT)
        found = await source.refetch(EXAMPLE)
        assert found.held is not None
        assert found.held.id == "id2"


async def test_a_refetch_that_fails_leaves_the_policy_and_is_not_repeated_at_once(world: World) -> None:
    world.publish("id1", text())
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.block_host()
        found = await source.refetch(EXAMPLE)
        assert names(found) == ["mx.example.com"]
        assert found.origin is Origin.CACHE
        assert "refused" in found.error
        await source.refetch(EXAMPLE)
        assert world.fetches() == 2
        await world.clock.advance(RETRY_AFTER)
        await source.refetch(EXAMPLE)
        assert world.fetches() == 3


async def test_what_was_fetched_during_the_attempt_is_not_fetched_again(world: World) -> None:
    world.publish("id1", text())
    async with world.source() as source:
        begun = world.clock.monotonic()
        await world.clock.advance(1)
        await source.lookup(EXAMPLE)
        await world.clock.advance(1)
        assert names(await source.refetch(EXAMPLE, since=begun)) == ["mx.example.com"]
        assert world.fetches() == 1
        begun = world.clock.monotonic()
        await source.refetch(EXAMPLE, since=begun)
        assert world.fetches() == 2
        await source.refetch(EXAMPLE, since=begun)
        assert world.fetches() == 2


async def test_a_hundred_mismatches_at_once_cause_one_fetch(world: World) -> None:
    world.publish("id1", text())
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        await asyncio.gather(*(source.refetch(EXAMPLE) for _ in range(100)))
    assert world.fetches() == 2


async def test_refetch_without_a_policy_is_a_lookup(world: World) -> None:
    world.publish("id1", text())
    async with world.source() as source:
        assert (await source.refetch(OTHER)).policy is None
        assert names(await source.refetch(EXAMPLE)) == ["mx.example.com"]
    assert world.fetches() == 1


# --- recheck_id: after a TLS failure, before a message is given up ------------------------------


async def test_recheck_id_asks_dns_and_takes_a_new_policy(world: World) -> None:
    world.publish("id1", text(mx="old.example.com"))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        asked = world.asked()
        assert names(await source.recheck_id(EXAMPLE)) == ["old.example.com"]
        assert (world.asked(), world.fetches()) == (asked + 1, 1)
        world.publish("id2", text(mx="new.example.com"))
        assert names(await source.recheck_id(EXAMPLE)) == ["new.example.com"]


async def test_recheck_id_asks_dns_though_the_record_is_still_in_the_resolvers_cache(world: World) -> None:
    world.publish("id1", text(mx="old.example.com"))
    world.resolver.answers["_mta-sts.example.com", "TXT"] = TableRow([b"v=STSv1; id=id1;"], ttl=HOUR)
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.publish("id2", text(mx="new.example.com"))
        assert names(await source.lookup(EXAMPLE)) == ["old.example.com"]
        assert names(await source.recheck_id(EXAMPLE)) == ["new.example.com"]
        assert names(await source.lookup(EXAMPLE)) == ["new.example.com"]


async def test_recheck_id_does_not_mind_that_dns_failed_a_moment_ago(world: World) -> None:
    world.publish("id1", text(mx="old.example.com"))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.break_dns()
        await source.lookup(EXAMPLE)
        world.publish("id2", text(mx="new.example.com"))
        assert names(await source.recheck_id(EXAMPLE)) == ["new.example.com"]


# --- The store ----------------------------------------------------------------------------------


async def test_policies_survive_a_restart() -> None:
    world = World(DurableStore())
    world.publish("id1", text(max_age=1000))
    async with world.source() as source:
        before = await source.lookup(EXAMPLE)
    world.strip_record()
    world.block_host()
    await world.clock.advance(500)
    async with world.source() as source:
        found = await source.lookup(EXAMPLE)
        assert found.held == before.held
        assert found.expires == before.expires
        assert found.origin is Origin.CACHE
        await world.clock.advance(501)
        assert (await source.lookup(EXAMPLE)).policy is None


async def test_a_policy_that_expired_while_we_were_down_is_not_revived() -> None:
    world = World(DurableStore())
    world.publish("id1", text(max_age=1000))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
    world.block_host()
    await world.clock.advance(1001)
    async with world.source() as source:
        assert (await source.lookup(EXAMPLE)).policy is None


async def test_a_stamp_from_the_future_does_not_prolong_a_policy() -> None:
    store = DurableStore()
    world = World(store)
    world.clock.jump(timedelta(days=3650))  # the clock is ten years ahead while the policy is fetched
    world.publish("id1", text(max_age=10 * DAY))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
    world.clock.jump(timedelta(days=-3650))
    world.block_host()
    for day in range(10):  # a restart every day
        async with world.source() as source:
            assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"], f"day {day}"
        await world.clock.advance(DAY)
    await world.clock.advance(1)
    async with world.source() as source:
        assert (await source.lookup(EXAMPLE)).policy is None


async def test_a_clock_that_starts_in_1970_loses_no_policy() -> None:
    world = World(DurableStore())
    world.publish("id1", text(max_age=10 * DAY))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
    world.block_host()
    back = world.clock.now() - world.clock.now().replace(year=1970)
    for _ in range(2):  # two restarts, each in 1970 until the time server is reached
        world.clock.jump(-back)
        async with world.source() as source:
            assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]
            world.clock.jump(back)
            assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]
        await world.clock.advance(DAY)
    async with world.source() as source:
        assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]
        await world.clock.advance(8 * DAY + 1)
        assert (await source.lookup(EXAMPLE)).policy is None


async def test_what_another_process_has_fetched_is_seen_within_a_minute() -> None:
    world = World(DurableStore())
    world.publish("id1", text(mx="old.example.com"))
    async with world.source() as ours, world.source() as theirs:
        await ours.lookup(EXAMPLE)
        world.publish("id2", text(mx="new.example.com"))
        await world.clock.advance(10)
        await theirs.lookup(EXAMPLE)
        world.strip_record()
        world.block_host()
        assert names(await ours.lookup(EXAMPLE)) == ["old.example.com"]
        await world.clock.advance(RELOAD_AFTER + 1)
        assert names(await ours.lookup(EXAMPLE)) == ["new.example.com"]


async def test_a_policy_that_another_process_knows_protects_us_too() -> None:
    world = World(DurableStore())
    async with world.source() as ours, world.source() as theirs:
        assert (await ours.lookup(EXAMPLE)).policy is None
        world.publish("id1", text())
        await theirs.lookup(EXAMPLE)
        world.strip_record()
        await world.clock.advance(RELOAD_AFTER + 1)
        assert names(await ours.lookup(EXAMPLE)) == ["mx.example.com"]


async def test_what_another_process_has_fetched_since_makes_our_failure_good() -> None:
    world = World(DurableStore())
    world.publish("id1", text("testing"))
    async with world.source() as ours, world.source() as theirs:
        await ours.lookup(EXAMPLE)
        world.announce("id2")
        world.block_host()
        assert (await ours.lookup(EXAMPLE)).error
        await world.clock.advance(10)
        world.serve(text("enforce"))
        await theirs.lookup(EXAMPLE)
        await world.clock.advance(RELOAD_AFTER + 1)
        found = await ours.lookup(EXAMPLE)
        assert (found.policy and found.policy.mode, found.error) == (STSMode.ENFORCE, "")


async def test_what_another_process_had_fetched_before_does_not() -> None:
    world = World(DurableStore())
    async with world.source() as ours, world.source() as theirs:
        assert (await ours.lookup(EXAMPLE)).held is None
        world.publish("id1", text("testing"))
        await theirs.lookup(EXAMPLE)
        await world.clock.advance(10)
        world.announce("id2")
        world.block_host()
        assert (await ours.lookup(EXAMPLE)).error
        await world.clock.advance(RELOAD_AFTER + 1)
        found = await ours.lookup(EXAMPLE)
        assert (found.policy and found.policy.mode, bool(found.error)) == (STSMode.TESTING, True)


async def test_a_store_that_has_lost_a_policy_gets_it_back() -> None:
    store = DurableStore()
    world = World(store)
    world.publish("id1", text())
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        kept = store.files.copy()
        store.files.clear()
        await world.clock.advance(RELOAD_AFTER + 1)
        assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]
    assert store.files == kept


async def test_an_entry_that_has_ended_is_not_revived_by_turning_the_clock_back() -> None:
    world = World(DurableStore())
    world.publish("id1", text(max_age=1000))
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.block_host()
        await world.clock.advance(1001)
        world.clock.jump(timedelta(seconds=-900))
        assert (await source.lookup(EXAMPLE)).policy is None


async def test_strangers_with_huge_policies_push_out_nobodys_policy_in_force(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailrider.policy.sts.source.MAX_MEMORY", 1 << 20)  # octets
    huge = text() + b"".join(b"mx: m%d.x.test\n" % number for number in range(380))
    world.publish("id1", text())
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        for number in range(40):
            domain = Domain(f"d{number}.evil.test")
            world.publish("id1", huge, domain)
            assert (await source.lookup(domain)).policy is not None
        world.block_host()
        world.strip_record()
        await world.clock.advance(RELOAD_AFTER + 1)
        assert names(await source.lookup(EXAMPLE)) == ["mx.example.com"]
        assert 0 < kept(source, PolicyMemory) < 15


async def test_memory_stays_bounded_with_any_number_of_domains(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrider.policy.sts.source.MAX_MEMORY", 10 * 512)  # octets
    async with world.source() as source:
        for number in range(30):
            await source.lookup(Domain(f"d{number}.example"))
        assert kept(source, PolicyMemory) == 10
