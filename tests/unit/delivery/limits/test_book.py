"""The book of limits: who begins, who waits, in which order; the same for one process and through a supervisor."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrider.delivery.limits.book import LimitBook
from mailrider.delivery.limits.lines import Ask, AskLater, Granted, Line, Refused, Waits
from mailrider.delivery.limits.process_limits import ProcessLimits
from mailrider.delivery.limits.waiter import Counts, LimitWaiter
from mailrider.testing.clock import FakeClock
from tests.support.shared import SharedSupervisor

if TYPE_CHECKING:
    from mailrider.delivery.limits.lines import Answer, Need

ONE_AT_ONCE = Line("one at once", 1)
TWO_AT_ONCE = Line("two at once", 2)
EIGHT_AT_ONCE = Line("eight at once", 8)
ONE_A_MINUTE = Line("one a minute", 1, 60.0)
LINES = (ONE_AT_ONCE, TWO_AT_ONCE, EIGHT_AT_ONCE, ONE_A_MINUTE)
ONE, TWO, RATE = ((line.name, "a") for line in (ONE_AT_ONCE, TWO_AT_ONCE, ONE_A_MINUTE))


def book_of(*lines: Line) -> LimitBook:
    book = LimitBook()
    for line in lines:
        book.declare(0, line, 0.0)
    return book


def answers(book: LimitBook) -> list[Answer]:
    told, book.answers = book.answers, []
    return told


@given(maximum=st.integers(1, 3), moves=st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=60))
def test_never_more_than_the_maximum_at_once_and_nothing_is_remembered(
    maximum: int, moves: list[tuple[str, bool]]
) -> None:
    book = book_of(Line("x", maximum))
    inside: dict[str, int] = defaultdict(int)
    for key, enters in moves:
        if enters:
            begins = book.begin(0, [("x", key)], 5.0)
            assert begins == (inside[key] < maximum)
            inside[key] += begins
        elif inside[key]:
            assert not book.leave(0, [("x", key)], 5.0)
            inside[key] -= 1
    assert len(book) == sum(1 for count in inside.values() if count)


def test_leaving_what_was_not_taken_is_a_bug_that_shows() -> None:
    with pytest.raises(KeyError):
        book_of(ONE_AT_ONCE).leave(0, [ONE], 0.0)


def test_what_begins_at_once_takes_one_of_each_or_nothing() -> None:
    book = book_of(*LINES)
    assert book.begin(0, [TWO, RATE], 0.0)
    assert not book.begin(0, [TWO, RATE], 1.0)
    assert book.begin(0, [TWO], 1.0)
    assert not book.begin(0, [TWO], 1.0)


def test_nobody_begins_at_once_where_somebody_waits() -> None:
    book = book_of(*LINES)
    assert book.begin(0, [ONE], 0.0)
    book.ask(0, Ask(1, (TWO, ONE), 9.0), 0.0)
    assert book.begin(0, [TWO], 0.0), "who waits for one holds none of the others"
    book.ask(0, Ask(2, (TWO, ONE), 9.0), 0.0)
    book.leave(0, [TWO], 0.0)
    assert not book.begin(0, [ONE], 0.0)
    assert answers(book) == [Waits(0, 1, 1), Waits(0, 2, 1)]
    assert book.leave(0, [ONE], 1.0)
    assert answers(book) == [Granted(0, 1, ((1, 0.0), (1, 0.0)))]


def test_nobody_begins_before_who_waits_for_a_rate_that_has_just_opened() -> None:
    book = book_of(*LINES)
    assert book.begin(0, [RATE], 0.0)
    book.ask(0, Ask(1, (RATE,), 90.0), 1.0)
    assert not book.begin(0, [RATE], 60.0)
    book.tick(60.0)
    assert answers(book) == [Waits(0, 1, 0), Granted(0, 1, ((1, 60.0),))]


def test_an_ask_that_is_shortened_waits_for_what_it_still_wants_alone() -> None:
    book = book_of(*LINES)
    assert book.begin(0, [ONE], 0.0)
    assert book.begin(0, [RATE], 0.0)
    book.ask(0, Ask(1, (ONE, RATE), 90.0), 0.0)
    book.ask(0, Ask(2, (ONE, TWO), 90.0), 0.0)
    book.shorten(0, 1, 1, 1.0)
    assert answers(book) == [Waits(0, 1, 0), Waits(0, 2, 0)]
    book.shorten(0, 2, 1, 1.0)
    assert answers(book) == [Granted(0, 2, ((1, 0.0),))]
    book.leave(0, [ONE], 2.0)
    assert book.begin(0, [ONE], 2.0), "nobody waits for it any more"
    book.tick(60.0)
    assert answers(book) == [Granted(0, 1, ((1, 60.0),))]


def test_an_ask_that_was_shortened_names_what_is_in_its_way_by_the_place_that_it_had() -> None:
    book = book_of(*LINES)
    assert book.begin(0, [ONE], 0.0)
    assert book.begin(0, [RATE], 0.0)
    book.ask(0, Ask(1, (TWO, RATE, ONE), 70.0), 0.0)
    book.shorten(0, 1, 1, 1.0)
    book.tick(60.0)
    book.tick(70.0)
    assert answers(book) == [Waits(0, 1, 1), Refused(0, 1, 2, 1.0)]


def test_shortening_what_was_answered_changes_nothing() -> None:
    book = book_of(*LINES)
    book.ask(0, Ask(1, (ONE,)), 0.0)
    answers(book)
    book.shorten(0, 1, 1, 0.0)
    assert answers(book) == []


# One process ----------------------------------------------------------------------------------------------------------


class Pair:
    """Two asks of one message: when the first is granted the second wants its needs from an index on alone."""

    def __init__(self, clock: FakeClock, wanted_from: int) -> None:
        self.counts = ProcessLimits(clock)
        self.told: list[object] = []
        self.number_of_second = 0
        self._wanted_from = wanted_from
        for line in LINES:
            self.counts.declare(0, line)

    def ask(self, first: list[Need], second: list[Need], patience: float) -> None:
        self.counts.ask(first, self._first, 90.0)
        self.number_of_second = self.counts.ask(second, self._second, patience, waits=self._waits)

    def _first(self, answer: AskLater | int) -> None:
        self.told.append(("first", answer))
        self.counts.shorten(self.number_of_second, self._wanted_from)

    def _second(self, answer: AskLater | int) -> None:
        self.told.append(("second", answer))

    def _waits(self, need: Need, _: float) -> None:
        self.told.append(need)


async def test_who_is_refused_what_it_does_not_want_any_more_is_granted_the_rest() -> None:
    clock = FakeClock()
    pair = Pair(clock, 1)
    assert pair.counts.take([RATE])
    pair.ask([RATE], [RATE, TWO], 60.0)
    await clock.advance(60.0)
    assert pair.told == [RATE, ("first", 1), ("second", 1)]


async def test_what_comes_of_an_answer_is_told_after_what_was_answered_before() -> None:
    pair = Pair(FakeClock(), 2)
    assert pair.counts.take([ONE])
    assert pair.counts.take([TWO])
    assert pair.counts.take([TWO])
    pair.ask([TWO], [TWO, ONE], 60.0)
    pair.counts.leave([TWO, TWO])
    assert pair.told == [TWO, ("first", 1), ONE, ("second", 1)]


# One process, and a worker of a supervisor ----------------------------------------------------------------------------


class Story:
    """Asks and returns, told to whoever counts; who begins is written down."""

    def __init__(self, clock: FakeClock, counts: Counts) -> None:
        self.clock = clock
        self.counts = counts
        self.began: list[int] = []
        self.inside: dict[int, list[Need]] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def _enter(self, number: int, needs: list[Need], patience: float) -> None:
        def entered() -> None:
            self.began.append(number)
            self.inside[number] = needs

        await LimitWaiter(self.counts, needs).enter(patience, entered=entered)

    async def play(self, moves: list[tuple[Any, ...]]) -> list[int]:
        """Everything that is said arrives before the next thing is said."""
        for number, (what, *rest) in enumerate(moves):
            if what == "ask":
                self.tasks[number] = asyncio.create_task(self._enter(number, rest[0], rest[1]))
            elif what == "leave" and self.inside:
                self._leave(list(self.inside)[rest[0] % len(self.inside)])
            elif what == "give up":
                waiting = [each for each, task in self.tasks.items() if not task.done()]
                if waiting:
                    self.tasks[waiting[rest[0] % len(waiting)]].cancel()
            await self.clock.advance(0.001)
        while self.inside:
            self._leave(next(iter(self.inside)))
            await self.clock.advance(0.001)
        await self.clock.advance(1000.0)
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        return self.began

    def _leave(self, number: int) -> None:
        self.counts.leave(self.inside.pop(number))


def in_one_process(clock: FakeClock) -> Counts:
    counts = ProcessLimits(clock)
    for line in LINES:
        counts.declare(0, line)
    return counts


def in_a_worker(clock: FakeClock) -> Counts:
    client = SharedSupervisor(clock, 1).all[0].client
    for line in LINES:
        client.declare(line)
    return client


at_once = st.lists(st.sampled_from(LINES[:3]), min_size=1, max_size=3, unique=True).flatmap(
    lambda lines: st.tuples(*[st.tuples(st.just(line.name), st.sampled_from("ab")) for line in lines])
)
moves = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.one_of(at_once, st.just((RATE,))).map(list), st.sampled_from([0.0, 500.0])),
        st.tuples(st.just("leave"), st.integers(0, 10)),
        st.tuples(st.just("give up"), st.integers(0, 10)),
    ),
    max_size=40,
)


@example([*[("ask", [ONE], 500.0)] * 3, ("ask", [ONE], 0.0), ("give up", 0), ("leave", 0)])
@example([("ask", [ONE], 500.0), ("ask", [TWO, ONE], 500.0), ("ask", [TWO], 500.0), ("leave", 1), ("leave", 0)])
@given(moves=moves)
def test_the_same_asks_begin_in_the_same_order_in_one_process_and_in_a_worker(moves: list[tuple[Any, ...]]) -> None:
    async def both() -> None:
        orders = []
        for counts_of in (in_one_process, in_a_worker):
            clock = FakeClock()
            orders.append(await Story(clock, counts_of(clock)).play(moves))
        assert orders[0] == orders[1]

    asyncio.run(both())


@pytest.mark.parametrize("counts_of", [in_one_process, in_a_worker])
async def test_those_who_wait_are_served_in_the_order_in_which_they_came(counts_of: Any) -> None:
    clock = FakeClock()
    story = Story(clock, counts_of(clock))
    asks = [("ask", [ONE], 500.0) for _ in range(6)]
    assert await story.play([*asks, ("give up", 2)]) == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("counts_of", [in_one_process, in_a_worker])
async def test_who_is_not_patient_is_told_what_is_in_the_way_and_when_to_come_again(counts_of: Any) -> None:
    clock = FakeClock()
    counts = counts_of(clock)
    assert await LimitWaiter(counts, [RATE]).enter() is None
    answer = await LimitWaiter(counts, [TWO, RATE]).enter()
    assert isinstance(answer, AskLater)
    assert answer.need == RATE
    assert 60.0 <= answer.seconds <= 61.0
