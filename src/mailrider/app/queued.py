"""What waits in a queue, as a program sees it: values with the ids that people and logs know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailrider.clock import SystemClock
from mailrider.model.domain import parse_next_hop
from mailrider.model.value import value
from mailrider.queue.ids import format_id
from mailrider.queue.message import Filter, RecipientState
from mailrider.settings.types import DURATION, Unacceptable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from mailrider.model.reply import Reply
    from mailrider.queue.message import Entry, StoredMessage

STATES = {state.word: state for state in RecipientState}


@value
class QueuedRecipient:
    """A recipient who waits for a message. `id` is the message's; `sender` is empty for the null reverse-path.

    `state` is "queued", "active" (being tried now) or "held"; `due` is when the next try may begin, `tries` how many
    failed, `last` what the last one ended with. `in_doubt`: a server may have the message already.
    """

    id: str
    recipient: str
    sender: str
    destination: str
    state: str
    created: datetime
    due: datetime
    size: int
    tries: int = 0
    in_doubt: bool = False
    last: Reply | None = None


@value
class PastTry:
    """A try that did not end it, and what was learned in it, as `mailrider queue show --json` has it."""

    at: datetime
    evidence: Mapping[str, Any]


@value
class QueuedMessage:
    """A message in a queue, with the recipients who still wait, and the tries that there were for each of them."""

    id: str
    sender: str
    created: datetime
    size: int
    recipients: tuple[QueuedRecipient, ...]
    history: Mapping[str, tuple[PastTry, ...]]


def queued_recipient(entry: Entry) -> QueuedRecipient:
    """An entry of the store, for a program."""
    progress = entry.progress
    return QueuedRecipient(
        format_id(entry.message_id),
        entry.recipient,
        entry.sender,
        entry.destination,
        entry.state.word,
        entry.created,
        entry.due,
        entry.size,
        progress.tries,
        progress.in_doubt,
        progress.last,
    )


def queued_message(message: StoredMessage) -> QueuedMessage:
    """A message of the store, for a program."""
    return QueuedMessage(
        format_id(message.id),
        str(message.envelope.sender),
        message.created,
        message.info.size,
        tuple(queued_recipient(entry) for entry in message.entries),
        {
            entry.recipient: tuple(
                PastTry(each.at, each.evidence) for each in message.attempts.get(entry.recipient_id, ())
            )
            for entry in message.entries
        },
    )


def queue_filter(
    sender: str | None,
    recipient: str | None,
    domain: str | None,
    state: str | None,
    older: timedelta | float | str | None,
    *,
    in_doubt: bool = False,
    message: int | None = None,
) -> Filter:
    """Which recipients are meant; `in_doubt`: those alone. Raises `TypeError` and `ValueError`."""
    for name, text in ("sender", sender), ("recipient", recipient), ("domain", domain), ("state", state):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} is a string, not {type(text).__name__}")
    if recipient == "":  # an empty variable must not mean everybody
        raise ValueError("recipient is a part of an address, not an empty text")
    if state is not None and state not in STATES:
        raise ValueError(f"state is one of {', '.join(STATES)}, not {state!r}")
    try:
        before = None if older is None else SystemClock().now() - DURATION.accept(older)
    except Unacceptable as error:
        raise ValueError(f"older: {error}") from error
    return Filter(
        message,
        domain=None if domain is None else parse_next_hop(domain).ascii,
        sender="" if sender == "<>" else sender,
        recipient=recipient,
        state=None if state is None else STATES[state],
        before=before,
        in_doubt=True if in_doubt else None,
    )
