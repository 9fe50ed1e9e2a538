"""What is kept of messages that are gone (`queue.history`): making it fewer, and erasing it. In the writer's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.queue.sqlite import statements as sql
from mailrider.queue.sqlite import views
from mailrider.queue.sqlite.transactions import FACT, Transactions

if TYPE_CHECKING:
    import sqlite3

    from mailrider.queue.sqlite.views import HistoryFilter

TRIMMED: Final = 2000  # facts that one transaction deletes


def trim(transactions: Transactions, before: int, most: int, connection: sqlite3.Connection) -> bool:
    """Delete facts that are too old or too many, the oldest first; True if there may be more of them."""
    trimmed = connection.execute(sql.TRIM_HISTORY, {"step": TRIMMED, "before": before, "facts": most}).rowcount
    connection.execute(sql.EMPTY_NEWEST, {"before": before})
    transactions.written += FACT * trimmed
    return trimmed >= TRIMMED


def drop(wanted: HistoryFilter, connection: sqlite3.Connection) -> int:
    """Erase facts; how many there were."""
    connection.execute("PRAGMA secure_delete = 1")  # what is erased is not left in free pages
    try:
        return connection.execute(sql.DROP_FACTS, views.history_values(wanted)).rowcount
    finally:
        connection.execute("PRAGMA secure_delete = 0")
