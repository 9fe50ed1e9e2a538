"""Which next hop each recipient goes to (RFC 5321 5.1). Pure.

Recipients are grouped by domain; those that cannot be routed have their outcome at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.model.outcome import QUARANTINED, Failed, Outcome
from mailrider.model.reply import Reply
from mailrider.model.value import value

if TYPE_CHECKING:
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Envelope

NO_DOMAIN = Reply.make(550, "5.1.1", "The recipient has no domain, so there is no server to send it to")


@value
class Route:
    """Where an envelope goes: indices of its recipients by next hop, and the outcomes that need no delivery."""

    groups: dict[NextHop, list[int]]
    settled: dict[int, Outcome]


def route(envelope: Envelope) -> Route:
    """The next hops of an envelope's recipients; a quarantined message has none."""
    groups: dict[NextHop, list[int]] = {}
    settled: dict[int, Outcome] = {}
    for index, recipient in enumerate(envelope.recipients):
        if envelope.quarantined:
            settled[index] = Failed(recipient, QUARANTINED)
        elif recipient.mailbox.domain is None:
            settled[index] = Failed(recipient, NO_DOMAIN)
        else:
            groups.setdefault(recipient.mailbox.domain, []).append(index)
    return Route(groups, settled)
