"""Recipients whose attempt was under way when a process died: after three deaths in a row they are held.

A message that ends whoever delivers it would end each worker that is started again, for ever. So it is noted beside the
leases whose attempt was under way at the last death, and at how many before that without a gap. What was leased and
only waited in memory is no reason (`queue.attempt_notes`), nor is anything when a process was told to stop before it
died. What is held waits for an operator (`mailrider queue release`), and begins anew then. A death with the whole
machine does not count.

The table is made when it is first needed, and is no part of the schema: an older program leaves it alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from mailrider.queue.sqlite.statements import compact

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

HELD_AFTER: Final = 3

_TABLE: Final = "CREATE TABLE IF NOT EXISTS death (recipient INTEGER PRIMARY KEY, times INTEGER NOT NULL)"
_IN_HAND: Final = """
    SELECT id FROM recipient WHERE state = 1 AND owner IN (SELECT value FROM json_each(:owners)) AND wish IS NOT 2
    AND (message, destination) IN (
        SELECT message, destination FROM recipient WHERE id IN (SELECT value FROM json_each(:begun))
    )
"""
_COUNT: Final = f"""
INSERT OR REPLACE INTO death (recipient, times)
SELECT h.id, coalesce(d.times, 0) + 1 FROM ({_IN_HAND}) h LEFT JOIN death d ON d.recipient = h.id
"""  # noqa: S608 - constants only
_FORGET: Final = f"DELETE FROM death WHERE recipient NOT IN ({_IN_HAND})"  # noqa: S608 - constants only
_DEADLY: Final = """
SELECT json_group_array(json_array(id, message)) FROM recipient
WHERE id IN (SELECT recipient FROM death WHERE times >= :most)
"""
_HOLD: Final = """
UPDATE recipient SET state = 2, owner = NULL, wish = NULL WHERE id IN (SELECT value FROM json_each(:ids))
"""
_BEGIN_ANEW: Final = "DELETE FROM death WHERE times >= :most"


def hold_deadly(connection: sqlite3.Connection, owners: Sequence[int], begun: Sequence[int]) -> list[int]:
    """Note what these dead registrations had under way, and hold what was so three times; returns its messages.

    `begun`: the first recipient of each attempt.
    """
    connection.execute(_TABLE)
    values = {"owners": compact(owners), "begun": compact(begun), "most": HELD_AFTER}
    connection.execute(_COUNT, values)
    connection.execute(_FORGET, values)
    found = json.loads(connection.execute(_DEADLY, values).fetchone()[0])
    if found:
        connection.execute(_HOLD, {"ids": compact([recipient for recipient, _ in found])})
        connection.execute(_BEGIN_ANEW, values)
    return sorted({message for _, message in found})
