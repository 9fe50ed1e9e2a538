"""What happened to queued recipients, as facts that are kept: `mailrider trace` reads them.

A fact is written in the transaction that makes it true, so that what is told did happen, and nothing that happened is
missing. It has no subject and no content, but addresses: how many facts are kept, and for how long, is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datetime import datetime

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
