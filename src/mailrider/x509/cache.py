"""Verdicts that were reached, so that the same chain is not judged for every message.

The key is everything that a verdict rests on but the time: the digest of the chain, and the anchors or records and
the names. A verdict is given back only within the moments for which it is known to hold, so a certificate that
expires within the hour is refused from that second on; a clock that jumps back is noticed too. Bounded; the verdict
that was not asked for longest goes first.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.model.bounded import BoundedMap
from mailrider.x509.verify import judge_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable
    from datetime import datetime

    from mailrider.model.domain import Domain
    from mailrider.model.security import TLSEvidence, Verdict
    from mailrider.x509.anchors import Anchors
    from mailrider.x509.timed import TimedVerdict

MAX_VERDICTS = 1024  # a large sender has connections to some hundred hosts; 1 MB, 64 MB with absurd TLSA records
MAX_AGE = timedelta(hours=1)  # no verdict is older, whatever its dates allow


class VerdictCache:
    """A bounded map from what was judged to the verdict. Has no clock; used from one thread."""

    def __init__(self, size: int = MAX_VERDICTS) -> None:
        self._kept: BoundedMap[Hashable, tuple[datetime, datetime, Verdict]] = BoundedMap(size)

    def __len__(self) -> int:
        return len(self._kept)

    def verdict(self, key: Hashable, now: datetime, judge: Callable[[], TimedVerdict]) -> Verdict:
        """The verdict for `key` at `now`, from `judge` if it is not known."""
        kept = self._kept.get(key)
        if kept is not None and kept[0] <= now < kept[1]:
            self._kept.move_to_end(key)
            return kept[2]
        judged = judge()
        self._kept[key] = (max(judged.since, now - MAX_AGE), min(judged.until, now + MAX_AGE), judged.verdict)
        return judged.verdict


def verify_evidence(
    cache: VerdictCache, anchors: Anchors, evidence: TLSEvidence, names: Collection[Domain], now: datetime
) -> Verdict:
    """`judge_chain` for what a connection proved, through the cache."""
    references = tuple(names)
    return cache.verdict(
        ("pkix", evidence.chain_digest, anchors, references),
        now,
        lambda: judge_chain(evidence.chain, anchors, references, now),
    )
