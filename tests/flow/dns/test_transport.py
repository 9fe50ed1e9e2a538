"""UDP and TCP with servers that misbehave below the level of DNS."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import SystemClock, after
from mailrider.dns.servers import ServerAddress
from mailrider.dns.transport import MAX_STRAYS, NotAnAnswer, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ADDRESS = "127.0.0.55"


def accept(message: bytes) -> bytes | None:
    return message if message == b"the answer" else None


class UDPServer:
    """A socket that the test drives by hand."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((ADDRESS, 0))
        self.socket.setblocking(False)
        self.address = ServerAddress(ip_address(ADDRESS), self.socket.getsockname()[1])

    async def receive(self) -> tuple[str, int]:
        """Wait for a question; where it came from."""
        while True:
            try:
                _, client = self.socket.recvfrom(512)
            except BlockingIOError:
                await asyncio.sleep(0.001)
            else:
                return client  # type: ignore[no-any-return]


@pytest.fixture
async def udp_server() -> AsyncIterator[UDPServer]:
    server = UDPServer()
    yield server
    server.socket.close()


async def test_strays_are_passed_over_until_the_answer_comes(udp_server: UDPServer) -> None:
    question = asyncio.create_task(Transport().ask_udp(udp_server.address, b"?", accept))
    client = await udp_server.receive()
    for datagram in (b"", b"stray", b"x" * 60_000, b"the answer"):
        udp_server.socket.sendto(datagram, client)
    assert await question == b"the answer"


async def test_a_forger_has_few_tries(udp_server: UDPServer) -> None:
    question = asyncio.create_task(Transport().ask_udp(udp_server.address, b"?", accept))
    client = await udp_server.receive()
    for _ in range(MAX_STRAYS):
        udp_server.socket.sendto(b"forged", client)
    udp_server.socket.sendto(b"the answer", client)
    with pytest.raises(NotAnAnswer):
        await question


async def test_what_another_address_sends_is_never_seen(udp_server: UDPServer) -> None:
    seen: list[bytes] = []

    def note(message: bytes) -> bytes | None:
        seen.append(message)
        return accept(message)

    question = asyncio.create_task(Transport().ask_udp(udp_server.address, b"?", note))
    client = await udp_server.receive()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
        forger.bind(("127.0.0.56", 0))
        forger.sendto(b"the answer", client)
    udp_server.socket.sendto(b"marker", client)
    udp_server.socket.sendto(b"the answer", client)
    await question
    assert seen == [b"marker", b"the answer"]


async def test_every_question_comes_from_a_port_of_its_own(udp_server: UDPServer) -> None:
    questions = [asyncio.create_task(Transport().ask_udp(udp_server.address, b"?", accept)) for _ in range(8)]
    clients = {await udp_server.receive() for _ in questions}
    assert len(clients) == 8
    for client in clients:
        udp_server.socket.sendto(b"the answer", client)
    await asyncio.gather(*questions)


async def test_the_wait_for_a_datagram_can_be_bounded(udp_server: UDPServer) -> None:
    with pytest.raises(TimeoutError):
        async with after(SystemClock(), 0.01):
            await Transport().ask_udp(udp_server.address, b"?", accept)


@asynccontextmanager
async def tcp_server(
    behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[ServerAddress]:
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behave(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()
            done.set()

    server = await asyncio.start_server(serve, ADDRESS, 0)
    async with server:
        yield ServerAddress(ip_address(ADDRESS), server.sockets[0].getsockname()[1])
        await done.wait()


async def test_an_answer_over_tcp_may_come_octet_by_octet() -> None:
    received = bytearray()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.readexactly(3))
        for octet in b"\0\x0athe answer":
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0)

    async with tcp_server(slow) as server:
        assert await Transport().ask_tcp(server, b"?", accept) == b"the answer"
    assert received == b"\0\1?"


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\x0athe"])
async def test_a_server_that_closes_early_gives_no_answer(sent: bytes) -> None:
    async def close_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(sent)

    async with tcp_server(close_early) as server:
        with pytest.raises(ConnectionResetError):
            await Transport().ask_tcp(server, b"?", accept)


async def test_another_answer_over_tcp_is_no_answer() -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\5other")

    async with tcp_server(other) as server:
        with pytest.raises(NotAnAnswer):
            await Transport().ask_tcp(server, b"?", accept)


async def test_the_wait_for_a_slow_stream_can_be_bounded() -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0")
        await reader.read()  # until the client closes

    async with tcp_server(stall) as server:
        with pytest.raises(TimeoutError):
            async with after(SystemClock(), 0.05):
                await Transport().ask_tcp(server, b"?", accept)


async def test_a_refused_connection_is_an_error_at_once() -> None:
    with pytest.raises(ConnectionRefusedError):
        await Transport().ask_tcp(ServerAddress(ip_address("127.0.0.57"), 1), b"?", accept)
    with pytest.raises(ConnectionRefusedError):
        await Transport().ask_udp(ServerAddress(ip_address("127.0.0.57"), 1), b"?", accept)
