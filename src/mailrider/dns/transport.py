"""Questions over UDP and TCP, on plain sockets of the event loop.

Not dnspython's own I/O: that bounds itself with timers past our clock, and makes a transport and a protocol
object for each question. Here a question is one socket, opened, used and closed in one function, so that
nothing can leak.

UDP (RFC 5452): each question has a fresh socket, connected, so that the kernel drops what another address
sends and gives us the source port: a random one. What does not answer the question is passed over, and the
wait goes on; after `MAX_STRAYS` of them somebody is guessing, and the question is given up.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, TypeVar

from mailrider.dns.wire import MAX_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.dns.servers import ServerAddress

T = TypeVar("T")

MAX_STRAYS = 50  # of 65,536 ids; a late answer to an earlier question cannot even come to this port


class NotAnAnswer(Exception):
    """What came back has nothing to do with the question."""


class Transport:
    """Carries a question to a server.

    `accept` reads a message, and returns None for one that does not answer the question. Raises `OSError` if the
    server cannot be reached, `NotAnAnswer`; waits for as long as the caller lets it.
    """

    async def ask_udp(self, server: ServerAddress, query: bytes, accept: Callable[[bytes], T | None]) -> T:
        with socket.socket(server.family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(server.sockaddr)
            sock.send(query)
            for _ in range(MAX_STRAYS):
                reply = accept(await _receive(sock, MAX_MESSAGE))
                if reply is not None:
                    return reply
        raise NotAnAnswer(f"{MAX_STRAYS} datagrams that do not answer the question: somebody may be forging")

    async def ask_tcp(self, server: ServerAddress, query: bytes, accept: Callable[[bytes], T | None]) -> T:
        with socket.socket(server.family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            await _connect(sock, server)
            # RFC 1035 4.2.2: a length goes before each message; RFC 7766 8: in one piece. A fresh connection's
            # buffer takes a question of 300 octets whole.
            sock.send(len(query).to_bytes(2) + query)
            length = int.from_bytes(await _receive_exactly(sock, 2))
            reply = accept(await _receive_exactly(sock, length))
        if reply is None:
            raise NotAnAnswer("the server answered another question")
        return reply


async def _connect(sock: socket.socket, server: ServerAddress) -> None:
    try:
        sock.connect(server.sockaddr)
    except BlockingIOError:
        loop = asyncio.get_running_loop()
        await _ready(sock, loop.add_writer, loop.remove_writer)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, f"no connection to {server}") from None


async def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        piece = await _receive(sock, count - len(received))
        if not piece:
            raise ConnectionResetError("the server closed the connection before its answer was complete")
        received += piece
    return bytes(received)


async def _receive(sock: socket.socket, count: int) -> bytes:
    """What has arrived: at most `count` octets, or one datagram."""
    loop = asyncio.get_running_loop()
    while True:
        await _ready(sock, loop.add_reader, loop.remove_reader)
        try:
            return sock.recv(count)
        except BlockingIOError:  # a datagram with a bad checksum wakes us and is not there
            continue


async def _ready(
    sock: socket.socket,
    watch: Callable[[socket.socket, Callable[[], object]], None],
    unwatch: Callable[[socket.socket], bool],
) -> None:
    woken = asyncio.Event()
    watch(sock, woken.set)
    try:
        await woken.wait()
    finally:
        unwatch(sock)
