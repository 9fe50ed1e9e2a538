"""Connecting to a host with several addresses: which comes first, and when the next one begins (RFC 8305 3 and 5).

    race = Race(address_history.ordered(host).addresses, clock, prohibited, late)
    try:
        for address in race.turns():
            channel = await race.connect(address, dial)  # or `RaceLost`: it is another one's turn
        if await race.has_more():  # addresses that DNS has named late: they have their turns
    finally:
        await race.close()

An address has `HEAD_START` before the next one begins beside it, less if it fails earlier. The first connection wins:
it is the next one's turn to be used, the others are given up. An address that was overtaken comes once more behind all
others, in case that what answered first does not take the message. Addresses that DNS names while others are connected
to join at the end (RFC 8305 3). Whatever is left over in the end is closed.

`AddressHistory` remembers addresses and families that nothing could be connected to lately: they come last for some
minutes. Nothing is left out: what failed before may be all that there is. So a network whose IPv6 leads nowhere delays
one connection and not each. Bounded; a connection that is made clears the memory of its address and its family.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mailrider.clock import Deadline
from mailrider.delivery.mx import MAX_ADDRESSES
from mailrider.errors import MailriderError
from mailrider.model.bounded_map import BoundedMap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.clock import Clock
    from mailrider.model.route import Host
    from mailrider.net.channel import Channel

    Address = IPv4Address | IPv6Address


HEAD_START = 0.25  # seconds: RFC 8305 8 recommends it, and no less than 0.1


class RaceLost(MailriderError):
    """Another address of the host answered first; this one may still be good."""


class Race:
    """The addresses of one host, for one attempt. `prohibited` ones have their turn, but are never dialled."""

    def __init__(
        self,
        addresses: Sequence[Address],
        clock: Clock,
        prohibited: Callable[[Address], bool] = lambda _: False,
        late: asyncio.Future[tuple[Address, ...]] | None = None,
    ) -> None:
        """`late`: further addresses, once they are known; with them there are no more than `MAX_ADDRESSES`."""
        self._left = list(addresses)
        self._begun: set[Address] = set()  # they had their turn, or are under way
        self._late = late
        self._next_at = 0.0  # when the next one may begin beside those that are under way
        self._prohibited = prohibited
        self._clock = clock
        self._tasks: dict[Address, asyncio.Future[Channel]] = {}
        self._given_up: list[asyncio.Future[Channel]] = []

    @property
    def left(self) -> int:
        """How many addresses have not had their turn."""
        return len(self._left)

    def turns(self) -> Iterator[Address]:
        """The addresses, one that is connected already first, else in their order."""
        while self._left:
            address = self._winner() or self._left[0]
            self._left.remove(address)
            self._begun.add(address)
            yield address

    async def has_more(self) -> bool:
        """Wait for those that are not known yet; False if there are none."""
        if self._late is not None:
            await asyncio.wait([self._late])
            self._take_late()
        return bool(self._left)

    def _take_late(self) -> None:
        """Late addresses have the places of those that nothing was begun with."""
        if self._late is None or not self._late.done():
            return
        room = MAX_ADDRESSES - len(self._begun)
        late, self._late = self._late.result()[:room], None
        waiting = [each for each in self._left if each not in self._begun]
        without_place = waiting[room - len(late) :]
        self._left = [each for each in self._left if each not in without_place] + list(late)

    def _winner(self) -> Address | None:
        """An address that has not had its turn, and is connected."""
        for address, task in self._tasks.items():
            if address in self._left and task.done() and not task.cancelled() and task.exception() is None:
                return address
        return None

    async def connect(self, address: Address, dial: Callable[[Address], Awaitable[Channel]]) -> Channel:
        """A channel to the address whose turn it is. Raises what `dial` raises, or `RaceLost`."""
        if address not in self._tasks:
            self._begin(address, dial)
        task = self._tasks[address]
        while not task.done() and self._winner() is None:
            before, upcoming = self._under_way(), self._upcoming()
            timed_out = await self._wait(before, self._next_at if upcoming is not None else None)
            if upcoming is not None and (timed_out or len(self._under_way()) < len(before)):
                self._begin(upcoming, dial)
            self._take_late()
        if not task.done():
            self._give_up(keep=self._winner())
            self._left.append(address)
            raise RaceLost(f"another address of the host answered before {address} did")
        del self._tasks[address]
        channel = task.result()
        self._give_up(keep=None)
        return channel

    def _begin(self, address: Address, dial: Callable[[Address], Awaitable[Channel]]) -> None:
        self._tasks[address] = asyncio.ensure_future(dial(address))
        self._begun.add(address)
        self._next_at = self._clock.monotonic() + HEAD_START

    def _upcoming(self) -> Address | None:
        return next((each for each in self._left if each not in self._tasks and not self._prohibited(each)), None)

    def _under_way(self) -> list[asyncio.Future[Channel]]:
        return [task for task in self._tasks.values() if not task.done()]

    async def _wait(self, tasks: Sequence[asyncio.Future[Channel]], when: float | None) -> bool:
        """Until one of these is done, or late addresses are known; True if it was `when` before."""
        awaited: list[asyncio.Future[Any]] = [*tasks] if self._late is None else [*tasks, self._late]
        try:
            async with Deadline(self._clock, when):
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return True
        return False

    def _give_up(self, keep: Address | None) -> None:
        for address in [each for each in self._tasks if each != keep]:
            task = self._tasks.pop(address)
            task.cancel()
            task.add_done_callback(_abort_what_it_opened)  # also if nobody is left to wait for it
            self._given_up.append(task)

    async def close(self) -> None:
        """Close what was begun and is not used."""
        if not self._tasks and not self._given_up:
            return
        self._give_up(keep=None)
        given_up, self._given_up = self._given_up, []
        await asyncio.gather(*given_up, return_exceptions=True)


def _abort_what_it_opened(task: asyncio.Future[Channel]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abort()


REMEMBERED = 300.0  # seconds
MAX_ENTRIES = 10_000
IN_A_ROW = 3  # addresses of a family that did not answer, and none between that did: it is the family


class AddressHistory:
    """What the connections of a target have shown of addresses."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: BoundedMap[Address, float] = BoundedMap(MAX_ENTRIES)
        self._in_a_row = {4: 0, 6: 0}
        self._family_until = {4: 0.0, 6: 0.0}

    def failed(self, address: Address, *, answered: bool = False) -> None:
        """No connection came about. `answered`: it was refused, so packets come there and back."""
        until = self._clock.monotonic() + REMEMBERED
        self._failed[address] = until
        if answered:
            self._in_a_row[address.version] = 0
            return
        self._in_a_row[address.version] += 1
        if self._in_a_row[address.version] >= IN_A_ROW:
            self._family_until[address.version] = until

    def worked(self, address: Address) -> None:
        """A connection was made."""
        self._failed.pop(address, None)
        self._in_a_row[address.version] = 0
        self._family_until[address.version] = 0.0

    def ordered(self, host: Host) -> Host:
        """The host with its addresses: those that failed last, else in the order that they are in."""
        now, addresses = self._clock.monotonic(), host.addresses
        if len(addresses) < 2 or not (self._failed or any(now < until for until in self._family_until.values())):
            return host
        order = tuple(sorted(addresses, key=lambda each: self._failure_rank(each, now)))
        return host if order == addresses else replace(host, addresses=order)

    def _failure_rank(self, address: Address, now: float) -> tuple[bool, bool]:
        return now < self._failed.get(address, 0.0), now < self._family_until[address.version]
