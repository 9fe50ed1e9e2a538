"""The lab's DNS server with a client that is not ours."""

from __future__ import annotations

import asyncio
import socket

import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from mailrider.lab.dns import MAX_LOG, AskedQuestion, LabDNS
from mailrider.lab.zones import Fault, Records, ZoneTable
from mailrider.testing.clock import FakeClock

ZONES: ZoneTable = {
    "a.test": {"A": "192.0.2.1"},
    "slow.test": {"A": Records(["192.0.2.1"], delay=3)},
    "closed.test": Fault.TCP_CLOSED,
}


async def test_it_answers_over_udp_and_tcp_on_one_port_and_logs_what_was_asked() -> None:
    async with LabDNS(dict(ZONES)) as server:
        asked = dns.message.make_query("A.test", "A")
        for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
            reply = await ask(asked, server.address, port=server.port, timeout=30)
            assert str(reply.answer[0]) == "A.test. 300 IN A 192.0.2.1"
        assert list(server.queries) == [AskedQuestion("a.test", "A"), AskedQuestion("a.test", "A", tcp=True)]
        assert server.asked("a.test", "A") == 2
        assert server.asked("a.test", "MX") == 0
        assert server.queries.maxlen == MAX_LOG


async def test_several_questions_may_come_over_one_connection_in_any_pieces() -> None:
    async with LabDNS(dict(ZONES)) as server:
        reader, writer = await asyncio.open_connection(server.address, server.port)
        query = dns.message.make_query("a.test", "A").to_wire()
        assert query is not None
        stream = (len(query).to_bytes(2) + query) * 2
        for octet in stream:
            writer.write(bytes([octet]))
            await writer.drain()
        for _ in range(2):
            reply = dns.message.from_wire(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
            assert reply.answer
        writer.close()


async def test_a_fault_may_close_the_connection() -> None:
    async with LabDNS(dict(ZONES)) as server:
        with pytest.raises((EOFError, ConnectionError)):
            await dns.asyncquery.tcp(
                dns.message.make_query("closed.test", "A"), server.address, port=server.port, timeout=30
            )


async def test_what_is_no_query_gets_no_answer() -> None:
    async with LabDNS(dict(ZONES)) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"garbage", (server.address, server.port))
        await dns.asyncquery.udp(dns.message.make_query("a.test", "A"), server.address, port=server.port, timeout=30)
        assert list(server.queries) == [AskedQuestion("a.test", "A")]


async def test_a_delay_is_measured_by_the_clock_and_dropped_at_the_end() -> None:
    clock = FakeClock()
    async with LabDNS(dict(ZONES), clock=clock) as server:
        query = dns.message.make_query("slow.test", "A").to_wire()
        assert query is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect((server.address, server.port))
            client.send(query)
            await server.wait_asked("slow.test", "A")
            with pytest.raises(BlockingIOError):
                client.recv(512)
            await clock.advance(3)
            assert dns.message.from_wire(client.recv(512)).answer
            client.send(query)
            await server.wait_asked("slow.test", "A", 2)
    assert clock.pending == 0


async def test_an_answer_that_comes_too_late_for_its_connection_is_dropped() -> None:
    clock = FakeClock()
    async with LabDNS(dict(ZONES), clock=clock) as server:
        reader, writer = await asyncio.open_connection(server.address, server.port)
        query = dns.message.make_query("slow.test", "A").to_wire()
        assert query is not None
        writer.write(len(query).to_bytes(2) + query)
        await server.wait_asked("slow.test", "A")
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.01)
        await clock.advance(3)
        assert await reader.read() == b""


async def test_a_port_that_is_taken_is_an_error_and_a_free_one_is_found() -> None:
    async with LabDNS(dict(ZONES)) as first:
        with pytest.raises(OSError, match="in use"):
            await LabDNS({}, port=first.port).__aenter__()
        with socket.create_server((first.address, 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(OSError, match="in use"):
                await LabDNS({}, port=port).__aenter__()
        async with LabDNS({}) as second:
            assert second.port not in (0, first.port)
