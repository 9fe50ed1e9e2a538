"""To whom messages are given for an attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import asyncio

    from mailrider.model.envelope import Envelope
    from mailrider.model.outcome import AttemptReport
    from mailrider.smtp.content import Content


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
