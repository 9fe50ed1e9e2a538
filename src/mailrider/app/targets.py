"""Opens targets that refer to each other: each once, in whatever order, also where they refer in a circle.

A queue delivers by another target, and its notifications by a pipeline that may name any target, itself included. So
targets are known by name from the moment at which their opening begins; only a chain of `target` that leads back to
itself can never deliver anything, and is refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from mailrider.app.assemble import open_remote, open_smarthost, with_state_dir
from mailrider.app.pipelines import PipelineOpener
from mailrider.app.queue_shares import queue_shares
from mailrider.clock import QueueClock, SystemClock
from mailrider.config import queue_location
from mailrider.delivery.settings import RemoteSettings
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.dsn.notification import NotificationAuthor
from mailrider.endpoint.pipeline.route import UNTOUCHED, PipelineDeliverer
from mailrider.errors import ConfigError
from mailrider.model.handover import DIRECT
from mailrider.model.reply import Reply
from mailrider.queue.bounces import BouncePolicy, Bounces
from mailrider.queue.fairness import BY_DOMAIN, DestinationOf
from mailrider.queue.ids import IdSource
from mailrider.queue.message import ROUTE_BOUNCE, ROUTE_TARGET
from mailrider.queue.service import DeliveryQueue, QueueDeliverer
from mailrider.queue.settings import QueueSettings
from mailrider.queue.sqlite.shards import SQLiteShards, further_shard, shard_location, shards_in
from mailrider.queue.sqlite.signals import QueueDirectory
from mailrider.queue.sqlite.store import SQLiteStore
from mailrider.queue.work import RefreshesDestinations, Work
from mailrider.queue.worker_place import shards_to_drain
from mailrider.settings.pipeline import TargetRef, decide
from mailrider.signing.open import open_signing

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping
    from pathlib import Path

    from mailrider.app.assemble import Engine
    from mailrider.clock import Clock
    from mailrider.dkim.sign import DKIMSigning
    from mailrider.model.address import Mailbox
    from mailrider.model.domain import Domain
    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Emit
    from mailrider.model.handover import Handover
    from mailrider.model.outcome import AttemptReport
    from mailrider.queue.settings import BounceSettings
    from mailrider.queue.work import Deliverer
    from mailrider.queue.worker_place import WorkerNumber
    from mailrider.settings.directive import Settings
    from mailrider.settings.pipeline import Target
    from mailrider.smtp.content import Content


class OneServer(DestinationOf):
    """Everything goes to the same place, so it is one destination, of that name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, recipient: Recipient) -> str:
        """See `DestinationOf`."""
        return self._name


class SigningDeliverer:
    """Signs what a queue delivers, notifications too: only who delivers needs the keys, and no signature gets old."""

    def __init__(self, deliverer: Deliverer, signing: DKIMSigning) -> None:
        self._deliverer = deliverer
        self._signing = signing

    async def deliver(self, envelope: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        """See `queue.work.Deliverer`."""
        signed = await self._signing.modify(content)
        report = await self._deliverer.deliver(envelope, signed, handover)
        return report.signed_by(signed.signed_by) if signed is not content else report

    async def look_again(self, envelope: Envelope, content: Content) -> None:
        """See `queue.work.RefreshesDestinations`."""
        if isinstance(self._deliverer, RefreshesDestinations):
            await self._deliverer.look_again(envelope, content)


class Targets:
    """The open targets of a process. `named` are the settings of those that have a name; `place` None: the process is
    beside the workers of a daemon."""

    def __init__(self, engine: Engine, named: Mapping[str, Settings], place: WorkerNumber | None = None) -> None:
        self._engine = engine
        self._named = named
        self._open: dict[str, Deliverer] = {}
        self._inline: dict[int, tuple[Settings, Deliverer]] = {}  # by the identity of settings, which are kept for it
        self._opening: list[str] = []
        self._alike: Counter[str] = Counter()
        self._locations: set[Path] = set()
        self.queues: dict[str, DeliveryQueue] = {}
        """The queues that are open, by name; those without one by their directory."""
        self._place = place
        self._has_queue = False
        self.names = self._id_source(engine.clock)
        """Where messages that arrive have their ids from, and the first queue too: they are in its time."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def open(self, target: Target) -> Deliverer:
        """The target, opened once, wherever its settings or its name stand. Raises `ConfigError` for what cannot be."""
        if not isinstance(target, TargetRef):
            name = next((name for name, each in self._named.items() if each is target), None)
            if name is None:
                return await self._open_inline(target)
            target = TargetRef(name)
        if target.name in self._open:
            return self._open[target.name]
        if target.name in self._opening:
            circle = " -> ".join([*self._opening, target.name])
            raise ConfigError(f"these targets give their mail to each other in a circle: {circle}")
        self._opening.append(target.name)
        try:
            deliverer = await self._deliverer(self._settings_of(target), f"target {target.name}")
        finally:
            self._opening.remove(target.name)
        return self._open.setdefault(target.name, deliverer)

    async def _open_inline(self, target: Settings) -> Deliverer:
        """Settings that are the same object are one target; those that only look alike are two."""
        if id(target) not in self._inline:
            self._inline[id(target)] = target, await self._deliverer(target, self._inline_owner(target))
        return self._inline[id(target)][1]

    def _inline_owner(self, target: Settings) -> str:
        """What tells a target without a name from others, in the next configuration too: its limits, and a number."""
        limits = repr(getattr(target, "limits", None))
        self._alike[limits] += 1
        return f"inline {self._alike[limits]} {limits}"

    def _settings_of(self, target: Target) -> Settings:
        if not isinstance(target, TargetRef):
            return target
        if target.name not in self._named:
            raise ConfigError(f'no target is named "{target.name}"')
        return self._named[target.name]

    async def _deliverer(self, settings: Settings, owner: str) -> Deliverer:
        if isinstance(settings, QueueSettings):
            return QueueDeliverer(await self.open_queue(settings))
        if isinstance(settings, RemoteSettings):
            return await self._stack.enter_async_context(open_remote(settings, self._engine, owner))
        if isinstance(settings, SmarthostSettings):
            return await self._stack.enter_async_context(open_smarthost(settings, self._engine, owner))
        raise ConfigError(f"{type(settings).__name__} is not a target")

    async def open_queue(self, settings: QueueSettings) -> DeliveryQueue:
        """A queue that delivers."""
        if settings.target is None:
            raise ConfigError("a queue needs a target, which delivers its mail")
        engine = self._engine
        location = queue_location(settings)
        if location in self._locations:
            raise ConfigError(f"two queues share the directory {location}: give each its own location")
        self._locations.add(location)
        target = self._settings_of(settings.target)
        direct = await self.open(settings.target)
        signing = await open_signing(with_state_dir(settings.modify), engine.clock, engine.emit)
        deliverers = {ROUTE_TARGET: direct if signing is None else SigningDeliverer(direct, signing)}
        clock = QueueClock(engine.clock)
        ids = self._id_source(clock) if self._has_queue else self.names
        ids.follow(clock)
        self._has_queue = True
        policy = _bounce_policy(settings, target)
        to_drain = shards_to_drain(self._place, await asyncio.to_thread(shards_in, location))
        parallelism = settings.max_parallelism
        together = queue_shares(engine.shares, engine.clock, str(location), parallelism, 1 + len(to_drain))

        def open_shard(shard: Shard, clock: Clock, ids: IdSource, reserved: IdSource | None = None) -> DeliveryQueue:
            bounces = Bounces(policy, ids, engine.emit)
            work = Work(deliverers, settings.rules, bounces, parallelism, shares=together)
            return make_queue(
                settings,
                work,
                clock,
                engine.rng,
                engine.emit,
                ids=ids,
                target=target,
                reserved=reserved,
                shard=shard,
            )

        left_behind: list[DeliveryQueue] = []
        for number in to_drain:
            its_clock = QueueClock(engine.clock)
            left_behind.append(open_shard(Shard(number, self._place, is_own=False), its_clock, IdSource(its_clock)))
        own = Shard(0 if self._place is None else self._place.number, self._place, tuple(left_behind))
        queue = open_shard(own, clock, ids, self.names)
        if settings.bounce is not None:
            if settings.name is not None:
                self._open[settings.name] = QueueDeliverer(queue)
            directly = deliverers[ROUTE_TARGET]
            deliverers[ROUTE_BOUNCE] = await self._bounce_pipeline(settings.bounce, settings.name, directly)
        self.queues[settings.name or str(location)] = await self._stack.enter_async_context(queue)
        return queue

    def _id_source(self, clock: Clock) -> IdSource:
        return IdSource(clock, None if self._place is None else self._place.number)

    async def _bounce_pipeline(self, pipeline: BounceSettings, own: str | None, direct: Deliverer) -> Deliverer:
        """A notification for the queue that it stands in already goes on directly, with that queue's retries."""

        async def open_target(target: Target) -> Deliverer:
            if isinstance(target, TargetRef) and target.name == own:
                return direct
            return await self.open(target)

        opener = PipelineOpener(open_target, self._engine.clock, self._engine.emit, self._stack)
        routes = await opener.routes(pipeline, await opener.stage(pipeline, UNTOUCHED))
        return PipelineDeliverer(routes, self._engine.emit, answers_each=True)


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard of a queue as it is opened: its number; the place of the daemon's worker that opens it, if one does; and
    the queue's other shards that are delivered from with it. `is_own` False: it is one of those."""

    number: int = 0
    place: WorkerNumber | None = None
    left_behind: tuple[DeliveryQueue, ...] = ()
    is_own: bool = True


FIRST: Final = Shard()


def make_queue(
    settings: QueueSettings,
    work: Work | None,
    clock: Clock,
    rng: random.Random,
    emit: Emit,
    *,
    ids: IdSource | None = None,
    target: Settings | None = None,
    reserved: IdSource | None = None,
    shard: Shard = FIRST,
) -> DeliveryQueue:
    """A queue, not yet open; `work` None: it only takes messages in and can be looked into."""
    location = queue_location(settings)
    if not isinstance(clock, QueueClock):
        clock = QueueClock(clock)
    destination_of = OneServer(str(target.host[0])) if isinstance(target, SmarthostSettings) else BY_DOMAIN
    workers = 1 if shard.place is None else shard.place.workers

    def make_store(number: int, clock: Clock) -> SQLiteStore:
        return SQLiteStore(
            shard_location(location, number),
            clock,
            destination_of=destination_of,
            emit=emit,
            reserve=settings.reserve,
            history=settings.history.shared_by(workers),
            holds_deadly=workers > 1,
            shard=further_shard(location, number),
        )

    return DeliveryQueue(
        make_store(shard.number, clock),
        work,
        ids or IdSource(clock),
        clock,
        rng,
        emit,
        place=QueueDirectory(location, settings.runtime_dir or location, shard.place is not None),
        destination_of=destination_of,
        reserved=reserved,
        left_behind=shard.left_behind,
        others=SQLiteShards(location, shard.number, SystemClock(), lambda each: make_store(each, SystemClock())),
        listens=shard.is_own,
    )


def _bounce_policy(settings: QueueSettings, target: Settings) -> BouncePolicy:
    hostname: Domain | None = settings.hostname or getattr(target, "hostname", None)
    if hostname is None:
        raise ConfigError("hostname is required: the name in notifications to senders")
    pipeline = settings.bounce

    def refuses(sender: Mailbox) -> str:
        route = None if pipeline is None else decide(pipeline, sender)
        return str(route) if isinstance(route, Reply) else ""

    origin = NotificationAuthor(hostname, settings.autogenerated_msg_domain or hostname)
    return BouncePolicy(origin, pipeline is not None, refuses, settings.postmaster)
