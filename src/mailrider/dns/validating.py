"""A resolver that checks signatures in this process, through libunbound (RFC 4035 4.3).

`ValidatingResolver` asks whoever `ValidationKeeper` (`dns.validation`) tells it to: nobody yet, so that lookups wait
for the first probe; a validator; the servers without validation, believing them as `StubResolver` does; or nobody, and
then lookups fail.

What always holds: with a validator `authentic` is its word alone, never an AD bit; what is bogus is a failure, never an
answer or an absence; a lookup ends within `patience` seconds, whatever the library does.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from mailrider.clock import after
from mailrider.dns.answer import LookupFailure
from mailrider.dns.caching import CachingResolver
from mailrider.dns.wire import NUMBERS, FailedReply, Question, ServerReply, decode_reply
from mailrider.model.event import AnswerValidated, Validity

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Self

    from mailrider.clock import Clock
    from mailrider.dns.answer import RecordType
    from mailrider.dns.servers import ServerAddress, ServerChoice
    from mailrider.dns.stub import StubResolver
    from mailrider.dns.unbound import Validated
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit


class Asks(Protocol):
    """What a validator does (`dns.unbound.Validator`); tests have others."""

    async def ask(self, name: str, record_type: int) -> Validated: ...


if TYPE_CHECKING:
    # A context of the library that asks these servers; with caches, or without.
    OpenValidator = Callable[[tuple[ServerAddress, ...], bool], AbstractAsyncContextManager[Asks]]


class Validation:
    """One open validation: a validator with caches, and from the first `fresh` question on one without."""

    def __init__(
        self, open_validator: OpenValidator, servers: tuple[ServerAddress, ...], stack: AsyncExitStack, cached: Asks
    ) -> None:
        self.servers = servers
        self._open_validator = open_validator
        self._stack = stack
        self._cached = cached
        self._fresh: Asks | None = None
        self._opening = asyncio.Lock()

    @classmethod
    async def open(cls, open_validator: OpenValidator, servers: tuple[ServerAddress, ...]) -> Self:
        """With the first validator made; raises `ValidatorUnusable`."""
        stack = AsyncExitStack()
        return cls(open_validator, servers, stack, await stack.enter_async_context(open_validator(servers, True)))

    async def aclose(self) -> None:
        """Close both; who waits hears that they are closed."""
        await self._stack.aclose()

    async def ask(self, name: str, record_type: int, *, fresh: bool) -> Validated:
        """The answer of the validator with or without caches."""
        asked = await self._without_caches() if fresh else self._cached
        return await asked.ask(name, record_type)

    async def _without_caches(self) -> Asks:
        async with self._opening:
            if self._fresh is None:
                self._fresh = await self._stack.enter_async_context(self._open_validator(self.servers, False))
        return self._fresh


@dataclass(frozen=True, slots=True)
class Waiting:
    """The first probe has not ended."""


@dataclass(frozen=True, slots=True)
class Unvalidated:
    """The servers are asked, and believed as far as they count; `reason` says why we do not validate."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failing:
    """Nobody is asked: lookups fail, and mail waits."""

    reason: str


Source = Waiting | Validation | Unvalidated | Failing


class ValidatingResolver(CachingResolver):
    """A `Resolver`; use it with `async with`.

    `name` says who validates, with which trust anchors. `patience` bounds a question, seconds. `stub` asks without
    validation.
    """

    def __init__(
        self, stub: StubResolver, name: str, clock: Clock, emit: Emit, *, patience: float, cache_size: int
    ) -> None:
        super().__init__(clock, cache_size)
        self._name = name
        self.stub = stub
        self.trust_changed = asyncio.Event()  # set when a proof changes who is believed
        self._emit = emit
        self._patience = patience
        self._source: Source = Waiting()
        self._left_waiting = asyncio.Event()

    @property
    def source(self) -> Source:
        """Who is asked now."""
        return self._source

    @property
    def validates(self) -> bool:
        """True if answers can be authentic."""
        return self.stub.validates if isinstance(self._source, Unvalidated) else True

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
        return f"DNSSEC and DANE are off: {reason}" if reason else self.stub.dnssec_off

    @property
    def validated_by(self) -> str:
        """Who validates, whose answers, with which trust anchors; empty if nobody does."""
        match self._source:
            case Validation() as validation:
                return f"validated here by {self._name}, from what {', '.join(map(str, validation.servers))} says"
            case Unvalidated():
                return self.stub.validated_by
            case _:
                return ""

    async def settled(self) -> None:
        """Wait, as a lookup would, until it is known who is asked."""
        await self._ready()

    @property
    def choice(self) -> ServerChoice:
        """Which servers are asked where we do not validate."""
        return self.stub.choice

    def choose(self, choice: ServerChoice) -> None:
        """As `StubResolver.choose`. If nobody is believed any more, lookups wait until we validate, or cannot."""
        self.stub.choose(choice)
        self.trust_changed.set()
        if isinstance(self._source, Unvalidated):
            self.use(self._source if self._source.reason or choice.validates else Waiting())

    async def ask(self, server: ServerAddress, name: Domain, record_type: RecordType) -> ServerReply | FailedReply:
        """What one server says; nothing is remembered, nothing validated."""
        return await self.stub.ask(server, name, record_type)

    def use(self, source: Source) -> None:
        """Ask there from now on."""
        self._source = source
        self.forget()
        if isinstance(source, Waiting):
            self._left_waiting.clear()
        else:
            self._left_waiting.set()

    async def _ready(self) -> FailedReply | None:
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
                return await self.stub.ask_servers(name, record_type)
            case Failing(reason):
                return FailedReply(LookupFailure.NO_RESOLVER, reason)
            case Waiting():  # trust was taken away in this moment: `_resolve` begins anew, and waits
                return FailedReply(LookupFailure.NO_RESOLVER, "nobody is believed")

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


def read_validated(answer: Validated, name: Domain, record_type: RecordType) -> ServerReply | FailedReply:
    """What a validator says to a question, as any server's answer is read."""
    if answer.bogus:
        return FailedReply(LookupFailure.BOGUS, answer.why)
    if answer.error:
        return FailedReply(LookupFailure.NO_RESOLVER, answer.error)
    message_id = int.from_bytes(answer.packet[:2])
    reply = decode_reply(answer.packet, Question(name, record_type, message_id))
    if reply is None:
        return FailedReply(LookupFailure.MALFORMED, "libunbound's message does not answer the question")
    return replace(reply, authentic=answer.secure) if isinstance(reply, ServerReply) else reply
