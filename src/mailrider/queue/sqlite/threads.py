"""A thread that reads an SQLite store over a connection of its own: no writer and no disk makes the loop wait."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from mailrider.queue.sqlite.writer import translate
from mailrider.queue.store import StoreDamaged, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class ReadThread:
    """Runs one look after the other; the thread begins with the first. `on_damage` is told what SQLite says of it."""

    def __init__(self, name: str, on_damage: Callable[[str], None]) -> None:
        self._name = name
        self._on_damage = on_damage
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    def open(self, connection: sqlite3.Connection) -> None:
        """Read from that connection from now on."""
        self._connection = connection
        self._thread = ThreadPoolExecutor(1, self._name)

    async def close(self) -> None:
        """Finish what was begun, and end the thread."""
        thread, self._thread, self._connection = self._thread, None, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, thread.shutdown)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Look at something. Raises `StoreUnavailable`."""
        if self._thread is None or self._connection is None:
            raise StoreUnavailable("the queue's store is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)
        except (sqlite3.Error, OSError) as error:
            problem = translate(error)
            if isinstance(problem, StoreDamaged):
                self._on_damage(str(problem))
            raise problem from error
