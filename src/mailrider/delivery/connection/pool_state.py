"""Which connection serves which request: the pool's state, and every decision about it. Pure.

An *endpoint* is one MX host at one address. A *slot* is room for one connection there. It exists from the moment that
the connection may be opened until it is closed: first it has no session yet, then it is in use, idle, or ending. A
*waiter* wants a slot. What always holds:

- an endpoint never has more than `per_endpoint` slots, all endpoints together never more than `total`; a slot that is
  ending counts until it is gone, since the server counts it too;
- an idle slot is given only to a waiter whom it fits (the waiter says so, from what the peer proved), while it is
  alive, within its idle time, and with a transaction left; the one used last first, the others may expire;
- nobody waits while there is room. Waiters of an endpoint are served in order, and get a slot that is given back if it
  fits the first of them; if it does not, it ends to make room. Endpoints that wait for the `total` take turns;
- no next hop keeps more than `idle_count` idle slots that it used last; the least bad to lose goes first.

Where several processes share these numbers, each slot needs a *right* that they have in common: `per_endpoint` and
`total` are what all of them may have. Then an endpoint has as many slots as it was `granted` rights. One is wanted for
each waiter that finds no slot; that of a slot that is gone serves the next waiter, and is returned if nobody waits.
Others that want rights are told of by `recall`: idle slots end for them at once, and others when they are given back;
but of its part a process keeps also those that are idle for a moment between two messages.

Every method returns at once. What follows from it stands in `grants` (a waiter waits no more), `closings` (a slot is
to be closed, and why), `wanted` and `returned` (endpoints, one for each right), for the pool to carry out and to clear.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from mailrider.delivery.settings import MAX_CONNECTIONS, MAX_CONNECTIONS_PER_HOST

if TYPE_CHECKING:
    from collections.abc import Hashable

MAX_WAIT = 300.0
"""Seconds that a waiter may wait: a host whose slots are all busy for so long does not keep up, another one may."""

MOMENT = 0.1
"""Seconds that a slot may be idle between two messages of a busy process."""

USED_UP = "it carried as many transactions as it may"
BROKEN = "the connection is lost"
LOST = "the server closed it while it was idle"
IDLE_TIME = "it was idle long enough"
IDLE_COUNT = "the domain has enough idle connections"
ROOM = "to make room for another one"
SHARED = "to make room for one of another process"
SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """`reuse`: transactions that a slot may carry; `idle_count`: idle slots of a next hop; `idle_time`, `wait`: s."""

    reuse: int
    idle_count: int
    idle_time: float
    per_endpoint: int = MAX_CONNECTIONS_PER_HOST
    total: int = MAX_CONNECTIONS
    wait: float = MAX_WAIT


class PooledSession(Protocol):
    """What the pool's state asks a connection."""

    transactions: int

    @property
    def is_alive(self) -> bool: ...
    @property
    def is_encrypted(self) -> bool: ...
    @property
    def max_transactions(self) -> int | None: ...


class Waiter(Protocol):
    """Who wants a slot to `endpoint` for `next_hop`; a `fresh` one wants none that was used before."""

    @property
    def endpoint(self) -> Hashable: ...
    @property
    def next_hop(self) -> Hashable: ...
    @property
    def fresh(self) -> bool: ...
    def fits(self, session: Any, opened_for: Hashable) -> bool: ...


SessionT = TypeVar("SessionT", bound=PooledSession)
WaiterT = TypeVar("WaiterT", bound=Waiter)


class Slot(Generic[SessionT]):
    """One connection in the state; `session` None while it is being opened. `next_hop` used it last."""

    __slots__ = ("endpoint", "idle_since", "is_ending", "is_idle", "next_hop", "opened_for", "session")

    def __init__(self, endpoint: _Endpoint[SessionT, Any], opened_for: Hashable) -> None:
        self.endpoint = endpoint
        self.opened_for = opened_for
        self.next_hop = opened_for
        self.session: SessionT | None = None
        self.idle_since = 0.0
        self.is_idle = False
        self.is_ending = False


class Grant(NamedTuple, Generic[WaiterT, SessionT]):
    """The waiter waits no more: it has that slot."""

    waiter: WaiterT
    slot: Slot[SessionT]


class Closing(NamedTuple, Generic[SessionT]):
    """The slot's connection is to be closed, and why; then it is `gone`."""

    slot: Slot[SessionT]
    session: SessionT
    reason: str


class _Endpoint(Generic[SessionT, WaiterT]):
    """`slots` counts all of them; those that are `ending`, and the `idle` ones, the one used last at the end.

    `room`: how many there may be. Of shared rights: how many were `asked` for and not granted yet, and how many are
    `owed` to others when their slots are gone.
    """

    __slots__ = ("asked", "ending", "idle", "key", "owed", "room", "slots", "waiting")

    def __init__(self, key: Hashable, room: int) -> None:
        self.key = key
        self.room = room
        self.asked = 0
        self.owed = 0
        self.slots = 0
        self.ending = 0
        self.idle: list[Slot[SessionT]] = []
        self.waiting: OrderedDict[WaiterT, None] = OrderedDict()


class PoolState(Generic[SessionT, WaiterT]):
    """The state of one pool. `now` is a reading of the monotonic clock throughout."""

    def __init__(self, limits: PoolLimits, *, is_shared: bool = False) -> None:
        self.limits = limits
        self.is_shared = is_shared
        self.slots = 0
        self.wanted: list[Hashable] = []
        self.returned: list[Hashable] = []
        self._owed = 0
        self._ending = 0
        self.is_shut = False
        self.grants: list[Grant[WaiterT, SessionT]] = []
        self.closings: list[Closing[SessionT]] = []
        self._endpoints: dict[Hashable, _Endpoint[SessionT, WaiterT]] = {}
        self._idle: OrderedDict[Slot[SessionT], None] = OrderedDict()  # idle longest first
        self._idle_of: dict[Hashable, list[Slot[SessionT]]] = {}  # by the next hop that used them last
        self._waiting: OrderedDict[WaiterT, float] = OrderedDict()  # since when, longest first
        # Endpoints with waiters and room of their own: only the total keeps them waiting.
        self._starving: OrderedDict[_Endpoint[SessionT, WaiterT], None] = OrderedDict()

    # Waiters ----------------------------------------------------------------------------------------------------------

    def request(self, waiter: WaiterT, now: float) -> Slot[SessionT] | None:
        """A slot that fits, or one without a session, to be opened; None if the waiter has to wait for a grant."""
        endpoint = self._endpoints.get(waiter.endpoint)
        if endpoint is None:
            room = 0 if self.is_shared else self.limits.per_endpoint
            endpoint = self._endpoints[waiter.endpoint] = _Endpoint(waiter.endpoint, room)
        elif endpoint.idle and not waiter.fresh:
            slot = self._find_idle(endpoint, waiter, now)
            if slot is not None:
                return slot
        if endpoint.slots < endpoint.room and self.slots < self.limits.total:
            return self._new_slot(endpoint, waiter)
        endpoint.waiting[waiter] = None
        self._waiting[waiter] = now
        if self.is_shared:
            self._want(endpoint)
        if endpoint.room >= self.limits.per_endpoint:
            self._make_room(endpoint)
        self._note(endpoint)
        return None

    def withdraw(self, waiter: WaiterT) -> None:
        """The waiter does not wait any more; harmless if it never did."""
        if self._waiting.pop(waiter, None) is None:
            return
        endpoint = self._endpoints[waiter.endpoint]
        del endpoint.waiting[waiter]
        self._note(endpoint)

    def overdue(self, now: float) -> list[WaiterT]:
        """Withdraws those who waited too long, and says who they are."""
        latest = now - self.limits.wait
        late = []
        for waiter, since in self._waiting.items():
            if since > latest:
                break
            late.append(waiter)
        for waiter in late:
            self.withdraw(waiter)
        return late

    # Slots ------------------------------------------------------------------------------------------------------------

    def give_back(self, slot: Slot[SessionT], next_hop: Hashable, now: float) -> None:
        """The slot was used for `next_hop` and can be used again, if there is anything left of it."""
        reason = self._why_not_kept(slot)
        if reason:
            self.end(slot, reason)
            return
        slot.next_hop = next_hop
        endpoint = slot.endpoint
        if endpoint.owed > endpoint.ending or self._owed > self._ending:
            self.end(slot, SHARED)
            return
        if endpoint.waiting:
            waiter = next(iter(endpoint.waiting))
            if self._fits(waiter, slot):
                self._grant(endpoint, waiter, slot)
                return
            if endpoint.ending < len(endpoint.waiting) and endpoint.room >= self.limits.per_endpoint:
                self.end(slot, ROOM)
                return
        if self._starving:
            self.end(slot, ROOM)
            return
        self._keep(slot, next_hop, now)

    def end(self, slot: Slot[SessionT], reason: str) -> None:
        """The slot is not to be used any more: it appears in `closings`, and is ending until `gone`."""
        if slot.is_ending or slot.session is None:
            return
        if slot.is_idle:
            self._take(slot)
        slot.is_ending = True
        slot.endpoint.ending += 1
        self._ending += 1
        self.closings.append(Closing(slot, slot.session, reason))

    def gone(self, slot: Slot[SessionT]) -> None:
        """The slot is closed, or could not be opened: there is room for another one."""
        endpoint = slot.endpoint
        endpoint.slots -= 1
        self.slots -= 1
        if slot.is_ending:
            endpoint.ending -= 1
            self._ending -= 1
        if self.is_shared:
            self._pass_on(endpoint)
        self._note(endpoint)
        while self._starving and self.slots < self.limits.total:
            # Behind the others, if it goes on starving: they take turns.
            endpoint, _ = self._starving.popitem(last=False)
            waiter = next(iter(endpoint.waiting))
            self._grant(endpoint, waiter, self._new_slot(endpoint, waiter))

    # Rights that processes share -------------------------------------------------------------------------------------

    def _pass_on(self, endpoint: _Endpoint[SessionT, WaiterT]) -> None:
        """A slot is gone: its right is for others if they want it, or else for who waits here."""
        if endpoint.waiting and not endpoint.owed and not self._owed:
            waiter = next(iter(endpoint.waiting))
            self._grant(endpoint, waiter, self._new_slot(endpoint, waiter))
            return
        endpoint.owed = max(0, endpoint.owed - 1)
        self._owed = max(0, self._owed - 1)
        endpoint.room -= 1
        self.returned.append(endpoint.key)
        self._want(endpoint)

    def _want(self, endpoint: _Endpoint[SessionT, WaiterT]) -> None:
        """A right for each waiter for whom none is on its way, as far as there can be any."""
        most = self.limits.per_endpoint - endpoint.room
        for _ in range(min(len(endpoint.waiting), most) - endpoint.asked):
            endpoint.asked += 1
            self.wanted.append(endpoint.key)

    def granted(self, key: Hashable) -> None:
        """A right that was wanted has come."""
        endpoint = self._endpoints[key]
        endpoint.asked -= 1
        if endpoint.waiting and not self.is_shut:
            endpoint.room += 1
            waiter = next(iter(endpoint.waiting))
            self._grant(endpoint, waiter, self._new_slot(endpoint, waiter))
        else:
            self.returned.append(key)
            self._note(endpoint)

    def denied(self, key: Hashable) -> WaiterT | None:
        """No right comes for now: the waiter that waits in vain, and is withdrawn.

        One is wanted then for the next who waits, if there was none under way for it. That ends: each costs a waiter.
        """
        endpoint = self._endpoints[key]
        endpoint.asked -= 1
        waiter = next(iter(endpoint.waiting), None)
        if waiter is not None:
            self.withdraw(waiter)
            self._want(endpoint)
        self._note(endpoint)
        return waiter

    def recall(self, key: Hashable | None, keep: int, wanted: int, now: float) -> None:
        """Others want so many rights, of an endpoint or (None) of any. So many may be kept that are in use."""
        endpoint = None if key is None else self._endpoints.get(key)
        if key is not None and endpoint is None:
            return
        slots = self.slots if endpoint is None else endpoint.slots
        is_own = keep >= (self.limits.total if endpoint is None else self.limits.per_endpoint)
        if is_own and endpoint is None:
            keep = 0  # nobody else wants one: it is for another endpoint of this process
        ended = 0
        for slot in list(self._idle) if endpoint is None else sorted(endpoint.idle, key=self._loss_with):
            if ended < wanted and (ended < slots - keep or is_own or now - slot.idle_since >= MOMENT):
                self.end(slot, SHARED)
                ended += 1
        owed = min(wanted, max(ended, slots - keep))
        if endpoint is None:
            self._owed = owed
        else:
            endpoint.owed = owed

    # Time ------------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """End what was idle long enough."""
        while self._idle:
            slot = next(iter(self._idle))
            if now - slot.idle_since < self.limits.idle_time:
                return
            self.end(slot, IDLE_TIME)

    def shut(self) -> list[WaiterT]:
        """End all idle slots, and keep none from now on; the waiters that have to be told that they wait in vain."""
        self.is_shut = True
        for slot in list(self._idle):
            self.end(slot, SHUTDOWN)
        waiters = list(self._waiting)
        for waiter in waiters:
            self.withdraw(waiter)
        return waiters

    @property
    def next_due(self) -> float | None:
        """When `expire` or `overdue` will have something to do."""
        due = None
        if self._idle:
            due = next(iter(self._idle)).idle_since + self.limits.idle_time
        if self._waiting:
            wait_ends = next(iter(self._waiting.values())) + self.limits.wait
            due = wait_ends if due is None else min(due, wait_ends)
        return due

    # Decisions --------------------------------------------------------------------------------------------------------

    def _find_idle(self, endpoint: _Endpoint[SessionT, WaiterT], waiter: WaiterT, now: float) -> Slot[SessionT] | None:
        for slot in endpoint.idle[::-1]:
            if slot.session is None or not slot.session.is_alive:
                self.end(slot, LOST)
            elif now - slot.idle_since >= self.limits.idle_time:
                self.end(slot, IDLE_TIME)
            elif self._fits(waiter, slot):
                self._take(slot)
                return slot
        return None

    @staticmethod
    def _fits(waiter: WaiterT, slot: Slot[SessionT]) -> bool:
        return not waiter.fresh and slot.session is not None and waiter.fits(slot.session, slot.opened_for)

    def _why_not_kept(self, slot: Slot[SessionT]) -> str:
        if slot.session is None or not slot.session.is_alive:
            return BROKEN
        if self.is_shut:
            return SHUTDOWN
        return "" if self._left(slot.session) > 0 else USED_UP

    def _left(self, session: SessionT) -> int:
        """Transactions that the slot may still carry; MAILMAX lowers the limit (RFC 9422 4.1)."""
        most = session.max_transactions
        limit = self.limits.reuse if most is None else min(most, self.limits.reuse)
        return limit - session.transactions

    def _make_room(self, endpoint: _Endpoint[SessionT, WaiterT]) -> None:
        """No idle slot fits the waiter who waits now. If one that is idle is in its way, it ends."""
        if endpoint.slots < endpoint.room:
            if self._idle:
                # Of all endpoints: the one that was idle longest is the next to go in any case.
                self.end(next(iter(self._idle)), ROOM)
        elif endpoint.idle and endpoint.ending < len(endpoint.waiting):
            self.end(min(endpoint.idle, key=self._loss_with), ROOM)

    def _loss_with(self, slot: Slot[SessionT]) -> tuple[bool, int, float]:
        """What is lost with a slot: a handshake, the transactions that it could still carry, and time."""
        session = slot.session
        if session is None:
            return False, 0, 0.0
        return session.is_encrypted, self._left(session), slot.idle_since

    # State ------------------------------------------------------------------------------------------------------------

    def _new_slot(self, endpoint: _Endpoint[SessionT, WaiterT], waiter: WaiterT) -> Slot[SessionT]:
        endpoint.slots += 1
        self.slots += 1
        return Slot(endpoint, waiter.next_hop)

    def _grant(self, endpoint: _Endpoint[SessionT, WaiterT], waiter: WaiterT, slot: Slot[SessionT]) -> None:
        del endpoint.waiting[waiter]
        del self._waiting[waiter]
        self._note(endpoint)
        self.grants.append(Grant(waiter, slot))

    def _keep(self, slot: Slot[SessionT], next_hop: Hashable, now: float) -> None:
        slot.idle_since = now
        slot.is_idle = True
        slot.endpoint.idle.append(slot)
        self._idle[slot] = None
        kept = self._idle_of.get(next_hop)
        if kept is None:
            kept = self._idle_of[next_hop] = []
        kept.append(slot)
        if len(kept) > self.limits.idle_count:
            self.end(min(kept, key=self._loss_with), IDLE_COUNT)

    def _take(self, slot: Slot[SessionT]) -> None:
        """An idle slot is not idle any more."""
        slot.is_idle = False
        slot.endpoint.idle.remove(slot)
        del self._idle[slot]
        kept = self._idle_of[slot.next_hop]
        kept.remove(slot)
        if not kept:
            del self._idle_of[slot.next_hop]

    def _note(self, endpoint: _Endpoint[SessionT, WaiterT]) -> None:
        """An endpoint's waiters or slots changed: is it starving, and is there any reason to remember it?"""
        if not endpoint.waiting:
            self._starving.pop(endpoint, None)
            if not endpoint.slots and not endpoint.asked:
                self._endpoints.pop(endpoint.key, None)
        elif endpoint.slots < endpoint.room:
            self._starving.setdefault(endpoint, None)
        else:
            self._starving.pop(endpoint, None)
