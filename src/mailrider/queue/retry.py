"""When to try again, by a pure schedule, and when no more: the rules of a queue.

After the nth failed try `initial * scale^(n-1)`, at most `longest`, and a little more or less, so that what failed
together does not come back together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

    from mailrider.model.address import Mailbox

JITTER: Final = 0.1  # of the delay, either way

# An outcome in doubt may be a message that arrived: each further try may be a duplicate, so they are few.
IN_DOUBT: Final = 4


@dataclass(frozen=True, slots=True)
class Schedule:
    """The delays between tries. `scale` is 1 or more."""

    initial: timedelta = timedelta(minutes=15)
    scale: float = 1.25
    longest: timedelta = timedelta(hours=4)

    def delay(self, tries: int) -> timedelta:
        """The delay after so many failed tries (1 or more), without jitter: never less than the one before it."""
        longest = max(self.longest, self.initial)
        if not self.initial:
            return self.initial
        # The power is compared by its logarithm: it overflows long before anybody gives up.
        steps = tries - 1
        if steps * math.log(self.scale) > math.log(longest / self.initial):
            return longest
        return min(self.initial * self.scale**steps, longest)

    def next_delay(self, tries: int, rng: random.Random, *, in_doubt: bool = False) -> timedelta:
        """The delay that is used: with its jitter, and longer after an outcome in doubt."""
        factor = rng.uniform(1 - JITTER, 1 + JITTER) * (IN_DOUBT if in_doubt else 1)
        return self.delay(tries) * factor


DEFAULT_SCHEDULE: Final = Schedule()


@dataclass(frozen=True, slots=True)
class Rules:
    """`max_tries` 0: no limit. `delay_warning` zero: senders are never told of a delay. `postmaster`: who is told of
    notifications that failed."""

    schedule: Schedule = DEFAULT_SCHEDULE
    max_tries: int = 0
    expire: timedelta = timedelta(days=5)
    delay_warning: timedelta = timedelta(hours=4)
    postmaster: Mailbox | None = None
