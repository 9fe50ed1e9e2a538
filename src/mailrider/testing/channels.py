"""Channels without a network: for tests of what stands on channels, ours and our users'.

`memory_pair` joins two channels back to back; `MemoryDialer` is a `Dialer` whose hosts are functions. Bytes move one
write (or `piece` bytes) at a time, each in a turn of the event loop of its own, in order: the same run every time.
Flow control, half-sent data, resets and TLS behave as over TCP.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from mailrider.clock import Deadline
from mailrider.errors import MailriderError
from mailrider.net.channel import Channel, Receiver
from mailrider.net.errors import ConnectRefused, ConnectTimedOut

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.clock import Clock
    from mailrider.net.pipe import Bytes

Host: TypeAlias = Callable[[Channel], Receiver] | MailriderError | None
"""How an address answers: who receives on the server's channel; the error of connecting; None: never."""


KERNEL_BUFFER = 16 * 1024
"""Octets that are on their way without being counted as unsent: what the kernel has of a connection over TCP."""


class MemoryTransport(asyncio.Transport):
    """One end of a pair; what is written to it arrives at the other end's protocol."""

    def __init__(self, address: str, peer_address: str, piece: int | None = None) -> None:
        super().__init__({"sockname": (address, 0), "peername": (peer_address, 0)})
        self._loop = asyncio.get_running_loop()
        self._piece = piece
        self._protocol: asyncio.Protocol
        self._other: MemoryTransport
        self._unsent: deque[bytes] = deque()
        self._size = 0
        self._high, self._low = 64 * 1024, 16 * 1024
        self._full = self._moving = self._closing = self._lost = self._reading_paused = False

    def join(self, protocol: asyncio.Protocol, other: MemoryTransport) -> None:
        """Connect both ways; the protocol is told by `open`."""
        self._protocol, self._other = protocol, other

    def open(self) -> None:
        """Tell the protocol that it is connected."""
        self._protocol.connection_made(self)

    def write(self, data: Bytes) -> None:
        if not data or self._closing:
            return
        self._unsent.append(bytes(data))
        self._size += len(data)
        self._move_soon()
        if self._size > self._high and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self._size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        high = self._high if high is None else high
        self._high = max(high, KERNEL_BUFFER)
        self._low = max(high // 4 if low is None else low, KERNEL_BUFFER)

    def pause_reading(self) -> None:
        self._reading_paused = True

    def is_reading(self) -> bool:
        return not self._reading_paused

    def resume_reading(self) -> None:
        self._reading_paused = False
        self._other._move_soon()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._move_soon()

    def abort(self) -> None:
        self._closing = True
        self._unsent.clear()
        self._size = 0
        self._lose(None)
        self._other._lose(_reset())

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, error)

    def _move_soon(self) -> None:
        if not self._moving:
            self._moving = True
            self._loop.call_soon(self._move)

    def _move(self) -> None:
        self._moving = False
        if self._lost:
            return
        if self._unsent:
            if not self._other._reading_paused or self._other._closing:
                self._move_soon()
                self._move_piece()
        elif self._closing:
            self._lose(None)
            self._other._end_of_file()

    def _move_piece(self) -> None:
        data = self._unsent.popleft()
        if self._piece is not None and len(data) > self._piece:
            self._unsent.appendleft(data[self._piece :])
            data = data[: self._piece]
        self._size -= len(data)
        if not self._other._closing:
            self._other._arrive(data)
        if self._full and self._size <= self._low and not self._closing:
            self._full = False
            self._protocol.resume_writing()

    def _arrive(self, data: bytes) -> None:
        try:
            self._protocol.data_received(data)
        except Exception as error:  # a bug in the receiver ends the connection, as on any event loop
            self._lose(error)
            self._other._lose(_reset())
            raise

    def _end_of_file(self) -> None:
        if not self._closing and not self._protocol.eof_received():
            self.close()


def _reset() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def memory_pair(
    clock: Clock,
    accept: Callable[[Channel], Receiver] | None = None,
    *,
    address: str = "127.0.0.1",
    local_address: str = "127.0.0.1",
    piece: int | None = None,
) -> tuple[Channel, Channel]:
    """A client's channel and the server's, connected; `accept` makes the server's receiver."""
    client, server = Channel(clock), Channel(clock, accept)
    near = MemoryTransport(local_address, address, piece)
    far = MemoryTransport(address, local_address, piece)
    near.join(client, far)
    far.join(server, near)
    near.open()
    far.open()
    return client, server


class MemoryDialer:
    """A `Dialer` into `hosts`, by (address, port); who is not there refuses. `dialed` is the history."""

    def __init__(self, clock: Clock, hosts: Mapping[tuple[str, int], Host], *, piece: int | None = None) -> None:
        self._clock = clock
        self._hosts = hosts
        self._piece = piece
        self.dialed: list[tuple[str, int]] = []
        self.servers: list[Channel] = []

    def usable(self, address: IPv4Address | IPv6Address) -> bool:
        return True

    async def connect(self, address: IPv4Address | IPv6Address, port: int, deadline: float) -> Channel:
        key = (str(address), port)
        self.dialed.append(key)
        host = self._hosts.get(key, ConnectRefused(f"[{address}]:{port} refused the connection"))
        if isinstance(host, Exception):
            raise host
        if host is None:
            await self._never(key, deadline)
        client, server = memory_pair(self._clock, host, address=key[0], piece=self._piece)
        self.servers.append(server)
        return client

    async def _never(self, key: tuple[str, int], deadline: float) -> None:
        try:
            async with Deadline(self._clock, deadline):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            raise ConnectTimedOut(f"[{key[0]}]:{key[1]} did not answer") from None
