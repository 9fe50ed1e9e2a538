"""A queue waits for no limit: what is held back comes back at once, with when it may be tried again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mailrider.app.assemble import open_engine
from mailrider.app.targets import Targets
from mailrider.delivery.settings import LimitsSettings, RemoteSettings
from mailrider.delivery.smarthost_settings import LMTPSettings, SmarthostSettings
from mailrider.dns.settings import DNSSettings
from mailrider.model.event import discard
from mailrider.model.outcome import Deferred
from mailrider.model.queue_event import RecipientDone
from mailrider.queue.message import ROUTE_BOUNCE, ROUTE_TARGET
from mailrider.queue.settings import BounceSettings, QueueSettings
from mailrider.settings.pipeline import TargetRef
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from tests.support.queueing import MESSAGE, envelope

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.model.event import Event
    from mailrider.settings.directive import Settings

LIMITS = LimitsSettings(all=["concurrency 1"], name="narrow")
SERVER = "tcp://127.0.0.1:9"


@pytest.mark.parametrize("route", [ROUTE_TARGET, ROUTE_BOUNCE])
@pytest.mark.parametrize(
    "target",
    [
        RemoteSettings(hostname="mx.example.org", limits=LIMITS),
        SmarthostSettings(hostname="mx.example.org", host=[SERVER], limits=LIMITS),
        LMTPSettings(hostname="mx.example.org", host=[SERVER], limits=LIMITS),
    ],
    ids=["remote", "smtp", "lmtp"],
)
async def test_a_queue_is_told_at_once_that_a_message_is_held_back(
    target: Settings, route: str, tmp_path: Path
) -> None:
    done: asyncio.Queue[RecipientDone] = asyncio.Queue()

    def emit(event: Event) -> None:
        if isinstance(event, RecipientDone):
            done.put_nowait(event)

    bounce = BounceSettings(deliver_to=TargetRef("narrow"))
    settings = QueueSettings(target=TargetRef("narrow"), location=tmp_path / "q", name="queue", bounce=bounce)
    dns, clock = DNSSettings(server=["127.0.0.1:9"], timeout=0.1, attempts=1), FakeClock()  # time stands still
    async with open_engine(dns, emit, clock) as engine, Targets(engine, {"narrow": target}) as targets:
        queue = await targets.open_queue(settings)
        limiter = engine.shares.limiter(LIMITS)
        assert limiter is not None
        another = envelope("c@example.net")
        with limiter.ticket(another, discard) as ticket:
            async with ticket.to(another.recipients[0].mailbox.domain):  # type: ignore[arg-type]
                await queue.submit(envelope("b@example.net"), Content.inspect(MESSAGE), route=route)
                outcome = (await done.get()).outcome
    assert isinstance(outcome, Deferred)
    assert outcome.eligible_at is not None
