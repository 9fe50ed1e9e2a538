"""What can be seen of an SQLite store without changing it: the answers for lists, pages about a message, and counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mailrider.clock import NO_SHIFT, TimeAnchor
from mailrider.queue.history import MOST, Fact
from mailrider.queue.ids import format_id, microseconds, moment
from mailrider.queue.message import Filter
from mailrider.queue.sqlite import statements as sql
from mailrider.queue.sqlite.file import pragma
from mailrider.queue.sqlite.rows import entries_from, filter_values, message_from, stats_from
from mailrider.queue.sqlite.schema import VERSION
from mailrider.queue.sqlite.statements import compact

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from datetime import timedelta

    from mailrider.queue.message import Entry, Stats, StoredMessage


def from_json(connection: sqlite3.Connection, statement: str, **values: Any) -> Any:
    """What a statement gives: a single text in JSON."""
    (text,) = connection.execute(statement, values).fetchone()
    return json.loads(text)


def page(wanted: Filter, after: int, limit: int, shift: timedelta, connection: sqlite3.Connection) -> list[Entry]:
    """See `Store.page`. `shift`, here and below: how much the wall clock is ahead of queue time."""
    values = {**filter_values(wanted, shift), "after": after, "limit": limit}
    return entries_from(from_json(connection, sql.PAGE, **values), shift)


def find(message_id: int, shift: timedelta, connection: sqlite3.Connection) -> StoredMessage | None:
    """See `Store.find`."""
    row = connection.execute(sql.MESSAGE_ROW, (message_id,)).fetchone()
    if row is None:
        return None
    everything = filter_values(Filter(message=message_id), shift) | {"after": 0, "limit": -1}
    return message_from(
        message_id,
        row,
        from_json(connection, sql.MESSAGE_RECIPIENTS, id=message_id),
        entries_from(from_json(connection, sql.PAGE, **everything), shift),
        from_json(connection, sql.MESSAGE_ATTEMPTS, id=message_id),
        shift,
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


def stats(
    now: datetime,
    destinations: int,
    shift: timedelta,
    connection: sqlite3.Connection,
    *,
    without: Sequence[int] = (),
) -> Stats:
    """See `Store.stats`. `without`: messages that do not count."""
    before = sql.WITHOUT.format(ids=compact(without)) if without else ""
    totals = connection.execute(before + sql.TOTALS).fetchone()

    def between(first: int, last: int) -> int:
        count: int = connection.execute(before + sql.BETWEEN, (first, last)).fetchone()[0]
        return count

    rows = from_json(connection, before + sql.BY_DESTINATION, limit=destinations)
    return stats_from(totals, rows, between, now, shift)


# --- History -------------------------------------------------------------------------------------

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """What is looked for in the history: a message by its id or by its Message-ID, or an address. One of them."""

    message: int | None = None
    message_id: str = ""
    address: str = ""
    since: datetime = EPOCH


class TracedMessage(NamedTuple):
    """A message by its number: as far as it is queued, and what is told of it."""

    number: int
    message: StoredMessage | None
    facts: list[Fact]


def history_values(wanted: HistoryFilter, shift: timedelta = NO_SHIFT, limit: int = 0) -> dict[str, Any]:
    """The parameters that it gives to a statement."""
    detail = f'"message_id":{compact(wanted.message_id)}' if wanted.message_id else ""
    if wanted.message is not None:
        detail = f'"origin":{compact(format_id(wanted.message))}'
    return {
        "message": wanted.message,
        "address": wanted.address.lower() or None,
        "detail": detail or None,
        "since": 0 if wanted.since == EPOCH else microseconds(wanted.since - shift),
        "limit": limit,
    }


def traced(wanted: HistoryFilter, limit: int, shift: timedelta, connection: sqlite3.Connection) -> list[TracedMessage]:
    """The messages that are meant, the oldest first: each as far as it is queued, and what is told of it."""
    if not _has_history(connection):
        return []
    values = history_values(wanted, shift, limit)
    told_of = from_json(connection, sql.MESSAGES_TOLD_OF, **values)
    queued = from_json(connection, sql.MESSAGES_QUEUED, **values)
    messages = sorted({*told_of, *queued})[-limit:]
    facts: dict[int, list[Fact]] = {each: [] for each in messages}
    for fact in _facts_of(messages, shift, connection):
        facts[fact.message_id].append(fact)
    return [TracedMessage(each, find(each, shift, connection), facts[each]) for each in messages]


def find_with_history(
    message_id: int, shift: timedelta, connection: sqlite3.Connection
) -> tuple[StoredMessage | None, list[Fact]]:
    """As `find`, with what is told of the message."""
    facts = _facts_of([message_id], shift, connection) if _has_history(connection) else []
    return find(message_id, shift, connection), facts


def _facts_of(messages: Sequence[int], shift: timedelta, connection: sqlite3.Connection) -> list[Fact]:
    """What is told of these messages, in the order in which it was written."""
    rows = from_json(connection, sql.FACTS, messages=compact(messages), limit=MOST)
    return [
        Fact(number, moment(at) + shift, kind, message, mailbox, sender, json.loads(details))
        for number, at, kind, message, mailbox, sender, details in rows
    ]


def read_anchor(connection: sqlite3.Connection) -> TimeAnchor | None:
    """What the last process left of queue time, if any did."""
    if not _has_history(connection):
        return None
    row = connection.execute(sql.ANCHOR).fetchone()
    return None if row is None else TimeAnchor(row[0], moment(row[1]), moment(row[2]), row[3])


def _has_history(connection: sqlite3.Connection) -> bool:
    """False in a store that an older version wrote, and nobody has opened since: it has no time of its own either."""
    return pragma(connection, "user_version") >= VERSION
