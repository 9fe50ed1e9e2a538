"""Callers and sessions for tests of the pool's books: as little as the books ask of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


@dataclass(eq=False)
class FakeSession:
    """A connection to `endpoint` with a `grade`; a waiter that demands more than it has does not fit."""

    endpoint: Hashable
    grade: int = 0
    transactions: int = 0
    max_transactions: int | None = None
    is_encrypted: bool = False
    is_alive: bool = True


@dataclass(eq=False)
class FakeWaiter:
    """Wants a connection to `endpoint` for `next_hop` of at least `grade`. `asked` are the sessions it was shown."""

    endpoint: str = "mx"
    next_hop: str = "a.test"
    grade: int = 0
    fresh: bool = False
    asked: list[FakeSession] = field(default_factory=list)

    def fits(self, session: FakeSession, opened_for: Hashable) -> bool:
        self.asked.append(session)
        return session.grade >= self.grade
