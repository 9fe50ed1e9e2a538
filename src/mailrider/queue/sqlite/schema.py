"""The tables of the SQLite store, and how older ones become today's.

`message.id` and `recipient.id` come from `queue.ids`: the recipients of a message have the ids behind its own, so that
`id > message.id AND id <= message.id + message.recipients` finds them without an index. Moments are microseconds since
1970. `recipient.owner` is the registration that leases it. `spool` names contents whose message is not there yet.

The only index is what claims need; what is not indexed is read in the order of ids, which is that of time.
"""

from __future__ import annotations

from typing import Final

APPLICATION: Final = 0x4D52_5131  # "MRQ1": this file is ours (PRAGMA application_id)

# One script for each version of the schema; a store of version n has had the first n. Never change one, add the next.
MIGRATIONS: Final = (
    """
    CREATE TABLE owner (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        identity TEXT NOT NULL,
        expires INTEGER NOT NULL
    );
    CREATE TABLE message (
        id INTEGER PRIMARY KEY,
        created INTEGER NOT NULL,
        sender TEXT NOT NULL,
        options TEXT,
        recipients INTEGER NOT NULL,
        route TEXT NOT NULL,
        size INTEGER NOT NULL,
        eight_bit INTEGER NOT NULL,
        header_size INTEGER NOT NULL,
        stored INTEGER,
        content BLOB
    );
    CREATE INDEX message_stored ON message (stored) WHERE stored IS NOT NULL;
    CREATE TABLE recipient (
        id INTEGER PRIMARY KEY,
        message INTEGER NOT NULL,
        destination TEXT NOT NULL,
        state INTEGER NOT NULL,
        due INTEGER NOT NULL,
        owner INTEGER,
        wish INTEGER,
        tries INTEGER NOT NULL DEFAULT 0,
        warned INTEGER NOT NULL DEFAULT 0,
        in_doubt INTEGER NOT NULL DEFAULT 0,
        last TEXT,
        mailbox TEXT NOT NULL,
        options TEXT
    );
    CREATE INDEX recipient_due ON recipient (state, destination, due);
    CREATE TABLE attempt (
        recipient INTEGER NOT NULL,
        at INTEGER NOT NULL,
        evidence TEXT NOT NULL,
        PRIMARY KEY (recipient, at)
    ) WITHOUT ROWID;
    CREATE TABLE chunk (
        content INTEGER NOT NULL,
        number INTEGER NOT NULL,
        octets BLOB NOT NULL,
        PRIMARY KEY (content, number)
    );
    CREATE TABLE spool (
        content INTEGER PRIMARY KEY AUTOINCREMENT,
        owner INTEGER NOT NULL
    );
    """,
    # What queue time it was, and what the clocks said then: see `queue.lived`. One row.
    """
    CREATE TABLE anchor (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        boot TEXT NOT NULL,
        at INTEGER NOT NULL,
        wall INTEGER NOT NULL,
        monotonic REAL NOT NULL
    );
    """,
    # Facts in the order of commits: see `queue.history`. `message` is sought, an address is looked for from end to end.
    """
    CREATE TABLE history (
        number INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        kind TEXT NOT NULL,
        message INTEGER NOT NULL,
        mailbox TEXT NOT NULL,
        sender TEXT NOT NULL,
        details TEXT NOT NULL
    );
    CREATE INDEX history_message ON history (message);
    """,
)
VERSION: Final = len(MIGRATIONS)
