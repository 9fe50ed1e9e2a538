"""Settings of `check { ... }` to checks."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from mailrider.endpoint.pipeline.authorize import AuthorizeSender

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from mailrider.clock import Clock
    from mailrider.endpoint.pipeline.check import Check
    from mailrider.endpoint.pipeline.settings import CheckSettings, RspamdSettings


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
