"""What an operator does to queued recipients: one step of it, in the writer's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailrider.queue.history import ACTS
from mailrider.queue.message import RecipientState, Wish
from mailrider.queue.sqlite import statements as sql
from mailrider.queue.sqlite.statements import compact
from mailrider.queue.sqlite.transactions import ROW, Transactions
from mailrider.queue.sqlite.views import from_json
from mailrider.queue.store import QueueCommand

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

_WISHES = {QueueCommand.HOLD: Wish.HOLD, QueueCommand.REMOVE: Wish.REMOVE, QueueCommand.RETRY: Wish.RETRY}


def carry_out(
    transactions: Transactions,
    command: QueueCommand,
    values: dict[str, Any],
    now: int,
    by: str,
    connection: sqlite3.Connection,
) -> tuple[int, int, int]:
    """One step: how many were changed, how many will be, and behind which id it goes on (0: nowhere)."""
    rows = from_json(connection, sql.SELECTED, **values)
    leased = [row[0] for row in rows if row[2] == 1]
    if by and transactions.writes_facts and transactions.keeps_history:
        _note(connection, command, [row for row in rows if _is_concerned(command, row[2], row[3])], now, by)
    changed = _change(transactions, command, rows, now, connection)
    transactions.written += ROW * len(rows)
    later = 0
    if leased and command in _WISHES:
        wish = {"ids": compact(leased), "wish": int(_WISHES[command])}
        later = connection.execute(sql.WISH, wish).rowcount
    return changed, later, rows[-1][0] if len(rows) == values["limit"] else 0


def _note(
    connection: sqlite3.Connection, command: QueueCommand, rows: Sequence[Sequence[int]], now: int, by: str
) -> None:
    """Keep who did it, with each of those that it changes something for."""
    for is_leased, details in ((False, {"by": by}), (True, {"by": by, "later": True})):
        ids = [row[0] for row in rows if (row[2] == 1) is is_leased]
        act = {"now": now, "kind": ACTS[command.value], "ids": compact(ids), "details": compact(details)}
        connection.execute(sql.NOTE_ACT, act)


def _is_concerned(command: QueueCommand, state: int, wish: int | None) -> bool:
    """Whether the command changes anything for a recipient: what is held already is not held by somebody again."""
    match state:
        case RecipientState.HELD:
            return command in (QueueCommand.RELEASE, QueueCommand.REMOVE)
        case RecipientState.LEASED if command is QueueCommand.RELEASE:
            return wish == Wish.HOLD
        case RecipientState.LEASED:
            wanted = _WISHES[command]
            return wish is None or (wish != wanted and Wish(wish).is_replaced_by(wanted))
        case _:
            return command is not QueueCommand.RELEASE


def _change(
    transactions: Transactions,
    command: QueueCommand,
    rows: Sequence[Sequence[int]],
    now: int,
    connection: sqlite3.Connection,
) -> int:
    """Change those that nobody attempts at the moment; how many."""
    ids = compact([row[0] for row in rows])
    match command:
        case QueueCommand.HOLD:
            return connection.execute(sql.HOLD, {"ids": ids}).rowcount
        case QueueCommand.RELEASE:
            return connection.execute(sql.RELEASE, {"ids": ids}).rowcount
        case QueueCommand.RETRY:
            return connection.execute(sql.RETRY, {"ids": ids, "now": now}).rowcount
        case QueueCommand.REMOVE:
            free = [row for row in rows if row[2] != 1]
            if free:
                removed = [row[0] for row in free]
                transactions.delete(connection, removed, [row[1] for row in free], removed)
            return len(free)
