"""The connections of a target: leased, judged for each message, given back, closed.

A `Pool` carries out what its state decides (`delivery.connection.pool_state`): it opens, closes, lets waiters wait,
and keeps one timer for all that expires. What always holds:

- a connection is judged again for every message, from what its peer proved and what this message's next hop demands
  now; one that is not good enough is not lent;
- a lease is a context manager, and whatever ends its block ends the lease: an exception means that the connection may
  stand in the middle of something, so it is closed;
- to lease a kept connection and to give it back costs no task, no timer and no turn of the event loop;
- what the server does to an idle connection is noticed at once;
- where several processes share their numbers of connections, the right to each one is asked for, and given back when it
  is closed; while there is no answer nothing is opened (`ConnectLater`), and nothing was tried;
- at shutdown idle connections are closed with QUIT; those in use may finish within `SHUTDOWN_TIME`, then all are
  closed, and none is opened any more.
"""

from __future__ import annotations

import asyncio
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from mailrider.clock import Alarm, after
from mailrider.delivery.connection.pool_state import BROKEN, LOST, PoolState
from mailrider.delivery.connection.unusable import ConnectLater, Unusable
from mailrider.delivery.limits.lines import AskLater
from mailrider.model.event import ConnectionAwaited, ConnectionClosed, ConnectionReused, discard
from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Hashable
    from types import TracebackType

    from mailrider.clock import Clock
    from mailrider.delivery.connection.connect import Connector, ConnectRequest
    from mailrider.delivery.connection.pool_state import PoolLimits, Slot
    from mailrider.delivery.connection.session import Session
    from mailrider.delivery.limits.share_client import Answer
    from mailrider.delivery.limits.shares import ConnectionShares
    from mailrider.model.event import Emit
    from mailrider.policy.judge import Judgement

SHUTDOWN_TIME = 15.0  # seconds: QUIT has 5, the close behind it 5, and some air
NOTICEABLE = 0.1  # seconds: a wait for a right that is free is none that anybody need be told of

NOT_LEASED = "it did not prove what the message demands"
GIVEN_UP = "its last transaction did not end cleanly"
NO_MORE_DOMAINS = "its server takes no recipients of other domains on it"
SHUTTING_DOWN = Reply.make(451, "4.3.2", "This server is shutting down")


class PooledLease:
    """A connection for one transaction; see `job.Lease`. As a `Waiter` it is who asks the pool's state for it."""

    __slots__ = (
        "_pool",
        "_slot",
        "_why_given_up",
        "call",
        "endpoint",
        "fresh",
        "granted",
        "judgement",
        "next_hop",
        "reused",
        "session",
    )

    session: Session
    judgement: Judgement
    granted: asyncio.Future[Slot[Session]]  # while it waits

    def __init__(self, pool: Pool, call: ConnectRequest, *, fresh: bool) -> None:
        self.call = call
        self.fresh = fresh
        self.endpoint = (call.candidate.host.ascii, call.address)
        self.next_hop = call.next_hop.ascii
        self.reused = False
        self._pool = pool
        self._slot: Slot[Session] | None = None
        self._why_given_up = ""

    def fits(self, session: Session, opened_for: Hashable) -> bool:
        """See `pool_state.Waiter`."""
        judgement = self._pool.connector.judge_kept(self.call, session, opened_for)
        if judgement is None:
            return False
        self.judgement = judgement
        return True

    def give_up(
        self, *, wants_tls: bool = False, knows_no_chunks: bool = False, takes_no_more_domains: bool = False
    ) -> None:
        """The connection is not to be used again. `wants_tls`: nor is one in clear; `knows_no_chunks`: nor is BDAT."""
        self._why_given_up = NO_MORE_DOMAINS if takes_no_more_domains else GIVEN_UP
        if knows_no_chunks:
            self._pool.connector.chunks_not_known(self.call)
        if wants_tls:
            self._pool.connector.try_tls_again(self.call)

    async def __aenter__(self) -> PooledLease:
        slot = self._pool.request(self) or await self._pool.wait(self)
        if slot.session is None:
            self.session, self.judgement = await self._pool.open(slot, self.call)
        else:
            self.session, self.reused = slot.session, True
            self._pool.announce(self)
        self._slot = slot
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._slot is None:
            return
        if kind is not None or self._why_given_up:
            self._pool.end(self._slot, self._why_given_up or GIVEN_UP)
        elif self.judgement.refusal is not None:
            self._pool.end(self._slot, NOT_LEASED)
        else:
            self._pool.give_back(self._slot, self.next_hop)


class Pool:
    """The connections of one target."""

    def __init__(
        self,
        connector: Connector,
        limits: PoolLimits,
        clock: Clock,
        emit: Emit,
        shares: ConnectionShares | None = None,
    ) -> None:
        """`shares`: where rights to connections come from; None: this process has all that `limits` say."""
        self.connector = connector
        self._state: PoolState[Session, PooledLease] = PoolState(limits, is_shared=shares is not None)
        self._shares = shares
        self._clock = clock
        self._emit = emit
        self._is_heard = emit is not discard
        self._alarm = Alarm(clock, self._tick)
        self._slots: set[Slot[Session]] = set()  # with a session, idle or not
        self._closing: set[asyncio.Task[None]] = set()
        self._empty: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Pool:
        if self._shares is not None:
            self._shares.open(self._recalled)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._empty = asyncio.get_running_loop().create_future()
        for waiter in self._state.shut():
            self._refuse(waiter, Unusable(TryResult.CONNECT, SHUTTING_DOWN))
        self._act()
        self._alarm.cancel()
        try:
            async with after(self._clock, SHUTDOWN_TIME):
                if self._slots:
                    await self._empty
        except TimeoutError:
            pass
        finally:
            for slot in self._slots:
                if slot.session is not None:
                    slot.session.abort()
            for task in self._closing:
                task.cancel()

    def lease(self, call: ConnectRequest, *, fresh: bool = False) -> PooledLease:
        """A connection for the call, a new one if `fresh`; see `job.Connections`. Entering raises `Unusable` and
        `ConnectLater`."""
        return PooledLease(self, call, fresh=fresh)

    # What a lease asks ------------------------------------------------------------------------------------------------

    def request(self, lease: PooledLease) -> Slot[Session] | None:
        """A kept connection, or the right to open one; None: wait. Raises `Unusable` after the end."""
        state = self._state
        if state.is_shut:
            raise Unusable(TryResult.CONNECT, SHUTTING_DOWN)
        slot = state.request(lease, self._clock.monotonic())
        if slot is None:
            lease.granted = asyncio.get_running_loop().create_future()
        if state.closings or state.wanted:
            self._act()
        return slot

    async def wait(self, lease: PooledLease) -> Slot[Session]:
        """The slot that a request is granted later. Raises `Unusable` and `ConnectLater`."""
        began = self._clock.monotonic()
        self._alarm.set(began + self._state.limits.wait)
        try:
            slot = await lease.granted
        except BaseException:
            self._state.withdraw(lease)
            if lease.granted.done() and not lease.granted.cancelled() and lease.granted.exception() is None:
                # Granted in the very turn in which the wait was cancelled.
                self._put_back(lease.granted.result())
            raise
        waited = self._clock.monotonic() - began
        if self._shares is None or waited >= NOTICEABLE:
            call = lease.call
            self._emit(ConnectionAwaited(call.next_hop, str(call.mx), str(call.address), waited, message=call.message))
        return slot

    async def open(self, slot: Slot[Session], call: ConnectRequest) -> tuple[Session, Judgement]:
        """A new connection on that slot. Raises `Unusable`; then the slot is gone."""
        try:
            session = await self.connector.open(call)
        except BaseException:
            self._gone(slot)
            raise
        slot.session = session
        self._slots.add(slot)
        try:
            if self._state.is_shut:
                raise Unusable(TryResult.CONNECT, SHUTTING_DOWN)
            judgement = self.connector.judge(call, session)
        except BaseException:
            session.abort()
            self.end(slot, BROKEN)
            raise
        session.on_change(partial(self._changed, slot))
        return session, judgement

    def announce(self, lease: PooledLease) -> None:
        """Tell that a kept connection was lent."""
        if self._is_heard:
            session = lease.session
            self._emit(ConnectionReused(session.peer.name, session.peer.address, session.transactions))
            self.connector.announce(lease.call, session, lease.judgement)

    def give_back(self, slot: Slot[Session], next_hop: Hashable) -> None:
        """The connection may be used again, as far as the last user knows."""
        state, now = self._state, self._clock.monotonic()
        state.give_back(slot, next_hop, now)
        if state.grants or state.closings:
            self._act()
        if slot.is_idle and now + state.limits.idle_time < self._alarm.at:
            self._alarm.set(now + state.limits.idle_time)

    def end(self, slot: Slot[Session], reason: str) -> None:
        """The connection is not to be used again."""
        self._state.end(slot, reason)
        self._act()

    # What the pool's state decides ------------------------------------------------------------------------------------

    def _act(self) -> None:
        state = self._state
        while state.grants or state.closings:
            grants, state.grants = state.grants, []
            closings, state.closings = state.closings, []
            for waiter, slot in grants:
                self._grant(waiter, slot)
            for slot, session, reason in closings:
                self._close(slot, session, reason)
        if state.wanted or state.returned:
            self._exchange_rights()

    def _grant(self, waiter: PooledLease, slot: Slot[Session]) -> None:
        if waiter.granted.done():
            self._put_back(slot)  # it was cancelled, and has not had its turn to say so
        else:
            waiter.granted.set_result(slot)

    def _put_back(self, slot: Slot[Session]) -> None:
        if slot.session is None:
            self._gone(slot)
        else:
            self.give_back(slot, slot.next_hop)

    def _exchange_rights(self) -> None:
        """Give rights back that are not used, and ask for those that are wanted."""
        state, shares = self._state, self._shares
        assert shares is not None  # noqa: S101 # only then are there rights
        wanted, state.wanted = state.wanted, []
        returned, state.returned = state.returned, []
        for endpoint in returned:
            shares.give_back(_host_of(endpoint))
        for endpoint in wanted:
            shares.ask(_host_of(endpoint), partial(self._answered, endpoint))

    def _answered(self, endpoint: Hashable, answer: Answer) -> None:
        if isinstance(answer, AskLater):
            waiter = self._state.denied(endpoint)
            if waiter is not None:
                self._refuse(waiter, ConnectLater(answer.seconds))
        else:
            self._state.granted(endpoint)
        self._act()

    def _recalled(self, host: str | None, keep: int, wanted: int) -> None:
        """Others want so many connections."""
        endpoint = None if host is None else _endpoint_of(host)
        self._state.recall(endpoint, keep, wanted, self._clock.monotonic())
        self._act()

    def _refuse(self, waiter: PooledLease, error: Unusable | ConnectLater) -> None:
        if not waiter.granted.done():
            waiter.granted.set_exception(error)

    def _close(self, slot: Slot[Session], session: Session, reason: str) -> None:
        peer = session.peer
        self._emit(ConnectionClosed(peer.name, peer.address, session.transactions, reason))
        if not session.is_alive:
            session.abort()
            self._gone(slot)
            return
        task = asyncio.ensure_future(session.quit())
        self._closing.add(task)
        task.add_done_callback(partial(self._closed, slot))

    def _closed(self, slot: Slot[Session], task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        self._gone(slot)

    def _gone(self, slot: Slot[Session]) -> None:
        self._slots.discard(slot)
        self._state.gone(slot)
        self._act()
        if self._empty is not None and not self._empty.done() and not self._slots:
            self._empty.set_result(None)

    def _changed(self, slot: Slot[Session]) -> None:
        """Something happened on a connection while nobody waited for it: the server said or did what ends it."""
        if slot.is_idle:
            self.end(slot, LOST)

    # Time -------------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._clock.monotonic()
        self._state.expire(now)
        for waiter in self._state.overdue(now):
            self._refuse(waiter, self._too_busy(waiter))
        self._act()
        due = self._state.next_due
        if due is not None:
            self._alarm.set(due)

    def _too_busy(self, waiter: PooledLease) -> Unusable:
        call = waiter.call
        text = f"All connections to {call.mx} [{call.address}] were busy for {self._state.limits.wait:g} s"
        return Unusable(TryResult.CONNECT, Reply.make(451, "4.4.5", text))


def _host_of(endpoint: Any) -> str:
    """An endpoint's name among processes."""
    host, address = endpoint
    return f"{host} {address}"


def _endpoint_of(host: str) -> Hashable:
    name, _, address = host.rpartition(" ")
    return name, ip_address(address)
