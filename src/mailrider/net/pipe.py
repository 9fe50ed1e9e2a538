"""What goes through a connection: TLS without a socket (RFC 8446, RFC 5246), and what is still to be sent.

`Outgoing` is the sending side: in clear at once, through TLS in slices; and who waits for room. No task: whoever writes
is told by `needs_drain` to wait first, and memory is bounded by one write and the transport's high-water mark. What is
to be written is referred to, not copied, until it is encrypted.

`TLSPipe` owns an `SSLObject` over two memory buffers: ciphertext in, plaintext out, and back. It knows neither
transports nor time; the channel feeds it and sends what it produces. What always holds:

- certificates are captured, never judged here: who accepts what is decided afterwards from the evidence;
- errors of OpenSSL come out as `TLSFailed`, with a reason that a person can read;
- no renegotiation and no session resumption: the contexts of `net.tls` switch both off.
"""

from __future__ import annotations

import _ssl
import asyncio
import ipaddress
import ssl
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from mailrider.errors import InvalidValue, LocalError
from mailrider.model.security import TLSEvidence
from mailrider.net.errors import TLSFailed, TLSFailureKind
from mailrider.net.tls_errors import ALERT_NAMES, explain, remote_alert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Bytes: TypeAlias = bytes | bytearray | memoryview

RECORD = 16384
"""The most plaintext that one TLS record carries (RFC 8446 5.1): asking OpenSSL for less would only split it."""


HIGH_WATER = 48 * 1024
"""Bytes in the transport from which writers wait: less than a piece of content, so that one may always be under way,
and no deadline is for more than one."""
LOW_WATER = 16 * 1024
"""Bytes in the transport at which they go on: enough to keep the line busy meanwhile."""
SLICE = 4 * RECORD
"""Bytes encrypted at a time: one write to the transport, and all that is encrypted in advance."""
SLICES_A_TURN = 8
"""Slices encrypted before other connections have a turn: half a megabyte, about half a ms."""


class PeerObject(ssl.SSLObject):
    """An `SSLObject` that also remembers the name a client asked for (RFC 6066 3)."""

    requested_name: str | None = None


class TLSPipe:
    """One TLS connection over bytes; for both roles."""

    __slots__ = ("_incoming", "_object", "_outgoing", "_peer", "_sni", "fed")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, sni: str | None, peer: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        try:
            self._object = context.wrap_bio(
                self._incoming, self._outgoing, server_side=server_side, server_hostname=sni
            )
        except ValueError as error:  # UnicodeError is one
            raise InvalidValue(f"not a host name that TLS can ask for: {sni!r}") from error
        self._sni = sni
        self._peer = peer
        self.fed = 0

    def feed(self, data: Bytes) -> None:
        """Take ciphertext from the peer."""
        self.fed += self._incoming.write(data)

    def take(self) -> bytes:
        """Ciphertext for the peer; empty if there is none."""
        return self._outgoing.read()

    def shake_hands(self) -> bool:
        """Go on with the handshake: True once it is done; `TLSFailed` (and an alert to take) if it cannot be."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise self._failure("the TLS handshake failed", error) from error
        return True

    def read(self) -> bytes | None:
        """Plaintext, at most a record; empty if there is none yet, None if the peer has closed TLS properly."""
        if not self._incoming.pending:
            return b""
        try:
            # Empty means close_notify: OpenSSL steps over empty records by itself.
            return self._object.read(RECORD) or None
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLZeroReturnError:
            return None
        except ssl.SSLError as error:
            raise self._failure("TLS failed", error) from error

    def encrypt(self, data: Bytes) -> bytes:
        """`data` as records, with whatever else waits for the peer."""
        view = memoryview(data)
        try:
            written = self._object.write(view)
            while written < len(view):  # OpenSSL takes a record at a time
                written += self._object.write(view[written:])
        except ssl.SSLError as error:
            raise self._failure("TLS failed", error) from error
        return self._outgoing.read()

    def close(self) -> bytes:
        """The close_notify alert for the peer, if it can still be made; nothing can be encrypted after it."""
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # the usual one: the peer's own close_notify has not arrived, and nobody waits for it
        return self._outgoing.read()

    def evidence(self) -> TLSEvidence:
        """What the peer proved in the handshake that is now done."""
        cipher = self._object.cipher()
        name = self._sni if self._sni is not None else getattr(self._object, "requested_name", None)
        return TLSEvidence(
            version=self._object.version() or "",
            cipher=cipher[0] if cipher else "",
            chain=chain_as_sent(self._object),
            sni=name,
        )

    def _failure(self, what: str, error: ssl.SSLError) -> TLSFailed:
        kind, reason = explain(error)
        alert = remote_alert(error)
        if kind is TLSFailureKind.PROTOCOL and not self.fed:
            kind = TLSFailureKind.LOCAL  # it failed before the peer had said anything
        elif kind is TLSFailureKind.PROTOCOL:
            alert = self._alert_to_send()
        return TLSFailed(f"{self._peer}: {what}: {reason}", kind, alert)

    def _alert_to_send(self) -> str:
        """The name of the alert that waits to be sent; empty if there is none, or it is encrypted."""
        waiting = self._outgoing.read()
        self._outgoing.write(waiting)
        # RFC 8446 5.1, 6: content type 21, version, two octets of length, level fatal, description; it comes last.
        *_, kind, _, _, high, low, level, description = bytes(7) + waiting
        return ALERT_NAMES.get(description, "") if (kind, high, low, level) == (21, 0, 2, 2) else ""


def chain_as_sent(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    """The peer's certificates in DER, as it sent them, its own first; empty if it sent none."""
    public = getattr(tls, "get_unverified_chain", None)
    if public is not None:  # Python 3.13
        return tuple(public())
    chain = tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined] # before 3.13
    return tuple(certificate.public_bytes(_ssl.ENCODING_DER) for certificate in chain or ())


def client_name(server_name: str | None) -> str | None:
    """What to put into SNI for `server_name`: a host name without trailing dot; nothing for an address (RFC 6066 3)."""
    if not server_name:
        return None
    name = server_name.rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name
    return None


class Outgoing:
    """The sending side of one connection, from `open` to `end`; before and after that it is `is_closed`."""

    __slots__ = (
        "_backlog",
        "_failed",
        "_flushing",
        "_in_handshake",
        "_pipe",
        "_transport",
        "_waiters",
        "is_closed",
        "is_full",
        "needs_drain",
    )

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._failed: Callable[[Exception], object] = _ignore
        self._pipe: TLSPipe | None = None
        self._backlog: deque[memoryview] = deque()  # waits to be encrypted
        self._flushing = False  # the transport is full until it is empty
        self._in_handshake = False  # nothing can be encrypted yet
        self._waiters: list[asyncio.Future[None]] = []
        self.is_closed = True
        """True if nothing can be written, yet or any more."""
        self.is_full = False
        """True while the transport takes no more."""
        self.needs_drain = False
        """True if the send buffer is full."""

    def open(self, transport: asyncio.Transport, failed: Callable[[Exception], object]) -> None:
        """Begin to write to a connection. `failed` is called if TLS cannot encrypt."""
        transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self._transport = transport
        self._failed = failed
        self.is_closed = False

    def start_tls(self, pipe: TLSPipe) -> None:
        """All that is written from now on goes through TLS: nothing before the handshake is done."""
        self._pipe = pipe
        self._in_handshake = True

    def tls_established(self) -> None:
        """The handshake is done."""
        self._in_handshake = False

    def end(self) -> None:
        """Nothing more can be written; what waits is forgotten, and who waits is woken."""
        self.is_closed = True
        self.needs_drain = self._flushing = False
        self._failed = _ignore  # no cycle is left behind
        self._backlog.clear()
        self.wake()

    def write(self, data: Bytes) -> None:
        """Send `data`; after the end it does nothing."""
        pipe = self._pipe
        if self.is_closed:
            return
        if pipe is None:
            self._transport.write(data)
        elif self.needs_drain or self._in_handshake or len(data) > RECORD:
            self._enqueue((data,))
        elif data:
            try:
                self._transport.write(pipe.encrypt(data))
            except TLSFailed as failure:
                self._failed(failure)

    def write_many(self, chunks: Iterable[Bytes]) -> None:
        """Send all `chunks`, few bytes with a single write to the transport."""
        if self.is_closed:
            return
        if self._pipe is not None:
            self._enqueue(chunks)
        elif some := [chunk for chunk in chunks if chunk]:  # an empty one would spin stdlib asyncio
            self._transport.writelines(some)

    def write_end(self, data: Bytes) -> None:
        """Send `data`, and have `needs_drain` True until the kernel has all that was ever written."""
        self.write(data)
        if not self.is_closed and (
            self._backlog or self._transport.get_write_buffer_size() or self._transport.is_closing()
        ):
            self._flushing = True
            self._transport.set_write_buffer_limits(0)
            self._look_at_buffers()

    def pause(self) -> None:
        """The transport takes no more."""
        self.is_full = True
        self.needs_drain = not self.is_closed

    def resume(self) -> None:
        """The transport takes more."""
        self.is_full = False
        self._encrypt_backlog()

    async def wait(self) -> None:
        """Wait until there is more room, or something has ended; look again which."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        """Let all look again who wait."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _enqueue(self, chunks: Iterable[Bytes]) -> None:
        if self._in_handshake:
            raise LocalError("nothing can be written in the middle of a TLS handshake")
        under_way = bool(self._backlog)  # a full transport, or a further turn, takes it up
        self._backlog.extend(memoryview(chunk) for chunk in chunks if chunk)
        if not under_way:
            self._encrypt_backlog()

    def _encrypt_backlog(self) -> None:
        pipe = self._pipe
        if self._backlog and pipe is not None:
            try:
                for _ in range(SLICES_A_TURN):
                    if self.is_full or not self._backlog:
                        break
                    self._transport.write(pipe.encrypt(self._next_slice()))
                else:
                    if self._backlog and not self.is_full:
                        asyncio.get_running_loop().call_soon(self._encrypt_backlog)
            except TLSFailed as failure:
                self._failed(failure)
        self._look_at_buffers()

    def _look_at_buffers(self) -> None:
        """Find out whether writers have to wait, and wake them if they need not."""
        waits = self.is_full or bool(self._backlog) or (self._flushing and self._transport.is_closing())
        self.needs_drain = waits and not self.is_closed
        if not self.needs_drain:
            if self._flushing:
                self._flushing = False
                self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
            self.wake()

    def _next_slice(self) -> Bytes:
        """Up to `SLICE` bytes from the backlog: small pieces joined, big ones only looked at."""
        backlog = self._backlog
        pieces = [backlog.popleft()]
        size = len(pieces[0])
        while size < SLICE and backlog:
            pieces.append(backlog.popleft())
            size += len(pieces[-1])
        if size > SLICE:
            last = pieces.pop()
            cut = len(last) - (size - SLICE)
            backlog.appendleft(last[cut:])
            pieces.append(last[:cut])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _ignore(_: Exception) -> None:
    """Who is told of nothing."""
