"""A look into an SQLite store by somebody who does not use it: nothing is written, registered or locked.

A store that somebody has open is read beside him, through its log. One that nobody has open has no log, and SQLite
would make one, which a disk that is full or read-only does not allow. Then the file is read as if it could not change
(`immutable`), and what was read counts only if nothing has changed until the end (sqlite.org/uri.html).
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

from mailrider.clock import QueueClock
from mailrider.queue.sqlite import views
from mailrider.queue.sqlite.file import FILE, PATIENCE, check_origin, pragma, refuse_set_aside
from mailrider.queue.sqlite.moved import MovedNotes, read_notes
from mailrider.queue.sqlite.owner import current_boot
from mailrider.queue.sqlite.schema import VERSION
from mailrider.queue.sqlite.writer import translate
from mailrider.queue.store import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path

    from mailrider.clock import Clock, TimeAnchor
    from mailrider.queue.history import Fact
    from mailrider.queue.message import Entry, Filter, Stats, StoredMessage
    from mailrider.queue.sqlite.views import HistoryFilter, Traced

T = TypeVar("T")

LOOKS: Final = 5  # that are begun anew because somebody opened the store meanwhile


class SQLiteReader:
    """The verbs of a `Store` that only look, on the store in the directory `location`, which has been used before."""

    def __init__(self, location: Path, clock: Clock) -> None:
        self._location = location
        self._clock = QueueClock(clock)
        self._path = location / FILE
        self._log = location / f"{FILE}-wal"

    async def page(self, wanted: Filter, after: int, limit: int) -> list[Entry]:
        """See `Store`."""
        return await self._read(partial(views.page, wanted, after, limit))

    async def find(self, message_id: int) -> StoredMessage | None:
        """See `Store`."""
        return await self._read(partial(views.find, message_id))

    async def octets(self, message_id: int) -> bytes | None:
        """See `Store`."""
        return await self._read(lambda _, connection: views.octets(message_id, connection))

    async def stats(self, now: datetime, destinations: int, *, without: Sequence[int] = ()) -> Stats:
        """See `Store`. `without`: messages that do not count."""
        return await self._read(partial(views.stats, now, destinations, without=without))

    async def trace(self, wanted: HistoryFilter, limit: int) -> list[Traced]:
        """The messages that are meant, the oldest first: each as far as it is queued, and what is told of it."""
        return await self._read(partial(_trace, wanted, limit))

    async def find_with_history(self, message_id: int) -> tuple[StoredMessage | None, list[Fact]]:
        """As `Store.find`, with what is told of the message."""
        return await self._read(partial(_find_with_history, message_id))

    async def moved_out(self, shard: int) -> MovedNotes:
        """In shard 0: what it has of another one already, although that may still lie there as well."""
        return await self._read(lambda _, connection: read_notes(connection, shard))

    async def _read(self, work: Callable[[timedelta, sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, self._look, work)

    def _look(self, work: Callable[[timedelta, sqlite3.Connection], T]) -> T:
        problem: Exception = StoreUnavailable("the queue's store is being opened and closed all the time")
        for _ in range(LOOKS):
            before = self._state()
            try:
                refuse_set_aside(self._location)
                is_open = self._log.exists()
                with closing(self._connect(is_open)) as connection:
                    check_origin(connection, self._path)
                    self._clock.go_on_from(_anchor(connection), current_boot())
                    found = work(self._clock.shift, connection)
                if is_open or self._state() == before:
                    return found
            except (sqlite3.Error, OSError) as error:
                problem = translate(error)
                if self._state() == before:
                    break
        raise problem

    def _state(self) -> tuple[bool, int, int]:
        """What is different after somebody has used the store."""
        is_open = self._log.exists()
        try:
            found = self._path.stat()
        except OSError:
            return is_open, 0, 0
        return is_open, found.st_size, found.st_mtime_ns

    def _connect(self, is_open: bool) -> sqlite3.Connection:
        how = "mode=ro" if is_open else "immutable=1"
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?{how}", uri=True, timeout=PATIENCE, isolation_level=None
        )
        connection.execute("PRAGMA query_only = 1")
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection


def _trace(wanted: HistoryFilter, limit: int, shift: timedelta, connection: sqlite3.Connection) -> list[Traced]:
    if pragma(connection, "user_version") < VERSION:
        return []  # no process of this version has opened it yet
    return views.traced(wanted, limit, shift, connection)


def _find_with_history(
    message_id: int, shift: timedelta, connection: sqlite3.Connection
) -> tuple[StoredMessage | None, list[Fact]]:
    has_history = pragma(connection, "user_version") >= VERSION
    facts = views.facts_of([message_id], shift, connection) if has_history else []
    return views.find(message_id, shift, connection), facts


def _anchor(connection: sqlite3.Connection) -> TimeAnchor | None:
    """None as well in a store that an older version wrote, and nobody has opened since."""
    if pragma(connection, "user_version") < VERSION:
        return None
    return views.read_anchor(connection)
