"""Pools of several workers: together they have no more connections than one would, and each gets its turn."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.delivery.connection.pool_state import SHARED, PoolLimits, PoolState, Slot
from mailrider.delivery.limits.lines import Ask, GiveBackRequest, Granted, Line
from mailrider.delivery.limits.share_book import RECALL_AGAIN, ShareBook
from tests.support.kept import kept
from tests.unit.delivery.calls import FakeSession, FakeWaiter

if TYPE_CHECKING:
    from collections.abc import Hashable

LIMITS = PoolLimits(reuse=10, idle_count=10, idle_time=150.0, per_endpoint=2, total=3, wait=300.0)
HOSTS = Line("host", LIMITS.per_endpoint, spares=False)
NOTHING = kept(PoolState(LIMITS, is_shared=True))
ALL = Line("all", LIMITS.total, spares=False)


class Worker:
    """A pool's state, and what its pool would do: connections open and close at once."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.state: PoolState[FakeSession, FakeWaiter] = PoolState(LIMITS, is_shared=True)
        self.waiting: list[FakeWaiter] = []
        self.busy: list[Slot[FakeSession]] = []
        self.asked: dict[int, Hashable] = {}
        self.closed: list[str] = []
        world.book.came(number)
        for line in (HOSTS, ALL):
            world.book.declare(number, line, world.now)

    def request(self, host: str = "mx", grade: int = 0) -> None:
        """A message wants a connection."""
        waiter = FakeWaiter(host, grade=grade)
        slot = self.state.request(waiter, self.world.now)
        if slot is None:
            self.waiting.append(waiter)
        else:
            self.use(slot, grade)
        self.world.turn()

    def use(self, slot: Slot[FakeSession], grade: int = 0) -> None:
        if slot.session is None:
            slot.session = FakeSession(slot.endpoint.key, grade)
            self.world.opened(self, slot)
        self.busy.append(slot)

    def finish(self, index: int = 0) -> None:
        """A transaction is over."""
        slot = self.busy.pop(index)
        assert slot.session is not None
        slot.session.transactions += 1
        self.state.give_back(slot, slot.next_hop, self.world.now)
        self.world.turn()

    def fail(self, index: int = 0) -> None:
        """A connection is lost."""
        slot = self.busy.pop(index)
        self.state.end(slot, "lost")
        self.world.turn()

    def act(self) -> bool:
        """What follows; False if there is nothing."""
        state, book, now = self.state, self.world.book, self.world.now
        if not (state.grants or state.closings or state.wanted or state.returned):
            return False
        grants, state.grants = state.grants, []
        closings, state.closings = state.closings, []
        for waiter, slot in grants:
            self.waiting.remove(waiter)
            self.use(slot, waiter.grade)
        for slot, _, reason in closings:
            self.closed.append(reason)
            self.world.closed(self, slot)
            state.gone(slot)
        returned, state.returned = state.returned, []
        wanted, state.wanted = state.wanted, []
        for host in returned:
            book.give_back(self.number, ("host", str(host)), 1, 0.0, now)
            book.give_back(self.number, ("all", ""), 1, 0.0, now)
        for host in wanted:
            self.world.asks += 1
            self.asked[self.world.asks] = host
            book.ask(self.number, Ask(self.world.asks, (("host", str(host)), ("all", "")), 1e9), now)
        return True


class World:
    """Two workers and the book."""

    def __init__(self) -> None:
        self.book = ShareBook()
        self.now = 0.0
        self.asks = 0
        self.there: Counter[Hashable] = Counter()
        self.workers = [Worker(self, number) for number in (0, 1)]

    def opened(self, worker: Worker, slot: Slot[FakeSession]) -> None:
        self.there[slot.endpoint.key] += 1
        assert self.there[slot.endpoint.key] <= LIMITS.per_endpoint
        assert self.there.total() <= LIMITS.total

    def closed(self, worker: Worker, slot: Slot[FakeSession]) -> None:
        self.there[slot.endpoint.key] -= 1

    def turn(self) -> None:
        """All that was said arrives."""
        moved = True
        while moved:
            moved = sum(worker.act() for worker in self.workers) > 0
            self.book.end_turn(self.now)
            answers, self.book.answers = self.book.answers, []
            for answer in answers:
                worker = self.workers[answer.worker]
                if isinstance(answer, Granted):
                    worker.state.granted(worker.asked.pop(answer.ask))
                elif isinstance(answer, GiveBackRequest):
                    worker.state.recall(answer.key or None, answer.keep, answer.wanted, self.now)
                moved = True

    def wait(self, seconds: float) -> None:
        """Time passes."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, max(self.now, self.book.next_due or end))
            self.book.tick(self.now)
            self.turn()


steps = st.one_of(
    st.tuples(st.just("request"), st.integers(0, 1), st.sampled_from(["mx", "my", "mz"]), st.integers(0, 1)),
    st.tuples(st.sampled_from(["finish", "fail"]), st.integers(0, 1)),
    st.tuples(st.just("give up"), st.integers(0, 1)),
    st.tuples(st.just("wait"), st.sampled_from([0.3, 2.0, 151.0])),
)


@given(st.lists(steps, max_size=80))
def test_together_they_never_have_more_and_everybody_is_served(story: list[tuple[str, ...]]) -> None:
    world = World()
    for what, first, *rest in story:
        if what == "wait":
            world.wait(float(first))
            for each in world.workers:
                each.state.expire(world.now)
            world.turn()
            continue
        worker = world.workers[int(first)]
        if what == "request":
            worker.request(rest[0], int(rest[1]))
        elif what == "give up" and worker.waiting:
            worker.state.withdraw(worker.waiting.pop())
        elif what in {"finish", "fail"} and worker.busy:
            getattr(worker, what)()
    for _ in range(200):
        for worker in world.workers:
            while worker.busy:
                worker.finish()
        if not any(worker.waiting for worker in world.workers):
            break
        world.wait(0.3)
    assert not any(worker.waiting for worker in world.workers), "somebody was never served"
    for worker in world.workers:
        while worker.busy:
            worker.finish()
        worker.state.shut()
    world.turn()
    world.wait(10.0)
    assert world.there.total() == 0
    assert all(kept(worker.state) == NOTHING for worker in world.workers)
    assert len(world.book) == 0


@pytest.fixture
def world() -> World:
    """See `World`."""
    return World()


def test_an_idle_connection_is_closed_at_once_when_another_worker_needs_one(world: World) -> None:
    first, second = world.workers
    for _ in range(2):
        first.request()
    for _ in range(2):
        first.finish()
    second.request()
    assert len(second.busy) == 1
    assert first.closed == [SHARED]
    assert first.state.slots == 1


def test_of_its_part_a_worker_keeps_what_is_idle_between_two_messages(world: World) -> None:
    first, second = world.workers
    first.request()
    second.request()
    first.finish()
    second.request()
    assert first.closed == []
    world.wait(RECALL_AGAIN)
    assert first.closed == [SHARED], "by now it is unused"
    assert len(second.busy) == 2


def test_an_idle_connection_is_used_again_without_asking(world: World) -> None:
    first, _ = world.workers
    first.request()
    first.finish()
    asks = world.asks
    first.request()
    assert len(first.busy) == 1
    assert world.asks == asks


def test_a_busy_worker_gives_up_what_is_beyond_its_part(world: World) -> None:
    first, second = world.workers
    for _ in range(4):
        first.request()
    second.request()
    assert second.busy == []
    first.finish()
    assert len(second.busy) == 1
    assert len(first.busy) == 1
    first.finish()
    assert len(first.busy) == 1, "its own part it keeps, and uses the connection again"
    assert first.closed == [SHARED]


def test_the_total_is_shared_over_hosts(world: World) -> None:
    first, second = world.workers
    first.request("mx")
    first.request("mx")
    first.request("my")
    first.finish()
    second.request("mz")
    assert len(second.busy) == 1
    assert first.closed == [SHARED]


def test_the_right_of_a_lost_connection_serves_who_waits_next_without_asking(world: World) -> None:
    first, _ = world.workers
    for _ in range(4):
        first.request()
    asks = world.asks
    first.fail()
    assert (len(first.busy), len(first.waiting)) == (2, 1)
    assert world.asks == asks


def test_the_right_of_a_lost_connection_is_for_another_worker_that_has_less_than_its_part(world: World) -> None:
    first, second = world.workers
    for _ in range(4):
        first.request()
    second.request()
    first.fail()
    assert (len(first.busy), len(second.busy)) == (1, 1)
    first.fail()
    assert (len(first.busy), len(second.busy)) == (1, 1), "its own part it keeps"


def test_hosts_of_one_worker_take_turns_where_there_are_no_more_connections_in_all(world: World) -> None:
    first, _ = world.workers
    for host in ("mx", "mx", "my", "mx", "mx", "mx", "mz"):
        first.request(host)
    assert [each.endpoint for each in first.waiting] == ["mx", "mx", "mx", "mz"]
    world.wait(0.3)
    first.fail()
    assert [each.endpoint for each in first.waiting] == ["mx", "mx", "mx"], "who wants the right of all comes first"


def test_a_right_that_nobody_waits_for_any_more_goes_back(world: World) -> None:
    first, second = world.workers
    for _ in range(2):
        first.request()
    second.request()
    second.state.withdraw(second.waiting.pop())
    first.finish()
    first.finish()
    world.turn()
    assert second.state.slots == 0
    for _ in range(2):
        second.request()
    world.wait(RECALL_AGAIN)
    assert len(second.busy) == 2


def test_who_hears_no_answer_waits_no_longer(world: World) -> None:
    first, _ = world.workers
    waiter = FakeWaiter()
    assert first.state.request(waiter, 0.0) is None
    assert first.state.wanted == ["mx"]
    first.state.wanted = []
    assert first.state.denied("mx") is waiter
    assert first.state.next_due is None
    assert kept(first.state) == NOTHING


def test_when_no_answer_comes_those_behind_ask_as_well_each_once(world: World) -> None:
    state = world.workers[0].state
    waiters = [FakeWaiter() for _ in range(LIMITS.per_endpoint + 3)]
    for waiter in waiters:
        assert state.request(waiter, 0.0) is None
    denied, asks = [], 0
    while state.wanted:
        state.wanted.pop()
        asks += 1
        denied.append(state.denied("mx"))
    assert denied == waiters
    assert asks == len(waiters)
    assert kept(state) == NOTHING


def test_a_right_that_comes_after_no_answer_serves_who_waits_behind(world: World) -> None:
    state = world.workers[0].state
    waiters = [FakeWaiter() for _ in range(LIMITS.per_endpoint + 1)]
    for waiter in waiters:
        state.request(waiter, 0.0)
    for _ in range(LIMITS.per_endpoint):
        state.denied("mx")
    state.granted("mx")
    assert [grant.waiter for grant in state.grants] == waiters[LIMITS.per_endpoint :]
