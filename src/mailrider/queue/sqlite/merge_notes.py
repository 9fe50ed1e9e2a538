"""Notes of what `queue merge` has moved from another shard into shard 0, so that a kill loses and doubles nothing.

No transaction spans two files (sqlite.org/wal.html). So a move has three steps, each of them durable as a whole:

1. shard 0 takes the messages in, together with a note about each;
2. the other shard deletes them;
3. shard 0 deletes the notes.

What a note names counts in shard 0 only, also when it has been delivered there meanwhile. Whoever opens the other shard
does first what was left of steps 2 and 3. The tables are there while something is moved: no other version knows them.

A shard is opened by many processes, or by the one that moves: they share a lock.
"""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mailrider.files import make_private
from mailrider.queue.sqlite.statements import compact
from mailrider.queue.store import StoreUnavailable

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

LOCK: Final = "queue.used"
PATIENCE: Final = 5.0  # seconds that a look into shard 0 waits for others

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS moved_message (shard INTEGER, message INTEGER, PRIMARY KEY (shard, message))",
    "CREATE TABLE IF NOT EXISTS moved_facts (shard INTEGER PRIMARY KEY, number INTEGER NOT NULL)",
)
DROP_TABLES: Final = ("DROP TABLE IF EXISTS moved_message", "DROP TABLE IF EXISTS moved_facts")

_ARE_THERE: Final = (
    "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('moved_message', 'moved_facts')"
)
_DELETE: Final = (
    """
    DELETE FROM attempt WHERE recipient IN (
        SELECT r.id FROM json_each(:messages) j JOIN message m ON m.id = j.value
        JOIN recipient r ON r.id > m.id AND r.id <= m.id + m.recipients AND r.message = m.id
    )
    """,
    """
    DELETE FROM recipient WHERE id IN (
        SELECT r.id FROM json_each(:messages) j JOIN message m ON m.id = j.value
        JOIN recipient r ON r.id > m.id AND r.id <= m.id + m.recipients AND r.message = m.id
    )
    """,
    "DELETE FROM message WHERE id IN (SELECT value FROM json_each(:messages))",
    # The newest stays as a row, since numbers must not begin anew.
    "DELETE FROM history WHERE number <= :facts AND number < (SELECT max(number) FROM history)",
    "UPDATE history SET message = 0, mailbox = '', sender = '', details = '{}' WHERE number <= :facts",
)


class QueueInUse(StoreUnavailable):
    """A shard is used by others, so that nothing can be moved; or something is being moved, and it cannot be used."""


@dataclass(frozen=True, slots=True)
class MergeNotes:
    """What was moved out of a shard: messages by their ids, facts up to a number."""

    messages: tuple[int, ...] = ()
    facts: int = 0

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to do."""
        return not self.messages and not self.facts


NOTHING_MOVED: Final = MergeNotes()


def lock_shard(directory: Path, stack: ExitStack, *, alone: bool) -> None:
    """Use a shard, beside others or `alone`, for as long as `stack` is open. Raises `QueueInUse`."""
    path = directory / LOCK
    make_private(path)
    file = stack.enter_context(path.open("rb"))
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if alone:
            text = f"{directory} is in use: stop the daemon, and what else uses the queue, before it is merged"
        else:
            text = f"{directory} is being merged into the first shard (mailrider queue merge)"
        raise QueueInUse(text) from error


def read_notes(first: sqlite3.Connection, shard: int) -> MergeNotes:
    """The notes in shard 0 about another one."""
    if first.execute(_ARE_THERE).fetchone()[0] < len(TABLES):
        return NOTHING_MOVED
    messages = first.execute("SELECT message FROM moved_message WHERE shard = ?", (shard,)).fetchall()
    facts = first.execute("SELECT max(number) FROM moved_facts WHERE shard = ?", (shard,)).fetchone()[0]
    return MergeNotes(tuple(each for (each,) in messages), facts or 0)


def write_notes(first: sqlite3.Connection, shard: int, notes: MergeNotes) -> None:
    """Step 1, in the transaction that takes in what is moved."""
    for each in TABLES:
        first.execute(each)
    first.executemany("INSERT INTO moved_message VALUES (?, ?)", [(shard, each) for each in notes.messages])
    if notes.facts:
        first.execute("INSERT OR REPLACE INTO moved_facts VALUES (?, ?)", (shard, notes.facts))


def delete_moved(connection: sqlite3.Connection, notes: MergeNotes) -> None:
    """Step 2, in a transaction of the other shard."""
    values = {"messages": compact(notes.messages), "facts": notes.facts}
    for each in _DELETE:
        connection.execute(each, values)


def delete_notes(first: sqlite3.Connection, shard: int) -> None:
    """Step 3, in a transaction of shard 0."""
    if first.execute(_ARE_THERE).fetchone()[0] == len(TABLES):
        first.execute("DELETE FROM moved_message WHERE shard = ?", (shard,))
        first.execute("DELETE FROM moved_facts WHERE shard = ?", (shard,))


def finish_move(connection: sqlite3.Connection, first: Path, shard: int) -> None:
    """Do what was left of a move out of the shard that is open; `first` is the file of shard 0."""
    if not first.exists():
        return
    with closing(sqlite3.connect(first, timeout=PATIENCE, isolation_level=None)) as opened:
        notes = read_notes(opened, shard)
        if notes.is_empty:
            return
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            delete_moved(connection, notes)
        with opened:
            opened.execute("BEGIN IMMEDIATE")
            delete_notes(opened, shard)
