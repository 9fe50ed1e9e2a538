"""`openmetrics tcp://127.0.0.1:9749`: the counters over HTTP, at /metrics.

What is in the queues is asked when somebody looks; if that cannot be had in time, the last figures are shown: whoever
watches a sick machine shall see at least that it counts. There is nothing else on this port, and nothing to write.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from mailrider.clock import after
from mailrider.errors import ConfigError, LocalError, MailriderError
from mailrider.model.socket_address import Scheme

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mailrider.clock import Clock
    from mailrider.model.socket_address import SocketAddress
    from mailrider.observe.metrics import Metrics

REFRESH: Final = 5.0  # seconds; who asks waits 10 as a rule
_CLOSING: Final = 1.0  # seconds for an answer under way at the end


@asynccontextmanager
async def open_openmetrics(
    address: SocketAddress, metrics: Metrics, clock: Clock, refresh: Callable[[], Awaitable[None]]
) -> AsyncIterator[int]:
    """Listen while this is entered; gives the port. `refresh` is awaited before each answer. Raises `LocalError`."""
    if address.scheme is not Scheme.TCP or address.ip is None:
        raise ConfigError(f"openmetrics: expected tcp://ADDRESS:PORT, not {address}")

    async def answer(request: web.Request) -> web.Response:
        try:
            async with after(clock, REFRESH):
                await refresh()
        except (TimeoutError, MailriderError):
            pass  # the last figures are better than none
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics.registry), headers={"Content-Type": content_type})

    application = web.Application()
    application.router.add_get("/metrics", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_CLOSING)
    await runner.setup()
    try:
        site = web.TCPSite(runner, str(address.ip), address.port)
        try:
            await site.start()
        except OSError as error:
            raise LocalError(f"openmetrics: cannot listen on {address}: {error.strerror or error}") from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
