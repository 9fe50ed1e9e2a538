"""The queue's store in memory: for tests, ours and our users', and for programs that want no disk. Nothing survives.

Several `MemoryStore`s may share one `SharedState`, as processes share a file.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from mailrider.errors import InvalidValue
from mailrider.model.plain import with_dialogue
from mailrider.queue.fairness import BY_DOMAIN
from mailrider.queue.ids import MAX_ID, first_id_at
from mailrider.queue.message import (
    EVERYTHING,
    FRESH,
    Claimed,
    DestinationCount,
    DueDestination,
    Entry,
    LeasedJob,
    NewState,
    PastAttempt,
    Progress,
    RecipientState,
    Settled,
    Stats,
    StoredMessage,
    Wish,
    fitting,
)
from mailrider.queue.sqlite.rows import AGES
from mailrider.queue.store import CommandResult, IdTaken, QueueCommand, StoreUnavailable
from mailrider.smtp.content import CHUNK, Content

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence

    from mailrider.model.envelope import Recipient
    from mailrider.queue.attempt_notes import AttemptNotes
    from mailrider.queue.fairness import DestinationOf
    from mailrider.queue.message import Filter, NewMessage, Quota, Settlement

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Row:
    message: NewMessage
    recipient: Recipient
    destination: str
    state: RecipientState
    due: datetime
    owner: int | None
    wish: Wish | None = None
    progress: Progress = FRESH
    attempts: list[PastAttempt] = field(default_factory=list)


@dataclass(slots=True)
class SharedState:
    """What stores share. `alive` are the registrations of those that are open; `full`: nothing can be written."""

    rows: dict[int, _Row] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    alive: set[int] = field(default_factory=set)
    owners: int = 0
    version: int = 0
    full: bool = False


class MemoryStore:
    """A `Store` that keeps nothing."""

    def __init__(self, shared: SharedState | None = None, *, destination_of: DestinationOf = BY_DOMAIN) -> None:
        self.shared = shared or SharedState()
        self.lease = 0
        self.begun: AttemptNotes | None = None
        self.recovered = self.last_id = 0
        self._destination_of = destination_of
        self._seen = 0

    async def __aenter__(self) -> Self:
        shared = self.shared
        shared.owners += 1
        self.lease = shared.owners
        shared.alive.add(self.lease)
        self.recovered = self._free(lambda owner: owner not in shared.alive)
        self.last_id = max(shared.rows, default=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.shared.alive.discard(self.lease)
        self._free(lambda owner: owner == self.lease)

    # Writing ---------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        if self.shared.full:
            raise StoreUnavailable("the store is full")
        self.shared.version += 1

    async def write_content(self, chunks: AsyncIterable[bytes]) -> int:
        """See `Store`."""
        self._write()
        octets = b"".join([chunk async for chunk in chunks])
        if not octets:
            raise InvalidValue("there is no content")
        number = max(self.shared.contents, default=0) + 1
        self.shared.contents[number] = octets
        return number

    async def add(self, message: NewMessage, *, leased: bool) -> None:
        """See `Store`."""
        self._write()
        self._refuse_taken(message)
        self._insert(message, leased=leased)

    def _refuse_taken(self, message: NewMessage) -> None:
        run = range(message.id + 1, message.id + 1 + len(message.envelope.recipients))
        if self._message(message.id) is not None or any(id in self.shared.rows for id in run):
            raise IdTaken("an id of a new message was given to another one")

    def _insert(self, message: NewMessage, *, leased: bool) -> None:
        state, owner = (RecipientState.LEASED, self.lease) if leased else (RecipientState.QUEUED, None)
        destination_of = self._destination_of.by(message.route)
        for number, each in enumerate(message.envelope.recipients, message.id + 1):
            self.shared.rows[number] = _Row(message, each, destination_of(each), state, message.created, owner)

    async def settle(self, settlement: Settlement) -> Settled:
        """See `Store`."""
        self._write()
        rows = self.shared.rows
        job = settlement.job
        if job.lease != self.lease or any(id not in rows or rows[id].owner != self.lease for id in job.ids):
            return Settled(False)
        for message in settlement.notifications:
            self._refuse_taken(message)
        wishes = {id: wish for id in job.ids if (wish := rows[id].wish) is not None}
        for change in settlement.changes:
            row = rows[change.id]
            if change.new_state is NewState.DONE or row.wish is Wish.REMOVE:
                self._remove(change.id)
                continue
            row.due = settlement.at if row.wish is Wish.RETRY else change.due or row.due
            row.progress = change.progress or FRESH
            if change.attempt is not None:
                for each in row.attempts:
                    each.evidence.pop("dialogue", None)
                row.attempts.append(PastAttempt(settlement.at, with_dialogue(change.attempt)))
            self._unlease(row)
        for message in settlement.notifications:
            self._insert(message, leased=False)
        return Settled(True, wishes)

    def _remove(self, id: int) -> None:
        row = self.shared.rows.pop(id)
        stored = row.message.info.stored
        if stored is not None and all(each.message.info.stored != stored for each in self.shared.rows.values()):
            self.shared.contents.pop(stored, None)

    @staticmethod
    def _unlease(row: _Row) -> None:
        row.state = RecipientState.HELD if row.wish is Wish.HOLD else RecipientState.QUEUED
        row.owner = row.wish = None

    async def give_back(self, jobs: Sequence[LeasedJob]) -> None:
        """See `Store`."""
        self._write()
        self._give_back([id for job in jobs for id in job.ids if self._is_mine(job, id)])

    def _is_mine(self, job: LeasedJob, id: int) -> bool:
        row = self.shared.rows.get(id)
        return row is not None and row.owner == self.lease and row.message.id == job.message_id

    def _give_back(self, ids: Iterable[int]) -> int:
        freed = 0
        for id in ids:
            row = self.shared.rows[id]
            if row.wish is Wish.REMOVE:
                self._remove(id)
            else:
                self._unlease(row)
                freed += 1
        return freed

    def _free(self, is_dead: Any) -> int:
        rows = self.shared.rows
        return self._give_back([id for id, row in rows.items() if row.owner is not None and is_dead(row.owner)])

    async def keep_alive(self, now: datetime) -> int:
        """See `Store`."""
        self._write()
        return self._free(lambda owner: owner not in self.shared.alive)

    # Leasing ---------------------------------------------------------------------------------------------------------

    async def claim(self, quotas: Sequence[Quota], now: datetime, octets: int = 0) -> Claimed:
        """See `Store`."""
        self._write()
        waiting: dict[str, list[tuple[datetime, int]]] = {quota.destination: [] for quota in quotas}
        for id, row in self.shared.rows.items():
            if row.state is RecipientState.QUEUED and row.destination in waiting and row.due <= now:
                waiting[row.destination].append((row.due, id))
        taken: list[int] = []
        for quota in quotas:
            due = sorted(waiting[quota.destination])
            messages = {self.shared.rows[id].message.id for _, id in due[: quota.jobs]}
            taken += [id for _, id in due if self.shared.rows[id].message.id in messages]
        jobs = self._lease(taken)
        for job in fitting(jobs, octets):
            found = self._octets(self.shared.rows[job.ids[0]].message)
            job.content = None if found is None else Content.inspect(found)
        first = self._first_due()
        return Claimed(jobs, {name: first[name] for name in (each.destination for each in quotas) if name in first})

    async def claim_older(self, than: datetime, limit: int, *, unwarned: bool = False) -> list[LeasedJob]:
        """See `Store`."""
        self._write()
        before = first_id_at(than)
        found = [
            id
            for id, row in sorted(self.shared.rows.items())
            if id < before and row.state is RecipientState.QUEUED and not (unwarned and row.progress.warned)
        ]
        return self._lease(found[:limit])

    def _lease(self, ids: Iterable[int]) -> list[LeasedJob]:
        groups: dict[tuple[int, str], list[int]] = {}
        for id in ids:
            row = self.shared.rows[id]
            row.state, row.owner = RecipientState.LEASED, self.lease
            groups.setdefault((row.message.id, row.destination), []).append(id)
        return [self._job(sorted(group)) for group in groups.values()]

    def _job(self, ids: Sequence[int]) -> LeasedJob:
        rows = [self.shared.rows[id] for id in ids]
        message = rows[0].message
        return LeasedJob(
            message.id,
            rows[0].destination,
            message.envelope.only([id - message.id - 1 for id in ids]),
            tuple(ids),
            tuple(row.progress for row in rows),
            message.created,
            message.info,
            self.lease,
            message.route,
        )

    # Reading ---------------------------------------------------------------------------------------------------------

    async def destinations(self, after: str | None, limit: int) -> list[DueDestination]:
        """See `Store`."""
        found = sorted(each for each in self._first_due().items() if after is None or each[0] > after)
        return [DueDestination(*each) for each in found[:limit]]

    def _first_due(self) -> dict[str, datetime]:
        first: dict[str, datetime] = {}
        for row in self.shared.rows.values():
            if row.state is RecipientState.QUEUED:
                known = first.get(row.destination)
                first[row.destination] = row.due if known is None or row.due < known else known
        return first

    async def content(self, job: LeasedJob) -> Content:
        """See `Store`."""
        octets = await self.octets(job.message_id)
        if octets is None:
            raise StoreUnavailable(f"the content of message {job.message_id} is gone")
        content = Content.inspect(octets)
        if job.info.stored is None:
            return content

        async def supply() -> AsyncIterator[bytes]:
            for start in range(0, len(octets), CHUNK):
                await asyncio.sleep(0)
                yield octets[start : start + CHUNK]

        return Content.awaited(
            supply,
            octets[: content.header_size + 2],
            size=content.size,
            eight_bit=content.eight_bit,
            header_size=content.header_size,
        )

    async def octets(self, message_id: int) -> bytes | None:
        """See `Store`."""
        message = self._message(message_id)
        return None if message is None else self._octets(message)

    def _octets(self, message: NewMessage) -> bytes | None:
        if message.info.stored is not None:
            return self.shared.contents.get(message.info.stored)
        return None if message.content is None else b"".join(message.content.chunks())

    def _message(self, message_id: int) -> NewMessage | None:
        return next((row.message for row in self.shared.rows.values() if row.message.id == message_id), None)

    async def page(self, wanted: Filter, after: int, limit: int) -> list[Entry]:
        """See `Store`."""
        found = [self._entry(id) for id in sorted(self.shared.rows) if id > after and self._is_wanted(id, wanted)]
        return found[:limit]

    def _entry(self, id: int) -> Entry:
        row = self.shared.rows[id]
        message = row.message
        return Entry(
            message.id,
            id,
            message.created,
            str(message.envelope.sender),
            str(row.recipient),
            row.destination,
            row.state,
            row.due,
            message.info.size,
            row.progress,
            row.wish,
        )

    def _is_wanted(self, id: int, wanted: Filter) -> bool:
        row = self.shared.rows[id]
        sender, recipient = str(row.message.envelope.sender).lower(), str(row.recipient).lower()
        return (
            wanted.message in (None, row.message.id)
            and (wanted.domain is None or str(row.recipient).endswith(f"@{wanted.domain}"))
            and wanted.state in (None, row.state)
            and wanted.in_doubt in (None, row.progress.in_doubt)
            and (wanted.before is None or id < first_id_at(wanted.before))
            and (wanted.sender is None or (wanted.sender.lower() in sender if wanted.sender else not sender))
            and (wanted.recipient is None or wanted.recipient.lower() in recipient)
        )

    async def find(self, message_id: int) -> StoredMessage | None:
        """See `Store`."""
        message = self._message(message_id)
        if message is None:
            return None
        entries = await self.page(replace(EVERYTHING, message=message_id), 0, len(self.shared.rows))
        ids = [each.recipient_id for each in entries]
        envelope = message.envelope.only([id - message_id - 1 for id in ids])
        attempts = {id: tuple(self.shared.rows[id].attempts) for id in ids if self.shared.rows[id].attempts}
        return StoredMessage(
            message_id, message.created, envelope, message.info, message.route, tuple(entries), attempts
        )

    async def stats(self, now: datetime, destinations: int) -> Stats:
        """See `Store`."""
        groups: dict[str, list[tuple[int, _Row]]] = {}
        for item in self.shared.rows.items():
            groups.setdefault(item[1].destination, []).append(item)
        order = sorted(groups, key=lambda name: (-len(groups[name]), name))
        messages = {row.message.id: row.message for row in self.shared.rows.values()}
        ages: dict[str, int] = {}
        end = MAX_ID
        for name, age in AGES:
            start = 0 if age is None else first_id_at(now - age)
            ages[name] = sum(start <= id < end for id in self.shared.rows)
            end = start
        return Stats(
            len(messages),
            sum(message.info.size for message in messages.values()),
            tuple(_count(name, groups[name]) for name in order[:destinations]),
            ages,
            min((message.created for message in messages.values()), default=None),
        )

    async def command(self, command: QueueCommand, wanted: Filter, now: datetime, by: str = "") -> CommandResult:
        """See `Store`."""
        self._write()
        changed = later = 0
        for id in [id for id in sorted(self.shared.rows) if self._is_wanted(id, wanted)]:
            row = self.shared.rows[id]
            if row.state is RecipientState.LEASED and command is not QueueCommand.RELEASE:
                wish = Wish[command.name]
                if row.wish is None or row.wish.is_replaced_by(wish):
                    row.wish = wish
                    later += 1
            else:
                changed += self._command(command, id, row, now)
        return CommandResult(changed, later)

    def _command(self, command: QueueCommand, id: int, row: _Row, now: datetime) -> bool:
        match command:
            case QueueCommand.HOLD if row.state is RecipientState.QUEUED:
                row.state = RecipientState.HELD
            case QueueCommand.RELEASE if row.state is RecipientState.HELD:
                row.state = RecipientState.QUEUED
            case QueueCommand.RELEASE if row.wish is Wish.HOLD:
                row.wish = None
            case QueueCommand.RETRY if row.state is RecipientState.QUEUED:
                row.due = min(row.due, now)
            case QueueCommand.REMOVE:
                self._remove(id)
            case _:
                return False
        return True

    async def changed_elsewhere(self) -> bool:
        """See `Store`; what this store changed counts as well, which is harmless."""
        changed, self._seen = self._seen != self.shared.version, self.shared.version
        return changed


def _count(name: str, rows: Sequence[tuple[int, _Row]]) -> DestinationCount:
    states = [row.state for _, row in rows]
    return DestinationCount(
        name,
        states.count(RecipientState.QUEUED),
        states.count(RecipientState.LEASED),
        states.count(RecipientState.HELD),
        sum(row.progress.in_doubt for _, row in rows),
        min(row.message.created for _, row in rows),
        min((row.due for _, row in rows if row.state is RecipientState.QUEUED), default=None),
    )
