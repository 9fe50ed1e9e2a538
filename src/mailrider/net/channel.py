"""One connection: TCP and TLS in one protocol class, for client and server (RFC 3207, RFC 8314 3).

A `Channel` hands bytes to its `Receiver` and takes bytes to write. STARTTLS is a change of state inside it, made in
the very call of `start_tls_client` or `start_tls_server`. What always holds:

- bytes that arrived before that call reach the receiver as they are; every later byte, in both
  directions, goes through TLS. Whether a byte behind the 220 is an attack is the SMTP machine's to
  say (RFC 3207 6);
- what comes out of TLS, and the news of a loss, reach the receiver only once the coroutine that
  waits for the handshake has gone on, up to its next await: nobody who still thinks in clear is
  shown what came through TLS;
- `connection_lost` is called exactly once, from the event loop: with None if either side ended the
  connection in order, else with the reason. In TLS 1.3 a server's rejection arrives after our
  handshake is done; it is a `TLSFailed` there;
- no task; no timer but one for a handshake and one for a close; memory is bounded by one read of
  the transport and its high-water mark. What is to be written is referred to, not copied, until it
  is encrypted.

It never judges certificates, never resumes sessions or renegotiates, and knows nothing of SMTP.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Any, Protocol, cast

from mailrider.clock import Deadline
from mailrider.errors import ConnectionLost, LocalError
from mailrider.model.ip import unmapped
from mailrider.net.errors import TLSFailed, TLSFailureKind, handshake_loss_of, loss_of
from mailrider.net.pipe import Outgoing, TLSPipe, client_name

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

    from mailrider.clock import Clock, Timer
    from mailrider.model.security import TLSEvidence

MAX_HANDSHAKE = 256 * 1024
"""Bytes from the peer in a handshake: OpenSSL takes 100 KiB of certificates, and some air."""
MAX_UNREAD_ANSWERS = 1024 * 1024
"""Bytes that may wait for a peer that makes TLS answer (RFC 8446 4.6.3) and does not read."""
CLOSE_GRACE = 5.0
"""Seconds that a close may take; then the connection is aborted."""
MAX_LEFT_BEHIND = 64 * 1024
"""Bytes that are still read from a connection that broke: a last reply, and no more."""


class Receiver(Protocol):
    """Who is told what happens on a channel; called from the event loop, must not block."""

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer, out of TLS if there is one; never empty."""

    def connection_lost(self, error: Exception | None) -> None:
        """The end, once, and nothing after it. None: somebody closed the connection in order."""


class Channel(asyncio.Protocol):
    """One connection to a peer. `accept` makes the receiver when the connection is made (servers)."""

    __slots__ = (
        "_accept",
        "_clock",
        "_deaf",
        "_early",
        "_ended",
        "_error",
        "_gone",
        "_grace",
        "_handshake",
        "_held",
        "_loop",
        "_orderly",
        "_outgoing",
        "_pipe",
        "_read_paused",
        "_receiver",
        "_told",
        "_transport",
        "_transport_paused",
        "announced",
        "local_address",
        "on_end",
        "peer_address",
        "tls",
        "write",
        "write_end",
        "write_many",
    )

    def __init__(self, clock: Clock, accept: Callable[[Channel], Receiver] | None = None) -> None:
        self._clock = clock
        self._accept = accept
        self._loop: asyncio.AbstractEventLoop
        self._transport: asyncio.Transport
        self._receiver: Receiver | None = None
        self._early: list[bytes] = []  # arrived in clear while there was no sink
        self._pipe: TLSPipe | None = None
        self._handshake: asyncio.Future[None] | None = None  # while it is under way
        self._held = False  # who waits for the handshake has not gone on yet
        self._read_paused = False  # by our caller
        self._transport_paused = False  # by us
        self._outgoing = outgoing = Outgoing()
        self.write = outgoing.write
        """Send some bytes; never blocks. After the end it does nothing: `connection_lost` tells."""
        self.write_many = outgoing.write_many
        """Send all chunks, few bytes with a single write to the transport; never blocks."""
        self.write_end = outgoing.write_end
        """Send some bytes, and have `needs_drain` True until the kernel has all that was ever written.

        So whoever finds it False, or has drained, knows that the peer may have everything. When a send failed, the
        transport takes further bytes without a word; then `drain` raises.
        """
        self._error: Exception | None = None
        self._ended = False  # the peer sends no more, and may still hear us
        self._orderly = False  # one of us closed the connection, or TLS on it
        self._deaf = False  # what still arrives is of no interest
        self._gone = True  # the transport is (or was never there)
        self._told = True  # the receiver, of the end; or there was no beginning
        self._grace: Timer | None = None
        self.on_end: Callable[[], None] | None = None
        """Called, if it is set, once all is handed over from a peer in clear that sends no more, but may still hear us
        (`nc -N`): whoever set it closes the connection in the end. None: it ends at once."""
        self.tls: TLSEvidence | None = None
        """What the peer proved; None in clear."""
        self.peer_address = ""
        """The peer's IP address, behind a proxy its client's; empty on a unix socket."""
        self.announced: str | None = None
        """The client that a proxy in front of us has announced, empty: itself; None: there is no proxy."""
        self.local_address = ""
        """Our own IP address; on a unix socket its path, if it has one."""

    @property
    def receiver(self) -> Receiver | None:
        """Who is told. What arrived before it was set was kept, and is handed over in setting it."""
        return self._receiver

    @receiver.setter
    def receiver(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._deliver()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._outgoing.open(self._transport, self._fail)
        self._loop = asyncio.get_running_loop()
        self._gone = self._told = False
        peer, local = (transport.get_extra_info(name) for name in ("peername", "sockname"))
        self.peer_address = self.announced or (unmapped(peer[0]) if isinstance(peer, tuple) else "")
        self.local_address = unmapped(local[0]) if isinstance(local, tuple) else local or ""
        if self._accept is not None:
            self.receiver = self._accept(self)

    # --- reading --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        pipe, sink = self._pipe, self._sink
        if pipe is None and sink is not None:
            sink.data_received(data)
        elif self._deaf:
            return
        elif pipe is None:
            self._early.append(data)
            self._pause_transport(True)
        else:
            pipe.feed(data)
            if self._handshake is not None:
                self._shake_hands(pipe)
            elif sink is not None:
                self._decrypt(pipe)
            else:
                self._pause_transport(True)

    def eof_received(self) -> bool:
        """The peer sends no more: an end to us as client, since servers never half-close; clients do (`on_end`)."""
        if self._handshake is not None:
            self._fail(handshake_loss_of(None, self._peer))
        elif self.on_end is not None and self._pipe is None and not self.is_closed:
            self._ended = True
            self._tell_end()
            return True
        elif not self.is_closed:
            # In TLS this is orderly only behind a close_notify (RFC 8446 6.1), and then we are
            # closed already, or will find it in what is held.
            self._orderly = self._pipe is None
            self._stop_writing()
            self._close_transport()
        return False

    def pause_reading(self) -> None:
        """Let the peer wait, as soon as what is being handed over now is done."""
        self._read_paused = True
        if self._handshake is None:
            self._pause_transport(True)

    def resume_reading(self) -> None:
        """Go on; what was kept back is handed over in a later turn of the event loop."""
        self._read_paused = False
        if not self._gone:
            self._loop.call_soon(self._deliver_later)

    @property
    def _sink(self) -> Receiver | None:
        """Who may be given what has arrived, now; None: it is kept back."""
        return None if self._held or self._read_paused or self._deaf else self._receiver

    def _pause_transport(self, paused: bool) -> None:
        if paused is self._transport_paused or self._gone:
            return
        self._transport_paused = paused
        try:
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
        except RuntimeError:
            pass  # uvloop: the transport is closed, by a connect that was cancelled, and has not told us yet

    def _deliver(self) -> None:
        """Hand over all that may be handed over; then, if that was the end, say so."""
        while self._early and (sink := self._sink) is not None:
            sink.data_received(self._early.pop(0))
        self._tell_end()
        if self._pipe is not None and self._handshake is None:
            self._decrypt(self._pipe)
        if self._sink is not None:
            self._pause_transport(False)
        if self._gone and not self._held and not self._told and self._receiver is not None:
            self._tell_loss(self._receiver)

    def _tell_end(self) -> None:
        if self._ended and not self._early and self.on_end is not None:
            self.on_end()

    def _deliver_later(self) -> None:
        try:
            self._deliver()
        except Exception as error:
            # A bug in the receiver; behind data_received the event loop would do the same.
            self._fail(error)
            raise

    def _decrypt(self, pipe: TLSPipe) -> None:
        data: bytes | None = b""
        try:
            while (sink := self._sink) is not None and (data := pipe.read()):
                sink.data_received(data)
        except TLSFailed as failure:
            self._fail(failure)
            return
        if data is None:
            self._say_goodbye()
        elif not self.is_closed and (answer := pipe.take()):
            self._transport.write(answer)
            if self._transport.get_write_buffer_size() > MAX_UNREAD_ANSWERS:
                why = f"{self._peer}: wants TLS answers that it does not read"
                self._fail(TLSFailed(why, TLSFailureKind.PROTOCOL))

    def _tell_loss(self, receiver: Receiver) -> None:
        error = self._error
        if error is None and not self._orderly:
            error = ConnectionLost(f"{self._peer} closed the connection without closing TLS")
        self._told = True
        self._receiver = self._pipe = self._accept = self.on_end = None  # no cycles left behind
        receiver.connection_lost(error)

    # --- writing --------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """True if nothing can be written, yet or any more."""
        return self._outgoing.is_closed

    @property
    def needs_drain(self) -> bool:
        """True if the send buffer is full: `await drain()` before the next big write."""
        return self._outgoing.needs_drain

    async def drain(self) -> None:
        """Wait until the send buffer is below its low-water mark; `ConnectionLost` if it is gone."""
        while self.needs_drain:
            await self._outgoing.wait()
        if self.is_closed:
            reason = str(self._error or f"the connection to {self._peer} is closed")
            raise ConnectionLost(reason) from self._error

    def pause_writing(self) -> None:
        self._outgoing.pause()

    def resume_writing(self) -> None:
        self._outgoing.resume()

    # --- TLS ------------------------------------------------------------------------------------

    def start_tls_client(
        self, context: ssl.SSLContext, server_name: str | None, deadline: float | None = None
    ) -> Coroutine[Any, Any, TLSEvidence]:
        """Begin TLS now, as client; await the result for what the peer proved.

        The certificate is captured, not judged. `server_name` becomes SNI, unless it is an address;
        `deadline` is a reading of the clock. `TLSFailed` if it fails: the channel is closed then.
        """
        sni = client_name(server_name)
        pipe = TLSPipe(context, server_side=False, sni=sni, peer=self._peer)
        return self._start_tls(pipe, deadline)

    def start_tls_server(
        self, context: ssl.SSLContext, deadline: float | None = None
    ) -> Coroutine[Any, Any, TLSEvidence]:
        """Begin TLS now, as server: to be called as soon as the 220 is written; await as above.

        The evidence holds the client's chain, if it sent one, and the name that it asked for.
        """
        pipe = TLSPipe(context, server_side=True, sni=None, peer=self._peer)
        return self._start_tls(pipe, deadline)

    def _start_tls(self, pipe: TLSPipe, deadline: float | None) -> Coroutine[Any, Any, TLSEvidence]:
        if self._pipe is not None:
            raise LocalError("TLS was started already")
        if self.is_closed or self._ended:
            raise handshake_loss_of(None, self._peer)
        self._pipe = pipe
        self._outgoing.start_tls(pipe)
        self._held = True
        handshake = self._handshake = self._loop.create_future()
        self._pause_transport(False)
        self._shake_hands(pipe)
        return self._finish_handshake(handshake, deadline)

    def _shake_hands(self, pipe: TLSPipe) -> None:
        try:
            if pipe.shake_hands():
                self.tls = pipe.evidence()
                self._outgoing.tls_established()
                self._end_handshake()
            elif pipe.fed > MAX_HANDSHAKE:
                endless = f"{self._peer}: the TLS handshake is too long"
                raise TLSFailed(endless, TLSFailureKind.PROTOCOL)
        except TLSFailed as failure:
            self._fail(failure)
        else:
            if answer := pipe.take():
                self._transport.write(answer)

    def _end_handshake(self) -> None:
        handshake, self._handshake = self._handshake, None
        if handshake is not None and not handshake.done():
            handshake.set_result(None)

    async def _finish_handshake(self, handshake: asyncio.Future[None], deadline: float | None) -> TLSEvidence:
        try:
            async with Deadline(self._clock, deadline):
                await handshake
        except TimeoutError:
            silent = f"{self._peer}: no answer in the TLS handshake"
            failure = self._error = TLSFailed(silent, TLSFailureKind.TIMED_OUT)
            self.abort()
            raise failure from None
        except BaseException:
            self.abort()
            raise
        finally:
            self._loop.call_soon(self._release)
        if self.tls is None:
            raise self._error or handshake_loss_of(None, self._peer)
        return self.tls

    def _release(self) -> None:
        self._held = False
        self._deliver_later()

    # --- the end --------------------------------------------------------------------------------

    async def close(self) -> None:
        """Send what is written, close TLS, then TCP; past `CLOSE_GRACE` seconds abort instead.

        From now on nothing that arrives is of interest; when it returns the receiver has been told.
        May be called in any state, and again.
        """
        self._hear_no_more()
        if not self._gone:
            self._begin_grace()
            try:
                while self.needs_drain:
                    await self._outgoing.wait()
                self._say_goodbye()
                while not self._gone:
                    await self._outgoing.wait()
            except BaseException:
                self.abort()
                raise
        self._release()

    def abort(self) -> None:
        """Close at once; what is not sent yet is lost."""
        if not self._gone:
            self._orderly = True
            self._held = False
            self._hear_no_more()
            self._stop_writing()
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._gone = True
        if self._grace is not None:
            self._grace.cancel()
        if self._handshake is not None:
            self._error = handshake_loss_of(error, self._peer)
        elif error is not None and not self._orderly:
            self._error = self._error or loss_of(error, self._peer)
        self._orderly = self._orderly or self._pipe is None
        self._stop_writing()
        if error is not None:
            self._read_what_was_left_behind()
        self._deliver()

    def _read_what_was_left_behind(self) -> None:
        """Take what the peer had written before the connection broke: behind a failed send the transport reads no more.

        A server that refuses a message in the middle says why, closes, and so resets the connection.
        """
        room = MAX_LEFT_BEHIND
        try:
            while self._sink is not None and room > 0:
                data = os.read(self.fileno(), room)
                if not data:
                    break
                room -= len(data)
                self.data_received(data)
        except OSError:
            pass  # nothing is left, or the kernel has forgotten it

    def fileno(self) -> int:
        """The descriptor of its socket, which stays the transport's. `OSError` if there is none, or no more."""
        connection = self._transport.get_extra_info("socket")
        if connection is None:
            raise OSError(errno.EBADF, "not a socket")
        return cast("int", connection.fileno())

    @property
    def _peer(self) -> str:
        return self.peer_address or "the peer"

    def _say_goodbye(self) -> None:
        """Either side closes TLS, or we the connection."""
        self._orderly = True
        if self.is_closed:
            return
        if self._pipe is not None and (farewell := self._pipe.close()):
            self._transport.write(farewell)
        self._hear_no_more()
        self._stop_writing()
        self._close_transport()

    def _fail(self, error: Exception) -> None:
        """End the connection because of `error`; an alert that OpenSSL made for it still goes out."""
        if self._gone or self._deaf:
            return
        self._error = error
        if self._pipe is not None and (alert := self._pipe.take()):
            self._transport.write(alert)
        self._hear_no_more()
        self._stop_writing()
        self._close_transport()

    def _hear_no_more(self) -> None:
        self._deaf = True
        self._early.clear()
        self._pause_transport(False)  # or nobody would notice the peer's end

    def _stop_writing(self) -> None:
        self._end_handshake()
        self._outgoing.end()

    def _close_transport(self) -> None:
        if self._error is not None and self._outgoing.is_full:
            self._transport.abort()
        else:
            self._begin_grace()
            self._transport.close()

    def _begin_grace(self) -> None:
        if self._grace is None:
            when = self._clock.monotonic() + CLOSE_GRACE
            self._grace = self._clock.call_at(when, self._transport.abort)
