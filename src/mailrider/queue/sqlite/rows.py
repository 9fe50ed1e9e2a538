"""Rows of the SQLite store, as they come out of its JSON, to values: what `queue.sqlite.transactions` wrote.

Where a row does not parse all the same, an exception says so, and the store holds such recipients. Moments in rows are
queue time; `shift` is how much the wall clock, which people know, is ahead of it.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Notify, OriginalRecipient, Recipient, Ret
from mailrider.model.reply import EnhancedCode, Reply
from mailrider.queue.ids import MAX_ID, PLACE_BITS, first_id_at, format_id, moment
from mailrider.queue.message import (
    ContentInfo,
    DestinationCount,
    DueDestination,
    Entry,
    LeasedJob,
    PastAttempt,
    Progress,
    RecipientState,
    Stats,
    StoredMessage,
    Wish,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from mailrider.queue.message import Filter

# The ages by which a queue is counted, and what people call them.
AGES: Final = (
    ("under 5 minutes", timedelta(minutes=5)),
    ("under 1 hour", timedelta(hours=1)),
    ("under 4 hours", timedelta(hours=4)),
    ("under 1 day", timedelta(days=1)),
    ("under 3 days", timedelta(days=3)),
    ("older", None),
)


_STATES: Final = frozenset(RecipientState)


class Unreadable(NamedTuple):
    """Recipients of a message that are not as we write them: a person or another version did."""

    message: int
    ids: tuple[int, ...]
    reason: str


def jobs_from(rows: Sequence[Sequence[Any]], lease: int) -> tuple[list[LeasedJob], list[Unreadable]]:
    """Leased recipients, grouped by message and destination, in the order in which the messages come."""
    groups: dict[tuple[int, str], list[Sequence[Any]]] = {}
    for row in rows:
        groups.setdefault((row[0], row[1]), []).append(row)
    jobs: list[LeasedJob] = []
    unreadable: list[Unreadable] = []
    for (message, destination), group in groups.items():
        try:
            jobs.append(_job(message, destination, group, lease))
        except (LookupError, TypeError, ValueError) as error:  # `InvalidValue` is one
            unreadable.append(Unreadable(message, tuple(row[2] for row in group), f"{type(error).__name__}: {error}"))
    return jobs, unreadable


def _job(message: int, destination: str, rows: list[Sequence[Any]], lease: int) -> LeasedJob:
    created, sender, options, route, size, eight_bit, header_size, stored = rows[0][9:]
    recipients = tuple(_recipient(row[3], row[4]) for row in rows)
    return LeasedJob(
        message,
        destination,
        _envelope(sender, options, recipients, format_id(message)),
        tuple(row[2] for row in rows),
        tuple(_progress(*row[5:9]) for row in rows),
        moment(created),
        ContentInfo(size, bool(eight_bit), header_size, stored),
        lease,
        route,
    )


def _shown(tries: int, warned: int, in_doubt: int, last: str | None) -> Progress:
    """For people, who are to see a row and remove it whatever stands in it."""
    try:
        return _progress(tries, warned, in_doubt, last)
    except (LookupError, TypeError, ValueError):
        return Progress(0, bool(warned), bool(in_doubt), None)


def _state(number: int) -> RecipientState:
    """What is none of our states is not delivered."""
    return RecipientState(number) if number in _STATES else RecipientState.HELD


def _progress(tries: int, warned: int, in_doubt: int, last: str | None) -> Progress:
    return Progress(tries, bool(warned), bool(in_doubt), _reply(last))


def _envelope(sender: str, options: str | None, recipients: tuple[Recipient, ...], id: str = "") -> Envelope:
    """Options, with the addresses, and the message's name."""
    path = ReversePath.parse(sender)
    if options is None:
        return Envelope(path, recipients, id=id)
    given = json.loads(options)
    ret, signed = given.pop("ret", None), tuple(given.pop("signed", ()))
    return Envelope(path, recipients, ret=None if ret is None else Ret(ret), id=id, signed=signed, **given)


def _recipient(mailbox: str, wishes: str | None) -> Recipient:
    """Wishes, with the address."""
    if wishes is None:
        return Recipient(Mailbox.parse(mailbox))
    given = json.loads(wishes)
    notify, original = given["notify"], given["original"]
    return Recipient(
        Mailbox.parse(mailbox),
        None if notify is None else Notify.parse(notify),
        None if original is None else OriginalRecipient(*original),
    )


def _reply(text: str | None) -> Reply | None:
    """What was said last."""
    if text is None:
        return None
    code, enhanced, *lines = json.loads(text)
    return Reply(code, None if enhanced is None else EnhancedCode.parse(enhanced), tuple(lines))


def destinations_from(rows: Sequence[Sequence[Any]]) -> list[DueDestination]:
    """Destinations with the moment at which the first of their recipients is due."""
    return [DueDestination(name, moment(due)) for name, due in rows]


def filter_values(wanted: Filter, shift: timedelta) -> dict[str, Any]:
    """The parameters that a filter gives to a statement."""
    return {
        "message": wanted.message,
        "domain": wanted.domain,
        "sender": None if wanted.sender is None else wanted.sender.lower(),
        "recipient": None if wanted.recipient is None else wanted.recipient.lower(),
        "state": None if wanted.state is None else int(wanted.state),
        "before": None if wanted.before is None else first_id_at(wanted.before - shift),
        "in_doubt": None if wanted.in_doubt is None else int(wanted.in_doubt),
    }


def entries_from(rows: Sequence[Sequence[Any]], shift: timedelta) -> list[Entry]:
    """Recipients, for a list."""
    return [_entry(shift, *row) for row in rows]


def _entry(
    shift: timedelta,
    message: int,
    id: int,
    created: int,
    sender: str,
    mailbox: str,
    destination: str,
    state: int,
    due: int,
    size: int,
    *rest: Any,
) -> Entry:
    tries, warned, in_doubt, last, wish = rest
    return Entry(
        message,
        id,
        moment(created) + shift,
        sender,
        mailbox,
        destination,
        _state(state),
        moment(due) + shift,
        size,
        _shown(tries, warned, in_doubt, last),
        None if wish is None else Wish(wish),
    )


def message_from(
    id: int,
    row: Sequence[Any],
    recipients: Sequence[Sequence[Any]],
    entries: Sequence[Entry],
    attempts: Sequence[Sequence[Any]],
    shift: timedelta,
) -> StoredMessage:
    """A message with everything."""
    created, sender, options, route, size, eight_bit, header_size, stored = row
    envelope = _envelope(
        sender, options, tuple(_recipient(mailbox, wishes) for _, mailbox, wishes in recipients), format_id(id)
    )
    history: dict[int, list[PastAttempt]] = {}
    for recipient, at, text in attempts:
        history.setdefault(recipient, []).append(PastAttempt(moment(at) + shift, json.loads(text)))
    return StoredMessage(
        id,
        moment(created) + shift,
        envelope,
        ContentInfo(size, bool(eight_bit), header_size, stored),
        route,
        tuple(entries),
        {recipient: tuple(each) for recipient, each in history.items()},
    )


def stats_from(
    totals: Sequence[Any],
    rows: Sequence[Sequence[Any]],
    between: Callable[[int, int], int],
    now: datetime,
    shift: timedelta,
) -> Stats:
    """Numbers. `between` counts the recipients whose ids lie between two."""

    def shown(value: int | None) -> datetime | None:
        return None if value is None else moment(value) + shift

    destinations = tuple(
        DestinationCount(name, queued, active, held, doubt, moment(oldest >> PLACE_BITS) + shift, shown(due))
        for name, queued, active, held, doubt, oldest, due in rows
    )
    ages: dict[str, int] = {}
    end = MAX_ID
    for name, age in AGES:
        start = 0 if age is None else first_id_at(now - shift - age)
        ages[name] = between(start, end)
        end = start
    messages, octets, oldest = totals
    return Stats(messages, octets, destinations, ages, shown(oldest))
