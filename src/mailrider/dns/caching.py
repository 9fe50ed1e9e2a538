"""The resolver over the network: answers are remembered by TTL, the same question is asked once, CNAMEs are followed.

A lookup goes: cache, then whoever is already asking the same (`single_flight`), then the source of the moment: the
configured servers (`stub`), believed as far as they count; a validator in this process (`validating`); nobody yet, so
that lookups wait for the first probe; or nobody, and then lookups fail. `use` says which. CNAMEs are followed with
further questions where a reply ends on one (`chain`).

What always holds: `lookup` gives what the source said, or raises `LookupFailed`; a failure is never taken for absence.
With a validator `authentic` is its word alone, never an AD bit; what is bogus is a failure. Names are absolute; search
lists do not exist. When who is asked changes, what others said is forgotten, and what they are saying is not believed.
Closing ends every question, and those who wait get `LookupFailed`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from mailrider.clock import after
from mailrider.dns.answer import Answer, LookupFailed, LookupFailure, RecordType
from mailrider.dns.cache import AnswerCache
from mailrider.dns.chain import ChainLookup
from mailrider.dns.outage import Outage
from mailrider.dns.single_flight import Cancelled, SingleFlight
from mailrider.dns.validating import Failing, Unvalidated, Validation, Waiting, read_validated
from mailrider.dns.wire import NUMBERS, FailedReply, ServerReply
from mailrider.model.event import AnswerValidated, Validity, discard

if TYPE_CHECKING:
    from typing import Self

    from mailrider.clock import Clock
    from mailrider.dns.servers import ServerChoice
    from mailrider.dns.stub import NameServers
    from mailrider.dns.validating import Source
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit

CLOSED = FailedReply(LookupFailure.NO_RESOLVER, "the resolver is not open")


class CachingResolver:
    """A `Resolver`; use it with `async with`. `cache_size` is the number of answers kept.

    `servers` are asked where signatures are not checked here. `validator` says who checks them here, with which trust
    anchors; empty: nobody ever does. With one lookups wait until `use` says who is asked, and `patience` bounds a
    question, seconds.
    """

    def __init__(
        self,
        servers: NameServers,
        clock: Clock,
        emit: Emit = discard,
        *,
        cache_size: int = 10_000,
        validator: str = "",
        patience: float = 0.0,
    ) -> None:
        self.servers = servers
        self.trust_changed = asyncio.Event()  # set when a proof changes who is believed
        self._clock = clock
        self._emit = emit
        self._validator = validator
        self._patience = patience
        self._source: Source = Waiting() if validator else Unvalidated()
        self._left_waiting = asyncio.Event()
        self._cache = AnswerCache(cache_size, clock)
        self._outage = Outage(emit)
        self._shared_lookups: SingleFlight[tuple[str, RecordType, bool], Answer[Any] | FailedReply] = SingleFlight()
        self._open = False
        self.changes = 0
        """See `Resolver`."""
        self.cached = self._cache.get
        """The answer, if it is in the cache and fresh."""

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        await self._shared_lookups.aclose()

    # Who is asked -----------------------------------------------------------------------------------------------------

    @property
    def source(self) -> Source:
        """Who is asked now."""
        return self._source

    @property
    def validates(self) -> bool:
        """True if answers can be authentic."""
        return self.choice.validates if isinstance(self._source, Unvalidated) else True

    @property
    def validates_itself(self) -> bool:
        """True if signatures are checked here, and no other server's word is believed."""
        return isinstance(self._source, Validation)

    @property
    def dnssec_off(self) -> str:
        """Why DNSSEC and DANE are off; empty if they are on."""
        if self.validates:
            return ""
        reason = self._source.reason if isinstance(self._source, Unvalidated) else ""
        return f"DNSSEC and DANE are off: {reason}" if reason else self.choice.dnssec_off

    @property
    def validated_by(self) -> str:
        """Who validates, whose answers, with which trust anchors; empty if nobody does."""
        match self._source:
            case Validation() as validation:
                return f"validated here by {self._validator}, from what {', '.join(map(str, validation.servers))} says"
            case Unvalidated() if self.choice.validates:
                return f"validated by {', '.join(map(str, self.choice.asked))}"
            case _:
                return ""

    @property
    def choice(self) -> ServerChoice:
        """Which servers are asked where we do not validate."""
        return self.servers.choice

    def choose(self, choice: ServerChoice) -> None:
        """Ask these servers from now on, where we do not validate.

        If nobody is believed any more, lookups wait until we validate, or cannot.
        """
        self.servers.choice = choice
        self.trust_changed.set()
        if isinstance(self._source, Unvalidated):
            waits = self._validator and not self._source.reason and not choice.validates
            self.use(Waiting() if waits else self._source)

    def use(self, source: Source) -> None:
        """Ask there from now on."""
        self._source = source
        self.forget()
        if isinstance(source, Waiting):
            self._left_waiting.clear()
        else:
            self._left_waiting.set()

    def forget(self) -> None:
        """Others are asked from now on: forget what was said, and ask again what is being asked."""
        self.changes += 1
        self._cache.clear()

    async def settled(self) -> None:
        """Wait, as a lookup would, until it is known who is asked."""
        await self._ready()

    # Lookups ----------------------------------------------------------------------------------------------------------

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

    async def _shared(self, name: Domain, record_type: RecordType, *, fresh: bool) -> Answer[Any] | FailedReply:
        if not self._open:
            return CLOSED
        resolve = partial(self._resolve, name, record_type, fresh=fresh)
        try:
            outcome = await self._shared_lookups.run((name.ascii, record_type, fresh), resolve)
        except Cancelled:
            return CLOSED
        if isinstance(outcome, FailedReply):
            self._outage.failed(name, outcome)
        else:
            self._outage.answered(name)
        return outcome

    async def _resolve(self, name: Domain, record_type: RecordType, *, fresh: bool) -> Answer[Any] | FailedReply:
        unready = await self._ready()
        if unready is not None:
            return unready
        changes, lookup = self.changes, ChainLookup(name, record_type, trusted=self.validates)
        while True:  # ends: each further round follows a CNAME, and those are counted
            reply = await self._ask(lookup.current, record_type, fresh=fresh)
            if self.changes != changes:  # ends: changes come each minute at most
                return await self._resolve(name, record_type, fresh=fresh)
            if isinstance(reply, FailedReply):
                return reply
            outcome = lookup.take(reply, self._clock.monotonic())
            if isinstance(outcome, Answer):
                self._cache.put(record_type, outcome)
            if outcome is not None:
                return outcome

    async def _ready(self) -> FailedReply | None:
        """Wait until it is known who is to be asked; a `FailedReply` if that takes too long."""
        if not isinstance(self._source, Waiting):
            return None
        try:
            async with after(self._clock, self._patience):
                while isinstance(self._source, Waiting):
                    await self._left_waiting.wait()
        except TimeoutError:
            return FailedReply(LookupFailure.TIMEOUT, f"validation could not begin within {self._patience:g} s")
        return None

    async def _ask(self, name: Domain, record_type: RecordType, *, fresh: bool) -> ServerReply | FailedReply:
        match self._source:
            case Validation() as validation:
                return await self._validated(validation, name, record_type, fresh=fresh)
            case Unvalidated():
                return await self.servers.ask_all(name, record_type)
            case Failing(reason):
                return FailedReply(LookupFailure.NO_RESOLVER, reason)
            case Waiting():  # trust was taken away in this moment: `_resolve` begins anew, and waits
                return FailedReply(LookupFailure.NO_RESOLVER, "no DNS server is trusted to validate at the moment")

    async def _validated(
        self, validation: Validation, name: Domain, record_type: RecordType, *, fresh: bool
    ) -> ServerReply | FailedReply:
        try:
            async with after(self._clock, self._patience):
                answer = await validation.ask(name.ascii, NUMBERS[record_type], fresh=fresh)
        except TimeoutError:
            return FailedReply(LookupFailure.TIMEOUT, f"not validated within {self._patience:g} s")
        outcome = read_validated(answer, name, record_type)
        if isinstance(outcome, ServerReply):
            self._emit(AnswerValidated(Validity.SECURE if outcome.authentic else Validity.INSECURE))
        elif outcome.failure is LookupFailure.BOGUS:
            self._emit(AnswerValidated(Validity.BOGUS))
        return outcome
