"""Signatures checked in this process, through libunbound (RFC 4035 4.3): whom a resolver may ask, and what comes back.

`ValidationKeeper` (`dns.validation`) tells a `CachingResolver` its source. What is bogus is a failure, never an answer
or an absence.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from mailrider.dns.answer import LookupFailure
from mailrider.dns.wire import FailedReply, Question, ServerReply, decode_reply

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Self

    from mailrider.dns.answer import RecordType
    from mailrider.dns.servers import ServerAddress
    from mailrider.dns.unbound import Validated
    from mailrider.model.domain import Domain


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
