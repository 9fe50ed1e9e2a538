"""What TLS reporting keeps: an SQLite file of its own, to which all processes of a host add what they counted.

For each UTC day and domain there is one row of counts. Once its report is due the row is ended: either the report is
frozen beside it, with one row for each endpoint that is to get it, or a note says why there is none. An ended row takes
no more counts, and never becomes due again: so each day of a domain is reported once, whatever clocks and restarts do.

Everything here blocks, and raises `ReportsUnavailable`.
"""

from __future__ import annotations

import enum
import fcntl
import json
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import urlsplit

from mailrider.errors import LocalError
from mailrider.files import error_text, make_folder, make_private, refuse_link
from mailrider.reporting.recorder import MAX_DOMAINS
from mailrider.tlsrpt.report import DayCounts, TLSReport, send_offset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

FILE: Final = "tls-reports.db"
LOCK: Final = "tls-reports.lock"
PATIENCE: Final = 5.0  # seconds that a write waits for another process's
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS secret (octets BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS day (
    day TEXT NOT NULL, domain TEXT NOT NULL, due INTEGER NOT NULL, counts TEXT NOT NULL, ended TEXT,
    report_id TEXT, file_name TEXT, subject TEXT, body BLOB, PRIMARY KEY (day, domain)
);
CREATE INDEX IF NOT EXISTS day_due ON day (due) WHERE ended IS NULL;
CREATE TABLE IF NOT EXISTS delivery (
    day TEXT NOT NULL, domain TEXT NOT NULL, kind TEXT NOT NULL, target TEXT NOT NULL, pace TEXT NOT NULL,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL, until INTEGER NOT NULL, note TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (day, domain, target)
);
CREATE INDEX IF NOT EXISTS delivery_next ON delivery (next) WHERE state = 'waiting';
CREATE TABLE IF NOT EXISTS refused (address TEXT PRIMARY KEY, until INTEGER NOT NULL);
"""


class ReportsUnavailable(LocalError):
    """The store cannot be used now."""


class EndpointKind(enum.StrEnum):
    """How a report reaches those who asked for it."""

    MAIL = "mail"
    HTTPS = "https"


class DeliveryState(enum.StrEnum):
    """What became of a report at one endpoint."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    NOT_NEEDED = "not-needed"
    """Another endpoint has taken it: RFC 8460 3."""


@dataclass(frozen=True, slots=True)
class ReportDelivery:
    """A frozen report on its way to one endpoint: `target` is a URL, or mail addresses, one a line."""

    day: date
    domain: str
    kind: EndpointKind
    target: str
    state: DeliveryState
    tries: int
    next: datetime
    until: datetime
    note: str = ""

    @property
    def paces(self) -> tuple[str, ...]:
        """Whom it burdens: a host, or mailboxes."""
        return paces_of(self.kind, self.target)


def paces_of(kind: EndpointKind, target: str) -> tuple[str, ...]:
    """The host of a URL, or the mail addresses in lower case."""
    if kind is EndpointKind.HTTPS:
        return ((urlsplit(target).hostname or target).rstrip("."),)
    return tuple(target.lower().split("\n"))


@dataclass(frozen=True, slots=True)
class StoredDay:
    """One domain's day, as it is shown. `ended` None: it goes on, or its report is not made yet."""

    day: date
    domain: str
    due: datetime
    counts: DayCounts
    ended: str | None
    report_id: str | None
    deliveries: tuple[ReportDelivery, ...]


class ReportStore:
    """The file in a directory; it is opened when it is first used."""

    def __init__(self, location: Path, spread: timedelta = timedelta(hours=4)) -> None:
        self.path = location / FILE
        self._location = location
        self._spread = spread
        self._connection: sqlite3.Connection | None = None
        self._lock = Lock()
        self._secret = b""
        self._lock_file: BinaryIO | None = None

    @property
    def secret(self) -> bytes:
        """What moments and ids of reports are drawn with; nobody else can tell them beforehand."""
        return self._secret

    def close(self) -> None:
        """Harmless if it is not open."""
        self.follow()
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                connection = self._connection or self._open()
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    yield connection
            except (sqlite3.Error, OSError) as error:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                raise ReportsUnavailable(f"{self.path}: {getattr(error, 'strerror', None) or error}") from error

    def _execute(self, statement: str, values: Sequence[object] = ()) -> int:
        """A transaction of one statement; how many rows it has changed."""
        with self._transaction() as db:
            return db.execute(statement, values).rowcount

    def _select(self, statement: str, values: Sequence[object]) -> list[Any]:
        with self._transaction() as db:
            return db.execute(statement, values).fetchall()

    def _open(self) -> sqlite3.Connection:
        make_folder(self._location)
        make_private(self.path)
        for suffix in ("-wal", "-shm"):
            refuse_link(self._location / f"{FILE}{suffix}")
        connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
            connection.execute("BEGIN IMMEDIATE")
            known = connection.execute("SELECT octets FROM secret").fetchone()
            if known is None:
                known = (os.urandom(32),)
                connection.execute("INSERT INTO secret VALUES (?)", known)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self._secret = known[0]
        self._connection = connection
        return connection

    def become_leader(self) -> bool:
        """True if we are the one among the processes of this host that makes and sends reports."""
        with self._lock:
            if self._lock_file is None:
                try:
                    make_folder(self._location)
                    make_private(self._location / LOCK)
                    handle = (self._location / LOCK).open("rb")
                except OSError as error:
                    raise ReportsUnavailable(error_text(error)) from error
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    handle.close()
                    return False
                self._lock_file = handle
            return True

    def follow(self) -> None:
        """Let another one lead."""
        with self._lock:
            handle, self._lock_file = self._lock_file, None
            if handle is not None:
                handle.close()

    # Counts ------------------------------------------------------------------------------------------------------

    def add(self, counts: Mapping[tuple[date, str], DayCounts]) -> None:
        """Add what was counted. What belongs to a day that has ended is late, and is left out."""
        with self._transaction() as db:
            room: dict[date, int] = {}
            for (day, domain), each in counts.items():
                row = db.execute("SELECT counts, ended FROM day WHERE day = ? AND domain = ?", (str(day), domain))
                known = row.fetchone()
                if known is None:
                    if day not in room:
                        (there,) = db.execute("SELECT count(*) FROM day WHERE day = ?", (str(day),)).fetchone()
                        room[day] = MAX_DOMAINS - there
                    if room[day] <= 0:
                        continue
                    room[day] -= 1
                    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
                    due = end + send_offset(domain, day, self._secret, self._spread)
                    db.execute(
                        "INSERT INTO day (day, domain, due, counts) VALUES (?, ?, ?, ?)",
                        (str(day), domain, _stamp(due), _dump(each)),
                    )
                elif known[1] is None:
                    total = DayCounts.from_json(json.loads(known[0]))
                    total.merge(each)
                    db.execute(
                        "UPDATE day SET counts = ? WHERE day = ? AND domain = ?", (_dump(total), str(day), domain)
                    )

    def due(self, now: datetime, limit: int) -> list[tuple[date, str, datetime, DayCounts]]:
        """Days whose reports are due and not made, the oldest first: day, domain, since when, and what was counted."""
        rows = self._select(
            "SELECT day, domain, due, counts FROM day WHERE ended IS NULL AND due <= ? ORDER BY due LIMIT ?",
            (_stamp(now), limit),
        )
        return [
            (date.fromisoformat(day), domain, _moment(due), DayCounts.from_json(json.loads(counts)))
            for day, domain, due, counts in rows
        ]

    def postpone(self, day: date, domain: str, until: datetime) -> None:
        """The report of this day cannot be made now: it is due later."""
        statement = "UPDATE day SET due = ? WHERE day = ? AND domain = ? AND ended IS NULL"
        self._execute(statement, (_stamp(until), str(day), domain))

    def end(self, day: date, domain: str, why: str) -> None:
        """The day has ended without a report, and why."""
        statement = "UPDATE day SET ended = ? WHERE day = ? AND domain = ? AND ended IS NULL"
        self._execute(statement, (why, str(day), domain))

    # Reports -----------------------------------------------------------------------------------------------------

    def freeze(
        self, report: TLSReport, endpoints: Sequence[tuple[EndpointKind, str]], now: datetime, until: datetime
    ) -> None:
        """Keep a report as it is sent, with where it goes. One that was frozen before stays as it is."""
        with self._transaction() as db:
            key = (str(report.day), report.domain)
            done = db.execute(
                "UPDATE day SET ended = 'reported', report_id = ?, file_name = ?, subject = ?, body = ?"
                " WHERE day = ? AND domain = ? AND ended IS NULL",
                (report.report_id, report.file_name, report.subject, report.body, *key),
            )
            if done.rowcount:
                db.executemany(
                    "INSERT INTO delivery (day, domain, kind, target, pace, state, next, until)"
                    " VALUES (?, ?, ?, ?, ?, 'waiting', ?, ?)",
                    [
                        (*key, kind, target, " ".join(paces_of(kind, target)), _stamp(now), _stamp(until))
                        for kind, target in endpoints
                    ],
                )

    def report(self, day: date, domain: str) -> TLSReport | None:
        """The frozen report of a day; None if there is none."""
        rows = self._select(
            "SELECT report_id, file_name, subject, body FROM day WHERE day = ? AND domain = ? AND body IS NOT NULL",
            (str(day), domain),
        )
        return TLSReport(domain, day, *rows[0]) if rows else None

    def waiting(self, now: datetime, limit: int) -> list[ReportDelivery]:
        """What is to be sent now: of all that burdens one host the longest waiting one.

        If more wait than `limit`, the lot decides, so that one owner's thousands keep nobody out.
        """
        rows = self._select(
            f"SELECT {_DELIVERY}, min(next) FROM delivery WHERE state = 'waiting' AND next <= ?"  # noqa: S608 - constants only
            " GROUP BY pace ORDER BY random() LIMIT ?",
            (_stamp(now), limit),
        )
        return [_delivery(row[:-1]) for row in rows]

    def settle(self, delivery: ReportDelivery, state: DeliveryState, next: datetime, note: str) -> None:
        """What came of an attempt. Where the report was taken, other endpoints that have had their chance are left."""
        with self._transaction() as db:
            key = (str(delivery.day), delivery.domain)
            db.execute(
                "UPDATE delivery SET state = ?, tries = tries + 1, next = ?, note = ?"
                " WHERE day = ? AND domain = ? AND target = ?",
                (state, _stamp(next), note, *key, delivery.target),
            )
            taken = db.execute(
                "SELECT 1 FROM delivery WHERE day = ? AND domain = ? AND state = 'delivered'", key
            ).fetchone()
            if taken:
                db.execute(
                    "UPDATE delivery SET state = 'not-needed'"
                    " WHERE day = ? AND domain = ? AND state = 'waiting' AND tries > 0",
                    key,
                )

    def refuse(self, address: str, until: datetime) -> None:
        """A mail address refused a report: it gets none until then."""
        self._execute("INSERT OR REPLACE INTO refused VALUES (?, ?)", (address, _stamp(until)))

    def refusing(self, now: datetime) -> set[str]:
        """The addresses that get no reports now."""
        return {address for (address,) in self._select("SELECT address FROM refused WHERE until > ?", (_stamp(now),))}

    def forget(self, before: date, now: datetime) -> None:
        """Remove what ended before that day."""
        with self._transaction() as db:
            db.execute("DELETE FROM delivery WHERE day < ?", (str(before),))
            db.execute("DELETE FROM day WHERE day < ?", (str(before),))
            db.execute("DELETE FROM refused WHERE until <= ?", (_stamp(now),))

    # For people --------------------------------------------------------------------------------------------------

    def days(self, domain: str | None = None, day: date | None = None) -> list[StoredDay]:
        """What is kept, the newest first."""
        where: list[str] = ["1"]
        values: list[str] = []
        for name, wanted in (("domain", domain), ("day", None if day is None else str(day))):
            if wanted is not None:
                where.append(f"{name} = ?")
                values.append(wanted)
        condition = " AND ".join(where)
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT day, domain, due, counts, ended, report_id FROM day WHERE {condition}"  # noqa: S608 - names only
                " ORDER BY day DESC, domain",
                values,
            ).fetchall()
            sent = db.execute(
                f"SELECT {_DELIVERY} FROM delivery WHERE {condition} ORDER BY target",  # noqa: S608 - the same
                values,
            ).fetchall()
        deliveries: dict[tuple[str, str], list[ReportDelivery]] = {}
        for row in sent:
            deliveries.setdefault((row[0], row[1]), []).append(_delivery(row))
        return [
            StoredDay(
                date.fromisoformat(each),
                name,
                _moment(due),
                DayCounts.from_json(json.loads(counts)),
                ended,
                report_id,
                tuple(deliveries.get((each, name), ())),
            )
            for each, name, due, counts, ended, report_id in rows
        ]

    def make_due(self, domain: str, now: datetime) -> int:
        """Make the reports of past days, and what waits for another try, due now; returns how many there are."""
        with self._transaction() as db:
            made = db.execute(
                "UPDATE day SET due = ? WHERE domain = ? AND ended IS NULL AND day < ?",
                (_stamp(now), domain, str(now.date())),
            ).rowcount
            sent = db.execute(
                "UPDATE delivery SET next = ? WHERE domain = ? AND state = 'waiting'", (_stamp(now), domain)
            ).rowcount
        return made + sent

    def drop(self) -> int:
        """Give up all reports that are not sent yet; returns how many. Counts of today go on."""
        return self._execute(
            "UPDATE delivery SET state = 'failed', note = 'dropped by the operator' WHERE state = 'waiting'"
        )


_DELIVERY: Final = "day, domain, kind, target, state, tries, next, until, note"


def _delivery(row: tuple[Any, ...]) -> ReportDelivery:
    day, domain, kind, target, state, tries, next, until, note = row
    return ReportDelivery(
        date.fromisoformat(day),
        domain,
        EndpointKind(kind),
        target,
        DeliveryState(state),
        tries,
        _moment(next),
        _moment(until),
        note,
    )


def _dump(counts: DayCounts) -> str:
    return json.dumps(counts.as_json(), ensure_ascii=False, separators=(",", ":"))


def _stamp(moment: datetime) -> int:
    return int(moment.timestamp())


def _moment(stamp: int) -> datetime:
    return datetime.fromtimestamp(stamp, UTC)
