"""The answer to "what is this domain's MTA-STS policy?", and what it is made of.

`PolicyLookup` is the answer with its evidence; `PolicyMemory` is what `policy.sts.source` remembers of a domain between
two questions; the functions are the decisions that it takes. No I/O.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.model.tls_session import STSSeen
from mailrider.mtasts.policy import MAX_LINES, STSMode
from mailrider.mtasts.record import NoRecord, STSRecord

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from mailrider.model.domain import Domain
    from mailrider.model.tls_problem import TLSProblem
    from mailrider.mtasts.policy import STSPolicy
    from mailrider.policy.sts.cache import CachedPolicy


class Origin(enum.StrEnum):
    """Where the policy of a lookup came from."""

    FETCHED = "fetched"
    CACHE = "cache"


@dataclass(frozen=True, slots=True)
class PolicyLookup:
    """The policy of a domain, and how we know.

    `held`: the unexpired policy that we have, mode `none` included. `record`: what DNS says now; None if it did not
    answer or was not asked. `problem`: the last failure of DNS or of a fetch that has not been made good since.
    """

    domain: Domain
    held: CachedPolicy | None
    origin: Origin | None
    expires: datetime | None
    record: STSRecord | NoRecord | None
    problem: TLSProblem | None = None

    @property
    def error(self) -> str:
        """The problem in words; empty if there is none."""
        return "" if self.problem is None else self.problem.text

    @property
    def policy(self) -> STSPolicy | None:
        """The policy to be applied. Mode `none` is as if there were none (RFC 8461 5)."""
        return None if self.held is None or self.held.policy.mode is STSMode.NONE else self.held.policy

    @property
    def is_uncertain(self) -> bool:
        """True if we apply none although there may be one by now (`none` may be over): DNS or the fetch failed."""
        return self.policy is None and self.problem is not None


@dataclass(slots=True)
class PolicyMemory:
    """What the source remembers of one domain; changes as it learns. Times are `Clock.monotonic` readings."""

    entry: CachedPolicy | None = None
    fetched: float = 0.0
    expires: float = 0.0
    is_removed: bool = False  # it has ended, and been taken from the store
    loaded: float = float("-inf")
    fetch_again: float = float("-inf")
    fetch_problem: TLSProblem | None = None
    ask_again: float = float("-inf")
    dns_problem: TLSProblem | None = None
    complaint: str = ""  # about the record, as last emitted

    def in_force(self, now: float) -> CachedPolicy | None:
        """The policy, unless its time is over."""
        # RFC 8461 5.1: until the time since the fetch *exceeds* max_age, so one of 0 serves those that waited for it.
        return self.entry if self.entry is not None and now <= self.expires else None

    def hold(self, entry: CachedPolicy, age: timedelta, now: float) -> None:
        """From now on this is the policy; it is `age` old."""
        self.entry, self.is_removed = entry, False
        self.fetched = now - age.total_seconds()
        self.expires = self.fetched + entry.policy.max_age.total_seconds()


def policy_seen(policy: STSPolicy) -> STSSeen:
    """A policy as TLS reports show it (RFC 8460 4.4); in its plain form if nobody kept the lines that were fetched."""
    lines = policy.lines or tuple(policy.encode().decode("ascii").splitlines()[:MAX_LINES])
    return STSSeen(lines, tuple(map(str, policy.mx[:MAX_LINES])))


def must_fetch(record: STSRecord | NoRecord | None, held: CachedPolicy | None) -> bool:
    """Whether the record announces a policy that we do not have (RFC 8461 3.1, 5.1)."""
    return isinstance(record, STSRecord) and (held is None or held.id != record.id)


def is_news(stored: CachedPolicy, ours: CachedPolicy, held: CachedPolicy | None) -> bool:
    """Whether another process has fetched since; an entry that has ended for us is not revived by its stamp."""
    return stored.fetched > ours.fetched if held is not None else stored.fetched != ours.fetched
