"""The channel on bytes: no sockets, virtual time. TLS runs against our own server side, or against scripted bytes."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import ConnectionLost, InvalidValue, LocalError
from mailrider.lab.ca import Kind
from mailrider.net import channel as channel_module
from mailrider.net.channel import CLOSE_GRACE, MAX_HANDSHAKE, Channel
from mailrider.net.errors import TLSFailed, TLSFailureKind
from mailrider.net.pipe import HIGH_WATER, RECORD, SLICE, SLICES_A_TURN, TLSPipe
from mailrider.net.settings import TLSClientSettings, TLSVersion
from mailrider.testing.channels import MemoryTransport
from mailrider.testing.clock import FakeClock
from tests.support.channels import (
    HOST,
    Recorder,
    Wire,
    client_context,
    files,
    issued,
    server_context,
    settle,
    until,
)

if TYPE_CHECKING:
    import ssl

HERE = "127.0.0.1"
OLD = TLSClientSettings(protocols=(TLSVersion.TLS1_2, TLSVersion.TLS1_2))


def on_wire(clock: FakeClock | None = None) -> tuple[Channel, Wire, Recorder]:
    channel, wire, recorder = Channel(clock or FakeClock()), Wire(), Recorder()
    wire.carry(channel)
    channel.receiver = recorder
    return channel, wire, recorder


class Pair:
    """A client's and a server's channel, joined in memory."""

    def __init__(self, clock: FakeClock | None = None, piece: int | None = None) -> None:
        self.clock = clock or FakeClock()
        self.client, self.server = Channel(self.clock), Channel(self.clock)
        self.client_wire, self.server_wire = MemoryTransport(HERE, HERE, piece), MemoryTransport(HERE, HERE, piece)
        self.client_wire.join(self.client, self.server_wire)
        self.server_wire.join(self.server, self.client_wire)
        self.client_wire.open()
        self.server_wire.open()
        self.at_client, self.at_server = Recorder(), Recorder()
        self.client.receiver, self.server.receiver = self.at_client, self.at_server

    async def start_tls(self, client: ssl.SSLContext | None = None, server: ssl.SSLContext | None = None) -> None:
        await asyncio.gather(
            self.client.start_tls_client(client or client_context(), HOST),
            self.server.start_tls_server(server or server_context()),
        )
        await settle()

    async def end(self) -> None:
        await self.client.close()
        await self.server.close()
        assert self.clock.pending == 0
        assert len(self.at_client.losses) == len(self.at_server.losses) == 1


# --- in clear -----------------------------------------------------------------------------------


async def test_bytes_in_clear_pass_through_as_they_are() -> None:
    channel, wire, recorder = on_wire()
    channel.data_received(b"220 hello\r\n")
    channel.write(b"EHLO me\r\n")
    channel.write_many([b"MAIL", b"", b" FROM"])
    channel.write_many([])
    channel.write_many([b""])
    assert recorder.chunks == [b"220 hello\r\n"]
    assert wire.sent == [b"EHLO me\r\n", b"MAIL FROM"]
    assert (channel.peer_address, channel.local_address) == ("192.0.2.1", "192.0.2.2")
    assert channel.tls is None


async def test_what_arrives_before_the_receiver_is_kept_for_it() -> None:
    channel, wire = Channel(FakeClock()), Wire()
    wire.carry(channel)
    channel.data_received(b"220 ")
    channel.data_received(b"hello\r\n")
    assert wire.paused, "and no more is read meanwhile"
    recorder = Recorder()
    channel.receiver = recorder
    assert recorder.chunks == [b"220 ", b"hello\r\n"]
    assert not wire.paused
    assert channel.receiver is recorder


async def test_an_end_before_the_receiver_is_kept_for_it() -> None:
    channel, wire = Channel(FakeClock()), Wire()
    wire.carry(channel)
    channel.data_received(b"554 go away\r\n")
    channel.eof_received()
    channel.connection_lost(None)
    recorder = Recorder()
    channel.receiver = recorder
    assert recorder.data == b"554 go away\r\n"
    assert recorder.losses == [None]


async def test_a_peer_that_sends_no_more_is_told_to_whoever_wants_to_answer_it_and_still_hears_us() -> None:
    channel, wire, recorder = on_wire()
    ends: list[bytes] = []
    channel.on_end = lambda: ends.append(recorder.data)
    channel.pause_reading()
    channel.data_received(b"QUIT\r\n")
    assert channel.eof_received() is True
    assert not ends, "what it sent before comes first"
    channel.resume_reading()
    await settle()
    assert ends[0] == b"QUIT\r\n"
    channel.write(b"221 bye\r\n")
    assert (wire.sent, channel.is_closed) == ([b"221 bye\r\n"], False)
    await channel.close()
    assert recorder.losses == [None]


async def test_there_is_no_handshake_with_a_peer_that_sends_no_more() -> None:
    channel, wire, _ = on_wire()
    channel.on_end = lambda: None
    channel.eof_received()
    with pytest.raises(TLSFailed):
        await channel.start_tls_server(server_context())
    await channel.close()
    assert wire.closed


async def test_the_peers_close_in_clear_is_an_orderly_end() -> None:
    channel, wire, recorder = on_wire()
    assert channel.eof_received() is False
    assert channel.is_closed
    assert wire.closed
    await settle()
    assert recorder.losses == [None]


async def test_a_reset_is_a_loss_with_its_cause() -> None:
    channel, _, recorder = on_wire()
    reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    channel.connection_lost(reset)
    (error,) = recorder.losses
    assert isinstance(error, ConnectionLost)
    assert "192.0.2.1" in str(error)
    assert "reset" in str(error)
    assert error.__cause__ is reset
    with pytest.raises(ConnectionLost, match="reset"):
        await channel.drain()


async def test_writing_after_the_end_does_nothing() -> None:
    channel, wire, _ = on_wire()
    channel.abort()
    channel.write(b"QUIT\r\n")
    channel.write_many([b"QUIT\r\n"])
    await settle()
    channel.abort()
    channel.data_received(b"late")
    assert wire.sent == []


async def test_abort_ends_at_once_and_is_no_error() -> None:
    channel, wire, recorder = on_wire()
    channel.abort()
    assert channel.is_closed
    assert wire.aborted
    assert recorder.losses == [], "told from the event loop, never from inside a call"
    await settle()
    assert recorder.losses == [None]


async def test_pausing_keeps_the_peer_waiting() -> None:
    channel, wire, recorder = on_wire()
    channel.pause_reading()
    assert wire.paused
    channel.data_received(b"already read")
    assert recorder.chunks == []
    channel.resume_reading()
    await settle()
    assert not wire.paused
    assert recorder.chunks == [b"already read"]


async def test_a_bug_in_the_receiver_ends_the_connection_behind_a_pause_too() -> None:
    class Buggy(Recorder):
        def data_received(self, data: bytes) -> None:
            raise RuntimeError("bug")

    channel, wire, _ = on_wire()
    buggy = Buggy()
    channel.pause_reading()
    channel.data_received(b"x")
    channel.receiver = buggy
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["exception"]))
    channel.resume_reading()
    await settle()
    assert wire.closed
    assert buggy.losses == unhandled
    assert isinstance(buggy.losses[0], RuntimeError)


# --- flow control -------------------------------------------------------------------------------


async def test_drain_returns_at_once_while_there_is_room() -> None:
    channel, _, _ = on_wire()
    assert not channel.needs_drain
    await channel.drain()


async def test_drain_waits_for_room() -> None:
    channel, wire, _ = on_wire()
    wire.fill()
    assert channel.needs_drain
    drains = [asyncio.ensure_future(channel.drain()) for _ in range(2)]
    await settle()
    assert not any(drain.done() for drain in drains)
    drains[0].cancel()
    wire.empty()
    await settle()
    assert drains[0].cancelled()
    assert drains[1].result() is None
    assert not channel.needs_drain


async def test_drain_fails_when_the_connection_goes_meanwhile() -> None:
    channel, wire, _ = on_wire()
    wire.fill()
    drain = asyncio.ensure_future(channel.drain())
    await settle()
    channel.connection_lost(ConnectionResetError(errno.ECONNRESET, "reset"))
    with pytest.raises(ConnectionLost):
        await drain
    assert not channel.needs_drain


async def test_a_large_write_in_tls_is_encrypted_only_as_it_is_sent() -> None:
    pair = Pair()
    near = MemoryTransport("127.0.0.1", "127.0.0.1")
    far = MemoryTransport("127.0.0.1", "127.0.0.1")
    client, server = Channel(pair.clock), Channel(pair.clock)
    near.join(client, far)
    far.join(server, near)
    near.open()
    far.open()
    client.receiver, server.receiver = at_client, at_server = Recorder(), Recorder()
    await asyncio.gather(client.start_tls_client(client_context(), HOST), server.start_tls_server(server_context()))
    await settle()
    server.pause_reading()
    content = bytes(range(256)) * 4096 * 8
    client.write(content)
    client.write(b"and more")
    await settle(100)
    assert client.needs_drain
    assert near.get_write_buffer_size() <= HIGH_WATER + SLICE + 1024
    server.resume_reading()
    await client.drain()
    await until(lambda: len(at_server.data) == len(content) + 8)
    assert at_server.data == content + b"and more"
    await client.close()
    await pair.end()
    assert at_client.losses == [None]


async def test_a_large_write_gives_other_connections_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    await pair.start_tls()
    slices = 0
    encrypt = TLSPipe.encrypt

    def counting(self: TLSPipe, data: bytes) -> bytes:
        nonlocal slices
        slices += 1
        return encrypt(self, data)

    monkeypatch.setattr(TLSPipe, "encrypt", counting)
    monkeypatch.setattr(MemoryTransport, "pause_writing", None, raising=False)
    transport = pair.client_wire
    transport.set_write_buffer_limits(1 << 30)
    pair.client.write(bytes(SLICE * SLICES_A_TURN * 2 + 1))
    assert slices == SLICES_A_TURN
    pair.client.write(b"and more")
    assert slices == SLICES_A_TURN, "there is one queue"
    assert pair.client.needs_drain
    await until(lambda: not pair.client.needs_drain)
    assert slices == SLICES_A_TURN * 2 + 1
    await pair.end()


async def test_many_small_chunks_become_one_write() -> None:
    pair = Pair()
    await pair.start_tls()
    writes: list[int] = []
    transport = pair.client_wire
    original = transport.write

    def counted(data: bytes) -> None:
        writes.append(len(data))
        original(data)

    transport.write = counted  # type: ignore[assignment, method-assign]
    pair.client.write_many([b"x" * 10] * 100)
    assert len(writes) == 1
    assert writes[0] < 1000 + 100, "in one record"
    await until(lambda: len(pair.at_server.data) == 1000)
    await pair.end()


@given(st.lists(st.integers(0, 3 * RECORD), max_size=12), st.booleans())
def test_whatever_is_written_arrives_in_order(sizes: list[int], as_one: bool) -> None:
    chunks = [bytes([index]) * size for index, size in enumerate(sizes)]

    async def scenario() -> None:
        pair = Pair()
        await pair.start_tls()
        if as_one:
            pair.client.write_many(chunks)
        else:
            for chunk in chunks:
                pair.client.write(chunk)
        expected = b"".join(chunks)
        await until(lambda: len(pair.at_server.data) >= len(expected))
        assert pair.at_server.data == expected
        await pair.end()

    asyncio.run(scenario())


# --- the handshake ------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [None, 1, 7, 1000])
@pytest.mark.parametrize("settings", [None, OLD], ids=["tls1.3", "tls1.2"])
async def test_the_handshake_proves_what_it_should_however_bytes_are_cut(
    piece: int | None, settings: TLSClientSettings | None
) -> None:
    pair = Pair(piece=piece)
    evidence, seen = await asyncio.gather(
        pair.client.start_tls_client(client_context(settings), HOST + "."),
        pair.server.start_tls_server(server_context()),
    )
    assert evidence is pair.client.tls
    assert evidence.version == ("TLSv1.2" if settings else "TLSv1.3")
    assert evidence.cipher
    assert evidence.chain == issued().chain_der
    assert evidence.sni == seen.sni == HOST
    assert seen.chain == ()
    pair.client.write(b"EHLO me\r\n")
    pair.server.write(b"250 you\r\n")
    await until(lambda: pair.at_client.data and pair.at_server.data)
    assert (pair.at_server.data, pair.at_client.data) == (b"EHLO me\r\n", b"250 you\r\n")
    await pair.end()
    assert pair.at_client.losses == pair.at_server.losses == [None]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.CLIENT])
async def test_any_certificate_is_accepted_and_captured(kind: Kind) -> None:
    pair = Pair()
    await pair.start_tls(server=server_context(kind))
    assert pair.client.tls is not None
    assert pair.client.tls.chain == issued(kind).chain_der
    await pair.end()


@pytest.mark.parametrize("name", [None, "", "192.0.2.1", "2001:db8::1"])
async def test_an_address_or_nothing_is_no_server_name(name: str | None) -> None:
    pair = Pair()
    evidence = await asyncio.gather(
        pair.client.start_tls_client(client_context(), name),
        pair.server.start_tls_server(server_context()),
    )
    assert [each.sni for each in evidence] == [None, None]
    await pair.end()


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".test"])
async def test_a_name_that_cannot_be_asked_for_is_our_mistake(name: str) -> None:
    channel, wire, _ = on_wire()
    with pytest.raises(InvalidValue, match="host name"):
        await channel.start_tls_client(client_context(), name)
    assert wire.sent == []
    channel.write(b"QUIT\r\n")
    assert wire.sent == [b"QUIT\r\n"], "nothing has changed"


async def test_a_client_certificate_is_captured_by_the_server() -> None:
    cert, key = files(Kind.CLIENT)
    settings = TLSClientSettings(cert=cert, key=key)
    pair = Pair()
    proved = await asyncio.gather(
        pair.client.start_tls_client(client_context(settings), HOST),
        pair.server.start_tls_server(server_context(demand_client=True)),
    )
    assert proved[1].chain[0] == issued(Kind.CLIENT).chain_der[0]
    await pair.end()


async def test_starting_tls_is_a_change_in_the_call_itself() -> None:
    channel, wire, recorder = on_wire()
    channel.data_received(b"220 go ahead\r\n250 injected\r\n")
    started = channel.start_tls_client(client_context(), HOST)
    assert recorder.data == b"220 go ahead\r\n250 injected\r\n", "all of it came in clear"
    assert wire.sent[0][0] == 22, "a ClientHello is under way before anybody awaits"
    channel.data_received(b"250 injected later\r\n")
    assert recorder.data.endswith(b"250 injected\r\n"), "what comes now is TLS, or nothing"
    with pytest.raises(TLSFailed, match="does not speak TLS") as caught:
        await started
    assert caught.value.kind is TLSFailureKind.PROTOCOL
    await channel.close()


async def test_a_server_takes_the_client_hello_that_comes_at_once() -> None:
    """In the turn in which the 220 was written, before any task has run."""
    pair = Pair()

    class Server(Recorder):
        def data_received(self, data: bytes) -> None:
            if data == b"STARTTLS\r\n":
                pair.server.write(b"220 go ahead\r\n")
                self.started = asyncio.ensure_future(pair.server.start_tls_server(server_context()))
            else:
                super().data_received(data)

    at_server = Server()
    pair.server.receiver = at_server
    pair.client.write(b"STARTTLS\r\n")
    await until(lambda: pair.at_client.data)
    await pair.client.start_tls_client(client_context(), HOST)
    await at_server.started
    pair.client.write(b"EHLO me\r\n")
    await until(lambda: at_server.data)
    assert at_server.data == b"EHLO me\r\n"
    await pair.client.close()
    await until(lambda: at_server.losses)


async def test_nothing_goes_out_in_clear_once_tls_is_started() -> None:
    secret = b"MAIL FROM:<secret@example.org>\r\n"
    channel, wire, _ = on_wire()
    channel.write(b"STARTTLS\r\n")
    server = TLSPipe(server_context(), server_side=True, sni=None, peer="test")
    started = asyncio.ensure_future(channel.start_tls_client(client_context(), HOST))
    with pytest.raises(LocalError, match="middle of a TLS handshake"):
        channel.write(secret)
    with pytest.raises(LocalError, match="middle of a TLS handshake"):
        channel.write_many([secret])
    done = False
    position = 1
    while not started.done():
        for sent in wire.sent[position:]:
            server.feed(sent)
        position = len(wire.sent)
        done = done or server.shake_hands()
        if answer := server.take():
            channel.data_received(answer)
        await settle()
    channel.write(secret)
    channel.write_many([secret] * 3000)
    await channel.close()
    for sent in wire.sent[position:]:
        server.feed(sent)
    assert server.shake_hands() or done
    received = b""
    while data := server.read():
        received += data
    assert received == secret * 3001
    assert data is None, "closed with close_notify"
    after = b"".join(wire.sent[1:])
    assert secret not in after
    assert secret[:20] not in after
    _assert_is_records(after)


def _assert_is_records(data: bytes) -> None:
    while data:
        assert data[0] in (20, 21, 22, 23)
        assert data[1] == 3
        data = data[5 + int.from_bytes(data[3:5]) :]


async def test_what_comes_with_the_end_of_the_handshake_waits_for_who_awaits_it() -> None:
    """Implicit TLS: the server's greeting may be in the same segment as the end of its handshake."""
    pair = Pair()
    order: list[str] = []

    class Client(Recorder):
        def data_received(self, data: bytes) -> None:
            order.append("data")
            super().data_received(data)

        def connection_lost(self, error: Exception | None) -> None:
            order.append("lost")
            super().connection_lost(error)

    at_client = Client()
    pair.client.receiver = at_client

    started = pair.client.start_tls_client(client_context(), HOST)
    await pair.server.start_tls_server(server_context())
    pair.server.write(b"421 go away\r\n")
    closing = asyncio.ensure_future(pair.server.close())
    await settle(50)
    assert order == [], "the handshake is done, and nobody has awaited it yet"
    assert not pair.client_wire.is_reading()
    await started
    order.append("told")
    await closing
    await settle()
    assert order == ["told", "data", "lost"]
    assert at_client.data == b"421 go away\r\n"
    assert at_client.losses == [None]


async def test_tls_can_be_started_once() -> None:
    pair = Pair()
    await pair.start_tls()
    with pytest.raises(LocalError, match="already"):
        await pair.client.start_tls_client(client_context(), HOST)
    await pair.end()


async def test_tls_cannot_be_started_on_a_closed_channel() -> None:
    channel, _, _ = on_wire()
    channel.eof_received()
    with pytest.raises(TLSFailed) as caught:
        await channel.start_tls_client(client_context(), HOST)
    assert caught.value.kind is TLSFailureKind.CLOSED


# --- handshakes that fail -----------------------------------------------------------------------

GARBAGE = {
    "text": b"500 what do you mean?\r\n",
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "zeros": bytes(100),
    "noise": bytes(range(256)),
    "record too long": b"\x16\x03\x03\xff\xff" + bytes(70000),
    "broken hello": b"\x16\x03\x03\x00\x06\x02\x00\x00\x02\x03\x03",
    "application data": b"\x17\x03\x03\x00\x05hello",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("bytewise", [False, True])
async def test_garbage_instead_of_a_server_hello_is_a_protocol_error(garbage: bytes, bytewise: bool) -> None:
    clock = FakeClock()
    channel, wire, recorder = on_wire(clock)
    started = channel.start_tls_client(client_context(), HOST, clock.monotonic() + 5)
    for piece in [garbage[i : i + 1] for i in range(len(garbage))] if bytewise else [garbage]:
        channel.data_received(piece)
    with pytest.raises(TLSFailed) as caught:
        await started
    failure = caught.value
    assert failure.kind is TLSFailureKind.PROTOCOL
    assert failure.is_peers_doing
    assert str(failure).startswith("192.0.2.1: the TLS handshake failed: ")
    assert "_" not in str(failure)
    await channel.close()
    assert recorder.chunks == []
    assert recorder.losses == [failure]
    if garbage[0] in (22, 23):
        assert wire.sent[-1][0] == 21, "a peer that speaks TLS is told with an alert"
    assert clock.pending == 0


@given(st.binary(min_size=1, max_size=300))
def test_no_bytes_whatever_break_the_channel(noise: bytes) -> None:
    async def scenario() -> None:
        clock = FakeClock()
        channel, _, recorder = on_wire(clock)
        started = asyncio.ensure_future(channel.start_tls_client(client_context(), HOST, clock.monotonic() + 5))
        channel.data_received(noise)
        await clock.advance(5)
        with pytest.raises(TLSFailed):
            await started
        await channel.close()
        assert recorder.chunks == []
        assert len(recorder.losses) == 1
        assert clock.pending == 0

    asyncio.run(scenario())


async def test_an_alert_in_the_handshake_says_which() -> None:
    channel, _, recorder = on_wire()
    started = channel.start_tls_client(client_context(), HOST)
    channel.data_received(bytes.fromhex("15 0303 0002 02 28"))
    with pytest.raises(TLSFailed, match='the alert "handshake failure"') as caught:
        await started
    assert caught.value.kind is TLSFailureKind.ALERT
    assert caught.value.is_peers_doing
    await channel.close()
    assert recorder.losses == [caught.value]


async def test_no_common_version_is_said_by_alert() -> None:
    pair = Pair()
    results = await asyncio.gather(
        pair.client.start_tls_client(client_context(OLD), HOST),
        pair.server.start_tls_server(server_context(protocols=("tls1.3", "tls1.3"))),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [TLSFailed, TLSFailed]
    at_client, at_server = results
    assert isinstance(at_client, TLSFailed)
    assert isinstance(at_server, TLSFailed)
    assert at_client.kind is TLSFailureKind.ALERT
    assert "protocol version" in str(at_client)
    assert at_server.kind is TLSFailureKind.PROTOCOL
    await pair.end()


async def test_a_close_in_the_handshake_is_a_close() -> None:
    channel, _, recorder = on_wire()
    started = channel.start_tls_client(client_context(), HOST)
    channel.eof_received()
    with pytest.raises(TLSFailed, match="was closed in the TLS handshake") as caught:
        await started
    assert caught.value.kind is TLSFailureKind.CLOSED
    await settle()
    assert recorder.losses == [caught.value]


async def test_a_close_notify_in_the_handshake_is_a_close() -> None:
    channel, _, _ = on_wire()
    started = channel.start_tls_client(client_context(), HOST)
    channel.data_received(bytes.fromhex("15 0303 0002 01 00"))
    channel.eof_received()
    with pytest.raises(TLSFailed) as caught:
        await started
    assert caught.value.is_peers_doing
    await channel.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (None, TLSFailureKind.CLOSED),
        (ConnectionResetError(errno.ECONNRESET, "reset"), TLSFailureKind.CLOSED),
        (BrokenPipeError(errno.EPIPE, "pipe"), TLSFailureKind.CLOSED),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), TLSFailureKind.TIMED_OUT),
        (OSError(errno.EHOSTUNREACH, "no route"), TLSFailureKind.NETWORK),
    ],
)
async def test_a_loss_in_the_handshake_tells_the_peer_from_the_network(
    error: Exception | None, kind: TLSFailureKind
) -> None:
    channel, _, recorder = on_wire()
    started = channel.start_tls_client(client_context(), HOST)
    channel.connection_lost(error)
    with pytest.raises(TLSFailed) as caught:
        await started
    assert caught.value.kind is kind
    assert caught.value.is_peers_doing is (kind is TLSFailureKind.CLOSED)
    assert caught.value.kind is kind
    await settle()
    assert recorder.losses == [caught.value]


async def test_silence_in_the_handshake_ends_at_the_deadline_and_counts_as_time_out() -> None:
    clock = FakeClock()
    channel, wire, recorder = on_wire(clock)
    started = asyncio.ensure_future(channel.start_tls_client(client_context(), HOST, clock.monotonic() + 5))
    await clock.advance(4.9)
    assert not started.done()
    await clock.advance(0.1)
    with pytest.raises(TLSFailed, match="no answer") as caught:
        await started
    assert caught.value.kind is TLSFailureKind.TIMED_OUT
    assert not caught.value.is_peers_doing
    assert wire.aborted
    assert recorder.losses == [caught.value]
    assert clock.pending == 0


async def test_a_cancelled_handshake_leaves_nothing_behind() -> None:
    clock = FakeClock()
    channel, wire, recorder = on_wire(clock)
    started = asyncio.ensure_future(channel.start_tls_client(client_context(), HOST, clock.monotonic() + 5))
    await settle()
    started.cancel()
    await settle()
    assert started.cancelled()
    assert wire.aborted
    assert recorder.losses == [None]
    assert clock.pending == 0


async def test_an_abort_is_told_even_if_nobody_ever_awaited_the_handshake() -> None:
    channel, _, recorder = on_wire()
    started = channel.start_tls_client(client_context(), HOST)
    channel.abort()
    await settle()
    assert recorder.losses == [None]
    started.close()


async def test_closing_in_the_handshake_ends_it() -> None:
    channel, wire, recorder = on_wire()
    started = asyncio.ensure_future(channel.start_tls_client(client_context(), HOST))
    await settle()
    await channel.close()
    with pytest.raises(TLSFailed):
        await started
    assert wire.closed
    assert recorder.losses == [None]


async def test_a_handshake_is_bounded_in_bytes() -> None:
    """Warnings are legal in TLS 1.2, a few at a time; here: a certificate that never ends, byte by byte."""
    pair = Pair()
    started = asyncio.ensure_future(pair.client.start_tls_client(client_context(OLD), HOST))
    server = TLSPipe(server_context(), server_side=True, sni=None, peer="test")
    hello = bytearray()

    class Tap(Recorder):
        def data_received(self, data: bytes) -> None:
            hello.extend(data)

    pair.server.receiver = Tap()
    await until(lambda: hello)
    server.feed(hello)
    assert not server.shake_hands()
    flight = server.take()
    length = 5 + int.from_bytes(flight[3:5])
    pair.server.write(flight[:length])  # ServerHello
    record = bytes.fromhex("16 0303 0004 00 000000")  # HelloRequest, which a client ignores in the handshake
    for _ in range(MAX_HANDSHAKE // len(record) + 1):
        pair.server.write(record)
    with pytest.raises(TLSFailed, match="is too long") as caught:
        await started
    assert caught.value.kind is TLSFailureKind.PROTOCOL
    await pair.client.close()
    await pair.server.close()


async def test_our_own_settings_that_fit_nothing_are_not_the_peers_doing() -> None:
    settings = TLSClientSettings(
        protocols=(TLSVersion.TLS1_3, TLSVersion.TLS1_3), ciphers=("ECDHE-RSA-AES128-GCM-SHA256",)
    )
    context = client_context(settings)
    context.minimum_version = context.maximum_version = 771  # type: ignore[assignment]  # TLS 1.2
    context.set_ciphers("PSK-AES128-GCM-SHA256")
    channel, _, _ = on_wire()
    with pytest.raises(TLSFailed) as caught:
        await channel.start_tls_client(context, HOST)
    assert caught.value.kind is TLSFailureKind.LOCAL
    assert not caught.value.is_peers_doing
    await channel.close()


# --- after the handshake ------------------------------------------------------------------------


async def test_a_rejection_after_our_handshake_is_told_as_failed_tls() -> None:
    """RFC 8446 4.4.2.4: in TLS 1.3 we are done before the server has seen that our certificate is missing."""
    pair = Pair()
    results = await asyncio.gather(
        pair.client.start_tls_client(client_context(), HOST),
        pair.server.start_tls_server(server_context(demand_client=True)),
        return_exceptions=True,
    )
    assert pair.client.tls is results[0]
    assert isinstance(results[1], TLSFailed)
    pair.client.write(b"EHLO me\r\n")
    await until(lambda: pair.at_client.losses)
    (error,) = pair.at_client.losses
    assert isinstance(error, TLSFailed)
    assert error.kind is TLSFailureKind.ALERT
    assert "certificate required" in str(error)
    assert pair.client.is_closed
    with pytest.raises(ConnectionLost, match="certificate required"):
        await pair.client.drain()
    await pair.end()


async def test_the_end_without_close_notify_is_a_loss() -> None:
    pair = Pair()
    await pair.start_tls()
    pair.server.write(b"250 ok\r\n")
    pair.server_wire.close()
    await until(lambda: pair.at_client.losses)
    (error,) = pair.at_client.losses
    assert isinstance(error, ConnectionLost)
    assert "without closing TLS" in str(error)
    assert pair.at_client.data == b"250 ok\r\n", "what came before is not lost"
    await pair.end()


async def test_close_notify_is_an_orderly_end_and_is_answered() -> None:
    pair = Pair()
    await pair.start_tls()
    pair.server.write(b"221 bye\r\n")
    await pair.server.close()
    await until(lambda: pair.at_client.losses)
    assert pair.at_client.data == b"221 bye\r\n"
    assert pair.at_client.losses == pair.at_server.losses == [None]
    assert pair.client.is_closed
    await pair.end()


async def test_damaged_records_end_the_connection() -> None:
    pair = Pair()
    await pair.start_tls()
    pair.server_wire.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    await until(lambda: pair.at_client.losses and pair.at_server.losses)
    (error,) = pair.at_client.losses
    assert isinstance(error, TLSFailed)
    assert error.kind is TLSFailureKind.PROTOCOL
    (told,) = pair.at_server.losses
    assert isinstance(told, TLSFailed)
    assert told.kind is TLSFailureKind.ALERT, "the peer was told"
    await pair.end()


async def test_pausing_holds_back_what_is_decrypted_too() -> None:
    pair = Pair()
    await pair.start_tls()
    pair.client.pause_reading()
    for index in range(300):
        pair.server.write(bytes([index % 256]) * RECORD)
    await settle(400)
    assert pair.at_client.chunks == []
    assert pair.server.needs_drain, "the peer has to wait"
    pair.client.resume_reading()
    await until(lambda: len(pair.at_client.data) == 300 * RECORD)
    await pair.end()


async def test_pausing_in_the_middle_of_a_delivery_takes_effect_at_once() -> None:
    pair = Pair()
    await pair.start_tls()

    class OneAtATime(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            pair.client.pause_reading()

    pair.client.receiver = one = pair.at_client = OneAtATime()
    pair.server.write(bytes(3 * RECORD))
    await settle(50)
    assert one.chunks == [bytes(RECORD)]
    pair.client.resume_reading()
    await settle(50)
    assert one.chunks == [bytes(RECORD)] * 2
    await pair.end()


async def test_a_peer_that_makes_tls_answer_and_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    await pair.start_tls()
    monkeypatch.setattr(TLSPipe, "take", lambda _: b"key update")
    monkeypatch.setattr(channel_module, "MAX_UNREAD_ANSWERS", 0)
    pair.server.write(b"x")
    await until(lambda: pair.at_client.losses)
    (error,) = pair.at_client.losses
    assert isinstance(error, TLSFailed)
    assert "does not read" in str(error)


@pytest.mark.parametrize("size", [10, 2 * SLICE])
async def test_writing_fails_softly_when_tls_does(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = TLSFailed("broken", TLSFailureKind.PROTOCOL)

    def broken(*_: object) -> bytes:
        raise failure

    pair = Pair()
    await pair.start_tls()
    monkeypatch.setattr(TLSPipe, "encrypt", broken)
    pair.client.write(bytes(size))
    assert pair.client.is_closed
    await until(lambda: pair.at_client.losses and pair.at_server.losses)
    assert pair.at_client.losses == [failure]


async def test_a_small_write_behind_a_large_one_stays_behind_it() -> None:
    pair = Pair()
    await pair.start_tls()
    large = bytes(8 * SLICE)
    pair.client.write(large)
    pair.client.write(b"small")
    pair.client.write_many([b"and ", b"small"])
    await until(lambda: len(pair.at_server.data) == len(large) + 14)
    assert pair.at_server.data == large + b"smalland small"
    await pair.end()


# --- closing ------------------------------------------------------------------------------------


async def test_close_sends_what_is_written_first() -> None:
    pair = Pair()
    await pair.start_tls()
    content = bytes(1_000_000)
    pair.client.write(content)
    await pair.client.close()
    await until(lambda: pair.at_server.losses)
    assert pair.at_server.data == content
    assert pair.at_server.losses == [None]
    await pair.end()


async def test_close_is_bounded_against_a_peer_that_does_not_read() -> None:
    clock = FakeClock()
    channel, wire, recorder = on_wire(clock)
    wire.fill()
    closing = [asyncio.ensure_future(channel.close()) for _ in range(2)]
    await clock.advance(CLOSE_GRACE - 0.1)
    assert not any(each.done() for each in closing)
    await clock.advance(0.1)
    assert all(each.done() for each in closing)
    assert wire.aborted
    assert recorder.losses == [None]
    assert clock.pending == 0


async def test_an_end_by_the_peer_is_bounded_even_if_we_have_more_to_say() -> None:
    clock = FakeClock()
    channel, wire, recorder = on_wire(clock)
    wire.fill()
    channel.eof_received()
    await clock.advance(CLOSE_GRACE)
    assert wire.aborted
    assert recorder.losses == [None]


async def test_a_failure_while_the_peer_does_not_read_ends_at_once() -> None:
    pair = Pair()
    await pair.start_tls()
    pair.client.pause_writing()
    pair.server_wire.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    await until(lambda: pair.at_client.losses)
    assert isinstance(pair.at_client.losses[0], TLSFailed)
    await pair.end()


async def test_a_failed_handshake_with_a_peer_that_does_not_read_ends_at_once() -> None:
    channel, wire, _ = on_wire()
    started = channel.start_tls_client(client_context(), HOST)
    wire.fill()
    channel.data_received(b"garbage instead of a hello")
    assert wire.aborted
    with pytest.raises(TLSFailed):
        await started


async def test_after_the_end_nobody_waits_for_room_and_nothing_is_kept() -> None:
    pair = Pair()
    await pair.start_tls()
    pair.server.pause_reading()
    octets = bytearray(1_000_000)
    pair.client.write(octets)
    with pytest.raises(BufferError):
        octets.append(0)  # what is still referred to cannot grow
    pair.client.abort()
    octets.append(0)
    pair.client.pause_writing()
    assert not pair.client.needs_drain
    with pytest.raises(ConnectionLost, match="is closed"):
        await pair.client.drain()
    await pair.end()


async def test_closing_reads_on_so_that_the_peers_end_is_seen() -> None:
    channel, wire, _ = on_wire()
    channel.pause_reading()
    wire.fill()
    closing = asyncio.ensure_future(channel.close())
    await settle()
    assert not wire.paused
    wire.empty()
    await closing


async def test_the_end_is_told_once_whoever_is_the_receiver() -> None:
    channel, _, recorder = on_wire()
    await channel.close()
    channel.receiver = late = Recorder()
    assert recorder.losses == [None]
    assert late.losses == []


async def test_close_may_be_called_in_any_state_and_again() -> None:
    channel, wire, recorder = on_wire()
    await Channel(FakeClock()).close()
    await channel.close()
    await channel.close()
    assert wire.closed
    assert not wire.aborted
    assert recorder.losses == [None]


async def test_data_that_comes_while_closing_is_of_no_interest() -> None:
    channel, wire, recorder = on_wire()
    wire.fill()
    closing = asyncio.ensure_future(channel.close())
    await settle()
    channel.data_received(b"250 late\r\n")
    assert not wire.paused, "it is dropped, not kept"
    wire.empty()
    await closing
    assert recorder.chunks == []


async def test_a_cancelled_close_aborts() -> None:
    clock = FakeClock()
    channel, wire, recorder = on_wire(clock)
    wire.fill()
    closing = asyncio.ensure_future(channel.close())
    await settle()
    closing.cancel()
    await settle()
    assert closing.cancelled()
    assert wire.aborted
    assert recorder.losses == [None]
    assert clock.pending == 0


async def test_a_channel_whose_transport_somebody_else_closed_can_be_aborted() -> None:
    # What a cancelled connect leaves on uvloop, if the greeting came in time to wait for a receiver.
    channel, wire = Channel(FakeClock()), Wire()
    wire.carry(channel)
    channel.data_received(b"220 mx\r\n")
    assert wire.paused

    def resume_reading() -> None:
        raise RuntimeError("the handler is closed")

    wire.resume_reading = resume_reading  # type: ignore[method-assign]
    channel.abort()
    assert wire.aborted
