"""The pool's state against a model: whatever callers, servers and time do, its promises hold.

The model knows each connection by itself: what it is worth, who used it last, whether its last transaction failed. The
machine plays the pool: it opens what it is granted, closes what is ended, and gives back what callers are done with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from mailrider.delivery.connection.pool_state import IDLE_COUNT, ROOM, Line, PoolLimits, Switchboard
from tests.support.long_runs import LONG
from tests.unit.delivery.calls import FakeCaller, FakeSession

if TYPE_CHECKING:
    from collections.abc import Hashable

PLACES = ("one", "two", "three")
HOPS = ("a.test", "b.test")
GRADES = st.integers(0, 2)


@dataclass
class Use:
    """A caller that has a line."""

    caller: FakeCaller
    line: Line[FakeSession]


class BooksAndModel(RuleBasedStateMachine):
    """Rules are what the outside world does."""

    uses = Bundle("uses")

    @initialize(
        reuse=st.integers(1, 4), idle_count=st.integers(0, 3), per_place=st.integers(1, 3), total=st.integers(1, 6)
    )
    def begin(self, reuse: int, idle_count: int, per_place: int, total: int) -> None:
        self.limits = PoolLimits(reuse, idle_count, 100.0, per_place, total, wait=50.0)
        self.books: Switchboard[FakeSession, FakeCaller] = Switchboard(self.limits)
        self.now = 1000.0
        self.open: dict[Line[FakeSession], str] = {}  # what each line is doing: opening, used, idle, ending
        self.spoilt: set[FakeSession] = set()
        self.last_hop: dict[Line[FakeSession], str] = {}
        self.idle_since: dict[Line[FakeSession], float] = {}
        self.waiting: dict[FakeCaller, float] = {}
        self.shut = False

    # What callers do --------------------------------------------------------------------------------------------------

    @rule(
        target=uses,
        place=st.sampled_from(PLACES),
        hop=st.sampled_from(HOPS),
        grade=GRADES,
        fresh=st.booleans(),
    )
    def request(self, place: str, hop: str, grade: int, fresh: bool) -> object:
        if self.shut:
            return multiple()
        caller = FakeCaller(place, hop, grade, fresh)
        could_use = [line for line in self.idle_at(place) if self.would_fit(caller, line)]
        had_room = self.count(place) < self.limits.per_place and len(self.open) < self.limits.total
        line = self.books.request(caller, self.now)
        if line is None:
            assert not could_use, "nobody waits while a line that fits is idle"
            assert not had_room, "nobody waits while there is room"
            self.waiting[caller] = self.now
            return multiple(*self.carry_out())
        if line.session is None:
            assert not could_use, "no line is opened while one that fits is idle"
            assert had_room, "no line is opened without room"
            self.open[line] = "opening"
        else:
            assert line in could_use
            self.check_lent(caller, line)
            self.open[line] = "used"
        return multiple(Use(caller, line), *self.carry_out())

    @rule(target=uses, use=consumes(uses), grade=GRADES, encrypted=st.booleans(), mailmax=st.none() | st.integers(1, 5))
    def opened(self, use: Use, grade: int, encrypted: bool, mailmax: int | None) -> object:
        if use.line.session is None:
            session = FakeSession(use.caller.place, grade, max_transactions=mailmax, is_encrypted=encrypted)
            use.line.session = session
            self.open[use.line] = "used"
        return multiple(use, *self.carry_out())

    @rule(target=uses, use=consumes(uses))
    def opening_failed(self, use: Use) -> object:
        if use.line.session is not None:
            return use
        return multiple(*self.gone(use.line))

    @rule(target=uses, use=consumes(uses), succeeded=st.booleans(), survives=st.booleans())
    def transacted(self, use: Use, succeeded: bool, survives: bool) -> object:
        session = use.line.session
        if session is None:
            return use
        session.transactions += 1
        session.is_alive = survives
        if not succeeded:
            self.spoilt.add(session)
            self.books.end(use.line, "DATA failed")
        else:
            self.last_hop[use.line] = use.caller.next_hop
            self.open[use.line] = "idle"
            self.idle_since[use.line] = self.now
            self.books.give_back(use.line, use.caller.next_hop, self.now)
        return multiple(*self.carry_out())

    @rule(target=uses, data=st.data())
    def lost_patience(self, data: st.DataObject) -> object:
        if self.waiting:
            caller = data.draw(st.sampled_from(list(self.waiting)))
            del self.waiting[caller]
            self.books.withdraw(caller)
        return multiple(*self.carry_out())

    # What servers and time do -----------------------------------------------------------------------------------------

    @rule(target=uses, data=st.data(), noticed=st.booleans())
    def server_closes(self, data: st.DataObject, noticed: bool) -> object:
        idle = [line for line, state in self.open.items() if state == "idle"]
        if not idle:
            return multiple()
        line = data.draw(st.sampled_from(idle))
        assert line.session is not None
        line.session.is_alive = False
        if noticed:
            self.books.end(line, "closed by the server")
        return multiple(*self.carry_out())

    @rule(target=uses, data=st.data())
    def closed(self, data: st.DataObject) -> object:
        ending = [line for line, state in self.open.items() if state == "ending"]
        if not ending:
            return multiple()
        return multiple(*self.gone(data.draw(st.sampled_from(ending))))

    @rule(target=uses, seconds=st.sampled_from([1.0, 30.0, 60.0]), ticks=st.booleans())
    def time_passes(self, seconds: float, ticks: bool) -> object:
        self.now += seconds
        if not ticks:
            return multiple()
        self.books.expire(self.now)
        for caller in self.books.overdue(self.now):
            assert self.now - self.waiting.pop(caller) >= self.limits.wait
        assert all(self.now - since < self.limits.wait for since in self.waiting.values())
        uses = self.carry_out()
        assert all(self.now - self.idle_since[line] < self.limits.idle_time for line in self.idle_at())
        due = self.books.next_due
        assert due is None or due > self.now
        return multiple(*uses)

    @rule()
    def shutdown(self) -> None:
        callers = self.books.shut()
        assert set(callers) == set(self.waiting)
        self.waiting.clear()
        self.shut = True
        assert self.carry_out() == []
        assert self.idle_at() == []

    # What the pool does -----------------------------------------------------------------------------------------------

    def carry_out(self) -> list[Use]:
        uses = []
        while self.books.grants or self.books.endings:
            grants, self.books.grants = self.books.grants, []
            endings, self.books.endings = self.books.endings, []
            for caller, line in grants:
                self.check_turn(caller)
                del self.waiting[caller]
                if line.session is not None:
                    self.check_lent(caller, line)
                self.open[line] = "opening" if line.session is None else "used"
                uses.append(Use(caller, line))
            for line, session, reason in endings:
                assert session is line.session
                self.check_ended(line, reason)
                self.open[line] = "ending"
        return uses

    def gone(self, line: Line[FakeSession]) -> list[Use]:
        del self.open[line]
        self.books.gone(line)
        return self.carry_out()

    # Questions --------------------------------------------------------------------------------------------------------

    def idle_at(self, place: str | None = None) -> list[Line[FakeSession]]:
        return [
            line
            for line, state in self.open.items()
            if state == "idle" and line.session is not None and place in (None, line.session.place)
        ]

    def count(self, place: Hashable) -> int:
        return sum(1 for line in self.open if line.place.key == place)

    def left(self, line: Line[FakeSession]) -> int:
        session = line.session
        assert session is not None
        return min(self.limits.reuse, session.max_transactions or self.limits.reuse) - session.transactions

    def would_fit(self, caller: FakeCaller, line: Line[FakeSession]) -> bool:
        session = line.session
        assert session is not None
        in_time = self.now - self.idle_since[line] < self.limits.idle_time
        return not caller.fresh and session.is_alive and session.grade >= caller.grade and in_time

    def worth(self, line: Line[FakeSession]) -> tuple[bool, int, float]:
        assert line.session is not None
        return line.session.is_encrypted, self.left(line), self.idle_since[line]

    # Promises ---------------------------------------------------------------------------------------------------------

    def check_lent(self, caller: FakeCaller, line: Line[FakeSession]) -> None:
        session = line.session
        assert session is not None
        assert not caller.fresh, "fresh never reuses"
        assert session.place == caller.place, "never a connection to another place"
        assert session.grade >= caller.grade, "never a connection below a message's requirement"
        assert session not in self.spoilt, "never one that carried a failed DATA"
        assert session.is_alive
        assert self.left(line) > 0, "never more transactions than the limit, MAILMAX included"

    def check_turn(self, caller: FakeCaller) -> None:
        rivals = [other for other in self.waiting if other.place == caller.place]
        assert rivals[0] is caller, "callers of a place are served in order"

    def check_ended(self, line: Line[FakeSession], reason: str) -> None:
        assert self.open[line] != "ending", "a line ends once"
        if reason == IDLE_COUNT:
            hop = self.last_hop[line]
            others = [other for other in self.idle_at() if self.last_hop[other] == hop and other is not line]
            assert len(others) >= self.limits.idle_count, "only too many idle connections are too many"
            assert all(self.worth(line) <= self.worth(other) for other in others), "the least bad first"
        elif reason == ROOM:
            full = len(self.open) >= self.limits.total or self.count(line.place.key) >= self.limits.per_place
            assert full or self.waiting, "nothing ends to make room where there is room"

    @invariant()
    def limits_hold(self) -> None:
        if not hasattr(self, "books"):
            return
        assert self.books.lines == len(self.open) <= self.limits.total
        for place in PLACES:
            assert self.count(place) <= self.limits.per_place
        for hop in HOPS:
            idle = [line for line in self.idle_at() if self.last_hop[line] == hop]
            assert len(idle) <= self.limits.idle_count

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        if not hasattr(self, "books"):
            return
        ending = any(state == "ending" for state in self.open.values())
        for caller in self.waiting:
            has_room = self.count(caller.place) < self.limits.per_place and len(self.open) < self.limits.total
            assert not has_room, "nobody waits while there is room"
            if not ending:
                fitting = [line for line in self.idle_at(caller.place) if self.would_fit(caller, line)]
                assert not fitting, "nobody waits while a line that fits is idle"
                if self.count(caller.place) < self.limits.per_place:
                    assert not self.idle_at(), "nobody waits for the total while anything is idle"
                else:
                    assert not self.idle_at(caller.place), "nobody waits for a place while anything is idle there"

    def teardown(self) -> None:
        """All closed at the end, and nothing remembered."""
        if not hasattr(self, "books"):
            return
        self.waiting.clear()
        self.books.shut()
        self.carry_out()
        for line, state in list(self.open.items()):
            if state == "used":
                self.books.give_back(line, "a.test", self.now)
        self.carry_out()
        for line in list(self.open):
            self.gone(line)
        assert self.books.lines == 0
        assert self.books.next_due is None
        assert not any((self.books._places, self.books._idle, self.books._idle_of, self.books._starving))


TestBooks = BooksAndModel.TestCase
TestBooks.settings = settings(
    max_examples=200 if LONG else 25, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
