"""Several addresses of one host: a head start of 250 ms each, and nothing left behind (RFC 8305 5)."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast

import pytest

from mailrider.delivery.mx import MAX_ADDRESSES
from mailrider.delivery.race import HEAD_START, Race, RaceLost
from mailrider.net.errors import Unreachable
from mailrider.testing.clock import FakeClock
from tests.support.channels import settle

if TYPE_CHECKING:
    from mailrider.net.channel import Channel

V6, V4, LAST = ip_address("2001:db8::1"), ip_address("192.0.2.1"), ip_address("192.0.2.2")
NEVER = 1e6


class FakeChannel:
    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


class Network:
    """Connects after so many seconds, by address; a negative number is a failure after that time."""

    def __init__(self, **seconds: float) -> None:
        self.clock = FakeClock()
        self.seconds = dict(zip((V6, V4, LAST), seconds.values(), strict=False))
        self.begun: list[tuple[object, float]] = []
        self.under_way: set[object] = set()
        self.channels: dict[object, Any] = {}
        self.race = Race(list(self.seconds), self.clock)
        self.turns = self.race.turns()

    async def dial(self, address: Any) -> Channel:
        self.begun.append((address, self.clock.monotonic() - 1000))
        self.under_way.add(address)
        try:
            await self.clock.sleep(abs(self.seconds[address]))
        finally:
            self.under_way.remove(address)
        if self.seconds[address] < 0:
            raise Unreachable(f"no way to {address}")
        channel = self.channels[address] = cast("Channel", FakeChannel())
        return channel

    def connect(self) -> asyncio.Task[Channel]:
        """The address whose turn it is."""
        return asyncio.create_task(self.race.connect(next(self.turns), self.dial))

    async def close(self) -> None:
        await self.race.close()
        await settle()
        assert self.under_way == set()
        assert self.clock.pending == 0


async def test_an_address_that_answers_within_its_head_start_is_alone() -> None:
    net = Network(v6=0.2, v4=0.1)
    connecting = net.connect()
    await net.clock.advance(1)
    assert await connecting is net.channels[V6]
    assert [address for address, _ in net.begun] == [V6]
    await net.close()


async def test_the_next_one_begins_after_the_head_start_and_the_first_to_answer_has_the_next_turn() -> None:
    net = Network(v6=NEVER, v4=0.1, last=NEVER)
    connecting = net.connect()
    await net.clock.advance(1)
    with pytest.raises(RaceLost):
        await connecting
    assert net.begun == [(V6, 0), (V4, HEAD_START)]
    await settle()
    assert net.under_way == set()  # the loser is cancelled at once
    second = net.connect()
    assert await second is net.channels[V4]
    assert len(net.begun) == 2
    await net.close()


async def test_one_that_fails_early_gives_its_head_start_away() -> None:
    net = Network(v6=-0.01, v4=0.1)
    connecting = net.connect()
    await net.clock.advance(0.02)
    with pytest.raises(Unreachable):
        await connecting
    second = net.connect()
    await net.clock.advance(0.2)
    assert await second is net.channels[V4]
    await net.close()


async def test_a_rival_that_fails_makes_room_for_the_next_and_its_failure_is_told_at_its_turn() -> None:
    net = Network(v6=10, v4=-0.01, last=NEVER)
    connecting = net.connect()
    await net.clock.advance(0.3)
    assert [address for address, _ in net.begun] == [V6, V4, LAST]
    await net.clock.advance(10)
    assert await connecting is net.channels[V6]
    await net.close()

    net = Network(v6=-1, v4=-0.5)
    connecting = net.connect()
    await net.clock.advance(2)
    with pytest.raises(Unreachable, match="2001"):
        await connecting
    with pytest.raises(Unreachable, match="192"):
        await net.connect()
    assert len(net.begun) == 2
    await net.close()


async def test_who_was_overtaken_comes_again_behind_all_others() -> None:
    net = Network(v6=1, v4=0.1, last=0.2)
    turns = []
    for _ in range(4):
        connecting = net.connect()
        await net.clock.advance(2)
        turns.append(await asyncio.gather(connecting, return_exceptions=True))
    assert isinstance(turns[0][0], RaceLost)
    assert [each[0] for each in turns[1:]] == [net.channels[V4], net.channels[LAST], net.channels[V6]]
    assert list(net.turns) == []
    await net.close()


async def test_a_prohibited_address_is_never_dialled_beside_another() -> None:
    net = Network(v6=NEVER, v4=NEVER, last=0.1)
    net.race = Race([V6, V4, LAST], net.clock, lambda address: address == V4)
    net.turns = net.race.turns()
    connecting = net.connect()
    await net.clock.advance(1)
    with pytest.raises(RaceLost):
        await connecting
    assert [address for address, _ in net.begun] == [V6, LAST]
    await net.close()


async def test_two_that_connect_together_leave_one_connection() -> None:
    net = Network(v6=0.5, v4=0.25)
    connecting = net.connect()
    await net.clock.advance(HEAD_START)
    # A fake clock that is advanced comes to one timer after the other; a loop that was held up finds both due.
    net.clock._monotonic += 0.3  # both are due in the same turn of the loop
    await net.clock.advance(0)
    results = await asyncio.gather(connecting, return_exceptions=True)
    if isinstance(results[0], RaceLost):
        assert await net.connect() is net.channels[V4]
    await net.close()
    assert sorted(each.is_aborted for each in net.channels.values()) in ([False], [False, True])


async def test_what_is_left_over_is_closed() -> None:
    net = Network(v6=NEVER, v4=0.1, last=NEVER)
    connecting = net.connect()
    await net.clock.advance(1)
    with pytest.raises(RaceLost):
        await connecting
    await net.close()
    assert net.channels[V4].is_aborted


async def test_what_is_left_over_is_closed_although_nobody_waits_for_it() -> None:
    net = Network(v6=NEVER, v4=0.1)
    opened = cast("Channel", FakeChannel())

    async def dial(address: Any) -> Channel:
        try:
            return await net.dial(address)
        except asyncio.CancelledError:
            return opened  # it was connected in the same moment

    connecting = asyncio.create_task(net.race.connect(next(net.turns), dial))
    await net.clock.advance(1)
    with pytest.raises(RaceLost):
        await connecting
    closing = asyncio.create_task(net.race.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await settle()
    assert cast("FakeChannel", opened).is_aborted
    assert net.channels[V4].is_aborted


async def test_a_cancelled_attempt_leaves_nothing_under_way() -> None:
    net = Network(v6=NEVER, v4=NEVER)
    connecting = net.connect()
    await net.clock.advance(1)
    assert net.under_way == {V6, V4}
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    await net.close()


@pytest.mark.parametrize(
    ("turns_before", "late_ones", "left"),
    [
        (0, 3, ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2", "2001:db8::3"]),
        (2, 3, ["192.0.2.3", "2001:db8::1", "2001:db8::2", "2001:db8::3"]),
        (2, 1, ["192.0.2.3", "192.0.2.4", "192.0.2.5", "2001:db8::1"]),
        (5, 3, ["2001:db8::1"]),
        (6, 3, []),
    ],
)
async def test_late_addresses_have_the_places_of_those_that_were_not_begun(
    turns_before: int, late_ones: int, left: list[str]
) -> None:
    late: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    known = [ip_address(f"192.0.2.{number}") for number in range(1, MAX_ADDRESSES + 1)]
    race = Race(known, FakeClock(), late=late)
    turns = race.turns()
    for _ in range(turns_before):
        next(turns)
    late.set_result(tuple(ip_address(f"2001:db8::{number}") for number in range(1, late_ones + 1)))
    assert await race.has_more() is bool(left)
    assert [str(address) for address in race.turns()] == left
