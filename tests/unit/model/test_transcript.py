"""Transcripts: each recipient sees the dialogue without the lines of others, and not more than is kept."""

from __future__ import annotations

import pytest

from mailrider.model.transcript import MAX_TRANSCRIPT, OwnLines, Transcript

LINES = {f"{name}@example.net": f"RCPT {name}" for name in "abc"}


@pytest.mark.parametrize(
    ("mailbox", "shown"),
    [
        ("a@example.net", "RCPT a\n(and 2 other recipients)"),
        ("x@example.net", "(and 3 other recipients)"),
    ],
)
def test_a_recipient_sees_its_own_lines_and_how_many_others_there_are(mailbox: str, shown: str) -> None:
    assert Transcript(("MAIL", OwnLines(LINES), "DATA")).of(mailbox) == f"MAIL\n{shown}\nDATA"


@pytest.mark.parametrize("others", [0, 1])
def test_of_one_recipient_and_of_two(others: int) -> None:
    shown = OwnLines(dict(list(LINES.items())[: 1 + others])).of("a@example.net")
    assert shown == "RCPT a" + "\n(and 1 other recipient)" * others


def test_of_a_long_dialogue_the_beginning_and_the_end_are_kept() -> None:
    shown = Transcript(("first", "\u00e4" * MAX_TRANSCRIPT, "last")).of("a@example.net")
    assert shown.startswith("first\n\u00e4")
    assert shown.endswith("\u00e4\nlast")
    assert "\n-- (left out)\n" in shown
    assert MAX_TRANSCRIPT - 2 <= len(shown.encode()) <= MAX_TRANSCRIPT
