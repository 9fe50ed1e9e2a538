"""Where TLS failed lately: the memory of opportunistic fallback; and who offers CHUNKING without knowing BDAT.

Bounded; an entry is kept for ten minutes per address and recipient domain, and dropped when TLS works again. The
workers of a daemon tell each other of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailrider.model.bounded import BoundedMap
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind

if TYPE_CHECKING:
    from mailrider.clock import Clock
    from mailrider.delivery.limits.share_client import ShareClient
    from mailrider.model.domain import NextHop

REMEMBERED = 600.0  # seconds
MAX_ENTRIES = 10_000
DAY = 86_400.0  # seconds


class FallbackMemory:
    """Says whether to go in clear at once, and why."""

    def __init__(self, clock: Clock, others: ShareClient | None = None, owner: str = "") -> None:
        """`others`: workers who know what this one knows, at the target of the same `owner`."""
        self._clock = clock
        self._others = others
        self._topic = f"tls {owner}"
        if others is not None:
            others.hear(self._topic, self._hear)
        self._failed: BoundedMap[tuple[str, NextHop], tuple[float, TLSProblem]] = BoundedMap(MAX_ENTRIES)

    def recall(self, address: str, next_hop: NextHop) -> TLSProblem | None:
        """Why TLS failed with that address for that domain within the last ten minutes; None if it did not."""
        known = self._failed.get((address, next_hop))
        return known[1] if known is not None and self._clock.monotonic() < known[0] else None

    def failed(self, address: str, next_hop: NextHop, problem: TLSProblem) -> None:
        """TLS just failed."""
        known = self._failed.get((address, next_hop))
        self._remember(address, next_hop, problem)
        is_news = known is None or known[0] < self._clock.monotonic() + REMEMBERED / 2
        if self._others is not None and is_news:
            told = [problem.kind.value, problem.text, problem.code]
            self._others.tell(self._topic, [address, next_hop.ascii, told])

    def _remember(self, address: str, next_hop: NextHop, problem: TLSProblem) -> None:
        self._failed[address, next_hop] = (self._clock.monotonic() + REMEMBERED, problem)

    def worked(self, address: str, next_hop: NextHop) -> None:
        """TLS just worked."""
        known = self._failed.pop((address, next_hop), None)
        if self._others is not None and known is not None:
            self._others.tell(self._topic, [address, next_hop.ascii, None])

    def _hear(self, told: Any) -> None:
        """What another worker has learnt."""
        address, name, problem = told
        next_hop = AddressLiteral.parse(name) if name.startswith("[") else Domain.parse(name)
        if problem is None:
            self._failed.pop((address, next_hop), None)
        else:
            kind, text, code = problem
            self._remember(address, next_hop, TLSProblem(TLSProblemKind(kind), text, code))


class NoChunks:
    """The addresses of servers that offered CHUNKING and did not know BDAT, each for a day."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: BoundedMap[str, float] = BoundedMap(MAX_ENTRIES)

    def add(self, address: str) -> None:
        """It was found out."""
        self._known[address] = self._clock.monotonic() + DAY

    def __contains__(self, address: str) -> bool:
        until = self._known.get(address)
        return until is not None and self._clock.monotonic() < until
