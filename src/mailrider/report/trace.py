"""What became of a message, as a JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailrider.queue.ids import PLACE_BITS, format_id, moment
from mailrider.report.queue import entry_object, stamp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mailrider.queue.history import Fact
    from mailrider.queue.message import Entry, StoredMessage

_OF_MESSAGE = ("size", "message_id", "origin", "client", "signed")


def accepted_at(number: int, message: StoredMessage | None) -> datetime:
    """When it was taken: as it is queued, or as its id says."""
    return moment(number >> PLACE_BITS) if message is None else message.created


def message_details(message: StoredMessage | None, facts: Sequence[Fact]) -> dict[str, Any]:
    """What is known of the message itself: from the queue while it is there, otherwise from how it ended."""
    if message is not None:
        told = message.envelope.facts(message.info.size)
    else:
        told = {name: fact.details[name] for fact in facts for name in _OF_MESSAGE if name in fact.details}
    # What goes several ways may be signed on some of them only.
    signed = [*told.get("signed", ()), *(each for fact in facts for each in fact.details.get("signed", ()))]
    return told | ({"signed": list(dict.fromkeys(signed))} if signed else {})


def trace_object(number: int, message: StoredMessage | None, facts: Sequence[Fact]) -> dict[str, Any]:
    """A message with everything that is told of it, in the order in which it happened."""
    return {
        "id": format_id(number),
        "taken": stamp(accepted_at(number, message)),
        "sender": str(message.envelope.sender) if message is not None else facts[0].sender,
        **message_details(message, facts),
        "queued": [] if message is None else [entry_object(each) | _said_to(each, message) for each in message.entries],
        "events": [fact_object(each) for each in facts],
    }


def _said_to(entry: Entry, message: StoredMessage) -> dict[str, Any]:
    attempts = message.attempts.get(entry.recipient_id, ())
    return {"dialogue": attempts[-1].evidence.get("dialogue", "") if attempts else ""}


def fact_object(fact: Fact) -> dict[str, Any]:
    """Something that happened to a recipient."""
    details = {name: value for name, value in fact.details.items() if name not in _OF_MESSAGE}
    return {"at": stamp(fact.at), "event": fact.kind, "recipient": fact.recipient, **details}
