"""Space for an SQLite store on a disk that is nearly full.

New mail leaves a reserve free. What is queued already may use all: the log is carried over, the spare file is given up,
the history of attempts is forgotten, and the file gives its free pages back to the system.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mailrider.model.queue_event import QueueHasSpace, QueueShort
from mailrider.queue.sqlite import statements as sql
from mailrider.queue.sqlite.file import pragma
from mailrider.queue.sqlite.transactions import ROW, Transactions
from mailrider.queue.sqlite.writer import StoreCall
from mailrider.queue.store import StoreFull

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.model.event import Emit
    from mailrider.queue.disk import Disk
    from mailrider.queue.sqlite.file import StoreFile
    from mailrider.queue.sqlite.wal import WALKeeper
    from mailrider.queue.sqlite.writer import Ask

VACUUMED: Final = 2000  # pages given back to the file system at a time: 8 MiB
STEPPED: Final = 200  # the same on a disk that is short: no more than the log has space for
MOST_VACUUMS: Final = 100  # of one round of housekeeping
PAGE: Final = 4096  # octets
MOST_PAGES: Final = 0xFFFFFFFE  # of a file, if the disk has space: sqlite.org/limits.html


@dataclass(slots=True, eq=False)
class Space:
    """That of an open store: `committing` is the connection of its writer, whose requests `ask` takes."""

    disk: Disk
    file: StoreFile
    transactions: Transactions
    committing: sqlite3.Connection
    keeper: WALKeeper
    ask: Ask
    emit: Emit
    _is_short: bool = False

    async def find(self, octets: int) -> None:
        """Take space for so many octets of new mail where the disk alone has none for them. Raises `StoreFull`."""
        disk = self.disk
        # The pages of the file that are free count as well: the queue may have become empty.
        disk.count(await self.ask(StoreCall(self._usable, outside=True)))
        is_short = not disk.take(octets, 0)
        if is_short:
            if not self._is_short:
                self._is_short = True
                self.emit(QueueShort(disk.left, disk.reserve, str(self.file.path.parent)))
            raise StoreFull(
                f"the disk of the queue is nearly full: {disk.left} octets are left, and new mail leaves"
                f" {disk.reserve} (reserve)"
            )

    async def keep(self) -> None:
        """Housekeeping: give pages back, hold the spare and the log, and see whether the disk is still short."""
        disk = self.disk
        await self._give_pages_back()
        self.transactions.keeps_history = disk.fill_spare_file()
        disk.hold_log(self.file.log)
        if self._is_short:
            # While small mail finds space and large mail does not, it is short: that is told once.
            disk.count(await self.ask(StoreCall(self._usable, outside=True)))
            if disk.has_plenty_again():
                self._is_short = False
                self.emit(QueueHasSpace(str(self.file.path.parent)))

    async def _give_pages_back(self) -> None:
        """To the file system: some now and then; on a disk that is nearly full as many as it takes."""
        for _ in range(MOST_VACUUMS):
            wants_more = await self.ask(StoreCall(self._vacuum, outside=True))
            if not wants_more:
                return

    # In the writer's thread ------------------------------------------------------------------------------------------

    def _vacuum(self, connection: sqlite3.Connection) -> bool:
        """Give free pages back, once they are many; True if more should go. Only `executescript` steps through all."""
        free = pragma(connection, "freelist_count")
        is_tight = self.disk.is_tight()
        if not is_tight:
            self._bound_file(MOST_PAGES)
        pages = STEPPED if is_tight else max(STEPPED, round(VACUUMED * self.disk.scale))
        if free <= (0 if is_tight else max(VACUUMED, pragma(connection, "page_count") // 4)):
            return False
        try:
            connection.executescript(f"PRAGMA incremental_vacuum({pages})")
        except sqlite3.Error:
            return False  # the disk is too full even for that: later
        self.transactions.written += ROW * pages  # the next commit takes it up
        if is_tight:
            self.keeper.make_room()
        return is_tight

    def _usable(self, connection: sqlite3.Connection) -> int:
        """Octets of the file that are free, without what it has to grow by when the log is carried over."""
        grows = max(0, PAGE * pragma(connection, "page_count") - self.file.path.stat().st_size)
        return PAGE * pragma(connection, "freelist_count") - grows

    def make(self, is_needed: bool) -> Iterator[None]:
        """Space for what could not be written, step by step."""
        self.keeper.make_room()
        self._bound_file()
        yield
        if not is_needed:
            return
        # The spare is for what has to be written. How attempts went can be missed, and stands in the log.
        self.transactions.keeps_history = False
        yield
        while self.disk.release() or self._forget_history():
            self.keeper.make_room()
            self._bound_file()
            yield

    def _bound_file(self, pages: int | None = None) -> None:
        """Let the file grow no further than the disk has space for: what stands in the log has to fit into it later,
        or the log could never be begun anew."""
        with suppress(sqlite3.Error, OSError):
            if pages is None:
                self.disk.look()
                pages = (self.file.path.stat().st_size + self.disk.free + self.disk.spare) // PAGE
            self.committing.execute(f"PRAGMA max_page_count = {pages}")

    def _forget_history(self) -> bool:
        """The last that can be given up: how all former attempts went. False: there is nothing of it."""
        try:
            return any(self.committing.execute(each).rowcount > 0 for each in (sql.FORGET_FACTS, sql.FORGET_HISTORY))
        except sqlite3.Error:
            return False
