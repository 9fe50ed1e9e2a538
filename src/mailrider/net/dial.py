"""Making connections: the port `Dialer`, and `TCPDialer`, its implementation over TCP.

An address that does not answer is a `NetworkError` (another address may do); a shortage of our own is a `LocalError`.
Whatever happens in between, cancellation included, no socket is left behind.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Protocol

from mailrider.clock import Deadline
from mailrider.errors import MailriderError
from mailrider.net.channel import Channel
from mailrider.net.errors import ConnectTimedOut, LocalAddressUnavailable, connect_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mailrider.clock import Clock

# The kernel then chooses the local port when it knows the remote address, so that a source address of ours does not
# limit us to 28,000 connections in all. Linux; in `socket` since Python 3.12.
_BIND_ADDRESS_NO_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)


class Dialer(Protocol):
    """Opens connections; an argument of whoever needs one, so that tests need no network."""

    def usable(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether `connect` could reach `address` at all from the source address that it is bound to."""

    async def connect(self, address: IPv4Address | IPv6Address, port: int, deadline: float) -> Channel:
        """A channel, connected, in clear, without a receiver: set one before the next await.

        `deadline` is a reading of the clock. Raises `NetworkError` (`ConnectRefused`, `Unreachable`,
        `ConnectTimedOut`), or `LocalError` if the fault is ours.
        """


class TCPDialer:
    """Dials over TCP, from `local_ip` if one is given."""

    def __init__(self, clock: Clock, local_ip: IPv4Address | IPv6Address | str | None = None) -> None:
        self._clock = clock
        self._local_ip = ip_address(local_ip) if isinstance(local_ip, str) else local_ip

    def usable(self, address: IPv4Address | IPv6Address) -> bool:
        """False if our source address is of the other family."""
        return self._local_ip is None or self._local_ip.version == address.version

    async def connect(self, address: IPv4Address | IPv6Address, port: int, deadline: float) -> Channel:
        where = f"[{address}]:{port}"
        if not self.usable(address):
            raise LocalAddressUnavailable(
                f"{where} cannot be reached from {self._local_ip}: they are of different families"
            )
        async with _connecting(self._clock, deadline, where) as channel:
            if self._local_ip is None:
                # The loop's own way: a quarter of the time that a socket of ours takes.
                await asyncio.get_running_loop().create_connection(lambda: channel, str(address), port)
            else:
                await self._connect_from(str(self._local_ip), address, port, channel)
        return channel

    async def _connect_from(
        self, local_ip: str, address: IPv4Address | IPv6Address, port: int, channel: Channel
    ) -> None:
        loop = asyncio.get_running_loop()
        opened = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            opened.setblocking(False)
            # Commands are whole when they are written: waiting for more only adds 40 ms.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._bind(opened, local_ip)
            await loop.sock_connect(opened, (str(address), port))
            await loop.create_connection(lambda: channel, sock=opened)
        except BaseException:
            opened.close()
            raise

    @staticmethod
    def _bind(opened: socket.socket, local_ip: str) -> None:
        try:
            opened.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        except OSError:
            pass  # not Linux: ports are only scarcer then
        try:
            opened.bind((local_ip, 0))
        except OSError as error:
            raise LocalAddressUnavailable(
                f"local_ip {local_ip} cannot be used: {error.strerror}; it must be an address of this machine"
            ) from error


class UnixDialer:
    """Connects to one unix socket, whatever address is asked for (LMTP, RFC 2033)."""

    def __init__(self, clock: Clock, path: Path) -> None:
        self._clock = clock
        self._path = path

    def usable(self, address: IPv4Address | IPv6Address) -> bool:
        """Always: the address does not matter."""
        return True

    async def connect(self, address: IPv4Address | IPv6Address, port: int, deadline: float) -> Channel:
        """See `Dialer.connect`."""
        async with _connecting(self._clock, deadline, f"unix://{self._path}") as channel:
            await asyncio.get_running_loop().create_unix_connection(lambda: channel, str(self._path))
        return channel


@asynccontextmanager
async def _connecting(clock: Clock, deadline: float, where: str) -> AsyncIterator[Channel]:
    """A channel to be connected within the time given; nothing of it is left if that fails."""
    channel = Channel(clock)
    try:
        async with Deadline(clock, deadline):
            yield channel
    except BaseException as error:
        channel.abort()
        if not isinstance(error, OSError) or isinstance(error, MailriderError):
            raise
        if isinstance(error, TimeoutError) and error.errno is None:  # our deadline's
            raise ConnectTimedOut(f"{where} did not answer in time") from error
        raise connect_error(error, where) from error
