"""Runs the routing part of a pipeline: gives each recipient to the target that `model.pipeline.decide` names."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from mailrider.model.outcome import AttemptReport, outcome_for
from mailrider.model.pipeline import TargetRef, decide
from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.model.envelope import Envelope
    from mailrider.model.outcome import Outcome
    from mailrider.model.pipeline import PipelineSettings, Target
    from mailrider.smtp.content import Content


class Deliverer(Protocol):
    """Makes one attempt; see `queue.deliverer`."""

    async def deliver(self, envelope: Envelope, content: Content) -> AttemptReport:
        """One outcome for each recipient, in the envelope's order."""


class PipelineDeliverer:
    """A `Deliverer` that shares a message out. `target_of` gives the open target for what the settings name."""

    def __init__(self, pipeline: PipelineSettings, target_of: Callable[[Target], Deliverer]) -> None:
        self._pipeline = pipeline
        self._target_of = target_of

    async def deliver(self, envelope: Envelope, content: Content) -> AttemptReport:
        """One attempt at each target that is concerned, at the same time."""
        outcomes: dict[int, Outcome] = {}
        groups: dict[str | int, tuple[Target, list[int]]] = {}
        for index, recipient in enumerate(envelope.recipients):
            route = decide(self._pipeline, recipient.mailbox)
            if isinstance(route, Reply):
                outcomes[index] = outcome_for(recipient, route)
            else:
                # By name or identity: a target is one thing, though another may be set up just alike.
                key = route.name if isinstance(route, TargetRef) else id(route)
                groups.setdefault(key, (route, []))[1].append(index)
        if len(groups) == 1 and not outcomes:
            # No task, and no other envelope, where all go the same way.
            return await self._target_of(next(iter(groups.values()))[0]).deliver(envelope, content)
        attempts = [self._attempt(target, indices, envelope, content) for target, indices in groups.values()]
        for found in await asyncio.gather(*attempts):
            outcomes.update(found)
        return AttemptReport(tuple(outcomes[index] for index in range(len(envelope.recipients))))

    async def _attempt(
        self, target: Target, indices: list[int], envelope: Envelope, content: Content
    ) -> dict[int, Outcome]:
        some = replace(envelope, recipients=tuple(envelope.recipients[index] for index in indices))
        report = await self._target_of(target).deliver(some, content)
        return dict(zip(indices, report, strict=True))
