"""What happened to queued recipients, as facts that are kept: `mailrider trace` reads them.

A fact is written in the transaction that makes it true, so that what is told did happen, and nothing that happened is
missing. It has no subject and no content, but addresses: how many facts are kept, and for how long, is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from mailrider.model.outcome import Deferred, Status
from mailrider.queue.encode import compact, with_dialogue

if TYPE_CHECKING:
    from datetime import datetime

    from mailrider.model.envelope import Envelope
    from mailrider.model.outcome import Outcome
    from mailrider.queue.message import Change, Job, Progress

MOST: Final = 100_000  # facts about messages that one look gives

# The names are stored.
DELIVERED: Final = "recipient.delivered"
DEFERRED: Final = "recipient.deferred"
FAILED: Final = "recipient.failed"
REMOVED: Final = "recipient.removed"
NOTIFIED: Final = "dsn.sent"
ENDS: Final = frozenset({DELIVERED, FAILED, REMOVED})
ACTS: Final = {
    "hold": "recipient.held",
    "release": "recipient.released",
    "retry": "recipient.retried",
    "remove": REMOVED,
}


@dataclass(frozen=True, slots=True)
class HistoryBounds:
    """How long facts are kept, and how many at most; the oldest go first. An age of zero: none are written."""

    age: timedelta = timedelta(days=30)
    facts: int = 1_000_000

    @property
    def is_on(self) -> bool:
        """True if facts are kept."""
        return bool(self.age) and self.facts > 0

    def shared_by(self, stores: int) -> HistoryBounds:
        """The bounds of each of so many stores, that all of them together keep to."""
        return HistoryBounds(self.age, -(-self.facts // stores))


OFF: Final = HistoryBounds(timedelta(0), 0)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened to a recipient of a message. `number` grows in the order of commits."""

    number: int
    at: datetime
    kind: str
    message_id: int
    recipient: str
    sender: str
    details: dict[str, Any]


def of_message(envelope: Envelope, size: int) -> dict[str, Any]:
    """What is told of a message with the end of each recipient: it is not there any more then."""
    told: dict[str, Any] = {"size": size}
    if envelope.message_id:
        told["message_id"] = envelope.message_id
    if envelope.origin:
        told["origin"] = envelope.origin
    if envelope.client is not None:
        told["client"] = envelope.client
    if envelope.signed:
        told["signed"] = envelope.signed
    return told


def ending(job: Job, change: Change, before: Progress, dialogue: str = "") -> tuple[str, str]:
    """The kind and the details of a recipient's end. `dialogue`: of an earlier try, if this is not the end of one."""
    told = of_message(job.envelope, job.info.size)
    outcome = change.attempt
    if outcome is None:  # its time was over without another attempt
        told["given_up"] = True
        told["tries"] = before.tries
        if before.last is not None:
            told["code"], told["text"] = before.last.code, str(before.last)
        if dialogue:
            told["dialogue"] = dialogue
        return FAILED, compact(told)
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
    return DELIVERED if outcome.status is Status.DELIVERED else FAILED, compact(told)


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
