"""A look into a store by somebody who does not use it."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import pytest

from mailrider.queue.sqlite.reader import SQLiteReader
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

# So long that nobody waits for its end.
COUNT = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000000) SELECT count(*) FROM n"


async def test_a_look_that_is_cancelled_ends_at_once_whatever_sqlite_is_doing(tmp_path: Path) -> None:
    clock = FakeClock()
    async with SQLiteStore(tmp_path, clock):
        pass
    loop, begun, ends = asyncio.get_running_loop(), asyncio.Event(), list[str]()

    def tell() -> int:
        loop.call_soon_threadsafe(begun.set)
        return 0

    def count(_: timedelta, connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(tell, 10_000)
        try:
            connection.execute(COUNT)
        except sqlite3.OperationalError as error:
            ends.append(str(error))
            raise

    look = asyncio.create_task(SQLiteReader(tmp_path, clock).look(count))
    await begun.wait()
    look.cancel()
    with pytest.raises(asyncio.CancelledError):
        await look
    await loop.shutdown_default_executor()
    assert ends == ["interrupted"]
