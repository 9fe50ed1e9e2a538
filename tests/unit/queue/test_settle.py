"""What becomes of a job after an attempt."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.dsn.notification import NotifiedAction
from mailrider.model.address import Mailbox
from mailrider.model.envelope import Notify
from mailrider.model.outcome import Delivered
from mailrider.model.reply import Reply
from mailrider.queue.message import LeasedJob, NewState, Progress
from mailrider.queue.retry import IN_DOUBT, JITTER, Rules, Schedule
from mailrider.queue.settle import UNREACHABLE, is_last_try, settle, untried
from mailrider.testing.clock import FakeClock
from tests.support.queueing import (
    BUSY,
    HOUR,
    TAKEN,
    Writing,
    deferred,
    delivered,
    failed,
    in_doubt,
    recipient,
    report,
    throttled,
)

if TYPE_CHECKING:
    from mailrider.model.envelope import Recipient
    from mailrider.model.outcome import Outcome
    from mailrider.queue.settle import SettleDecision

RULES = Rules(Schedule(timedelta(minutes=10), 2.0, timedelta(hours=1)))
REFUSED = Reply.make(451, "4.4.1", "[192.0.2.1]:25 refused the connection")
EVERYTHING = Notify.SUCCESS | Notify.FAILURE | Notify.DELAY


def make_job(*recipients: str | Recipient, tries: int = 0, warned: bool = False, **options: Any) -> LeasedJob:
    job = Writing(FakeClock()).job(*recipients, **options)
    return replace(job, progress=tuple(Progress(tries, warned) for _ in job.ids))


def decide(job: LeasedJob, *outcomes: Any, age: timedelta = HOUR, rules: Rules = RULES) -> SettleDecision:
    return settle(job, report(job, *outcomes), rules, job.created + age, random.Random(1))


def actions(decision: SettleDecision) -> list[tuple[str, NotifiedAction]]:
    return [(str(each.recipient), each.action) for each in decision.notified]


def test_delivered_is_done_and_nobody_is_told() -> None:
    decision = decide(make_job(), delivered)
    assert [change.new_state for change in decision.changes] == [NewState.DONE]
    assert actions(decision) == []


@pytest.mark.parametrize("outcome", [failed, deferred, delivered])
def test_of_a_quarantined_message_nobody_is_told_anything(outcome: Any) -> None:
    job = make_job(recipient("b@example.net", notify=EVERYTHING), quarantined=True)
    assert actions(decide(job, outcome, age=timedelta(days=6))) == []


def test_failed_is_done_and_the_sender_is_told_while_others_are_still_tried() -> None:
    decision = decide(make_job("b@example.net", "c@example.net"), failed, deferred)
    assert [change.new_state for change in decision.changes] == [NewState.DONE, NewState.QUEUED]
    assert actions(decision) == [("b@example.net", NotifiedAction.FAILED)]


@pytest.mark.parametrize(("tries", "minutes"), [(0, 10), (1, 20), (2, 40), (3, 60), (9, 60)])
def test_deferred_is_tried_again_by_the_schedule(tries: int, minutes: int) -> None:
    job = make_job(tries=tries)
    (change,) = decide(job, deferred).changes
    assert change.progress == Progress(tries + 1, last=BUSY)
    assert change.attempt is not None
    assert change.due is not None
    delay = change.due - (job.created + HOUR)
    assert abs(delay - timedelta(minutes=minutes)) <= JITTER * timedelta(minutes=minutes)


def test_in_doubt_is_marked_for_good_and_waits_longer() -> None:
    job = make_job()
    (change,) = decide(job, in_doubt).changes
    assert change.progress is not None
    assert change.progress.in_doubt
    assert change.due is not None
    assert change.due - (job.created + HOUR) >= IN_DOUBT * timedelta(minutes=10) * (1 - JITTER)
    (change,) = decide(replace(job, progress=(change.progress,)), deferred).changes
    assert change.progress is not None
    assert change.progress.in_doubt


def test_throttled_is_no_try_and_comes_back_when_it_may() -> None:
    job = make_job(tries=3)
    until = job.created + HOUR + timedelta(seconds=7)
    (change,) = decide(job, lambda who: throttled(who, until), rules=replace(RULES, max_tries=4)).changes
    assert change.due == until
    assert change.progress is not None
    assert change.progress.tries == 3
    assert change.attempt is None


def test_a_moment_that_has_passed_already_is_now() -> None:
    job = make_job()
    (change,) = decide(job, lambda who: throttled(who, job.created)).changes
    assert change.due == job.created + HOUR


@pytest.mark.parametrize(("tries", "fate"), [(1, NewState.QUEUED), (2, NewState.DONE)])
def test_tries_used_up_is_failed(tries: int, fate: NewState) -> None:
    decision = decide(make_job(tries=tries), deferred, rules=replace(RULES, max_tries=3))
    assert decision.changes[0].new_state is fate
    assert len(decision.given_up) == (fate is NewState.DONE)


@pytest.mark.parametrize("outcome", [deferred, lambda who: throttled(who, FakeClock().now())])
def test_time_used_up_is_failed_and_says_how_the_last_attempt_ended(outcome: Any) -> None:
    decision = decide(make_job(), outcome, age=RULES.expire)
    assert decision.changes[0].new_state is NewState.DONE
    (told,) = decision.notified
    assert told.action is NotifiedAction.FAILED
    assert str(told.outcome.reply.status) == "5.4.7"
    assert "the last attempt ended with: 45" in told.outcome.reply.text


def test_a_message_that_may_have_arrived_is_not_given_up_without_saying_so() -> None:
    decision = decide(make_job(), in_doubt, age=RULES.expire)
    assert "though a server may have taken it" in decision.notified[0].outcome.reply.text


@pytest.mark.parametrize(
    ("tries", "age", "last"),
    [
        (0, HOUR, False),
        (3, HOUR, False),
        (4, HOUR, True),
        (0, timedelta(days=5) - timedelta(seconds=1), False),
        (0, timedelta(days=5), True),
    ],
)
def test_the_last_try_is_the_one_after_which_nothing_is_put_back(tries: int, age: timedelta, last: bool) -> None:
    job, rules = make_job("b@example.net", tries=tries), replace(RULES, max_tries=5)
    assert is_last_try(job, rules, job.created + age) is last
    (change,) = decide(job, deferred, age=age, rules=rules).changes
    assert (change.new_state is NewState.DONE) is last


def test_without_a_limit_of_tries_there_is_no_last_one_before_the_time_is_over() -> None:
    job = make_job("b@example.net", tries=1000)
    assert not is_last_try(job, RULES, job.created + HOUR)


def test_the_last_try_is_at_the_end_of_the_time() -> None:
    job = make_job(tries=9)
    for outcome in (deferred, lambda who: throttled(who, job.created + 100 * RULES.expire)):
        (change,) = decide(job, outcome, age=RULES.expire - timedelta(minutes=1)).changes
        assert change.due == job.created + RULES.expire


@pytest.mark.parametrize(
    ("age", "warned", "notify", "told"),
    [
        (timedelta(hours=3), False, None, False),
        (timedelta(hours=4), False, None, True),
        (timedelta(hours=4), True, None, False),
        (timedelta(hours=4), False, Notify.DELAY, True),
        (timedelta(hours=4), False, Notify.FAILURE, False),
        (timedelta(hours=4), False, Notify.NEVER, False),
    ],
)
def test_a_delay_is_told_once(age: timedelta, warned: bool, notify: Notify | None, told: bool) -> None:
    job = make_job(recipient("b@example.net", notify=notify), warned=warned)
    decision = decide(job, deferred, age=age)
    assert bool(decision.notified) is told
    assert decision.changes[0].progress is not None
    assert decision.changes[0].progress.warned is (age >= RULES.delay_warning)  # dealt with, whoever wanted to hear it


def test_delays_are_not_told_where_that_is_turned_off() -> None:
    rules = replace(RULES, delay_warning=timedelta(0))
    assert actions(decide(make_job(), deferred, age=4 * 24 * HOUR, rules=rules)) == []


@pytest.mark.parametrize(
    ("outcome", "notify", "action"),
    [
        (failed, None, NotifiedAction.FAILED),
        (failed, Notify.FAILURE, NotifiedAction.FAILED),
        (failed, Notify.SUCCESS | Notify.DELAY, None),
        (failed, Notify.NEVER, None),
        (delivered, None, None),
        (delivered, Notify.FAILURE, None),
        (delivered, Notify.SUCCESS, NotifiedAction.RELAYED),
    ],
)
def test_notify_is_obeyed(outcome: Any, notify: Notify | None, action: NotifiedAction | None) -> None:
    decision = decide(make_job(recipient("b@example.net", notify=notify)), outcome)
    assert [each.action for each in decision.notified] == ([] if action is None else [action])


def test_a_next_hop_that_knows_dsn_tells_the_sender_itself() -> None:
    def taken_over(who: Recipient) -> Outcome:
        return Delivered(who, TAKEN, dsn=True)

    assert actions(decide(make_job(recipient("b@example.net", notify=Notify.SUCCESS)), taken_over)) == []


@pytest.mark.parametrize("outcome", [delivered, deferred, failed])
def test_a_null_reverse_path_is_never_told_anything(outcome: Any) -> None:
    job = make_job(recipient("b@example.net", notify=EVERYTHING), sender="")
    assert actions(decide(job, outcome, age=RULES.expire)) == []


def test_what_is_not_attempted_stays_as_it_is() -> None:
    job = make_job(tries=2)
    decision = untried(job, RULES, job.created + HOUR)
    assert decision.changes[0].progress == job.progress[0]
    assert decision.notified == ()


def test_what_is_not_attempted_is_told_of_and_given_up_in_time() -> None:
    job = make_job(tries=2)
    late = untried(job, RULES, job.created + RULES.delay_warning)
    assert [each.action for each in late.notified] == [NotifiedAction.DELAYED]
    assert late.changes[0].progress == Progress(2, warned=True)
    over = untried(job, RULES, job.created + RULES.expire)
    assert over.changes[0].new_state is NewState.DONE
    assert [each.action for each in over.notified] == [NotifiedAction.FAILED]
    assert over.given_up == job.ids


@pytest.mark.parametrize(
    ("before", "told"),
    [
        pytest.param(Progress(), f"{UNREACHABLE.text}; another message got: {REFUSED}", id="never tried"),
        pytest.param(Progress(2, last=BUSY), f"the last attempt ended with: {BUSY}", id="tried"),
    ],
)
def test_mail_that_gets_no_attempt_is_told_of_with_why_its_destination_cannot_be_reached(
    before: Progress, told: str
) -> None:
    job = replace(make_job(), progress=(before,))
    waits = untried(job, RULES, job.created + HOUR, REFUSED)
    assert waits.changes[0].progress is not None
    assert told.endswith(str(waits.changes[0].progress.last).removeprefix("451 4.4.7 "))
    over = untried(job, RULES, job.created + RULES.expire, REFUSED)
    assert over.notified[0].outcome.reply.text == f"It could not be delivered in time; {told}"


# The postmaster ------------------------------------------------------------------------------------------------------

WATCHED = replace(RULES, postmaster=Mailbox.parse("postmaster@example.org"))


@pytest.mark.parametrize(
    ("outcome", "age", "told"), [(failed, HOUR, True), (deferred, timedelta(days=5), True), (deferred, HOUR, False)]
)
def test_the_postmaster_is_told_of_a_notification_that_failed(outcome: Any, age: timedelta, told: bool) -> None:
    job = make_job(recipient("root@host.example.org", notify=Notify.NEVER), sender="")
    decision = decide(job, outcome, age=age, rules=WATCHED)
    assert actions(decision) == ([("root@host.example.org", NotifiedAction.FAILED)] if told else [])
    assert decide(job, outcome, age=age).notified == ()


@pytest.mark.parametrize(
    ("whom", "options"),
    [
        ("postmaster@example.org", {}),  # what he does not get he cannot be told
        ("a@example.org", {"client": "192.0.2.1"}),  # somebody else's notification
        ("a@example.org", {"quarantined": True}),
    ],
)
def test_the_postmaster_is_not_told_of(whom: str, options: dict[str, Any]) -> None:
    assert decide(make_job(whom, sender="", **options), failed, rules=WATCHED).notified == ()


def test_a_tls_report_is_given_up_after_a_day_and_nobody_is_told() -> None:
    job = make_job()
    job = replace(job, envelope=replace(job.envelope, tls_report=True))
    assert decide(job, deferred, age=23 * HOUR).given_up == ()
    decision = decide(job, deferred, age=25 * HOUR)
    assert (decision.given_up, actions(decision)) == (job.ids, [])
    assert actions(decide(job, failed)) == actions(decide(job, deferred, age=5 * HOUR)) == []
