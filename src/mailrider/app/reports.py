"""TLS reporting of a configuration: what counts, what keeps, what signs and what sends (RFC 8460)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mailrider.app.examine import signatures_within
from mailrider.dkim.sign import Signer
from mailrider.errors import ConfigError
from mailrider.model.domain import Domain
from mailrider.queue.settings import QueueSettings
from mailrider.reporting.mail import SIGNED_FIELDS
from mailrider.reporting.recorder import Recorder
from mailrider.reporting.service import ReportingRules, TLSReporting
from mailrider.reporting.settings import ReportedDays
from mailrider.reporting.store import ReportStore
from mailrider.settings.pipeline import TargetRef
from mailrider.signing.keys import open_key
from mailrider.tlsrpt.report import Reporter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mailrider.app.assemble import Engine
    from mailrider.app.examine import SignatureKey
    from mailrider.clock import Clock
    from mailrider.config import Configuration
    from mailrider.model.event import Emit
    from mailrider.queue.deliverer import Deliverer
    from mailrider.reporting.settings import TLSRPTSettings
    from mailrider.settings.pipeline import Target


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
    for owner in (*configuration.deliver_to, *configuration.targets.values(), *configuration.endpoints):
        for key in signatures_within(owner.settings):
            is_below = key.given.options.sign_subdomains and domain.ascii.endswith(f".{key.domain.ascii}")
            if key.domain == domain or is_below:
                found.setdefault((key.domain, key.selector), key)
    return list(found.values())


def refuse_impossible_reporting(configuration: Configuration) -> None:
    """Raises `ConfigError` if `through` is no queue."""
    settings = configuration.globals.tlsrpt
    if settings is None:
        return
    name = settings.through.name if isinstance(settings.through, TargetRef) else ""
    if not isinstance(configuration.target(name).settings, QueueSettings):
        raise ConfigError(f"tlsrpt: through &{name} is no queue, and reports by mail need one")


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
    refuse_impossible_reporting(configuration)
    reporter = reporter_of(settings)
    keys = await asyncio.to_thread(report_keys, configuration, Domain(reporter.domain))
    signers = await asyncio.to_thread(_open_signers, keys, engine.emit)
    rules = ReportingRules(reporter, settings.send is ReportedDays.FAILURES, settings.retain)
    queue = await open_target(settings.through)
    async with HTTPSPoster(
        engine.resolver, engine.clock, allowed=settings.allow_addresses, root_ca=settings.root_ca
    ) as poster:
        courier = ReportCourier(reporter, poster, queue, signers, engine.clock)
        store = store_of(configuration, settings)
        reporting = TLSReporting(rules, recorder, store, courier, engine.resolver, engine.clock, engine.emit)
        async with reporting:
            yield reporting
