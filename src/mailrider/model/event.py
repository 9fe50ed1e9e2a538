"""What happens, typed: every step emits, `observe` consumes.

An event is a fact in the past tense, with values and no prose; how it reads is a matter of the log. Whoever emits holds
an `Emit`; nobody who emits knows who listens. Emitting never fails and never waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from mailrider.model.domain import NextHop
    from mailrider.model.outcome import Outcome
    from mailrider.model.reply import Reply
    from mailrider.model.route import Candidates
    from mailrider.model.security import Refusal, Security


@dataclass(frozen=True, slots=True)
class Event:
    """Any event. `is_detail`: wanted only under `debug`."""

    is_detail: ClassVar[bool] = False


Emit = Callable[[Event], None]


def discard(_: Event) -> None:
    """The `Emit` of those who do not listen."""


@dataclass(frozen=True, slots=True)
class CandidatesFound(Event):
    """DNS named the hosts of a next hop."""

    is_detail: ClassVar[bool] = True
    candidates: Candidates


@dataclass(frozen=True, slots=True)
class LookupDidFail(Event):
    """DNS could not tell something; `consequence` says what follows from that."""

    name: str
    record_type: str
    reason: str
    consequence: str


@dataclass(frozen=True, slots=True)
class CandidateRefused(Event):
    """A policy refused a candidate (`address` None) or a connection to one of its addresses."""

    next_hop: NextHop
    mx: str
    address: str | None
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class AddressFailed(Event):
    """One address took us nowhere; `stage` is a `TryResult` value."""

    next_hop: NextHop
    mx: str
    address: str | None
    stage: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class ConnectionOpened(Event):
    """A new connection got through EHLO, and TLS if there is any."""

    mx: str
    address: str
    tls_version: str | None
    cipher: str | None
    clear_reason: str


@dataclass(frozen=True, slots=True)
class ConnectionReused(Event):
    """A kept connection serves another message; `transactions` it carried before."""

    is_detail: ClassVar[bool] = True
    mx: str
    address: str
    transactions: int


@dataclass(frozen=True, slots=True)
class ConnectionAwaited(Event):
    """A message waited so many seconds for one of the few connections that one host may have, and got it."""

    is_detail: ClassVar[bool] = True
    next_hop: NextHop
    mx: str
    address: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ConnectionClosed(Event):
    """A connection ended, and why."""

    is_detail: ClassVar[bool] = True
    mx: str
    address: str
    transactions: int
    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionJudged(Event):
    """The levels that a connection has for a next hop, found good enough."""

    next_hop: NextHop
    mx: str
    address: str
    security: Security
    reason: str


@dataclass(frozen=True, slots=True)
class TestingPolicyMissed(Event):
    """An MTA-STS policy in testing mode would have refused this, had it been enforced (RFC 8461 5)."""

    next_hop: NextHop
    mx: str
    address: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class FellBackToClear(Event):
    """TLS failed, nothing demands it, and the message goes in clear (spec: opportunistic fallback)."""

    next_hop: NextHop
    mx: str
    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class Dialogue(Event):
    """One line of an SMTP dialogue, `direction` `C` or `S`; content and secrets are never shown."""

    is_detail: ClassVar[bool] = True
    mx: str
    address: str
    direction: str
    line: str


@dataclass(frozen=True, slots=True)
class RecipientSettled(Event):
    """An attempt ended for one recipient."""

    next_hop: NextHop | None
    sender: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class LimitReached(Event):
    """A message is held back by a limit: `scope`, its `key`, and for how many seconds at least."""

    scope: str
    key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Bug(Event):
    """An exception that nobody expected; the recipients concerned were deferred."""

    where: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class SecurityUnavailable(Event):
    """DNSSEC and DANE are off for all, and why; emitted once."""

    reason: str
