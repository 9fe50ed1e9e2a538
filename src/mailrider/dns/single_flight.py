"""Single flight: callers who want the same thing at the same time share the work.

The work is a task of its own, so one caller's cancellation does not take it from the others; it is cancelled
when the last caller has gone. `aclose` ends what is under way.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable
    from typing import Any

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class Cancelled(Exception):
    """The work was ended by `aclose`, not by whoever waited for it."""


@dataclass(slots=True, eq=False)
class _Flight(Generic[V]):
    task: asyncio.Task[V]
    waiters: int = 0


class SingleFlight(Generic[K, V]):
    """Runs at most one piece of work a key at a time."""

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[V]] = {}
        self._tasks: set[asyncio.Task[V]] = set()  # those too that nobody waits for any more

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The result of `work`, or of the same work that somebody else has begun.

        Raises what the work raises, and `Cancelled` if `aclose` came first.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = self._begin(key, work)
        flight.waiters += 1
        try:
            await asyncio.wait([flight.task])  # does not cancel what it waits for
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                self._forget(key, flight)  # at once: nobody may join work that is being cancelled
                flight.task.cancel()
        if flight.task.cancelled():
            raise Cancelled
        return flight.task.result()

    async def aclose(self) -> None:
        """End all work that is under way; its callers get `Cancelled`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> _Flight[V]:
        flight = _Flight(asyncio.get_running_loop().create_task(work()))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        flight.task.add_done_callback(lambda _: self._forget(key, flight))
        return flight

    def _forget(self, key: K, flight: _Flight[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
