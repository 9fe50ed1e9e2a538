"""What happens, typed: every step emits, `observe` consumes.

An event is a fact in the past tense, with values and no prose; how it reads is a matter of the log. Whoever emits holds
an `Emit`; nobody who emits knows who listens. Emitting never fails and never waits.

`message` is the id of the message whose attempt it belongs to, empty where there is none or it is not known.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, ClassVar

from mailrider.model.value import value

if TYPE_CHECKING:
    from mailrider.model.domain import NextHop
    from mailrider.model.outcome import Outcome
    from mailrider.model.reply import Reply
    from mailrider.model.route import Candidates
    from mailrider.model.security import Refusal, Security
    from mailrider.model.tls_problem import TLSProblem


class EventLevel(enum.StrEnum):
    """How much an event wants an operator's attention."""

    DEBUG = "debug"  # a detail, for whoever looks for something
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


DEBUG, INFO, WARNING, ERROR = EventLevel

_WORD_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@value
class Event:
    """Any event. `named`: what its kind is called in the log, if not by its class: `ConnectionOpened` is
    `connection_opened`."""

    level: ClassVar[EventLevel] = INFO
    named: ClassVar[str] = ""

    @classmethod
    def kind_name(cls) -> str:
        """The name of such events in the log."""
        return cls.named or _WORD_BORDER.sub("_", cls.__name__).lower()

    @property
    def log_name(self) -> str:
        """The name of this one: that of its kind, unless the kind says what happened."""
        return self.kind_name()


Emit = Callable[[Event], None]


def discard(_: Event) -> None:
    """The `Emit` of those who do not listen."""


@value
class CandidatesFound(Event):
    """DNS named the hosts of a next hop."""

    level: ClassVar[EventLevel] = DEBUG
    candidates: Candidates


@value
class LookupDidFail(Event):
    """DNS could not tell something; `consequence` says what follows from that."""

    level: ClassVar[EventLevel] = WARNING
    named: ClassVar[str] = "lookup_failed"
    name: str
    record_type: str
    reason: str
    consequence: str
    message: str = field(default="", kw_only=True)


@value
class DNSUnavailable(Event):
    """No lookup succeeds any more, whatever the domain; told once, until `DNSAvailable`."""

    level: ClassVar[EventLevel] = ERROR
    reason: str
    advice: str = (
        "all mail waits until DNS answers: see that the resolver runs and reaches the internet, mailrider check"
    )


@value
class DNSAvailable(Event):
    """Lookups succeed again."""


@value
class NothingEnforced(Event):
    """A target of a configuration has no `mx_auth`, and nobody said that this is meant."""

    level: ClassVar[EventLevel] = WARNING
    target: str
    advice: str = "whoever controls the network can read and redirect mail: write mx_auth { ... }, or mx_auth off"


@value
class CandidateRefused(Event):
    """A policy refused a candidate (`address` None) or a connection to one of its addresses."""

    level: ClassVar[EventLevel] = WARNING
    named: ClassVar[str] = "refused_by_policy"
    next_hop: NextHop
    mx: str
    address: str | None
    refusal: Refusal
    message: str = field(default="", kw_only=True)


@value
class AddressFailed(Event):
    """One address could not be used; `stage` is a `TryResult` value. `problem`: what was wrong, if it was about TLS."""

    next_hop: NextHop
    mx: str
    address: str | None
    stage: str
    reply: Reply
    problem: TLSProblem | None = None
    message: str = field(default="", kw_only=True)


@value
class ConnectionOpened(Event):
    """A new connection got through EHLO, and TLS if there is any."""

    level: ClassVar[EventLevel] = DEBUG
    mx: str
    address: str
    tls_version: str | None
    cipher: str | None
    clear_reason: str


@value
class ConnectionReused(Event):
    """A kept connection serves another message; `transactions` it carried before."""

    level: ClassVar[EventLevel] = DEBUG
    mx: str
    address: str
    transactions: int


@value
class ConnectionAwaited(Event):
    """A message waited so many seconds for one of the few connections that one host may have, and got it."""

    level: ClassVar[EventLevel] = DEBUG
    next_hop: NextHop
    mx: str
    address: str
    seconds: float
    message: str = field(default="", kw_only=True)


@value
class ConnectionClosed(Event):
    """A connection ended, and why."""

    level: ClassVar[EventLevel] = DEBUG
    mx: str
    address: str
    transactions: int
    reason: str


@value
class ConnectionJudged(Event):
    """The levels that a connection has for a next hop, found good enough.

    `problems`: why they are not higher, where the certificate or the want of TLS is the reason.
    """

    level: ClassVar[EventLevel] = DEBUG
    next_hop: NextHop
    mx: str
    address: str
    security: Security
    reason: str
    problems: tuple[TLSProblem, ...] = ()
    message: str = field(default="", kw_only=True)


@value
class TestingPolicyMissed(Event):
    """An MTA-STS policy in testing mode would have refused this, had it been enforced (RFC 8461 5)."""

    level: ClassVar[EventLevel] = WARNING
    next_hop: NextHop
    mx: str
    address: str | None
    reason: str
    message: str = field(default="", kw_only=True)


@value
class OwnLoginRefused(Event):
    """A server that we are told to use refuses our user or password, or the ways in which we can log in; told once,
    until it is `OwnLoginAccepted`."""

    level: ClassVar[EventLevel] = ERROR
    mx: str
    user: str
    reason: str
    advice: str = "all mail of this target waits: mend its `auth` (user, password), reload, and try mailrider check"


@value
class OwnLoginAccepted(Event):
    """It is accepted again."""

    mx: str
    user: str


@value
class FellBackToClear(Event):
    """TLS failed or was refused, nothing demands it, and the message goes in clear (RFC 7435)."""

    level: ClassVar[EventLevel] = WARNING
    next_hop: NextHop
    mx: str
    address: str
    reason: str
    problem: TLSProblem
    message: str = field(default="", kw_only=True)


@value
class Dialogue(Event):
    """One line of an SMTP dialogue, `direction` `C` or `S`; content and secrets are never shown."""

    level: ClassVar[EventLevel] = DEBUG
    mx: str
    address: str
    direction: str
    line: str


@value
class RecipientSettled(Event):
    """An attempt ended for one recipient."""

    next_hop: NextHop | None
    sender: str
    outcome: Outcome
    message: str = field(default="", kw_only=True)

    @property
    def log_name(self) -> str:
        """What became of it."""
        return self.outcome.status.value


@value
class RecipientAttempted(RecipientSettled):
    """The same for a recipient that a queue has: it tells all of this again, with what follows from it."""

    level: ClassVar[EventLevel] = DEBUG


@value
class LimitReached(Event):
    """A message is held back by a limit: `scope`, its `key`, and for how many seconds at least. What it means to the
    message is told as `RecipientSettled` or `RecipientDone`, if it does not only wait for some seconds."""

    level: ClassVar[EventLevel] = DEBUG
    scope: str
    key: str
    seconds: float
    message: str = field(default="", kw_only=True)


@value
class LimitsUncounted(Event):
    """A message is held back for so many seconds, because nobody answers who counts by the limits for all processes.
    Told once, until somebody answers again."""

    level: ClassVar[EventLevel] = WARNING
    seconds: float
    message: str = field(default="", kw_only=True)


@value
class Bug(Event):
    """An exception that nobody expected; the recipients concerned were deferred."""

    level: ClassVar[EventLevel] = ERROR
    where: str
    error: BaseException
    message: str = field(default="", kw_only=True)


@value
class SecurityUnavailable(Event):
    """DNSSEC and DANE are off for all, and why; emitted when that begins."""

    level: ClassVar[EventLevel] = WARNING
    named: ClassVar[str] = "dnssec_and_dane_off"
    reason: str


@value
class ServerTrustChanged(Event):
    """A DNS server was found not to validate, and is not `believed` any more; or it validates again."""

    server: str
    believed: bool
    reason: str

    @property
    def log_name(self) -> str:
        """What was found."""
        return "dns_server_validates_again" if self.believed else "dns_server_does_not_validate"


@value
class DNSSECValidationWorks(Event):
    """DNSSEC signatures are checked in this process, of what these `servers` say."""

    servers: str
    validator: str


@value
class DNSServerUnfit(Event):
    """A DNS server was found unfit for validation in this process: it is not asked until a later probe finds it fit."""

    level: ClassVar[EventLevel] = WARNING
    server: str
    reason: str


@value
class DNSSECValidationFails(Event):
    """Nothing can be validated in this process: lookups fail and mail waits, until that changes."""

    level: ClassVar[EventLevel] = WARNING
    reason: str


@value
class RootKeysMissing(Event):
    """The root's zone has key signing keys that no trust anchor stands for, by their tags."""

    level: ClassVar[EventLevel] = WARNING
    tags: tuple[int, ...]


class Validity(enum.StrEnum):
    """What a validator found (RFC 4035 4.3)."""

    SECURE = "secure"
    INSECURE = "insecure"
    BOGUS = "bogus"


@value
class AnswerValidated(Event):
    """An answer of DNS was validated in this process."""

    level: ClassVar[EventLevel] = DEBUG
    validity: Validity
