"""What every store does: these tests are for any `Store`, and run on each that we have."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.model.envelope import Notify, OriginalRecipient, Ret
from mailrider.queue.fairness import BY_DOMAIN, jobs_of
from mailrider.queue.message import (
    EVERYTHING,
    Change,
    Filter,
    NewState,
    Progress,
    Quota,
    RecipientState,
    Settlement,
    Wish,
)
from mailrider.queue.sqlite.owner import Identity
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.store import IdTaken, QueueCommand
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from mailrider.testing.store import MemoryStore, SharedState
from tests.support.queueing import BUSY, HOUR, MESSAGE, Writing, chunked, deferred, envelope, recipient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mailrider.queue.message import LeasedJob
    from mailrider.queue.store import Store

NET = "example.net"
DEAD = Identity("another boot", "", 1, "")


class World:
    """A place for messages that several processes open."""

    def __init__(self, kind: str, path: Path) -> None:
        self.clock = FakeClock()
        self.writing = Writing(self.clock)
        self._kind, self._path, self._shared = kind, path, SharedState()

    def store(self, identity: Identity | None = None) -> Store:
        if self._kind == "memory":
            return MemoryStore(self._shared)
        return SQLiteStore(self._path, self.clock, identity=identity)

    @asynccontextmanager
    async def died_with(self, *, jobs: int) -> AsyncIterator[None]:
        """Inside, a process that leased so many jobs has died without a word."""
        store = self.store(DEAD)
        async with store:
            for _ in range(jobs):
                await store.add(self.writing.message(f"b@{NET}"), leased=True)
            if isinstance(store, MemoryStore):
                self._shared.alive.discard(store.lease)
            yield

    @property
    def now(self) -> Any:
        return self.clock.now()

    @property
    def message(self) -> Any:
        return self.writing.message


@pytest.fixture(params=["memory", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(request.param, tmp_path / "queue")


@pytest.fixture
async def store(world: World) -> AsyncIterator[Store]:
    async with world.store() as opened:
        yield opened


async def claim(world: World, store: Store, destination: str = NET, jobs: int = 100) -> list[LeasedJob]:
    return (await store.claim([Quota(destination, jobs)], world.now)).jobs


def done(world: World, job: LeasedJob) -> Settlement:
    return Settlement(job, tuple(Change(id, NewState.DONE) for id in job.ids), world.now)


def later(world: World, job: LeasedJob, after: timedelta = HOUR, **progress: Any) -> Settlement:
    changes = tuple(
        Change(id, NewState.QUEUED, world.now + after, Progress(1, last=BUSY, **progress), deferred(who))
        for id, who in zip(job.ids, job.envelope.recipients, strict=True)
    )
    return Settlement(job, changes, world.now)


async def states(store: Store) -> list[RecipientState]:
    return [entry.state for entry in await store.page(EVERYTHING, 0, 1000)]


# --- Adding and claiming -------------------------------------------------------------------------


async def test_what_was_added_can_be_claimed_with_everything_that_was_known_of_it(world: World, store: Store) -> None:
    who = recipient(
        f"b@{NET}", notify=Notify.FAILURE | Notify.DELAY, original=OriginalRecipient("rfc822", "x@y.example")
    )
    given = world.message(
        who, smtputf8=True, requiretls=True, quarantined=True, ret=Ret.HEADERS, envid="env", client="192.0.2.9"
    )
    await store.add(given, leased=False)
    (job,) = await claim(world, store)
    assert job.envelope == given.envelope
    assert job.message_id == given.id
    assert job.ids == (given.id + 1,)
    assert job.created == given.created
    assert job.info == given.info
    assert job.lease == store.lease
    assert job.progress == (Progress(),)
    content = await store.content(job)
    assert b"".join(content.chunks()) == MESSAGE
    assert (content.size, content.eight_bit, content.header_size) == (
        given.info.size,
        given.info.eight_bit,
        given.info.header_size,
    )


async def test_a_message_with_an_id_that_is_there_is_refused_and_changes_nothing(world: World, store: Store) -> None:
    first = world.message(f"b@{NET}", f"c@{NET}")
    await store.add(first, leased=False)
    for taken in (first.id, first.id + 1):
        with pytest.raises(IdTaken):
            await store.add(replace(world.message(f"d@{NET}"), id=taken), leased=False)
    assert [entry.recipient for entry in await store.page(EVERYTHING, 0, 10)] == [f"b@{NET}", f"c@{NET}"]
    assert (await store.stats(world.now, 1)).messages == 1


async def test_a_notification_with_an_id_that_is_there_is_refused_and_nothing_is_settled(
    world: World, store: Store
) -> None:
    other = world.message("x@example.com")
    for each in (other, world.message(f"b@{NET}")):
        await store.add(each, leased=False)
    (job,) = await claim(world, store)
    taken = replace(world.message("c@example.com"), id=other.id)
    with pytest.raises(IdTaken):
        await store.settle(replace(done(world, job), notifications=(taken,)))
    assert (await store.settle(done(world, job))).held


async def test_messages_whose_ids_overlap_keep_their_recipients_apart(world: World, store: Store) -> None:
    first = world.message(f"b@{NET}", "c@example.com")
    await store.add(first, leased=False)
    (second_recipient,) = await claim(world, store, "example.com")
    await store.settle(done(world, second_recipient))
    # Another place gave out the id behind that of the first message; its recipient has the id that was c's.
    second = replace(world.message(f"d@{NET}"), id=first.id + 1)
    await store.add(second, leased=False)
    found = {each.id: await store.find(each.id) for each in (first, second)}
    assert [[entry.recipient for entry in each.entries] for each in found.values() if each is not None] == [
        [f"b@{NET}"],
        [f"d@{NET}"],
    ]
    jobs = {job.message_id: job for job in await claim(world, store)}
    assert [jobs[each.id].ids for each in (first, second)] == [(first.id + 1,), (second.id + 1,)]
    await store.settle(done(world, jobs[first.id]))
    assert await store.octets(first.id) is None
    assert await store.octets(second.id) == MESSAGE


async def test_what_is_given_back_is_only_what_belongs_to_the_message(world: World, store: Store) -> None:
    first = world.message(f"b@{NET}")
    await store.add(first, leased=True)
    (other,) = jobs_of(replace(first, id=first.id - 1, envelope=envelope("x@x.example", "y@x.example")), BY_DOMAIN, 1)
    await store.give_back([replace(other, lease=store.lease)])
    assert await states(store) == [RecipientState.LEASED]


async def test_a_store_knows_the_largest_id_that_it_holds_when_it_is_opened(world: World) -> None:
    async with world.store() as store:
        assert store.last_id == 0
        given = world.message("b@example.com", f"c@{NET}")
        await store.add(given, leased=False)
    async with world.store() as store:
        assert store.last_id == given.id + 2


async def test_a_null_reverse_path_and_a_recipient_without_domain_survive(world: World, store: Store) -> None:
    await store.add(world.message("postmaster", sender=""), leased=False)
    (job,) = await claim(world, store, "")
    assert job.envelope.sender.is_null
    assert str(job.envelope.recipients[0]) == "postmaster"


async def test_a_message_is_split_into_a_job_for_each_destination(world: World, store: Store) -> None:
    given = world.message(f"b@{NET}", "c@example.com", f"d@{NET}")
    await store.add(given, leased=False)
    jobs = (await store.claim([Quota(NET, 10), Quota("example.com", 10)], world.now)).jobs
    assert [(job.destination, [str(each) for each in job.envelope.recipients]) for job in jobs] == [
        (NET, [f"b@{NET}", f"d@{NET}"]),
        ("example.com", ["c@example.com"]),
    ]
    assert [job.ids for job in jobs] == [(given.id + 1, given.id + 3), (given.id + 2,)]


async def test_a_job_is_never_cut_by_the_quota(world: World, store: Store) -> None:
    await store.add(world.message(*(f"b{number}@{NET}" for number in range(50))), leased=False)
    (job,) = await claim(world, store, jobs=1)
    assert len(job.ids) == 50


async def test_a_quota_bounds_each_destination_by_itself(world: World, store: Store) -> None:
    for _ in range(5):
        await store.add(world.message(f"b@{NET}"), leased=False)
        await store.add(world.message("c@example.com"), leased=False)
    jobs = (await store.claim([Quota(NET, 2), Quota("example.com", 3)], world.now)).jobs
    assert sorted(job.destination for job in jobs) == ["example.com"] * 3 + [NET] * 2


async def test_what_is_leased_is_not_claimed_again(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}"), leased=False)
    assert len(await claim(world, store)) == 1
    assert await claim(world, store) == []


async def test_a_message_can_be_leased_from_the_beginning(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}"), leased=True)
    assert await claim(world, store) == []
    assert await states(store) == [RecipientState.LEASED]


async def test_only_what_is_due_is_claimed_the_longest_due_first(world: World, store: Store) -> None:
    for minutes in (30, 10, 20):
        created = world.now + timedelta(minutes=minutes)
        await store.add(world.message(f"b@{NET}", created=created), leased=False)
    start = world.now
    await world.clock.advance(25 * 60)
    jobs = await claim(world, store, jobs=1) + await claim(world, store, jobs=1)
    assert [(job.created - start) / timedelta(minutes=1) for job in jobs] == [10, 20]
    assert await claim(world, store) == []


async def test_nothing_is_claimed_for_no_quota(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}"), leased=False)
    assert (await store.claim([], world.now)).jobs == []
    assert await claim(world, store, "elsewhere.example") == []


# --- Settling ------------------------------------------------------------------------------------


async def test_nothing_remains_of_a_message_whose_recipients_are_all_done(world: World, store: Store) -> None:
    given = world.message(f"b@{NET}", "c@example.com")
    await store.add(given, leased=False)
    for job in (await store.claim([Quota(NET, 1), Quota("example.com", 1)], world.now)).jobs:
        assert await store.find(given.id) is not None
        assert (await store.settle(done(world, job))).held
    assert await store.find(given.id) is None
    assert (await store.stats(world.now, 10)).messages == 0


async def test_a_deferred_recipient_is_due_again_at_its_time_with_its_progress_and_history(
    world: World, store: Store
) -> None:
    given = world.message(f"b@{NET}", f"c@{NET}")
    await store.add(given, leased=False)
    (job,) = await claim(world, store)
    first = Change(job.ids[0], NewState.DONE)
    second = later(world, job, in_doubt=True, warned=True).changes[1]
    assert (await store.settle(Settlement(job, (first, second), world.now))).held
    await world.clock.advance(3599)
    assert await claim(world, store) == []
    await world.clock.advance(1)
    (job,) = await claim(world, store)
    assert [str(each) for each in job.envelope.recipients] == [f"c@{NET}"]
    assert job.progress == (Progress(1, warned=True, in_doubt=True, last=BUSY),)
    stored = await store.find(given.id)
    assert stored is not None
    (attempt,) = stored.attempts[job.ids[0]]
    assert attempt.evidence["text"] == BUSY.text
    assert attempt.at == world.now - HOUR


async def test_recipients_of_one_job_may_come_apart(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}", f"c@{NET}"), leased=False)
    (job,) = await claim(world, store)
    changes = (later(world, job).changes[0], later(world, job, 2 * HOUR).changes[1])
    await store.settle(Settlement(job, changes, world.now))
    await world.clock.advance(3600)
    (first,) = await claim(world, store)
    await world.clock.advance(3600)
    (second,) = await claim(world, store)
    assert first.ids + second.ids == job.ids


async def test_notifications_are_queued_with_the_state_that_they_tell_of(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}"), leased=False)
    (job,) = await claim(world, store)
    notification = world.message("a@example.org", sender="", route="bounce")
    settlement = Settlement(job, done(world, job).changes, world.now, (notification,))
    assert (await store.settle(settlement)).held
    (bounce,) = await claim(world, store, "bounce/example.org")
    assert bounce.route == "bounce"
    assert bounce.envelope == notification.envelope


async def test_a_job_that_was_given_back_is_due_as_before(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}"), leased=False)
    jobs = await claim(world, store)
    await store.give_back(jobs)
    (job,) = await claim(world, store)
    assert job.progress == (Progress(),)


# --- Leases --------------------------------------------------------------------------------------


async def test_two_processes_never_lease_the_same(world: World, store: Store) -> None:
    for _ in range(10):
        await store.add(world.message(f"b@{NET}"), leased=False)
    async with world.store() as other:
        mine, theirs = await claim(world, store, jobs=6), await claim(world, other, jobs=6)
    assert len(mine) == 6
    assert len(theirs) == 4
    assert {job.message_id for job in mine}.isdisjoint(job.message_id for job in theirs)


async def test_a_process_that_leaves_gives_its_leases_back(world: World, store: Store) -> None:
    async with world.store() as other:
        await other.add(world.message(f"b@{NET}"), leased=True)
        assert await claim(world, store) == []
    assert len(await claim(world, store)) == 1


async def test_leases_of_a_dead_process_are_free_when_the_store_is_opened(world: World) -> None:
    async with world.died_with(jobs=3), world.store() as store:
        assert store.recovered == 3
        assert len(await claim(world, store)) == 3


async def test_leases_of_a_process_that_dies_become_free_while_the_store_is_open(world: World, store: Store) -> None:
    async with world.died_with(jobs=2):
        assert await claim(world, store) == []
        assert await store.keep_alive(world.now) == 2
        assert len(await claim(world, store)) == 2


async def test_leases_of_a_living_process_are_kept_whatever_the_clock_says(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}"), leased=True)
    world.clock.jump(timedelta(days=365))
    async with world.store() as other:
        assert other.recovered == 0
        assert await other.keep_alive(world.now) == 0
        assert await claim(world, other) == []


async def test_a_lost_lease_settles_nothing(world: World) -> None:
    async with world.died_with(jobs=0):
        first = world.store(DEAD)
        async with first:
            await first.add(world.message(f"b@{NET}"), leased=False)
            (job,) = await claim(world, first)
            if isinstance(first, MemoryStore):
                first.shared.alive.discard(first.lease)
            async with world.store() as second:
                (again,) = await claim(world, second)
                assert not (await first.settle(done(world, job))).held
                assert len(await states(second)) == 1
                assert (await second.settle(done(world, again))).held


async def test_what_was_settled_cannot_be_settled_again(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}"), leased=False)
    (job,) = await claim(world, store)
    assert (await store.settle(done(world, job))).held
    assert not (await store.settle(done(world, job))).held


# --- Large content -------------------------------------------------------------------------------

LARGE = MESSAGE + b"x" * 70_000 + b"\r\n" + b"y" * 200_000 + b"\r\n"


async def test_large_content_is_written_before_its_message_and_read_in_chunks(world: World, store: Store) -> None:
    stored = await store.write_content(chunked(LARGE[:100_000], LARGE[100_000:]))
    await store.add(world.message(f"b@{NET}", octets=LARGE, stored=stored), leased=False)
    (job,) = await claim(world, store)
    content = await store.content(job)
    for _ in range(2):  # once for each transaction that it is sent in
        pieces = [bytes(each) async for each in content.pieces()]
        assert b"".join(pieces) == LARGE
    assert max(map(len, pieces)) <= 65536
    assert content.size == len(LARGE)
    assert content.is_awaited
    assert content.header == Content.inspect(LARGE).header
    assert await store.octets(job.message_id) == LARGE


async def test_contents_get_ids_of_their_own(world: World, store: Store) -> None:
    assert await store.write_content(chunked(b"one\r\n")) != await store.write_content(chunked(b"two\r\n"))


async def test_content_of_nothing_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="no content"):
        await store.write_content(chunked())


# --- Older ---------------------------------------------------------------------------------------


async def test_jobs_of_old_messages_are_claimed_whether_due_or_not(world: World, store: Store) -> None:
    old = world.message(f"b@{NET}")
    await store.add(old, leased=False)
    (job,) = await claim(world, store)
    await store.settle(later(world, job, 100 * HOUR))
    await world.clock.advance(3600)
    await store.add(world.message(f"c@{NET}"), leased=False)
    (found,) = await store.claim_older(world.now - timedelta(minutes=30), 10)
    assert found.message_id == old.id
    assert await store.claim_older(world.now - timedelta(minutes=30), 10) == []


async def test_jobs_whose_sender_was_told_of_the_delay_are_left_out(world: World, store: Store) -> None:
    for warned in (True, False):
        await store.add(world.message(f"b@{NET}"), leased=False)
        (job,) = await claim(world, store)
        await store.settle(later(world, job, warned=warned))
    await world.clock.advance(60)
    (found,) = await store.claim_older(world.now, 10, unwarned=True)
    assert found.progress[0].warned is False


# --- Looking into it -----------------------------------------------------------------------------


async def test_a_claim_says_when_the_next_is_due(world: World, store: Store) -> None:
    for name, hours in ((NET, 0), (NET, 0), (NET, 3), (NET, 2), ("example.com", 0)):
        await store.add(world.message(f"x@{name}", created=world.now + hours * HOUR), leased=False)
    quotas = [Quota(NET, 1), Quota("example.com", 1), Quota("elsewhere.example", 1)]
    claimed = await store.claim(quotas, world.now)
    assert len(claimed.jobs) == 2
    assert claimed.left == {NET: world.now}
    claimed = await store.claim(quotas, world.now)
    assert len(claimed.jobs) == 1
    assert claimed.left == {NET: world.now + 2 * HOUR}


async def test_a_claim_brings_contents_as_far_as_there_is_room_for_them(world: World, store: Store) -> None:
    for _ in range(3):
        await store.add(world.message(f"x@{NET}"), leased=False)
    claimed = await store.claim([Quota(NET, 3)], world.now, 2 * len(MESSAGE) + 1)
    given = [None if job.content is None else b"".join(job.content.chunks()) for job in claimed.jobs]
    assert given == [MESSAGE, MESSAGE, None]


async def test_a_large_content_stays_in_the_store(world: World, store: Store) -> None:
    stored = await store.write_content(chunked(MESSAGE))
    await store.add(world.message(f"x@{NET}", stored=stored), leased=False)
    (job,) = (await store.claim([Quota(NET, 1)], world.now, 1_000_000)).jobs
    assert job.content is None


async def test_a_settlement_says_what_operators_wished(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}", f"c@{NET}"), leased=False)
    (job,) = await claim(world, store)
    await store.command(QueueCommand.HOLD, Filter(recipient="c@"), world.now)
    assert (await store.settle(later(world, job))).wishes == {job.ids[1]: Wish.HOLD}


async def test_destinations_are_listed_with_the_first_due_moment(world: World, store: Store) -> None:
    for number, name in enumerate(("b.example", "a.example", "c.example", "a.example")):
        await store.add(world.message(f"x@{name}", created=world.now + number * HOUR), leased=False)
    found = await store.destinations(None, 10)
    assert [(each.destination, (each.due - world.now) // HOUR) for each in found] == [
        ("a.example", 1),
        ("b.example", 0),
        ("c.example", 2),
    ]
    assert [each.destination for each in await store.destinations(None, 2)] == ["a.example", "b.example"]
    assert [each.destination for each in await store.destinations("a.example", 1)] == ["b.example"]
    assert await store.destinations("c.example", 10) == []


async def test_pages_follow_each_other_without_gaps(world: World, store: Store) -> None:
    for number in range(7):
        await store.add(world.message(f"b{number}@{NET}"), leased=False)
    seen: list[str] = []
    after = 0
    while page := await store.page(EVERYTHING, after, 3):
        seen += [entry.recipient for entry in page]
        after = page[-1].recipient_id
    assert seen == [f"b{number}@{NET}" for number in range(7)]


async def test_a_page_can_be_filtered(world: World, store: Store) -> None:
    first = world.message(f"Bob@{NET}", sender="Alice@example.org")
    await store.add(first, leased=False)
    await world.clock.advance(3600)
    await store.add(world.message("carol@example.com", f"dave@{NET}", sender=""), leased=False)
    await store.command(QueueCommand.HOLD, Filter(recipient="dave"), world.now)

    async def found(**wanted: Any) -> list[str]:
        return [entry.recipient for entry in await store.page(Filter(**wanted), 0, 10)]

    assert await found(message=first.id) == [f"Bob@{NET}"]
    assert await found(domain=NET) == [f"Bob@{NET}", f"dave@{NET}"]
    assert await found(domain=NET[1:]) == []
    assert await found(sender="") == ["carol@example.com", f"dave@{NET}"]
    assert await found(sender="ALICE") == [f"Bob@{NET}"]
    assert await found(recipient="bob@") == [f"Bob@{NET}"]
    assert await found(state=RecipientState.HELD) == [f"dave@{NET}"]
    assert await found(before=world.now - timedelta(minutes=1)) == [f"Bob@{NET}"]
    assert await found(in_doubt=True) == []
    assert await found(domain=NET, state=RecipientState.QUEUED) == [f"Bob@{NET}"]


async def test_stats_count_by_destination_and_age(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}", f"c@{NET}", "d@example.com"), leased=False)
    await world.clock.advance(2 * 3600)
    await store.add(world.message(f"b@{NET}"), leased=True)
    await store.command(QueueCommand.HOLD, Filter(recipient="c@"), world.now)
    stats = await store.stats(world.now, 10)
    assert (stats.messages, stats.octets, stats.recipients) == (2, 2 * len(MESSAGE), 4)
    net, com = stats.destinations
    assert (net.destination, net.queued, net.active, net.held, net.in_doubt) == (NET, 1, 1, 1, 0)
    assert net.oldest == world.now - 2 * HOUR
    assert com.next_due == world.now - 2 * HOUR
    assert stats.ages["under 5 minutes"] == 1
    assert stats.ages["under 4 hours"] == 3
    assert len((await store.stats(world.now, 1)).destinations) == 1


async def test_what_does_not_exist_is_not_found(store: Store) -> None:
    assert await store.find(17) is None
    assert await store.octets(17) is None


# --- Commands ------------------------------------------------------------------------------------


async def test_held_mail_is_not_claimed_until_it_is_released(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}"), leased=False)
    assert (await store.command(QueueCommand.HOLD, EVERYTHING, world.now)).changed == 1
    assert await claim(world, store) == []
    assert await store.destinations(None, 10) == []
    assert (await store.command(QueueCommand.RELEASE, EVERYTHING, world.now)).changed == 1
    assert len(await claim(world, store)) == 1


async def test_retry_makes_mail_due_at_once(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}"), leased=False)
    (job,) = await claim(world, store)
    await store.settle(later(world, job))
    assert (await store.command(QueueCommand.RETRY, EVERYTHING, world.now)).changed == 1
    (job,) = await claim(world, store)
    assert job.progress[0].tries == 1


async def test_removed_mail_is_gone(world: World, store: Store) -> None:
    given = world.message(f"b@{NET}", f"c@{NET}")
    await store.add(given, leased=False)
    assert (await store.command(QueueCommand.REMOVE, Filter(recipient="b@"), world.now)).changed == 1
    assert len(await states(store)) == 1
    await store.command(QueueCommand.REMOVE, EVERYTHING, world.now)
    assert await store.find(given.id) is None
    assert (await store.stats(world.now, 1)).messages == 0


@pytest.mark.parametrize("command", [QueueCommand.HOLD, QueueCommand.REMOVE, QueueCommand.RETRY])
async def test_a_command_on_leased_mail_takes_effect_when_it_is_settled(
    world: World, store: Store, command: QueueCommand
) -> None:
    await store.add(world.message(f"b@{NET}"), leased=False)
    (job,) = await claim(world, store)
    outcome = await store.command(command, EVERYTHING, world.now)
    assert (outcome.changed, outcome.later) == (0, 1)
    (entry,) = await store.page(EVERYTHING, 0, 10)
    assert (entry.state, entry.wish) == (RecipientState.LEASED, Wish[command.name])
    assert (await store.settle(later(world, job))).held
    entries = await store.page(EVERYTHING, 0, 10)
    if command is QueueCommand.REMOVE:
        assert entries == []
    else:
        assert entries[0].state is (RecipientState.HELD if command is QueueCommand.HOLD else RecipientState.QUEUED)
        assert entries[0].wish is None
        assert (entries[0].due == world.now) is (command is QueueCommand.RETRY)


WISHES = {
    "a removal stays when it is tried again": ([QueueCommand.REMOVE, QueueCommand.RETRY], Wish.REMOVE),
    "a removal stays when it is held": ([QueueCommand.REMOVE, QueueCommand.HOLD], Wish.REMOVE),
    "a removal stays when it is released": ([QueueCommand.REMOVE, QueueCommand.RELEASE], Wish.REMOVE),
    "a removal comes over another try": ([QueueCommand.RETRY, QueueCommand.REMOVE], Wish.REMOVE),
    "a removal comes over a hold": ([QueueCommand.HOLD, QueueCommand.REMOVE], Wish.REMOVE),
    "a hold stays when it is tried again": ([QueueCommand.HOLD, QueueCommand.RETRY], Wish.HOLD),
    "a hold comes over another try": ([QueueCommand.RETRY, QueueCommand.HOLD], Wish.HOLD),
    "a release lets another try be": ([QueueCommand.RETRY, QueueCommand.RELEASE], Wish.RETRY),
}


@pytest.mark.parametrize(("commands", "wish"), WISHES.values(), ids=WISHES)
async def test_of_two_commands_on_leased_mail_the_stronger_one_wins(
    world: World, store: Store, commands: list[QueueCommand], wish: Wish
) -> None:
    await store.add(world.message(f"b@{NET}"), leased=False)
    (job,) = await claim(world, store)
    first, second = [await store.command(command, EVERYTHING, world.now) for command in commands]
    assert first.later == 1
    assert second.later == (wish is Wish[commands[1].name] if commands[1] is not QueueCommand.RELEASE else 0)
    (entry,) = await store.page(EVERYTHING, 0, 10)
    assert entry.wish is wish
    assert (await store.settle(later(world, job))).held
    assert (await store.page(EVERYTHING, 0, 10) == []) is (wish is Wish.REMOVE)


async def test_a_hold_that_waits_can_be_taken_back(world: World, store: Store) -> None:
    await store.add(world.message(f"b@{NET}"), leased=False)
    (job,) = await claim(world, store)
    await store.command(QueueCommand.HOLD, EVERYTHING, world.now)
    await store.command(QueueCommand.RELEASE, EVERYTHING, world.now)
    await store.settle(later(world, job))
    assert await states(store) == [RecipientState.QUEUED]


@pytest.mark.parametrize("command", [QueueCommand.HOLD, QueueCommand.REMOVE])
async def test_a_command_on_leased_mail_holds_when_it_is_given_back(
    world: World, store: Store, command: QueueCommand
) -> None:
    await store.add(world.message(f"b@{NET}"), leased=False)
    jobs = await claim(world, store)
    await store.command(command, EVERYTHING, world.now)
    await store.give_back(jobs)
    assert await states(store) == ([RecipientState.HELD] if command is QueueCommand.HOLD else [])


async def test_removal_holds_when_the_process_that_leases_it_leaves(world: World, store: Store) -> None:
    async with world.store() as other:
        await other.add(world.message(f"b@{NET}"), leased=True)
        await store.command(QueueCommand.REMOVE, EVERYTHING, world.now)
    assert await states(store) == []


# --- Other processes -----------------------------------------------------------------------------


async def test_what_another_process_changes_is_noticed(world: World, store: Store) -> None:
    await store.changed_elsewhere()
    assert not await store.changed_elsewhere()
    async with world.store() as other:
        await other.add(world.message(f"b@{NET}"), leased=False)
    assert await store.changed_elsewhere()
    assert not await store.changed_elsewhere()
