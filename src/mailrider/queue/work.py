"""What a queue delivers with: who makes the attempts, and the rules for what comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.queue.shares import ALONE
from mailrider.queue.stopping import GRACE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailrider.queue.bounces import Bounces
    from mailrider.queue.deliverer import Deliverer
    from mailrider.queue.settle import Rules
    from mailrider.queue.shares import QueueShares


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
