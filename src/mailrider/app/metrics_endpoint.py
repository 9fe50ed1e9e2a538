"""Where the supervisor shows the counters of all workers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from mailrider.app.listening import host_names

if TYPE_CHECKING:
    from mailrider.app.worker_talk import WorkerTalk
    from mailrider.clock import Clock
    from mailrider.config import Configuration
    from mailrider.endpoint.sockets import Sockets


class MetricsEndpoint:
    """Shows the counters over HTTP, from `open` to `close`."""

    def __init__(self, talk: WorkerTalk, clock: Clock, sockets: Sockets) -> None:
        self._talk = talk
        self._clock = clock
        self._sockets = sockets
        self._opened = AsyncExitStack()

    async def open(self, configuration: Configuration) -> None:
        """Show them where this configuration says so, and nowhere else. Raises `LocalError`, and all is as it was."""
        address = configuration.globals.openmetrics
        async with AsyncExitStack() as opened:
            if address is not None:
                from mailrider.observe.openmetrics import open_openmetrics  # with aiohttp

                talk, names = self._talk, host_names(configuration)
                await opened.enter_async_context(
                    open_openmetrics(address, talk.sums, self._clock, talk.refresh, names, self._sockets.take)
                )
            before, self._opened = self._opened, opened.pop_all()
            await before.aclose()

    async def close(self) -> None:
        """Nobody is shown anything any more."""
        await self._opened.aclose()
