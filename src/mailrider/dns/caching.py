"""What all our resolvers share: answers are remembered by TTL, the same question is asked once, CNAMEs are followed.

A lookup goes: cache, then whoever is already asking the same (`flight`), then `_ask`, which each resolver has of its
own. CNAMEs are followed with further questions where a reply ends on one (`chain`).

What always holds: `lookup` gives what a server said, or raises `LookupFailed`; a failure is never taken for absence.
Names are absolute; search lists do not exist. When who is asked changes, what others said is forgotten, and what they
are saying is not believed. Closing ends every question, and those who wait get `LookupFailed`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

from mailrider.dns.answer import Answer, LookupFailed, LookupFailure, RecordType
from mailrider.dns.cache import AnswerCache
from mailrider.dns.chain import Walk
from mailrider.dns.flight import Cancelled, SingleFlight
from mailrider.dns.wire import FailedReply

if TYPE_CHECKING:
    from typing import Self

    from mailrider.clock import Clock
    from mailrider.dns.wire import ServerReply
    from mailrider.model.domain import Domain

CLOSED = FailedReply(LookupFailure.NO_RESOLVER, "the resolver is not open")


class CachingResolver(ABC):
    """A `Resolver` without a way to ask; use it with `async with`. `cache_size` is the number of answers kept."""

    def __init__(self, clock: Clock, cache_size: int) -> None:
        self._clock = clock
        self._cache = AnswerCache(cache_size, clock)
        self._flights: SingleFlight[tuple[str, RecordType, bool], Answer[Any] | FailedReply] = SingleFlight()
        self._open = False
        self.changes = 0
        """See `Resolver`."""
        self.cached = self._cache.get
        """The answer, if it is in the cache and fresh."""

    @property
    @abstractmethod
    def validates(self) -> bool:
        """True if answers can be authentic."""

    @abstractmethod
    async def _ask(self, name: Domain, record_type: RecordType, *, fresh: bool) -> ServerReply | FailedReply:
        """What whoever is asked says to one question."""

    async def _ready(self) -> FailedReply | None:
        """Wait until it is known who is to be asked; a `FailedReply` if that takes too long."""
        return None

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        await self._flights.aclose()

    async def lookup(self, name: Domain, record_type: RecordType, *, fresh: bool = False) -> Answer[Any]:
        """The records of that type at `name`, CNAMEs followed, or their absence. Raises `LookupFailed`.

        `fresh` passes the cache over, and renews it.
        """
        kept = None if fresh else self._cache.get(name, record_type)
        outcome = kept or await self._shared(name, record_type, fresh=fresh)
        if isinstance(outcome, FailedReply):
            # A fresh exception for each who waits: a shared one would gather their tracebacks.
            raise LookupFailed(name, record_type, outcome.failure, outcome.detail)
        return outcome

    def forget(self) -> None:
        """Others are asked from now on: forget what was said, and ask again what is being asked."""
        self.changes += 1
        self._cache.clear()

    async def _shared(self, name: Domain, record_type: RecordType, *, fresh: bool) -> Answer[Any] | FailedReply:
        if not self._open:
            return CLOSED
        resolve = partial(self._resolve, name, record_type, fresh=fresh)
        try:
            return await self._flights.run((name.ascii, record_type, fresh), resolve)
        except Cancelled:
            return CLOSED

    async def _resolve(self, name: Domain, record_type: RecordType, *, fresh: bool) -> Answer[Any] | FailedReply:
        unready = await self._ready()
        if unready is not None:
            return unready
        changes, walk = self.changes, Walk(name, record_type, trusted=self.validates)
        while True:  # ends: each further round follows a CNAME, and those are counted
            reply = await self._ask(walk.current, record_type, fresh=fresh)
            if self.changes != changes:  # ends: changes come each minute at most
                return await self._resolve(name, record_type, fresh=fresh)
            if isinstance(reply, FailedReply):
                return reply
            outcome = walk.take(reply, self._clock.monotonic())
            if isinstance(outcome, Answer):
                self._cache.put(record_type, outcome)
            if outcome is not None:
                return outcome
