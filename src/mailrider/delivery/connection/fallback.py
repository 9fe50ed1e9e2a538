"""Where TLS failed lately: the memory of opportunistic fallback.

Bounded; an entry is kept for ten minutes per address and recipient domain, and dropped when TLS works again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailrider.clock import Clock
    from mailrider.model.domain import NextHop
    from mailrider.model.tls_problem import TLSProblem

REMEMBERED = 600.0  # seconds
MAX_ENTRIES = 10_000


class FallbackMemory:
    """Says whether to go in clear at once, and why."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: OrderedDict[tuple[str, NextHop], tuple[float, TLSProblem]] = OrderedDict()

    def recall(self, address: str, next_hop: NextHop) -> TLSProblem | None:
        """Why TLS failed with that address for that domain within the last ten minutes; None if it did not."""
        known = self._failed.get((address, next_hop))
        return known[1] if known is not None and self._clock.monotonic() < known[0] else None

    def failed(self, address: str, next_hop: NextHop, problem: TLSProblem) -> None:
        """TLS just failed."""
        self._failed[address, next_hop] = (self._clock.monotonic() + REMEMBERED, problem)
        self._failed.move_to_end((address, next_hop))
        if len(self._failed) > MAX_ENTRIES:
            self._failed.popitem(last=False)

    def worked(self, address: str, next_hop: NextHop) -> None:
        """TLS just worked."""
        self._failed.pop((address, next_hop), None)
