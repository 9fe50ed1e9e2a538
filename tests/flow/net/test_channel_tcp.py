"""Channels over real sockets: hostile peers, slow readers, and nothing left behind; on both event loops."""

from __future__ import annotations

import asyncio
import socket
import struct
import tracemalloc
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Protocol

import pytest

from mailrider.clock import SystemClock
from mailrider.errors import ConnectionLost
from mailrider.net.dial import TCPDialer
from mailrider.net.errors import TLSFailed, TLSFailureKind
from mailrider.net.listen import listen
from mailrider.net.pipe import HIGH_WATER, SLICE, TLSPipe
from mailrider.net.settings import TLSClientSettings, TLSVersion
from tests.support.channels import HOST, Recorder, client_context, issued, server_context
from tests.support.loops import LOOPS, eventually, run_clean

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from mailrider.net.channel import Channel

CLOCK = SystemClock()
LOOPBACK = IPv4Address("127.0.0.1")
OLD = TLSClientSettings(protocols=(TLSVersion.TLS1_2, TLSVersion.TLS1_2))

both_loops = pytest.mark.parametrize("loop", LOOPS)
clear_and_tls = pytest.mark.parametrize("tls", [False, True], ids=["clear", "TLS"])


def soon(seconds: float = 200) -> float:
    return CLOCK.monotonic() + seconds


async def dial(port: int) -> tuple[Channel, Recorder]:
    channel = await TCPDialer(CLOCK).connect(LOOPBACK, port, soon())
    recorder = Recorder(channel)
    channel.receiver = recorder
    return channel, recorder


class Joined:
    """A client's and a server's channel over loopback."""

    def __init__(self, tls: bool) -> None:
        self.tls = tls
        self.accepted: list[Recorder] = []

    async def __aenter__(self) -> Joined:
        def accept(channel: Channel) -> Recorder:
            recorder = Recorder(channel)
            self.accepted.append(recorder)
            if self.tls:
                self.handshake = asyncio.ensure_future(channel.start_tls_server(server_context(), soon()))
            return recorder

        self.listener = await listen(CLOCK, LOOPBACK, 0, accept)
        self.client, self.at_client = await dial(self.listener.port)
        if self.tls:
            await self.client.start_tls_client(client_context(), HOST, soon())
            await self.handshake
        await eventually(lambda: self.accepted)
        self.at_server = self.accepted[0]
        server = self.at_server.channel
        assert server is not None
        self.server = server
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self.listener.close()
        assert len(self.at_client.losses) == len(self.at_server.losses) == 1


# --- large writes -------------------------------------------------------------------------------


@both_loops
@clear_and_tls
def test_large_writes_both_ways_at_once_arrive_whole(loop: str, tls: bool) -> None:
    async def scenario() -> None:
        async with Joined(tls) as joined:
            out, back = bytes(range(256)) * 40_000, bytes(range(255, -1, -1)) * 50_000
            view = memoryview(out)
            for start in range(0, len(out), 65_536):
                joined.client.write(view[start : start + 65_536])
                await joined.client.drain()
            joined.server.write_many([back[:7], back[7:]])
            await eventually(lambda: len(joined.at_server.data) == len(out))
            await eventually(lambda: len(joined.at_client.data) == len(back))
            assert joined.at_server.data == out
            assert joined.at_client.data == back

    run_clean(loop, scenario())


@both_loops
def test_a_slow_reader_bounds_our_memory_however_much_is_to_be_written(loop: str) -> None:
    async def scenario() -> None:
        async with Joined(tls=True) as joined:
            joined.server.pause_reading()
            content = bytes(64 << 20)
            tracemalloc.start()
            try:
                joined.client.write(content)
                for _ in range(20):
                    await asyncio.sleep(0.005)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert joined.client.needs_drain
            # What the kernel's buffers took was encrypted and is gone again.
            assert peak < 4 * (HIGH_WATER + SLICE)
            joined.client.abort()

    run_clean(loop, scenario())


@both_loops
@clear_and_tls
def test_a_reader_that_pauses_now_and_then_misses_nothing(loop: str, tls: bool) -> None:
    class Slow(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            assert self.channel is not None
            if len(self.chunks) % 5 == 0:
                self.channel.pause_reading()
                asyncio.get_running_loop().call_soon(self.channel.resume_reading)

    async def scenario() -> None:
        async with Joined(tls) as joined:
            slow = Slow(joined.server)
            joined.server.receiver = joined.at_server = slow
            content = bytes(range(256)) * 20_000
            joined.client.write(content)
            await eventually(lambda: len(slow.data) == len(content))
            assert slow.data == content

    run_clean(loop, scenario())


# --- hostile servers ----------------------------------------------------------------------------


class Raw:
    """A server that is only a socket, and a script for what it does with it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def receive(self) -> bytes:
        return await self.loop.sock_recv(self.sock, 65_536)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def shake_hands(self, piece: int | None = None) -> TLSPipe:
        pipe = TLSPipe(server_context(), server_side=True, sni=None, peer="client")
        done = False
        while not done:
            pipe.feed(await self.receive())
            done = pipe.shake_hands()
            await self.send_in_pieces(pipe.take(), piece)
        return pipe

    async def send_in_pieces(self, data: bytes, piece: int | None) -> None:
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        step = piece or len(data) or 1
        for start in range(0, len(data), step):
            await self.send(data[start : start + step])
            await asyncio.sleep(0)


class Script(Protocol):
    def __call__(self, raw: Raw) -> Coroutine[Any, Any, None]: ...


async def against(script: Script) -> tuple[Channel, Recorder, asyncio.Task[None], socket.socket]:
    """A channel to a server that does what `script` says."""
    loop = asyncio.get_running_loop()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)

    async def serve() -> None:
        sock, _ = await loop.sock_accept(listening)
        sock.setblocking(False)
        with sock:
            await script(Raw(sock))

    serving = asyncio.ensure_future(serve())
    channel, recorder = await dial(listening.getsockname()[1])
    return channel, recorder, serving, listening


async def fail_against(script: Script, deadline: float = 20) -> TLSFailed:
    channel, recorder, serving, listening = await against(script)
    with listening:
        with pytest.raises(TLSFailed) as caught:
            await channel.start_tls_client(client_context(), HOST, soon(deadline))
        await channel.close()
        assert recorder.losses == [caught.value]
        assert recorder.chunks == []
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    return caught.value


@both_loops
def test_garbage_instead_of_a_server_hello(loop: str) -> None:
    async def script(raw: Raw) -> None:
        await raw.receive()
        await raw.send(b"250 I never learned TLS\r\n" * 10)
        await raw.receive()

    async def scenario() -> None:
        failure = await fail_against(script)
        assert failure.kind is TLSFailureKind.PROTOCOL
        assert "127.0.0.1" in str(failure)

    run_clean(loop, scenario())


@both_loops
def test_a_close_in_mid_handshake(loop: str) -> None:
    async def script(raw: Raw) -> None:
        pipe = TLSPipe(server_context(), server_side=True, sni=None, peer="client")
        pipe.feed(await raw.receive())
        pipe.shake_hands()
        await raw.send(pipe.take()[:200])

    async def scenario() -> None:
        assert (await fail_against(script)).kind is TLSFailureKind.CLOSED

    run_clean(loop, scenario())


@both_loops
def test_a_reset_in_mid_handshake(loop: str) -> None:
    async def script(raw: Raw) -> None:
        await raw.receive()
        raw.reset()

    async def scenario() -> None:
        assert (await fail_against(script)).kind is TLSFailureKind.CLOSED

    run_clean(loop, scenario())


@both_loops
def test_silence_until_the_deadline(loop: str) -> None:
    async def script(raw: Raw) -> None:
        while await raw.receive():
            pass

    async def scenario() -> None:
        failure = await fail_against(script, deadline=0.05)
        assert failure.kind is TLSFailureKind.TIMED_OUT

    run_clean(loop, scenario())


@both_loops
def test_a_server_that_writes_byte_by_byte(loop: str) -> None:
    async def script(raw: Raw) -> None:
        pipe = await raw.shake_hands(piece=1)
        await raw.send_in_pieces(pipe.encrypt(b"250 slowly\r\n") + pipe.close(), 1)

    async def scenario() -> None:
        channel, recorder, serving, listening = await against(script)
        with listening:
            evidence = await channel.start_tls_client(client_context(), HOST, soon())
            assert evidence.chain == issued().chain_der
            await serving
            await eventually(lambda: recorder.losses)
            assert recorder.data == b"250 slowly\r\n"
            assert recorder.losses == [None]

    run_clean(loop, scenario())


@both_loops
def test_truncation_without_close_notify_is_a_loss(loop: str) -> None:
    async def script(raw: Raw) -> None:
        pipe = await raw.shake_hands()
        await raw.send(pipe.encrypt(b"250 ok\r\n"))

    async def scenario() -> None:
        channel, recorder, serving, listening = await against(script)
        with listening:
            await channel.start_tls_client(client_context(), HOST, soon())
            await serving
            await eventually(lambda: recorder.losses)
            assert recorder.data == b"250 ok\r\n"
            assert isinstance(recorder.losses[0], ConnectionLost)
            await channel.close()

    run_clean(loop, scenario())


@both_loops
@clear_and_tls
def test_a_reset_in_the_middle_of_a_large_write_is_a_loss(loop: str, tls: bool) -> None:
    async def script(raw: Raw) -> None:
        if tls:
            await raw.shake_hands()
        await raw.receive()
        raw.reset()

    async def scenario() -> None:
        channel, recorder, serving, listening = await against(script)
        with listening:
            if tls:
                await channel.start_tls_client(client_context(), HOST, soon())
            channel.write(bytes(32 << 20))
            with pytest.raises(ConnectionLost):
                await channel.drain()
            await serving
            await eventually(lambda: recorder.losses)
            assert isinstance(recorder.losses[0], ConnectionLost)

    run_clean(loop, scenario())


@both_loops
def test_a_missing_client_certificate_is_told_after_the_handshake(loop: str) -> None:
    async def scenario() -> None:
        refused: list[object] = []

        def accept(channel: Channel) -> Recorder:
            async def serve() -> None:
                try:
                    await channel.start_tls_server(server_context(demand_client=True), soon())
                except TLSFailed as failure:
                    refused.append(failure)

            tasks.append(asyncio.ensure_future(serve()))
            return Recorder(channel)

        tasks: list[asyncio.Future[None]] = []
        async with await listen(CLOCK, LOOPBACK, 0, accept) as listener:
            channel, recorder = await dial(listener.port)
            evidence = await channel.start_tls_client(client_context(), HOST, soon())
            assert evidence.version == "TLSv1.3"
            channel.write(b"EHLO me\r\n")
            await eventually(lambda: recorder.losses)
            (error,) = recorder.losses
            assert isinstance(error, TLSFailed)
            assert error.kind is TLSFailureKind.ALERT
            assert len(refused) == 1
            await asyncio.gather(*tasks)
            # TLS 1.2 tells in the handshake itself.
            channel, recorder = await dial(listener.port)
            with pytest.raises(TLSFailed) as caught:
                await channel.start_tls_client(client_context(OLD), HOST, soon())
            assert caught.value.kind is TLSFailureKind.ALERT
            await channel.close()
            await asyncio.gather(*tasks)

    run_clean(loop, scenario())


@both_loops
def test_a_peer_that_never_reads_cannot_keep_a_close_from_ending(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrider.net.channel.CLOSE_GRACE", 0.05)

    async def script(raw: Raw) -> None:
        await asyncio.get_running_loop().create_future()

    async def scenario() -> None:
        channel, recorder, serving, listening = await against(script)
        with listening:
            channel.write(bytes(32 << 20))
            await channel.close()
            assert recorder.losses == [None]
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    run_clean(loop, scenario())


@both_loops
def test_starttls_over_tcp(loop: str) -> None:
    """The dialogue of RFC 3207, with the ClientHello as close behind the 220 as it can be."""

    async def scenario() -> None:
        tasks: list[asyncio.Future[object]] = []

        class Server(Recorder):
            def data_received(self, data: bytes) -> None:
                assert self.channel is not None
                super().data_received(data)
                if data == b"STARTTLS\r\n":
                    self.channel.write(b"220 go ahead\r\n")
                    tasks.append(asyncio.ensure_future(self.channel.start_tls_server(server_context(), soon())))
                else:
                    self.channel.write(b"250 " + data)

        class Client(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                if data == b"220 go ahead\r\n" and self.channel is not None:
                    started = self.channel.start_tls_client(client_context(), HOST, soon())
                    self.started = asyncio.ensure_future(started)

        async with await listen(CLOCK, LOOPBACK, 0, Server) as listener:
            channel = await TCPDialer(CLOCK).connect(LOOPBACK, listener.port, soon())
            channel.receiver = client = Client(channel)
            channel.write(b"STARTTLS\r\n")
            await eventually(lambda: client.data)
            await client.started
            channel.write(b"EHLO me\r\n")
            await eventually(lambda: len(client.chunks) == 2)
            assert client.chunks[1] == b"250 EHLO me\r\n"
            await channel.close()
            await asyncio.gather(*tasks)

    run_clean(loop, scenario())
