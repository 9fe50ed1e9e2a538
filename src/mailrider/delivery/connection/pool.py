"""The connections of a target: leased, judged for each message, given back, closed.

A `Pool` carries out what its state decides (`delivery.connection.pool_state`): it opens, closes, lets callers wait,
and keeps one timer for all that expires. What always holds:

- a connection is judged again for every message, from what its peer proved and what this message's next hop demands
  now; one that is not good enough is not lent;
- a lease is a context manager, and whatever ends its block ends the lease: an exception means that the connection may
  stand in the middle of something, so it is closed;
- to lease a kept connection and to give it back costs no task, no timer and no turn of the event loop;
- what the server does to an idle connection is noticed at once;
- at shutdown idle connections are closed with QUIT; those in use may finish within `SHUTDOWN_TIME`, then all are
  closed, and none is opened any more.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from mailrider.clock import after
from mailrider.delivery.connection.pool_state import BROKEN, LOST, Switchboard
from mailrider.delivery.connection.session import Session, Unusable
from mailrider.model.event import ConnectionAwaited, ConnectionClosed, ConnectionReused, discard
from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Hashable
    from types import TracebackType

    from mailrider.clock import Clock, Timer
    from mailrider.delivery.connection.connect import Call, Connector
    from mailrider.delivery.connection.pool_state import Line, PoolLimits
    from mailrider.model.domain import NextHop
    from mailrider.model.event import Emit
    from mailrider.policy.judge import Judgement

SHUTDOWN_TIME = 15.0  # seconds: QUIT has 5, the close behind it 5, and some air
NEVER = float("inf")

NOT_LEASED = "it was not good enough"
GIVEN_UP = "its last transaction did not end cleanly"
SHUTTING_DOWN = Reply.make(451, "4.3.2", "This server is shutting down")


class PooledLease:
    """A connection for one transaction; see `attempt.Lease`. As a `Caller` it is who asks the books for it."""

    __slots__ = ("_is_usable", "_line", "_pool", "call", "fresh", "granted", "judgement", "place", "reused", "session")

    session: Session
    judgement: Judgement
    granted: asyncio.Future[Line[Session]]  # while it waits

    def __init__(self, pool: Pool, call: Call, *, fresh: bool) -> None:
        self.call = call
        self.fresh = fresh
        self.place = (call.mx, call.address)
        self.reused = False
        self._pool = pool
        self._line: Line[Session] | None = None
        self._is_usable = True

    @property
    def next_hop(self) -> NextHop:
        """See `assign.Caller`."""
        return self.call.next_hop

    def fits(self, session: Session, opened_for: Hashable) -> bool:
        """See `assign.Caller`."""
        judgement = self._pool.connector.judge_kept(self.call, session, opened_for)
        if judgement is None:
            return False
        self.judgement = judgement
        return True

    def give_up(self) -> None:
        """The connection is not to be used again."""
        self._is_usable = False

    async def __aenter__(self) -> PooledLease:
        line = self._pool.request(self) or await self._pool.wait(self)
        if line.session is None:
            self.session, self.judgement = await self._pool.open(line, self.call)
        else:
            self.session, self.reused = line.session, True
            self._pool.announce(self)
        self._line = line
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._line is None:
            return
        if kind is not None or not self._is_usable:
            self._pool.end(self._line, GIVEN_UP)
        elif self.judgement.refusal is not None:
            self._pool.end(self._line, NOT_LEASED)
        else:
            self._pool.give_back(self._line, self.call.next_hop)


class Pool:
    """The connections of one target."""

    def __init__(self, connector: Connector, limits: PoolLimits, clock: Clock, emit: Emit) -> None:
        self.connector = connector
        self._books: Switchboard[Session, PooledLease] = Switchboard(limits)
        self._clock = clock
        self._emit = emit
        self._is_heard = emit is not discard
        self._timer: Timer | None = None
        self._timer_at = NEVER
        self._lines: set[Line[Session]] = set()  # with a session, idle or not
        self._closing: set[asyncio.Task[None]] = set()
        self._empty: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._empty = asyncio.get_running_loop().create_future()
        for caller in self._books.shut():
            self._refuse(caller, Unusable(TryResult.CONNECT, SHUTTING_DOWN))
        self._act()
        if self._timer is not None:
            self._timer.cancel()
        try:
            async with after(self._clock, SHUTDOWN_TIME):
                if self._lines:
                    await self._empty
        except TimeoutError:
            pass
        finally:
            for line in self._lines:
                if line.session is not None:
                    line.session.abort()
            for task in self._closing:
                task.cancel()

    def lease(self, call: Call, *, fresh: bool = False) -> PooledLease:
        """A connection for the call, a new one if `fresh`; see `attempt.Connections`. Entering raises `Unusable`."""
        return PooledLease(self, call, fresh=fresh)

    # What a lease asks ------------------------------------------------------------------------------------------------

    def request(self, lease: PooledLease) -> Line[Session] | None:
        """A kept connection, or the right to open one; None: wait. Raises `Unusable` after the end."""
        books = self._books
        if books.is_shut:
            raise Unusable(TryResult.CONNECT, SHUTTING_DOWN)
        line = books.request(lease, self._clock.monotonic())
        if line is None:
            lease.granted = asyncio.get_running_loop().create_future()
        if books.endings:
            self._act()
        return line

    async def wait(self, lease: PooledLease) -> Line[Session]:
        """The line that a request is granted later. Raises `Unusable`."""
        began = self._clock.monotonic()
        self._watch(began + self._books.limits.wait)
        try:
            line = await lease.granted
        except BaseException:
            self._books.withdraw(lease)
            if lease.granted.done() and not lease.granted.cancelled() and lease.granted.exception() is None:
                # Granted in the very turn in which the wait was cancelled.
                self._put_back(lease.granted.result())
            raise
        waited = self._clock.monotonic() - began
        self._emit(ConnectionAwaited(lease.call.next_hop, str(lease.call.mx), str(lease.call.address), waited))
        return line

    async def open(self, line: Line[Session], call: Call) -> tuple[Session, Judgement]:
        """A new connection on that line. Raises `Unusable`; then the line is gone."""
        try:
            session = await self.connector.open(call)
        except BaseException:
            self._gone(line)
            raise
        line.session = session
        self._lines.add(line)
        try:
            if self._books.is_shut:
                raise Unusable(TryResult.CONNECT, SHUTTING_DOWN)
            judgement = self.connector.judge(call, session)
        except BaseException:
            session.abort()
            self.end(line, BROKEN)
            raise
        session.on_change(partial(self._changed, line))
        return session, judgement

    def announce(self, lease: PooledLease) -> None:
        """Tell that a kept connection was lent."""
        if self._is_heard:
            session = lease.session
            self._emit(ConnectionReused(session.peer.name, session.peer.address, session.transactions))
            self.connector.announce(lease.call, session, lease.judgement)

    def give_back(self, line: Line[Session], next_hop: Hashable) -> None:
        """The connection may be used again, as far as the last user knows."""
        books, now = self._books, self._clock.monotonic()
        books.give_back(line, next_hop, now)
        if books.grants or books.endings:
            self._act()
        if line.is_idle and now + books.limits.idle_time < self._timer_at:
            self._watch(now + books.limits.idle_time)

    def end(self, line: Line[Session], reason: str) -> None:
        """The connection is not to be used again."""
        self._books.end(line, reason)
        self._act()

    # What the books decide --------------------------------------------------------------------------------------------

    def _act(self) -> None:
        books = self._books
        while books.grants or books.endings:
            grants, books.grants = books.grants, []
            endings, books.endings = books.endings, []
            for caller, line in grants:
                self._grant(caller, line)
            for line, session, reason in endings:
                self._close(line, session, reason)

    def _grant(self, caller: PooledLease, line: Line[Session]) -> None:
        if caller.granted.done():
            self._put_back(line)  # it was cancelled, and has not had its turn to say so
        else:
            caller.granted.set_result(line)

    def _put_back(self, line: Line[Session]) -> None:
        if line.session is None:
            self._gone(line)
        else:
            self.give_back(line, line.next_hop)

    def _refuse(self, caller: PooledLease, error: Unusable) -> None:
        if not caller.granted.done():
            caller.granted.set_exception(error)

    def _close(self, line: Line[Session], session: Session, reason: str) -> None:
        peer = session.peer
        self._emit(ConnectionClosed(peer.name, peer.address, session.transactions, reason))
        if not session.is_alive:
            session.abort()
            self._gone(line)
            return
        task = asyncio.ensure_future(session.quit())
        self._closing.add(task)
        task.add_done_callback(partial(self._closed, line))

    def _closed(self, line: Line[Session], task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        self._gone(line)

    def _gone(self, line: Line[Session]) -> None:
        self._lines.discard(line)
        self._books.gone(line)
        self._act()
        if self._empty is not None and not self._empty.done() and not self._lines:
            self._empty.set_result(None)

    def _changed(self, line: Line[Session]) -> None:
        """Something happened on a connection while nobody waited for it: the server said or did what ends it."""
        if line.is_idle:
            self.end(line, LOST)

    # Time -------------------------------------------------------------------------------------------------------------

    def _watch(self, when: float) -> None:
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._clock.call_at(when, self._tick)
            self._timer_at = when

    def _tick(self) -> None:
        self._timer, self._timer_at = None, NEVER
        now = self._clock.monotonic()
        self._books.expire(now)
        for caller in self._books.overdue(now):
            self._refuse(caller, self._too_busy(caller))
        self._act()
        due = self._books.next_due
        if due is not None:
            self._watch(due)

    def _too_busy(self, caller: PooledLease) -> Unusable:
        call = caller.call
        text = f"All connections to {call.mx} [{call.address}] were busy for {self._books.limits.wait:g} s"
        return Unusable(TryResult.CONNECT, Reply.make(451, "4.4.5", text))
