"""TLS reporting of a configuration: what counts, what keeps, what signs and what sends (RFC 8460)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailrider.app.examine import signatures_within
from mailrider.delivery.settings import RemoteSettings
from mailrider.dkim.sign import Signer
from mailrider.dns.answer import LookupFailed
from mailrider.errors import ConfigError
from mailrider.model.domain import Domain
from mailrider.net.address_guard import AddressGuard
from mailrider.queue.settings import QueueSettings
from mailrider.reporting.mail import SIGNED_FIELDS
from mailrider.reporting.recorder import Recorder
from mailrider.reporting.service import ReportingRules, TLSReporting, report_record
from mailrider.reporting.settings import ReportedDays
from mailrider.reporting.store import ReportStore
from mailrider.settings.pipeline import TargetRef
from mailrider.signing.keys import open_key
from mailrider.tlsrpt.record import NoReportRecord
from mailrider.tlsrpt.report import Reporter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mailrider.app.assemble import Engine
    from mailrider.app.examine import SignatureKey
    from mailrider.clock import Clock
    from mailrider.config import Configuration
    from mailrider.model.domain import NextHop
    from mailrider.model.event import Emit
    from mailrider.queue.work import Deliverer
    from mailrider.reporting.settings import TLSRPTSettings
    from mailrider.reporting.store import StoredDay
    from mailrider.settings.pipeline import Target
    from mailrider.tlsrpt.report import DayCounts


def make_recorder(configuration: Configuration, clock: Clock) -> Recorder | None:
    """What counts sessions; None where no reports are sent."""
    settings = configuration.globals.tlsrpt
    if settings is None:
        return None
    return Recorder(clock, str(settings.contact), configuration.globals.own_addresses)


def reporter_of(settings: TLSRPTSettings) -> Reporter:
    """Who reports."""
    contact = settings.contact
    if settings.organization is None or contact is None or not isinstance(contact.domain, Domain):
        raise ConfigError("tlsrpt: organization and contact are required")
    return Reporter(settings.organization, str(contact), contact.domain.ascii)


def store_of(configuration: Configuration, settings: TLSRPTSettings) -> ReportStore:
    """Where it is kept: in the state directory, for all processes."""
    return ReportStore(configuration.globals.state_dir / "tls_reports", settings.spread)


def report_keys(configuration: Configuration, domain: Domain) -> list[SignatureKey]:
    """The keys that sign for the domain, wherever in the configuration. Raises `ConfigError`."""
    found: dict[tuple[Domain, str], SignatureKey] = {}
    for owner in configuration.owners:
        for key in signatures_within(owner.settings):
            is_below = key.given.options.sign_subdomains and domain.ascii.endswith(f".{key.domain.ascii}")
            if key.domain == domain or is_below:
                found.setdefault((key.domain, key.selector), key)
    return list(found.values())


def report_guard(configuration: Configuration, settings: TLSRPTSettings) -> AddressGuard:
    """Where reports may be posted: as those by mail, by the `prohibited_addresses` of the target behind `through`."""
    target = remote_behind(configuration, settings.through)
    if target is None:
        return AddressGuard(settings.allow_addresses)
    return AddressGuard.beside(target.prohibited_addresses, settings.allow_addresses)


def remote_behind(configuration: Configuration, through: Target | None) -> RemoteSettings | None:
    """The `target.remote` that a queue leads to; None if it delivers by something else, or in a circle."""
    target: object = through
    seen: set[str] = set()
    while isinstance(target, TargetRef | QueueSettings):
        if isinstance(target, QueueSettings):
            target = target.target
        elif target.name in seen:
            return None
        else:
            seen.add(target.name)
            target = configuration.target(target.name).settings
    return target if isinstance(target, RemoteSettings) else None


@dataclass(frozen=True, slots=True)
class ReportsExplained:
    """Whether a domain asks for TLS reports, and what was counted of it today. `is_known` False: its DNS is silent."""

    endpoints: tuple[str, ...]
    reason: str
    counts: DayCounts | None
    is_known: bool = True

    @property
    def text(self) -> str:
        """For a person."""
        counts = () if self.counts is None else self.counts.policies.values()
        good, bad = sum(each.successful for each in counts), sum(each.failed for each in counts)
        where = f"go to {', '.join(self.endpoints)}"
        if not self.endpoints:
            where = f"{'are not wanted' if self.is_known else 'may be wanted or not'}: {self.reason}"
        return f"TLS reports {where} (counted today: {good} good, {bad} failed)"

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        today = [] if self.counts is None else self.counts.as_json()
        return {"endpoints": list(self.endpoints), "reason": self.reason, "today": today}


async def explain_reports(configuration: Configuration, engine: Engine, next_hop: NextHop) -> ReportsExplained | None:
    """What `mailrider explain` says of TLS reports to a domain; None where none are sent."""
    settings = configuration.globals.tlsrpt
    if settings is None or not isinstance(next_hop, Domain):
        return None
    is_known = True
    try:
        record = await report_record(engine.resolver, next_hop)
        reason = record.reason if isinstance(record, NoReportRecord) else ""
        endpoints = () if isinstance(record, NoReportRecord) else tuple(map(str, record.endpoints))
    except LookupFailed as error:
        reason, endpoints, is_known = str(error), (), False
    store = store_of(configuration, settings)
    days: list[StoredDay] = []
    if store.path.exists():
        days = await asyncio.to_thread(store.days, next_hop.ascii, engine.clock.now().date())
    return ReportsExplained(endpoints, reason, days[0].counts if days else None, is_known)


def _open_signers(keys: list[SignatureKey], emit: Emit) -> list[Signer]:
    return [
        Signer(
            each.domain,
            each.selector,
            open_key(each.path, each.given.options.newkey_algo, each.domain, each.selector, emit),
            SIGNED_FIELDS,
            (),
        )
        for each in keys
    ]


@asynccontextmanager
async def open_reporting(
    configuration: Configuration,
    recorder: Recorder,
    engine: Engine,
    open_target: Callable[[Target], Awaitable[Deliverer]],
) -> AsyncIterator[TLSReporting]:
    """What makes and sends reports, running while this is entered. Raises `ConfigError`."""
    from mailrider.net.https import HTTPSPoster  # with aiohttp, which nobody else may need
    from mailrider.reporting.courier import ReportCourier

    settings = configuration.globals.tlsrpt
    if settings is None or not isinstance(settings.through, TargetRef):
        raise ConfigError("tlsrpt: through is required")
    reporter = reporter_of(settings)
    keys = await asyncio.to_thread(report_keys, configuration, Domain(reporter.domain))
    signers = await asyncio.to_thread(_open_signers, keys, engine.emit)
    rules = ReportingRules(reporter, settings.send is ReportedDays.FAILURES, settings.retain)
    queue = await open_target(settings.through)
    guard = report_guard(configuration, settings)
    async with HTTPSPoster(engine.resolver, engine.clock, guard=guard, root_ca=settings.root_ca) as poster:
        courier = ReportCourier(reporter, poster, queue, signers, engine.clock)
        store = store_of(configuration, settings)
        reporting = TLSReporting(rules, recorder, store, courier, engine.resolver, engine.clock, engine.emit)
        async with reporting:
            yield reporting
