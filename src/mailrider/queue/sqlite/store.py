"""The queue's store in SQLite: one file, one writer thread, durable by group commit.

WAL with synchronous FULL: what was answered survives the loss of power. Reads have a connection and a thread of their
own and never wait for a writer; the log is kept short by another (`queue.sqlite.wal`). The file is opened under a lock,
so that of two processes only one creates, migrates or sets aside.

A corrupt file is set aside under another name, at once if it is found when opening, at the next opening otherwise; as
long as it lies there nothing is accepted. Nothing is repaired silently: what was in it is the operator's to decide.

Other processes are told of new work by `poke`; `changed_elsewhere` is the safety net.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from mailrider.errors import InvalidValue
from mailrider.model.event import discard
from mailrider.model.queue_event import HeldAfterDeaths, QueueHasSpace, QueueShort, RecipientsUnreadable
from mailrider.queue.begun import BegunAttempts, BegunFile, read_begun
from mailrider.queue.disk import Disk
from mailrider.queue.encode import compact
from mailrider.queue.history import ACTS, OFF, HistoryBounds
from mailrider.queue.ids import first_id_at, format_id, microseconds
from mailrider.queue.message import BY_DOMAIN, Claimed, fitting
from mailrider.queue.queue_clock import QueueClock
from mailrider.queue.sqlite import statements as sql
from mailrider.queue.sqlite import views
from mailrider.queue.sqlite.deaths import hold_deadly
from mailrider.queue.sqlite.file import StoreFile, pragma
from mailrider.queue.sqlite.owner import Identity, Life, current_boot
from mailrider.queue.sqlite.rows import destinations_from, filter_values, jobs_from
from mailrider.queue.sqlite.transactions import FACT, ROW, Transactions, insert_all
from mailrider.queue.sqlite.views import from_json
from mailrider.queue.sqlite.wal import WALKeeper
from mailrider.queue.sqlite.writer import Add, Settle, StoreCall, Writer, translate
from mailrider.queue.store import Done, IdTaken, QueueCommand, StoreDamaged, StoreFull, StoreUnavailable
from mailrider.smtp.content import CHUNK, Content

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from mailrider.clock import Clock
    from mailrider.model.event import Emit
    from mailrider.queue.message import (
        DestinationOf,
        DueDestination,
        Entry,
        Filter,
        Job,
        NewMessage,
        Quota,
        Settled,
        Settlement,
        Stats,
        StoredMessage,
    )
    from mailrider.queue.sqlite.file import FurtherShard
    from mailrider.queue.sqlite.rows import Unreadable
    from mailrider.queue.sqlite.views import HistoryFilter

T = TypeVar("T")

EXPIRY: Final = timedelta(minutes=10)  # of a registration whose process cannot be looked at; renewed much more often
SWEPT: Final = 64  # chunks that one transaction deletes: 4 MiB, some 5 ms
VACUUMED: Final = 2000  # pages given back to the file system at a time: 8 MiB
STEPPED: Final = 200  # the same on a disk that is short: no more than the log has space for
TRIMMED: Final = 2000  # facts that one transaction deletes
MOST_TRIMS: Final = 100  # of one round of housekeeping
MOST_VACUUMS: Final = 100  # of one round of housekeeping
PAGE: Final = 4096  # octets
MOST_PAGES: Final = 0xFFFFFFFE  # of a file, if the disk has space: sqlite.org/limits.html
SELECTED: Final = 2000  # recipients that one transaction of a command changes


def _no_fault(_: str) -> None:
    """Nothing pulls the plug."""


@dataclass(slots=True)
class _Spool:
    """A content that is being written; its id is known once its first chunk stands."""

    content: int = 0
    is_given_up: bool = False


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
        fault: Callable[[str], None] = _no_fault,
    ) -> None:
        self._disk = Disk(location, reserve, clock.monotonic)
        self._is_short = False
        self._file = StoreFile(location, clock, self._disk, shard)
        self._clock = clock if isinstance(clock, QueueClock) else QueueClock(clock)
        self._emit = emit
        self._identity = identity
        self._fault = fault
        self._transactions = Transactions(destination_of, writes_facts=history.is_on)
        self._history = history
        self._location = location
        self._holds_deadly = holds_deadly
        self.begun = BegunAttempts()
        self._deadly: list[int] = []  # messages that are held since a moment ago
        self._stack = ExitStack()
        self._writer: Writer | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._suppliers: ThreadPoolExecutor | None = None
        self._keeper: WALKeeper | None = None
        self._committing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._supplying: sqlite3.Connection | None = None
        self._data_version = 0
        self._spooling: set[int] = set()  # contents that this process is writing, for messages that are to come
        self.recovered = 0
        self.last_id = 0

    @property
    def clock(self) -> QueueClock:
        """The time of what is stored: see `KeepsTime`."""
        return self._clock

    # Opening and closing ---------------------------------------------------------------------------------------------

    @property
    def lease(self) -> int:
        """See `Store`."""
        return self._transactions.lease

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(None, self._open)
        except (sqlite3.Error, OSError) as error:
            self._stack.close()
            raise translate(error) from error
        self._readers = ThreadPoolExecutor(1, "mailrider queue reader")
        self._suppliers = ThreadPoolExecutor(1, "mailrider queue supplier")  # of contents; its thread begins with one
        self._writer = Writer(
            connection,
            self._transactions,
            self._commit_point,
            self._file.note_damage,
            self._clock.monotonic,
            room=self._room,
        )
        self._writer.start()
        try:
            self.recovered = await self._writer.ask(StoreCall(self._register))
            self._tell_of_deadly()
            with suppress(StoreFull):  # what is not deleted now is later
                await self._sweep()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                await self._writer.ask(StoreCall(self._resign))
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
        for threads in (self._readers, self._suppliers):
            if threads is not None:
                await asyncio.get_running_loop().run_in_executor(None, threads.shutdown)
        self._readers = self._suppliers = self._keeper = None
        self._committing = self._reading = self._supplying = None
        self._stack.close()

    def _open(self) -> sqlite3.Connection:
        connection = self._file.open(self._stack)
        self._reading = self._file.connect(self._stack, reads=True)
        self._supplying = self._file.connect(self._stack, reads=True)
        self._committing = connection
        self._keeper = WALKeeper(self._file.path, connection, self._file.connect(self._stack), self._disk.scale)
        self._disk.hold_spare()
        return connection

    # Leases ----------------------------------------------------------------------------------------------------------

    def _register(self, connection: sqlite3.Connection) -> int:
        identity = self._identity or Identity.own()
        self._clock.go_on_from(views.read_anchor(connection), current_boot())
        expires = microseconds(self._clock.now() + EXPIRY)
        self._transactions.lease = connection.execute(sql.REGISTER, (identity.encode(), expires)).lastrowid or 0
        freed = self._free_dead(connection)
        self._note_begun()
        if connection.execute(sql.IS_ALONE).fetchone()[0]:
            self._clock.go_on_from(None, "")
        self._leave_anchor(connection)
        (self.last_id,) = connection.execute(sql.LAST_ID).fetchone()
        return freed

    def _note_begun(self) -> None:
        """Whoever finds us dead sees what was under way."""
        if self._holds_deadly:
            self.begun = BegunAttempts()
            with suppress(OSError):  # then no attempt counts as the reason of a death
                self.begun = BegunFile(self._begun_file(self.lease))

    def _begun_file(self, owner: int) -> Path:
        return self._location / f"queue.begun-{owner}"

    def _leave_anchor(self, connection: sqlite3.Connection) -> None:
        anchor = self._clock.anchor(current_boot())
        values = (anchor.boot, microseconds(anchor.at), microseconds(anchor.wall), anchor.monotonic)
        connection.execute(sql.SET_ANCHOR, values)

    def _resign(self, connection: sqlite3.Connection) -> None:
        self._leave_anchor(connection)
        self._free(connection, [self.lease])

    def _free_dead(self, connection: sqlite3.Connection) -> int:
        now = microseconds(self._clock.now())
        (owners,) = connection.execute(sql.OWNERS).fetchone()
        dead = [
            (owner, text)
            for owner, text, expires in json.loads(owners)
            if owner != self.lease and _is_dead(text, expires, now)
        ]
        if self._holds_deadly and (died := [owner for owner, text in dead if _died_alone(text)]):
            begun = [each for owner in died for each in read_begun(self._begun_file(owner))]
            self._deadly += hold_deadly(connection, died, begun)
        return self._free(connection, [owner for owner, _ in dead]) if dead else 0

    def _tell_of_deadly(self) -> None:
        deadly, self._deadly = self._deadly, []
        if deadly:
            self._emit(HeldAfterDeaths(tuple(map(format_id, deadly))))

    def _free(self, connection: sqlite3.Connection, owners: list[int]) -> int:
        values = {"owners": compact(owners), "ids": None}
        self._remove_given_back(connection, values)
        freed = connection.execute(sql.GIVE_BACK_ALL, values).rowcount
        self._transactions.written += ROW * freed
        connection.execute(sql.DELETE_OWNERS, (values["owners"],))
        for owner in owners:
            with suppress(OSError):
                self._begun_file(owner).unlink(missing_ok=True)
        return freed

    def _remove_given_back(self, connection: sqlite3.Connection, values: dict[str, Any]) -> None:
        (found,) = connection.execute(sql.REMOVE_GIVEN_BACK, values).fetchone()
        pairs = json.loads(found)
        if pairs:
            ids = [recipient for recipient, _ in pairs]
            self._transactions.delete(connection, ids, [message for _, message in pairs], ids)

    async def keep_alive(self, now: datetime) -> int:
        """See `Store`; sweeps as well what nothing refers to any more."""
        freed: int = await self._ask(StoreCall(self._renew))
        self._tell_of_deadly()
        await self._sweep()
        await self._trim_history()
        await self._give_pages_back()
        self._transactions.keeps_history = self._disk.hold_spare()
        self._disk.hold_log(self._file.log)
        if self._is_short:
            self._disk.count(await self._ask(StoreCall(self._usable, outside=True)))
            self._note_shortness(self._disk.left < self._disk.reserve)
        return freed

    async def _trim_history(self) -> None:
        """Delete facts that are too old or too many, the oldest first."""
        for _ in range(MOST_TRIMS):
            if await self._ask(StoreCall(self._trim)) < TRIMMED:
                return

    def _trim(self, connection: sqlite3.Connection) -> int:
        before = microseconds(self._clock.now() - self._history.age)
        values = {"step": TRIMMED, "before": before, "facts": self._history.facts}
        trimmed = connection.execute(sql.TRIM_HISTORY, values).rowcount
        connection.execute(sql.EMPTY_NEWEST, {"before": before})
        self._transactions.written += FACT * trimmed
        return trimmed

    async def drop_history(self, wanted: HistoryFilter) -> int:
        """Erase the facts about a message or an address; how many there were."""
        dropped: int = await self._ask(StoreCall(partial(_drop_facts, wanted)))
        return dropped

    async def _give_pages_back(self) -> None:
        """To the file system: some now and then; on a disk that is nearly full as many as it takes."""
        for _ in range(MOST_VACUUMS):
            wants_more = await self._ask(StoreCall(self._vacuum, outside=True))
            if not wants_more:
                return

    def _vacuum(self, connection: sqlite3.Connection) -> bool:
        """Give free pages back, once they are many; True if more should go. Only `executescript` steps through all."""
        free = pragma(connection, "freelist_count")
        is_tight = self._disk.is_tight()
        if not is_tight:
            self._bound_file(MOST_PAGES)
        pages = STEPPED if is_tight else max(STEPPED, round(VACUUMED * self._disk.scale))
        if free <= (0 if is_tight else max(VACUUMED, pragma(connection, "page_count") // 4)):
            return False
        try:
            connection.executescript(f"PRAGMA incremental_vacuum({pages})")
        except sqlite3.Error:
            return False  # the disk is too full even for that: later
        self._transactions.written += ROW * pages  # the next commit takes it up
        if is_tight and self._keeper is not None:
            self._keeper.make_room()
        return is_tight

    # A disk that is short --------------------------------------------------------------------------------------------

    async def _ask_with_space(self, request: Add | StoreCall, octets: int) -> None:
        """Ask for something that brings new mail: it has to leave a reserve of the disk free. Raises `StoreFull`."""
        disk, keeper = self._disk, self._keeper
        if not disk.take(octets, 0 if keeper is None else keeper.uncarried):
            # The pages of the file that are free count as well: the queue may have become empty.
            disk.count(await self._ask(StoreCall(self._usable, outside=True)))
            is_short = not disk.take(octets, 0)
            self._note_shortness(is_short)
            if is_short:
                raise StoreFull(
                    f"the disk of the queue is nearly full: {disk.left} octets are left, and new mail leaves"
                    f" {disk.reserve} (reserve)"
                )
        disk.coming += octets
        try:
            await self._ask(request)
        finally:
            disk.coming -= octets

    def _note_shortness(self, is_short: bool) -> None:
        if is_short and not self._is_short:
            self._emit(QueueShort(self._disk.left, self._disk.reserve))
        elif self._is_short and not is_short:
            self._emit(QueueHasSpace())
        self._is_short = is_short

    def _usable(self, connection: sqlite3.Connection) -> int:
        """Octets of the file that are free, without what it has to grow by when the log is carried over."""
        grows = max(0, PAGE * pragma(connection, "page_count") - self._file.path.stat().st_size)
        return PAGE * pragma(connection, "freelist_count") - grows

    def _room(self, is_needed: bool) -> Iterator[None]:
        """In the writer's thread: space for what could not be written, step by step."""
        if self._keeper is None:
            return
        self._keeper.make_room()
        self._bound_file()
        yield
        if not is_needed:
            return
        # The spare is for what has to be written. How attempts went can be missed, and stands in the log.
        self._transactions.keeps_history = False
        yield
        while self._disk.release() or self._forget_history():
            self._keeper.make_room()
            self._bound_file()
            yield

    def _bound_file(self, pages: int | None = None) -> None:
        """Let the file grow no further than the disk has space for: what stands in the log has to fit into it later,
        or the log could never be begun anew."""
        if self._committing is None:
            return
        with suppress(sqlite3.Error, OSError):
            if pages is None:
                self._disk.look()
                pages = (self._file.path.stat().st_size + self._disk.free + self._disk.spare) // PAGE
            self._committing.execute(f"PRAGMA max_page_count = {pages}")

    def _forget_history(self) -> bool:
        """The last that can be given up: how all former attempts went. False: there is nothing of it."""
        try:
            connection = self._committing
            return connection is not None and any(
                connection.execute(each).rowcount > 0 for each in (sql.FORGET_FACTS, sql.FORGET_HISTORY)
            )
        except sqlite3.Error:
            return False

    def _renew(self, connection: sqlite3.Connection) -> int:
        expires = microseconds(self._clock.now() + EXPIRY)
        if not connection.execute(sql.RENEW, (expires, self.lease)).rowcount:
            return self._register(connection)  # somebody held us for dead; what we had leased is lost
        self._leave_anchor(connection)
        return self._free_dead(connection)

    async def claim(self, quotas: Sequence[Quota], now: datetime, octets: int = 0) -> Claimed:
        """See `Store`."""
        jobs: list[Job] = []
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
        await self._fill(fitting(jobs, octets))
        return Claimed(jobs, left)

    async def _fill(self, jobs: Sequence[Job]) -> None:
        """Read the small contents of leased jobs at once."""
        if not jobs:
            return
        try:
            contents = await self._read(partial(_fetch_contents, [job.message_id for job in jobs]))
        except Exception:
            # They are leased, so they must get to whoever attempts them: that asks again, and tells what is wrong.
            return
        for job in jobs:
            octets = contents.get(job.message_id)
            if octets is not None:
                job.content = _small(job, octets)

    async def claim_older(self, than: datetime, limit: int, *, unwarned: bool = False) -> list[Job]:
        """See `Store`."""
        values = {"before": first_id_at(than), "limit": limit, "unwarned": int(unwarned)}
        return (await self._claim(sql.OLDER, values, [])).jobs

    async def _claim(self, statement: str, values: dict[str, Any] | list[Any], destinations: Sequence[str]) -> Claimed:
        claimed: Claimed
        claimed, unreadable = await self._ask(StoreCall(partial(self._lease_some, statement, values, destinations)))
        for each in unreadable:
            self._emit(RecipientsUnreadable(format_id(each.message), len(each.ids), each.reason))
        return claimed

    def _lease_some(
        self,
        statement: str,
        values: dict[str, Any] | list[Any],
        destinations: Sequence[str],
        connection: sqlite3.Connection,
    ) -> tuple[Claimed, list[Unreadable]]:
        jobs, unreadable = self._lease(statement, values, connection)
        left = from_json(connection, sql.LEFT, destinations=compact(destinations)) if destinations else []
        return Claimed(jobs, {each.destination: each.due for each in destinations_from(left)}), unreadable

    def _lease(
        self, statement: str, values: dict[str, Any] | list[Any], connection: sqlite3.Connection
    ) -> tuple[list[Job], list[Unreadable]]:
        """What cannot be read is held: it is the operator's to decide, and keeps nothing else up."""
        (ids,) = connection.execute(statement, values).fetchone()
        if ids == "[]":
            return [], []
        connection.execute(sql.LEASE, {"ids": ids, "lease": self.lease})
        (rows,) = connection.execute(sql.JOBS, {"ids": ids}).fetchone()
        jobs, unreadable = jobs_from(json.loads(rows), self.lease)
        self._transactions.written += ROW * len(jobs)
        if unreadable:
            held = [id for each in unreadable for id in each.ids]
            connection.execute(sql.SET_ASIDE, {"ids": compact(held)})
        return jobs, unreadable

    async def give_back(self, jobs: Sequence[Job]) -> None:
        """See `Store`."""
        pairs = [(job.message_id, each) for job in jobs for each in job.ids]
        await self._ask(StoreCall(partial(self._give_back, pairs)))

    def _give_back(self, pairs: list[tuple[int, int]], connection: sqlite3.Connection) -> None:
        ids = from_json(connection, sql.LEASED_OF, pairs=compact(pairs), lease=self.lease)
        values = {"ids": compact(ids), "lease": self.lease, "owners": compact([self.lease])}
        self._remove_given_back(connection, values)
        connection.execute(sql.GIVE_BACK, values)
        self._transactions.written += ROW * len(ids)

    # Messages --------------------------------------------------------------------------------------------------------

    async def add(self, message: NewMessage, *, leased: bool) -> None:
        """See `Store`."""
        stored = message.info.stored
        if stored is None:
            await self._ask_with_space(Add(message, leased), message.info.size)
            return
        try:
            await self._ask(Add(message, leased))
        except IdTaken:
            raise  # its content stays for it, under another id
        except BaseException as error:
            self._spooling.discard(stored)
            await self._sweep_after(error)
            raise
        self._spooling.discard(stored)

    def settle(self, settlement: Settlement) -> Awaitable[Settled]:
        """See `Store`."""
        return self._ask(Settle(settlement))

    async def write_content(self, chunks: AsyncIterable[bytes]) -> int:
        """See `Store`. Each chunk is a transaction: a large one would make all others wait."""
        spool = _Spool()
        number = 0
        try:
            async for chunk in chunks:
                for start in range(0, len(chunk), CHUNK):
                    piece = chunk[start : start + CHUNK]
                    await self._ask_with_space(StoreCall(partial(self._put, spool, number, piece)), len(piece))
                    number += 1
        except BaseException as error:
            spool.is_given_up = True
            self._spooling.discard(spool.content)
            await self._sweep_after(error)
            raise
        if not number:
            raise InvalidValue("there is no content")
        return spool.content

    def _put(self, spool: _Spool, number: int, octets: bytes, connection: sqlite3.Connection) -> None:
        if number == 0:
            self._spooling.discard(spool.content)  # of a transaction that was tried before and failed
            spool.content = connection.execute(sql.SPOOL, (self.lease,)).lastrowid or 0
            self._spooling.add(spool.content)
            if spool.is_given_up:
                self._spooling.discard(spool.content)
        insert_all(connection, "chunk", sql.CHUNK, [(spool.content, number, octets)])
        self._transactions.written += len(octets)

    async def content(self, job: Job) -> Content:
        """See `Store`. A large one is given chunk by chunk as it is sent, so that memory stays flat.

        Chunks are read in a thread of their own: the event loop waits for no disk, and a message for no look at the
        queue.
        """
        info = job.info
        if info.stored is None:
            octets: bytes | None = await self._read(partial(_fetch_content, job.message_id))
            if octets is None:
                raise StoreUnavailable(f"the content of message {job.message_id} is gone")
            return _small(job, octets)
        beginning, chunks = b"", 0
        while len(beginning) < min(info.size, info.header_size + 2):
            octets = await self._supply(info.stored, chunks)
            if octets is None:
                raise StoreUnavailable(f"the content of message {job.message_id} is gone")
            beginning, chunks = beginning + octets, chunks + 1
        return Content.awaited(
            partial(self._chunks, info.stored, beginning, chunks),
            beginning,
            size=info.size,
            eight_bit=info.eight_bit,
            header_size=info.header_size,
        )

    async def _chunks(self, content: int, beginning: bytes, number: int) -> AsyncIterator[bytes]:
        """The content: the `beginning`, and what follows from the chunk of that number on."""
        piece: bytes | None = beginning
        while piece is not None:
            yield piece
            piece = await self._supply(content, number)
            number += 1

    async def _supply(self, content: int, number: int) -> bytes | None:
        """One chunk of a content; None behind the last one."""
        return await self._look(self._suppliers, self._supplying, partial(_read_chunk, content, number))

    # Content that no message names ------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Delete contents whose message never came, or is gone: whoever removed it, and whoever gave up writing it.

        What this process is writing is left alone, and so is what other living processes may be writing.
        """
        unnamed = await self._read(lambda connection: from_json(connection, sql.UNNAMED, **self._living()))
        for content in unnamed:
            for start in range(0, await self._ask(StoreCall(partial(self._forget_spool, content))), SWEPT):
                await self._ask(StoreCall(partial(self._delete_chunks, content, start)))

    async def _sweep_after(self, error: BaseException) -> None:
        """After something failed: its content is not wanted any more. The next sweep takes what this one cannot."""
        if isinstance(error, Exception):
            with suppress(StoreUnavailable):
                await self._sweep()

    def _living(self) -> dict[str, Any]:
        return {"lease": self.lease, "writing": compact(list(self._spooling.copy()))}

    def _forget_spool(self, content: int, connection: sqlite3.Connection) -> int:
        """From now on no message can name this content; returns how many chunks it has, 0 if one names it by now."""
        values = {**self._living(), "content": content}
        connection.execute(sql.FORGET_SPOOL, values)
        count: int = connection.execute(sql.UNNAMED_CHUNKS, values).fetchone()[0]
        return count

    def _delete_chunks(self, content: int, start: int, connection: sqlite3.Connection) -> None:
        connection.execute(sql.DELETE_CHUNKS, (content, start, start + SWEPT))
        self._transactions.written += ROW * SWEPT

    # To look into it -------------------------------------------------------------------------------------------------

    async def destinations(self, after: str | None, limit: int) -> list[DueDestination]:
        """See `Store`."""
        return await self._read(
            lambda connection: destinations_from(from_json(connection, sql.DESTINATIONS, after=after, limit=limit))
        )

    async def page(self, wanted: Filter, after: int, limit: int) -> list[Entry]:
        """See `Store`."""
        return await self._read(partial(views.page, wanted, after, limit, self._clock.shift))

    async def find(self, message_id: int) -> StoredMessage | None:
        """See `Store`."""
        return await self._read(partial(views.find, message_id, self._clock.shift))

    async def octets(self, message_id: int) -> bytes | None:
        """See `Store`."""
        return await self._read(partial(views.octets, message_id))

    async def stats(self, now: datetime, destinations: int) -> Stats:
        """See `Store`."""
        return await self._read(partial(views.stats, now, destinations, self._clock.shift))

    async def command(self, command: QueueCommand, wanted: Filter, now: datetime, by: str = "") -> Done:
        """See `Store`. In steps, so that others may write in between."""
        changed = later = after = 0
        limit = SELECTED
        meant = views.in_queue_time(wanted, self._clock.shift)
        while True:
            values = {**filter_values(meant), "after": after, "limit": limit}
            try:
                step, waiting, after = await self._ask(
                    StoreCall(partial(self._command, command, values, microseconds(now), by))
                )
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
            await self._sweep()
        return Done(changed, later)

    def _command(
        self, command: QueueCommand, values: dict[str, Any], now: int, by: str, connection: sqlite3.Connection
    ) -> tuple[int, int, int]:
        """One step: how many were changed, how many will be, and behind which id it goes on (0: nowhere)."""
        rows = from_json(connection, sql.SELECTED, **values)
        ids = compact([row[0] for row in rows])
        leased = [row[0] for row in rows if row[2] == 1]
        changed = 0
        if by and self._transactions.writes_facts and self._transactions.keeps_history:
            free_ids = [row[0] for row in rows if row[2] != 1]
            for these, details in ((free_ids, {"by": by}), (leased, {"by": by, "later": True})):
                kind = ACTS[command.value]
                act = {"now": now, "kind": kind, "ids": compact(these), "details": compact(details)}
                connection.execute(sql.NOTE_ACT, act)
        match command:
            case QueueCommand.HOLD:
                changed = connection.execute(sql.HOLD, {"ids": ids}).rowcount
            case QueueCommand.RELEASE:
                changed = connection.execute(sql.RELEASE, {"ids": ids}).rowcount
                leased = []
            case QueueCommand.RETRY:
                changed = connection.execute(sql.RETRY, {"ids": ids, "now": now}).rowcount
            case QueueCommand.REMOVE:
                free = [row for row in rows if row[2] != 1]
                if free:
                    removed = [row[0] for row in free]
                    self._transactions.delete(connection, removed, [row[1] for row in free], removed)
                changed = len(free)
        self._transactions.written += ROW * len(rows)
        later = 0
        if leased:
            wish = {QueueCommand.HOLD: 1, QueueCommand.REMOVE: 2, QueueCommand.RETRY: 3}[command]
            later = connection.execute(sql.WISH, {"ids": compact(leased), "wish": wish}).rowcount
        return changed, later, rows[-1][0] if len(rows) == values["limit"] else 0

    async def within(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something in a transaction of its own."""
        done: T = await self._ask(StoreCall(work))
        return done

    async def free_others(self) -> int:
        """End the leases of all others, for whoever has the store alone; how many recipients became free."""
        return await self.within(self._free_others)

    def _free_others(self, connection: sqlite3.Connection) -> int:
        (owners,) = connection.execute(sql.OWNERS).fetchone()
        return self._free(connection, [owner for owner, _, _ in json.loads(owners) if owner != self.lease])

    async def changed_elsewhere(self) -> bool:
        """See `Store`."""
        version: int = await self._ask(StoreCall(_data_version, outside=True))
        changed, self._data_version = version != self._data_version, version
        return changed

    # Threads ---------------------------------------------------------------------------------------------------------

    def _ask(self, request: Add | Settle | StoreCall) -> Awaitable[Any]:
        if self._writer is None:
            raise StoreUnavailable("the queue's store is not open")
        return self._writer.ask(request)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._look(self._readers, self._reading, work)

    async def _look(
        self,
        thread: ThreadPoolExecutor | None,
        connection: sqlite3.Connection | None,
        work: Callable[[sqlite3.Connection], T],
    ) -> T:
        if thread is None or connection is None:
            raise StoreUnavailable("the queue's store is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work, connection)
        except (sqlite3.Error, OSError) as error:
            problem = translate(error)
            if isinstance(problem, StoreDamaged):
                self._file.note_damage(str(problem))
            raise problem from error

    def _commit_point(self, name: str) -> None:
        """Called by the writer's thread around each commit."""
        self._fault(name)
        if name == "after commit" and self._keeper is not None:
            self._keeper.committed(self._transactions.written or ROW)
            self._transactions.written = 0


def _drop_facts(wanted: HistoryFilter, connection: sqlite3.Connection) -> int:
    connection.execute("PRAGMA secure_delete = 1")  # what is erased is not left in free pages
    try:
        return connection.execute(sql.DROP_FACTS, views.history_values(wanted)).rowcount
    finally:
        connection.execute("PRAGMA secure_delete = 0")


def _data_version(connection: sqlite3.Connection) -> int:
    return pragma(connection, "data_version")


def _died_alone(text: str) -> bool:
    """True for a process that died while the machine went on."""
    try:
        return Identity.decode(text).boot == current_boot()
    except (ValueError, TypeError):
        return False


def _is_dead(text: str, expires: int, now: int) -> bool:
    try:
        life = Identity.decode(text).life()
    except (ValueError, TypeError):
        life = Life.UNKNOWN
    # A process that lives keeps its leases, whatever the clock says: it may be in the middle of a delivery.
    return life is Life.DEAD or (life is Life.UNKNOWN and expires < now)


def _fetch_content(message_id: int, connection: sqlite3.Connection) -> bytes | None:
    row = connection.execute(sql.CONTENT, (message_id,)).fetchone()
    return None if row is None else row[0]


def _fetch_contents(ids: list[int], connection: sqlite3.Connection) -> dict[int, bytes]:
    return dict(connection.execute(sql.CONTENTS, (compact(ids),)).fetchall())


def _small(job: Job, octets: bytes) -> Content:
    info = job.info
    return Content(info.size, info.eight_bit, info.header_size, True, octets)


def _read_chunk(content: int, number: int, connection: sqlite3.Connection) -> bytes | None:
    row = connection.execute(sql.READ_CHUNK, (content, number)).fetchone()
    return None if row is None else row[0]
