"""What a worker has of the numbers that it shares with others: in use, and given ahead. Pure.

The other end of `delivery.limits.share_book`. What was given ahead is used without asking. It goes back when it was not
used for `UNUSED`, when it is recalled, and what there is of a rate when it may not be used any more.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mailrider.delivery.limits.lines import Need

UNUSED: Final = 2.0  # seconds that something may be kept ahead of need


class Return(NamedTuple):
    """What goes back to the book: `until` as it was granted."""

    need: Need
    amount: int
    until: float = 0.0


@dataclass(slots=True)
class _Lease:
    """What there is of one need. `blocks`: of a rate, how many until when. `spare`: of a concurrency."""

    blocks: deque[tuple[float, int]] = field(default_factory=deque)
    spare: int = 0
    allowed: int = 0
    used_at: float = 0.0
    noted: float = 0.0

    @property
    def is_empty(self) -> bool:
        """True if forgetting it would change nothing."""
        return not self.blocks and not self.spare and not self.allowed


class Leases:
    """The shares of a worker. `now` is a reading of the monotonic clock throughout."""

    def __init__(self) -> None:
        self._leases: dict[Need, _Lease] = {}
        self._agenda: list[tuple[float, Need]] = []

    def __len__(self) -> int:
        return len(self._leases)

    def has(self, need: Need, now: float) -> bool:
        """True if one is ahead."""
        lease = self._leases.get(need)
        return lease is not None and (lease.spare > 0 or self._usable(lease, now))

    def take(self, needs: Sequence[Need], now: float) -> bool:
        """True if one of each was there; then they are in use."""
        if not all(self.has(need, now) for need in needs):
            return False
        for need in needs:
            lease = self._leases[need]
            lease.used_at = now
            if lease.spare:
                lease.spare -= 1
            else:
                until, count = lease.blocks.popleft()
                if count > 1:
                    lease.blocks.appendleft((until, count - 1))
        return True

    @staticmethod
    def _usable(lease: _Lease, now: float) -> bool:
        return bool(lease.blocks) and now < lease.blocks[0][0]

    def grant(self, needs: Sequence[Need], shares: Sequence[tuple[int, float]], now: float) -> bool:
        """What was asked for has come: one of each is in use, the others are ahead. False if it came too late.

        Then all of it is ahead, and `overdue` has what may not be used any more.
        """
        is_late = any(until and until <= now for _, until in shares)
        for need, (count, until) in zip(needs, shares, strict=True):
            ahead = count if is_late else count - 1
            if ahead:
                self._keep(need, ahead, until, now)
            if not is_late and not until:
                self._allow(need, count - 1, now)
        return not is_late

    def _keep(self, need: Need, count: int, until: float, now: float) -> None:
        lease = self._leases.setdefault(need, _Lease())
        lease.used_at = now
        if until:
            lease.blocks.append((until, count))
            heapq.heappush(self._agenda, (until, need))
        else:
            lease.spare += count
            self._note(need, lease, now)

    def _allow(self, need: Need, ahead: int, now: float) -> None:
        """Note how many of a concurrency may be kept when messages are done."""
        lease = self._leases.get(need)
        if ahead:
            lease = self._leases.setdefault(need, _Lease())
            self._note(need, lease, now)
        if lease is not None:
            lease.allowed = ahead
            lease.used_at = now

    def _note(self, need: Need, lease: _Lease, now: float) -> None:
        if not lease.noted:
            lease.noted = now + UNUSED
            heapq.heappush(self._agenda, (lease.noted, need))

    def done(self, needs: Iterable[Need], now: float) -> list[Return]:
        """These, of concurrencies, are not in use any more; those that go back."""
        returns = []
        for need in needs:
            lease = self._leases.get(need)
            if lease is None or lease.spare >= lease.allowed:
                returns.append(Return(need, 1))
            else:
                lease.spare += 1
                lease.used_at = now
                self._note(need, lease, now)
        return returns

    def give_back_ahead(self, needs: Iterable[Need]) -> list[Return]:
        """All that is ahead of these goes back: others want it, or more of them is asked for."""
        returns: list[Return] = []
        for need in needs:
            lease = self._leases.pop(need, None)
            if lease is not None:
                returns += [Return(need, count, until) for until, count in lease.blocks]
                if lease.spare:
                    returns.append(Return(need, lease.spare))
        return returns

    @property
    def next_due(self) -> float | None:
        """When `overdue` has something."""
        return self._agenda[0][0] if self._agenda else None

    def overdue(self, now: float) -> list[Return]:
        """What was ahead for too long; it goes back."""
        returns: list[Return] = []
        while self._agenda and self._agenda[0][0] <= now:
            when, need = heapq.heappop(self._agenda)
            lease = self._leases.get(need)
            if lease is None:
                continue
            while lease.blocks and lease.blocks[0][0] <= now:
                until, count = lease.blocks.popleft()
                returns.append(Return(need, count, until))
            if when == lease.noted:
                lease.noted = 0.0
                if lease.used_at + UNUSED <= now:
                    if lease.spare:
                        returns.append(Return(need, lease.spare))
                    lease.spare = lease.allowed = 0
                else:
                    self._note(need, lease, lease.used_at)
            if lease.is_empty:
                del self._leases[need]
        return returns
