"""To whom messages are given for an attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mailrider.model.handover import DIRECT

if TYPE_CHECKING:
    from mailrider.model.envelope import Envelope
    from mailrider.model.handover import Handover
    from mailrider.model.outcome import AttemptReport
    from mailrider.smtp.content import Content


class Deliverer(Protocol):
    """Makes one attempt; never raises for a mail reason."""

    async def deliver(self, envelope: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        """One outcome for each recipient, in the envelope's order."""


@runtime_checkable
class LooksAgain(Protocol):
    """A `Deliverer` that remembers what destinations demand; a message is not given up for what has changed since."""

    async def look_again(self, envelope: Envelope, content: Content) -> None:
        """Ask anew what the next attempt, which is the last, will go by."""
