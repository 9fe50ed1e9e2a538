"""What became of each recipient: delivered, deferred or failed, with the tries that led there."""

from __future__ import annotations

import enum
from dataclasses import field, replace
from typing import TYPE_CHECKING, ClassVar, Final, assert_never

from mailrider.model.reply import Reply
from mailrider.model.security import NO_SECURITY, Security
from mailrider.model.value import value

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from mailrider.model.envelope import Recipient
    from mailrider.model.transcript import Transcript

# What a target that sends mail on says of a message that a check held to be harmful.
QUARANTINED: Final = Reply.make(550, "5.7.0", "The message is quarantined and will not be sent on")

# What recipients get of an attempt that ended in an exception nobody expected.
BROKEN: Final = Reply.make(451, "4.3.0", "Internal error, it will be tried again")


class Status(enum.StrEnum):
    """The three ends that an attempt can have for a recipient."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    FAILED = "failed"


class TryResult(enum.StrEnum):
    """How far one candidate's address took us; for reports, in the order of a session."""

    LOOKUP = "lookup"
    REFUSED_BY_POLICY = "policy"
    PROHIBITED = "prohibited"
    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    TLS = "tls"
    FALLBACK = "fallback"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    FINAL = "final"
    DELIVERED = "delivered"


@value
class Try:
    """One candidate host or address that was tried: what ended it, and the reply or error as one.

    `transcript`: what was said there, if it did not deliver.
    """

    mx: str
    address: str | None
    result: TryResult
    reply: Reply
    security: Security = NO_SECURITY
    transcript: Transcript | None = field(default=None, compare=False, repr=False)


@value
class Delivered:
    """The next hop took the message for this recipient, and is now responsible for it.

    `dsn`: it knows DSN, and has taken over to notify the sender as asked (RFC 3461 5.2.2). `signed`, here and below:
    the domains and selectors of signatures that the message was given for this attempt.
    """

    status: ClassVar[Status] = Status.DELIVERED
    in_doubt: ClassVar[bool] = False

    recipient: Recipient
    reply: Reply
    mx: str | None = None
    address: str | None = None
    security: Security = NO_SECURITY
    tries: tuple[Try, ...] = ()
    dsn: bool = False
    signed: tuple[str, ...] = field(default=(), compare=False)


@value
class Deferred:
    """Not now; try later. `in_doubt`: the server may have it. `eligible_at`: held back by a limit, not a failed try."""

    status: ClassVar[Status] = Status.DEFERRED

    recipient: Recipient
    reply: Reply
    mx: str | None = None
    address: str | None = None
    security: Security = NO_SECURITY
    tries: tuple[Try, ...] = ()
    in_doubt: bool = False
    eligible_at: datetime | None = None
    signed: tuple[str, ...] = field(default=(), compare=False)


@value
class Failed:
    """Never; tell the sender."""

    status: ClassVar[Status] = Status.FAILED
    in_doubt: ClassVar[bool] = False

    recipient: Recipient
    reply: Reply
    mx: str | None = None
    address: str | None = None
    security: Security = NO_SECURITY
    tries: tuple[Try, ...] = ()
    signed: tuple[str, ...] = field(default=(), compare=False)


Outcome = Delivered | Deferred | Failed


def is_held_back(outcome: Outcome) -> bool:
    """True if nothing has failed: one of our own limits says when it may be tried again."""
    return isinstance(outcome, Deferred) and outcome.eligible_at is not None and not outcome.in_doubt


def dialogue_of(outcome: Outcome) -> str:
    """What was said to the server where the last try ended without delivering; empty if nothing was."""
    for each in reversed(outcome.tries):
        if each.transcript is not None:
            return each.transcript.of(str(outcome.recipient.mailbox))
    return ""


def outcome_for(
    recipient: Recipient,
    reply: Reply,
    *,
    mx: str | None = None,
    address: str | None = None,
    security: Security = NO_SECURITY,
    tries: tuple[Try, ...] = (),
) -> Outcome:
    """The outcome that a reply means: 2xx delivered, 5xx failed, all else deferred."""
    kind = Delivered if reply.is_positive else Failed if reply.is_permanent else Deferred
    return kind(recipient, reply, mx, address, security, tries)


@value
class AttemptReport:
    """The result of one attempt: an outcome per recipient, in the envelope's order."""

    outcomes: tuple[Outcome, ...]

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.outcomes)

    def signed_by(self, names: tuple[str, ...]) -> AttemptReport:
        """The same of a message that was signed so for the attempt."""
        return AttemptReport(tuple(replace(each, signed=(*names, *each.signed)) for each in self.outcomes))

    def __len__(self) -> int:
        return len(self.outcomes)

    def counts(self) -> dict[Status, int]:
        """How many recipients ended each way."""
        totals = dict.fromkeys(Status, 0)
        for outcome in self.outcomes:
            match outcome:
                case Delivered():
                    totals[Status.DELIVERED] += 1
                case Deferred():
                    totals[Status.DEFERRED] += 1
                case Failed():
                    totals[Status.FAILED] += 1
                case _:
                    assert_never(outcome)
        return totals
