"""The network for tests behaves like one."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from mailrider.errors import ConnectionLost, NetworkError
from mailrider.net.errors import ConnectRefused, ConnectTimedOut, Unreachable
from mailrider.testing.channels import MemoryDialer, MemoryTransport, memory_pair
from mailrider.testing.clock import FakeClock
from tests.support.channels import Recorder, settle, until

if TYPE_CHECKING:
    from mailrider.net.channel import Channel
    from mailrider.net.dial import Dialer

ADDRESS = IPv4Address("192.0.2.1")
KEY = ("192.0.2.1", 25)


class Greeter(Recorder):
    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        channel.write(b"220 hello\r\n")


async def test_a_host_is_a_function_of_its_channel() -> None:
    dialer: Dialer
    dialer = memory = MemoryDialer(FakeClock(), {KEY: Greeter})
    assert dialer.usable(ADDRESS)
    channel = await dialer.connect(ADDRESS, 25, 0)
    channel.receiver = recorder = Recorder()
    await until(lambda: recorder.data)
    assert recorder.data == b"220 hello\r\n"
    assert channel.peer_address == "192.0.2.1"
    assert memory.dialed == [KEY]
    await channel.close()
    await settle()
    assert all(server.is_closed for server in memory.servers)


async def test_who_is_not_there_refuses() -> None:
    with pytest.raises(ConnectRefused):
        await MemoryDialer(FakeClock(), {}).connect(ADDRESS, 25, 0)


async def test_a_host_may_be_an_error() -> None:
    dialer = MemoryDialer(FakeClock(), {KEY: Unreachable("no route")})
    with pytest.raises(NetworkError, match="no route"):
        await dialer.connect(ADDRESS, 25, 0)


async def test_a_host_may_never_answer() -> None:
    clock = FakeClock()
    dialing = asyncio.ensure_future(MemoryDialer(clock, {KEY: None}).connect(ADDRESS, 25, clock.monotonic() + 30))
    await clock.advance(29)
    assert not dialing.done()
    await clock.advance(1)
    with pytest.raises(ConnectTimedOut):
        await dialing


@pytest.mark.parametrize("piece", [None, 1, 3])
async def test_bytes_arrive_in_order_and_in_pieces(piece: int | None) -> None:
    client, server = memory_pair(FakeClock(), piece=piece)
    client.receiver, server.receiver = at_client, at_server = Recorder(), Recorder()
    client.write(b"abcdefg")
    client.write_many([b"hi", b"j"])
    await client.close()
    await until(lambda: at_server.losses)
    assert at_server.data == b"abcdefghij"
    if piece is not None:
        assert max(map(len, at_server.chunks)) <= piece
    assert at_client.losses == at_server.losses == [None]


async def test_an_abort_is_a_reset_for_the_other_side() -> None:
    client, server = memory_pair(FakeClock())
    client.receiver, server.receiver = at_client, at_server = Recorder(), Recorder()
    client.write(b"never arrives")
    client.abort()
    server.write(b"nor does this")
    await settle()
    assert at_client.losses == [None]
    assert isinstance(at_server.losses[0], ConnectionLost)
    assert at_server.data == at_client.data == b""


async def test_a_reader_that_pauses_makes_the_writer_wait() -> None:
    client, server = memory_pair(FakeClock())
    client.receiver, server.receiver = _, at_server = Recorder(), Recorder()
    server.pause_reading()
    for _ in range(10):
        client.write(bytes(10_000))
    await settle(30)
    assert client.needs_drain
    assert at_server.data == b""
    server.resume_reading()
    await client.drain()
    await until(lambda: len(at_server.data) == 100_000)
    await client.close()


async def test_a_bug_in_a_receiver_ends_the_connection() -> None:
    class Buggy(Recorder):
        def data_received(self, data: bytes) -> None:
            raise RuntimeError("bug")

    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    client, server = memory_pair(FakeClock())
    client.receiver, server.receiver = at_client, at_server = Recorder(), Buggy()
    client.write(b"x")
    await settle()
    assert len(unhandled) == 1
    assert isinstance(at_server.losses[0], ConnectionLost)
    assert isinstance(at_client.losses[0], ConnectionLost)


async def test_the_transport_says_what_it_is() -> None:
    one, other = MemoryTransport("192.0.2.1", "192.0.2.2"), MemoryTransport("192.0.2.2", "192.0.2.1")
    assert one.get_extra_info("peername") == ("192.0.2.2", 0)
    assert not one.is_closing()
    one.join(asyncio.Protocol(), other)
    other.join(asyncio.Protocol(), one)
    one.set_write_buffer_limits()
    one.write(b"")
    assert one.get_write_buffer_size() == 0
    one.close()
    one.close()
    assert one.is_closing()
    one.write(b"late")
    assert one.get_write_buffer_size() == 0
    await settle()
    assert other.is_closing()
