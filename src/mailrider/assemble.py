"""Settings to objects: the only place that knows every class.

`Engine` is what all targets of a process share: clock, resolver, events. `open_remote` makes a `target.remote` of it.
No constructor does I/O; what is entered here is left in reverse order, whatever fails in between.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mailrider.clock import SystemClock
from mailrider.dane.match import match_evidence
from mailrider.delivery.connect import Connector
from mailrider.delivery.destination import Routing
from mailrider.delivery.fallback import FallbackMemory
from mailrider.delivery.pool import Pool
from mailrider.delivery.remote import RemoteDelivery
from mailrider.delivery.session import Dialect
from mailrider.dns.servers import read_resolv_conf
from mailrider.dns.stub import StubResolver
from mailrider.errors import ConfigError
from mailrider.model.event import SecurityUnavailable
from mailrider.net.dial import TCPDialer
from mailrider.net.local import OwnAddresses
from mailrider.net.settings import TLSClientSettings
from mailrider.net.tls import default_root_paths, make_client_context
from mailrider.policy.judge import Judge
from mailrider.x509.anchors import load_anchors
from mailrider.x509.cache import VerdictCache, verify_evidence

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from mailrider.clock import Clock
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.dns.resolver import Resolver
    from mailrider.dns.settings import DNSSettings
    from mailrider.model.event import Emit
    from mailrider.policy.base import Policy


@dataclass(frozen=True, slots=True)
class Engine:
    """What the targets of a process share."""

    resolver: Resolver
    clock: Clock
    rng: random.Random
    emit: Emit


@asynccontextmanager
async def open_engine(dns: DNSSettings, emit: Emit, clock: Clock | None = None) -> AsyncIterator[Engine]:
    """The shared part, open. Says once if DNSSEC and DANE are off, and why."""
    clock, rng = clock or SystemClock(), random.SystemRandom()
    resolver = StubResolver(
        dns.server or read_resolv_conf(),
        clock=clock,
        rng=rng,
        timeout=dns.timeout.total_seconds(),
        attempts=dns.attempts,
        cache_size=dns.cache,
    )
    if not resolver.validates:
        emit(SecurityUnavailable(resolver.choice.dnssec_off))
    async with resolver:
        yield Engine(resolver, clock, rng, emit)


@asynccontextmanager
async def open_remote(settings: RemoteSettings, engine: Engine) -> AsyncIterator[RemoteDelivery]:
    """A `target.remote`, open. Raises `ConfigError` for what cannot be: no host name, TLS settings, root files."""
    if settings.hostname is None:
        raise ConfigError("hostname is required: the name that we greet other servers with (EHLO)")
    tls = settings.tls_client or TLSClientSettings()
    debug = bool(settings.debug)
    dialect = Dialect(
        settings.hostname,
        settings.command_timeout.total_seconds(),
        settings.submission_timeout.total_seconds(),
        debug=debug,
    )
    connector = Connector(
        TCPDialer(engine.clock, settings.local_ip),
        engine.clock,
        make_client_context(tls),
        _judge(tls),
        dialect,
        FallbackMemory(engine.clock),
        engine.emit,
        settings.port,
    )
    routing = Routing(
        engine.resolver,
        engine.rng,
        engine.emit,
        settings.hostname,
        OwnAddresses(engine.clock, settings.own_addresses),
        engine.clock,
        settings.connect_timeout.total_seconds(),
        settings.force_ipv4,
    )
    async with AsyncExitStack() as stack:
        policies, evidence = await _open_policies(settings, engine, stack)
        pool = await stack.enter_async_context(Pool(connector, engine.emit))
        yield RemoteDelivery(settings, routing, policies, evidence, pool, engine.clock, engine.emit)


def _judge(tls: TLSClientSettings) -> Judge:
    """A judge that trusts the configured roots, or the system's."""
    files, directories = (tls.root_ca, ()) if tls.root_ca else default_root_paths()
    anchors = load_anchors(files, directories)
    verdicts = VerdictCache()
    return Judge(
        lambda evidence, names, now: verify_evidence(verdicts, anchors, evidence, names, now),
        partial(match_evidence, verdicts),
    )


async def _open_policies(
    settings: RemoteSettings, engine: Engine, stack: AsyncExitStack
) -> tuple[Sequence[Policy], Sequence[Policy]]:
    return (), ()
