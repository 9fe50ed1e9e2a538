"""The pool's state against a model: whatever waiters, servers and time do, its promises hold.

The model knows each connection by itself: what it is worth, who used it last, whether its last transaction failed. The
machine plays the pool: it opens what it is granted, closes what is ended, and gives back what waiters are done with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from mailrider.delivery.connection.pool_state import IDLE_COUNT, ROOM, PoolLimits, PoolState, Slot
from tests.support.kept import kept
from tests.support.long_runs import LONG
from tests.unit.delivery.calls import FakeSession, FakeWaiter

if TYPE_CHECKING:
    from collections.abc import Hashable

PLACES = ("one", "two", "three")
HOPS = ("a.test", "b.test")
GRADES = st.integers(0, 2)


@dataclass
class Use:
    """A waiter that has a slot."""

    waiter: FakeWaiter
    slot: Slot[FakeSession]


class BooksAndModel(RuleBasedStateMachine):
    """Rules are what the outside world does."""

    uses = Bundle("uses")

    @initialize(
        reuse=st.integers(1, 4), idle_count=st.integers(0, 3), per_endpoint=st.integers(1, 3), total=st.integers(1, 6)
    )
    def begin(self, reuse: int, idle_count: int, per_endpoint: int, total: int) -> None:
        self.limits = PoolLimits(reuse, idle_count, 100.0, per_endpoint, total, wait=50.0)
        self.state: PoolState[FakeSession, FakeWaiter] = PoolState(self.limits)
        self.now = 1000.0
        self.open: dict[Slot[FakeSession], str] = {}  # what each slot is doing: opening, used, idle, ending
        self.spoilt: set[FakeSession] = set()
        self.last_hop: dict[Slot[FakeSession], str] = {}
        self.idle_since: dict[Slot[FakeSession], float] = {}
        self.waiting: dict[FakeWaiter, float] = {}
        self.shut = False

    # What waiters do --------------------------------------------------------------------------------------------------

    @rule(
        target=uses,
        endpoint=st.sampled_from(PLACES),
        hop=st.sampled_from(HOPS),
        grade=GRADES,
        fresh=st.booleans(),
    )
    def request(self, endpoint: str, hop: str, grade: int, fresh: bool) -> object:
        if self.shut:
            return multiple()
        waiter = FakeWaiter(endpoint, hop, grade, fresh)
        could_use = [slot for slot in self.idle_at(endpoint) if self.would_fit(waiter, slot)]
        had_room = self.count(endpoint) < self.limits.per_endpoint and len(self.open) < self.limits.total
        slot = self.state.request(waiter, self.now)
        if slot is None:
            assert not could_use, "nobody waits while a slot that fits is idle"
            assert not had_room, "nobody waits while there is room"
            self.waiting[waiter] = self.now
            return multiple(*self.carry_out())
        if slot.session is None:
            assert not could_use, "no slot is opened while one that fits is idle"
            assert had_room, "no slot is opened without room"
            self.open[slot] = "opening"
        else:
            assert slot in could_use
            self.check_lent(waiter, slot)
            self.open[slot] = "used"
        return multiple(Use(waiter, slot), *self.carry_out())

    @rule(target=uses, use=consumes(uses), grade=GRADES, encrypted=st.booleans(), mailmax=st.none() | st.integers(1, 5))
    def opened(self, use: Use, grade: int, encrypted: bool, mailmax: int | None) -> object:
        if use.slot.session is None:
            session = FakeSession(use.waiter.endpoint, grade, max_transactions=mailmax, is_encrypted=encrypted)
            use.slot.session = session
            self.open[use.slot] = "used"
        return multiple(use, *self.carry_out())

    @rule(target=uses, use=consumes(uses))
    def opening_failed(self, use: Use) -> object:
        if use.slot.session is not None:
            return use
        return multiple(*self.gone(use.slot))

    @rule(target=uses, use=consumes(uses), succeeded=st.booleans(), survives=st.booleans())
    def transacted(self, use: Use, succeeded: bool, survives: bool) -> object:
        session = use.slot.session
        if session is None:
            return use
        session.transactions += 1
        session.is_alive = survives
        if not succeeded:
            self.spoilt.add(session)
            self.state.end(use.slot, "DATA failed")
        else:
            self.last_hop[use.slot] = use.waiter.next_hop
            self.open[use.slot] = "idle"
            self.idle_since[use.slot] = self.now
            self.state.give_back(use.slot, use.waiter.next_hop, self.now)
        return multiple(*self.carry_out())

    @rule(target=uses, data=st.data())
    def lost_patience(self, data: st.DataObject) -> object:
        if self.waiting:
            waiter = data.draw(st.sampled_from(list(self.waiting)))
            del self.waiting[waiter]
            self.state.withdraw(waiter)
        return multiple(*self.carry_out())

    # What servers and time do -----------------------------------------------------------------------------------------

    @rule(target=uses, data=st.data(), noticed=st.booleans())
    def server_closes(self, data: st.DataObject, noticed: bool) -> object:
        idle = [slot for slot, state in self.open.items() if state == "idle"]
        if not idle:
            return multiple()
        slot = data.draw(st.sampled_from(idle))
        assert slot.session is not None
        slot.session.is_alive = False
        if noticed:
            self.state.end(slot, "closed by the server")
        return multiple(*self.carry_out())

    @rule(target=uses, data=st.data())
    def closed(self, data: st.DataObject) -> object:
        ending = [slot for slot, state in self.open.items() if state == "ending"]
        if not ending:
            return multiple()
        return multiple(*self.gone(data.draw(st.sampled_from(ending))))

    @rule(target=uses, seconds=st.sampled_from([1.0, 30.0, 60.0]), ticks=st.booleans())
    def time_passes(self, seconds: float, ticks: bool) -> object:
        self.now += seconds
        if not ticks:
            return multiple()
        self.state.expire(self.now)
        for waiter in self.state.overdue(self.now):
            assert self.now - self.waiting.pop(waiter) >= self.limits.wait
        assert all(self.now - since < self.limits.wait for since in self.waiting.values())
        uses = self.carry_out()
        assert all(self.now - self.idle_since[slot] < self.limits.idle_time for slot in self.idle_at())
        due = self.state.next_due
        assert due is None or due > self.now
        return multiple(*uses)

    @rule()
    def shutdown(self) -> None:
        waiters = self.state.shut()
        assert set(waiters) == set(self.waiting)
        self.waiting.clear()
        self.shut = True
        assert self.carry_out() == []
        assert self.idle_at() == []

    # What the pool does -----------------------------------------------------------------------------------------------

    def carry_out(self) -> list[Use]:
        uses = []
        while self.state.grants or self.state.closings:
            grants, self.state.grants = self.state.grants, []
            closings, self.state.closings = self.state.closings, []
            for waiter, slot in grants:
                self.check_turn(waiter)
                del self.waiting[waiter]
                if slot.session is not None:
                    self.check_lent(waiter, slot)
                self.open[slot] = "opening" if slot.session is None else "used"
                uses.append(Use(waiter, slot))
            for slot, session, reason in closings:
                assert session is slot.session
                self.check_ended(slot, reason)
                self.open[slot] = "ending"
        return uses

    def gone(self, slot: Slot[FakeSession]) -> list[Use]:
        del self.open[slot]
        self.state.gone(slot)
        return self.carry_out()

    # Questions --------------------------------------------------------------------------------------------------------

    def idle_at(self, endpoint: str | None = None) -> list[Slot[FakeSession]]:
        return [
            slot
            for slot, state in self.open.items()
            if state == "idle" and slot.session is not None and endpoint in (None, slot.session.endpoint)
        ]

    def count(self, endpoint: Hashable) -> int:
        return sum(1 for slot in self.open if slot.endpoint.key == endpoint)

    def left(self, slot: Slot[FakeSession]) -> int:
        session = slot.session
        assert session is not None
        return min(self.limits.reuse, session.max_transactions or self.limits.reuse) - session.transactions

    def would_fit(self, waiter: FakeWaiter, slot: Slot[FakeSession]) -> bool:
        session = slot.session
        assert session is not None
        in_time = self.now - self.idle_since[slot] < self.limits.idle_time
        return not waiter.fresh and session.is_alive and session.grade >= waiter.grade and in_time

    def worth(self, slot: Slot[FakeSession]) -> tuple[bool, int, float]:
        assert slot.session is not None
        return slot.session.is_encrypted, self.left(slot), self.idle_since[slot]

    # Promises ---------------------------------------------------------------------------------------------------------

    def check_lent(self, waiter: FakeWaiter, slot: Slot[FakeSession]) -> None:
        session = slot.session
        assert session is not None
        assert not waiter.fresh, "fresh never reuses"
        assert session.endpoint == waiter.endpoint, "never a connection to another endpoint"
        assert session.grade >= waiter.grade, "never a connection below a message's requirement"
        assert session not in self.spoilt, "never one that carried a failed DATA"
        assert session.is_alive
        assert self.left(slot) > 0, "never more transactions than the limit, MAILMAX included"

    def check_turn(self, waiter: FakeWaiter) -> None:
        rivals = [other for other in self.waiting if other.endpoint == waiter.endpoint]
        assert rivals[0] is waiter, "waiters of an endpoint are served in order"

    def check_ended(self, slot: Slot[FakeSession], reason: str) -> None:
        assert self.open[slot] != "ending", "a slot ends once"
        if reason == IDLE_COUNT:
            hop = self.last_hop[slot]
            others = [other for other in self.idle_at() if self.last_hop[other] == hop and other is not slot]
            assert len(others) >= self.limits.idle_count, "only too many idle connections are too many"
            assert all(self.worth(slot) <= self.worth(other) for other in others), "the least bad first"
        elif reason == ROOM:
            full = len(self.open) >= self.limits.total or self.count(slot.endpoint.key) >= self.limits.per_endpoint
            assert full or self.waiting, "nothing ends to make room where there is room"

    @invariant()
    def limits_hold(self) -> None:
        if not hasattr(self, "state"):
            return
        assert self.state.slots == len(self.open) <= self.limits.total
        for endpoint in PLACES:
            assert self.count(endpoint) <= self.limits.per_endpoint
        for hop in HOPS:
            idle = [slot for slot in self.idle_at() if self.last_hop[slot] == hop]
            assert len(idle) <= self.limits.idle_count

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        if not hasattr(self, "state"):
            return
        ending = any(state == "ending" for state in self.open.values())
        for waiter in self.waiting:
            has_room = self.count(waiter.endpoint) < self.limits.per_endpoint and len(self.open) < self.limits.total
            assert not has_room, "nobody waits while there is room"
            if not ending:
                fitting = [slot for slot in self.idle_at(waiter.endpoint) if self.would_fit(waiter, slot)]
                assert not fitting, "nobody waits while a slot that fits is idle"
                if self.count(waiter.endpoint) < self.limits.per_endpoint:
                    assert not self.idle_at(), "nobody waits for the total while anything is idle"
                else:
                    assert not self.idle_at(waiter.endpoint), (
                        "nobody waits for an endpoint while anything is idle there"
                    )

    def teardown(self) -> None:
        """All closed at the end, and nothing remembered."""
        if not hasattr(self, "state"):
            return
        self.waiting.clear()
        self.state.shut()
        self.carry_out()
        for slot, state in list(self.open.items()):
            if state == "used":
                self.state.give_back(slot, "a.test", self.now)
        self.carry_out()
        for slot in list(self.open):
            self.gone(slot)
        assert self.state.slots == 0
        assert self.state.next_due is None
        assert kept(self.state) == kept(PoolState(self.limits))


TestBooks = BooksAndModel.TestCase
TestBooks.settings = settings(
    max_examples=200 if LONG else 25, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
