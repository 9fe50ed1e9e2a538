"""The shards of a queue: each worker of a daemon has a store of its own, since one SQLite file has one writer.

Shard 0 is the queue's directory itself, and `shard-NN` in it are the others. Nothing but `queue merge` moves a message
from one to another. A shard may be there that no worker has any more; what is in it is delivered by one that remains
(`queue.worker_place`).

To whoever looks, they are one queue: lists are merged in the order of ids, numbers are added, and a message is found by
its id, which says where it was taken in.
"""

from __future__ import annotations

import heapq
import re
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from mailrider.queue.ids import SHARDS, place_of
from mailrider.queue.message import DestinationCount, Stats
from mailrider.queue.sqlite import views
from mailrider.queue.sqlite.file import DAMAGED, FILE, FurtherShard
from mailrider.queue.sqlite.merge_notes import NOTHING_MOVED, MergeNotes, read_notes
from mailrider.queue.sqlite.reader import SQLiteReader
from mailrider.queue.sqlite.views import TracedMessage
from mailrider.queue.store import CommandResult

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.queue.history import Fact
    from mailrider.queue.message import Entry, Filter, StoredMessage
    from mailrider.queue.sqlite.store import SQLiteStore
    from mailrider.queue.sqlite.views import HistoryFilter
    from mailrider.queue.store import QueueCommand

    ReadPage = Callable[[int, int], Awaitable[Sequence[Entry]]]
    """Recipients of one shard, those behind an id, so many at most."""

_NAME: Final = re.compile(r"shard-([0-9]{2,4})")

PAGE: Final = 500  # recipients of a shard that are read at a time
EVERY: Final = -1  # destinations: SQLite's limit for all


def shard_location(location: Path, number: int) -> Path:
    """The directory of a shard of the queue in that directory."""
    return location / f"shard-{number:02}" if number else location


def further_shard(location: Path, number: int, *, alone: bool = False) -> FurtherShard | None:
    """What a store of the queue in that directory has to know; None for shard 0."""
    return FurtherShard(location, number, alone) if number else None


def shards_in(location: Path) -> list[int]:
    """The shards that are there, in their order; none if nobody has used the queue yet."""
    try:
        names = [each.name for each in location.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbers = {0} | {int(found[1]) for name in names if (found := _NAME.fullmatch(name))}
    return sorted(each for each in numbers if each < SHARDS and _holds_store(shard_location(location, each)))


def _holds_store(directory: Path) -> bool:
    """True for one that was set aside, too: whoever opens it is told."""
    return (directory / FILE).exists() or any(directory.glob(f"{DAMAGED}*"))


def likely_first(id: int, shards: Sequence[int]) -> Iterator[int]:
    """These shards, the one first in which a message of that id was taken in, as far as its id says that."""
    place = place_of(id)
    own = place if place < SHARDS else 0
    yield from (each for each in shards if each == own)
    yield from (each for each in shards if each != own)


async def merged(pages: Sequence[ReadPage], step: int = PAGE) -> AsyncGenerator[Entry, None]:
    """The recipients of all shards in the order of ids; no more than so many of each are in memory."""
    waiting: list[tuple[int, int, int]] = []  # a heap: its id, its message's, its shard
    read: list[deque[Entry]] = [deque() for _ in pages]

    async def fill(shard: int, after: int) -> None:
        read[shard].extend(await pages[shard](after, step))
        put(shard)

    def put(shard: int) -> None:
        if read[shard]:
            heapq.heappush(waiting, (read[shard][0].recipient_id, read[shard][0].message_id, shard))

    for shard in range(len(pages)):
        await fill(shard, 0)
    while waiting:
        _, _, shard = heapq.heappop(waiting)
        entry = read[shard].popleft()
        yield entry
        if read[shard]:
            put(shard)
        else:
            await fill(shard, entry.recipient_id)


def added(parts: Sequence[Stats], destinations: int) -> Stats:
    """The numbers of a queue, from those of its shards with all their destinations."""
    counts: dict[str, DestinationCount] = {}
    for part in parts:
        for each in part.destinations:
            known = counts.get(each.destination)
            counts[each.destination] = each if known is None else _both(known, each)
    order = sorted(counts.values(), key=lambda each: (-(each.queued + each.active + each.held), each.destination))
    return Stats(
        sum(part.messages for part in parts),
        sum(part.octets for part in parts),
        tuple(order[:destinations]),
        {age: sum(part.ages.get(age, 0) for part in parts) for part in parts for age in part.ages},
        min((part.oldest for part in parts if part.oldest is not None), default=None),
    )


def _both(one: DestinationCount, other: DestinationCount) -> DestinationCount:
    return replace(
        one,
        queued=one.queued + other.queued,
        active=one.active + other.active,
        held=one.held + other.held,
        in_doubt=one.in_doubt + other.in_doubt,
        oldest=min(one.oldest, other.oldest),
        next_due=min((each.next_due for each in (one, other) if each.next_due is not None), default=None),
    )


class SQLiteShards:
    """The shards of a queue beside `own`, for commands: each is opened for as long as that takes."""

    def __init__(self, location: Path, own: int, clock: Clock, make_store: Callable[[int], SQLiteStore]) -> None:
        self._location = location
        self._own = own
        self._clock = clock
        self._make_store = make_store

    async def command(self, command: QueueCommand, wanted: Filter, by: str) -> CommandResult:
        """Do something to all recipients in them that are meant."""
        changed = later = 0
        for each in await self._meant(wanted):
            async with self._make_store(each) as store:
                done = await store.command(command, wanted, store.clock.now(), by)
            changed, later = changed + done.changed, later + done.later
        return CommandResult(changed, later)

    async def _meant(self, wanted: Filter) -> list[int]:
        shards = [each for each in shards_in(self._location) if each != self._own]
        if wanted.message is None or not shards:
            return shards
        found = await ShardsReader(self._location, self._clock).shard_of(wanted.message)
        return [each for each in shards if each == found]


class ShardsReader:
    """A look into all shards that are there, as into one queue: nothing is written, registered or locked."""

    def __init__(self, location: Path, clock: Clock) -> None:
        self._readers = {each: SQLiteReader(shard_location(location, each), clock) for each in shards_in(location)}
        self._moved: dict[int, MergeNotes] = {}

    @property
    def shards(self) -> list[int]:
        """Those that are there."""
        return list(self._readers)

    def entries(self, wanted: Filter, most: int | None = None) -> AsyncGenerator[Entry, None]:
        """Recipients in the order of ids. `most`: more than so many are not asked for."""

        return merged([partial(self._page, each, wanted) for each in self._readers], min(PAGE, most or PAGE))

    async def _page(self, shard: int, wanted: Filter, after: int, limit: int) -> Sequence[Entry]:
        moved_out = await self._moved_out(shard)
        while found := await self._readers[shard].look(partial(views.page, wanted, after, limit)):
            left = [each for each in found if each.message_id not in moved_out.messages]
            if left:
                return left
            after = found[-1].recipient_id
        return ()

    async def _moved_out(self, shard: int) -> MergeNotes:
        """What lies in a shard still, and was moved to shard 0 by somebody who died before he deleted it."""
        if not shard or 0 not in self._readers:
            return NOTHING_MOVED
        if shard not in self._moved:
            self._moved[shard] = await self._readers[0].look(lambda _, connection: read_notes(connection, shard))
        return self._moved[shard]

    async def shard_of(self, message_id: int) -> int | None:
        """Where a message is; None if it is in none of them."""
        async for each in self._where_it_may_be(message_id):
            if await self._readers[each].look(partial(views.find, message_id)) is not None:
                return each
        return None

    async def _where_it_may_be(self, message_id: int) -> AsyncGenerator[int, None]:
        for each in likely_first(message_id, self.shards):
            if message_id not in (await self._moved_out(each)).messages:
                yield each

    async def find(self, message_id: int) -> StoredMessage | None:
        """See `Store`."""
        found, _ = await self.find_with_history(message_id)
        return found

    async def octets(self, message_id: int) -> bytes | None:
        """See `Store`."""
        async for each in self._where_it_may_be(message_id):
            octets = await self._readers[each].look(lambda _, connection: views.octets(message_id, connection))
            if octets is not None:
                return octets
        return None

    async def find_with_history(self, message_id: int) -> tuple[StoredMessage | None, list[Fact]]:
        """As `find`, with what is told of the message."""
        facts: list[Fact] = []
        async for each in self._where_it_may_be(message_id):
            message, told = await self._readers[each].look(partial(views.find_with_history, message_id))
            if message is not None:
                return message, told
            facts = facts or told
        return None, facts

    async def stats(self, now: datetime, destinations: int) -> Stats:
        """See `Store`."""
        if len(self._readers) == 1:
            (reader,) = self._readers.values()
            return await reader.look(partial(views.stats, now, destinations))
        parts = [
            await reader.look(partial(views.stats, now, EVERY, without=(await self._moved_out(shard)).messages))
            for shard, reader in self._readers.items()
        ]
        return added(parts, destinations)

    async def trace(self, wanted: HistoryFilter, limit: int) -> list[TracedMessage]:
        """The messages that are meant, the oldest first: each as far as it is queued, and what is told of it."""
        found: dict[int, TracedMessage] = {}
        for shard, reader in self._readers.items():
            moved = await self._moved_out(shard)
            for number, message, facts in await reader.look(partial(views.traced, wanted, limit)):
                known = found.get(number, TracedMessage(number, None, []))
                # Facts of a message that is being moved may lie beside it in the other shard.
                told = sorted(
                    [*known.facts, *(each for each in facts if each.number > moved.facts)], key=lambda each: each.at
                )
                found[number] = TracedMessage(
                    number, known.message or (None if number in moved.messages else message), told
                )
        return [found[number] for number in sorted(found)][-limit:]
