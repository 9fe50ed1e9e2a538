"""Outcomes: what a reply means for a recipient, and the report of an attempt."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mailrider.model.address import Mailbox
from mailrider.model.envelope import Recipient
from mailrider.model.outcome import (
    AttemptReport,
    Deferred,
    Delivered,
    Failed,
    Outcome,
    Status,
    Try,
    TryResult,
    dialogue_of,
    is_held_back,
    outcome_for,
)
from mailrider.model.reply import Reply
from mailrider.model.security import MXLevel, Security
from mailrider.model.transcript import OwnLines, Transcript

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECIPIENT = Recipient(Mailbox.parse("b@example.net"))


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        (250, Delivered, "delivered"),
        (252, Delivered, "delivered"),
        (354, Deferred, "deferred"),  # nobody knows what it means here: fail safe
        (421, Deferred, "deferred"),
        (451, Deferred, "deferred"),
        (550, Failed, "failed"),
        (599, Failed, "failed"),
    ],
)
def test_what_a_reply_means(code: int, kind: type[Outcome], status: str) -> None:
    outcome = outcome_for(RECIPIENT, Reply(code))
    assert type(outcome) is kind
    assert outcome.status == status
    assert outcome.status is Status(status)
    assert not outcome.in_doubt


def test_an_outcome_says_where_and_how() -> None:
    security = Security(MXLevel.DNSSEC)
    tries = (Try("mx1.example.net", None, TryResult.LOOKUP, Reply(451)),)
    outcome = outcome_for(
        RECIPIENT, Reply(250), mx="mx2.example.net", address="192.0.2.1", security=security, tries=tries
    )
    assert outcome == Delivered(RECIPIENT, Reply(250), "mx2.example.net", "192.0.2.1", security, tries)


def test_a_report_has_an_outcome_per_recipient_in_order_and_counts_them() -> None:
    outcomes = tuple(outcome_for(RECIPIENT, Reply(code)) for code in (250, 550, 451, 250))
    report = AttemptReport(outcomes)
    assert tuple(report) == outcomes
    assert len(report) == 4
    assert report.counts() == {Status.DELIVERED: 2, Status.DEFERRED: 1, Status.FAILED: 1}
    assert AttemptReport(()).counts() == {Status.DELIVERED: 0, Status.DEFERRED: 0, Status.FAILED: 0}


def test_what_was_said_is_that_of_the_last_try_in_which_anything_was() -> None:
    said = [Transcript((f"said to {name}", OwnLines({"b@example.net": "RCPT b"}))) for name in ("one", "two")]
    tries = [Try("mx.example.net", None, TryResult.RCPT, Reply(451), transcript=each) for each in (*said, None)]
    assert dialogue_of(outcome_for(RECIPIENT, Reply(451), tries=tuple(tries))) == "said to two\nRCPT b"
    assert dialogue_of(outcome_for(RECIPIENT, Reply(250))) == ""


def test_signatures_of_an_attempt_stand_before_earlier_ones() -> None:
    report = AttemptReport((outcome_for(RECIPIENT, Reply(250)),)).signed_by(("b",)).signed_by(("a",))
    assert [each.signed for each in report] == [("a", "b")]


@pytest.mark.parametrize(
    ("outcome", "is_so"),
    [
        (Deferred(RECIPIENT, Reply(451, None, ("Later",)), eligible_at=NOW), True),
        (Deferred(RECIPIENT, Reply(451, None, ("Lost",)), eligible_at=NOW, in_doubt=True), False),
        (Deferred(RECIPIENT, Reply(451, None, ("Later",))), False),
        (Failed(RECIPIENT, Reply(550, None, ("No",))), False),
    ],
)
def test_what_a_limit_of_ours_holds_back_has_not_failed(outcome: Outcome, is_so: bool) -> None:
    assert is_held_back(outcome) is is_so
