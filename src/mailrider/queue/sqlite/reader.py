"""A look into an SQLite store by somebody who does not use it: nothing is written, registered or locked.

A store that somebody has open is read beside him, through its log. One that nobody has open has no log, and SQLite
would make one, which a disk that is full or read-only does not allow. Then the file is read as if it could not change
(`immutable`), and what was read counts only if nothing has changed until the end (sqlite.org/uri.html).
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

from mailrider.clock import QueueClock
from mailrider.queue.sqlite import views
from mailrider.queue.sqlite.file import FILE, PATIENCE, check_origin, refuse_set_aside
from mailrider.queue.sqlite.owner import current_boot
from mailrider.queue.sqlite.writer import translate
from mailrider.queue.store import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta
    from pathlib import Path

    from mailrider.clock import Clock

T = TypeVar("T")

LOOKS: Final = 5  # that are begun anew because somebody opened the store meanwhile


class _LookUnderWay:
    """What is being read, for somebody in another thread to end."""

    def __init__(self) -> None:
        self.is_over = False
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    @contextmanager
    def over(self, connection: sqlite3.Connection) -> Iterator[None]:
        """It is read over this connection. Raises `sqlite3.OperationalError` if it is not wanted any more."""
        with self._lock:
            if self.is_over:
                raise sqlite3.OperationalError("interrupted")
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    def end(self) -> None:
        """It is not wanted any more."""
        with self._lock:
            self.is_over = True
            if self._connection is not None:
                self._connection.interrupt()


class SQLiteReader:
    """Looks into the store in the directory `location`, which has been used before."""

    def __init__(self, location: Path, clock: Clock) -> None:
        self._location = location
        self._clock = QueueClock(clock)
        self._path = location / FILE
        self._log = location / f"{FILE}-wal"

    async def look(self, work: Callable[[timedelta, sqlite3.Connection], T]) -> T:
        """What `work` reads, one of `views`: given how much the wall clock is ahead of queue time, and a connection.

        If this is cancelled, so is what SQLite is doing: the thread does not keep the process from its end.
        """
        running = _LookUnderWay()
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self._look, work, running)
        except asyncio.CancelledError:
            running.end()
            raise

    def _look(self, work: Callable[[timedelta, sqlite3.Connection], T], running: _LookUnderWay) -> T:
        problem: Exception = StoreUnavailable("the queue's store is being opened and closed all the time")
        for _ in range(LOOKS):
            before = self._state()
            try:
                refuse_set_aside(self._location)
                is_open = self._log.exists()
                with closing(self._connect(is_open)) as connection, running.over(connection):
                    check_origin(connection, self._path)
                    self._clock.go_on_from(views.read_anchor(connection), current_boot())
                    found = work(self._clock.shift, connection)
                if is_open or self._state() == before:
                    return found
            except (sqlite3.Error, OSError) as error:
                problem = translate(error)
                if running.is_over or self._state() == before:
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
