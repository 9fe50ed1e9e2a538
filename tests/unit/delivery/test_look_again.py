"""What is asked anew before the last attempt at a message (RFC 8461 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mailrider.delivery.remote import RemoteDelivery
from mailrider.delivery.settings import RemoteSettings
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.event import discard
from mailrider.policy.sts.policy import STSPolicies
from mailrider.queue.work import RefreshesDestinations
from mailrider.smtp.content import Content
from mailrider.testing.resolver import TableRow
from tests.unit.policy.sts.sts_world import EXAMPLE, HOUR, World, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.policy.base import Policy

ORDINARY = Content.inspect(b"Subject: x\r\n\r\n")
WAIVED = Content.inspect(b"TLS-Required: No\r\n\r\n")


def delivery(world: World, policies: Sequence[Policy]) -> RemoteDelivery:
    nothing: Any = None
    settings = RemoteSettings(hostname="client.test")
    return RemoteDelivery(settings, nothing, policies, nothing, nothing, world.clock, discard)


@pytest.mark.parametrize(
    ("content", "to", "expected"),
    [
        (ORDINARY, "b@example.com", "new.example.com"),
        (WAIVED, "b@example.com", "old.example.com"),
        (ORDINARY, "b@[192.0.2.1]", "old.example.com"),
    ],
    ids=["a new policy is found", "but not for a message that none binds", "nor for an address"],
)
async def test_policies_are_checked_though_the_record_is_cached(content: Content, to: str, expected: str) -> None:
    world = World()
    world.publish("id1", text(mx="old.example.com"))
    world.resolver.answers["_mta-sts.example.com", "TXT"] = TableRow([b"v=STSv1; id=id1;"], ttl=HOUR)
    async with world.source() as source:
        await source.lookup(EXAMPLE)
        world.publish("id2", text(mx="new.example.com"))
        remote = delivery(world, [STSPolicies(source, world.clock, discard)])
        assert isinstance(remote, RefreshesDestinations)
        sender = ReversePath(Mailbox("a", Domain("client.test")))
        await remote.look_again(Envelope(sender, (Recipient(Mailbox.parse(to)),)), content)
        policy = (await source.lookup(EXAMPLE)).policy
    assert policy is not None
    assert [str(pattern) for pattern in policy.mx] == [expected]
