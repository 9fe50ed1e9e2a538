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
class _SharedTask(Generic[V]):
    task: asyncio.Task[V]
    waiters: int = 0


class SingleFlight(Generic[K, V]):
    """Runs at most one piece of work a key at a time."""

    def __init__(self) -> None:
        self._shared: dict[K, _SharedTask[V]] = {}
        self._tasks: set[asyncio.Task[V]] = set()  # those too that nobody waits for any more

    def __len__(self) -> int:
        return len(self._shared)

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The result of `work`, or of the same work that somebody else has begun.

        Raises what the work raises, and `Cancelled` if `aclose` came first.
        """
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = self._begin(key, work)
        shared.waiters += 1
        try:
            await asyncio.wait([shared.task])  # does not cancel what it waits for
        finally:
            shared.waiters -= 1
            if not shared.waiters and not shared.task.done():
                self._forget(key, shared)  # at once: nobody may join work that is being cancelled
                shared.task.cancel()
        if shared.task.cancelled():
            raise Cancelled
        return shared.task.result()

    async def aclose(self) -> None:
        """End all work that is under way; its callers get `Cancelled`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> _SharedTask[V]:
        shared = _SharedTask(asyncio.get_running_loop().create_task(work()))
        self._tasks.add(shared.task)
        shared.task.add_done_callback(self._tasks.discard)
        shared.task.add_done_callback(lambda _: self._forget(key, shared))
        return shared

    def _forget(self, key: K, shared: _SharedTask[V]) -> None:
        if self._shared.get(key) is shared:
            del self._shared[key]
