"""Opens an endpoint from its settings: its certificate, its passwords, its checks, and the way to its targets."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from mailrider.app.pipelines import PipelineOpener
from mailrider.config import placed_at
from mailrider.endpoint.aliases import Aliases
from mailrider.endpoint.intake import Memory
from mailrider.endpoint.listener import ConnectionLimits, Endpoint
from mailrider.endpoint.passwords import PasswordFile, read_passwords
from mailrider.endpoint.pipeline.route import UNTOUCHED, Branch, PipelineDeliverer, Router, RouteStage
from mailrider.endpoint.service import Service
from mailrider.endpoint.settings import LMTPEndpointSettings, SubmissionSettings
from mailrider.endpoint.transaction import postmaster_of
from mailrider.endpoint.trust import Trust
from mailrider.errors import ConfigError, LocalError, do_all
from mailrider.header.fields import ReceivedDetail
from mailrider.model.endpoint_event import AliasUnusable
from mailrider.net.local import Gateways, OwnAddresses
from mailrider.net.tls import make_server_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.delivery.limits.shares import Shares
    from mailrider.endpoint.logins import Logins
    from mailrider.endpoint.settings import EndpointSettings, SourceSettings
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit
    from mailrider.net.tls import ServerContext
    from mailrider.queue.ids import IdSource
    from mailrider.queue.work import Deliverer
    from mailrider.settings.pipeline import Target

GRACE: Final = 20.0  # seconds for messages that are under way when an endpoint closes


@dataclass(frozen=True, slots=True)
class EndpointResources:
    """What an endpoint finds in the process that it runs in. `open_target` opens a target, if it is not
    open yet.

    `names` gives ids to messages. `logins` None: wrong passwords are not counted. So many `workers` have the endpoint
    together.
    """

    open_target: Callable[[Target], Awaitable[Deliverer]]
    clock: Clock
    emit: Emit
    shares: Shares
    names: IdSource
    logins: Logins | None = None
    workers: int = 1


@asynccontextmanager
async def open_endpoint(name: str, settings: EndpointSettings, resources: EndpointResources) -> AsyncIterator[Endpoint]:
    """An endpoint, ready to accept mail: `Endpoint.open` is due. Raises `ConfigError`."""
    if settings.hostname is None:
        raise ConfigError("hostname is required: the name that we greet with")
    async with AsyncExitStack() as stack:
        trust = _trust(settings, resources.clock)
        router = await _open_router(settings, resources, stack, trust)
        spooled = spool_share(settings, resources.workers)
        service = Service(
            name,
            settings.hostname,
            router,
            router.judge,
            resources.clock,
            resources.emit,
            resources.names.reserve,
            Memory(),
            tls=server_context(settings),
            authenticator=await _open_passwords(settings, stack),
            needs_login=settings.needs_login,
            is_submission=isinstance(settings, SubmissionSettings),
            origin=origin_of(settings),
            postmaster=router.postmaster,
            aliases=_open_aliases(name, settings, resources.emit),
            trust=trust,
            is_lmtp=isinstance(settings, LMTPEndpointSettings),
            max_size=settings.max_message_size,
            max_header=settings.max_header_size,
            max_recipients=settings.max_recipients,
            max_received=settings.max_received,
            read_timeout=settings.read_timeout.total_seconds(),
            spool=_open_spool(settings.spool),
            disk=Memory(spooled),
            local_disk=Memory(spooled),
            logins=resources.logins,
            received=settings.received if isinstance(settings, SubmissionSettings) else ReceivedDetail.FULL,
            forget_id=resources.names.forget,
        )
        limits = ConnectionLimits(settings.max_connections, settings.max_client_connections)
        owner = " ".join(map(str, settings.listen))
        shares = resources.shares.clients(owner, limits.most, limits.most_of_one)
        endpoint = Endpoint(service, settings.listen, limits, settings.proxy_from, shares)
        try:
            yield endpoint
        finally:
            await endpoint.close(GRACE)


def spool_share(settings: EndpointSettings, workers: int) -> int:
    """The part of `max_spool` that one of so many workers has: enough for the largest message (see `Memory`)."""
    return min(settings.max_spool, max(-(-settings.max_spool // workers), 2 * settings.max_message_size))


def origin_of(settings: EndpointSettings) -> Domain | None:
    """The domain of addresses without one, where such addresses are taken."""
    hostname = settings.hostname
    if not isinstance(settings, SubmissionSettings):
        return None
    given = settings.origin
    return hostname if given is None else given


def aliases_of(settings: EndpointSettings) -> Aliases | None:
    """The aliases that hold at an endpoint, not read yet."""
    origin = origin_of(settings)
    if origin is None or not isinstance(settings, SubmissionSettings) or settings.aliases is None:
        return None
    return Aliases(settings.aliases, origin)


def _open_aliases(name: str, settings: EndpointSettings, emit: Emit) -> Aliases | None:
    """Read them, so that what is wrong is known before mail comes. Raises `ConfigError` for a file that cannot be."""
    aliases = aliases_of(settings)
    for fault in () if aliases is None else aliases.load():
        emit(AliasUnusable(name, "", fault))
    return aliases


def _open_spool(path: Path | None) -> Path | None:
    """The directory for large messages; made if there is none, readable by nobody else. Raises `LocalError`."""
    if path is not None:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(f"cannot make the directory {path} for messages that arrive: {error.strerror}") from error
    return path


def _trust(settings: EndpointSettings, clock: Clock) -> Trust | None:
    if not isinstance(settings, SubmissionSettings) or not settings.trust:
        return None
    return Trust(settings.trust, settings.sender_domains, OwnAddresses(clock), Gateways(clock))


async def _open_router(
    settings: EndpointSettings, resources: EndpointResources, stack: AsyncExitStack, trust: Trust | None
) -> Router:
    assert settings.hostname is not None  # noqa: S101 # `open_endpoint` has seen to that
    opener = PipelineOpener(resources.open_target, resources.clock, resources.emit, stack)
    own = await opener.stage(settings, UNTOUCHED)
    if trust is not None:
        own = RouteStage((trust, *own.checks), own.signing)

    async def branch(pipeline: EndpointSettings | SourceSettings) -> Branch:
        stage = own
        if pipeline is not settings:
            inner = await opener.stage(pipeline, own)
            stage = RouteStage((*own.checks, *inner.checks), inner.signing)
        routes = await opener.routes(pipeline, stage)
        way = PipelineDeliverer(routes, resources.emit, answers_each=isinstance(settings, LMTPEndpointSettings))
        return Branch(way, stage.checks, postmaster_of(pipeline, hostname), resources.emit)

    hostname = settings.hostname
    sources = [(rule.matches, await branch(rule.pipeline)) for rule in settings.source]
    others = await branch(settings.default_source or settings)
    limiter = resources.shares.limiter(settings.limits, " ".join(map(str, settings.listen)))
    is_lmtp = isinstance(settings, LMTPEndpointSettings)
    return Router(sources, others, limiter, hostname, resources.emit, answers_each=is_lmtp)


async def _open_passwords(settings: EndpointSettings, stack: AsyncExitStack) -> PasswordFile | None:
    if settings.auth is None:
        return None
    return await stack.enter_async_context(PasswordFile(settings.auth))


def server_context(settings: EndpointSettings) -> ServerContext | None:
    """The TLS context of an endpoint; None if it has no certificate. Raises `ConfigError`."""
    tls = settings.tls
    if tls is None or tls.cert is None or tls.key is None:
        return None
    with placed_at(tls.position):
        return make_server_context(tls.cert, tls.key, protocols=tls.versions)


def try_endpoint(settings: EndpointSettings) -> None:
    """Find out what would keep an endpoint from opening, before anything is closed for it. Raises as that does."""
    steps: list[Callable[[], object]] = [partial(server_context, settings)]
    if settings.auth is not None:
        steps.append(partial(read_passwords, settings.auth))
    if (aliases := aliases_of(settings)) is not None:
        steps.append(aliases.load)
    do_all(steps)
