"""Limits over several workers, as properties: whatever dies, stalls or is replaced, no limit is ever exceeded."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrider.delivery.limits.book import COME_AGAIN, FEW_MOMENTS
from mailrider.delivery.limits.leases import UNUSED, Leases
from mailrider.delivery.limits.lines import (
    Ask,
    GiveBackRequest,
    Granted,
    Line,
    Refused,
    WaitingAsk,
    Waits,
    Withdrawn,
    ahead_of,
)
from mailrider.delivery.limits.share_book import RECENT, ShareBook
from mailrider.delivery.limits.shares import WAITS_FOR_EVER
from mailrider.delivery.limits.windows import RateWindow
from tests.support.kept import kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.delivery.limits.leases import Return
    from mailrider.delivery.limits.lines import Answer, Need

ONE_AT_ONCE = Line("one at once", 1)
THREE_AT_ONCE = Line("three at once", 3)
MANY_AT_ONCE = Line("many at once", 40)
ONE_A_SECOND = Line("one a second", 1, 1.0)
FEW_A_MINUTE = Line("few a minute", 3, 60.0)
MANY_A_SECOND = Line("many a second", 150, 1.0)
LINES = (ONE_AT_ONCE, THREE_AT_ONCE, MANY_AT_ONCE, ONE_A_SECOND, FEW_A_MINUTE, MANY_A_SECOND)
BY_NAME = {line.name: line for line in LINES}


class Message:
    """One that wants to pass, is inside, or was told to come again."""

    def __init__(self, needs: tuple[Need, ...], began: float) -> None:
        self.needs = needs
        self.began = began
        self.passed: float | None = None
        self.refused: Refused | None = None


class Worker:
    """A process with its leases, which hears the book only while it is not stalled."""

    def __init__(self, world: World, number: int, lines: Sequence[Line]) -> None:
        self.world = world
        self.number = number
        self.leases = Leases()
        self.asked: dict[int, Message] = {}
        self.inside: list[Message] = []
        self.inbox: list[Answer] = []
        self.is_stalled = False
        world.book.came(number)
        for line in lines:
            world.book.declare(number, line, world.now)

    def send(self, needs: tuple[Need, ...], patience: float = 0.0, usable: float = 0.0) -> Message:
        """A message wants to pass."""
        message = Message(needs, self.world.now)
        self.give_back(self.leases.overdue(self.world.now))
        if self.leases.take(needs, self.world.now):
            self.enter(message)
        else:
            self.give_back(self.leases.give_back_ahead(needs))
            number = next(self.world.numbers)
            self.asked[number] = message
            self.world.book.ask(self.number, Ask(number, needs, patience, usable=usable), self.world.now)
        return message

    def enter(self, message: Message) -> None:
        message.passed = self.world.now
        self.inside.append(message)
        self.world.note_pass(message)

    def leave(self, message: Message) -> None:
        """It is done."""
        self.inside.remove(message)
        self.give_back(self.leases.done([n for n in message.needs if not BY_NAME[n[0]].period], self.world.now))

    def give_up(self, number: int) -> None:
        """Nobody waits for that ask any more."""
        del self.asked[number]
        self.world.book.withdraw(self.number, number, self.world.now)

    def hear(self, answer: Answer) -> None:
        match answer:
            case Granted(_, number, shares):
                message = self.asked.pop(number, None)
                needs = self.world.needs[number]
                if message is None or not self.leases.grant(needs, shares, self.world.now):
                    if message is not None:
                        message.refused = Refused(self.number, number, 0, COME_AGAIN)
                        self.give_back(self.leases.give_back_ahead(needs))
                    else:
                        for need, (count, until) in zip(needs, shares, strict=True):
                            self.world.book.give_back(self.number, need, count, until, self.world.now)
                else:
                    self.enter(message)
            case Refused(_, number, _, seconds):
                assert seconds > 0
                message = self.asked.pop(number, None)
                if message is not None:
                    message.refused = answer
            case GiveBackRequest(_, line, key, _, _):
                self.give_back(self.leases.give_back_ahead([(line, key)]))
            case Waits() | Withdrawn():
                pass

    def give_back(self, returns: Sequence[Return]) -> None:
        for need, count, until in returns:
            self.world.book.give_back(self.number, need, count, until, self.world.now)


class World:
    """A book, workers, and the time."""

    def __init__(self, workers: int = 0, lines: Sequence[Line] = LINES) -> None:
        self.book = ShareBook()
        self.now = 1000.0
        self.numbers = itertools.count(1)
        self.serial = itertools.count(1)
        self.lines = lines
        self.workers: list[Worker] = []
        self.passes: dict[Need, list[float]] = defaultdict(list)
        self.needs: dict[int, tuple[Need, ...]] = {}
        for _ in range(workers):
            self.start()

    def start(self, lines: Sequence[Line] | None = None) -> Worker:
        self.workers.append(Worker(self, next(self.serial), lines or self.lines))
        return self.workers[-1]

    def kill(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self.book.gone(worker.number, self.now)
        self.turn()

    def note_pass(self, message: Message) -> None:
        for need in message.needs:
            line = BY_NAME[need[0]]
            if line.period:
                times = self.passes[need]
                times.append(self.now)
                assert len([each for each in times if each > self.now - line.period]) <= line.maximum, need
        inside = Counter(need for worker in self.workers for each in worker.inside for need in each.needs)
        for need, count in inside.items():
            line = BY_NAME[need[0]]
            assert line.period or count <= line.maximum, need

    def turn(self) -> None:
        """All that was said arrives."""
        while True:
            self.book.end_turn(self.now)
            answers, self.book.answers = self.book.answers, []
            for answer in answers:
                for worker in self.workers:
                    if worker.number == answer.worker:
                        worker.inbox.append(answer)
            moved = False
            for worker in list(self.workers):
                while worker.inbox and not worker.is_stalled:
                    moved = True
                    worker.hear(worker.inbox.pop(0))
            if not moved:
                return

    def send(self, worker: Worker, *needs: Need, patience: float = 0.0, usable: float = 0.0) -> Message:
        """A message, and all that follows at once."""
        message = worker.send(needs, patience, usable)
        for number, asked in worker.asked.items():
            if asked is message:
                self.needs[number] = needs
        self.turn()
        return message

    def wait(self, seconds: float) -> None:
        """Time passes; what is due is done when it is."""
        end = self.now + seconds
        while True:
            due = [end, self.book.next_due or end, *(each.leases.next_due or end for each in self.workers)]
            self.now = max(self.now, min(due))
            self.book.tick(self.now)
            for worker in self.workers:
                if not worker.is_stalled:
                    worker.give_back(worker.leases.overdue(self.now))
            self.turn()
            if self.now >= end:
                return


def need(line: Line, key: str = "a") -> Need:
    return line.name, key


needs = st.lists(st.sampled_from(LINES), min_size=1, max_size=3, unique=True).flatmap(
    lambda lines: st.tuples(*[st.tuples(st.just(line.name), st.sampled_from("ab")) for line in lines])
)
steps = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 3), needs, st.sampled_from([0.0, 0.5, 5.0]), st.sampled_from([0, 0.4])),
    st.tuples(st.just("burst"), st.integers(0, 3), needs, st.sampled_from([0.0, 5.0]), st.sampled_from([0, 0.4])),
    st.tuples(st.just("leave"), st.integers(0, 3), st.integers(0, 5)),
    st.tuples(st.just("give up"), st.integers(0, 3)),
    st.tuples(st.just("kill"), st.integers(0, 3)),
    st.tuples(st.just("stall"), st.integers(0, 3)),
    st.tuples(st.just("go on"), st.integers(0, 3)),
    st.tuples(st.just("reload"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 0.02, 0.05, 0.3, 1.0, 1.05, 2.5, 61.0])),
)


def play(world: World, step: tuple[Any, ...]) -> None:
    """One thing happens."""
    what, first, *rest = step
    if what == "wait":
        world.wait(first)
        return
    worker = world.workers[first % len(world.workers)]
    if what in {"send", "burst"}:
        for _ in range(6 if what == "burst" else 1):
            world.send(worker, *rest[0], patience=rest[1], usable=rest[2])
    elif what == "leave" and worker.inside and not worker.is_stalled:
        worker.leave(worker.inside[rest[0] % len(worker.inside)])
    elif what == "give up" and worker.asked:
        worker.give_up(next(iter(worker.asked)))
    elif what == "kill":
        world.kill(worker)
        world.start()
    elif what in {"stall", "go on"}:
        worker.is_stalled = what == "stall"
    elif what == "reload":  # a new one beside its predecessor, which ends later
        world.start()
        if len(world.workers) > 6:
            world.kill(worker)
    world.turn()


ONE: Any = ("send", 0, (("one at once", "a"),), 0.0, 0)
# What the last one is given ahead of a rate, when it has waited for another line, is forgotten again.
WAITED_FOR_ANOTHER: list[Any] = [
    *[ONE] * 5,
    ("send", 0, (("one at once", "a"), ("three at once", "a"), ("many a second", "a")), 0.5, 0),
    ("leave", 0, 0),
]


@example(WAITED_FOR_ANOTHER)
@given(st.lists(steps, max_size=60))
def test_no_limit_is_exceeded_and_nothing_is_left_whatever_happens(story: list[tuple[Any, ...]]) -> None:
    world = World(4)
    for step in story:
        play(world, step)
    for worker in world.workers:
        worker.is_stalled = False
    world.turn()
    for seconds in [1.0] * 10 + [5000.0]:
        for worker in world.workers:
            for message in list(worker.inside):
                worker.leave(message)
        world.wait(seconds)
    assert all(not worker.asked for worker in world.workers), "somebody was never answered"
    assert len(world.book) == 0
    # A number that drifts shows nowhere else, until MOST_PROMISED is reached.
    assert world.book._promises == 0
    for worker in world.workers:
        assert len(worker.leases) == 0
    asked = world.workers[0]
    message = world.send(asked, *[(line.name, key) for line in LINES for key in "ab"])
    assert message.passed is not None, "something was lost for ever"


@pytest.mark.parametrize("line", LINES)
def test_an_ask_is_granted_whole_or_not_at_all(line: Line) -> None:
    world = World(2)
    first, second = world.workers
    inside = [world.send(first, need(line)) for _ in range(line.maximum)]
    assert all(message.passed for message in inside)
    refused = world.send(second, need(MANY_AT_ONCE, "other"), need(line))
    world.wait(0.1)
    assert refused.refused is not None
    others = [world.send(second, need(MANY_AT_ONCE, "other")) for _ in range(MANY_AT_ONCE.maximum)]
    assert all(message.passed for message in others), "what was refused held something"


@pytest.mark.parametrize(("line", "turn"), [(ONE_AT_ONCE, 4.0), (ONE_A_SECOND, 4 * (1 + ahead_of(1.0)))])
def test_four_workers_take_turns_where_one_may_pass(line: Line, turn: float) -> None:
    world = World(4)
    waited = _crowd(world, line, patience=100.0)
    assert len(waited) > 60
    assert max(waited) <= 2 * turn


@pytest.mark.parametrize(("line", "turn"), [(ONE_AT_ONCE, 4.0), (ONE_A_SECOND, 4 * (1 + ahead_of(1.0)))])
def test_four_queues_that_come_again_take_turns_as_well(line: Line, turn: float) -> None:
    world = World(4)
    waited = _crowd(world, line, patience=0.0)
    assert len(waited) > 60
    assert max(waited) <= 2 * turn


def _crowd(world: World, line: Line, patience: float) -> list[float]:
    """For 100 s each worker has always a message that wants to pass, and is inside for 1 s. How long they waited."""
    waited: list[float] = []
    current: dict[
        int, tuple[float, Message | None, float]
    ] = {}  # since when, the message, when something happens to it
    end = world.now + 100
    while world.now < end:
        for worker in world.workers:
            since, message, until = current.get(worker.number, (world.now, None, 0.0))
            if message is not None and message.passed is not None:
                if not until:
                    waited.append(message.passed - since)
                    current[worker.number] = (since, message, world.now + 1.0)
                    continue
                if world.now < until:
                    continue
                worker.leave(message)
                world.turn()
                since = world.now
            elif message is not None and message.refused is not None:
                if not until:
                    current[worker.number] = (since, message, world.now + message.refused.seconds)
                    continue
                if world.now < until:
                    continue
            elif message is not None:
                continue
            current[worker.number] = (since, world.send(worker, need(line), patience=patience), 0.0)
        world.wait(0.01)
    return waited


def test_a_concurrency_that_many_hold_for_a_moment_is_not_left_idle() -> None:
    world = World(4)
    waited = _crowd(world, ONE_AT_ONCE, patience=0.0)
    assert len(waited) >= 75  # of 100 that there is time for: who was told to come again comes at most 0.2 s late


def test_a_dead_worker_frees_a_concurrency_and_not_a_rate() -> None:
    world = World(2)
    first, second = world.workers
    world.send(first, need(ONE_AT_ONCE))
    world.send(first, need(ONE_A_SECOND))
    world.kill(first)
    assert world.send(second, need(ONE_AT_ONCE)).passed is not None
    assert world.send(second, need(ONE_A_SECOND)).passed is None


def test_who_waits_goes_on_when_the_one_inside_dies() -> None:
    world = World(2)
    first, second = world.workers
    world.send(first, need(ONE_AT_ONCE))
    waits = world.send(second, need(ONE_AT_ONCE), patience=5.0)
    assert waits.passed is None
    world.kill(first)
    assert waits.passed == world.now


def test_a_rate_counts_until_a_period_after_the_moment_until_which_it_may_be_used() -> None:
    world = World(2)
    first, second = world.workers
    assert world.send(first, need(ONE_A_SECOND)).passed is not None
    world.wait(1.0)
    early = world.send(second, need(ONE_A_SECOND))
    assert early.refused is not None
    assert early.refused.seconds == pytest.approx(0.05)
    world.wait(0.06)
    assert world.send(second, need(ONE_A_SECOND)).passed is not None


def test_something_is_given_ahead_to_who_asks_twice_within_two_seconds() -> None:
    book = ShareBook()
    book.came(1)
    book.came(2)
    book.declare(1, MANY_AT_ONCE, 0.0)

    def granted(number: int, now: float) -> int:
        book.ask(1, Ask(number, (need(MANY_AT_ONCE),)), now)
        (answer,) = book.answers
        book.answers = []
        assert isinstance(answer, Granted)
        return answer.shares[0][0]

    assert [granted(number, number * RECENT / 2) for number in range(5)] == [1, 2, 3, 5, 9]
    assert granted(5, 10.0) == 1, "that was long ago"
    assert granted(6, 10.5) == 2


@pytest.mark.parametrize(("maximum", "is_given"), [(7, False), (8, True), (40, True), (1000, True)])
def test_at_most_half_of_what_is_free_is_given_ahead_and_nothing_of_little(maximum: int, is_given: bool) -> None:
    book, free, ahead = ShareBook(), maximum, []
    for worker in (1, 2):
        book.came(worker)
        book.declare(worker, Line("line", maximum), 0.0)
    while free:
        book.ask(1, Ask(1, (("line", "a"),)), 0.0)
        answer = book.answers.pop()
        assert isinstance(answer, Granted)
        count = answer.shares[0][0]
        ahead.append(count - 1)
        assert count - 1 <= free / 2
        free -= count
    assert any(ahead) is is_given


def test_what_is_not_used_goes_back_after_two_seconds() -> None:
    world = World(2)
    first, second = world.workers
    messages = [world.send(first, need(MANY_AT_ONCE)) for _ in range(4)]
    for message in messages:
        first.leave(message)
    assert len(first.leases) == 1
    world.wait(UNUSED + 0.01)
    assert len(first.leases) == 0
    assert all(world.send(second, need(MANY_AT_ONCE)).passed for _ in range(MANY_AT_ONCE.maximum))


def test_what_is_not_used_goes_back_at_once_when_another_worker_wants_it() -> None:
    world = World(2)
    first, second = world.workers
    for _ in range(4):
        first.leave(world.send(first, need(MANY_AT_ONCE)))
    messages = [world.send(second, need(MANY_AT_ONCE)) for _ in range(MANY_AT_ONCE.maximum)]
    assert all(message.passed == world.now for message in messages)


def test_what_is_not_used_of_a_rate_goes_back_when_another_worker_wants_it() -> None:
    world = World(2)
    first, second = world.workers
    for _ in range(4):
        world.send(first, need(MANY_A_SECOND))
    assert len(first.leases) == 1
    messages = [world.send(second, need(MANY_A_SECOND)) for _ in range(MANY_A_SECOND.maximum - 4)]
    assert all(message.passed == world.now for message in messages)


def test_a_rate_promises_each_who_comes_again_a_moment_of_its_own() -> None:
    world = World(4)
    assert world.send(world.workers[0], need(ONE_A_SECOND)).passed is not None
    told = [world.send(worker, need(ONE_A_SECOND)).refused for worker in world.workers]
    seconds = [refused.seconds for refused in told if refused is not None]
    assert seconds == pytest.approx([1.05, 2.1, 3.15, 4.2])
    world.wait(1.06)
    assert world.send(world.workers[3], need(ONE_A_SECOND)).passed is None, "it is another one's moment"
    assert world.send(world.workers[0], need(ONE_A_SECOND)).passed is not None


def test_who_waits_in_vain_for_a_rate_takes_nobodys_moment() -> None:
    world = World(2)
    first, second = world.workers
    assert world.send(first, need(ONE_A_SECOND)).passed is not None
    waiting = [world.send(first, need(ONE_A_SECOND), patience=2.0) for _ in range(10)]
    world.wait(2.01)
    assert sum(message.passed is not None for message in waiting) == 1
    told = world.send(second, need(ONE_A_SECOND)).refused
    assert told is not None
    assert told.seconds < 12.0, "a second for each that was told to come again"


def test_a_moment_that_nobody_takes_is_given_to_others() -> None:
    world = World(2)
    first, second = world.workers
    world.send(first, need(ONE_A_SECOND))
    world.send(first, need(ONE_A_SECOND))
    waits = world.send(second, need(ONE_A_SECOND), patience=5.0)
    world.kill(first)
    world.wait(1.06)
    assert waits.passed is not None


def test_who_asked_and_heard_nothing_gives_back_what_comes_late() -> None:
    world = World(2)
    first, second = world.workers
    first.is_stalled = True
    world.send(first, need(ONE_AT_ONCE))
    first.give_up(next(iter(first.asked)))
    assert world.send(second, need(ONE_AT_ONCE)).passed is None, "nobody knows yet whether it is used"
    first.is_stalled = False
    world.turn()
    world.wait(COME_AGAIN)
    assert world.send(second, need(ONE_AT_ONCE)).passed is not None


def test_a_share_of_a_rate_that_comes_too_late_is_not_used() -> None:
    world = World(1)
    (worker,) = world.workers
    worker.is_stalled = True
    message = world.send(worker, need(ONE_A_SECOND))
    world.wait(ahead_of(1.0))
    worker.is_stalled = False
    world.turn()
    assert message.passed is None
    assert world.send(worker, need(ONE_A_SECOND)).passed is not None, "and goes back"


def test_books_are_kept_over_a_reload() -> None:
    world = World(2)
    inside = world.send(world.workers[0], need(ONE_AT_ONCE))
    world.send(world.workers[0], need(FEW_A_MINUTE))
    for old in list(world.workers):
        world.start()
        if old.inside:
            continue
        world.kill(old)
    newest = world.workers[-1]
    assert world.send(newest, need(ONE_AT_ONCE)).passed is None
    world.workers[0].leave(inside)
    world.kill(world.workers[0])
    world.wait(COME_AGAIN)
    assert world.send(newest, need(ONE_AT_ONCE)).passed is not None
    assert [world.send(newest, need(FEW_A_MINUTE)).passed is not None for _ in range(3)] == [True, True, False]


def test_a_rate_is_counted_on_when_all_workers_are_replaced_at_once() -> None:
    world = World(2)
    world.send(world.workers[0], need(FEW_A_MINUTE))
    for old in list(world.workers):
        world.kill(old)
    world.start()
    messages = [world.send(world.workers[0], need(FEW_A_MINUTE)) for _ in range(3)]
    assert [message.passed is not None for message in messages] == [True, True, False]


def test_a_lower_number_holds_for_new_grants() -> None:
    world = World(1)
    (old,) = world.workers
    inside = [world.send(old, need(THREE_AT_ONCE)) for _ in range(2)]
    new = world.start([Line(THREE_AT_ONCE.name, 2)])
    assert world.send(new, need(THREE_AT_ONCE)).passed is None
    old.leave(inside[0])
    world.wait(COME_AGAIN)
    assert world.send(new, need(THREE_AT_ONCE)).passed is not None


def test_as_many_as_are_free_are_granted_where_several_are_asked_for() -> None:
    book = ShareBook()
    for worker in (1, 2):
        book.came(worker)
        book.declare(worker, Line("places", 16, spares=False), 0.0)
    book.ask(1, Ask(1, (("places", ""),), 60.0, most=12), 0.0)
    book.ask(2, Ask(2, (("places", ""),), 60.0, most=8), 0.0)
    assert book.answers == [Granted(1, 1, ((12, 0.0),)), Granted(2, 2, ((4, 0.0),))]


def test_who_has_more_than_its_part_is_asked_for_it_when_another_waits() -> None:
    book = ShareBook()
    for worker in (1, 2):
        book.came(worker)
        book.declare(worker, Line("places", 16, spares=False), 0.0)
    book.ask(1, Ask(1, (("places", ""),), 60.0, most=16), 0.0)
    book.end_turn(0.0)
    book.answers = []
    book.ask(2, Ask(2, (("places", ""),), 60.0, most=8), 0.0)
    book.end_turn(0.0)
    assert book.answers == [Waits(2, 2, 0), GiveBackRequest(1, "places", "", 8, 8)]
    book.answers = []
    for moment in (0.25, 0.5, 0.75):
        book.tick(moment)
        book.end_turn(moment)
    assert book.answers == [GiveBackRequest(1, "places", "", 8, 8)] * 3
    book.answers = []
    book.give_back(1, ("places", ""), 3, 0.0, 1.0)
    assert book.answers == [Granted(2, 2, ((3, 0.0),))]


def test_where_there_is_not_one_for_each_nobody_keeps_it_for_longer_than_a_second() -> None:
    book = ShareBook()
    for worker in (1, 2):
        book.came(worker)
        book.declare(worker, Line("places", 1, spares=False), 0.0)
        book.ask(worker, Ask(1, (("places", ""),), 60.0), 0.0)
    book.end_turn(0.0)
    assert GiveBackRequest(1, "places", "", 1, 1) in book.answers
    book.answers = []
    book.tick(1.0)
    book.end_turn(1.0)
    assert book.answers == [GiveBackRequest(1, "places", "", 0, 1)]


def test_asks_that_waited_without_a_limit_of_time_and_were_granted_are_forgotten() -> None:
    book = ShareBook()
    book.came(1)
    book.declare(1, Line("connections", 1, spares=False), 0.0)
    place = ("connections", "")
    book.ask(1, Ask(0, (place,), WAITS_FOR_EVER), 0.0)
    for number in range(1, 3 * FEW_MOMENTS):
        book.ask(1, Ask(number, (place,), WAITS_FOR_EVER), float(number))
        book.give_back(1, place, 1, 0.0, float(number))
        assert book.answers.pop() == Granted(1, number, ((1, 0.0),))
        book.answers.clear()
    assert kept(book, WaitingAsk) <= FEW_MOMENTS


def test_who_waits_still_has_its_limit_of_time_when_others_are_forgotten() -> None:
    book = ShareBook()
    book.came(1)
    book.declare(1, Line("connections", 1, spares=False), 0.0)
    book.ask(1, Ask(0, (("connections", "taken"),), 60.0), 0.0)
    book.ask(1, Ask(1, (("connections", "taken"),), 60.0), 0.0)
    for number in range(2, 3 * FEW_MOMENTS):
        book.ask(1, Ask(number, (("connections", "taken"),), WAITS_FOR_EVER), 0.0)
        book.withdraw(1, number, 0.0)
    book.answers.clear()
    book.tick(60.0)
    assert [type(answer) for answer in book.answers] == [Refused]


def test_the_log_of_a_rate_that_no_worker_counts_by_is_forgotten_when_it_is_over() -> None:
    book = ShareBook()
    book.came(1)
    book.declare(1, FEW_A_MINUTE, 0.0)
    book.ask(1, Ask(1, (need(FEW_A_MINUTE),)), 5.0)
    book.gone(1, 5.0)
    book.tick(60.0)
    assert kept(book, RateWindow) == 1, "it counts still"
    book.tick(66.0)
    assert kept(book, RateWindow) == 0


def test_the_log_of_a_rate_stays_if_a_worker_counts_by_it_again() -> None:
    book = ShareBook()
    book.came(1)
    book.declare(1, FEW_A_MINUTE, 0.0)
    book.ask(1, Ask(1, (need(FEW_A_MINUTE),)), 0.0)
    book.gone(1, 0.0)
    book.came(2)
    book.declare(2, FEW_A_MINUTE, 30.0)
    book.ask(2, Ask(1, (need(FEW_A_MINUTE),), most=3), 50.0)
    book.answers.clear()
    book.tick(61.0)
    book.ask(2, Ask(2, (need(FEW_A_MINUTE),), most=3), 62.0)
    (answer,) = book.answers
    assert isinstance(answer, Granted)
    assert answer.shares[0][0] == 1, "two of three passed twelve seconds ago"
