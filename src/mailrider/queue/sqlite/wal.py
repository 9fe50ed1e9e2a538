"""Keeps the write-ahead log of the SQLite store short, outside the commit path (sqlite.org/wal.html).

A commit only appends to the log. Once in some megabytes a keeper carries the log over into the file, beside the writer,
in a thread and on a connection of its own. SQLite begins the log anew when all of it is carried over, and a keeper
beside a writer that never rests is always a little late: then the writer carries over what is left, which is little.
If the log has become very long all the same, the writer stops to cut its file off.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from mailrider.queue.sqlite.file import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

CHECKPOINT: Final = 4 * 1024 * 1024  # octets written, about, after which the log is carried over into the file
RESTART: Final = 16 * 1024 * 1024  # octets of log from which the writer sees to it that it is begun anew
CUT: Final = 64 * 1024 * 1024  # octets of log at which the writer stops to carry it over and cut it
CUT_PATIENCE: Final = 100  # milliseconds that it waits for readers then
FRAME: Final = 4096 + 24  # octets of log that a page takes: sqlite.org/walformat.html


class WALKeeper:
    """Looks after the log of the store in `file`. `committing` is the writer's connection, `keeping` its own; `scale`
    makes all lengths smaller, for a small disk."""

    def __init__(
        self, file: Path, committing: sqlite3.Connection, keeping: sqlite3.Connection, scale: float = 1.0
    ) -> None:
        self._file = f"{file}-wal"
        self._committing = committing
        self._keeping = keeping
        self._executor = ThreadPoolExecutor(1, "mailrider queue keeper")
        self.is_at_work = False
        self.step = CHECKPOINT * scale
        """Octets of log after which it is to be told of them, unless it `is_at_work`."""
        self._length = 0  # octets of log when the keeper looked the last time
        self.uncarried = 0  # octets that it was told of and that stand in the log only, about
        self._carrying = threading.Lock()
        self._scale = scale
        self._cut_at = CUT * scale

    async def stop(self) -> None:
        """Finish what was begun, and end the thread."""
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)

    # In the writer's thread ------------------------------------------------------------------------------------------

    def committed(self, octets: int) -> None:
        """Transactions were committed that added about so many octets to the log."""
        self.uncarried += octets
        try:
            length = os.stat(self._file).st_size  # not shorter when SQLite begins at its front again
        except OSError:
            return
        if length >= self._cut_at:
            self._cut(length)
        elif self._length >= RESTART * self._scale:
            self._restart()
        else:
            self.is_at_work = True
            try:
                self._executor.submit(self._keep)
            except RuntimeError:  # no thread is to be had now: a later commit asks again
                self.is_at_work = False

    def make_room(self) -> None:
        """The disk is full: carry all of the log over that can be, so that it is written from its front again."""
        with self._carrying:
            self._restart()

    def _restart(self) -> None:
        """Carry over what the keeper left; then SQLite writes the log from its front again, unless somebody reads."""
        self._length = 0
        try:
            self._carry_over(self._committing)
        except sqlite3.Error:
            # As for the keeper.
            return

    def _cut(self, length: int) -> None:
        """Carry all of the log over and cut its file off: more was written at once than the keeper could bear."""
        connection = self._committing
        try:
            connection.execute(f"PRAGMA busy_timeout = {CUT_PATIENCE}")
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error:
            busy = 1  # the disk is full, or somebody reads: later
        finally:
            connection.execute(f"PRAGMA busy_timeout = {round(PATIENCE * 1000)}")
        self._cut_at = length + CUT * self._scale / 4 if busy else CUT * self._scale

    # In the keeper's thread ------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        try:
            with self._carrying:
                self._length = self._carry_over(self._keeping)
        except sqlite3.Error:
            # Somebody else is at it, or the disk is full: the log grows on, and a later commit asks again.
            pass
        finally:
            self.is_at_work = False

    def _carry_over(self, connection: sqlite3.Connection) -> int:
        """Carry the log over as far as that goes without waiting for anybody; returns how many octets there are."""
        _, frames, carried = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if frames == carried:
            self.uncarried = 0
        return int(frames) * FRAME
