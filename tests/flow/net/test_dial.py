"""Dialing over loopback: what fails says why, and never leaks a socket."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import SystemClock
from mailrider.net.dial import TCPDialer
from mailrider.net.errors import (
    ConnectRefused,
    ConnectTimedOut,
    LocalAddressUnavailable,
    OutOfResources,
    Unreachable,
)
from mailrider.net.listen import listen
from tests.support.channels import Recorder
from tests.support.loopback import free_port
from tests.support.loops import LOOPS, run_clean

if TYPE_CHECKING:
    from collections.abc import Iterator

CLOCK = SystemClock()
LOOPBACK = IPv4Address("127.0.0.1")

both_loops = pytest.mark.parametrize("loop", LOOPS)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def soon(seconds: float = 200) -> float:
    return CLOCK.monotonic() + seconds


@both_loops
@pytest.mark.parametrize("local_ip", [None, "127.0.0.2"])
def test_a_channel_knows_both_its_ends_and_sends_small_writes_at_once(loop: str, local_ip: str | None) -> None:
    async def scenario() -> None:
        async with await listen(CLOCK, LOOPBACK, 0, Recorder) as listener:
            channel = await TCPDialer(CLOCK, local_ip).connect(LOOPBACK, listener.port, soon())
            channel.receiver = Recorder()
            assert channel.peer_address == "127.0.0.1"
            assert channel.local_address == (local_ip or "127.0.0.1")
            assert not channel.is_closed
            with socket.socket(fileno=os.dup(channel.fileno())) as same:
                assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await channel.close()

    run_clean(loop, scenario())


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on loopback")
@both_loops
def test_ipv6_from_a_local_address(loop: str) -> None:
    async def scenario() -> None:
        loopback = IPv6Address("::1")
        async with await listen(CLOCK, loopback, 0, Recorder) as listener:
            channel = await TCPDialer(CLOCK, loopback).connect(loopback, listener.port, soon())
            channel.receiver = Recorder()
            assert channel.peer_address == channel.local_address == "::1"
            await channel.close()

    run_clean(loop, scenario())


def test_a_local_address_of_the_other_family_makes_an_address_unusable() -> None:
    dialer = TCPDialer(CLOCK, "192.0.2.1")
    assert dialer.usable(IPv4Address("198.51.100.1"))
    assert not dialer.usable(IPv6Address("2001:db8::1"))
    assert TCPDialer(CLOCK).usable(IPv6Address("2001:db8::1"))

    async def scenario() -> None:
        with pytest.raises(LocalAddressUnavailable, match="different families"):
            await dialer.connect(IPv6Address("2001:db8::1"), 25, soon())

    run_clean("uvloop", scenario())


@both_loops
def test_a_local_address_that_is_not_ours_is_our_fault(loop: str) -> None:
    async def scenario() -> None:
        with pytest.raises(LocalAddressUnavailable, match=r"local_ip 192\.0\.2\.1 cannot be used") as caught:
            await TCPDialer(CLOCK, "192.0.2.1").connect(LOOPBACK, 25, soon())
        assert not caught.value.permanent

    run_clean(loop, scenario())


@both_loops
def test_a_port_where_nobody_listens_refuses(loop: str) -> None:
    async def scenario() -> None:
        port = free_port()
        with pytest.raises(ConnectRefused, match=rf"\[127\.0\.0\.1\]:{port} refused"):
            await TCPDialer(CLOCK).connect(LOOPBACK, port, soon())

    run_clean(loop, scenario())


@both_loops
def test_an_address_without_a_route_is_unreachable(loop: str) -> None:
    async def scenario() -> None:
        with pytest.raises(Unreachable, match="cannot be reached"):  # TCP has no way to a group
            await TCPDialer(CLOCK).connect(IPv4Address("224.0.0.1"), 25, soon())

    run_clean(loop, scenario())


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port whose queue is full: the kernel drops what else would connect."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
            fillers.append(filler)
        yield listening.getsockname()[1]
        for filler in fillers:
            filler.close()


@both_loops
def test_silence_ends_at_the_deadline(loop: str, silent_port: int) -> None:
    async def scenario() -> None:
        with pytest.raises(ConnectTimedOut, match="did not answer in time") as caught:
            await TCPDialer(CLOCK).connect(LOOPBACK, silent_port, soon(0.05))
        assert caught.value.enhanced == "4.4.1"
        with pytest.raises(ConnectTimedOut):
            await TCPDialer(CLOCK).connect(LOOPBACK, silent_port, soon(-1))

    run_clean(loop, scenario())


@both_loops
def test_cancellation_while_nobody_answers_leaks_nothing(loop: str, silent_port: int) -> None:
    async def scenario() -> None:
        dialing = asyncio.ensure_future(TCPDialer(CLOCK).connect(LOOPBACK, silent_port, soon()))
        await asyncio.sleep(0.01)
        dialing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing

    run_clean(loop, scenario())


@both_loops
@pytest.mark.parametrize("turns", range(8))
def test_cancellation_at_any_moment_leaks_nothing(loop: str, turns: int) -> None:
    async def scenario() -> None:
        async with await listen(CLOCK, LOOPBACK, 0, Recorder) as listener:
            dialing = asyncio.ensure_future(TCPDialer(CLOCK).connect(LOOPBACK, listener.port, soon()))
            for _ in range(turns):
                await asyncio.sleep(0)
            dialing.cancel()
            result = (await asyncio.gather(dialing, return_exceptions=True))[0]
            if not isinstance(result, BaseException):
                await result.close()

    run_clean(loop, scenario())


@both_loops
def test_running_out_of_file_descriptors_is_our_fault_and_temporary(loop: str) -> None:
    async def scenario() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as probe:
            used = probe.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        try:
            with pytest.raises(OutOfResources, match="Too many open files") as caught:
                await TCPDialer(CLOCK).connect(LOOPBACK, 25, soon())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not caught.value.permanent
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.EMFILE

    run_clean(loop, scenario())
