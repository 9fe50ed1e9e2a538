"""What is queued, as values: messages, the jobs that they make, and what is to be done with them after an attempt.

A message is split into *jobs*: the recipients of one destination that are due together. Everything that is scheduled,
leased, attempted and settled is a job; the state is kept for each recipient, so that a job may come apart.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from mailrider.queue.ids import format_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from mailrider.model.envelope import Envelope
    from mailrider.model.outcome import Outcome
    from mailrider.model.reply import Reply
    from mailrider.smtp.content import Content

INLINE: Final = 256 * 1024  # octets of content that stand in the message's own row; more is written chunk by chunk

ROUTE_TARGET: Final = ""  # delivered by the queue's target
ROUTE_BOUNCE: Final = "bounce"  # delivered by the pipeline of `bounce { }`


class RecipientState(enum.IntEnum):
    """Of a queued recipient. The numbers are stored."""

    QUEUED = 0
    LEASED = 1
    HELD = 2

    @property
    def word(self) -> str:
        """As people read it."""
        return {RecipientState.QUEUED: "queued", RecipientState.LEASED: "active", RecipientState.HELD: "held"}[self]


class Wish(enum.IntEnum):
    """What an operator wants for a leased recipient; it takes effect when that is settled. The numbers are stored."""

    HOLD = 1
    REMOVE = 2
    RETRY = 3

    def is_replaced_by(self, later: Wish) -> bool:
        """True if a later wish takes its place: a removal stays one, and what is to be held is not tried again."""
        return later is self or self is Wish.RETRY or later is Wish.REMOVE


@dataclass(frozen=True, slots=True)
class ContentInfo:
    """What is known of a message's content without reading it; see `smtp.content.Content`.

    `stored`: the id under which its chunks stand, None if it stands in the message's own row.
    """

    size: int
    eight_bit: bool
    header_size: int
    stored: int | None = None


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is to be queued. `content` is None if its chunks were written before (`info.stored`)."""

    id: int
    envelope: Envelope
    created: datetime
    info: ContentInfo
    content: Content | None
    route: str = ROUTE_TARGET


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a recipient has come.

    `tries`: failed ones, without those that a limit held back. `warned`: the sender was told of the delay. `in_doubt`:
    a server may have the message already. `last`: what the last attempt ended with.
    """

    tries: int = 0
    warned: bool = False
    in_doubt: bool = False
    last: Reply | None = None


FRESH: Final = Progress()


@dataclass(slots=True, eq=False)
class LeasedJob:
    """Recipients of a message at one destination, leased to this process: to be attempted together and settled.

    `envelope` has these recipients only; `ids` and `progress` are theirs, in its order. `lease` says under which
    registration of this process they are leased. `content` is there while the message is still in memory.
    """

    message_id: int
    destination: str
    envelope: Envelope
    ids: tuple[int, ...]
    progress: tuple[Progress, ...]
    created: datetime
    info: ContentInfo
    lease: int
    route: str = ROUTE_TARGET
    content: Content | None = None


class NewState(enum.Enum):
    """What a recipient is after an attempt."""

    DONE = "done"  # delivered, or failed and the sender told: nothing remains of it
    QUEUED = "queued"


@dataclass(frozen=True, slots=True)
class Change:
    """The new state of one recipient. If it is queued: `due` None leaves that as it was; it has its `progress`.

    `attempt` is kept as its history, if there is one.
    """

    id: int
    new_state: NewState
    due: datetime | None = None
    progress: Progress | None = None
    attempt: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a job has come to; `changes` has one for each of its recipients. All of it is committed at once or not."""

    job: LeasedJob
    changes: tuple[Change, ...]
    at: datetime
    notifications: tuple[NewMessage, ...] = ()

    def without_history(self) -> Settlement:
        """The same outcome, without how it came to it: what a full disk has space for."""
        known = {id: progress.last for id, progress in zip(self.job.ids, self.job.progress, strict=True)}
        changes = [
            replace(
                each,
                attempt=None,
                progress=None if each.progress is None else replace(each.progress, last=known[each.id]),
            )
            for each in self.changes
        ]
        return replace(self, changes=tuple(changes))


@dataclass(frozen=True, slots=True)
class Quota:
    """At most so many jobs of one destination."""

    destination: str
    jobs: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """What was leased, and for each destination that was asked for and has more queued: when the first of it is due."""

    jobs: list[LeasedJob]
    left: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a settlement. `held` False: the lease was lost, and nothing was changed.

    `wishes`: what operators had wished meanwhile, by the recipients' ids; for those that are queued again it is done.
    """

    held: bool
    wishes: Mapping[int, Wish] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DueDestination:
    """A destination that has queued recipients, and when the first of them is due."""

    destination: str
    due: datetime


def fitting(jobs: Sequence[LeasedJob], octets: int) -> list[LeasedJob]:
    """The first of these jobs whose contents are small, and have not more than so many octets together."""
    found: list[LeasedJob] = []
    for job in jobs:
        if job.info.stored is None:
            octets -= job.info.size
            if octets < 0:
                break
            found.append(job)
    return found


def renamed(message: NewMessage, id: int) -> NewMessage:
    """The message under another id."""
    return replace(message, id=id, envelope=message.envelope.under_name(format_id(id)))


# --- To look into the queue ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filter:
    """Which recipients are meant; what is None does not matter.

    `sender` and `recipient` are parts of the address, of any case; an empty `sender` is the null reverse-path. `domain`
    is that of the recipient, as A-labels. `before`: messages that were queued before that moment.
    """

    message: int | None = None
    domain: str | None = None
    sender: str | None = None
    recipient: str | None = None
    state: RecipientState | None = None
    before: datetime | None = None
    in_doubt: bool | None = None

    @property
    def words(self) -> str:
        """For a log: `domain=example.org held`."""
        given = [
            f"{name}={value}"
            for name in ("domain", "sender", "recipient")
            if (value := getattr(self, name)) is not None
        ]
        given += [] if self.state is None else [self.state.word]
        given += [] if self.before is None else [f"before={self.before.isoformat(timespec='seconds')}"]
        given += ["in doubt"] if self.in_doubt else []
        return " ".join(given) or ("everything" if self.message is None else "")


EVERYTHING: Final = Filter()


@dataclass(frozen=True, slots=True)
class Entry:
    """One queued recipient, for a list. An empty `sender` is the null reverse-path."""

    message_id: int
    recipient_id: int
    created: datetime
    sender: str
    recipient: str
    destination: str
    state: RecipientState
    due: datetime
    size: int
    progress: Progress
    wish: Wish | None = None


@dataclass(frozen=True, slots=True)
class PastAttempt:
    """An attempt of a recipient that remains; `evidence` is the outcome in plain values."""

    at: datetime
    evidence: dict[str, object]


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message with all that is known of it: its recipients that remain, and the attempts of each."""

    id: int
    created: datetime
    envelope: Envelope
    info: ContentInfo
    route: str
    entries: tuple[Entry, ...]
    attempts: dict[int, tuple[PastAttempt, ...]]


@dataclass(frozen=True, slots=True)
class DestinationCount:
    """How much is queued for a destination: recipients by state, and since when."""

    destination: str
    queued: int
    active: int
    held: int
    in_doubt: int
    oldest: datetime
    next_due: datetime | None


@dataclass(frozen=True, slots=True)
class Stats:
    """How much is queued: messages, octets, recipients by destination (the largest first) and by age.

    `oldest`: when the oldest message came.
    """

    messages: int
    octets: int
    destinations: tuple[DestinationCount, ...]
    ages: dict[str, int]
    oldest: datetime | None = None

    @property
    def recipients(self) -> int:
        """Of all destinations that are listed."""
        return sum(each.queued + each.active + each.held for each in self.destinations)
