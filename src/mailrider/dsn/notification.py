"""What a notification is about, as values: a message, its recipients and what became of each (RFC 3464 2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from email.utils import format_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from mailrider.model.domain import Domain
    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.outcome import Outcome
    from mailrider.smtp.content import Content

WIDTH: Final = 76

date_text = lru_cache(maxsize=16)(format_datetime)  # one notification has few


class NotifiedAction(enum.Enum):
    """What a notification tells (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"
    EXPANDED = "expanded"
    DELIVERED = "delivered"


@dataclass(frozen=True, slots=True)
class NotifiedRecipient:
    """A recipient and what became of it. `until`: when it will be given up, for a delay. `was_tried`: just now."""

    recipient: Recipient
    action: NotifiedAction
    outcome: Outcome
    until: datetime | None = None
    was_tried: bool = True


@dataclass(frozen=True, slots=True)
class NotificationAuthor:
    """Who writes: our host name, and the domain of our address."""

    hostname: Domain
    domain: Domain


@dataclass(frozen=True, slots=True)
class Notification:
    """What there is to tell about one message; all `recipients` have the same action.

    `content` None: it cannot be read any more; the notification goes out all the same. `id` makes the Message-ID.
    `is_about_notification`: the message was one of ours, and who reads this is the postmaster.
    """

    envelope: Envelope
    recipients: tuple[NotifiedRecipient, ...]
    arrived: datetime
    at: datetime
    id: str
    content: Content | None = None
    is_about_notification: bool = False

    @property
    def action(self) -> NotifiedAction:
        """The action that the notification is about."""
        return self.recipients[0].action


def wrapped(text: str, first: str = "", others: str = "") -> list[str]:
    """The text on lines of bounded width, as far as it has spaces; `textwrap` takes ten times as long."""
    text = first + " ".join(text.split())
    lines: list[str] = []
    start = len(first)  # of the words: an indentation is no place to break
    while len(text) > WIDTH:
        cut = text.rfind(" ", start, WIDTH + 1)
        if cut < 0:
            cut = text.find(" ", WIDTH)
        if cut < 0:
            break
        lines.append(text[:cut])
        text, start = others + text[cut + 1 :], len(others)
    return [*lines, text]
