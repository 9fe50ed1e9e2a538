"""The statements of the SQLite store.

The recipients of a message are found by their run of ids; runs may overlap, so each statement names the message too.

Each works on a whole set and gives at most one row: every step of a statement waits for the interpreter's lock, which
beside a busy event loop costs more than all that SQLite does in it. So sets go in and come out as JSON.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Final

MOST_ROWS: Final = 128  # of one INSERT
# A clock that stands still gives two attempts one moment: the later one counts.
_CONFLICT: Final = {"attempt": "REPLACE"}

compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""A set, or what a column holds of more than one value, as text."""


@cache
def insert(table: str, columns: tuple[str, ...], rows: int) -> str:
    """An INSERT of so many rows; numbers of rows that are powers of two keep the cached statements few."""
    row = f"({','.join('?' * len(columns))})"
    return (
        f"INSERT OR {_CONFLICT.get(table, 'ABORT')} INTO {table} ({','.join(columns)}) VALUES {','.join([row] * rows)}"  # noqa: S608 - constants only
    )


MESSAGE: Final = (
    "id",
    "created",
    "sender",
    "options",
    "recipients",
    "route",
    "size",
    "eight_bit",
    "header_size",
    "stored",
    "content",
)
RECIPIENT: Final = ("id", "message", "destination", "state", "due", "owner", "mailbox", "options")
CHUNK: Final = ("content", "number", "octets")
ATTEMPT: Final = ("recipient", "at", "evidence")

HISTORY: Final = ("at", "kind", "message", "mailbox", "sender", "details")

# --- Settling ------------------------------------------------------------------------------------

# Of these recipients, those that are not leased under this registration, and those that an operator wishes something.
EXCEPTIONS: Final = """
SELECT json_group_array(json_array(j.value, r.owner IS :lease, r.wish))
FROM json_each(:ids) j LEFT JOIN recipient r ON r.id = j.value
WHERE r.owner IS NOT :lease OR r.wish IS NOT NULL
"""

DELETE_RECIPIENTS: Final = "DELETE FROM recipient WHERE id IN (SELECT value FROM json_each(?))"
DELETE_ATTEMPTS: Final = "DELETE FROM attempt WHERE recipient IN (SELECT value FROM json_each(?))"
# The dialogue is kept of a recipient's last attempt only.
DROP_DIALOGUES: Final = """
UPDATE attempt SET evidence = json_remove(evidence, '$.dialogue')
WHERE recipient IN (SELECT value FROM json_each(?)) AND json_type(evidence, '$.dialogue') IS NOT NULL
"""
DIALOGUES: Final = """
SELECT json_group_array(json_array(recipient, json_extract(evidence, '$.dialogue'))) FROM attempt
WHERE recipient IN (SELECT value FROM json_each(?)) AND json_type(evidence, '$.dialogue') = 'text'
"""
# All of it: to delete a part SQLite may need another page first (sqlite.org/lang_delete.html, truncate optimization).
FORGET_HISTORY: Final = "DELETE FROM attempt"
FORGET_FACTS: Final = "DELETE FROM history"
DELETE_MESSAGES: Final = """
DELETE FROM message WHERE id IN (SELECT value FROM json_each(?)) AND NOT EXISTS (
    SELECT 1 FROM recipient r
    WHERE r.id > message.id AND r.id <= message.id + message.recipients AND r.message = message.id
)
"""

# Rows of [id, state, due, tries, warned, in_doubt, last].
RESCHEDULE: Final = """
UPDATE recipient SET
    state = json_extract(j.value, '$[1]'), due = coalesce(json_extract(j.value, '$[2]'), due),
    tries = json_extract(j.value, '$[3]'), warned = json_extract(j.value, '$[4]'),
    in_doubt = json_extract(j.value, '$[5]'), last = json_extract(j.value, '$[6]'),
    owner = NULL, wish = NULL
FROM json_each(?) j WHERE recipient.id = json_extract(j.value, '$[0]')
"""

# --- Leases --------------------------------------------------------------------------------------

MOST_QUOTAS: Final = 64  # of one claim: SQLite joins up to 500 parts


@cache
def claimable(quotas: int) -> str:
    """What is due for so many destinations, whole jobs; takes (destination, now, limit) for each, and now.

    A LIMIT cannot look at a row, so each destination has a part of its own; powers of two keep the statements few. The
    plus signs keep SQLite from looking for the rest of a job among all that its destination has, instead of by id.
    """
    part = (
        "SELECT * FROM (SELECT id FROM recipient WHERE state = 0 AND destination = ? AND due <= ? ORDER BY due LIMIT ?)"
    )
    return f"""
    SELECT json_group_array(id) FROM (
        SELECT DISTINCT s.id
        FROM ({" UNION ALL ".join([part] * quotas)}) q
        JOIN recipient r ON r.id = q.id
        JOIN message m ON m.id = r.message
        JOIN recipient s ON s.id > m.id AND s.id <= m.id + m.recipients
        WHERE +s.message = m.id AND +s.state = 0 AND +s.destination = r.destination AND +s.due <= ?
    )
    """  # noqa: S608 - constants only


# When the first of what these destinations have queued is due; a seek for each.
LEFT: Final = """
SELECT json_group_array(json_array(name, due)) FROM (
    SELECT j.value AS name, (SELECT min(due) FROM recipient WHERE state = 0 AND destination = j.value) AS due
    FROM json_each(:destinations) j
) WHERE due IS NOT NULL
"""

# By id, as far as the oldest go, not by the index through everything: hence the plus sign.
OLDER: Final = """
SELECT json_group_array(id) FROM (
    SELECT r.id FROM recipient r
    WHERE r.id < :before AND +r.state = 0 AND (r.warned = 0 OR NOT :unwarned)
    ORDER BY r.id LIMIT :limit
)
"""

LEASE: Final = "UPDATE recipient SET state = 1, owner = :lease WHERE id IN (SELECT value FROM json_each(:ids))"

SET_ASIDE: Final = "UPDATE recipient SET state = 2, owner = NULL WHERE id IN (SELECT value FROM json_each(:ids))"

JOBS: Final = """
SELECT json_group_array(json_array(
    r.message, r.destination, r.id, r.mailbox, r.options, r.tries, r.warned, r.in_doubt, r.last,
    m.created, m.sender, m.options, m.route, m.size, m.eight_bit, m.header_size, m.stored
))
FROM json_each(:ids) j JOIN recipient r ON r.id = j.value JOIN message m ON m.id = r.message
"""

# Pairs of message and recipient: a message that was not stored, since its ids were taken, gives nobody else's back.
LEASED_OF: Final = """
SELECT json_group_array(r.id) FROM json_each(:pairs) j JOIN recipient r ON r.id = json_extract(j.value, '$[1]')
WHERE r.message = json_extract(j.value, '$[0]') AND r.owner = :lease
"""
GIVE_BACK: Final = """
UPDATE recipient SET state = iif(wish = 1, 2, 0), owner = NULL, wish = NULL
WHERE owner = :lease AND id IN (SELECT value FROM json_each(:ids)) AND wish IS NOT 2
"""
GIVE_BACK_ALL: Final = """
UPDATE recipient SET state = iif(wish = 1, 2, 0), owner = NULL, wish = NULL
WHERE state = 1 AND owner IN (SELECT value FROM json_each(:owners)) AND wish IS NOT 2
"""
# What was to be removed, and is leased by nobody any more.
REMOVE_GIVEN_BACK: Final = """
SELECT json_group_array(json_array(id, message)) FROM recipient
WHERE state = 1 AND wish = 2 AND owner IN (SELECT value FROM json_each(:owners))
    AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))
"""

REGISTER: Final = "INSERT INTO owner (identity, expires) VALUES (?, ?)"
RENEW: Final = "UPDATE owner SET expires = ? WHERE id = ?"
OWNERS: Final = "SELECT json_group_array(json_array(id, identity, expires)) FROM owner"
DELETE_OWNERS: Final = "DELETE FROM owner WHERE id IN (SELECT value FROM json_each(?))"

ANCHOR: Final = "SELECT boot, at, wall, monotonic FROM anchor"
SET_ANCHOR: Final = "INSERT OR REPLACE INTO anchor (id, boot, at, wall, monotonic) VALUES (1, ?, ?, ?, ?)"
# Nobody else is there, and nothing is queued: time may begin anew.
IS_ALONE: Final = "SELECT NOT EXISTS (SELECT 1 FROM message) AND (SELECT count(*) FROM owner) = 1"

# Of all that is stored, a recipient of the last message too.
LAST_ID: Final = """
SELECT max(
    coalesce((SELECT max(id) FROM recipient), 0),
    coalesce((SELECT id + recipients FROM message ORDER BY id DESC LIMIT 1), 0)
)
"""

# --- Content -------------------------------------------------------------------------------------

CONTENTS: Final = "SELECT id, content FROM message WHERE id IN (SELECT value FROM json_each(?))"
READ_CHUNK: Final = "SELECT octets FROM chunk WHERE content = ? AND number = ?"
SPOOL: Final = "INSERT INTO spool (owner) VALUES (?)"
UNSPOOL: Final = "DELETE FROM spool WHERE content IN (SELECT value FROM json_each(?))"
# Nobody has use for a content: no message names it, and no living process is about to add one that does. This process
# (:lease) is writing :writing only; the rest that it began it has given up.
_SPOOLED: Final = """
    SELECT 1 FROM spool s JOIN owner o ON o.id = s.owner WHERE s.content = {content}
        AND (s.owner <> :lease OR s.content IN (SELECT value FROM json_each(:writing)))
"""
_IS_UNNAMED: Final = f"""
    NOT EXISTS (SELECT 1 FROM message m WHERE m.stored = {{content}}) AND NOT EXISTS ({_SPOOLED})
"""  # noqa: S608 - constants only
# A skip through the index: a few seeks for each content, however long it is.
UNNAMED: Final = f"""
WITH RECURSIVE step (content) AS (
    SELECT min(content) FROM chunk
    UNION ALL
    SELECT (SELECT min(content) FROM chunk WHERE content > step.content) FROM step WHERE step.content IS NOT NULL
)
SELECT json_group_array(content) FROM step WHERE content IS NOT NULL AND {_IS_UNNAMED.format(content="step.content")}
"""  # noqa: S608 - constants only
FORGET_SPOOL: Final = f"""
DELETE FROM spool WHERE content = :content AND {_IS_UNNAMED.format(content="spool.content")}
"""  # noqa: S608 - constants only
UNNAMED_CHUNKS: Final = f"""
SELECT count(*) FROM chunk WHERE content = :content AND {_IS_UNNAMED.format(content=":content")}
"""  # noqa: S608 - constants only
DELETE_CHUNKS: Final = "DELETE FROM chunk WHERE content = ? AND number >= ? AND number < ?"

# --- To look into it -----------------------------------------------------------------------------

# A skip through the index: two seeks a destination, however much is queued for it.
DESTINATIONS: Final = """
WITH RECURSIVE step (name, n) AS (
    SELECT iif(
        :after IS NULL,
        (SELECT min(destination) FROM recipient WHERE state = 0),
        (SELECT min(destination) FROM recipient WHERE state = 0 AND destination > :after)
    ), 1
    UNION ALL
    SELECT (SELECT min(destination) FROM recipient WHERE state = 0 AND destination > name), n + 1
    FROM step WHERE name IS NOT NULL AND n < :limit
)
SELECT json_group_array(json_array(
    name, (SELECT min(due) FROM recipient WHERE state = 0 AND destination = name)
)) FROM step WHERE name IS NOT NULL
"""

_WANTED: Final = """
    (:message IS NULL OR r.message = :message)
    AND (:domain IS NULL OR substr(r.mailbox, -length(:domain) - 1) = '@' || :domain)
    AND (:state IS NULL OR r.state = :state)
    AND (:before IS NULL OR r.id < :before)
    AND (:in_doubt IS NULL OR r.in_doubt = :in_doubt)
    AND (:recipient IS NULL OR instr(lower(r.mailbox), :recipient) > 0)
    AND (:sender IS NULL OR EXISTS (
        SELECT 1 FROM message f WHERE f.id = r.message
            AND iif(:sender = '', f.sender = '', instr(lower(f.sender), :sender) > 0)
    ))
"""

PAGE: Final = f"""
SELECT json_group_array(json_array(
    message, id, created, sender, mailbox, destination, state, due, size, tries, warned, in_doubt, last, wish
)) FROM (
    SELECT r.*, m.created, m.sender, m.size FROM recipient r JOIN message m ON m.id = r.message
    WHERE r.id > :after AND {_WANTED}
    ORDER BY r.id LIMIT :limit
)
"""  # noqa: S608 - constants only

SELECTED: Final = f"""
SELECT json_group_array(json_array(id, message, state, wish)) FROM (
    SELECT r.id, r.message, r.state, r.wish FROM recipient r
    WHERE r.id > :after AND {_WANTED} ORDER BY r.id LIMIT :limit
)
"""  # noqa: S608 - constants only

HOLD: Final = "UPDATE recipient SET state = 2 WHERE state = 0 AND id IN (SELECT value FROM json_each(:ids))"
RELEASE: Final = """
UPDATE recipient SET state = iif(state = 2, 0, state), wish = NULL
WHERE (state = 2 OR wish = 1) AND id IN (SELECT value FROM json_each(:ids))
"""
# What is due already keeps its turn.
RETRY: Final = "UPDATE recipient SET due = min(due, :now) WHERE state = 0 AND id IN (SELECT value FROM json_each(:ids))"
# The stronger wish wins, whichever came first: a removal over all, a hold over another try (`Wish.is_replaced_by`).
WISH: Final = """
UPDATE recipient SET wish = :wish
WHERE state = 1 AND id IN (SELECT value FROM json_each(:ids))
    AND CASE wish WHEN 2 THEN :wish = 2 WHEN 1 THEN :wish <> 3 ELSE TRUE END
"""

MESSAGE_ROW: Final = """
SELECT created, sender, options, route, size, eight_bit, header_size, stored FROM message WHERE id = ?
"""
MESSAGE_RECIPIENTS: Final = """
SELECT json_group_array(json_array(id, mailbox, options)) FROM (
    SELECT r.id, r.mailbox, r.options FROM recipient r JOIN message m ON m.id = :id
    WHERE r.id > m.id AND r.id <= m.id + m.recipients AND r.message = m.id ORDER BY r.id
)
"""
MESSAGE_ATTEMPTS: Final = """
SELECT json_group_array(json_array(recipient, at, evidence)) FROM (
    SELECT a.recipient, a.at, a.evidence
    FROM message m JOIN attempt a ON a.recipient > m.id AND a.recipient <= m.id + m.recipients
    JOIN recipient r ON r.id = a.recipient
    WHERE m.id = :id AND r.message = m.id ORDER BY a.recipient, a.at
)
"""

# Before one of the three statements below: they see the tables without some messages (a list of ids).
WITHOUT: Final = """
WITH message AS (SELECT * FROM main.message WHERE id NOT IN (SELECT value FROM json_each('{ids}'))),
    recipient AS (SELECT * FROM main.recipient WHERE message NOT IN (SELECT value FROM json_each('{ids}')))
"""
TOTALS: Final = "SELECT count(*), coalesce(sum(size), 0), min(created) FROM message"
BY_DESTINATION: Final = """
SELECT json_group_array(json_array(destination, queued, active, held, doubt, oldest, due)) FROM (
    SELECT destination, sum(state = 0) AS queued, sum(state = 1) AS active, sum(state = 2) AS held,
        sum(in_doubt) AS doubt, min(id) AS oldest, min(CASE WHEN state = 0 THEN due END) AS due
    FROM recipient GROUP BY destination ORDER BY count(*) DESC, destination LIMIT :limit
)
"""
# Recipients between two ids: the age in the order of ids.
BETWEEN: Final = "SELECT count(*) FROM recipient WHERE id >= ? AND id < ?"

# --- History -------------------------------------------------------------------------------------

# What an operator did to recipients.
NOTE_ACT: Final = """
INSERT INTO history (at, kind, message, mailbox, sender, details)
SELECT :now, :kind, r.message, r.mailbox, m.sender, :details
FROM json_each(:ids) j JOIN recipient r ON r.id = j.value JOIN message m ON m.id = r.message
"""
FACTS: Final = """
SELECT json_group_array(json_array(number, at, kind, message, mailbox, sender, details)) FROM (
    SELECT * FROM history WHERE message IN (SELECT value FROM json_each(:messages)) ORDER BY number LIMIT :limit
)
"""
# The messages of which something is told that fits, the newest last. `detail` is a member of `details`, as it is
# written.
MESSAGES_TOLD_OF: Final = """
SELECT json_group_array(message) FROM (
    SELECT message, max(number) FROM history
    WHERE at >= :since AND (
        message = :message OR lower(mailbox) = :address OR lower(sender) = :address OR instr(details, :detail) > 0
    )
    GROUP BY message ORDER BY max(number) DESC LIMIT :limit
)
"""
MESSAGES_QUEUED: Final = """
SELECT json_group_array(id) FROM (
    SELECT m.id FROM message m
    WHERE m.created >= :since AND (
        m.id = :message OR lower(m.sender) = :address OR instr(m.options, :detail) > 0 OR EXISTS (
            SELECT 1 FROM recipient r
            WHERE r.id > m.id AND r.id <= m.id + m.recipients AND r.message = m.id AND lower(r.mailbox) = :address
        )
    )
    ORDER BY m.id DESC LIMIT :limit
)
"""
DROP_FACTS: Final = """
DELETE FROM history WHERE message = :message OR lower(mailbox) = :address OR lower(sender) = :address
    OR instr(details, :detail) > 0
"""
# Of the oldest so many, those that are too old or too many. The newest stays, since numbers must not begin
# anew; once it is too old nothing stands in it.
TRIM_HISTORY: Final = """
DELETE FROM history WHERE number IN (SELECT number FROM history ORDER BY number LIMIT :step)
    AND (at < :before OR number <= (SELECT max(number) FROM history) - :facts)
    AND number < (SELECT max(number) FROM history)
"""
EMPTY_NEWEST: Final = """
UPDATE history SET message = 0, mailbox = '', sender = '', details = '{}'
WHERE number = (SELECT max(number) FROM history) AND at < :before AND message <> 0
"""
