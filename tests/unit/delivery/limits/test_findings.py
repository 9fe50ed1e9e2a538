"""What the processes of a daemon have told each other."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mailrider.delivery.limits.findings import STEP, WHOLE_TOPIC, FindingBook, SharedFinding

ENDS = st.none() | st.integers(1, 20)
TOLD = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(), ENDS))


def finding(key: str, until: float | None = 10.0, body: Any = None, topic: str = "t") -> SharedFinding:
    return SharedFinding(topic, key, body, until)


@given(TOLD, st.integers(0, 20))
def test_the_last_word_about_a_key_holds_until_its_end(
    told: list[tuple[str, str, int, float | None]], now: int
) -> None:
    book, last = FindingBook(), dict[tuple[str, str], SharedFinding]()
    for each in itertools.starmap(SharedFinding, told):
        book.note(each)
        last[each.topic, each.key] = each
    holding = [each for each in last.values() if each.until is not None and each.until > now]
    assert sorted(itertools.chain.from_iterable(book.frames(now))) == sorted(holding)
    assert sorted(book.of("a", now)) == sorted(each for each in holding if each.topic == "a")


def test_no_more_are_kept_than_so_many_the_latest() -> None:
    book = FindingBook(most=2)
    for key in ("a", "b", "a", "c"):
        book.note(finding(key))
    assert [each.key for each in book.of("t", 0)] == ["a", "c"]


def test_no_more_text_is_kept_than_so_much() -> None:
    book = FindingBook(most_text=1000)
    for key in ("a", "b", "c"):
        book.note(finding(key, body="x" * 400))
    assert [each.key for each in book.of("t", 0)] == ["b", "c"]
    book.note(finding("huge", body="x" * 1001))
    assert book.of("t", 0) == []


def test_a_frame_is_not_much_longer_than_its_bound() -> None:
    book = FindingBook()
    for number in range(5):
        book.note(finding(str(number), body="x" * (STEP // 2)))
    assert [len(frame) for frame in book.frames(0)] == [2, 2, 1]


def test_the_end_of_a_topic_ends_what_holds_of_it_and_nothing_else() -> None:
    book = FindingBook(most_text=1000)
    book.note(finding("a", body="x" * 250))
    other = finding("a", body="x" * 250)._replace(topic="other")
    book.note(other)
    book.note(SharedFinding("t", WHOLE_TOPIC, None, None))
    assert book.of("t", 0) == []
    assert book.of("other", 0) == [other]
    book.note(finding("b", body="x" * 550))
    assert book.of("other", 0) == [other], "there is room again"
