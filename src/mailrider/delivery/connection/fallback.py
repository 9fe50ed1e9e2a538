"""Where TLS failed lately: the memory of opportunistic fallback.

Bounded; an entry is kept for ten minutes per address and recipient domain, and dropped when TLS works again. The
workers of a daemon tell each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.delivery.limits.findings import SharedFinding
from mailrider.model.bounded_map import BoundedMap
from mailrider.model.domain import parse_next_hop
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind

if TYPE_CHECKING:
    from mailrider.clock import Clock
    from mailrider.delivery.limits.share_client import ShareClient
    from mailrider.model.domain import NextHop

REMEMBERED = 600.0  # seconds
MAX_ENTRIES = 10_000


class FallbackMemory:
    """Says whether to go in clear at once, and why."""

    def __init__(self, clock: Clock, others: ShareClient | None = None, owner: str = "") -> None:
        """`others`: workers who know what this one knows, at the target of the same `owner`."""
        self._clock = clock
        self._others = others
        self._topic = f"tls {owner}"
        self._failed: BoundedMap[tuple[str, NextHop], tuple[float, TLSProblem]] = BoundedMap(MAX_ENTRIES)
        if others is not None:
            others.hear(self._topic, self._hear)

    def recall(self, address: str, next_hop: NextHop) -> TLSProblem | None:
        """Why TLS failed with that address for that domain within the last ten minutes; None if it did not."""
        known = self._failed.get((address, next_hop))
        return known[1] if known is not None and self._clock.monotonic() < known[0] else None

    def failed(self, address: str, next_hop: NextHop, problem: TLSProblem) -> None:
        """Note that TLS has just failed there."""
        known = self._failed.get((address, next_hop))
        until = self._clock.monotonic() + REMEMBERED
        self._failed[address, next_hop] = (until, problem)
        is_news = known is None or known[0] < until - REMEMBERED / 2
        if self._others is not None and is_news:
            body = [problem.kind.value, problem.text, problem.code]
            self._others.tell(SharedFinding(self._topic, f"{address} {next_hop.ascii}", body, until))

    def worked(self, address: str, next_hop: NextHop) -> None:
        """Note that TLS has just worked there."""
        known = self._failed.pop((address, next_hop), None)
        if self._others is not None and known is not None:
            self._others.tell(SharedFinding(self._topic, f"{address} {next_hop.ascii}", None, None))

    def _hear(self, told: SharedFinding) -> None:
        """What another worker has learnt."""
        address, _, name = told.key.partition(" ")
        next_hop = parse_next_hop(name)
        if told.until is None:
            self._failed.pop((address, next_hop), None)
        else:
            kind, text, code = told.body
            self._failed[address, next_hop] = (told.until, TLSProblem(TLSProblemKind(kind), text, code))
