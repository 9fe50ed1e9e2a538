"""The queue that a command is about, and how commands open it."""

from __future__ import annotations

import asyncio
import os
import pwd
from dataclasses import dataclass, field
from functools import cached_property
from random import SystemRandom
from typing import TYPE_CHECKING, TypeVar

from mailrider.cli.owner import become_owner
from mailrider.cli.setup import choose_queue
from mailrider.clock import SystemClock
from mailrider.config import load, queue_location
from mailrider.model.event import discard
from mailrider.queue.sqlite.shards import ShardsReader, further_shard, shard_location, shards_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from mailrider.config import Configuration
    from mailrider.queue.service import DeliveryQueue
    from mailrider.queue.settings import QueueSettings
    from mailrider.queue.sqlite.store import SQLiteStore

T = TypeVar("T")


def operator() -> str:
    """Who runs this, as the system knows him: `root (anna)` if sudo says who became root."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    became = os.environ.get("SUDO_USER", "") if os.getuid() == 0 else ""
    return f"{name} ({became[:32]})" if became else name


@dataclass(frozen=True)
class ChosenQueue:
    """The queue that a command is about; looked for when it is needed, so that `--help` needs none."""

    path: str | None
    name: str | None
    given: QueueSettings | None = None
    beside: tuple[Path, ...] = ()  # where the other queues are that the same command looks into
    operator: str = field(default_factory=operator)

    @cached_property
    def configuration(self) -> Configuration:
        """The configuration. Raises `ConfigError`."""
        return load(self.path)

    @cached_property
    def settings(self) -> QueueSettings:
        """The settings of the queue. Raises `ConfigError`."""
        return self.given or choose_queue(self.configuration, self.name, "`mailrider queue --queue NAME`")

    @property
    def location(self) -> Path:
        """Its directory, to be opened by the user whom it belongs to."""
        self.become_owner()
        return queue_location(self.settings)

    def become_owner(self) -> None:
        """Root becomes the user whom it belongs to."""
        become_owner(queue_location(self.settings), *self.beside)

    @property
    def shards(self) -> list[int]:
        """The shards of the queue that are there, whatever `workers` says."""
        return shards_in(self.location)

    def look(self, work: Callable[[ShardsReader], Awaitable[T]], otherwise: T) -> T:
        """Look into the queue without changing anything, on a full disk and on one that is read-only; `otherwise` if
        there is none yet."""
        if not self.shards:
            return otherwise

        async def run() -> T:
            return await work(ShardsReader(self.location, SystemClock()))

        return asyncio.run(run())

    def with_queue(self, work: Callable[[DeliveryQueue], Awaitable[T]], otherwise: T) -> T:
        """Do something with the queue, without delivering; `otherwise` if there is none yet."""
        if not self.shards:
            return otherwise

        import uvloop

        from mailrider.app.targets import make_queue  # with all that delivers

        async def run() -> T:
            async with make_queue(self.settings, None, SystemClock(), SystemRandom(), discard) as queue:
                return await work(queue)

        return uvloop.run(run())

    def with_stores(self, work: Callable[[SQLiteStore], Awaitable[T]]) -> list[T]:
        """Do something with the store of each shard that is there, one after the other."""
        if not self.shards:
            return []

        import uvloop

        from mailrider.queue.sqlite.store import SQLiteStore

        async def run() -> list[T]:
            done: list[T] = []
            for each in self.shards:
                place, shard = shard_location(self.location, each), further_shard(self.location, each)
                async with SQLiteStore(place, SystemClock(), shard=shard) as store:
                    done.append(await work(store))
            return done

        return uvloop.run(run())
