"""Who uses the store, and which recipients each has leased.

A process registers when it opens a store. What one that died had leased becomes free, and if it was the message under
way that killed it (`queue.sqlite.deaths`), that is held. All of this runs in the writer's thread, in its transactions.

The notes of a registration outlive it: they are removed in a transaction that begins after the end of the registration
was committed. A transaction that fails, or a process that dies in it, leaves a later one all that it needs. Our own go
first: who resigns was told to stop, and a death from then on is no attempt's fault.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from mailrider.queue.attempt_notes import AttemptNotes, read_attempt_notes
from mailrider.queue.ids import microseconds
from mailrider.queue.message import Claimed
from mailrider.queue.sqlite import statements as sql
from mailrider.queue.sqlite import views
from mailrider.queue.sqlite.deaths import hold_deadly
from mailrider.queue.sqlite.owner import Identity, Liveness, current_boot
from mailrider.queue.sqlite.rows import destinations_from, jobs_from
from mailrider.queue.sqlite.statements import compact
from mailrider.queue.sqlite.transactions import ROW, Transactions
from mailrider.queue.sqlite.views import from_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from mailrider.clock import QueueClock
    from mailrider.queue.message import LeasedJob
    from mailrider.queue.sqlite.rows import Unreadable

EXPIRY: Final = timedelta(minutes=10)  # of a registration whose process cannot be looked at; renewed much more often
_NOTES: Final = "queue.begun-"  # and the number of the registration


@dataclass(eq=False)
class StoreLeases:
    """Those in the store in the directory `location`; `transactions` gets the number of our registration."""

    location: Path
    clock: QueueClock
    transactions: Transactions
    identity: Identity | None
    holds_deadly: bool
    begun: AttemptNotes | None = None
    held: list[int] = field(default_factory=list)
    """Messages that are held since a moment ago, because processes died of them."""
    last_id: int = 0
    has_left_notes: bool = False
    """Registrations ended, and their notes are to be removed: see `remove_left_notes`."""

    def register(self, connection: sqlite3.Connection) -> int:
        """Begin to use the store; how many recipients became free."""
        self.remove_left_notes(connection)
        identity = self.identity or Identity.own()
        self.clock.go_on_from(views.read_anchor(connection), current_boot())
        expires = microseconds(self.clock.now() + EXPIRY)
        self.transactions.lease = connection.execute(sql.REGISTER, (identity.encode(), expires)).lastrowid or 0
        freed = self._free_dead(connection)
        self._note_begun()
        if connection.execute(sql.IS_ALONE).fetchone()[0]:
            self.clock.go_on_from(None, "")
        self._leave_anchor(connection)
        (self.last_id,) = connection.execute(sql.LAST_ID).fetchone()
        return freed

    def renew(self, connection: sqlite3.Connection) -> int:
        """Go on with it; how many recipients became free."""
        expires = microseconds(self.clock.now() + EXPIRY)
        if not connection.execute(sql.RENEW, (expires, self.transactions.lease)).rowcount:
            return self.register(connection)  # somebody held us for dead; what we had leased is lost
        self._leave_anchor(connection)
        return self._free_dead(connection)

    def resign(self, connection: sqlite3.Connection) -> None:
        """End it; all that is leased becomes free."""
        if self.begun is not None:
            self.begun.forget()
        self._leave_anchor(connection)
        self._free(connection, [self.transactions.lease])

    def free_others(self, connection: sqlite3.Connection) -> int:
        """End the leases of all others, for whoever has the store alone; how many recipients became free."""
        return self._free(connection, [owner for owner, _, _ in self._others(connection)])

    def remove_left_notes(self, connection: sqlite3.Connection) -> None:
        """Remove the notes of registrations that are gone. While this transaction writes, nobody takes their number."""
        present = {owner for owner, _, _ in self._owners(connection)}
        for path in self.location.glob(f"{_NOTES}*"):
            number = path.name.removeprefix(_NOTES)
            if number.isdecimal() and int(number) not in present:
                with suppress(OSError):  # what cannot be removed now is later
                    path.unlink()
        self.has_left_notes = False

    def _note_begun(self) -> None:
        """Whoever finds us dead sees what was under way."""
        if self.holds_deadly:
            self.begun = None
            with suppress(OSError):  # then no attempt counts as the reason of a death
                self.begun = AttemptNotes(self._begun_file(self.transactions.lease))

    def _begun_file(self, owner: int) -> Path:
        return self.location / f"{_NOTES}{owner}"

    def _leave_anchor(self, connection: sqlite3.Connection) -> None:
        anchor = self.clock.anchor(current_boot())
        values = (anchor.boot, microseconds(anchor.at), microseconds(anchor.wall), anchor.monotonic)
        connection.execute(sql.SET_ANCHOR, values)

    def _others(self, connection: sqlite3.Connection) -> list[tuple[int, str, int]]:
        return [each for each in self._owners(connection) if each[0] != self.transactions.lease]

    def _owners(self, connection: sqlite3.Connection) -> list[tuple[int, str, int]]:
        """All registrations: number, identity, and when it expires."""
        (owners,) = connection.execute(sql.OWNERS).fetchone()
        found: list[tuple[int, str, int]] = json.loads(owners)
        return found

    def _free_dead(self, connection: sqlite3.Connection) -> int:
        self.held = []
        now = microseconds(self.clock.now())
        dead = [(owner, text) for owner, text, expires in self._others(connection) if _is_dead(text, expires, now)]
        if self.holds_deadly and (died := [owner for owner, text in dead if _died_alone(text)]):
            begun = [each for owner in died for each in read_attempt_notes(self._begun_file(owner))]
            self.held = hold_deadly(connection, died, begun)
        return self._free(connection, [owner for owner, _ in dead]) if dead else 0

    def _free(self, connection: sqlite3.Connection, owners: list[int]) -> int:
        values = {"owners": compact(owners), "ids": None}
        self._remove_given_back(connection, values)
        freed = connection.execute(sql.GIVE_BACK_ALL, values).rowcount
        self.transactions.written += ROW * freed
        connection.execute(sql.DELETE_OWNERS, (values["owners"],))
        self.has_left_notes = True
        return freed

    def _remove_given_back(self, connection: sqlite3.Connection, values: dict[str, Any]) -> None:
        (found,) = connection.execute(sql.REMOVE_GIVEN_BACK, values).fetchone()
        pairs = json.loads(found)
        if pairs:
            ids = [recipient for recipient, _ in pairs]
            self.transactions.delete(connection, ids, [message for _, message in pairs], ids)

    def lease(
        self,
        statement: str,
        values: dict[str, Any] | list[Any],
        destinations: Sequence[str],
        connection: sqlite3.Connection,
    ) -> tuple[Claimed, list[Unreadable]]:
        """Lease what a statement finds, and see what is left for these destinations."""
        jobs, unreadable = self._jobs(statement, values, connection)
        left = from_json(connection, sql.LEFT, destinations=compact(destinations)) if destinations else []
        return Claimed(jobs, {each.destination: each.due for each in destinations_from(left)}), unreadable

    def _jobs(
        self, statement: str, values: dict[str, Any] | list[Any], connection: sqlite3.Connection
    ) -> tuple[list[LeasedJob], list[Unreadable]]:
        """What cannot be read is held: it is the operator's to decide, and keeps nothing else up."""
        (ids,) = connection.execute(statement, values).fetchone()
        if ids == "[]":
            return [], []
        connection.execute(sql.LEASE, {"ids": ids, "lease": self.transactions.lease})
        (rows,) = connection.execute(sql.JOBS, {"ids": ids}).fetchone()
        jobs, unreadable = jobs_from(json.loads(rows), self.transactions.lease)
        self.transactions.written += ROW * len(jobs)
        if unreadable:
            held = [id for each in unreadable for id in each.ids]
            connection.execute(sql.SET_ASIDE, {"ids": compact(held)})
        return jobs, unreadable

    def give_back(self, jobs: Sequence[LeasedJob], connection: sqlite3.Connection) -> None:
        """End the leases of some jobs."""
        lease = self.transactions.lease
        pairs = [(job.message_id, each) for job in jobs for each in job.ids]
        ids = from_json(connection, sql.LEASED_OF, pairs=compact(pairs), lease=lease)
        values = {"ids": compact(ids), "lease": lease, "owners": compact([lease])}
        self._remove_given_back(connection, values)
        connection.execute(sql.GIVE_BACK, values)
        self.transactions.written += ROW * len(ids)


def _died_alone(text: str) -> bool:
    """True for a process that died while the machine went on."""
    try:
        return Identity.decode(text).boot == current_boot()
    except (ValueError, TypeError):
        return False


def _is_dead(text: str, expires: int, now: int) -> bool:
    try:
        liveness = Identity.decode(text).liveness()
    except (ValueError, TypeError):
        liveness = Liveness.UNKNOWN
    # A process that lives keeps its leases, whatever the clock says: it may be in the middle of a delivery.
    return liveness is Liveness.DEAD or (liveness is Liveness.UNKNOWN and expires < now)
