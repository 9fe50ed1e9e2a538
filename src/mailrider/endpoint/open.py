"""Settings of an endpoint to an open one: its certificate, its passwords, its checks, and the way to its targets."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mailrider.delivery.limits.rules import PATIENCE, THROTTLED
from mailrider.endpoint.aliases import Aliases
from mailrider.endpoint.headers import ReceivedDetail
from mailrider.endpoint.intake import Memory
from mailrider.endpoint.listener import ConnectionLimits, Endpoint
from mailrider.endpoint.passwords import PasswordFile, read_passwords
from mailrider.endpoint.pipeline.checks import Guard
from mailrider.endpoint.pipeline.open import open_checks
from mailrider.endpoint.pipeline.route import PipelineDeliverer, RouteStage
from mailrider.endpoint.recipients import postmaster_of
from mailrider.endpoint.session import Service
from mailrider.endpoint.settings import LMTPEndpointSettings, SubmissionSettings, pipeline_for
from mailrider.endpoint.trust import Trust
from mailrider.errors import ConfigError, LocalError
from mailrider.model.endpoint_event import AliasUnusable
from mailrider.model.outcome import AttemptReport, Deferred
from mailrider.model.reply import Reply
from mailrider.net.local import Gateways, OwnAddresses
from mailrider.net.tls import make_server_context
from mailrider.settings.pipeline import decide
from mailrider.signing.open import open_signing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.delivery.limits.rules import Limiter, Limiters
    from mailrider.endpoint.logins import Logins
    from mailrider.endpoint.pipeline.check import Arrival
    from mailrider.endpoint.settings import DoorRouteSettings, EndpointSettings, SourceSettings
    from mailrider.model.address import Mailbox, ReversePath
    from mailrider.model.domain import Domain
    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Emit
    from mailrider.net.tls import ServerContext
    from mailrider.queue.deliverer import Deliverer
    from mailrider.settings.pipeline import Target
    from mailrider.smtp.content import Content

# RFC 5321 4.5.3.1.10: clients send it again for the recipients that were too many.
ON_ITS_OWN: Final = Reply.make(452, "4.5.3", "Send it to this recipient in a transaction of its own")
GRACE: Final = 20.0  # seconds for messages that are under way when an endpoint closes


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an endpoint finds in the process that it runs in. `target_of` gives open targets.

    `logins` None: wrong passwords are not counted.
    """

    target_of: Callable[[Target], Deliverer]
    clock: Clock
    emit: Emit
    limiters: Limiters
    logins: Logins | None = None


class Router:
    """The sink of an endpoint: the part of its pipeline that is the sender's, with limits, checks and signatures before
    it."""

    def __init__(
        self,
        settings: EndpointSettings,
        ways: Mapping[int, PipelineDeliverer],
        guards: Mapping[int, Guard],
        limiter: Limiter | None,
        hostname: Domain,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self._clock = clock
        self._emit = emit
        self._settings = settings
        self._ways = ways
        self._guards = guards
        self._limiter = limiter
        self._hostname = hostname
        self._answers_each = isinstance(settings, LMTPEndpointSettings)

    def judge(self, sender: ReversePath, mailbox: Mailbox, first: Mailbox | None = None) -> Reply | None:
        """Why a recipient is refused; None if it is not. `first`: the one that the transaction has already."""
        pipeline = pipeline_for(self._settings, sender)
        route = decide(pipeline, mailbox)
        if isinstance(route, Reply):
            return route
        if first is None or self._answers_each or self._companions(pipeline, sender, first, mailbox):
            return None
        return ON_ITS_OWN

    def _companions(
        self, pipeline: EndpointSettings | SourceSettings, sender: ReversePath, first: Mailbox, another: Mailbox
    ) -> bool:
        return self._ways[id(pipeline)].companions(sender, first, another)

    def postmaster(self, sender: ReversePath) -> Mailbox:
        """Whom `RCPT TO:<postmaster>` means."""
        return postmaster_of(pipeline_for(self._settings, sender), self._hostname)

    def deliver(self, envelope: Envelope, content: Content, arrival: Arrival) -> Coroutine[Any, Any, AttemptReport]:
        """See `MessageSink`."""
        guard = self._guards[id(pipeline_for(self._settings, envelope.sender))]
        if self._limiter is None:
            return guard.deliver(envelope, content, arrival)
        return self._deliver_within(self._limiter, guard, envelope, content, arrival)

    async def _deliver_within(
        self, limiter: Limiter, guard: Guard, envelope: Envelope, content: Content, arrival: Arrival
    ) -> AttemptReport:
        domains = {each.mailbox.domain or self._hostname for each in envelope.recipients}
        async with AsyncExitStack() as stack:
            ticket = stack.enter_context(limiter.ticket(envelope, self._emit))
            until = self._clock.monotonic() + PATIENCE
            # In one order, so that no two messages wait for each other; and one patience for all domains together.
            for domain in sorted(domains, key=lambda each: each.ascii):
                ticket.patience = max(0.0, until - self._clock.monotonic())
                if await stack.enter_async_context(ticket.to(domain)) is not None:
                    return AttemptReport(tuple(Deferred(each, THROTTLED) for each in envelope.recipients))
            return await guard.deliver(envelope, content, arrival)


@asynccontextmanager
async def open_endpoint(name: str, settings: EndpointSettings, around: Surroundings) -> AsyncIterator[Endpoint]:
    """An endpoint, ready to accept mail: `Endpoint.open` is due. Raises `ConfigError`."""
    if settings.hostname is None:
        raise ConfigError("hostname is required: the name that we greet with")
    async with AsyncExitStack() as stack:
        trust = _trust(settings, around.clock)
        router = await _open_router(settings, around, stack, trust)
        service = Service(
            name,
            settings.hostname,
            router,
            router.judge,
            around.clock,
            around.emit,
            _make_ids(),
            Memory(),
            tls=server_context(settings),
            authenticator=await _open_passwords(settings, stack),
            needs_login=settings.needs_login,
            is_submission=isinstance(settings, SubmissionSettings),
            origin=origin_of(settings),
            postmaster=router.postmaster,
            aliases=_open_aliases(name, settings, around.emit),
            trust=trust,
            is_lmtp=isinstance(settings, LMTPEndpointSettings),
            max_size=settings.max_message_size,
            max_header=settings.max_header_size,
            max_recipients=settings.max_recipients,
            max_received=settings.max_received,
            read_timeout=settings.read_timeout.total_seconds(),
            spool=_open_spool(settings.spool),
            disk=Memory(settings.max_spool),
            local_disk=Memory(settings.max_spool),
            logins=around.logins,
            received=settings.received if isinstance(settings, SubmissionSettings) else ReceivedDetail.FULL,
        )
        limits = ConnectionLimits(settings.max_connections, settings.max_client_connections)
        endpoint = Endpoint(service, settings.listen, limits, settings.proxy_from)
        try:
            yield endpoint
        finally:
            await endpoint.close(GRACE)


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
    settings: EndpointSettings, around: Surroundings, stack: AsyncExitStack, trust: Trust | None
) -> Router:
    assert settings.hostname is not None  # noqa: S101 # `open_endpoint` has seen to that
    opener = _Opener(around, stack, answers_each=isinstance(settings, LMTPEndpointSettings))
    own = await opener.stage(settings, RouteStage())
    if trust is not None:
        own = RouteStage((trust, *own.checks), own.signing)
    ways: dict[int, PipelineDeliverer] = {}
    guards: dict[int, Guard] = {}
    for pipeline in settings.pipelines:
        stage = own
        if pipeline is not settings:
            inner = await opener.stage(pipeline, own)
            stage = RouteStage((*own.checks, *inner.checks), inner.signing)
        way = ways[id(pipeline)] = await opener.way(pipeline, stage)
        guards[id(pipeline)] = Guard(way, stage.checks, around.emit)
    limiter = around.limiters.limiter(settings.limits, " ".join(map(str, settings.listen)))
    return Router(settings, ways, guards, limiter, settings.hostname, around.clock, around.emit)


@dataclass(frozen=True, slots=True)
class _Opener:
    """Opens what the blocks of a pipeline say is done to messages."""

    around: Surroundings
    stack: AsyncExitStack
    answers_each: bool

    async def stage(
        self, block: EndpointSettings | SourceSettings | DoorRouteSettings, outer: RouteStage
    ) -> RouteStage:
        """That of one block: its checks, and its signatures beside those of the outer one."""
        clock, emit = self.around.clock, self.around.emit
        checks = await self.stack.enter_async_context(open_checks(block.check, clock))
        return RouteStage(checks, await open_signing(block.modify, clock, emit, outer.signing))

    async def way(self, pipeline: EndpointSettings | SourceSettings, whole: RouteStage) -> PipelineDeliverer:
        """A pipeline whose own stage is open."""
        plain = RouteStage((), whole.signing)
        stages = {id(pipeline): plain}
        for route in pipeline.routes:
            has_own = route.check is not None or route.modify is not None
            stages[id(route)] = await self.stage(route, whole) if has_own else plain
        emit = self.around.emit
        return PipelineDeliverer(pipeline, self.around.target_of, stages, emit, answers_each=self.answers_each)


async def _open_passwords(settings: EndpointSettings, stack: AsyncExitStack) -> PasswordFile | None:
    if settings.auth is None:
        return None
    return await stack.enter_async_context(PasswordFile(settings.auth))


def server_context(settings: EndpointSettings) -> ServerContext | None:
    """The TLS context of an endpoint; None if it has no certificate. Raises `ConfigError`."""
    tls = settings.tls
    if tls is None or tls.cert is None or tls.key is None:
        return None
    return make_server_context(tls.cert, tls.key, protocols=tls.versions)


def try_endpoint(settings: EndpointSettings) -> None:
    """Find out what would keep an endpoint from opening, before anything is closed for it. Raises as that does."""
    server_context(settings)
    if settings.auth is not None:
        read_passwords(settings.auth)
    if (aliases := aliases_of(settings)) is not None:
        aliases.load()


def _make_ids() -> Callable[[], str]:
    """What names a message in its Received field and its Message-ID: different, not secret."""
    rng = random.Random(random.SystemRandom().getrandbits(128))
    return lambda: f"{rng.getrandbits(64):016x}"
