"""The bounded memory of policies: what is in force gives way to no newcomer, and an owner's domains share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.model.domain import Domain, owner_of
from mailrider.policy.holding_map import MAX_HELD, NOT_HELD, SHARES, HoldingMap

OWNERS = [
    ("example.org", "example.org"),
    ("a.example.org", "example.org"),
    ("a.b.example.org", "example.org"),
    ("example.de", "example.de"),
    ("a.example.de", "example.de"),
    ("example.co.uk", "example.co.uk"),
    ("a.example.co.uk", "example.co.uk"),
    ("a.example.com.au", "example.com.au"),
    ("org", "org"),
]


@pytest.mark.parametrize(("name", "owner"), OWNERS)
def test_whose_domain_it_is(name: str, owner: str) -> None:
    assert owner_of(Domain(name)) == owner


class Time:
    """A clock to set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def filled(capacity: int = SHARES * 10) -> tuple[HoldingMap[str], Time]:
    time = Time()
    return HoldingMap(capacity, time), time


def domain(number: int, owner: str = "test") -> Domain:
    return Domain(f"d{number}.{owner}")


def test_a_value_that_is_held_gives_way_to_no_newcomer() -> None:
    kept, _ = filled()
    for number in range(SHARES):
        kept.put(domain(number), "held", 10, until=100)
    kept.put(domain(1000), "newcomer", 10, until=100)
    kept.put(domain(1001), "newcomer", 1)
    assert kept.keys() == [domain(number) for number in range(SHARES)]
    assert kept.weight == SHARES * 10


def test_an_owner_beyond_its_share_keeps_what_it_has_and_its_next_ones_use_what_is_left_over() -> None:
    kept, _ = filled()
    for number in range(3):
        kept.put(domain(number, "evil.test"), "evil", 5, until=100)  # the third one is not held
    assert len(kept) == 3
    for number in range(SHARES - 1):
        kept.put(domain(number), "held", 10, until=100)
    assert kept.get(domain(0, "evil.test")) == kept.get(domain(1, "evil.test")) == "evil"
    assert kept.get(domain(2, "evil.test")) is None
    assert len(kept) == SHARES + 1


def test_a_value_that_is_too_heavy_is_kept_only_while_there_is_room() -> None:
    kept: HoldingMap[str] = HoldingMap(SHARES * 2 * MAX_HELD, lambda: 0)
    kept.put(domain(0), "as heavy as may be", MAX_HELD, until=100)
    kept.put(domain(1), "too heavy", MAX_HELD + 1, until=100)
    assert len(kept) == 2
    for number in range(2 * SHARES):
        kept.put(domain(number, f"o{number}.test"), "held", MAX_HELD, until=100)
    assert kept.get(domain(0)) is not None
    assert kept.get(domain(1)) is None


def test_what_is_not_held_any_more_goes_first() -> None:
    kept, time = filled()
    kept.put(domain(0), "ends", 10, until=50)
    for number in range(1, SHARES):
        kept.put(domain(number), "held", 10, until=100)
    time.now = 50
    kept.put(domain(1000), "newcomer", 10, until=200)
    assert kept.get(domain(0)) is None
    assert kept.get(domain(1000)) == "newcomer"
    assert len(kept) == SHARES


def test_of_what_is_not_held_the_least_recently_used_goes_first() -> None:
    kept, _ = filled(3)
    for number in range(3):
        kept.put(domain(number), str(number), 1)
    kept.get(domain(0))
    kept.put(domain(3), "3", 1)
    assert set(kept.values()) == {"2", "0", "3"}


def test_a_value_that_is_put_again_takes_the_place_of_its_older_one() -> None:
    kept, _ = filled()
    for _ in range(200):
        kept.put(domain(0), "again", 10, until=100)
    assert (len(kept), kept.weight) == (1, 10)
    assert kept.pop(domain(0)) == "again"
    assert (len(kept), kept.weight) == (0, 0)
    kept.put(domain(1), "held", 10, until=100)
    assert kept.get(domain(1)) == "held"


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "pop", "wait"]),
        st.integers(0, 20),
        st.sampled_from(["a.test", "b.test", "c.test"]),
        st.integers(0, 40),
        st.sampled_from([NOT_HELD, 5.0, 50.0]),
    ),
    max_size=80,
)


@given(st.integers(0, SHARES * 6), steps)
def test_it_is_a_mapping_that_never_weighs_too_much_and_never_drops_what_is_held(
    capacity: int, steps: list[tuple[str, int, str, int, float]]
) -> None:
    time = Time()
    kept: HoldingMap[int] = HoldingMap(capacity, time)
    last: dict[Domain, int] = {}
    held: dict[Domain, float] = {}
    for step, number, owner, weight, lasts in steps:
        key = domain(number, owner)
        if step == "wait":
            time.now += number
        elif step == "pop":
            kept.pop(key)
            held.pop(key, None)
            assert kept.get(key) is None
        elif step == "get":
            assert kept.get(key) in (None, last.get(key))
        else:
            mine = {each for each, until in held.items() if until > time.now and each != key}
            share = sum(last[each] for each in mine if owner_of(each) == owner)
            fits = share + weight <= capacity // SHARES and sum(last[each] for each in mine) + weight <= capacity
            kept.put(key, weight, weight, time.now + lasts)
            last[key] = weight
            held.pop(key, None)
            if lasts != NOT_HELD and fits:
                held[key] = time.now + lasts
        for each, until in held.items():
            assert until <= time.now or kept.get(each) == last[each]
        assert kept.weight == sum(kept.values()) <= capacity
        assert len(kept) == len(kept.keys()) == len(set(kept.keys()))
