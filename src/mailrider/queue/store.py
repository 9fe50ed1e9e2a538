"""What the queue needs of a place to keep messages: coarse, asynchronous verbs.

Everything that is acknowledged is durable; each call happens as a whole or not at all, whoever else works on the same
store. No cursor, transaction or row leaves a store. `tests/flow/queue/test_store.py` says what every store has to do.

A process registers when it opens the store, and leases jobs under that registration. Only a lease that is still held
can be settled; a dead process's leases become free.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mailrider.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Sequence
    from datetime import datetime
    from types import TracebackType

    from mailrider.queue.attempt_notes import AttemptNotes
    from mailrider.queue.message import (
        Claimed,
        DueDestination,
        Entry,
        Filter,
        LeasedJob,
        NewMessage,
        Quota,
        Settled,
        Settlement,
        Stats,
        StoredMessage,
    )
    from mailrider.smtp.content import Content


class StoreUnavailable(LocalError, OSError):
    """The store cannot take or give anything now: full, read-only, locked, gone. What is in it is kept."""

    code = 451
    enhanced = "4.3.0"
    public = "The mail queue is not available, try again later"


class StoreFull(StoreUnavailable):
    """There is no space left for more."""

    code = 452
    enhanced = "4.3.1"
    public = "Insufficient system storage"


class StoreDamaged(StoreUnavailable):
    """The store is corrupt. It was set aside, and nothing is accepted until the operator has decided."""


class IdTaken(StoreUnavailable):
    """A new message, or a recipient of it, has an id that is in the store already: it can be stored under another."""


class QueueCommand(enum.Enum):
    """What an operator can do to queued recipients."""

    HOLD = "hold"
    RELEASE = "release"
    REMOVE = "remove"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How many recipients a command changed, and how many it will: those that are being attempted at the moment."""

    changed: int
    later: int


class Store(Protocol):
    """A place for queued messages, open while it is entered.

    Every verb raises `StoreUnavailable` if it cannot be done; then nothing was changed.
    """

    @property
    def lease(self) -> int:
        """The registration of this process."""

    async def __aenter__(self) -> Store:
        """Open it, register, and free the leases of the dead. Raises `StoreDamaged`, `StoreUnavailable`."""

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give all own leases back, and close."""

    @property
    def begun(self) -> AttemptNotes | None:
        """Where attempts under this registration are noted while they are under way; None: they are not."""

    @property
    def recovered(self) -> int:
        """How many recipients were leased by processes that died, and are free again since this was opened."""

    @property
    def last_id(self) -> int:
        """The largest id of all that was in it when this was opened, 0 if nothing was: new ones are larger."""

    async def write_content(self, chunks: AsyncIterable[bytes]) -> int:
        """Store a large content, before the message that it belongs to; returns its id for `ContentInfo.stored`."""

    async def add(self, message: NewMessage, *, leased: bool) -> None:
        """Accept a message, its jobs leased by this process from the beginning or not. Raises `IdTaken` if a message
        or recipient has one of its ids already."""

    async def claim(self, quotas: Sequence[Quota], now: datetime, octets: int = 0) -> Claimed:
        """Lease what is due, the longest due first. The first of them come with their contents, as far as these are
        small and have not more than so many octets together; the others stay in the store."""

    async def claim_older(self, than: datetime, limit: int, *, unwarned: bool = False) -> list[LeasedJob]:
        """Lease jobs of messages that are older, due or not; with `unwarned` only those of recipients whose sender was
        not told of the delay."""

    def settle(self, settlement: Settlement) -> Awaitable[Settled]:
        """Commit what a job came to. If the lease was lost, nothing was changed, and another process may have
        delivered it as well. Raises `IdTaken` if a notification has an id that is there already."""

    async def give_back(self, jobs: Sequence[LeasedJob]) -> None:
        """End leases of jobs that were not attempted; they are due as before."""

    async def keep_alive(self, now: datetime) -> int:
        """Renew all leases of this process, and free those of the dead; returns how many recipients became free."""

    async def destinations(self, after: str | None, limit: int) -> list[DueDestination]:
        """Destinations with queued recipients, in their order, those behind `after` only."""

    async def content(self, job: LeasedJob) -> Content:
        """The content of a leased job's message."""

    async def page(self, wanted: Filter, after: int, limit: int) -> list[Entry]:
        """Recipients by their ids, those behind `after` only."""

    async def find(self, message_id: int) -> StoredMessage | None:
        """A message with everything that is known of it."""

    async def octets(self, message_id: int) -> bytes | None:
        """A message's content as a whole, for a person to look at."""

    async def stats(self, now: datetime, destinations: int) -> Stats:
        """How much is queued; that many destinations, those with most recipients."""

    async def command(self, command: QueueCommand, wanted: Filter, now: datetime, by: str = "") -> CommandResult:
        """Do something to all recipients that are meant."""

    async def changed_elsewhere(self) -> bool:
        """True if another process changed anything since this was asked the last time."""
