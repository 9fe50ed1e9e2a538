"""What happens to TLS reports, as events for the log and the counters."""

from __future__ import annotations

from typing import ClassVar

from mailrider.model.event import WARNING, Event, EventLevel
from mailrider.model.value import value


@value
class TLSReportSettled(Event):
    """A report has reached one `endpoint` (`mail`, `https`), or never will. `outcome` is a word for counters."""

    domain: str
    day: str
    endpoint: str
    outcome: str
    reason: str


@value
class TLSReportsHeldUp(Event):
    """The store of TLS reports cannot be used; counts are kept in memory, and nothing is sent, until it can."""

    level: ClassVar[EventLevel] = WARNING
    reason: str


@value
class TLSReportsResumed(Event):
    """The store of TLS reports can be used again."""
