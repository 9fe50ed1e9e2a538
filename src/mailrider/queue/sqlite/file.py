"""The file of the SQLite store: opening, checking, migrating it, and setting a damaged one aside.

All of it happens under a lock beside the file, so that of two processes only one creates, migrates or sets aside. A
file that was set aside keeps everything else out for as long as it lies there: what was in it is the operator's to
decide, and nothing is repaired silently.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mailrider.files import make_folder, make_private, refuse_link
from mailrider.model.reply import clean_text
from mailrider.queue.disk import SPARE_FILE
from mailrider.queue.sqlite.merge_notes import finish_move, lock_shard
from mailrider.queue.sqlite.schema import APPLICATION, MIGRATIONS, VERSION
from mailrider.queue.sqlite.writer import translate
from mailrider.queue.store import StoreDamaged, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.queue.disk import Disk

FILE: Final = "queue.db"
MAX_NOTE: Final = 1000  # octets of such a note that are repeated: SQLite's own words are far shorter
DAMAGED: Final = f"{FILE}.damaged"  # and the time: a store that was set aside; as it is: a note to do so
PATIENCE: Final = 5.0  # seconds that a write waits for another process's
CHECKED: Final = 64 * 1024 * 1024  # octets of a file that is checked as a whole when it is opened: half a second
INCREMENTAL: Final = 2  # sqlite.org/pragma.html#pragma_auto_vacuum
LOG_KEPT: Final = 64 * 1024 * 1024  # octets of log that stay on disk, to be written over


@dataclass(frozen=True, slots=True)
class FurtherShard:
    """What a store in a directory of its own belongs to: shard `number` of the queue in `queue`. `alone`: nobody else
    is to use it meanwhile."""

    queue: Path
    number: int
    alone: bool = False


class StoreFile:
    """The file in the directory `location`. `shard` None: it is shard 0 of its queue."""

    def __init__(self, location: Path, clock: Clock, disk: Disk, shard: FurtherShard | None = None) -> None:
        self.path = location / FILE
        self.log = location / f"{FILE}-wal"
        self._disk = disk
        self._location = location
        self._clock = clock
        self._shard = shard

    def open(self, stack: ExitStack) -> sqlite3.Connection:
        """A connection, with today's schema; `stack` closes it."""
        if self._shard is not None:
            refuse_link(self._location)
        make_folder(self._location)
        if self._shard is not None:
            lock_shard(self._location, stack, alone=self._shard.alone)
        lock = self._location / "queue.lock"
        make_private(lock)
        with _locked(lock):
            self._refuse_damaged()
            refuse_link(self._location / SPARE_FILE)  # it may be cut before it is looked at
            self._disk.make_way(self.log)
            try:
                make_private(self.path)  # the log and its index get the owner and the rights of the file
                for each in (self.log, self._location / f"{FILE}-shm", self._location / SPARE_FILE):
                    if os.path.lexists(each):
                        make_private(each)
                connection = self.connect(stack)
                _check(connection, self.path)
                self._disk.hold_log(self.log)
                _migrate(connection)
            except sqlite3.DatabaseError as error:
                if isinstance(translate(error), StoreDamaged):
                    stack.close()
                    raise StoreDamaged(self._set_aside(str(error))) from error
                raise
            if self._shard is not None:
                finish_move(connection, self._shard.queue / FILE, self._shard.number)
        return connection

    def connect(self, stack: ExitStack, *, reads: bool = False) -> sqlite3.Connection:
        """One more connection; `reads`: it can do nothing else."""
        connection = sqlite3.connect(
            self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        stack.callback(connection.close)
        # auto_vacuum has to come before the first table, and is a write; the others hold for this connection only.
        if pragma(connection, "auto_vacuum") != INCREMENTAL:
            connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        # Debian's SQLite overwrites what is deleted, unless it is told not to: each message would be written twice.
        connection.execute("PRAGMA secure_delete = 0")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT}")
        if reads:
            connection.execute("PRAGMA query_only = 1")
        return connection

    def _refuse_damaged(self) -> None:
        note = self._location / DAMAGED
        refuse_link(note)
        if note.is_file():
            with note.open("rb") as file:
                reason = clean_text(file.read(MAX_NOTE).decode("utf-8", "replace"))
            raise StoreDamaged(self._set_aside(reason))
        refuse_set_aside(self._location)

    def _set_aside(self, reason: str) -> str:
        """Give the damaged file and its log another name; returns what to tell the operator."""
        name = f"{DAMAGED}-{self._clock.now():%Y%m%dT%H%M%SZ}"
        for suffix in ("-wal", "-shm", ""):
            path = self._location / (FILE + suffix)
            if path.exists():
                path.rename(self._location / (name + suffix))
        (self._location / DAMAGED).unlink(missing_ok=True)
        return f"{_advice(self._location / name)} ({reason})"

    def note_damage(self, reason: str) -> None:
        """Others may have the file open: it is set aside when it is opened the next time."""
        note = self._location / DAMAGED
        try:
            refuse_link(note)
            note.write_text(reason, encoding="utf-8")
        except OSError:
            # Without the note it is found to be damaged again.
            return


def refuse_set_aside(location: Path) -> None:
    """Raise `StoreDamaged` if a damaged store lies in a directory."""
    aside = sorted(location.glob(f"{DAMAGED}-*"))
    if aside:
        raise StoreDamaged(_advice(aside[0]))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    refuse_link(path)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_origin(connection: sqlite3.Connection, path: Path) -> bool:
    """Raise for a file that is not ours, or is newer than we are. False: there is nothing in it yet."""
    application, version = pragma(connection, "application_id"), pragma(connection, "user_version")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application not in (0, APPLICATION) or (tables and not application):
        raise StoreUnavailable(f"{path} is not a queue of mailrider")
    if version > VERSION:
        raise StoreUnavailable(f"{path} was written by a newer mailrider (version {version} of its form)")
    return bool(tables)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise for a file that is not ours, or is damaged as far as can be seen in short time."""
    if check_origin(connection, path) and path.stat().st_size <= CHECKED:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            error = sqlite3.DatabaseError(verdict)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error


def _migrate(connection: sqlite3.Connection) -> None:
    for number in range(pragma(connection, "user_version"), VERSION):
        script = f"""
            BEGIN IMMEDIATE;
            {MIGRATIONS[number]}
            PRAGMA application_id = {APPLICATION};
            PRAGMA user_version = {number + 1};
            COMMIT;
        """
        with connection:
            connection.executescript(script)


def pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _advice(aside: Path) -> str:
    return (
        f"the queue's store was damaged and was set aside as {aside}. Save from it what can be saved "
        f"(sqlite3 {aside.name} .recover), and move it to another directory: before that, nothing is accepted"
    )
