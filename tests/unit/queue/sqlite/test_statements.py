"""What claims and looks cost does not depend on how much is queued: SQLite's instructions are counted."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.queue.sqlite import statements as sql
from mailrider.queue.sqlite.schema import MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

DESTINATION, NEXT = "example.net", "example.org"
FEW, MANY = 50, 2000


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for script in MIGRATIONS:
            connection.executescript(script)
        yield connection


def queue(connection: sqlite3.Connection, messages: range) -> None:
    """One recipient each, all due; all for one destination, and the first for the next one."""
    values = [(number * 2, 0, "a@example.org", 1, "", 1, 0, 1, None, b"x") for number in messages]
    connection.executemany(sql.insert("message", (*sql.MESSAGE[:3], *sql.MESSAGE[4:]), 1), values)
    for number in messages:
        destination = NEXT if number == 1 else DESTINATION
        row = (number * 2 + 1, number * 2, destination, 0, number, None, f"b@{destination}", None)
        connection.execute(sql.insert("recipient", sql.RECIPIENT, 1), row)


def steps(connection: sqlite3.Connection, statement: str, values: Any) -> int:
    """How many instructions the statement takes; it must find something."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(step, 1)
    try:
        (ids,) = connection.execute(statement, values).fetchone()
    finally:
        connection.set_progress_handler(None, 0)
    assert ids != "[]"
    return count


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        pytest.param(sql.claimable(1), [DESTINATION, MANY, 10, MANY], id="what is due at a destination"),
        pytest.param(sql.OLDER, {"before": 20, "limit": 200, "unwarned": 1}, id="what is older than a moment"),
        pytest.param(sql.LEFT, {"destinations": json.dumps([DESTINATION, NEXT])}, id="when the next are due"),
        pytest.param(sql.DESTINATIONS, {"after": None, "limit": 2}, id="the first destinations"),
        pytest.param(sql.DESTINATIONS, {"after": DESTINATION, "limit": 2}, id="the destinations behind a large one"),
    ],
)
def test_it_costs_the_same_however_much_is_queued(connection: sqlite3.Connection, statement: str, values: Any) -> None:
    queue(connection, range(1, FEW))
    before = steps(connection, statement, values)
    queue(connection, range(FEW, MANY))
    assert steps(connection, statement, values) == before
