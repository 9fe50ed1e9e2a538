"""A mapping with a bound."""

from __future__ import annotations

from mailrider.model.bounded_map import BoundedMap


def test_what_was_set_longest_ago_goes_first() -> None:
    known: BoundedMap[str, int] = BoundedMap(2)
    known["a"], known["b"], known["c"] = 1, 2, 3
    assert dict(known) == {"b": 2, "c": 3}


def test_what_is_set_anew_goes_last() -> None:
    known: BoundedMap[str, int] = BoundedMap(2)
    known["a"], known["b"], known["a"], known["c"] = 1, 2, 3, 4
    assert dict(known) == {"a": 3, "c": 4}


def test_to_look_it_up_keeps_nothing() -> None:
    known: BoundedMap[str, int] = BoundedMap(2)
    known["a"], known["b"] = 1, 2
    assert known.get("a") == 1
    known["c"] = 3
    assert dict(known) == {"b": 2, "c": 3}
