"""Listening: TCP and unix sockets, counted, and gone when they are closed."""

from __future__ import annotations

import asyncio
import errno
import socket
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import SystemClock
from mailrider.errors import LocalError
from mailrider.net.dial import TCPDialer
from mailrider.net.errors import ConnectRefused
from mailrider.net.listen import Listener, listen, tcp_socket, unix_socket
from tests.support.channels import Recorder
from tests.support.loops import LOOPS, eventually, run_clean

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.net.channel import Channel

CLOCK = SystemClock()
LOOPBACK = IPv4Address("127.0.0.1")

both_loops = pytest.mark.parametrize("loop", LOOPS)


def soon() -> float:
    return CLOCK.monotonic() + 200


async def connected(listener: Listener) -> tuple[Channel, Recorder]:
    already = listener.connections
    channel = await TCPDialer(CLOCK).connect(LOOPBACK, listener.port, soon())
    channel.receiver = recorder = Recorder()
    await eventually(lambda: listener.connections > already)
    return channel, recorder


@both_loops
def test_closing_aborts_what_is_open_and_accepts_no_more(loop: str) -> None:
    async def scenario() -> None:
        receivers: list[Recorder] = []

        def accept(channel: Channel) -> Recorder:
            receivers.append(Recorder(channel))
            return receivers[-1]

        listener = await listen(CLOCK, LOOPBACK, 0, accept)
        assert listener.address == "127.0.0.1"
        _, one = await connected(listener)
        _, other = await connected(listener)
        assert listener.connections == 2
        await listener.close()
        assert listener.connections == 0
        assert [receiver.losses for receiver in receivers] == [[None], [None]]
        with pytest.raises(ConnectRefused):
            await TCPDialer(CLOCK).connect(LOOPBACK, listener.port, soon())
        await eventually(lambda: one.losses and other.losses)

    run_clean(loop, scenario())


@both_loops
def test_stopping_leaves_what_is_open(loop: str) -> None:
    async def scenario() -> None:
        async with await listen(CLOCK, LOOPBACK, 0, Recorder) as listener:
            channel, recorder = await connected(listener)
            listener.stop()
            with pytest.raises(ConnectRefused):
                await TCPDialer(CLOCK).connect(LOOPBACK, listener.port, soon())
            assert not channel.is_closed
            await channel.close()
            assert recorder.losses == [None]
            await eventually(lambda: not listener.connections)

    run_clean(loop, scenario())


@both_loops
def test_a_port_in_use_is_an_error_that_says_so(loop: str) -> None:
    async def scenario() -> None:
        async with await listen(CLOCK, LOOPBACK, 0, Recorder) as listener:
            with pytest.raises(
                LocalError,
                match=rf"cannot listen on \[127\.0\.0\.1\]:{listener.port}: Address already in use; another program",
            ):
                await listen(CLOCK, LOOPBACK, listener.port, Recorder)

    run_clean(loop, scenario())


def test_an_address_of_another_machine_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(LocalError, match="requested address; this machine has no such address, ip address lists"):
        tcp_socket(LOOPBACK, 2525)


def test_a_port_that_is_roots_says_who_may_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(LocalError, match=r"cannot listen on \[127\.0\.0\.1\]:25: Permission denied; ports below 1024"):
        tcp_socket(LOOPBACK, 25)
    with pytest.raises(LocalError, match=r"cannot listen on \[127\.0\.0\.1\]:2525: Permission denied$"):
        tcp_socket(LOOPBACK, 2525)


async def unix_peer(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.setblocking(False)
    await asyncio.get_running_loop().sock_connect(peer, str(path))
    return peer


@both_loops
def test_a_unix_socket_is_private(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "mail.sock"

    async def scenario() -> None:
        class Echo(Recorder):
            def data_received(self, data: bytes) -> None:
                assert self.channel is not None
                self.channel.write(data.upper())

        channels: list[Channel] = []

        def accept(channel: Channel) -> Echo:
            channels.append(channel)
            return Echo(channel)

        async with Listener(CLOCK, accept) as listener:
            await listener.open_socket(unix_socket(path, 0o600))
            assert listener.address == str(path)
            assert path.stat().st_mode & 0o777 == 0o600
            with await unix_peer(path) as peer:
                running = asyncio.get_running_loop()
                await running.sock_sendall(peer, b"hello")
                assert await running.sock_recv(peer, 100) == b"HELLO"
            assert channels[0].peer_address == ""
            assert channels[0].local_address == str(path)

    run_clean(loop, scenario())


@both_loops
def test_a_dead_unix_socket_is_replaced_a_living_one_and_a_file_are_not(loop: str, tmp_path: Path) -> None:
    path = tmp_path / "mail.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))

    async def scenario() -> None:
        async with Listener(CLOCK, Recorder) as listener:
            await listener.open_socket(unix_socket(path, 0o666))
            assert path.stat().st_mode & 0o777 == 0o666
            with pytest.raises(LocalError, match="Address already in use"):
                unix_socket(path, 0o600)
            assert path.is_socket(), "it is still the other's"
        path.unlink()
        path.write_text("precious")
        with pytest.raises(LocalError, match="Address already in use"):
            unix_socket(path, 0o600)
        assert path.read_text() == "precious"

    run_clean(loop, scenario())
