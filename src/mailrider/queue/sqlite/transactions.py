"""Adds and settlements as sets: what a group commit of the SQLite store consists of. Called in the writer's thread.

What has no column of its own is written as JSON, absent (None) for what is as usual: most messages have no options.
`queue.sqlite.rows` reads it back.
"""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from mailrider.model.outcome import Deferred, Status
from mailrider.model.plain import attempt_facts, with_dialogue
from mailrider.queue import history
from mailrider.queue.fairness import BY_DOMAIN
from mailrider.queue.ids import format_id, microseconds
from mailrider.queue.message import FRESH, Change, NewState, RecipientState, Settled, Wish
from mailrider.queue.sqlite import statements as sql
from mailrider.queue.sqlite.statements import compact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.outcome import Outcome
    from mailrider.model.reply import Reply
    from mailrider.queue.fairness import DestinationOf
    from mailrider.queue.message import LeasedJob, NewMessage, Progress, Settlement

FACT: Final = 500  # octets of log that a fact costs, about: facts are written one behind the other
ROW: Final = 4096  # octets of log that a changed row costs, about: its page


class Transactions:
    """Writes sets. `lease` is the registration of this process; `written` grows by the octets of log that it cost,
    about. `keeps_history` False: on a full disk only what has to be written is. `writes_facts`: see `queue.history`."""

    def __init__(self, destination_of: DestinationOf = BY_DOMAIN, *, writes_facts: bool = False) -> None:
        self.lease = 0
        self.written = 0
        self.keeps_history = True
        self.writes_facts = writes_facts
        self._destination_of = destination_of

    def add(self, connection: sqlite3.Connection, messages: Sequence[tuple[NewMessage, bool]]) -> None:
        """Store new messages with their recipients, leased by this process (True) or not."""
        rows: list[tuple[Any, ...]] = []
        recipients: list[tuple[Any, ...]] = []
        for message, leased in messages:
            created = microseconds(message.created)
            rows.append(_message_row(message, created))
            recipients += self._recipient_rows(message, created, leased)
        insert_all(connection, "message", sql.MESSAGE, rows)
        insert_all(connection, "recipient", sql.RECIPIENT, recipients)
        inline = sum(message.info.size for message, _ in messages if message.info.stored is None)
        self.written += inline + ROW * (len(messages) + len(recipients))
        stored = [message.info.stored for message, _ in messages if message.info.stored is not None]
        if stored and connection.execute(sql.UNSPOOL, (compact(stored),)).rowcount != len(stored):
            raise sqlite3.IntegrityError("the content of a new message is not there any more")

    def _recipient_rows(self, message: NewMessage, due: int, leased: bool) -> Iterable[tuple[Any, ...]]:
        state, owner = (1, self.lease) if leased else (0, None)
        destination_of = self._destination_of.by(message.route)
        for number, each in enumerate(message.envelope.recipients, message.id + 1):
            yield (
                number,
                message.id,
                destination_of(each),
                state,
                due,
                owner,
                each.mailbox.text,
                _wishes(each),
            )

    def settle(self, connection: sqlite3.Connection, settlements: Sequence[Settlement]) -> list[Settled]:
        """Commit what jobs came to; for each whether its lease was still held, and what operators wished for it."""
        wishes: dict[int, Wish] = {}
        lost: set[int] = set()
        ids = [each for settlement in settlements for each in settlement.job.ids]
        (exceptions,) = connection.execute(sql.EXCEPTIONS, {"lease": self.lease, "ids": compact(ids)}).fetchone()
        for number, held, wish in json.loads(exceptions):
            if not held:
                lost.add(number)
            elif wish is not None:
                wishes[number] = Wish(wish)
        still_held = [
            settlement.job.lease == self.lease and lost.isdisjoint(settlement.job.ids) for settlement in settlements
        ]
        self._apply(connection, [each for each, held in zip(settlements, still_held, strict=True) if held], wishes)
        return [
            Settled(held, {id: wishes[id] for id in settlement.job.ids if id in wishes})
            for settlement, held in zip(settlements, still_held, strict=True)
        ]

    def _apply(
        self, connection: sqlite3.Connection, settlements: Sequence[Settlement], wishes: dict[int, Wish]
    ) -> None:
        done: list[int] = []
        tried: list[int] = []  # those of them that have a history
        messages: list[int] = []
        rows: list[tuple[Any, ...]] = []
        attempts: list[tuple[Any, ...]] = []
        again: list[int] = []  # those that have former attempts
        notifications: list[tuple[NewMessage, bool]] = []
        facts: list[tuple[Any, ...]] = []
        if self.writes_facts and self.keeps_history:
            dialogues = _dialogues_of_given_up(connection, settlements)
            facts = [row for each in settlements for row in _facts_of(each, wishes, dialogues)]
        for settlement in settlements if self.keeps_history else [each.without_history() for each in settlements]:
            job = settlement.job
            notifications += [(message, False) for message in settlement.notifications]
            ended = False
            for change, before in zip(settlement.changes, job.progress, strict=True):
                wish = wishes.get(change.id)
                if change.new_state is NewState.DONE or wish is Wish.REMOVE:
                    ended = True
                    done.append(change.id)
                    if before.tries:
                        tried.append(change.id)
                    continue
                rows.append(_changed_row(change, wish, microseconds(settlement.at)))
                if change.attempt is not None:
                    attempts.append((change.id, microseconds(settlement.at), compact(with_dialogue(change.attempt))))
                    if before.tries:
                        again.append(change.id)
            if ended:
                messages.append(job.message_id)
        self.written += ROW * (len(done) + len(rows) + len(attempts)) + FACT * len(facts)
        if done:
            self.delete(connection, done, messages, tried)
        if rows:
            connection.execute(sql.RESCHEDULE, (compact(rows),))
        if again:
            connection.execute(sql.DROP_DIALOGUES, (compact(again),))
        if attempts:
            insert_all(connection, "attempt", sql.ATTEMPT, attempts)
        if facts:
            insert_all(connection, "history", sql.HISTORY, facts)
        if notifications:
            self.add(connection, notifications)

    def delete(
        self, connection: sqlite3.Connection, recipients: list[int], messages: Iterable[int], tried: list[int]
    ) -> None:
        """Remove recipients, the history of those that have one, and messages that have no recipient left."""
        connection.execute(sql.DELETE_RECIPIENTS, (compact(recipients),))
        if tried:
            connection.execute(sql.DELETE_ATTEMPTS, (compact(tried),))
        connection.execute(sql.DELETE_MESSAGES, (compact(list(dict.fromkeys(messages))),))


def _dialogues_of_given_up(connection: sqlite3.Connection, settlements: Iterable[Settlement]) -> dict[int, str]:
    """What was said in the last tries of recipients that are given up without another one."""
    given_up = [
        change.id
        for settlement in settlements
        for change, before in zip(settlement.changes, settlement.job.progress, strict=True)
        if change.new_state is NewState.DONE and change.attempt is None and before.tries
    ]
    if not given_up:
        return {}
    (found,) = connection.execute(sql.DIALOGUES, (compact(given_up),)).fetchone()
    return dict(json.loads(found))


def _facts_of(
    settlement: Settlement, wishes: dict[int, Wish], dialogues: Mapping[int, str]
) -> Iterator[tuple[Any, ...]]:
    """What is kept of a settlement, a row for each fact."""
    job, at = settlement.job, microseconds(settlement.at)
    message, sender = job.message_id, job.envelope.sender.text
    for each in settlement.notifications:
        details = compact({"message": format_id(each.id)})
        yield at, history.NOTIFIED, message, str(each.envelope.recipients[0]), sender, details
    for change, before, recipient in zip(settlement.changes, job.progress, job.envelope.recipients, strict=True):
        if change.new_state is NewState.DONE:
            kind, details = _ending(job, change, before, dialogues.get(change.id, ""))
            yield at, kind, message, recipient.mailbox.text, sender, details
            continue
        if change.attempt is not None:
            yield at, history.DEFERRED, message, recipient.mailbox.text, sender, compact(attempt_facts(change.attempt))
        if wishes.get(change.id) is Wish.REMOVE:
            details = compact(job.envelope.facts(job.info.size))
            yield at, history.REMOVED, message, recipient.mailbox.text, sender, details


def insert_all(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows by statements of 128, 64, ... 1 rows: few steps, and few different statements to prepare."""
    start = 0
    while start < len(rows):
        count = min(sql.MOST_ROWS, 1 << ((len(rows) - start).bit_length() - 1))
        values = [value for row in rows[start : start + count] for value in row]
        connection.execute(sql.insert(table, columns, count), values)
        start += count


def _message_row(message: NewMessage, created: int) -> tuple[Any, ...]:
    envelope, info = message.envelope, message.info
    octets = None
    if info.stored is None and message.content is not None:
        content = message.content
        source = content.source
        octets = source if content.is_clean and isinstance(source, bytes) else b"".join(content.chunks())
    return (
        message.id,
        created,
        envelope.sender.text,
        _options(envelope),
        len(envelope.recipients),
        message.route,
        info.size,
        int(info.eight_bit),
        info.header_size,
        info.stored,
        octets,
    )


def _changed_row(change: Change, wish: Wish | None, now: int) -> tuple[Any, ...]:
    state = RecipientState.HELD if wish is Wish.HOLD else RecipientState.QUEUED
    due = None if change.due is None else microseconds(change.due)
    progress = change.progress or FRESH
    return (
        change.id,
        int(state),
        now if wish is Wish.RETRY else due,
        progress.tries,
        int(progress.warned),
        int(progress.in_doubt),
        _reply(progress.last),
    )


# What stands in a column as JSON --------------------------------------------------------------------------------------


def _options(envelope: Envelope) -> str | None:
    """What an envelope has beside its addresses."""
    options: dict[str, Any] = {}
    if envelope.smtputf8:
        options["smtputf8"] = True
    if envelope.requiretls:
        options["requiretls"] = True
    if envelope.quarantined:
        options["quarantined"] = True
    if envelope.ret is not None:
        options["ret"] = envelope.ret.value
    if envelope.envid is not None:
        options["envid"] = envelope.envid
    if envelope.client is not None:
        options["client"] = envelope.client
    if envelope.tls_report:
        options["tls_report"] = True
    if envelope.origin:
        options["origin"] = envelope.origin
    if envelope.message_id:
        options["message_id"] = envelope.message_id
    if envelope.signed:
        options["signed"] = envelope.signed
    return compact(options) if options else None


def _wishes(recipient: Recipient) -> str | None:
    """What a recipient has beside its address."""
    if recipient.notify is None and recipient.original is None:
        return None
    original = recipient.original
    return compact(
        {
            "notify": None if recipient.notify is None else recipient.notify.words,
            "original": None if original is None else [original.address_type, original.address],
        }
    )


def _reply(reply: Reply | None) -> str | None:
    """A reply, so that it can be had back."""
    if reply is None:
        return None
    enhanced = reply.enhanced
    return compact([reply.code, None if enhanced is None else str(enhanced), *reply.lines])


def _ending(job: LeasedJob, change: Change, before: Progress, dialogue: str = "") -> tuple[str, str]:
    """The kind and the details of a recipient's end. `dialogue`: of an earlier try, if this is not the end of one."""
    told = job.envelope.facts(job.info.size)
    outcome = change.attempt
    if outcome is None:  # its time was over without another attempt
        told["given_up"] = True
        told["tries"] = before.tries
        last = (change.progress or before).last
        if last is not None:
            told["code"], told["enhanced"], told["text"] = last.code, str(last.status), last.text
        if dialogue:
            told["dialogue"] = dialogue
        return history.FAILED, compact(told)
    if outcome.status is Status.DELIVERED and len(outcome.tries) < 2:  # the way of nearly all mail
        _tell_outcome(told, outcome)
    else:
        told |= with_dialogue(outcome)
    if outcome.signed:
        told["signed"] = (*job.envelope.signed, *outcome.signed)
    if before.tries:
        told["tries"] = before.tries
    if isinstance(outcome, Deferred):
        told["given_up"] = True
    return history.DELIVERED if outcome.status is Status.DELIVERED else history.FAILED, compact(told)


def _tell_outcome(told: dict[str, Any], outcome: Outcome) -> None:
    reply, security = outcome.reply, outcome.security
    told["code"], told["enhanced"], told["text"] = reply.code, str(reply.status), reply.text
    if outcome.mx is not None:
        told["mx"], told["address"] = outcome.mx, outcome.address
        told["mx_level"], told["tls_level"] = security.mx_level.word, security.tls_level.word
    if security.tls_version:
        told["tls_version"] = security.tls_version
    if security.authenticated_by:
        told["authenticated_by"] = security.authenticated_by
