"""A queue waits for no limit: what is held back comes back at once, with when it may be tried again."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING

import pytest

import mailrider.app.targets
from mailrider.app.assemble import open_engine
from mailrider.app.targets import Targets
from mailrider.delivery.settings import LimitsSettings, RemoteSettings
from mailrider.delivery.smarthost_settings import LMTPSettings, SmarthostSettings
from mailrider.dns.settings import DNSSettings
from mailrider.model.event import discard
from mailrider.model.outcome import Deferred
from mailrider.queue.message import ROUTE_BOUNCE, ROUTE_TARGET
from mailrider.queue.settings import BounceSettings, QueueSettings
from mailrider.settings.pipeline import TargetRef
from mailrider.smtp.content import Content
from tests.support.queueing import MESSAGE, envelope

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.queue.scheduler import Work
    from mailrider.settings.directive import Settings

TURNS = 20  # of the event loop: more than a message that nothing is done with takes
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
    target: Settings, route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[Work] = []
    make = mailrider.app.targets.make_queue

    def spy(settings: QueueSettings, work: Work, *rest: object, **more: object) -> object:
        works.append(work)
        return make(settings, work, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(mailrider.app.targets, "make_queue", spy)
    bounce = BounceSettings(deliver_to=TargetRef("narrow"))
    settings = QueueSettings(target=TargetRef("narrow"), location=tmp_path / "q", name="queue", bounce=bounce)
    dns = DNSSettings(server=["127.0.0.1:9"], timeout=0.1, attempts=1)
    async with open_engine(dns, discard) as engine, Targets(engine, {"narrow": target}) as targets:
        await targets.open_queue(settings)
        limiter = engine.limiters.limiter(LIMITS)
        assert limiter is not None
        another = envelope("c@example.net")
        with limiter.ticket(another, discard) as ticket:
            async with ticket.to(another.recipients[0].mailbox.domain):  # type: ignore[arg-type]
                deliverer = works[0].deliverers[route]
                delivery = deliverer.deliver(envelope("b@example.net"), Content.inspect(MESSAGE))
                task = asyncio.create_task(delivery, context=Context())
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                assert task.done()
    (outcome,) = task.result()
    assert isinstance(outcome, Deferred)
    assert outcome.eligible_at is not None
