"""The queue's store in SQLite: one file, one writer thread, durable by group commit.

WAL with synchronous FULL: what was answered survives the loss of power. Reads have a connection and a thread of their
own and never wait for a writer; the log is kept short by another (`queue.sqlite.wal`). The file is opened under a lock,
so that of two processes only one creates, migrates or sets aside.

A corrupt file is set aside under another name, at once if it is found when opening, at the next opening otherwise; as
long as it lies there nothing is accepted. Nothing is repaired silently: what was in it is the operator's to decide.

Other processes are told of new work through `queue.sqlite.signals`; `changed_elsewhere` finds what nobody was told of.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from mailrider.clock import QueueClock
from mailrider.model.event import discard
from mailrider.model.queue_event import HeldAfterDeaths, RecipientsUnreadable
from mailrider.queue.disk import ROWS, Disk
from mailrider.queue.fairness import BY_DOMAIN
from mailrider.queue.history import OFF, HistoryBounds
from mailrider.queue.ids import first_id_at, format_id, microseconds
from mailrider.queue.message import Claimed, fitting
from mailrider.queue.sqlite import history, views
from mailrider.queue.sqlite import statements as sql
from mailrider.queue.sqlite.commands import carry_out
from mailrider.queue.sqlite.contents import Contents
from mailrider.queue.sqlite.file import StoreFile, pragma
from mailrider.queue.sqlite.leases import StoreLeases
from mailrider.queue.sqlite.rows import destinations_from, filter_values
from mailrider.queue.sqlite.space import Space
from mailrider.queue.sqlite.threads import ReadThread
from mailrider.queue.sqlite.transactions import Transactions
from mailrider.queue.sqlite.views import from_json
from mailrider.queue.sqlite.wal import WALKeeper
from mailrider.queue.sqlite.writer import Add, Settle, StoreCall, Writer, translate
from mailrider.queue.store import CommandResult, QueueCommand, StoreFull, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from mailrider.clock import Clock
    from mailrider.model.event import Emit
    from mailrider.queue.attempt_notes import AttemptNotes
    from mailrider.queue.fairness import DestinationOf
    from mailrider.queue.message import (
        DueDestination,
        Entry,
        Filter,
        LeasedJob,
        NewMessage,
        Quota,
        Settled,
        Settlement,
        Stats,
        StoredMessage,
    )
    from mailrider.queue.sqlite.file import FurtherShard
    from mailrider.queue.sqlite.owner import Identity
    from mailrider.queue.sqlite.views import HistoryFilter
    from mailrider.smtp.content import Content

T = TypeVar("T")

MOST_TRIMS: Final = 100  # transactions of one round of housekeeping that delete facts
SELECTED: Final = 2000  # recipients that one transaction of a command changes


class SQLiteStore:
    """A `Store` in the directory `location`. New mail is refused while less than `reserve` octets of the disk are free;
    None: what suits the disk. `history`: which facts are kept. `shard`: what it belongs to; None: shard 0.
    `holds_deadly`: see `queue.sqlite.deaths`. `identity` and `fault` are for tests that die."""

    def __init__(
        self,
        location: Path,
        clock: Clock,
        *,
        destination_of: DestinationOf = BY_DOMAIN,
        emit: Emit = discard,
        reserve: int | None = None,
        history: HistoryBounds = OFF,
        shard: FurtherShard | None = None,
        holds_deadly: bool = False,
        identity: Identity | None = None,
        fault: Callable[[str], None] | None = None,
    ) -> None:
        self._disk = Disk(location, reserve, clock.monotonic)
        self._file = StoreFile(location, clock, self._disk, shard)
        self._clock = clock if isinstance(clock, QueueClock) else QueueClock(clock)
        self._emit = emit
        self._fault = fault
        self._transactions = Transactions(destination_of, writes_facts=history.is_on)
        self._history = history
        self._leases = StoreLeases(
            location, self._clock, self._transactions, identity=identity, holds_deadly=holds_deadly
        )
        self._reader = ReadThread("mailrider queue reader", self._file.note_damage)
        self._supplier = ReadThread("mailrider queue supplier", self._file.note_damage)
        self._contents = Contents(self._transactions, self._ask, self._ask_with_space, self._reader, self._supplier)
        self._stack = ExitStack()
        self._writer: Writer | None = None
        self._keeper: WALKeeper | None = None
        self._space: Space | None = None
        self._data_version = 0
        self.recovered = 0

    @property
    def clock(self) -> QueueClock:
        """The time of what is stored."""
        return self._clock

    @property
    def lease(self) -> int:
        """See `Store`."""
        return self._transactions.lease

    @property
    def begun(self) -> AttemptNotes | None:
        """See `Store`."""
        return self._leases.begun

    @property
    def last_id(self) -> int:
        """See `Store`."""
        return self._leases.last_id

    # Opening and closing ---------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._open)
        except (sqlite3.Error, OSError) as error:
            self._stack.close()
            raise translate(error) from error
        if self._writer is not None:
            self._writer.start()
        try:
            self.recovered = await self._ask(StoreCall(self._leases.register))
            self._tell_of_deadly()
            await self._remove_left_notes()
            with suppress(StoreFull):  # what is not deleted now is later
                await self._contents.sweep()
        except BaseException:
            await self._close()
            raise
        return self

    def _open(self) -> None:
        file, stack = self._file, self._stack
        connection = file.open(stack)
        reading, supplying = file.connect(stack, reads=True), file.connect(stack, reads=True)
        keeper = WALKeeper(file.path, connection, file.connect(stack), self._disk.scale)
        space = Space(self._disk, file, self._transactions, connection, keeper, self._ask, self._emit)
        self._disk.fill_spare_file()
        self._reader.open(reading)
        self._supplier.open(supplying)
        self._keeper, self._space = keeper, space
        self._writer = Writer(
            connection,
            self._transactions,
            keeper,
            file.note_damage,
            self._clock.monotonic,
            room=space.make,
            fault=self._fault,
        )

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                await self._ask(StoreCall(self._leases.resign))
        except StoreUnavailable:
            # The leases stay; whoever opens the store next sees that this process is dead.
            pass
        finally:
            await self._close()

    async def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.stop()
        if self._keeper is not None:
            await self._keeper.stop()
        await self._reader.close()
        await self._supplier.close()
        self._keeper = self._space = None
        self._stack.close()

    async def keep_alive(self, now: datetime) -> int:
        """See `Store`; sweeps as well what nothing refers to any more."""
        freed: int = await self._ask(StoreCall(self._leases.renew))
        self._tell_of_deadly()
        await self._remove_left_notes()
        await self._contents.sweep()
        await self._trim_history()
        if self._space is not None:
            await self._space.keep()
        return freed

    def _tell_of_deadly(self) -> None:
        held, self._leases.held = self._leases.held, []
        if held:
            self._emit(HeldAfterDeaths(tuple(map(format_id, held))))

    async def free_others(self) -> int:
        """End the leases of all others, for whoever has the store alone; how many recipients became free."""
        freed = await self.within(self._leases.free_others)
        await self._remove_left_notes()
        return freed

    async def _remove_left_notes(self) -> None:
        if self._leases.has_left_notes:
            await self._ask(StoreCall(self._leases.remove_left_notes))

    # Leases ----------------------------------------------------------------------------------------------------------

    async def claim(self, quotas: Sequence[Quota], now: datetime, octets: int = 0) -> Claimed:
        """See `Store`."""
        jobs: list[LeasedJob] = []
        left: dict[str, datetime] = {}
        for start in range(0, len(quotas), sql.MOST_QUOTAS):
            some = quotas[start : start + sql.MOST_QUOTAS]
            at = microseconds(now)
            values: list[str | int] = [value for each in some for value in (each.destination, at, each.jobs)]
            count = 1 << (len(some) - 1).bit_length()
            values += ("", at, 0) * (count - len(some))
            names = [each.destination for each in some]
            try:
                claimed = await self._claim(sql.claimable(count), [*values, at], names)
            except StoreUnavailable:
                if not jobs:
                    raise
                # What is leased already is not lost for it: there may be more of these.
                left.update(dict.fromkeys([each.destination for each in quotas[start:]], now))
                break
            jobs += claimed.jobs
            left.update(claimed.left)
        await self._contents.fill(fitting(jobs, octets))
        return Claimed(jobs, left)

    async def claim_older(self, than: datetime, limit: int, *, unwarned: bool = False) -> list[LeasedJob]:
        """See `Store`."""
        values = {"before": first_id_at(than), "limit": limit, "unwarned": int(unwarned)}
        return (await self._claim(sql.OLDER, values, [])).jobs

    async def _claim(self, statement: str, values: dict[str, Any] | list[Any], destinations: Sequence[str]) -> Claimed:
        claimed: Claimed
        lease = partial(self._leases.lease, statement, values, destinations)
        claimed, unreadable = await self._ask(StoreCall(lease))
        for each in unreadable:
            self._emit(RecipientsUnreadable(format_id(each.message), len(each.ids), each.reason))
        return claimed

    async def give_back(self, jobs: Sequence[LeasedJob]) -> None:
        """See `Store`."""
        await self._ask(StoreCall(partial(self._leases.give_back, jobs)))

    # Messages --------------------------------------------------------------------------------------------------------

    async def add(self, message: NewMessage, *, leased: bool) -> None:
        """See `Store`."""
        stored = message.info.stored
        if stored is None:
            await self._ask_with_space(Add(message, leased), message.info.size)
        else:
            await self._contents.name(stored, Add(message, leased))

    async def _ask_with_space(self, request: Add | StoreCall, octets: int) -> None:
        """Ask for something that brings new mail: it has to leave a reserve of the disk free. Raises `StoreFull`."""
        disk, keeper, written = self._disk, self._keeper, self._transactions.written
        octets += ROWS
        if not disk.take(octets, 0 if keeper is None else keeper.uncarried + written) and self._space is not None:
            await self._space.find(octets)
        disk.coming += octets
        try:
            await self._ask(request)
        finally:
            disk.coming -= octets

    def settle(self, settlement: Settlement) -> Awaitable[Settled]:
        """See `Store`."""
        return self._ask(Settle(settlement))

    async def write_content(self, chunks: AsyncIterable[bytes]) -> int:
        """See `Store`."""
        return await self._contents.write(chunks)

    async def content(self, job: LeasedJob) -> Content:
        """See `Store`."""
        return await self._contents.read(job)

    # What operators look at and do -----------------------------------------------------------------------------------

    async def destinations(self, after: str | None, limit: int) -> list[DueDestination]:
        """See `Store`."""
        return await self._reader.run(
            lambda connection: destinations_from(from_json(connection, sql.DESTINATIONS, after=after, limit=limit))
        )

    async def page(self, wanted: Filter, after: int, limit: int) -> list[Entry]:
        """See `Store`."""
        return await self._reader.run(partial(views.page, wanted, after, limit, self._clock.shift))

    async def find(self, message_id: int) -> StoredMessage | None:
        """See `Store`."""
        return await self._reader.run(partial(views.find, message_id, self._clock.shift))

    async def octets(self, message_id: int) -> bytes | None:
        """See `Store`."""
        return await self._reader.run(partial(views.octets, message_id))

    async def stats(self, now: datetime, destinations: int) -> Stats:
        """See `Store`."""
        return await self._reader.run(partial(views.stats, now, destinations, self._clock.shift))

    async def command(self, command: QueueCommand, wanted: Filter, now: datetime, by: str = "") -> CommandResult:
        """See `Store`. In steps, so that others may write in between."""
        changed = later = after = 0
        limit = SELECTED
        while True:
            values = {**filter_values(wanted, self._clock.shift), "after": after, "limit": limit}
            try:
                carried_out = partial(carry_out, self._transactions, command, values, microseconds(now), by)
                step, waiting, after = await self._ask(StoreCall(carried_out))
            except StoreFull:
                # What a step changes has to find space in the log.
                if limit == 1:
                    raise
                limit = max(1, limit // 10)
                continue
            changed, later = changed + step, later + waiting
            if not after:
                break
        if command is QueueCommand.REMOVE:
            await self._contents.sweep()
        return CommandResult(changed, later)

    # What is kept of messages that are gone --------------------------------------------------------------------------

    async def _trim_history(self) -> None:
        for _ in range(MOST_TRIMS):
            before = microseconds(self._clock.now() - self._history.age)
            if not await self.within(partial(history.trim, self._transactions, before, self._history.facts)):
                return

    async def drop_history(self, wanted: HistoryFilter) -> int:
        """Erase the facts about a message or an address; how many there were."""
        return await self.within(partial(history.drop, wanted))

    # The writer's thread ---------------------------------------------------------------------------------------------

    async def within(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something in a transaction of its own."""
        done: T = await self._ask(StoreCall(work))
        return done

    async def changed_elsewhere(self) -> bool:
        """See `Store`."""
        version: int = await self._ask(StoreCall(_data_version, outside=True))
        changed, self._data_version = version != self._data_version, version
        return changed

    def _ask(self, request: Add | Settle | StoreCall) -> Awaitable[Any]:
        if self._writer is None:
            raise StoreUnavailable("the queue's store is not open")
        return self._writer.ask(request)


def _data_version(connection: sqlite3.Connection) -> int:
    return pragma(connection, "data_version")
