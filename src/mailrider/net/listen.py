"""Accepting connections: TCP and unix sockets, each connection a `Channel`.

Where proxies are named (`Proxies`), a connection from one of them begins with a header that says whose it is
(`net.proxy`); the channel is made once that is read, and shows the announced client. From nobody else is it read.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, Self, cast

from mailrider.errors import InvalidValue, LocalError
from mailrider.files import set_mode
from mailrider.model.ip import is_within, unmapped
from mailrider.net.accept_turns import SharedAccept
from mailrider.net.channel import Channel, Receiver
from mailrider.net.proxy import parse_proxy_header

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from ipaddress import IPv4Address, IPv4Network, IPv6Network
    from pathlib import Path

    from mailrider.clock import Clock, Timer
    from mailrider.net.accept_turns import Turns

BACKLOG = 1024
"""Connections that the kernel keeps for us: a burst, while we are busy for some milliseconds."""

RESERVED = 1024
"""The first port that everybody may listen on."""
_HANDED_OVER = f"; ports below {RESERVED} are root's: let systemd hand it over (mailrider.socket), or take a higher one"
_CURES: Final = {
    errno.EADDRINUSE: "; another program has this port, ss -ltnp tells root which: stop it, or take another port",
    errno.EADDRNOTAVAIL: "; this machine has no such address, ip address lists those that it has",
}

PROXY_TIMEOUT: Final = 5.0  # seconds for a proxy's header, which it sends at once
MAX_UNANNOUNCED: Final = 1000  # connections of proxies that wait for their header


@dataclass(frozen=True, slots=True)
class Proxies:
    """Networks of the proxies that announce their clients; `refused` is told the address and the reason."""

    networks: Collection[IPv4Network | IPv6Network]
    refused: Callable[[str, str], None]


class NoIPv6(LocalError):
    """An IPv6 address cannot be served: the kernel has no IPv6, or it is switched off."""


class Listener:
    """A socket that accepts, and the channels that came of it. Close it, or use it as `async with`."""

    def __init__(self, clock: Clock, factory: Callable[[Channel], Receiver], proxies: Proxies | None = None) -> None:
        self._clock = clock
        self._factory = factory
        self._proxies = proxies
        self._unannounced: set[_Announcement] = set()
        self._server: asyncio.AbstractServer | None = None
        self._turns: Turns | None = None
        self._shared: SharedAccept | None = None
        self._channels: set[_ServerChannel] = set()
        self.address = ""
        """Where it listens: IP address, or path."""
        self.port = 0
        """The TCP port; 0 on a unix socket."""

    @property
    def connections(self) -> int:
        """How many channels are open."""
        return len(self._channels)

    async def open_socket(self, opened: socket.socket, turns: Turns | None = None) -> None:
        """Serve a socket that is bound. `turns`: other processes serve it as well."""
        name = opened.getsockname()
        self._turns = turns
        try:
            await self._serve(opened)
        except OSError as error:
            opened.close()
            raise _cannot_listen(str(name), error) from error
        self.address, self.port = name[:2] if isinstance(name, tuple) else (str(name), 0)

    async def _serve(self, opened: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        opened.setblocking(False)
        if self._turns is not None:
            if opened.family != socket.AF_UNIX:
                # Each loop does so for what its own server accepts; here connections have it from this socket.
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.listen(BACKLOG)
            self._shared = SharedAccept(opened, self._turns, self._clock, self._new_channel)
            return
        self._server = await loop.create_server(self._new_channel, sock=opened, backlog=BACKLOG)

    def _new_channel(self) -> asyncio.Protocol:
        channel = _ServerChannel(self._clock, self._factory, self._channels, self._turns)
        if self._proxies is None:
            return channel
        return _Announcement(channel, self._clock, self._proxies, self._unannounced)

    def stop(self) -> None:
        """Accept no more; what is open stays open."""
        if self._server is not None:
            self._server.close()
        if self._shared is not None:
            self._shared.stop()

    async def close(self) -> None:
        """Accept no more, abort what is open; returns when all of it is gone."""
        self.stop()
        if self._shared is not None:
            await self._shared.begun()
        for announcement in list(self._unannounced):
            announcement.abort()
        open_ones = list(self._channels)
        for channel in open_ones:
            channel.abort()
        for channel in open_ones:
            await channel.close()  # an abort takes a turn of the event loop
        if self._server is not None:
            await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _ServerChannel(Channel):
    """A channel that its listener counts; with `turns` also among those of all workers, from when it was accepted."""

    __slots__ = ("_open_ones", "_turns")

    def __init__(
        self,
        clock: Clock,
        accept: Callable[[Channel], Receiver],
        open_ones: set[_ServerChannel],
        turns: Turns | None,
    ) -> None:
        super().__init__(clock, accept)
        self._open_ones = open_ones
        self._turns = turns

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._open_ones.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended()
        self._open_ones.discard(self)
        super().connection_lost(error)

    def ended(self) -> None:
        """The connection has ended, perhaps before it became a channel."""
        if self._turns is not None:
            self._turns.end()


class _Announcement(asyncio.Protocol):
    """A connection until it is known whose it is; then its channel takes over."""

    def __init__(self, channel: _ServerChannel, clock: Clock, proxies: Proxies, waiting: set[_Announcement]) -> None:
        self._channel = channel
        self._clock = clock
        self._proxies = proxies
        self._waiting = waiting
        self._octets = b""
        self._peer = ""
        self._transport: asyncio.Transport
        self._timer: Timer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = unmapped(peer[0]) if isinstance(peer, tuple) else ""
        if not self._peer or not is_within(ip_address(self._peer.partition("%")[0]), self._proxies.networks):
            self._hand_over()
            return
        self._waiting.add(self)
        self._timer = self._clock.call_at(self._clock.monotonic() + PROXY_TIMEOUT, self._too_late)
        if len(self._waiting) > MAX_UNANNOUNCED:
            self._refuse("too many connections without a PROXY header")

    def data_received(self, data: bytes) -> None:
        self._octets += data
        try:
            header = parse_proxy_header(self._octets)
        except InvalidValue as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._forget()
            self._channel.announced = header.client
            self._octets = self._octets[header.size :]
            self._hand_over()

    def _hand_over(self) -> None:
        channel, rest = self._channel, self._octets
        self._transport.set_protocol(channel)
        channel.connection_made(self._transport)
        if rest:
            channel.data_received(rest)

    def _too_late(self) -> None:
        self._refuse(f"no PROXY header within {PROXY_TIMEOUT:.0f} seconds")

    def _refuse(self, reason: str) -> None:
        self.abort()
        self._proxies.refused(self._peer, reason)

    def abort(self) -> None:
        """End it."""
        self._forget()
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()
        self._channel.ended()

    def _forget(self) -> None:
        self._waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()


async def listen(
    clock: Clock,
    address: IPv4Address | IPv6Address,
    port: int,
    factory: Callable[[Channel], Receiver],
) -> Listener:
    """Accept TCP connections; `factory` makes the receiver of each new channel. `LocalError` if it cannot be."""
    listener = Listener(clock, factory)
    await listener.open_socket(tcp_socket(address, port))
    return listener


def tcp_socket(address: IPv4Address | IPv6Address, port: int) -> socket.socket:
    """A socket that is bound to `address`, no other, and `port`. `LocalError` if it cannot be."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    where = f"[{address}]:{port}"
    opened = _new_socket(family, where)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.version == 6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((str(address), port))
    except OSError as error:
        opened.close()
        if isinstance(address, IPv6Address) and address.is_unspecified and error.errno == errno.EADDRNOTAVAIL:
            raise NoIPv6(f"cannot listen on {where}: IPv6 is switched off") from error
        raise _cannot_listen(where, error, _advice(error, port)) from error
    return opened


def _advice(error: OSError, port: int) -> str:
    """What to do where a port cannot be had."""
    if isinstance(error, PermissionError) and port < RESERVED:
        return _HANDED_OVER
    return _CURES.get(error.errno or 0, "")


def unix_socket(path: Path, mode: int) -> socket.socket:
    """A socket that is bound to `path`, with the permissions `mode`; one that nobody serves is replaced."""
    opened = _new_socket(socket.AF_UNIX, str(path))
    bound = False
    try:
        _remove_if_dead(path)
        opened.bind(str(path))
        bound = True
        set_mode(path, mode)  # nobody can connect before we listen
    except OSError as error:
        opened.close()
        if bound:
            path.unlink(missing_ok=True)
        raise _cannot_listen(str(path), error) from error
    return opened


def _new_socket(family: socket.AddressFamily, where: str) -> socket.socket:
    """A socket; where the kernel has no such family, or there are too many open files, the address is told."""
    try:
        return socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if family == socket.AF_INET6 and error.errno == errno.EAFNOSUPPORT:
            raise NoIPv6(f"cannot listen on {where}: the kernel has no IPv6") from error
        raise _cannot_listen(where, error) from error


def _remove_if_dead(path: Path) -> None:
    """Make way for a new socket where a process that is gone left its own; never for anything else."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # it is somebody's: bind says so


def _cannot_listen(where: str, error: OSError, advice: str = "") -> LocalError:
    return LocalError(f"cannot listen on {where}: {error.strerror or error}{advice}")
