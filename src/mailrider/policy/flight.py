"""Single flight: however many ask for the same thing at once, the work is done once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mailrider.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

K = TypeVar("K", bound="Hashable")
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """Work under way, by key. Cancelling one who waits cancels neither the work nor the others."""

    def __init__(self) -> None:
        self._flights: dict[K, asyncio.Task[T]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the work under way for `key`, which is begun if there is none."""
        flight = self._flights.get(key)
        if flight is None:
            if self._closed:
                raise LocalError("closed: no new work is begun")
            flight = asyncio.create_task(work())
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key))
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if flight.cancelled() and waiter is not None and not waiter.cancelling():
                raise LocalError("closed while the work was under way") from None
            raise

    async def close(self) -> None:
        """Cancel what is under way, and wait until it has ended; who waits for it gets a `LocalError`."""
        self._closed = True
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
