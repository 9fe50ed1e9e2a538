"""`openmetrics tcp://127.0.0.1:9749`: the counters over HTTP, at /metrics.

What is in the queues is asked when somebody looks; if that cannot be had in time, the last figures are shown: whoever
watches a sick machine shall see at least that it counts. There is nothing else on this port, and nothing to write.

What a client may cost is bounded: one request a connection, `LIFETIME` seconds for all of it, `MAX_CLIENTS` connections
at once, and `MAX_CLIENT` of one client. The Host of a request must be an IP address, `localhost`, or a name of ours:
otherwise a web page could read the counters through a browser, under a name whose address it changes to this one (DNS
rebinding).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client.exposition import choose_encoder

from mailrider.clock import after
from mailrider.errors import ConfigError, LocalError, MailriderError
from mailrider.model.ip import client_key
from mailrider.net.listen import tcp_socket
from mailrider.settings.socket_address import Scheme

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from mailrider.clock import Clock, Timer
    from mailrider.observe.metric_sums import MetricSums
    from mailrider.observe.metrics import Metrics
    from mailrider.settings.socket_address import SocketAddress

REFRESH: Final = 5.0  # seconds; who asks waits 10 as a rule
LIFETIME: Final = 20.0  # seconds that a connection may last, whatever it does
MAX_CLIENTS: Final = 64  # connections at once
MAX_CLIENT: Final = 16  # of one client
_CLOSING: Final = 1.0  # seconds for an answer under way at the end


def _is_ours_to_mend(record: logging.LogRecord) -> bool:
    """False for what a client says that is no HTTP: aiohttp would write a traceback with its words into our log."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


_LOGGER: Final = logging.getLogger("mailrider.openmetrics")
_LOGGER.addFilter(_is_ours_to_mend)


@asynccontextmanager
async def open_openmetrics(
    address: SocketAddress,
    metrics: Metrics | MetricSums,
    clock: Clock,
    refresh: Callable[[], Awaitable[None]],
    names: Collection[str] = (),
    take: Callable[[SocketAddress], socket.socket] | None = None,
) -> AsyncIterator[int]:
    """Listen while this is entered; gives the port. `refresh` is awaited before each answer. Raises `LocalError`.

    `names`: host names under which we may be asked, beside `localhost` and IP addresses. `take` gives a socket that is
    bound; without it, one is made.
    """
    if address.scheme is not Scheme.TCP or address.ip is None:
        raise ConfigError(f"openmetrics: expected tcp://ADDRESS:PORT, not {address}")

    async def answer(request: web.Request) -> web.Response:
        if not is_ours(request.host, names):
            text = "This host name is not ours: ask under an IP address, localhost or the configured hostname.\n"
            return _last(web.Response(status=421, text=text))  # RFC 9110 15.5.20
        try:
            async with after(clock, REFRESH):
                await refresh()
        except (TimeoutError, MailriderError):
            pass  # the last figures are better than none
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return _last(web.Response(body=encode(metrics.registry), headers={"Content-Type": content_type}))

    application = web.Application()
    application.router.add_get("/metrics", answer)
    runner = web.AppRunner(application, access_log=None, logger=_LOGGER, shutdown_timeout=_CLOSING)
    await runner.setup()
    try:
        visitors = _LimitedConnections(clock, cast("Callable[[], asyncio.Protocol]", runner.server))
        bound = take(address) if take is not None else tcp_socket(address.ip, address.port)
        try:
            listening = await asyncio.get_running_loop().create_server(visitors.visitor, sock=bound)
        except OSError as error:
            bound.close()
            raise LocalError(f"openmetrics: cannot listen on {address}: {error.strerror or error}") from error
        try:
            yield listening.sockets[0].getsockname()[1]
        finally:
            listening.close()
            visitors.cancel_timers()
    finally:
        await runner.cleanup()


def _last(response: web.Response) -> web.Response:
    """The connection ends behind it: one that waited for the next request could be cut off in the middle of it."""
    response.force_close()
    return response


def is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a Host field, with its port or without, names this machine: no foreign web page can have such a name."""
    name = host.removeprefix("[").partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    bare = name.lower().removesuffix(".")
    if bare == "localhost" or bare in (each.lower() for each in names):
        return True
    try:
        ip_address(bare)
    except ValueError:
        return False
    return True


class _LimitedConnections:
    """Those who are connected: how many, and how many of each client."""

    def __init__(self, clock: Clock, make: Callable[[], asyncio.Protocol]) -> None:
        self.clock = clock
        self._make = make
        self._visitors: dict[_LimitedConnection, str] = {}

    def visitor(self) -> _LimitedConnection:
        """The protocol of a new connection."""
        return _LimitedConnection(self)

    def admit(self, visitor: _LimitedConnection, address: str) -> asyncio.Protocol | None:
        """Who speaks with the visitor; None if there is no room for it."""
        client = client_key(address)
        if len(self._visitors) >= MAX_CLIENTS or list(self._visitors.values()).count(client) >= MAX_CLIENT:
            return None
        self._visitors[visitor] = client
        return self._make()

    def leave(self, visitor: _LimitedConnection) -> None:
        """A visitor is gone."""
        self._visitors.pop(visitor, None)

    def cancel_timers(self) -> None:
        """End the timers of all."""
        for visitor in list(self._visitors):
            visitor.forget()


class _LimitedConnection(asyncio.Protocol):
    """One connection, within its bounds; what it says is for aiohttp's own protocol, which takes over."""

    def __init__(self, visitors: _LimitedConnections) -> None:
        self._visitors = visitors
        self._inner: asyncio.Protocol | None = None
        self._has_spoken = False
        self._timer: Timer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._inner = self._visitors.admit(self, peer[0])
        if self._inner is None:
            cast("asyncio.Transport", transport).abort()
            return
        clock = self._visitors.clock
        self._timer = clock.call_at(clock.monotonic() + LIFETIME, cast("asyncio.Transport", transport).abort)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._has_spoken = True
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool:
        """Who closes his half behind his request (`nc -N`) still gets the answer."""
        return self._has_spoken

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self.forget()
        if self._inner is not None:
            self._inner.connection_lost(error)

    def forget(self) -> None:
        """The connection does not count any more."""
        self._visitors.leave(self)
        if self._timer is not None:
            self._timer.cancel()
