"""Asking the configured servers, and believing AD only from servers that count (RFC 4035 4.9.3).

A question goes to the servers in their order, each over UDP and, if the answer is truncated, over TCP; `attempts`
rounds, in which only those are asked again that kept silent. A server that says that it cannot tell is not asked again
for this name. The next one is, but where answers can be authentic: there SERVFAIL may mean forged data, and is the
end, as is any other word of a failure.

What always holds: silence, refusal and damage are never taken for absence.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mailrider.clock import after
from mailrider.dns.answer import LookupFailure
from mailrider.dns.slots import SharedSlots
from mailrider.dns.transport import NotAnAnswer, Transport
from mailrider.dns.wire import FailedReply, Question, ServerReply, decode_reply
from mailrider.model.domain import owner_of

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from mailrider.clock import Clock
    from mailrider.dns.answer import RecordType
    from mailrider.dns.servers import ServerAddress, ServerChoice
    from mailrider.model.domain import Domain

MAX_IN_FLIGHT = 256  # questions at once: each is a descriptor, and processes have 1,024

# What a server says that does not understand EDNS, or something on the way that does not let it through.
_WITHOUT_EDNS = frozenset((LookupFailure.FORMERR, LookupFailure.NOTIMP))

# Failures that say nothing of the name: another server may be asked whatever is at stake.
_UNHEARD = frozenset((LookupFailure.TIMEOUT, LookupFailure.NO_RESOLVER))

# Of several servers' failures the first of these is reported: words before silence.
_MOST_TELLING = (
    LookupFailure.SERVFAIL,
    LookupFailure.REFUSED,
    LookupFailure.NOTIMP,
    LookupFailure.FORMERR,
    LookupFailure.MALFORMED,
    LookupFailure.TIMEOUT,
    LookupFailure.NO_RESOLVER,
)


class NameServers:
    """The servers of `choice`, which says whose word counts, and why DNSSEC is off if it is. Nothing is remembered.

    `timeout` bounds one question to one server, seconds. `rng` makes the ids of the questions:
    `random.SystemRandom()`, unless a test wants to know them.
    """

    def __init__(
        self,
        choice: ServerChoice,
        *,
        clock: Clock,
        rng: random.Random,
        timeout: float = 5.0,
        attempts: int = 3,
        transport: Transport | None = None,
    ) -> None:
        self.choice = choice
        self._clock = clock
        self._rng = rng
        self._timeout = timeout
        self._attempts = attempts
        self._transport = transport or Transport()
        self._slots = SharedSlots(MAX_IN_FLIGHT)

    async def ask_all(self, name: Domain, record_type: RecordType) -> ServerReply | FailedReply:
        """What the first server says that has an answer."""
        failures: list[FailedReply] = []
        willing = list(self.choice.asked)
        for _ in range(self._attempts):
            for server in tuple(willing):
                async with self._slots.of(owner_of(name)):
                    reply = await self.ask(server, name, record_type)
                if isinstance(reply, ServerReply):
                    return reply
                failure = FailedReply(reply.failure, f"{server}: {reply.detail}".removesuffix(": "))
                if self.choice.validates and failure.failure not in _UNHEARD:
                    return failure
                failures.append(failure)
                if reply.failure is not LookupFailure.TIMEOUT:
                    willing.remove(server)
        none = FailedReply(LookupFailure.NO_RESOLVER, "no DNS server is configured")
        return min(failures, key=lambda failure: _MOST_TELLING.index(failure.failure), default=none)

    async def ask(self, server: ServerAddress, name: Domain, record_type: RecordType) -> ServerReply | FailedReply:
        """What one server says, whether it counts or not.

        A server that does not understand EDNS (RFC 6891 7) is asked again without. Such an answer is not authentic.
        """
        reply = await self._ask_one(server, Question(name, record_type, self._rng.getrandbits(16)))
        if isinstance(reply, ServerReply) or reply.failure not in _WITHOUT_EDNS:
            return reply
        plain = await self._ask_one(server, Question(name, record_type, self._rng.getrandbits(16), edns=False))
        return replace(plain, authentic=False) if isinstance(plain, ServerReply) else plain

    async def _ask_one(self, server: ServerAddress, question: Question) -> ServerReply | FailedReply:
        """Ask one server one question, by UDP first."""
        query = question.encode()
        accept: Callable[[bytes], ServerReply | FailedReply | None] = partial(decode_reply, question=question)
        reply = await self._carried(self._transport.ask_udp(server, query, accept))
        if isinstance(reply, FailedReply) or not reply.truncated:
            return reply
        whole = await self._carried(self._transport.ask_tcp(server, query, accept))
        if isinstance(whole, FailedReply):
            detail = f"its answer over UDP is truncated, and over TCP: {whole.detail or whole.failure}"
            return FailedReply(whole.failure, detail)
        if whole.truncated:  # RFC 2181 9: what is there is not to be used
            return FailedReply(LookupFailure.MALFORMED, "truncated over TCP")
        return whole

    async def _carried(self, asking: Awaitable[ServerReply | FailedReply]) -> ServerReply | FailedReply:
        """What comes back, within the time that one question has."""
        try:
            async with after(self._clock, self._timeout):
                return await asking
        except TimeoutError:
            return FailedReply(LookupFailure.TIMEOUT, f"no answer within {self._timeout:g} s")
        except NotAnAnswer as error:
            return FailedReply(LookupFailure.MALFORMED, str(error))
        except OSError as error:
            return FailedReply(LookupFailure.NO_RESOLVER, error.strerror or str(error))
