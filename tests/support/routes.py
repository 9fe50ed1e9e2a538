"""PipelineRoutes as the application makes them of settings, without opening anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailrider.endpoint.pipeline.route import UNTOUCHED, PipelineRoute, PipelineRoutes, RouteStage
from mailrider.model.reply import Reply
from mailrider.settings.pipeline import fitting, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mailrider.endpoint.settings import EndpointSettings, SourceSettings
    from mailrider.model.address import ReversePath
    from mailrider.queue.work import Deliverer
    from mailrider.settings.pipeline import PipelineSettings


def routes_of(
    pipeline: PipelineSettings, target_of: Callable[[Any], Deliverer], stages: Mapping[int, RouteStage] | None = None
) -> PipelineRoutes:
    """`stages`: those of the pipeline and of blocks in it, by identity. A target is one thing, by its name."""
    targets: dict[str, Deliverer] = {}

    def route(block: Any) -> PipelineRoute:
        target = outcome_of(block)
        if isinstance(target, Reply):
            return PipelineRoute(target)
        if str(target) not in targets:
            targets[str(target)] = target_of(target)
        return PipelineRoute(targets[str(target)], (stages or {}).get(id(block), UNTOUCHED))

    destinations = [(rule.matches, route(rule.route)) for rule in pipeline.destination]
    return PipelineRoutes(destinations, route(pipeline.default_destination or pipeline))


def pipeline_for(endpoint: EndpointSettings, sender: ReversePath) -> SourceSettings | EndpointSettings:
    """The part of an endpoint's pipeline that mail of a sender goes through."""
    rules = [(rule.matches, rule.pipeline) for rule in endpoint.source]
    return fitting(rules, sender.mailbox, endpoint.default_source or endpoint)
