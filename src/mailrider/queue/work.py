"""What a queue delivers with: who makes the attempts, and the rules for what comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mailrider.model.handover import DIRECT
from mailrider.queue.shares import ALONE
from mailrider.queue.stopping import GRACE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailrider.model.envelope import Envelope
    from mailrider.model.handover import Handover
    from mailrider.model.outcome import AttemptReport
    from mailrider.queue.bounces import Bounces
    from mailrider.queue.retry import Rules
    from mailrider.queue.shares import QueueShares
    from mailrider.smtp.content import Content


class Deliverer(Protocol):
    """Makes one attempt; never raises for a mail reason."""

    async def deliver(self, envelope: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        """One outcome for each recipient, in the envelope's order."""


@runtime_checkable
class RefreshesDestinations(Protocol):
    """A `Deliverer` that remembers what destinations demand; a message is not given up for what has changed since."""

    async def look_again(self, envelope: Envelope, content: Content) -> None:
        """Ask anew what the next attempt, which is the last, will go by."""


@dataclass(frozen=True, slots=True)
class Work:
    """`deliverers`: one for each route. `parallelism`: the attempts that may run at once. `grace`: seconds that a stop
    gives them."""

    deliverers: Mapping[str, Deliverer]
    rules: Rules
    bounces: Bounces
    parallelism: int = 16
    grace: float = GRACE
    shares: QueueShares = ALONE
