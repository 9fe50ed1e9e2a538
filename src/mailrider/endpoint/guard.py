"""Checks and signatures before a target: a `Deliverer` that looks at a message, signs it, and passes it on.

A message that a check refuses is refused for all its recipients; a quarantined one is marked. Signing is the last thing
that is done to a message: whatever changed it afterwards would break the signature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mailrider.endpoint.check import Action, Arrival, examine
from mailrider.model.outcome import AttemptReport, outcome_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.dkim.sign import DKIMSigning
    from mailrider.endpoint.check import Check
    from mailrider.endpoint.pipeline import Deliverer
    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Emit
    from mailrider.smtp.content import Content


@dataclass(frozen=True, slots=True)
class Guard:
    """`target` gets what passes."""

    target: Deliverer
    checks: Sequence[Check]
    signing: DKIMSigning | None
    hostname: str
    emit: Emit

    async def deliver(self, envelope: Envelope, content: Content, arrival: Arrival | None = None) -> AttemptReport:
        """See `Deliverer`; `arrival` tells the checks more than the envelope does."""
        came = arrival or Arrival(envelope.client, hostname=self.hostname)
        found = await examine(self.checks, envelope, content, came, self.emit)
        if (refusal := found.refusal) is not None:
            return AttemptReport(tuple(outcome_for(each, refusal) for each in envelope.recipients))
        if found.action is Action.QUARANTINE:
            envelope = replace(envelope, quarantined=True)
        if self.signing is not None:
            content = await self.signing.modify(content)
        return await self.target.deliver(envelope, content)
