"""Attempts that last make room for the others, and a server with many names is one place."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from mailrider.queue import places as places_module
from mailrider.queue.places import COME_AGAIN, LATEST, SLOW_AFTER, TOGETHER, AttemptPlaces, RunningAttempt, site_of
from tests.support.kept import kept
from tests.support.queueing import Writing

if TYPE_CHECKING:
    import pytest

TARPIT, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")
LONG = SLOW_AFTER + 300


class World:
    """Places, and attempts that each have a destination of their own."""

    def __init__(self, fast: int = 16) -> None:
        self.places = AttemptPlaces(fast)
        self.writing = Writing()
        self.names = 0

    def begin(self, now: float = 0.0, *, is_newcomer: bool = True) -> RunningAttempt:
        self.names += 1
        return self.places.begin(self.writing.job(f"b@d{self.names}.test"), now, is_newcomer=is_newcomer)

    def arrive(
        self, address: object = TARPIT, now: float = 0.0, slots: int | None = None
    ) -> tuple[RunningAttempt, float | None]:
        attempt = self.begin(now)
        return attempt, self.places.arrive(attempt, address, now, slots)  # type: ignore[arg-type]

    def visit(self, now: float, seconds: float, address: object = TARPIT) -> None:
        """An attempt that begins and ends; who is turned away ends as well."""
        attempt, _ = self.arrive(address, now)
        self.places.move_lasting(now + seconds)
        self.places.end(attempt, now + seconds)

    def make_slow(self) -> RunningAttempt:
        """An attempt that hangs at the tarpit."""
        attempt, _ = self.arrive()
        self.places.move_lasting(SLOW_AFTER)
        return attempt


def test_an_attempt_that_lasts_leaves_its_fast_place() -> None:
    world = World()
    attempt = world.begin()
    assert world.places.move_lasting(SLOW_AFTER - 0.01) == []
    assert (world.places.running, world.places.running_slow) == (1, 0)
    assert world.places.move_lasting(SLOW_AFTER) == [attempt]
    assert (world.places.running, world.places.running_slow) == (0, 1)
    world.places.end(attempt, LONG)
    assert (world.places.running, world.places.running_slow) == (0, 0)


def test_an_attempt_that_lasts_while_all_slow_places_are_taken_moves_when_one_is_free() -> None:
    world = World(1)
    slow = []
    for _ in range(world.places.slow):
        slow.append(world.begin(is_newcomer=False))
        assert world.places.move_lasting(SLOW_AFTER)
    last = world.begin(SLOW_AFTER, is_newcomer=False)
    assert world.places.move_lasting(2 * SLOW_AFTER) == []
    assert not world.places.has_fast
    assert world.places.end(slow[0], LONG) == [last]
    assert world.places.has_fast


def test_of_an_unknown_address_two_attempts_have_fast_places_and_a_share_has_slow_ones() -> None:
    world = World()
    arrived = [world.arrive() for _ in range(100)]
    attempts = [attempt for attempt, again in arrived if again is None]
    assert sum(not attempt.is_slow for attempt in attempts) == 2
    assert sum(attempt.is_slow for attempt in attempts) == world.places.slow // 4
    assert {again for _, again in arrived if again is not None} == {SLOW_AFTER}


def test_an_address_where_attempts_end_soon_has_three_quarters_of_the_fast_places() -> None:
    world = World()
    world.visit(0, 0.1)
    attempts = [world.arrive(now=1)[0] for _ in range(16)]
    assert sum(not attempt.is_slow for attempt in attempts) == 12


def test_at_a_slow_address_attempts_have_slow_places_from_their_arrival() -> None:
    world = World()
    world.make_slow()
    attempt, again = world.arrive(now=2)
    assert again is None
    assert attempt.is_slow


def test_a_slow_address_has_a_quarter_of_the_slow_places_and_who_comes_then_is_told_when_to_come_again() -> None:
    world = World()
    world.make_slow()
    answers = [world.arrive(now=2)[1] for _ in range(100)]
    share = world.places.slow // 4
    assert answers.count(None) == share - 1
    moments = [each for each in answers if each is not None]
    assert moments[0] == COME_AGAIN
    assert moments == sorted(moments)
    assert max(map(moments.count, moments)) == TOGETHER
    assert world.arrive(OTHER, now=2)[1] is None


def test_nobody_is_told_to_come_again_later_than_a_quarter_of_an_hour() -> None:
    world = World()
    world.make_slow()
    for _ in range(31):
        world.arrive(now=2)
    attempt = world.begin(2)
    assert max(world.places.arrive(attempt, TARPIT, 2) or 0 for _ in range(20_000)) == LATEST


def test_a_limit_on_all_messages_leaves_three_quarters_of_its_slots_to_others() -> None:
    world = World()
    world.make_slow()
    assert [world.arrive(now=2, slots=8)[1] for _ in range(3)] == [None, COME_AGAIN, COME_AGAIN]


def test_who_wascrowded_is_told_so_without_another_attempt_as_long_as_nothing_changes() -> None:
    world = World()
    attempts = [world.make_slow(), *(world.arrive(now=2)[0] for _ in range(31))]
    turned_away, again = world.arrive(now=2)
    assert again is not None
    assert world.places.turned_away(turned_away, 3) is not None
    assert world.places.turned_away(world.begin(3), 3) is None  # another destination may be elsewhere
    world.places.end(attempts[0], 4)
    assert world.places.turned_away(turned_away, 4) is None


def test_attempts_that_end_soon_speak_for_a_slow_address_again() -> None:
    world = World()
    world.places.end(world.make_slow(), LONG)
    assert world.arrive(now=LONG)[0].is_slow
    for _ in range(6):
        world.visit(LONG, 0.1)
    assert not world.arrive(now=LONG + 1)[0].is_slow


def test_a_few_large_messages_do_not_make_an_address_slow() -> None:
    world = World()
    for minute in range(20):
        for _ in range(6):
            world.visit(minute * 60, 0.1)
        world.visit(minute * 60, 30)
    assert not world.arrive(now=1300)[0].is_slow


def test_many_attempts_that_last_make_an_address_slow_whatever_it_has_earned() -> None:
    world = World(100)
    for _ in range(200):
        world.visit(0, 0.1)
    for second in range(10):
        for _ in range(10):
            world.arrive(now=1.0 + second)
        world.places.move_lasting(1.0 + second + SLOW_AFTER)
    assert world.arrive(now=20)[1] is not None


def test_the_time_that_was_lost_before_the_arrival_is_not_the_addresss_fault() -> None:
    world = World()
    attempt = world.begin()
    world.places.arrive(attempt, OTHER, SLOW_AFTER * 0.9)
    world.places.move_lasting(SLOW_AFTER)
    world.places.leave(attempt, OTHER, SLOW_AFTER * 1.1)
    assert not world.arrive(OTHER, now=2)[0].is_slow


def test_an_attempt_that_arrived_late_and_then_lasts_counts_against_the_address_when_it_leaves() -> None:
    world = World()
    attempt = world.begin()
    world.places.arrive(attempt, OTHER, SLOW_AFTER * 0.9)
    world.places.move_lasting(SLOW_AFTER)
    world.places.leave(attempt, OTHER, LONG)
    assert world.arrive(OTHER, now=LONG)[0].is_slow


def test_a_64_of_ipv6_is_one_place_and_an_ipv4_address_is_one() -> None:
    assert site_of(ip_address("2001:db8::1")) == site_of(ip_address("2001:db8::ffff:0:0:1"))
    assert site_of(ip_address("2001:db8::1")) != site_of(ip_address("2001:db8:0:1::1"))
    assert site_of(TARPIT) != site_of(OTHER)


def test_newcomers_leave_one_fast_place_free_or_half_while_others_wait_and_have_an_eighth_when_no_slow_place_is() -> (
    None
):
    world = World()
    begun = 0
    while world.places.takes_newcomers(others_wait=True):
        world.begin()
        begun += 1
    assert begun == 8
    while world.places.takes_newcomers(others_wait=False):
        world.begin()
        begun += 1
    assert begun == 15
    empty = World()
    while empty.places.has_slow:
        empty.begin(is_newcomer=False)
        empty.places.move_lasting(SLOW_AFTER)
    empty.begin(SLOW_AFTER)
    assert empty.places.takes_newcomers(others_wait=False)
    empty.begin(SLOW_AFTER)
    assert not empty.places.takes_newcomers(others_wait=False)


def test_the_number_of_addresses_and_names_that_are_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "MAX_ADDRESSES", 10)
    world = World()
    attempt, _ = world.arrive(ip_address("198.51.100.1"))
    for number in range(20):
        world.visit(0, 0.1, ip_address(f"203.0.113.{number}"))
    full = kept(world.places)
    for number in range(20, 50):
        world.visit(0, 0.1, ip_address(f"203.0.113.{number}"))
    assert kept(world.places) <= full
    world.places.leave(attempt, ip_address("198.51.100.1"), 0.1)  # one where an attempt is is never forgotten
    world.make_slow()
    for _ in range(100):
        world.arrive(now=2)
    assert len(world.places.crowded) == 10


def test_an_address_that_was_never_arrived_at_is_left_without_a_word() -> None:
    world = World()
    world.places.leave(world.begin(), OTHER, 1)
