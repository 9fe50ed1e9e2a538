"""How the addresses of a candidate share `connect_timeout`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.delivery.connection.connect import Connector, ConnectRequest
from mailrider.delivery.connection.fallback import FallbackMemory
from mailrider.delivery.connection.unusable import Unusable
from mailrider.delivery.destination import Budget
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from mailrider.model.outcome import TryResult
from mailrider.model.route import Candidate
from mailrider.model.security import NO_REQUIREMENT, MXLevel
from mailrider.net.errors import ConnectTimedOut
from mailrider.testing.clock import FakeClock
from tests.unit.delivery.test_attempt import World

if TYPE_CHECKING:
    from mailrider.net.channel import Channel

A, MX = Domain("a.test"), Domain("mx.test")
ADDRESSES = [IPv4Address(f"192.0.2.{number}") for number in range(3)]


class BlackHole:
    """A `Dialer` to addresses that say nothing: every connect takes all the time that it has."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.seconds: list[float] = []

    def usable(self, _: IPv4Address | IPv6Address) -> bool:
        return True

    async def connect(self, _: IPv4Address | IPv6Address, port: int, deadline: float) -> Channel:
        self.seconds.append(deadline - self.clock.monotonic())
        await self.clock.advance(self.seconds[-1])
        raise ConnectTimedOut("it did not answer in time")


class Connecting:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.dialer = BlackHole(self.clock)
        self.budget = Budget(self.clock, 300.0)
        nothing: Any = None
        fallback = FallbackMemory(self.clock)
        self.connector = Connector(self.dialer, self.clock, nothing, nothing, nothing, fallback, discard, 25)

    async def open(self, address: IPv4Address, left: int) -> Unusable:
        """The failure to connect to an address with so many left."""
        call = ConnectRequest(
            A, Candidate(MX), address, NO_REQUIREMENT, MXLevel.NONE, self.budget, lambda _: None, left
        )
        with pytest.raises(Unusable) as raised:
            await self.connector.open(call)
        assert raised.value.stage is TryResult.CONNECT
        assert (raised.value.reply.code, str(raised.value.reply.enhanced)) == (451, "4.4.1")
        return raised.value


async def test_an_address_that_does_not_answer_leaves_time_to_the_others() -> None:
    world = Connecting()
    for number, address in enumerate(ADDRESSES):
        await world.open(address, len(ADDRESSES) - number)
    assert world.dialer.seconds == [100, 100, 100]


async def test_without_time_nothing_is_connected_and_the_server_is_not_blamed() -> None:
    world = Connecting()
    with world.budget:
        await world.clock.advance(300)
    error = await world.open(ADDRESSES[0], 3)
    assert error.reply.text == "mx.test [192.0.2.0]: no time was left to connect to it"
    assert world.dialer.seconds == []


async def test_an_attempt_says_how_many_addresses_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []

    def refuse(_: object) -> None:
        raise AssertionError("unreachable")

    refuse.error = Unusable(TryResult.CONNECT, (await Connecting().open(ADDRESSES[0], 1)).reply)  # type: ignore[attr-defined]
    world = World([[refuse, refuse, refuse], [refuse]])
    lease = world.lease

    def watched(call: ConnectRequest, *, fresh: bool = False) -> Any:
        left.append(call.addresses_left)
        return lease(call, fresh=fresh)

    monkeypatch.setattr(world, "lease", watched)
    await world.run()
    assert left == [3, 2, 1, 1]
