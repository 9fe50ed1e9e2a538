"""What happens in the queue, typed; see `model.event`.

`message` is the id as people see it (`queue.ids.format_id`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from mailrider.model.event import DEBUG, ERROR, WARNING, Event, EventLevel
from mailrider.model.value import value

if TYPE_CHECKING:
    from datetime import datetime

    from mailrider.model.outcome import Outcome
    from mailrider.model.reply import Reply


@value
class MessageQueued(Event):
    """A message was accepted: it is durable. Who handed it in is told the id, and who took it in logs that."""

    level: ClassVar[EventLevel] = DEBUG
    message: str
    sender: str
    recipients: int
    size: int


@value
class RecipientDone(Event):
    """An attempt of a queued recipient was recorded; if `is_over` it is the end of it, as `outcome` says.

    `given_up`: tries or time were used up. `tries` are the failed ones so far. `operator`: what somebody had wished for
    the recipient during the attempt, and was done now: held or removed. `age`: of the message. `is_repeated`: a limit
    holds it back, as before.
    """

    message: str
    sender: str
    outcome: Outcome
    tries: int
    retry_at: datetime | None = None
    given_up: bool = False
    operator: str = ""
    age: timedelta = timedelta(0)
    is_repeated: bool = False

    @property
    def is_over(self) -> bool:
        """True if it is not tried again, by what came of it."""
        return self.retry_at is None and not self.operator

    @property
    def log_name(self) -> str:
        """What became of it."""
        return f"queue_{'failed' if self.given_up else self.outcome.status}"


@value
class NotificationQueued(Event):
    """The sender of `about` will be told: `action` is failed, delayed or relayed; redacted, if `about` is such a
    notification itself, and no connection was secure enough for it."""

    message: str
    about: str
    recipient: str
    action: str


@value
class NotificationDropped(Event):
    """The sender of `about` is not told, and why."""

    level: ClassVar[EventLevel] = WARNING
    about: str
    recipient: str
    action: str
    reason: str


@value
class DestinationDown(Event):
    """No server of a destination could be reached: its mail waits for so many seconds."""

    level: ClassVar[EventLevel] = WARNING
    destination: str
    seconds: float
    reply: Reply


@value
class DestinationUp(Event):
    """A destination that was down takes mail again; what has gathered is released gradually."""

    destination: str


@value
class QueueRecovered(Event):
    """A process died while it had these recipients in hand; they are tried again, and may arrive twice."""

    recipients: int


@value
class HeldAfterDeaths(Event):
    """Workers had recipients of these messages in hand at three deaths in a row; those are held."""

    level: ClassVar[EventLevel] = ERROR
    messages: tuple[str, ...]
    advice: str = "if they were not the reason: mailrider queue release"


@value
class RecipientsUnreadable(Event):
    """So many recipients of a message stand in the store in a form that is none of ours: they are held."""

    level: ClassVar[EventLevel] = WARNING
    message: str
    recipients: int
    reason: str


@value
class LeaseLost(Event):
    """An attempt ended, and its recipients were no longer ours: another process may have delivered them as well."""

    level: ClassVar[EventLevel] = WARNING
    message: str
    recipients: tuple[str, ...]


@value
class OutcomeUnrecorded(Event):
    """What became of recipients could not be written down yet; they are not tried again before it is."""

    level: ClassVar[EventLevel] = ERROR
    message: str
    recipients: tuple[str, ...]
    reason: str


@value
class AttemptInterrupted(Event):
    """We had to stop in the middle of an attempt; it counts as none."""

    level: ClassVar[EventLevel] = WARNING
    message: str
    recipients: tuple[str, ...]


@value
class QueueUnavailable(Event):
    """The queue's store failed; nothing is accepted and nothing is lost, and it is tried again."""

    level: ClassVar[EventLevel] = ERROR
    reason: str


@value
class OperatorActed(Event):
    """Somebody held, released, retried or removed (`act`) what is `meant`: `changed` recipients, and `later` when their
    attempts have ended. `by`: who, as the system knows him. `message` is empty if several may be meant."""

    act: str
    by: str
    meant: str
    changed: int
    later: int
    message: str = ""


@value
class QueueShort(Event):
    """So little of the queue's disk is free (octets) that new mail is refused; queued mail is still delivered.
    `location`: the directory of the queue. Small mail may still find space."""

    level: ClassVar[EventLevel] = ERROR
    named: ClassVar[str] = "queue_disk_short"
    free: int
    reserve: int
    location: str = ""
    advice: str = "new mail gets a 452, queued mail is still delivered: make space on the disk of this directory"


@value
class QueueHasSpace(Event):
    """New mail is accepted again by the queue in the directory `location`."""

    location: str = ""


@value
class QueueAvailable(Event):
    """The queue's store works again."""
