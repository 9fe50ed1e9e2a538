"""What can be seen of an SQLite store without changing it: the answers for lists, pages about a message, and counts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mailrider.queue import sql
from mailrider.queue.rows import entries_from, filter_values, message_from, stats_from

if TYPE_CHECKING:
    import sqlite3
    from datetime import datetime

    from mailrider.queue.message import Entry, Filter, Stats, StoredMessage


def from_json(connection: sqlite3.Connection, statement: str, **values: Any) -> Any:
    """What a statement gives: a single text in JSON."""
    (text,) = connection.execute(statement, values).fetchone()
    return json.loads(text)


def page(wanted: Filter, after: int, limit: int, connection: sqlite3.Connection) -> list[Entry]:
    """See `Store.page`."""
    values = {**filter_values(wanted), "after": after, "limit": limit}
    return entries_from(from_json(connection, sql.PAGE, **values))


def find(message_id: int, connection: sqlite3.Connection) -> StoredMessage | None:
    """See `Store.find`."""
    row = connection.execute(sql.MESSAGE_ROW, (message_id,)).fetchone()
    if row is None:
        return None
    everything = filter_values(None) | {"message": message_id, "after": 0, "limit": -1}
    return message_from(
        message_id,
        row,
        from_json(connection, sql.MESSAGE_RECIPIENTS, id=message_id),
        entries_from(from_json(connection, sql.PAGE, **everything)),
        from_json(connection, sql.MESSAGE_ATTEMPTS, id=message_id),
    )


def octets(message_id: int, connection: sqlite3.Connection) -> bytes | None:
    """See `Store.octets`."""
    row = connection.execute("SELECT content, stored FROM message WHERE id = ?", (message_id,)).fetchone()
    if row is None or row[1] is None:
        return None if row is None else row[0]
    return b"".join(
        chunk
        for (chunk,) in connection.execute("SELECT octets FROM chunk WHERE content = ? ORDER BY number", (row[1],))
    )


def stats(now: datetime, destinations: int, connection: sqlite3.Connection) -> Stats:
    """See `Store.stats`."""
    totals = connection.execute(sql.TOTALS).fetchone()

    def between(first: int, last: int) -> int:
        count: int = connection.execute(sql.BETWEEN, (first, last)).fetchone()[0]
        return count

    return stats_from(totals, from_json(connection, sql.BY_DESTINATION, limit=destinations), between, now)
