"""Checks before a pipeline: a `MessageSink` that looks at a message and passes it on.

A message that a check refuses is refused for all its recipients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailrider.endpoint.pipeline.check import Arrival, examine
from mailrider.model.outcome import AttemptReport, outcome_for

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from mailrider.endpoint.pipeline.check import Check
    from mailrider.endpoint.session import MessageSink
    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Emit
    from mailrider.smtp.content import Content


@dataclass(frozen=True, slots=True)
class Guard:
    """`target` gets what passes."""

    target: MessageSink
    checks: Sequence[Check]
    emit: Emit

    def deliver(self, envelope: Envelope, content: Content, arrival: Arrival) -> Coroutine[Any, Any, AttemptReport]:
        """See `MessageSink`."""
        look = self._check if self.checks else self.target.deliver
        return look(envelope, content, arrival)

    async def _check(self, envelope: Envelope, content: Content, arrival: Arrival) -> AttemptReport:
        found = await examine(self.checks, envelope, content, arrival, self.emit)
        if (refusal := found.refusal) is not None:
            return AttemptReport(tuple(outcome_for(each, refusal) for each in envelope.recipients))
        return await self.target.deliver(envelope, content, arrival)
