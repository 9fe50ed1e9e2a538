"""Which connection serves which call: the pool's books, and every decision about them. Pure.

A *place* is one MX host at one address. A *line* is one connection there, in the books from the moment that it may be
opened to the moment that it is closed; first it has no session yet, then it is in use, idle, or ending. A *caller*
wants a line. What always holds:

- a place never has more than `per_place` lines, all places together never more than `total`; a line that is ending
  counts until it is gone, since the server counts it too;
- an idle line is given only to a caller whom it fits (the caller says so, from what the peer proved), while it is
  alive, within its idle time, and with a transaction left; the one used last first, the others may expire;
- nobody waits while there is room. Callers of a place are served in order, and get a line that is given back if it fits
  the first of them; if it does not, it ends to make room. Places that wait for the `total` take turns;
- no next hop keeps more than `idle_count` idle lines that it used last; the least bad to lose goes first.

Every method returns at once. What follows from it stands in `grants` (a caller waits no more) and `endings` (a line is
to be closed, and why), for the pool to carry out and to clear.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from mailrider.delivery.settings import MAX_CONNECTIONS, MAX_CONNECTIONS_PER_HOST

if TYPE_CHECKING:
    from collections.abc import Hashable

MAX_WAIT = 300.0
"""Seconds that a caller may wait: a host whose lines are all busy for so long does not keep up, another one may."""

USED_UP = "it carried as many transactions as it may"
BROKEN = "the connection is lost"
LOST = "the server closed it while it was idle"
IDLE_TIME = "it was idle long enough"
IDLE_COUNT = "the domain has enough idle connections"
ROOM = "to make room for another one"
SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """`reuse`: transactions that a line may carry; `idle_count`: idle lines of a next hop; `idle_time`, `wait`: s."""

    reuse: int
    idle_count: int
    idle_time: float
    per_place: int = MAX_CONNECTIONS_PER_HOST
    total: int = MAX_CONNECTIONS
    wait: float = MAX_WAIT


class Session(Protocol):
    """What the books ask a connection."""

    transactions: int

    @property
    def is_alive(self) -> bool: ...
    @property
    def is_encrypted(self) -> bool: ...
    @property
    def max_transactions(self) -> int | None: ...


class Caller(Protocol):
    """Who wants a line to `place` for `next_hop`; a `fresh` one wants none that was used before."""

    @property
    def place(self) -> Hashable: ...
    @property
    def next_hop(self) -> Hashable: ...
    @property
    def fresh(self) -> bool: ...
    def fits(self, session: Any, opened_for: Hashable) -> bool: ...


SessionT = TypeVar("SessionT", bound=Session)
CallerT = TypeVar("CallerT", bound=Caller)


class Line(Generic[SessionT]):
    """One connection in the books; `session` None while it is being opened. `next_hop` used it last."""

    __slots__ = ("idle_since", "is_ending", "is_idle", "next_hop", "opened_for", "place", "session")

    def __init__(self, place: _Place[SessionT, Any], opened_for: Hashable) -> None:
        self.place = place
        self.opened_for = opened_for
        self.next_hop = opened_for
        self.session: SessionT | None = None
        self.idle_since = 0.0
        self.is_idle = False
        self.is_ending = False


class Grant(NamedTuple, Generic[CallerT, SessionT]):
    """The caller waits no more: it has that line."""

    caller: CallerT
    line: Line[SessionT]


class Ending(NamedTuple, Generic[SessionT]):
    """The line's connection is to be closed, and why; then it is `gone`."""

    line: Line[SessionT]
    session: SessionT
    reason: str


class _Place(Generic[SessionT, CallerT]):
    """`lines` counts all of them; those that are `ending`, and the `idle` ones, the one used last at the end."""

    __slots__ = ("ending", "idle", "key", "lines", "waiting")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.lines = 0
        self.ending = 0
        self.idle: list[Line[SessionT]] = []
        self.waiting: OrderedDict[CallerT, None] = OrderedDict()


class Switchboard(Generic[SessionT, CallerT]):
    """The books of one pool. `now` is a reading of the monotonic clock throughout."""

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.lines = 0
        self.is_shut = False
        self.grants: list[Grant[CallerT, SessionT]] = []
        self.endings: list[Ending[SessionT]] = []
        self._places: dict[Hashable, _Place[SessionT, CallerT]] = {}
        self._idle: OrderedDict[Line[SessionT], None] = OrderedDict()  # idle longest first
        self._idle_of: dict[Hashable, list[Line[SessionT]]] = {}  # by the next hop that used them last
        self._waiting: OrderedDict[CallerT, float] = OrderedDict()  # since when, longest first
        # Places with callers and room of their own: only the total keeps them waiting.
        self._starving: OrderedDict[_Place[SessionT, CallerT], None] = OrderedDict()

    # Callers ----------------------------------------------------------------------------------------------------------

    def request(self, caller: CallerT, now: float) -> Line[SessionT] | None:
        """A line that fits, or one without a session, to be opened; None if the caller has to wait for a grant."""
        place = self._places.get(caller.place)
        if place is None:
            place = self._places[caller.place] = _Place(caller.place)
        elif place.idle and not caller.fresh:
            line = self._find_idle(place, caller, now)
            if line is not None:
                return line
        if place.lines < self.limits.per_place and self.lines < self.limits.total:
            return self._new_line(place, caller)
        place.waiting[caller] = None
        self._waiting[caller] = now
        self._make_room(place)
        self._note(place)
        return None

    def withdraw(self, caller: CallerT) -> None:
        """The caller does not wait any more; harmless if it never did."""
        if self._waiting.pop(caller, None) is None:
            return
        place = self._places[caller.place]
        del place.waiting[caller]
        self._note(place)

    def overdue(self, now: float) -> list[CallerT]:
        """Withdraws those who waited too long, and says who they are."""
        latest = now - self.limits.wait
        late = []
        for caller, since in self._waiting.items():
            if since > latest:
                break
            late.append(caller)
        for caller in late:
            self.withdraw(caller)
        return late

    # Lines ------------------------------------------------------------------------------------------------------------

    def give_back(self, line: Line[SessionT], next_hop: Hashable, now: float) -> None:
        """The line was used for `next_hop` and can be used again, if there is anything left of it."""
        reason = self._why_not_kept(line)
        if reason:
            self.end(line, reason)
            return
        line.next_hop = next_hop
        place = line.place
        if place.waiting:
            caller = next(iter(place.waiting))
            if self._fits(caller, line):
                self._grant(place, caller, line)
                return
            if place.ending < len(place.waiting):
                self.end(line, ROOM)
                return
        if self._starving:
            self.end(line, ROOM)
            return
        self._keep(line, next_hop, now)

    def end(self, line: Line[SessionT], reason: str) -> None:
        """The line is not to be used any more: it appears in `endings`, and is ending until `gone`."""
        if line.is_ending or line.session is None:
            return
        if line.is_idle:
            self._take(line)
        line.is_ending = True
        line.place.ending += 1
        self.endings.append(Ending(line, line.session, reason))

    def gone(self, line: Line[SessionT]) -> None:
        """The line is closed, or could not be opened: there is room for another one."""
        place = line.place
        place.lines -= 1
        self.lines -= 1
        if line.is_ending:
            place.ending -= 1
        self._note(place)
        while self._starving and self.lines < self.limits.total:
            place, _ = self._starving.popitem(last=False)  # behind the others, if it goes on starving: they take turns
            caller = next(iter(place.waiting))
            self._grant(place, caller, self._new_line(place, caller))

    def expire(self, now: float) -> None:
        """End what was idle long enough."""
        while self._idle:
            line = next(iter(self._idle))
            if now - line.idle_since < self.limits.idle_time:
                return
            self.end(line, IDLE_TIME)

    def shut(self) -> list[CallerT]:
        """End all idle lines, and keep none from now on; the callers that have to be told that they wait in vain."""
        self.is_shut = True
        for line in list(self._idle):
            self.end(line, SHUTDOWN)
        callers = list(self._waiting)
        for caller in callers:
            self.withdraw(caller)
        return callers

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

    def _find_idle(self, place: _Place[SessionT, CallerT], caller: CallerT, now: float) -> Line[SessionT] | None:
        for line in place.idle[::-1]:
            if line.session is None or not line.session.is_alive:
                self.end(line, LOST)
            elif now - line.idle_since >= self.limits.idle_time:
                self.end(line, IDLE_TIME)
            elif self._fits(caller, line):
                self._take(line)
                return line
        return None

    @staticmethod
    def _fits(caller: CallerT, line: Line[SessionT]) -> bool:
        return not caller.fresh and line.session is not None and caller.fits(line.session, line.opened_for)

    def _why_not_kept(self, line: Line[SessionT]) -> str:
        if line.session is None or not line.session.is_alive:
            return BROKEN
        if self.is_shut:
            return SHUTDOWN
        return "" if self._left(line.session) > 0 else USED_UP

    def _left(self, session: SessionT) -> int:
        """Transactions that the line may still carry; MAILMAX lowers the limit (RFC 9422 4.1)."""
        most = session.max_transactions
        limit = self.limits.reuse if most is None else min(most, self.limits.reuse)
        return limit - session.transactions

    def _make_room(self, place: _Place[SessionT, CallerT]) -> None:
        """No idle line fits the caller who waits now. If one that is idle is in its way, it ends."""
        if place.lines < self.limits.per_place:
            if self._idle:
                # Of all places: the one that was idle longest is the next to go in any case.
                self.end(next(iter(self._idle)), ROOM)
        elif place.idle and place.ending < len(place.waiting):
            self.end(self._least_bad(place.idle), ROOM)

    def _least_bad(self, lines: list[Line[SessionT]]) -> Line[SessionT]:
        return min(lines, key=self._worth)

    def _worth(self, line: Line[SessionT]) -> tuple[bool, int, float]:
        """What is lost with a line: a handshake, the transactions that it could still carry, and time."""
        session = line.session
        if session is None:
            return False, 0, 0.0
        return session.is_encrypted, self._left(session), line.idle_since

    # Books ------------------------------------------------------------------------------------------------------------

    def _new_line(self, place: _Place[SessionT, CallerT], caller: CallerT) -> Line[SessionT]:
        place.lines += 1
        self.lines += 1
        return Line(place, caller.next_hop)

    def _grant(self, place: _Place[SessionT, CallerT], caller: CallerT, line: Line[SessionT]) -> None:
        del place.waiting[caller]
        del self._waiting[caller]
        self._note(place)
        self.grants.append(Grant(caller, line))

    def _keep(self, line: Line[SessionT], next_hop: Hashable, now: float) -> None:
        line.idle_since = now
        line.is_idle = True
        line.place.idle.append(line)
        self._idle[line] = None
        kept = self._idle_of.get(next_hop)
        if kept is None:
            kept = self._idle_of[next_hop] = []
        kept.append(line)
        if len(kept) > self.limits.idle_count:
            self.end(self._least_bad(kept), IDLE_COUNT)

    def _take(self, line: Line[SessionT]) -> None:
        """An idle line is not idle any more."""
        line.is_idle = False
        line.place.idle.remove(line)
        del self._idle[line]
        kept = self._idle_of[line.next_hop]
        kept.remove(line)
        if not kept:
            del self._idle_of[line.next_hop]

    def _note(self, place: _Place[SessionT, CallerT]) -> None:
        """A place's callers or lines changed: is it starving, and is it still worth a place in the books?"""
        if not place.waiting:
            self._starving.pop(place, None)
            if not place.lines:
                self._places.pop(place.key, None)
        elif place.lines < self.limits.per_place:
            self._starving.setdefault(place, None)
        else:
            self._starving.pop(place, None)
