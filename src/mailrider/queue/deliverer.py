"""To whom the queue gives messages, and what a report says about a destination."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from mailrider.model.outcome import Deferred, TryResult
from mailrider.queue.fairness import DestinationHealth

if TYPE_CHECKING:
    import asyncio

    from mailrider.model.envelope import Envelope
    from mailrider.model.outcome import AttemptReport, Outcome
    from mailrider.smtp.content import Content

# A server that came this far speaks to us; what it says then is about the message.
_SPOKE: Final = frozenset({TryResult.MAIL, TryResult.RCPT, TryResult.DATA, TryResult.FINAL, TryResult.DELIVERED})
_NETWORK: Final = 4  # the subject of enhanced codes about the network and routing (RFC 3463 3.5)


class Deliverer(Protocol):
    """Makes one attempt; never raises for a mail reason."""

    async def deliver(self, envelope: Envelope, content: Content) -> AttemptReport:
        """One outcome for each recipient, in the envelope's order."""


class UnderWay(Protocol):
    """What is known of attempts while they run, each in a task of the queue's."""

    def is_sending(self, task: asyncio.Task[Any]) -> bool:
        """True if the task sends content, or waits for the reply to it."""

    def cut_off(self, task: asyncio.Task[Any]) -> bool:
        """End the task's attempt. True if it reports what it came to; False: it has no effect, and nothing was done."""


@runtime_checkable
class LooksAgain(Protocol):
    """A `Deliverer` that remembers what destinations demand; a message is not given up for what has changed since."""

    async def look_again(self, envelope: Envelope, content: Content) -> None:
        """Ask anew what the next attempt, which is the last, will go by."""


def judge_destination(report: AttemptReport) -> DestinationHealth:
    """What an attempt says about the whole destination, beyond its own message."""
    outcomes = report.outcomes
    if any(each.result in _SPOKE for outcome in outcomes for each in outcome.tries):
        return DestinationHealth.TOOK
    if all(map(_says_unreachable, outcomes)):
        return DestinationHealth.UNREACHABLE
    return (
        DestinationHealth.UNKNOWN
        if any(isinstance(outcome, Deferred) for outcome in outcomes)
        else DestinationHealth.TOOK
    )


def _says_unreachable(outcome: Outcome) -> bool:
    if not isinstance(outcome, Deferred) or outcome.eligible_at is not None:
        return False
    return bool(outcome.tries) or outcome.reply.status.subject == _NETWORK
