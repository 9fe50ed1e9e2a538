"""Makes objects from settings: the only place that knows every class.

`Engine` is what all targets of a process share: clock, resolver, events. `open_remote` makes a `target.remote` of it.
No constructor does I/O; what is entered here is left in reverse order, whatever fails in between.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from mailrider.clock import SystemClock
from mailrider.config.settings import default_state_dir
from mailrider.dane.match import judge_dane
from mailrider.delivery.connection.connect import Connector
from mailrider.delivery.connection.fallback import FallbackMemory
from mailrider.delivery.connection.peer import SessionRules
from mailrider.delivery.connection.pool import Pool
from mailrider.delivery.connection.pool_state import PoolLimits
from mailrider.delivery.destination import RouteMemory, Routing
from mailrider.delivery.explain.plan import Explainer
from mailrider.delivery.job import AttemptRules
from mailrider.delivery.limits.shares import SharedFailures, Shares
from mailrider.delivery.race import AddressHistory
from mailrider.delivery.remote import RemoteDelivery
from mailrider.delivery.settings import EightBit, greeting_name
from mailrider.delivery.smarthost import AuthenticatingConnector, FixedDelivery, FixedServer, server_host
from mailrider.delivery.smarthost_settings import LMTPSettings, SmarthostSettings, StartTLSUse
from mailrider.dns.opening import open_resolver
from mailrider.model.event import NothingEnforced, SecurityUnavailable
from mailrider.model.security import NO_REQUIREMENT, Requirement, TLSLevel
from mailrider.net.address_guard import AddressGuard
from mailrider.net.dial import TCPDialer, UnixDialer
from mailrider.net.local import OwnAddresses
from mailrider.net.settings import TLSClientSettings
from mailrider.net.tls import default_root_paths, make_client_context, system_roots
from mailrider.policy.dane import DANEPolicies
from mailrider.policy.judge import Judge
from mailrider.policy.levels import DNSSECPolicy, LocalMinimum
from mailrider.policy.settings import MTASTS, STSCache
from mailrider.policy.sts.cache import PolicyStore
from mailrider.policy.sts.files import FSStore
from mailrider.policy.sts.policy import STSPolicies
from mailrider.policy.sts.source import PolicySource
from mailrider.settings.directive import revealed
from mailrider.settings.socket_address import Scheme
from mailrider.signing.open import open_signing
from mailrider.x509.anchors import load_anchors
from mailrider.x509.verify import TimedVerdict, judge_chain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime

    from mailrider.clock import Clock
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.dns.resolver import Resolver
    from mailrider.dns.settings import DNSSettings
    from mailrider.dns.validation import Proven
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit, Event
    from mailrider.net.dial import Dialer
    from mailrider.policy.base import Policy
    from mailrider.settings.socket_address import SocketAddress
    from mailrider.settings.types import IPNetwork
    from mailrider.signing.settings import ModifySettings

ConnectorT = TypeVar("ConnectorT", bound=Connector)


@dataclass(frozen=True, slots=True)
class Engine:
    """What the targets of a process share. `reports_tls`: they tell what TLS reports are made from (RFC 8460).

    `report_networks`: networks that TLS reports may go to although they are not public.
    """

    resolver: Resolver
    clock: Clock
    rng: random.Random
    emit: Emit
    shares: Shares
    reports_tls: bool = False
    report_networks: tuple[IPNetwork, ...] = ()


@asynccontextmanager
async def open_engine(
    dns: DNSSettings,
    emit: Emit,
    clock: Clock | None = None,
    shares: Shares | None = None,
    proven: Proven | None = None,
    *,
    needs_dnssec: bool = True,
    reports_tls: bool = False,
    report_networks: tuple[IPNetwork, ...] = (),
) -> AsyncIterator[Engine]:
    """The shared part, open. Says if DNSSEC and DANE are off where they are needed, and why.

    `shares`, `proven`: those of other engines.
    """
    clock, rng = clock or SystemClock(), random.SystemRandom()
    told = emit if needs_dnssec else _without_loss_of_dnssec(emit)
    async with open_resolver(dns, clock, rng, told, proven=proven, tls_roots=system_roots()) as resolver:
        yield Engine(resolver, clock, rng, emit, shares or Shares(clock), reports_tls, report_networks)


def _without_loss_of_dnssec(emit: Emit) -> Emit:
    def told(event: Event) -> None:
        if not isinstance(event, SecurityUnavailable):
            emit(event)

    return told


@asynccontextmanager
async def open_remote(settings: RemoteSettings, engine: Engine, owner: str = "") -> AsyncIterator[RemoteDelivery]:
    """A `target.remote`, open. Raises `ConfigError` for what cannot be: no host name, TLS settings, root files.

    `owner`: see `Shares.limiter`.
    """
    if not settings.mx_auth.is_stated:
        engine.emit(NothingEnforced(owner if owner.startswith("target ") else "target.remote"))
    async with _open_parts(settings, engine, owner) as (delivery, _):
        yield delivery


@asynccontextmanager
async def open_explainer(settings: RemoteSettings, engine: Engine) -> AsyncIterator[Explainer]:
    """What explains the deliveries of a `target.remote`, made of that target's own parts. Raises as `open_remote`."""
    # Nothing is sent, so no key is needed, or made.
    async with _open_parts(replace(settings, modify=None), engine) as (delivery, connector):
        yield Explainer(delivery, connector)


@asynccontextmanager
async def _open_parts(
    settings: RemoteSettings, engine: Engine, owner: str = ""
) -> AsyncIterator[tuple[RemoteDelivery, Connector]]:
    address_history = AddressHistory(engine.clock)
    dialer = TCPDialer(engine.clock, settings.local_ip)
    make_connector = _connector_maker(Connector, settings, engine)
    connector = make_connector(dialer, _session_rules(settings), owner, settings.port, address_history)
    routing = Routing(
        engine.resolver,
        engine.rng,
        engine.emit,
        greeting_name(settings.hostname),
        OwnAddresses(engine.clock, settings.own_addresses).look_up,
        engine.clock,
        settings.connect_timeout.total_seconds(),
        RouteMemory(engine.resolver, engine.clock, force_ipv4=settings.force_ipv4),
        address_history,
        settings.force_ipv4,
    )
    async with AsyncExitStack() as stack:
        policies = _Policies(settings, engine, stack, owner)
        listed = await policies.listed()
        pool = await stack.enter_async_context(_make_pool(connector, settings, engine, owner))
        limiter = engine.shares.limiter(settings.limits, owner)
        signing = await open_signing(with_state_dir(settings.modify), engine.clock, engine.emit)
        delivery = RemoteDelivery(
            settings,
            routing,
            listed,
            policies.evidence,
            pool,
            engine.clock,
            engine.emit,
            limiter,
            signing=signing,
            reports_tls=engine.reports_tls,
            report_networks=engine.report_networks,
        )
        yield delivery, connector


@asynccontextmanager
async def open_smarthost(settings: SmarthostSettings, engine: Engine, owner: str = "") -> AsyncIterator[FixedDelivery]:
    """A `target.smtp` or `target.lmtp`, open. Raises `ConfigError` as `open_remote` does; `owner` as there."""
    credentials = revealed(settings.auth)
    make_connector = _connector_maker(AuthenticatingConnector, settings, engine)
    is_lmtp = isinstance(settings, LMTPSettings)
    async with AsyncExitStack() as stack:
        servers: list[FixedServer] = []
        for address in settings.host:
            dialer = (
                TCPDialer(engine.clock, settings.local_ip)
                if address.path is None
                else UnixDialer(engine.clock, address.path)
            )
            address_history = AddressHistory(engine.clock)
            session_rules = replace(
                _session_rules(settings),
                lmtp=is_lmtp,
                implicit_tls=address.scheme is Scheme.TLS,
                starttls=settings.starttls is not StartTLSUse.NO and address.scheme is not Scheme.UNIX,
            )
            connector = make_connector(dialer, session_rules, f"{owner} {address}", address.port, address_history)
            connector.credentials = credentials
            pool = await stack.enter_async_context(_make_pool(connector, settings, engine, f"{owner} {address}"))
            servers.append(
                FixedServer(server_host(address), pool, _fixed_requirement(settings, address), address_history)
            )
        rules = AttemptRules(settings.eight_bit is EightBit.STRICT, settings.local_ip)
        timeout = settings.connect_timeout.total_seconds()
        limiter = engine.shares.limiter(settings.limits, owner)
        yield FixedDelivery(rules, timeout, servers, engine.resolver, engine.clock, engine.emit, limiter, lmtp=is_lmtp)


def _connector_maker(
    kind: type[ConnectorT], settings: RemoteSettings | SmarthostSettings, engine: Engine
) -> Callable[[Dialer, SessionRules, str, int, AddressHistory], ConnectorT]:
    """What makes the connectors of a target, all with its TLS settings and roots. Raises `ConfigError`."""
    tls = settings.tls_client or TLSClientSettings()
    context, strict_context, judge = make_client_context(tls), make_client_context(tls, strict=True), _judge(tls)

    def make(dialer: Dialer, rules: SessionRules, owner: str, port: int, address_history: AddressHistory) -> ConnectorT:
        fallback = FallbackMemory(engine.clock, engine.shares.client, owner)
        return kind(
            dialer, engine.clock, context, judge, rules, fallback, engine.emit, port, address_history, strict_context
        )

    return make


def _session_rules(settings: RemoteSettings | SmarthostSettings) -> SessionRules:
    return SessionRules(
        greeting_name(settings.hostname),
        settings.command_timeout.total_seconds(),
        settings.submission_timeout.total_seconds(),
        debug=bool(settings.debug),
    )


def _fixed_requirement(settings: SmarthostSettings, address: SocketAddress) -> Requirement:
    """What TLS must prove to us; a unix socket proves by its place in the file system who it is."""
    if address.scheme is Scheme.UNIX or (address.scheme is Scheme.TCP and settings.starttls is StartTLSUse.NO):
        return NO_REQUIREMENT
    is_optional = settings.starttls is StartTLSUse.OFFERED and address.scheme is Scheme.TCP
    least = TLSLevel.NONE if is_optional else TLSLevel.ENCRYPTED
    return Requirement(min_tls=max(least, settings.min_tls_level), tls_reason="min_tls_level")


def with_state_dir(modify: ModifySettings | None) -> ModifySettings | None:
    """Settings with a directory for keys: where a program gave none, that of a configuration that gives none."""
    return modify if modify is None or modify.state_dir is not None else replace(modify, state_dir=default_state_dir())


def _make_pool(connector: Connector, settings: RemoteSettings | SmarthostSettings, engine: Engine, owner: str) -> Pool:
    """A pool that shares its numbers with those of the same owner in other workers. Idle connections it has itself."""
    limits = PoolLimits(
        settings.conn_reuse_limit,
        -(-settings.conn_max_idle_count // engine.shares.workers),
        settings.conn_max_idle_time.total_seconds(),
        settings.max_connections_per_host,
    )
    shares = engine.shares.connections(owner, limits.per_endpoint, limits.total)
    return Pool(connector, limits, engine.clock, engine.emit, shares)


def _judge(tls: TLSClientSettings) -> Judge:
    """A judge that trusts the configured roots, or the system's."""
    files, directories = (tls.root_ca, ()) if tls.root_ca else default_root_paths()
    anchors = load_anchors(files, directories)

    def verify_pkix(chain: Sequence[bytes], names: tuple[Domain, ...], now: datetime) -> TimedVerdict:
        return judge_chain(chain, anchors, names, now)

    return Judge(verify_pkix, judge_dane)


class _Policies:
    """The policies of a target: those that are listed, and those that REQUIRETLS asks as well."""

    def __init__(self, settings: RemoteSettings, engine: Engine, stack: AsyncExitStack, owner: str) -> None:
        self._settings = settings
        self._owner = owner
        self._auth = settings.mx_auth
        self._engine = engine
        self._stack = stack
        self._opening = asyncio.Lock()
        self._sts: STSPolicies | None = None
        self._evidence: Sequence[Policy] | None = None

    async def listed(self) -> Sequence[Policy]:
        """The policies of `mx_auth`, in the order of evaluation."""
        auth, engine = self._auth, self._engine
        listed: list[Policy] = []
        if auth.mtasts is not None:
            listed.append(await self._open_sts(auth.mtasts))
        if auth.dane is not None:
            listed.append(DANEPolicies(engine.resolver, self._settings.port, engine.emit))
        if auth.dnssec is not None:
            listed.append(DNSSECPolicy())
        if auth.local_policy is not None:
            listed.append(LocalMinimum(auth.local_policy))
        return listed

    async def evidence(self) -> Sequence[Policy]:
        """The listed ones and MTA-STS, DANE, DNSSEC in any case; opened when the first message needs them."""
        async with self._opening:
            if self._evidence is None:
                sts = self._sts or await self._open_sts(MTASTS(cache="ram"))
                local = [LocalMinimum(self._auth.local_policy)] if self._auth.local_policy is not None else []
                dane = DANEPolicies(self._engine.resolver, self._settings.port, self._engine.emit)
                self._evidence = (sts, dane, DNSSECPolicy(), *local)
        return self._evidence

    async def _open_sts(self, settings: MTASTS) -> STSPolicies:
        from mailrider.net.https import HTTPSFetcher  # with aiohttp, which only MTA-STS needs

        engine = self._engine
        fetcher = HTTPSFetcher(
            engine.resolver,
            engine.clock,
            guard=AddressGuard.beside(self._settings.prohibited_addresses, settings.allow_addresses),
            port=settings.https_port,
            root_ca=settings.root_ca,
        )
        await self._stack.enter_async_context(fetcher)
        source = PolicySource(
            resolver=engine.resolver,
            fetcher=fetcher,
            store=self._store(settings),
            clock=engine.clock,
            emit=engine.emit,
            rng=engine.rng,
            failures=None if engine.shares.client is None else SharedFailures(engine.shares.client, self._owner),
        )
        await self._stack.enter_async_context(source)
        self._sts = STSPolicies(source, engine.clock, engine.emit)
        return self._sts

    def _store(self, settings: MTASTS) -> PolicyStore:
        if settings.cache is STSCache.RAM:
            return PolicyStore(self._engine.clock)
        return FSStore(settings.fs_dir or default_state_dir() / "mtasts_cache", self._engine.clock, self._engine.emit)
