"""What a person reads of a recipient that waits: why, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mailrider.cli.queue_show import WAITS, entry_lines, entry_text
from mailrider.model.reply import Reply
from mailrider.queue.message import Entry, Progress, RecipientState

NOW = datetime(2026, 11, 30, 3, tzinfo=UTC)
HELD_BACK = Reply.make(451, "4.4.5", "Too many messages at the moment")


def entry(due: timedelta, progress: Progress) -> Entry:
    state = RecipientState.QUEUED
    created = NOW - timedelta(hours=1)
    return Entry(7, 8, created, "a@example.org", "b@example.net", "example.net", state, NOW + due, 100, progress)


def read(waits: Entry) -> str:
    return "\n".join([*map(str, entry_lines(waits, NOW)), *entry_text(waits, NOW)])


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (90, "0 tries, next in 1m30s"),
        (0, "0 tries, next due"),
        (-59, "0 tries, next due"),
        (-600, f"0 tries, due for 10m: {WAITS}"),
    ],
)
def test_what_should_have_been_tried_long_ago_says_what_may_be_the_reason(seconds: int, told: str) -> None:
    shown = read(entry(timedelta(seconds=seconds), Progress()))
    assert shown.count(told) == 2
    assert shown.count(WAITS) == (2 if WAITS in told else 0)


def test_what_was_held_back_without_a_try_says_why_in_the_list_and_in_a_trace() -> None:
    assert read(entry(timedelta(minutes=1), Progress(last=HELD_BACK))).count(str(HELD_BACK)) == 2


def test_a_late_message_says_what_was_done_about_it() -> None:
    shown = "\n".join(entry_text(entry(timedelta(0), Progress(1, warned=True, last=HELD_BACK)), NOW))
    assert "it is late; its sender has been told" in shown
    assert str(HELD_BACK) not in shown  # it stands with the attempt
