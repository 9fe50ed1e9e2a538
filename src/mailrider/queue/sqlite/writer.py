"""The one thread that writes to an SQLite store, and its group commit.

Whatever is asked for while a commit is under way goes into the next one together: adds and settlements as sets, the
rest one by one in the same transaction. Where the event loop has more to do than it can, or the process uses much of a
processor, the next commit waits for a moment, so that it has more company: its price is that of one, however many are
in it. What is answered is durable. If
a transaction fails, nothing of it happened; where one request may be the cause, each is tried by itself, so that a bad
one fails alone.

The thread never touches the event loop but by `call_soon_threadsafe`, once for each transaction.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import threading
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mailrider.files import error_text
from mailrider.queue.sqlite.transactions import ROW
from mailrider.queue.store import IdTaken, StoreDamaged, StoreFull, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from mailrider.queue.message import NewMessage, Settlement
    from mailrider.queue.sqlite.transactions import Transactions
    from mailrider.queue.sqlite.wal import WALKeeper

    Ask = Callable[["Request"], Awaitable[Any]]
    Outcome = tuple[asyncio.Future[Any], Any]
    Asked = tuple["Request", asyncio.Future[Any]]

T = TypeVar("T")

MOST_AT_ONCE: Final = 512  # requests of one transaction: what a crash undoes, and nobody was told of, attempts small
BUSY: Final = 0.001  # seconds after which the loop takes an answer, if it has more to do than it can
BUSY_SHARE: Final = 0.5  # of a processor; a process that uses as much is busy, too
COMPANY: Final = 4  # requests of the last commit, where others can be expected: one sender makes two at a time
SPAN: Final = 0.05  # seconds over which that is measured, at least
LOOKED: Final = 0.001  # seconds between two looks at who came while a commit waits for company
LOOKS: Final = 4  # after which it does not wait any longer, whoever may come


@dataclass(frozen=True, slots=True)
class Add:
    """Store a message; `leased`: by this process, from the beginning."""

    message: NewMessage
    leased: bool


@dataclass(frozen=True, slots=True)
class Settle:
    """Commit a settlement."""

    settlement: Settlement


@dataclass(frozen=True, slots=True)
class StoreCall:
    """Something else that writes. `outside`: not in a transaction."""

    work: Callable[[sqlite3.Connection], Any]
    outside: bool = False


Request = Add | Settle | StoreCall


class ProcessorShare:
    """How much of a processor something used lately: `used` tells its seconds so far, `now` the time in seconds."""

    def __init__(self, now: Callable[[], float], used: Callable[[], float]) -> None:
        self._now = now
        self._used = used
        self._share = 0.0
        self._looked = now(), used()

    def measure(self) -> float:
        """1.0 is one processor all the time. Measured over `SPAN` seconds, or since it was asked for last."""
        now = self._now()
        then, used_then = self._looked
        if now - then >= SPAN:
            used = self._used()
            self._share = (used - used_then) / (now - then)
            self._looked = now, used
        return self._share


class Writer:
    """Runs requests on a connection of its own; `keeper` looks after the log that this makes longer.

    `now` tells the time in seconds, in any thread, and `used` the seconds of processor time of this process; `pause` is
    how it waits for company, in its own. `room` is asked for space when the disk is full, for new mail (False) or for
    what cannot wait: each step of it makes some. `fault` is called around commits, for tests that pull the plug.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        transactions: Transactions,
        keeper: WALKeeper,
        on_damage: Callable[[str], None],
        now: Callable[[], float],
        pause: Callable[[float], object] = time.sleep,  # it stops this thread alone, never the loop
        room: Callable[[bool], Iterator[None]] = lambda _: iter(()),
        used: Callable[[], float] = time.process_time,
        fault: Callable[[str], None] | None = None,
    ) -> None:
        self._connection = connection
        self._transactions = transactions
        self._keeper = keeper
        self._fault = fault
        self._on_damage = on_damage
        self._pause = pause
        self._room = room
        self._now = now
        self._share = ProcessorShare(now, used)
        self._late = 0.0  # seconds that the last answer waited for the loop
        self._requests: SimpleQueue[tuple[Request, asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="mailrider queue writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._damage = ""

    def start(self) -> None:
        """Begin to work, for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Finish what was asked for, and end the thread."""
        self._requests.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def ask(self, request: Request) -> asyncio.Future[Any]:
        """The future of a request; it is carried out even if nobody waits for it any more."""
        loop = self._loop
        if loop is None or not self._thread.is_alive():
            raise StoreUnavailable("the queue's store is not open")
        future: asyncio.Future[Any] = loop.create_future()
        self._requests.put((request, future))
        return future

    # In the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        stopping = False
        together = 0
        while not stopping:
            taken = [self._requests.get()]
            if self._late >= BUSY or (together >= COMPANY and self._share.measure() >= BUSY_SHARE):
                self._gather()
            try:
                while len(taken) < MOST_AT_ONCE:
                    taken.append(self._requests.get_nowait())
            except Empty:
                pass
            stopping = None in taken
            asked = [each for each in taken if each is not None]
            together = len(asked)
            if asked:
                self._answer(self._work(asked))

    def _gather(self) -> None:
        """Wait for more as long as there come more.

        Beside a busy event loop each statement waits for the interpreter's lock: fewer commits are less work for
        everybody, and nobody is kept waiting, since the loop is not there yet. Where many send at once to a worker that
        has its processor only half of the time, since others use it too, that saves work as well. Where neither is so,
        each is answered as soon as can be.
        """
        waiting = self._requests.qsize()
        for _ in range(LOOKS):
            self._pause(LOOKED)  # nobody has to wake this thread meanwhile
            before, waiting = waiting, self._requests.qsize()
            if waiting == before:
                return

    def _work(self, asked: Sequence[Asked]) -> list[Outcome]:
        inside = [each for each in asked if not (isinstance(each[0], StoreCall) and each[0].outside)]
        results = self._commit(inside) if inside else []
        for request, future in asked:
            if isinstance(request, StoreCall) and request.outside:
                results.append((future, self._outside(request)))
        return results

    def _commit(self, asked: Sequence[Asked]) -> list[Outcome]:
        try:
            return self._transaction(asked)
        except Exception as error:
            problem = self._translate(error)
        if isinstance(problem, StoreFull):
            # What is queued moves on before new mail comes in.
            moves = [each for each in asked if not isinstance(each[0], Add)]
            adds = [each for each in asked if isinstance(each[0], Add)]
            return self._squeeze(moves, problem) + self._squeeze(adds, problem)
        if len(asked) == 1 and isinstance(asked[0][0], Add | Settle) and _says_taken(problem):
            problem = _caused(IdTaken("an id of a new message was given to another one"), problem)
        elif len(asked) == 1 and isinstance(problem, sqlite3.Error):
            problem = _caused(StoreUnavailable(f"the queue's store cannot do this: {problem}"), problem)
        if len(asked) == 1 or isinstance(problem, StoreUnavailable):
            return [(future, problem) for _, future in asked]
        return [outcome for each in asked for outcome in self._commit([each])]

    def _squeeze(self, asked: Sequence[Asked], problem: Exception) -> list[Outcome]:
        """The disk is full: make room and try again, in smaller parts at last.

        Deliveries free pages of the database, so each that gets through helps the others.
        """
        if not asked:
            return []
        for _ in self._room(not isinstance(asked[0][0], Add)):
            try:
                return self._transaction(asked)
            except Exception as error:
                problem = self._translate(error)
                if not isinstance(problem, StoreFull):
                    return self._commit(asked)
        if len(asked) == 1:
            return [(asked[0][1], problem)]
        half = len(asked) // 2
        return self._squeeze(asked[:half], problem) + self._squeeze(asked[half:], problem)

    def _transaction(self, asked: Sequence[Asked]) -> list[Outcome]:
        connection, transactions = self._connection, self._transactions
        adds = [each for each in asked if isinstance(each[0], Add)]
        settles = [each for each in asked if isinstance(each[0], Settle)]
        results: list[Outcome] = []
        connection.execute("BEGIN IMMEDIATE")
        try:
            if adds:
                transactions.add(connection, [(each.message, each.leased) for each, _ in adds if isinstance(each, Add)])
                results += [(future, None) for _, future in adds]
            if settles:
                held = transactions.settle(connection, [request.settlement for request, _ in settles])  # type: ignore[union-attr] # Settle
                results += [(future, each) for (_, future), each in zip(settles, held, strict=True)]
            for request, future in asked:
                if isinstance(request, StoreCall):
                    results.append((future, request.work(connection)))
            transactions.written += ROW  # of what the log has of a commit beside the rows
            if self._fault is not None:
                self._fault("before commit")
            connection.execute("COMMIT")
            if self._fault is not None:
                self._fault("after commit")
        except BaseException:
            if connection.in_transaction:
                self._roll_back()
            raise
        keeper = self._keeper
        if transactions.written >= keeper.step and not keeper.is_at_work:
            keeper.committed(transactions.written)
            transactions.written = 0
        return results

    def _roll_back(self) -> None:
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            # SQLite has rolled back by itself already (disk full, I/O error).
            return

    def _outside(self, request: StoreCall) -> Any:
        try:
            return request.work(self._connection)
        except Exception as error:
            return self._translate(error)

    def _translate(self, error: Exception) -> Exception:
        problem = translate(error)
        if isinstance(problem, StoreDamaged) and not self._damage:
            self._damage = str(problem)
            self._on_damage(self._damage)
        return problem

    def _answer(self, outcomes: list[Outcome]) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(self._deliver, outcomes, self._now())

    # In the loop -------------------------------------------------------------------------------------------------

    def _deliver(self, outcomes: list[Outcome], answered: float) -> None:
        self._late = self._now() - answered
        for future, result in outcomes:
            if future.done():  # nobody waits any more
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


_FULL: Final = {sqlite3.SQLITE_FULL}
_NO_INDEX: Final = sqlite3.SQLITE_IOERR_SHMSIZE  # the index of the log could not be made longer
_NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT}
_TAKEN: Final = {sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
# What is wrong with the place or the moment, not with one request.
_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


def translate(error: Exception) -> Exception:
    """An error of SQLite or of the system as one of ours; other exceptions as they are."""
    if isinstance(error, StoreUnavailable):
        return error
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF  # the rest says more of the same: sqlite.org/rescode.html
        if primary in _DAMAGED:
            return _caused(StoreDamaged(f"the queue's store is damaged: {error}"), error)
        if primary in _FULL or code == _NO_INDEX:
            return _caused(StoreFull(f"there is no space for the queue: {error}"), error)
        if primary in _UNAVAILABLE or isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError):
            return _caused(StoreUnavailable(f"the queue's store is not available: {error}"), error)
        return error
    if isinstance(error, OSError):
        if error.errno in _NO_SPACE:
            return _caused(StoreFull(f"there is no space for the queue: {error_text(error)}"), error)
        return _caused(StoreUnavailable(f"the queue's store is not available: {error_text(error)}"), error)
    return error


def _says_taken(problem: Exception) -> bool:
    """True if a row with that key is there already."""
    return getattr(problem, "sqlite_errorcode", None) in _TAKEN


def _caused(ours: StoreUnavailable, cause: Exception) -> StoreUnavailable:
    ours.__cause__ = cause
    return ours
