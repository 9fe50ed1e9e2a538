"""A day after day of TLS reporting on a clock that stands still, with a store on disk and no threads."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.model.tls_session import PoliciesSeen, TLSSessionSeen
from mailrider.reporting.recorder import Recorder
from mailrider.reporting.service import ReportingRules, Sent, TLSReporting
from mailrider.reporting.store import DeliveryState, EndpointKind, ReportStore
from mailrider.testing.clock import FakeClock
from mailrider.testing.resolver import FakeResolver
from mailrider.tlsrpt.report import Reporter

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from mailrider.model.event import Event
    from mailrider.tlsrpt.report import TLSReport

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
REPORTER = Reporter("Example Inc.", "tls@sender.test", "sender.test")
BY_MAIL = b"v=TLSRPTv1; rua=mailto:reports@a.test"
DAY, HOUR = 86400.0, 3600.0


def session(domain: str = "a.test", *, fails: bool = False) -> TLSSessionSeen:
    problem = TLSProblem(TLSProblemKind.STARTTLS_NOT_OFFERED, "no") if fails else None
    policies = PoliciesSeen(domain, all_asked=True)
    return TLSSessionSeen(policies, f"mx.{domain}", "mx", "192.0.2.25", "192.0.2.1", problem)


class FakeCourier:
    """Takes what it is given; `answers` say what comes of the first ones."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str, bytes]] = []
        self.answers: list[DeliveryState] = []
        self.bug: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def send(self, report: TLSReport, kind: EndpointKind, target: str) -> Sent:
        self.sent.append((report.domain, target, report.report_id, report.body))
        if self.gate is not None:
            await self.gate.wait()
        if self.bug is not None:
            raise self.bug
        state = self.answers.pop(0) if self.answers else DeliveryState.DELIVERED
        return Sent(state, "for people")


async def _at_once(work: Any, *arguments: Any) -> Any:
    return work(*arguments)


def days_in(folder: Path) -> list[Any]:
    """What a store holds that nobody has open."""
    with closing(ReportStore(folder)) as store:
        return list(store.days())


class World:
    """`start` opens the service, `stop` ends it as a shutdown, `kill` without a last word."""

    def __init__(self, folder: Path, records: dict[str, Any] | None = None, tick: float = 120, **rules: Any) -> None:
        self.clock = FakeClock(NOON)
        self.folder = folder
        self.tick = tick
        zone = {(f"_smtp._tls.{name}", "TXT"): text for name, text in (records or {"a.test": BY_MAIL}).items()}
        self.resolver = FakeResolver(zone, clock=self.clock)
        self.courier = FakeCourier()
        self.events: list[Event] = []
        self.rules = ReportingRules(REPORTER, **rules)

    async def start(self) -> None:
        self.recorder = Recorder(self.clock, "tls@sender.test")
        self.store = ReportStore(self.folder, timedelta(hours=4))
        self.service = TLSReporting(
            self.rules,
            self.recorder,
            self.store,
            self.courier,
            self.resolver,
            self.clock,
            self.events.append,
            _at_once,
            self.tick,
        )
        await self.service.__aenter__()

    async def stop(self) -> None:
        await self.service.__aexit__()

    async def kill(self) -> None:
        self.recorder.take()
        await self.service.__aexit__()

    async def pass_time(self, seconds: float) -> None:
        """In steps of ten minutes, and of a tick at the end: a tick each would take a test a minute."""
        while seconds > 600:
            await self.clock.advance(600)
            seconds -= 600
        await self.clock.advance(seconds)
