"""When each cached MTA-STS policy is fetched again in the background (RFC 8461 3.3, 10.2).

About daily; twice in its lifetime if that is shorter than two days; not at all if it is shorter than an hour: such a
policy is fetched when there is mail. Jitter keeps apart what was fetched together. A refresh that failed is repeated
about hourly until the policy ends. `RefreshSchedule` only decides; all times are `Clock.monotonic` readings.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.model.domain import owner_of

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from mailrider.model.domain import Domain
    from mailrider.mtasts.policy import STSPolicy

REFRESH_INTERVAL = timedelta(days=1)  # RFC 8461 3.3 suggests it
REFRESH_LEAST = timedelta(hours=1)  # a policy that lives shorter is not refreshed
REFRESH_JITTER = 0.2  # of the interval, either way
LATE_SPREAD = 3600.0  # seconds over which refreshes that are overdue, after a restart, are spread
RETRY_INTERVAL = 3600.0  # seconds, give or take a half, until a failed refresh is repeated


def refresh_interval(policy: STSPolicy) -> timedelta | None:
    """How long after a fetch the policy is fetched again, without jitter; None for never."""
    return min(REFRESH_INTERVAL, policy.max_age / 2) if policy.max_age >= REFRESH_LEAST else None


class RefreshSchedule:
    """What is due when. It holds what the store holds, so it is as bounded."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._due: dict[Domain, float] = {}
        self._failed: set[Domain] = set()  # whose last refresh did

    def plan(self, domain: Domain, policy: STSPolicy, *, fetched: float, expires: float, now: float) -> None:
        """The policy was fetched at `fetched`: set when it is fetched again, or, at its end, removed."""
        self._failed.discard(domain)
        interval = refresh_interval(policy)
        if interval is None:
            self._due[domain] = expires
            return
        due = fetched + interval.total_seconds() * self._rng.uniform(1 - REFRESH_JITTER, 1 + REFRESH_JITTER)
        if due < now:
            due = now + self._rng.uniform(0.0, min(LATE_SPREAD, max(0.0, expires - now) / 2))
        self._due[domain] = due

    def plan_retry(self, domain: Domain, now: float) -> None:
        """Plan another try, since a refresh failed."""
        self._failed.add(domain)
        self._due[domain] = now + self._rng.uniform(0.5, 1.5) * RETRY_INTERVAL

    def is_due(self, domain: Domain, now: float) -> bool:
        """True if the domain's turn has come."""
        return self._due.get(domain, now) <= now

    def take_due(self, now: float) -> list[Domain]:
        """All whose turn has come, the next one last; so ordered that nobody can keep others waiting.

        Whose host failed the last time comes behind the others, and each owner's first domain before another's second;
        beyond that nobody can foresee the order.
        """
        due = [domain for domain, when in self._due.items() if when <= now]
        self._rng.shuffle(due)
        seen: Counter[str] = Counter()
        turns: dict[Domain, tuple[bool, int]] = {}
        for domain in due:
            owner = owner_of(domain)
            turns[domain] = domain in self._failed, seen[owner]
            seen[owner] += 1
        due.sort(key=turns.__getitem__, reverse=True)
        return due

    def forget(self, domain: Domain) -> None:
        """The domain has no policy any more."""
        self._due.pop(domain, None)
        self._failed.discard(domain)

    def align(self, stored: Iterable[Domain]) -> set[Domain]:
        """Forget all but those that are stored; returns those that are stored and not planned yet."""
        present = set(stored)
        self._due = {domain: when for domain, when in self._due.items() if domain in present}
        self._failed &= present
        return present - self._due.keys()
