"""`queue merge`: moves all that is in the other shards of a queue into shard 0, where a program without shards looks.

Nobody else may use these shards meanwhile. Messages keep their ids; their recipients, attempts and history go along.
What a kill leaves half done is finished by whoever opens the shard the next time: see `queue.sqlite.merge_notes`.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mailrider.queue.ids import PLACES
from mailrider.queue.sqlite import statements as sql
from mailrider.queue.sqlite.contents import read_chunk
from mailrider.queue.sqlite.merge_notes import DROP_TABLES, MergeNotes, delete_moved, delete_notes, write_notes
from mailrider.queue.sqlite.shards import further_shard, shard_location, shards_in
from mailrider.queue.sqlite.statements import compact
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.sqlite.transactions import insert_all

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from mailrider.clock import Clock

MESSAGES: Final = 100  # that are moved at a time
FACTS: Final = 2000

_MESSAGES: Final = f"SELECT {', '.join(sql.MESSAGE)} FROM message ORDER BY id LIMIT ?"  # noqa: S608 - constants only
_RECIPIENT: Final = (*sql.RECIPIENT, "wish", "tries", "warned", "in_doubt", "last")
_RECIPIENTS: Final = f"""
SELECT {", ".join(f"r.{each}" for each in _RECIPIENT)} FROM json_each(?) j JOIN message m ON m.id = j.value
JOIN recipient r ON r.id > m.id AND r.id <= m.id + m.recipients AND r.message = m.id ORDER BY r.id
"""  # noqa: S608 - constants only
_ATTEMPTS: Final = """
SELECT a.recipient, a.at, a.evidence FROM json_each(?) j JOIN attempt a ON a.recipient = j.value
"""
_FACTS: Final = f"""
SELECT number, {", ".join(sql.HISTORY)} FROM history WHERE message <> 0 ORDER BY number LIMIT ?
"""  # noqa: S608 - constants only
_IS_TAKEN: Final = "SELECT EXISTS (SELECT 1 FROM message WHERE id = ?)"
_LAST_TAKEN: Final = "SELECT max(id) FROM recipient WHERE id > ? AND id <= ?"


@dataclass(slots=True)
class _MessageRows:
    """Some messages of a shard as rows, with all that belongs to them."""

    messages: list[list[Any]]
    recipients: list[list[Any]]
    attempts: list[list[Any]]

    @property
    def ids(self) -> list[int]:
        return [row[0] for row in self.messages]


class ShardMerger:
    """Moves what is in one shard to shard 0. Both are open; the other one is used by nobody else."""

    def __init__(self, first: SQLiteStore, other: SQLiteStore, number: int) -> None:
        self._first = first
        self._other = other
        self._number = number
        self._microseconds = round((other.clock.shift - first.clock.shift).total_seconds() * 1e6)  # of queue time

    async def move_all(self) -> int:
        """Everything; returns how many messages it was."""
        await self._other.free_others()
        moved = 0
        while rows := await self._other.within(_take_messages):
            stored = await self._copy_contents(rows)
            notes = MergeNotes(tuple(rows.ids))
            await self._step(notes, partial(self._put_messages, rows, stored))
            moved += len(rows.messages)
        while facts := await self._other.within(_take_facts):
            await self._step(MergeNotes(facts=facts[-1][0]), partial(self._put_facts, facts))
        return moved

    async def _step(self, notes: MergeNotes, put: Callable[[sqlite3.Connection], None]) -> None:
        def take_in(connection: sqlite3.Connection) -> None:
            put(connection)
            write_notes(connection, self._number, notes)

        await self._first.within(take_in)
        await self._other.within(partial(delete_moved, notes=notes))
        await self._first.within(partial(delete_notes, shard=self._number))

    # Messages --------------------------------------------------------------------------------------------------------

    async def _copy_contents(self, rows: _MessageRows) -> dict[int, int]:
        """Copy large contents chunk by chunk, for messages that are still to come; their new numbers by their old."""
        column = sql.MESSAGE.index("stored")
        stored = {row[column] for row in rows.messages if row[column] is not None}
        return {each: await self._first.write_content(self._chunks(each)) for each in stored}

    async def _chunks(self, content: int) -> AsyncIterator[bytes]:
        number = 0
        while (octets := await self._other.within(partial(read_chunk, content, number))) is not None:
            yield octets
            number += 1

    def _put_messages(self, rows: _MessageRows, stored: dict[int, int], connection: sqlite3.Connection) -> None:
        by_message: dict[int, list[list[Any]]] = {}
        for row in rows.recipients:
            by_message.setdefault(row[1], []).append(row)
        renamed: dict[int, int] = {}
        for message in rows.messages:
            self._put_message(message, by_message.get(message[0], []), stored, renamed, connection)
        attempts = [(renamed[recipient], at + self._microseconds, told) for recipient, at, told in rows.attempts]
        insert_all(connection, "attempt", sql.ATTEMPT, attempts)
        if stored:
            connection.execute(sql.UNSPOOL, (compact(list(stored.values())),))

    def _put_message(
        self,
        message: list[Any],
        recipients: Sequence[list[Any]],
        stored: dict[int, int],
        renamed: dict[int, int],
        connection: sqlite3.Connection,
    ) -> None:
        """One message. Where recipients of others have its ids, its own get others behind them, within its run."""
        given = dict(zip(sql.MESSAGE, message, strict=True))
        while connection.execute(_IS_TAKEN, (given["id"],)).fetchone()[0]:
            given["id"] += PLACES  # only where a clock went back for long, and for the same microsecond
        start, run = given["id"], given["recipients"]
        while (taken := connection.execute(_LAST_TAKEN, (start, start + run)).fetchone()[0]) is not None:
            start = taken
        given["created"] += self._microseconds
        given["stored"] = stored.get(given["stored"])
        rows = []
        for row in recipients:
            each = dict(zip(_RECIPIENT, row, strict=True))
            renamed[each["id"]] = start + each["id"] - message[0]
            each |= {"id": renamed[each["id"]], "message": given["id"], "due": each["due"] + self._microseconds}
            rows.append(tuple(each.values()))
        given["recipients"] = start + run - given["id"]
        insert_all(connection, "message", sql.MESSAGE, [tuple(given.values())])
        insert_all(connection, "recipient", _RECIPIENT, rows)

    # History ---------------------------------------------------------------------------------------------------------

    def _put_facts(self, facts: Sequence[list[Any]], connection: sqlite3.Connection) -> None:
        rows = [(at + self._microseconds, *rest) for _, at, *rest in facts]
        insert_all(connection, "history", sql.HISTORY, rows)


async def merge_shards(location: Path, clock: Clock, fault: Callable[[str], None] | None = None) -> dict[int, int]:
    """Empty the other shards of a queue; how many messages came from each that is there. `fault` is for tests that die.

    Raises `QueueInUse` before anything is moved if one of them is used by somebody else, and `StoreUnavailable`.
    """
    others = [each for each in shards_in(location) if each]
    moved: dict[int, int] = {}
    async with AsyncExitStack() as stack:
        stores: dict[int, SQLiteStore] = {}
        for each in others:
            shard = further_shard(location, each, alone=True)
            store = SQLiteStore(shard_location(location, each), clock, reserve=0, shard=shard, fault=fault)
            stores[each] = await stack.enter_async_context(store)
        if not stores:
            return moved
        first = await stack.enter_async_context(SQLiteStore(location, clock, reserve=0, fault=fault))
        for number, store in stores.items():
            moved[number] = await ShardMerger(first, store, number).move_all()
            await store.keep_alive(store.clock.now())  # contents of what was moved go
        await first.within(_drop_tables)
    return moved


def _take_messages(connection: sqlite3.Connection) -> _MessageRows | None:
    messages = connection.execute(_MESSAGES, (MESSAGES,)).fetchall()
    if not messages:
        return None
    recipients = connection.execute(_RECIPIENTS, (compact([row[0] for row in messages]),)).fetchall()
    attempts = connection.execute(_ATTEMPTS, (compact([row[0] for row in recipients]),)).fetchall()
    return _MessageRows(list(map(list, messages)), list(map(list, recipients)), list(map(list, attempts)))


def _take_facts(connection: sqlite3.Connection) -> list[list[Any]]:
    return list(map(list, connection.execute(_FACTS, (FACTS,)).fetchall()))


def _drop_tables(connection: sqlite3.Connection) -> None:
    for each in DROP_TABLES:
        connection.execute(each)
