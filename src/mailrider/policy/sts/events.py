"""What happens to MTA-STS policies, as events for the log and the counters.

`in_force` is the mode of the policy that holds although something failed; None means that the domain is treated as one
without a policy (RFC 8461 3.3), which is where an attacker wants to be, and where an operator wants to hear of it. A
failure while a policy of mode `none` is in force wants nobody's attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mailrider.model.event import ERROR, WARNING, Event, EventLevel
from mailrider.model.value import value

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from mailrider.model.domain import Domain
    from mailrider.model.tls_problem import TLSProblem
    from mailrider.model.tls_session import STSSeen
    from mailrider.mtasts.policy import STSMode


@value
class PolicyFetched(Event):
    """A policy was fetched. `changed`: it differs from the one before, or there was none."""

    domain: Domain
    id: str
    mode: STSMode
    max_age: timedelta
    changed: bool


@value
class PolicyLinesIgnored(Event):
    """Lines of a fetched policy are wrong and were passed over; the others bind. `lines` says which and why."""

    level: ClassVar[EventLevel] = WARNING
    domain: Domain
    lines: str


@value
class PolicyFetchFailed(Event):
    """The announced policy could not be fetched, or was none. `failure` is a word for counters, `held` is in force."""

    level: ClassVar[EventLevel] = WARNING
    domain: Domain
    failure: str
    reason: TLSProblem
    in_force: STSMode | None
    held: STSSeen | None = None


@value
class RecordLookupFailed(Event):
    """DNS did not say whether the domain has a policy."""

    level: ClassVar[EventLevel] = WARNING
    domain: Domain
    reason: str
    in_force: STSMode | None


@value
class RecordUnusable(Event):
    """The TXT record is malformed, or gone although a policy is in force: a mistake, or a downgrade attempt.

    Emitted once, until the record is right again or wrong in another way.
    """

    level: ClassVar[EventLevel] = WARNING
    domain: Domain
    reason: str
    in_force: STSMode | None


@value
class PolicyExpired(Event):
    """A policy reached its max_age and could not be fetched again; it was removed."""

    level: ClassVar[EventLevel] = WARNING
    domain: Domain
    mode: STSMode
    fetched: datetime


@value
class CacheFault(Event):
    """The cache is damaged or cannot be read or written; `consequence` says what was done about it."""

    level: ClassVar[EventLevel] = WARNING
    subject: str
    reason: str
    consequence: str


@value
class RefreshCrashed(Event):
    """A bug, met while a policy was refreshed in the background; the others go on."""

    level: ClassVar[EventLevel] = ERROR
    domain: Domain | None
    error: Exception
