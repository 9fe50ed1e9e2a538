"""What the processes of a daemon have told each other."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mailrider.delivery.limits.findings import STEP, WHOLE_TOPIC, FindingList, SharedFinding

ENDS = st.none() | st.integers(1, 20)
TOLD = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(), ENDS))


def finding(key: str, until: float | None = 10.0, body: Any = None, topic: str = "t") -> SharedFinding:
    return SharedFinding(topic, key, body, until)


@given(TOLD, st.integers(0, 20))
def test_the_last_word_about_a_key_holds_until_its_end(
    told: list[tuple[str, str, int, float | None]], now: int
) -> None:
    findings, last = FindingList(), dict[tuple[str, str], SharedFinding]()
    for each in itertools.starmap(SharedFinding, told):
        findings.note(each)
        last[each.topic, each.key] = each
    holding = [each for each in last.values() if each.until is not None and each.until > now]
    assert sorted(itertools.chain.from_iterable(findings.frames(now))) == sorted(holding)
    assert sorted(findings.of("a", now)) == sorted(each for each in holding if each.topic == "a")


def test_no_more_are_kept_than_so_many_the_latest() -> None:
    findings = FindingList(most=2)
    for key in ("a", "b", "a", "c"):
        findings.note(finding(key))
    assert [each.key for each in findings.of("t", 0)] == ["a", "c"]


def test_no_more_text_is_kept_than_so_much() -> None:
    findings = FindingList(most_text=1000)
    for key in ("a", "b", "c"):
        findings.note(finding(key, body="x" * 400))
    assert [each.key for each in findings.of("t", 0)] == ["b", "c"]
    findings.note(finding("huge", body="x" * 1001))
    assert findings.of("t", 0) == []


def test_a_frame_is_not_much_longer_than_its_bound() -> None:
    findings = FindingList()
    for number in range(5):
        findings.note(finding(str(number), body="x" * (STEP // 2)))
    assert [len(frame) for frame in findings.frames(0)] == [2, 2, 1]


def test_the_end_of_a_topic_ends_what_holds_of_it_and_nothing_else() -> None:
    findings = FindingList(most_text=1000)
    findings.note(finding("a", body="x" * 250))
    other = finding("a", body="x" * 250)._replace(topic="other")
    findings.note(other)
    findings.note(SharedFinding("t", WHOLE_TOPIC, None, None))
    assert findings.of("t", 0) == []
    assert findings.of("other", 0) == [other]
    findings.note(finding("b", body="x" * 550))
    assert findings.of("other", 0) == [other], "there is room again"
