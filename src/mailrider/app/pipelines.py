"""Makes routes from the settings of pipelines: opens targets and checks, and reads keys."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailrider.endpoint.pipeline.authorize import AuthorizeSender
from mailrider.endpoint.pipeline.route import PipelineRoute, PipelineRoutes, RouteStage
from mailrider.model.reply import Reply
from mailrider.settings.pipeline import outcome_of
from mailrider.signing.open import open_signing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from mailrider.clock import Clock
    from mailrider.endpoint.pipeline.check import Check
    from mailrider.endpoint.pipeline.settings import CheckSettings, RspamdSettings
    from mailrider.endpoint.settings import EndpointRouteSettings, EndpointSettings, SourceSettings
    from mailrider.model.event import Emit
    from mailrider.queue.settings import BounceRouteSettings, BounceSettings
    from mailrider.queue.work import Deliverer
    from mailrider.settings.pipeline import Target


@asynccontextmanager
async def open_checks(given: CheckSettings | None, clock: Clock) -> AsyncIterator[tuple[Check, ...]]:
    """The checks, open: those that ask nobody first."""
    if given is None:
        yield ()
        return
    async with AsyncExitStack() as stack:
        asked = await _open_rspamd(given.rspamd, clock, stack) if given.rspamd else ()
        tied = () if given.authorize_sender is None else (AuthorizeSender(given.authorize_sender),)
        yield (*tied, *given.header, *asked)


async def _open_rspamd(given: Sequence[RspamdSettings], clock: Clock, stack: AsyncExitStack) -> Sequence[Check]:
    # aiohttp, an expensive import, is for those who ask rspamd.
    from mailrider.endpoint.pipeline.rspamd import RspamdCheck

    return [await stack.enter_async_context(RspamdCheck(each.url, each.options, clock)) for each in given]


@dataclass(frozen=True, slots=True)
class PipelineOpener:
    """Opens the blocks of a pipeline; what is open is closed with `stack`."""

    open_target: Callable[[Target], Awaitable[Deliverer]]
    clock: Clock
    emit: Emit
    stack: AsyncExitStack

    async def stage(
        self,
        block: EndpointSettings | SourceSettings | EndpointRouteSettings | BounceSettings | BounceRouteSettings,
        outer: RouteStage,
    ) -> RouteStage:
        """The stage of one block: its checks, and its signatures beside those of the block around it."""
        given = getattr(block, "check", None)  # notifications are not checked
        checks = await self.stack.enter_async_context(open_checks(given, self.clock))
        return RouteStage(checks, await open_signing(block.modify, self.clock, self.emit, outer.signing))

    async def routes(
        self, pipeline: EndpointSettings | SourceSettings | BounceSettings, whole: RouteStage
    ) -> PipelineRoutes:
        """The routes of a pipeline whose own stage is `whole`. Its checks have spoken before any route is chosen."""
        plain = RouteStage((), whole.signing)

        async def route(block: Any) -> PipelineRoute:
            target = outcome_of(block)
            has_own = block is not pipeline and (block.modify or getattr(block, "check", None))
            stage = await self.stage(block, whole) if has_own else plain
            return PipelineRoute(target if isinstance(target, Reply) else await self.open_target(target), stage)

        destinations = [(rule.matches, await route(rule.route)) for rule in pipeline.destination]
        return PipelineRoutes(destinations, await route(pipeline.default_destination or pipeline))
