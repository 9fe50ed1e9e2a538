"""What to do with the report of an attempt. Pure: it decides, the store commits it as a whole (`queue.settler`).

For each recipient: done, or queued again and when; and which notifications go to the sender. The rules:

- delivered is done; its sender is told only if the next hop does not and NOTIFY asked for it (RFC 3461 5.2.2);
- failed is done, and the sender is told at once, while others are still being tried;
- deferred is tried again by the schedule, until tries or age are used up: then it has failed. The last try is at the
  end of its time, however long the delay would be;
- held back by a limit (`eligible_at`) is no try;
- in doubt waits longer, and is marked;
- a delay is told once for each recipient.

NOTIFY is obeyed (RFC 3461 4.1); nothing is ever sent to a null reverse-path, nor about a quarantined message. Of a
notification that failed the postmaster is told, if there is one, and of one to the postmaster nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, assert_never

from mailrider.dsn.notification import NotifiedAction, NotifiedRecipient
from mailrider.model.envelope import Notify
from mailrider.model.outcome import AttemptReport, Deferred, Delivered, Failed
from mailrider.model.reply import Reply
from mailrider.queue.message import Change, NewState, Progress

if TYPE_CHECKING:
    import random
    from datetime import datetime

    from mailrider.model.outcome import Outcome
    from mailrider.queue.message import LeasedJob
    from mailrider.queue.retry import Rules

# What has been tried for that long is given up (RFC 5321 4.5.4.1: at least 4 to 5 days).
EXPIRED: Final = Reply.make(554, "5.4.7", "It could not be delivered in time")
UNREACHABLE: Final = Reply.make(451, "4.4.7", "The destination could not be reached, so this message was not tried")

MAX_TEXT: Final = 1000  # characters of such a text
REPORT_EXPIRES: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class SettleDecision:
    """What becomes of a job: a change for each recipient, and whom the sender is told about.

    `given_up`: recipients that failed because tries or time are used up.
    """

    changes: tuple[Change, ...]
    notified: tuple[NotifiedRecipient, ...] = ()
    given_up: tuple[int, ...] = ()


def is_last_try(job: LeasedJob, rules: Rules, now: datetime) -> bool:
    """True if a recipient that is deferred by an attempt made now is given up."""
    return any(_is_over(progress, job, rules, now) for progress in job.progress)


def settle(job: LeasedJob, report: AttemptReport, rules: Rules, now: datetime, rng: random.Random) -> SettleDecision:
    """Decide after an attempt."""
    changes: list[Change] = []
    notified: list[NotifiedRecipient] = []
    given_up: list[int] = []
    until = _end_of(job, rules)
    for id, progress, outcome in zip(job.ids, job.progress, report.outcomes, strict=True):
        match outcome:
            case Delivered() | Failed():
                changes.append(Change(id, NewState.DONE, attempt=outcome))
                final: Outcome = outcome
            case Deferred():
                change = _again(id, progress, outcome, job, rules, now, rng)
                changes.append(change)
                final = outcome
                if change.new_state is NewState.DONE:
                    given_up.append(id)
                    final = _given_up(outcome, in_doubt=progress.in_doubt or outcome.in_doubt)
            case _:
                assert_never(outcome)
        action = _action(final, job, changes[-1], progress, rules, now)
        if action is not None:
            notified.append(NotifiedRecipient(outcome.recipient, action, final, until))
        changes[-1] = _warned(changes[-1], job, rules, now)
    return SettleDecision(tuple(changes), tuple(notified), tuple(given_up))


def untried(job: LeasedJob, rules: Rules, now: datetime, reason: Reply | None = None) -> SettleDecision:
    """Decide for a job that was not attempted because its destination is down: it may be late, or its time over.
    `reason`: what another message met there.

    Nothing is counted and nothing moves, but that it is given up, or that its sender is told of the delay.
    """
    changes: list[Change] = []
    notified: list[NotifiedRecipient] = []
    given_up: list[int] = []
    until = _end_of(job, rules)
    for id, progress, last in zip(job.ids, job.progress, as_it_stands(job, reason), strict=True):
        known = progress if reason is None else replace(progress, last=last.reply)
        change = Change(id, NewState.QUEUED, None, known)
        if now >= until:
            change = Change(id, NewState.DONE, None, known)
            given_up.append(id)
            last = _given_up(last, in_doubt=progress.in_doubt, was_tried=progress.tries > 0)
        changes.append(_warned(change, job, rules, now))
        action = _action(last, job, change, progress, rules, now)
        if action is not None:
            notified.append(NotifiedRecipient(last.recipient, action, last, until, was_tried=False))
    return SettleDecision(tuple(changes), tuple(notified), tuple(given_up))


def as_it_stands(job: LeasedJob, reason: Reply | None = None) -> AttemptReport:
    """What is known of a job's recipients without an attempt: how the last one ended, or why there was none."""
    unreachable = UNREACHABLE
    if reason is not None and reason != UNREACHABLE:
        text = f"{UNREACHABLE.text}; another message got: {reason}"
        unreachable = Reply.make(UNREACHABLE.code, str(UNREACHABLE.status), text[:MAX_TEXT])
    return AttemptReport(
        tuple(
            Deferred(who, progress.last or unreachable, in_doubt=progress.in_doubt)
            for who, progress in zip(job.envelope.recipients, job.progress, strict=True)
        )
    )


def _again(
    id: int, progress: Progress, outcome: Deferred, job: LeasedJob, rules: Rules, now: datetime, rng: random.Random
) -> Change:
    """Queued again, or done because nothing is left to try."""
    until = _end_of(job, rules)
    if outcome.eligible_at is not None:
        if now >= until:
            return Change(id, NewState.DONE, attempt=outcome)
        due = min(max(outcome.eligible_at, now), until)
        return Change(id, NewState.QUEUED, due, replace(progress, last=outcome.reply))
    tries = progress.tries + 1
    changed = Progress(tries, progress.warned, progress.in_doubt or outcome.in_doubt, outcome.reply)
    if _is_over(progress, job, rules, now):
        return Change(id, NewState.DONE, None, changed, outcome)
    due = min(now + rules.schedule.next_delay(tries, rng, in_doubt=outcome.in_doubt), until)
    return Change(id, NewState.QUEUED, due, changed, outcome)


def _end_of(job: LeasedJob, rules: Rules) -> datetime:
    """When it is given up; a TLS report after 24 hours, since the next one is there by then (RFC 8460 5.5)."""
    return job.created + (min(rules.expire, REPORT_EXPIRES) if job.envelope.tls_report else rules.expire)


def _is_over(progress: Progress, job: LeasedJob, rules: Rules, now: datetime) -> bool:
    """Whether this try is the last one, by time or by number."""
    return now >= _end_of(job, rules) or 0 < rules.max_tries <= progress.tries + 1


def _given_up(outcome: Outcome, *, in_doubt: bool, was_tried: bool = True) -> Failed:
    """The outcome of a recipient whose time is over: what the last attempt ended with stays readable."""
    doubt = ", though a server may have taken it" if in_doubt else ""
    last = f"the last attempt ended with: {outcome.reply}" if was_tried else outcome.reply.text
    text = f"{EXPIRED.text}{doubt}; {last}"
    final = Reply.make(EXPIRED.code, str(EXPIRED.status), text[:MAX_TEXT])
    return Failed(outcome.recipient, final, outcome.mx, outcome.address, outcome.security, outcome.tries)


def _action(
    outcome: Outcome, job: LeasedJob, change: Change, progress: Progress, rules: Rules, now: datetime
) -> NotifiedAction | None:
    """What the sender is told of this recipient now, if anything."""
    # What is quarantined is held to be harmful, and its sender to be forged.
    if job.envelope.quarantined or job.envelope.tls_report:
        return None
    # RFC 5321 4.5.5: a notification about a notification could go round for ever.
    if job.envelope.sender.is_null:
        is_told = isinstance(outcome, Failed) and _concerns_postmaster(outcome, job, rules)
        return NotifiedAction.FAILED if is_told else None
    asked = outcome.recipient.notify
    match outcome:
        case Delivered():
            # RFC 3461 5.2.2: a next hop that knows DSN was given the wish, and has taken it over.
            if asked is not None and Notify.SUCCESS in asked and not outcome.dsn:
                return NotifiedAction.RELAYED
        case Failed():
            if asked is None or Notify.FAILURE in asked:
                return NotifiedAction.FAILED
        case Deferred():
            is_late = _is_late(job, rules, now)
            is_told = progress.warned or change.new_state is NewState.DONE
            if is_late and not is_told and (asked is None or Notify.DELAY in asked):
                return NotifiedAction.DELAYED
        case _:
            assert_never(outcome)
    return None


def _concerns_postmaster(outcome: Failed, job: LeasedJob, rules: Rules) -> bool:
    """True for a notification of this machine that was not for the postmaster himself.

    One that came over the network is its sender's: a stranger could make us write to the postmaster as often as he
    likes.
    """
    is_own = job.envelope.client is None
    return is_own and rules.postmaster is not None and outcome.recipient.mailbox != rules.postmaster


def _is_late(job: LeasedJob, rules: Rules, now: datetime) -> bool:
    return bool(rules.delay_warning) and now >= job.created + rules.delay_warning


def _warned(change: Change, job: LeasedJob, rules: Rules, now: datetime) -> Change:
    """The delay has been dealt with, whether the sender wanted to hear of it or not."""
    if change.progress is None or change.progress.warned or not _is_late(job, rules, now):
        return change
    return replace(change, progress=replace(change.progress, warned=True))
