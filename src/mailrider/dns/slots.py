"""So many at once, shared by owners: whoever has many slow names does not keep others waiting.

The name servers of a zone can take as long as they like. An owner of such zones has a few messages sent to him (a
notification is one), each with many hosts to be looked up, and without shares his questions would take all slots. So
nobody may hold more slots than it leaves for all others together, and where several wait, each owner has its turn.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_Waiter = asyncio.Future[None]


class SharedSlots:
    """`most` slots. Who takes one gives it back under the same owner."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[_Waiter]] = OrderedDict()  # whose turn is next stands first

    async def take(self, owner: str) -> None:
        """Wait for a slot, and take it."""
        if owner not in self._waiting and self._may_take(owner):
            self._grant(owner)
            return
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._withdraw(owner, waiter)
            else:  # it was granted in the very turn in which its owner went
                self.give_back(owner)
            raise

    def give_back(self, owner: str) -> None:
        """A slot is free again; the next who may take one has it."""
        self._left += 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        # Only whoever holds some may have to be passed over, and there are no more of those than slots: thousands that
        # wait cost nothing here.
        while self._left:
            next_one = next(filter(self._may_take, self._waiting), None)
            if next_one is None:
                return
            self._wake(next_one)

    @asynccontextmanager
    async def of(self, owner: str) -> AsyncIterator[None]:
        """A slot while it is entered."""
        await self.take(owner)
        try:
            yield
        finally:
            self.give_back(owner)

    def _may_take(self, owner: str) -> bool:
        return self._held[owner] < self._left

    def _grant(self, owner: str) -> None:
        self._left -= 1
        self._held[owner] += 1

    def _wake(self, owner: str) -> None:
        waiters = self._waiting[owner]
        self._waiting.move_to_end(owner)
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():  # its task may have been cancelled, and does not know it yet
                self._grant(owner)
                waiter.set_result(None)
                break
        if not waiters:
            del self._waiting[owner]

    def _withdraw(self, owner: str, waiter: _Waiter) -> None:
        waiters = self._waiting.get(owner)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiting[owner]
