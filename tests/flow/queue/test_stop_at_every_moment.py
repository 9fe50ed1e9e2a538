"""A queue is stopped at every moment of an attempt: what a server has is recorded, and nothing else counts as a try.

A whole delivery in memory, turn by turn of the event loop. The stop waits for nobody, so that it cuts off in the middle
of everything. Whatever the moment: a job is given back only if no server has the message.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.delivery.connection.connect import Connector
from mailrider.delivery.connection.fallback import FallbackMemory
from mailrider.delivery.connection.peer import SessionRules
from mailrider.delivery.connection.pool import Pool
from mailrider.delivery.connection.pool_state import PoolLimits
from mailrider.delivery.destination import RouteMemory, Routing
from mailrider.delivery.job import AttemptRules
from mailrider.delivery.limits.shares import Shares
from mailrider.delivery.race import AddressHistory
from mailrider.delivery.remote import RemoteDelivery
from mailrider.delivery.settings import Concurrency, LimitsSettings, RemoteSettings
from mailrider.delivery.smarthost import FixedDelivery, FixedServer
from mailrider.model.address import Mailbox
from mailrider.model.domain import Domain
from mailrider.model.envelope import Recipient
from mailrider.model.event import discard
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import AttemptReport
from mailrider.model.queue_event import AttemptInterrupted, OutcomeUnrecorded, RecipientDone
from mailrider.model.security import NO_REQUIREMENT
from mailrider.policy.judge import Judge
from mailrider.queue.attempts import AttemptProgress
from mailrider.queue.ids import IdSource
from mailrider.queue.service import DeliveryQueue, QueueDeliverer
from mailrider.queue.stopping import RECORDING
from mailrider.smtp.capabilities import FULL_OFFER
from mailrider.testing.channels import MemoryDialer
from mailrider.testing.resolver import FakeResolver, mx
from mailrider.testing.store import MemoryStore
from tests.flow.queue.test_leaving_off import Both, a_queue
from tests.flow.queue.test_scheduler import World, submit
from tests.support.channels import client_context
from tests.support.queueing import MESSAGE, failed
from tests.unit.delivery.connection.test_idle_close import MailServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.model.envelope import Envelope
    from mailrider.model.handover import Handover
    from mailrider.net.channel import Channel
    from mailrider.queue.message import NewMessage
    from mailrider.queue.work import Deliverer
    from mailrider.smtp.content import Content

MOST_TURNS = 400
HOSTS = {f"mx.{name}.test": f"192.0.2.{number}" for number, name in enumerate("ab", 1)}


class Net:
    """The domains `a.test` and `b.test`, each with a mail server. `late` is the number of turns that b's needs more."""

    def __init__(self, world: World, late: int = 0, *, chunking: bool = False) -> None:
        self.world = world
        self.messages: list[bytes] = []
        self.late = late
        self.offer = replace(FULL_OFFER, chunking=chunking)
        self.resolver = FakeResolver(
            {(f"{name}.test", "MX"): [mx(10, f"mx.{name}.test")] for name in "ab"}
            | {(host, "A"): IPv4Address(address) for host, address in HOSTS.items()},
            caching=True,
        )
        limits = LimitsSettings(all=(Concurrency(10),), destination=(Concurrency(10),))
        self.limiter = Shares(world.clock).limiter(limits)

    def _accept(self, channel: Channel) -> MailServer:
        return MailServer(channel, self.offer, self.messages)

    def pool(self) -> Pool:
        clock, nothing = self.world.clock, discard
        answering = dict.fromkeys(((address, 25) for address in HOSTS.values()), self._accept)
        dialer = _LateDialer(MemoryDialer(clock, answering), self.late)
        rules = SessionRules(Domain("client.test"), 300.0, 720.0, lmtp=False)
        judge = Judge(None, None)  # type: ignore[arg-type]
        connector = Connector(
            dialer, clock, client_context(), judge, rules, FallbackMemory(clock), nothing, 25, AddressHistory(clock)
        )
        return Pool(connector, PoolLimits(10, 10, 150.0), clock, nothing)

    def remote(self) -> RemoteDelivery:
        clock, nothing = self.world.clock, None
        routing = Routing(
            self.resolver,
            random.Random(1),
            discard,
            Domain("client.test"),
            lambda _: (False, math.inf),
            clock,
            300.0,
            RouteMemory(self.resolver, clock, force_ipv4=False),
            AddressHistory(clock),
        )
        settings = RemoteSettings(hostname="client.test")
        evidence: Any = nothing
        return RemoteDelivery(settings, routing, (), evidence, self.pool(), clock, discard, self.limiter)

    def smarthost(self) -> FixedDelivery:
        server = FixedServer(Domain("mx.a.test"), self.pool(), NO_REQUIREMENT, AddressHistory(self.world.clock))
        return FixedDelivery(
            AttemptRules(), 300.0, [server], self.resolver, self.world.clock, discard, self.limiter, lmtp=False
        )


class _LateDialer:
    """Connects to the second host some turns later."""

    def __init__(self, dialer: MemoryDialer, late: int) -> None:
        self.usable = dialer.usable
        self._dialer = dialer
        self._late = late

    async def connect(self, address: Any, port: int, deadline: float) -> Channel:
        if str(address) == HOSTS["mx.b.test"]:
            for _ in range(self._late):
                await asyncio.sleep(0)
        return await self._dialer.connect(address, port, deadline)


class ToBoth:
    """A pipeline in which one recipient becomes two, at two next hops."""

    def __init__(self, target: Deliverer) -> None:
        self._target = target

    async def deliver(self, envelope: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        two = tuple(Recipient(Mailbox("b", Domain(f"{name}.test"))) for name in "ab")
        report = await self._target.deliver(replace(envelope, recipients=two), content, handover)
        (first, _) = report.outcomes
        return AttemptReport((replace(first, recipient=envelope.recipients[0]),))


def to_two_next_hops(net: Net) -> Deliverer:
    return ToBoth(net.remote())


def to_two_targets(net: Net) -> Deliverer:
    return Both(net.remote(), net.smarthost())


class OtherQueue:
    """A queue as a target. Its store needs some turns for a commit, which goes on when nobody waits for it any more."""

    def __init__(self, net: Net) -> None:
        self.store = _SlowStore(net)
        self._world = net.world

    async def deliver(self, envelope: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        world = self._world
        for _ in range(10):  # as where the message is signed before
            await asyncio.sleep(0)
        async with DeliveryQueue(self.store, None, IdSource(world.clock), world.clock, world.rng, discard) as queue:
            return await QueueDeliverer(queue).deliver(envelope, content, handover)


class _SlowStore(MemoryStore):
    def __init__(self, net: Net) -> None:
        super().__init__()
        self._net = net

    async def add(self, message: NewMessage, *, leased: bool) -> None:
        await asyncio.shield(asyncio.ensure_future(self._commit(message, leased)))

    async def _commit(self, message: NewMessage, leased: bool) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        await super().add(message, leased=leased)
        self._net.messages.append(MESSAGE)


def to_a_queue_and_a_server(net: Net) -> Deliverer:
    return Both(OtherQueue(net), net.smarthost())


WAYS: list[Callable[[Net], Deliverer]] = [
    Net.remote,
    Net.smarthost,
    to_two_next_hops,
    to_two_targets,
    OtherQueue,
    to_a_queue_and_a_server,
]


@pytest.mark.parametrize("chunking", [False, True], ids=["DATA", "BDAT"])
@pytest.mark.parametrize("late", [0, 40], ids=["together", "one later"])
@pytest.mark.parametrize("way", WAYS)
async def test_what_a_server_has_is_recorded_and_nothing_else_is_a_try(
    way: Callable[[Net], Deliverer], late: int, chunking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AttemptProgress, "is_awaited", False)
    recorded = given_back = 0
    for turns in range(MOST_TURNS):
        world = World()
        net = Net(world, late, chunking=chunking)
        if await _is_delivered_before_a_stop(world, net, way(net), turns):
            break
        is_done, is_given_back = bool(world.happened(RecipientDone)), bool(world.happened(AttemptInterrupted))
        assert (is_done, is_given_back) == (bool(net.messages), not net.messages), turns
        assert world.happened(OutcomeUnrecorded) == [], turns
        if not net.messages:
            assert [row.progress.tries for row in world.shared.rows.values()] == [0], turns
        assert [row.owner for row in world.shared.rows.values()] in ([], [None]), turns
        recorded, given_back = recorded + is_done, given_back + is_given_back
    else:
        pytest.fail("the message was never delivered")
    assert recorded
    assert given_back


async def test_a_notification_on_its_way_into_another_queue_is_not_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttemptProgress, "is_awaited", False)
    stopped_in_between = 0
    for turns in range(MOST_TURNS):
        world = World()
        world.network.behaviour["a.test"] = failed
        net = Net(world)
        if await _is_delivered_before_a_stop(world, net, world.network, turns, notices=OtherQueue(net)):
            break
        notices = len(net.messages) + len([row for row in world.shared.rows.values() if row.message.route])
        assert notices == (not any(not row.message.route for row in world.shared.rows.values())), turns
        stopped_in_between += len(net.messages)
    else:
        pytest.fail("the notification was never delivered")
    assert stopped_in_between


async def _is_delivered_before_a_stop(
    world: World, net: Net, deliverer: Deliverer, turns: int, notices: Deliverer | None = None
) -> bool:
    """Stop after so many turns; True if all was over before, the notification too if it goes to `notices`."""
    async with a_queue(world, MemoryStore(world.shared), deliverer, notices) as queue:
        await submit(queue, "b@a.test")
        for _ in range(turns):
            await asyncio.sleep(0)
        if len(world.happened(RecipientDone)) == (1 if notices is None else 2):
            return True
        stopping = asyncio.create_task(queue.stop())
        await world.clock.advance(RECORDING - 1)
        await stopping
    return False
