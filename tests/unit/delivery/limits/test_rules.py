"""Limits in force: who passes, who waits and for how long, and that every slot is given back once."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from contextlib import ExitStack
from contextvars import Context
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.delivery.limits.book import COME_AGAIN
from mailrider.delivery.limits.lines import LineBook, LineKey, WaitingAsk
from mailrider.delivery.limits.rules import UNCOUNTED, HeldBack, Limiter, MessageTicket
from mailrider.delivery.limits.shares import Shares
from mailrider.delivery.settings import Concurrency, LimitsSettings, Rate
from mailrider.errors import ConfigError
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.event import Event, LimitReached
from mailrider.model.handover import Handover
from mailrider.testing.clock import FakeClock
from tests.support.kept import kept

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

T = TypeVar("T")

A, B = Domain("a.test"), Domain("b.test")


def envelope(sender: str = "s@source.test", client: str | None = None) -> Envelope:
    return Envelope(ReversePath.parse(sender), (Recipient(Mailbox("r", A)),), client=client)


def start(message: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A message of its own, which is not inside what another one has passed."""
    return asyncio.create_task(message, context=Context())


def limiter_of(settings: LimitsSettings, clock: FakeClock | None = None) -> Limiter:
    """A block of its own."""
    limiter = Shares(clock or FakeClock()).limiter(settings)
    assert limiter is not None
    return limiter


class LateClock(FakeClock):
    """A clock of a busy process: so many seconds have passed of which no timer knows yet."""

    unnoticed = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.unnoticed


class World:
    """A limiter with a clock that stands still, and messages that try to pass."""

    def __init__(self, **settings: object) -> None:
        self.clock = LateClock()
        self.events: list[Event] = []
        self.limiter = limiter_of(LimitsSettings(**settings), self.clock)  # type: ignore[arg-type]
        self.leave = asyncio.Event()
        self.inside: Counter[str] = Counter()

    async def pass_through(self, ticket: MessageTicket, next_hop: Domain = A) -> HeldBack | None:
        """One next hop of a message, inside until `leave` is set."""
        async with ticket.to(next_hop) as held_back:
            if held_back is None:
                self.inside[next_hop.ascii] += 1
                try:
                    await self.leave.wait()
                finally:
                    self.inside[next_hop.ascii] -= 1
            return held_back

    async def send(
        self, sender: str = "s@source.test", client: str | None = None, next_hop: Domain = A, patience: float = 5.0
    ) -> HeldBack | None:
        """A message with one next hop."""
        with self.limiter.ticket(envelope(sender, client), self.events.append, Handover(patience=patience)) as ticket:
            return await self.pass_through(ticket, next_hop)

    async def passes(self, **arguments: object) -> bool:
        """Whether a message may pass at once; it is done at once, too."""
        task = start(self.send(patience=0, **arguments))  # type: ignore[arg-type]
        await settle()
        if task.done():
            return task.result() is None
        self.leave.set()
        assert await task is None
        self.leave.clear()
        return True

    async def assert_clean(self) -> None:
        """Nobody is inside, nobody waits."""
        assert not +self.inside
        await self.clock.advance(7200)  # until everybody's patience would be over
        assert kept(self.limiter, WaitingAsk) == kept(self.limiter, LineKey) == 0


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


# Scopes ---------------------------------------------------------------------------------------------------------------


async def test_all_counts_all_messages_together() -> None:
    world = World(all=["rate 2 1m"])
    assert [await world.passes(sender=f"x@{name}.test") for name in "abc"] == [True, True, False]


async def test_ip_counts_each_submitting_client_and_nobody_without_an_address() -> None:
    world = World(ip=["rate 1 1m"])
    assert await world.passes(client="192.0.2.1")
    assert not await world.passes(client="192.0.2.1")
    assert await world.passes(client="192.0.2.2")
    assert [await world.passes(client=None) for _ in range(2)] == [True, True]


async def test_ip_counts_an_ipv6_network_of_64_bits_as_one_client() -> None:
    world = World(ip=["rate 1 1h"])
    assert await world.passes(client="2001:db8:1:2::1")
    assert not await world.passes(client="2001:db8:1:2:ffff::9")
    assert await world.passes(client="2001:db8:1:3::1")
    assert await world.passes(client="192.0.2.1")
    assert not await world.passes(client="::ffff:192.0.2.1")


async def test_source_counts_each_domain_of_a_sender_and_the_null_path_by_itself() -> None:
    world = World(source=["rate 1 1m"])
    senders = ["x@a.test", "y@A.test", "", "", "x@[192.0.2.1]", "x@[192.0.2.1]", "x@b.test"]
    assert [await world.passes(sender=sender) for sender in senders] == [True, False, True, False, True, False, True]


async def test_destination_counts_each_next_hop_of_a_message() -> None:
    world = World(destination=["rate 1 1m"], all=["rate 2 1m"])
    world.leave.set()
    with world.limiter.ticket(envelope(), world.events.append, Handover(patience=0)) as ticket:
        assert await world.pass_through(ticket, A) is None
        assert await world.pass_through(ticket, B) is None
    assert not await world.passes(next_hop=A)
    assert await world.passes(next_hop=Domain("c.test")), "two next hops were one message"
    assert not await world.passes(next_hop=Domain("d.test"))


async def test_several_lines_of_a_scope_all_hold() -> None:
    world = World(all=["rate 2 1s", "rate 3 1m"])
    assert [await world.passes() for _ in range(3)] == [True, True, False]
    await world.clock.advance(1)
    assert [await world.passes() for _ in range(2)] == [True, False]
    await world.clock.advance(1)
    assert not await world.passes()
    await world.clock.advance(58)
    assert await world.passes()


async def test_a_message_that_is_held_back_by_one_limit_uses_up_nothing_of_the_others() -> None:
    world = World(all=["rate 2 1m"], destination=["rate 1 1m"])
    assert await world.passes(next_hop=A)
    assert [await world.passes(next_hop=A) for _ in range(5)] == [False] * 5
    assert await world.passes(next_hop=B)


# Being held back ------------------------------------------------------------------------------------------------------


async def test_who_does_not_wait_is_told_at_once_when_a_rate_lets_it_pass() -> None:
    world = World(destination=["rate 1 1h"])
    assert await world.passes()
    held_back = await world.send(patience=0)
    assert held_back is not None
    assert held_back.eligible_at == world.clock.now() + timedelta(hours=1)
    assert (held_back.scope, held_back.key) == ("destination", "a.test")


async def test_eligible_at_is_when_the_last_of_the_limits_opens() -> None:
    world = World(all=["rate 1 1m"], destination=["rate 1 1h"])
    assert await world.passes()
    held_back = await world.send(patience=0)
    assert held_back is not None
    assert held_back.eligible_at == world.clock.now() + timedelta(hours=1)


async def test_nobody_knows_when_others_are_done_so_a_queue_comes_again_soon() -> None:
    world = World(all=["concurrency 1"])
    first = start(world.send())
    await settle()
    held_back = await world.send(patience=0)
    assert held_back is not None
    assert held_back.eligible_at == world.clock.now() + timedelta(seconds=COME_AGAIN)
    world.leave.set()
    assert await first is None
    await world.assert_clean()


async def test_a_direct_send_waits_for_a_rate_as_long_as_it_is_patient() -> None:
    world = World(all=["rate 1 5s"])
    world.leave.set()
    assert await world.send() is None
    waiting = start(world.send(patience=5.0))
    await world.clock.advance(4.9)
    assert not waiting.done()
    await world.clock.advance(0.1)
    assert await waiting is None
    await world.assert_clean()


async def test_a_direct_send_waits_until_another_is_done() -> None:
    world = World(source=["concurrency 1"])
    first, second = start(world.send()), start(world.send())
    await settle()
    assert world.inside["a.test"] == 1
    world.leave.set()
    assert await first is None
    assert await second is None
    await world.assert_clean()


async def test_patience_ends() -> None:
    world = World(all=["concurrency 1"])
    first, second = start(world.send()), start(world.send(patience=5.0))
    await world.clock.advance(4.9)
    assert not second.done()
    await world.clock.advance(0.2)
    assert isinstance(await second, HeldBack)
    world.leave.set()
    await first
    await world.assert_clean()
    assert world.clock.pending == 0


async def test_nobody_waits_for_what_is_known_to_come_too_late() -> None:
    world = World(all=["rate 1 1m"])
    assert await world.passes()
    assert isinstance(await world.send(patience=5.0), HeldBack)
    assert world.clock.pending == 0


async def test_nobody_goes_on_waiting_when_another_limit_turns_out_to_come_too_late() -> None:
    world = World(all=["concurrency 1"], destination=["rate 1 1m"])
    inside = start(world.send())
    await settle()
    waiting = start(world.send(next_hop=B, patience=5.0))
    late = start(world.send(next_hop=B, patience=5.0))
    await settle()
    world.leave.set()
    assert await inside is None
    assert await waiting is None
    assert isinstance(await late, HeldBack)
    await world.assert_clean()


async def test_the_limit_that_held_a_message_back_is_an_event() -> None:
    world = World(destination=["rate 1 1m"])
    await world.passes()
    await world.passes()
    assert world.events == [LimitReached("destination", "a.test", 60.0)]


@pytest.mark.parametrize(
    ("scope", "key", "named"),
    [
        ("all", "", "our limit for all messages"),
        ("destination", "a.test", "our limit for destination a.test"),
        ("source", "b.test", "our limit for sender domain b.test"),
        ("ip", "192.0.2.1", "our limit for client 192.0.2.1"),
    ],
)
def test_who_looks_into_a_queue_reads_which_limit_holds_a_message_back(scope: str, key: str, named: str) -> None:
    held_back = HeldBack(scope, key, FakeClock().now())
    recipient = Recipient(Mailbox.parse("x@a.test"))
    assert str(held_back.deferred(recipient).reply) == f"451 4.4.5 Too many messages at the moment: {named}"
    uncounted = HeldBack("", "", FakeClock().now(), UNCOUNTED)
    assert uncounted.deferred(recipient).reply == UNCOUNTED


# Order ----------------------------------------------------------------------------------------------------------------


async def test_those_who_wait_pass_in_order_and_nobody_overtakes_them() -> None:
    world = World(all=["rate 1 1s"])
    world.leave.set()
    order: list[int] = []

    async def send(number: int) -> None:
        assert await world.send(patience=5.0) is None
        order.append(number)

    tasks = [start(send(number)) for number in range(3)]
    await settle()
    await world.clock.advance(0.999)
    late = start(send(3))
    await world.clock.advance(3.0)
    assert order == [0, 1, 2, 3]
    await asyncio.gather(*tasks, late)
    await world.assert_clean()


async def test_who_waits_for_one_destination_is_not_in_the_way_of_another() -> None:
    world = World(all=["concurrency 2"], destination=["concurrency 1"])
    first = start(world.send(next_hop=A))
    second = start(world.send(next_hop=A))
    third = start(world.send(next_hop=B))
    await settle()
    assert world.inside == {"a.test": 1, "b.test": 1}
    world.leave.set()
    assert set(await asyncio.gather(first, second, third)) == {None}
    await world.assert_clean()


async def test_who_has_passed_one_gate_in_vain_waits_at_the_next_without_holding_the_first() -> None:
    world = World(all=["concurrency 1"], destination=["rate 1 3s"])
    world.leave.set()
    assert await world.send(next_hop=A) is None
    world.leave.clear()
    blocker = start(world.send(next_hop=B))
    await settle()
    waiting = start(world.send(next_hop=A, patience=5.0))  # at `all`, then at the destination
    await settle()
    world.leave.set()
    assert await blocker is None
    await settle()
    assert not waiting.done()
    assert await world.passes(next_hop=Domain("c.test")), "the slot is free"
    await world.clock.advance(3.0)
    world.leave.set()
    assert await waiting is None
    await world.assert_clean()


async def test_next_hops_that_go_together_pass_together_or_not_at_all() -> None:
    world = World(destination=["concurrency 1"])
    inside = asyncio.create_task(world.send(next_hop=B))
    await settle()
    with world.limiter.ticket(envelope(), world.events.append, Handover(patience=5.0)) as ticket:
        both = asyncio.ensure_future(ticket.to(A, B).__aenter__())
        await settle()
        assert not both.done()
        with world.limiter.ticket(envelope(), world.events.append, Handover(patience=0.0)) as other:
            async with other.to(A) as held_back:
                assert held_back is None, "who waits for one holds none of the others"
        world.leave.set()
        assert await both is None
        assert await inside is None


async def test_next_hops_of_one_message_do_not_wait_for_each_other() -> None:
    world = World(all=["concurrency 1"], source=["concurrency 1"])
    with world.limiter.ticket(envelope(), world.events.append, Handover(patience=5.0)) as ticket:
        tasks = [asyncio.ensure_future(world.pass_through(ticket, hop)) for hop in (A, B)]
        await settle()
        assert world.inside == {"a.test": 1, "b.test": 1}
        world.leave.set()
        await asyncio.gather(*tasks)
        assert not await world.passes(), "the message is not done yet"
    assert await world.passes()
    await world.assert_clean()


async def test_next_hops_of_one_message_that_wait_together_pass_together() -> None:
    world = World(all=["concurrency 1"])
    blocker = start(world.send(next_hop=B))
    await settle()
    with world.limiter.ticket(envelope(), world.events.append, Handover(patience=5.0)) as ticket:
        tasks = [asyncio.ensure_future(world.pass_through(ticket, hop)) for hop in (A, B)]
        await settle()
        world.leave.set()
        await blocker
        assert await asyncio.gather(*tasks) == [None, None]
    await world.assert_clean()


# Everything is given back ---------------------------------------------------------------------------------------------


async def test_a_next_hop_that_comes_as_its_message_passes_with_another_one_does_not_count_it_again() -> None:
    world = World(all=["concurrency 2"], source=["rate 1 10s"])
    assert await world.passes()
    with world.limiter.ticket(envelope(), world.events.append, Handover(patience=60.0)) as ticket:
        first = start(world.pass_through(ticket, A))
        await settle()
        world.clock.unnoticed = 10.0
        second = start(world.pass_through(ticket, B))
        await settle()
        assert world.inside == {A.ascii: 1, B.ascii: 1}
        world.leave.set()
        assert [await first, await second] == [None, None]
    await world.assert_clean()


async def test_an_exception_inside_gives_everything_back() -> None:
    world = World(all=["concurrency 1"], destination=["concurrency 1"])

    async def fail() -> None:
        with world.limiter.ticket(envelope(), world.events.append, Handover(patience=5.0)) as ticket:
            async with ticket.to(A):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await world.assert_clean()


@pytest.mark.parametrize("turns", range(8))
async def test_cancelling_at_any_moment_gives_everything_back_once(turns: int) -> None:
    world = World(all=["concurrency 1"], destination=["concurrency 1"], source=["rate 100 1s"])
    tasks = [start(world.send()) for _ in range(4)]
    await settle()
    world.leave.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tasks[1:3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[3].result() is None
    await world.assert_clean()


async def test_who_is_cancelled_in_the_very_turn_in_which_it_may_pass_lets_the_next_one_pass() -> None:
    world = World(all=["concurrency 1"])
    with world.limiter.ticket(envelope(), world.events.append, Handover(patience=5.0)) as first:
        async with first.to(A):
            unlucky, next_one = (start(world.send()) for _ in range(2))
            await settle()
    unlucky.cancel()  # it has been told, and has not had its turn
    await settle()
    assert unlucky.cancelled()
    assert world.inside["a.test"] == 1
    world.leave.set()
    assert await next_one is None
    await world.assert_clean()


async def test_who_was_cancelled_and_does_not_know_it_yet_does_not_pass() -> None:
    world = World(all=["concurrency 1"])
    with world.limiter.ticket(envelope(), world.events.append, Handover(patience=5.0)) as first:
        async with first.to(A):
            unlucky, next_one = (start(world.send()) for _ in range(2))
            await settle()
            unlucky.cancel()
    await settle()
    assert world.inside["a.test"] == 1
    world.leave.set()
    assert await next_one is None
    await world.assert_clean()


# Sharing --------------------------------------------------------------------------------------------------------------


async def test_all_who_refer_to_a_named_block_share_it() -> None:
    limiters = Shares(FakeClock())
    one, other = (limiters.limiter(LimitsSettings(all=["rate 1 1s"], name="shared")) for _ in range(2))
    assert one is other


async def test_a_block_without_a_name_is_its_owners_alone() -> None:
    limiters = Shares(FakeClock())
    settings = LimitsSettings(all=["rate 1 1s"])
    assert limiters.limiter(settings) is not limiters.limiter(settings)
    assert limiters.limiter(None) is None


async def test_a_block_of_nobody_else_is_forgotten_with_whoever_had_it() -> None:
    shares = Shares(FakeClock())
    before = kept(shares)
    for _ in range(3):
        shares.limiter(LimitsSettings(all=["rate 1 1s"]))
    assert kept(shares) == before


async def test_one_name_with_two_meanings_is_an_error() -> None:
    limiters = Shares(FakeClock())
    limiters.limiter(LimitsSettings(all=["rate 1 1s"], name="shared"))
    with pytest.raises(ConfigError, match="two different limits of the name shared"):
        limiters.limiter(LimitsSettings(all=["rate 2 1s"], name="shared"))


async def test_a_message_that_is_inside_a_block_passes_it_freely() -> None:
    world = World(all=["concurrency 1", "rate 2 1h"], destination=["concurrency 1"])
    with world.limiter.ticket(envelope(), world.events.append) as outer:
        async with outer.to(A) as held_back:
            assert held_back is None
            with world.limiter.ticket(
                envelope(), world.events.append, Handover(frozenset({world.limiter}), 0.0)
            ) as inner:
                async with inner.to(B) as held_back:
                    assert held_back is None
    assert world.events == []
    assert await world.passes(), "it has counted once"
    assert not await world.passes()
    await world.assert_clean()


async def test_who_cannot_pass_in_time_does_not_wait_for_those_who_are_inside_either() -> None:
    world = World(destination=["rate 2 30s", "concurrency 2"])
    inside = [start(world.send(next_hop=B)) for _ in range(2)]
    await settle()
    held_back = await start(world.send(next_hop=B, patience=5.0))
    assert held_back is not None
    assert held_back.eligible_at == world.clock.now() + timedelta(seconds=30)
    world.leave.set()
    assert await asyncio.gather(*inside) == [None, None]
    await world.assert_clean()
    assert world.clock.pending == 0


# Properties -----------------------------------------------------------------------------------------------------------

# A configuration takes the place of another ------------------------------------------------------------------------


class Reload:
    """Limits of a configuration, and of the one that comes next."""

    def __init__(self, old: dict[str, list[str]], new: dict[str, list[str]], *, name: str | None = None) -> None:
        self.clock = FakeClock()
        before = Shares(self.clock, by_owner=True)
        after = before.successor()
        self.old = before.limiter(LimitsSettings(name=name, **old), "target x")
        self.new = after.limiter(LimitsSettings(name=name, **new), "target x")

    def try_to_pass(self, limiter: Limiter | None, stay: ExitStack | None = None) -> bool:
        """Whether a message may pass at once; it stays inside as long as `stay` is open."""
        assert limiter is not None
        needs = limiter.needs("all", "")
        if not limiter.takes(needs):
            return False
        if stay is None:
            limiter.leave(needs)
        else:
            stay.callback(limiter.leave, needs)
        return True


@pytest.mark.parametrize("name", [None, "narrow"])
async def test_a_rate_that_a_reload_does_not_change_goes_on_counting(name: str | None) -> None:
    world = Reload({"all": ["rate 2 1h"]}, {"all": ["rate 2 1h"], "ip": ["rate 5 1h"]}, name=name)
    assert world.try_to_pass(world.old)
    assert world.try_to_pass(world.new)
    assert not world.try_to_pass(world.new)
    assert not world.try_to_pass(world.old), "what the old configuration has begun counts in the same books"


async def test_a_rate_that_is_another_one_begins_anew() -> None:
    world = Reload({"all": ["rate 1 1h"]}, {"all": ["rate 1 2h"]})
    assert world.try_to_pass(world.old)
    assert world.try_to_pass(world.new)


async def test_a_lower_concurrency_holds_for_those_who_come_next() -> None:
    world = Reload({"all": ["concurrency 3"]}, {"all": ["concurrency 2"]})
    with ExitStack() as stay, ExitStack() as first:
        assert world.try_to_pass(world.old, first)
        assert world.try_to_pass(world.old, stay)
        assert not world.try_to_pass(world.new)
        first.close()
        assert world.try_to_pass(world.new)
    assert world.try_to_pass(world.new)


async def test_lines_are_told_apart_wherever_they_stand() -> None:
    lines = ["concurrency 1", "rate 1 1h", "rate 5 1m"]
    world = Reload({"all": lines}, {"all": ["rate 7 1m", *lines[::-1]]})
    with ExitStack() as stay:
        assert world.try_to_pass(world.old, stay)
        assert not world.try_to_pass(world.new)
    assert not world.try_to_pass(world.new), "the rate of one in an hour is used up"


async def test_who_waits_in_a_block_is_served_before_who_comes_with_the_next_configuration() -> None:
    world = Reload({"all": ["concurrency 1"]}, {"all": ["concurrency 1"]})
    order: list[str] = []

    async def send(name: str, limiter: Limiter | None) -> None:
        assert limiter is not None
        with limiter.ticket(envelope(), order.append) as ticket:  # type: ignore[arg-type] # no event is looked at
            async with ticket.to(A):
                order.append(name)

    with ExitStack() as stay:
        assert world.try_to_pass(world.old, stay)
        tasks = [start(send("old", world.old)), start(send("new", world.new))]
        await settle()
        order.clear()
    await asyncio.gather(*tasks)
    assert order == ["old", "new"]


async def test_the_number_of_a_configuration_that_was_refused_does_not_hold() -> None:
    clock = FakeClock()
    before = Shares(clock, by_owner=True)
    limiter = before.limiter(LimitsSettings(all=["concurrency 2"]), "target x")
    refused = before.successor()
    refused.limiter(LimitsSettings(all=["concurrency 1"]), "target x")
    refused.close()
    assert limiter is not None
    needs = limiter.needs("all", "")
    assert [limiter.takes(needs) for _ in range(3)] == [True, True, False]


async def test_lines_that_only_an_earlier_configuration_had_are_forgotten() -> None:
    clock = FakeClock()
    before = Shares(clock, by_owner=True)
    before.limiter(LimitsSettings(all=["concurrency 2", "rate 1 1h"]), "target x")
    after = before.successor()
    after.limiter(LimitsSettings(all=["concurrency 2"]), "target x")
    before.close()
    await clock.advance(3602.0)
    assert kept(after, LineBook) == 1
    after.close()
    assert kept(after, LineBook) == 0
    assert clock.pending == 0


async def test_a_block_of_another_owner_knows_nothing_of_it() -> None:
    clock = FakeClock()
    before = Shares(clock, by_owner=True)
    settings = LimitsSettings(all=["rate 1 1h"])
    assert before.limiter(settings, "target x") is not before.successor().limiter(settings, "target y")
    assert Shares(clock).limiter(settings, "target x") is not Shares(clock).limiter(settings, "target x")


lines = st.lists(
    st.one_of(
        st.builds("rate {} {}s".format, st.integers(1, 3), st.sampled_from([1, 4, 30])),
        st.builds("concurrency {}".format, st.integers(1, 3)),
    ),
    max_size=2,
)
moves = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(["a", "b"]), st.sampled_from([0.0, 5.0])),
        st.tuples(st.just("time"), st.sampled_from([0.1, 0.5, 1.0, 4.0]), st.just(0.0)),
        st.tuples(st.just("done"), st.integers(0, 10), st.just(0.0)),
        st.tuples(st.just("cancel"), st.integers(0, 10), st.just(0.0)),
    ),
    max_size=40,
)


@given(scopes=st.fixed_dictionaries(dict.fromkeys(("all", "source", "destination"), lines)), moves=moves)
def test_no_limit_is_ever_broken_and_every_slot_comes_back(
    scopes: dict[str, list[str]], moves: list[tuple[str, object, float]]
) -> None:
    asyncio.run(_play(scopes, moves))


async def _play(scopes: dict[str, list[str]], moves: list[tuple[str, object, float]]) -> None:
    world = World(**scopes)
    passed: dict[tuple[str, str], list[float]] = defaultdict(list)
    inside: Counter[tuple[str, str]] = Counter()
    leaves: dict[asyncio.Task[None], asyncio.Event] = {}

    async def send(name: str, patience: float, leave: asyncio.Event) -> None:
        keys = [("all", ""), ("source", f"{name}.test"), ("destination", f"{name}.test")]
        with world.limiter.ticket(
            envelope(f"s@{name}.test"), world.events.append, Handover(patience=patience)
        ) as ticket:
            async with ticket.to(Domain(f"{name}.test")) as held_back:
                if held_back is not None:
                    assert held_back.eligible_at > world.clock.now()
                    return
                with ExitStack() as stack:
                    for key in keys:
                        passed[key].append(world.clock.monotonic())
                        inside[key] += 1
                        stack.callback(inside.subtract, {key: 1})
                        for scope, line in _lines(scopes):
                            if scope == key[0]:
                                _assert_holds(line, passed[key], inside[key])
                    await leave.wait()

    for kind, what, patience in moves:
        tasks = list(leaves)
        if kind == "send":
            leave = asyncio.Event()
            leaves[start(send(str(what), patience, leave))] = leave
        elif kind == "time":
            await world.clock.advance(float(what))  # type: ignore[arg-type]
        elif tasks:
            task = tasks[int(what) % len(tasks)]  # type: ignore[call-overload]
            task.cancel() if kind == "cancel" else leaves[task].set()
        await settle()
    for leave in leaves.values():
        leave.set()
    await world.clock.advance(10.0)
    for task in leaves:
        assert task.done(), "nobody waits longer than it is patient"
        assert task.cancelled() or task.exception() is None
    await world.assert_clean()
    assert world.clock.pending == 0


def _lines(scopes: dict[str, list[str]]) -> Iterator[tuple[str, list[str]]]:
    for scope, texts in scopes.items():
        for text in texts:
            yield scope, text.split()


def _assert_holds(line: list[str], times: list[float], inside: int) -> None:
    kind, most = line[0], int(line[1])
    if kind == "concurrency":
        assert inside <= most
    elif len(times) > most:
        period = float(line[2].removesuffix("s"))
        assert times[-1] >= times[-1 - most] + period


def test_the_slots_are_the_fewest_messages_that_a_line_lets_be_under_way_in_all() -> None:
    two = (Concurrency(20), Concurrency(8), Rate(5, timedelta(hours=1)))
    assert limiter_of(LimitsSettings(all=two)).slots == 8
    assert limiter_of(LimitsSettings(destination=(Concurrency(3),))).slots is None
