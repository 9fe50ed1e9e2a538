"""What the queue holds, as JSON objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailrider.model.plain import reply_facts
from mailrider.queue.ids import format_id

if TYPE_CHECKING:
    from datetime import datetime

    from mailrider.queue.message import Entry, Stats, StoredMessage


def entry_object(entry: Entry) -> dict[str, Any]:
    """One queued recipient."""
    return {
        "id": format_id(entry.message_id),
        "recipient": entry.recipient,
        "sender": entry.sender,
        "destination": entry.destination,
        "state": entry.state.word,
        "created": stamp(entry.created),
        "due": stamp(entry.due),
        "size": entry.size,
        "tries": entry.progress.tries,
        "in_doubt": entry.progress.in_doubt,
        "delay_told": entry.progress.warned,
        "wish": None if entry.wish is None else entry.wish.name.lower(),
        "last": None if entry.progress.last is None else reply_facts(entry.progress.last),
    }


def message_object(message: StoredMessage) -> dict[str, Any]:
    """A message with its recipients and their history."""
    envelope = message.envelope
    return {
        "id": format_id(message.id),
        "sender": str(envelope.sender),
        "created": stamp(message.created),
        "size": message.info.size,
        "route": message.route or "target",
        "smtputf8": envelope.smtputf8,
        "requiretls": envelope.requiretls,
        "quarantined": envelope.quarantined,
        "ret": None if envelope.ret is None else envelope.ret.value,
        "envid": envelope.envid,
        "client": envelope.client,
        "recipients": [
            entry_object(entry)
            | {
                "notify": None if recipient.notify is None else recipient.notify.words,
                "history": [
                    {"at": stamp(each.at), **each.evidence} for each in message.attempts.get(entry.recipient_id, ())
                ],
            }
            for entry, recipient in zip(message.entries, envelope.recipients, strict=True)
        ],
    }


def stats_object(stats: Stats) -> dict[str, Any]:
    """How much is queued, in numbers."""
    return {
        "messages": stats.messages,
        "octets": stats.octets,
        "recipients": sum(stats.ages.values()),
        "ages": stats.ages,
        "destinations": [
            {
                "destination": each.destination,
                "queued": each.queued,
                "active": each.active,
                "held": each.held,
                "in_doubt": each.in_doubt,
                "oldest": stamp(each.oldest),
                "next_due": None if each.next_due is None else stamp(each.next_due),
            }
            for each in stats.destinations
        ],
    }


def stamp(when: datetime) -> str:
    """A point in time, to the second."""
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")
