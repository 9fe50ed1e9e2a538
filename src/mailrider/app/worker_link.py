"""What the supervisor and a worker tell each other: frames on a socketpair that the worker inherits.

A frame is the number of its octets (four of them, big-endian), then `[kind, body]` in JSON. Both ends use the same
class. A frame leaves in the turn of the event loop in which it is sent: who asks waits for it. The end of the stream
sets `closed`: to the worker it means the same as SIGTERM, to the supervisor that the worker ends.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, cast

from mailrider.errors import InvalidValue
from mailrider.model.event import Bug, discard

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from mailrider.model.event import Emit

    Handler = Callable[[Any], None]

MAX_FRAME: Final = 8 << 20  # octets of one frame: the counters of a worker are the largest
MAX_WAITING: Final = 64 << 20  # octets that may wait for the other end to read; more means that it never will
_SIZE: Final = 4  # octets of the number in front of a frame
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder for each frame


def encode_frame(kind: str, body: Any) -> bytes:
    """A frame with a body that JSON can hold. Raises `InvalidValue` for one that is too large."""
    octets = _encode([kind, body]).encode("ascii")
    if len(octets) > MAX_FRAME:
        raise InvalidValue(f"a frame has at most {MAX_FRAME} octets, and {kind} would have {len(octets)}")
    return len(octets).to_bytes(_SIZE, "big") + octets


class FrameParser:
    """Octets to frames, however they were cut on the way."""

    def __init__(self) -> None:
        self._octets = bytearray()

    def feed(self, octets: bytes) -> list[tuple[str, Any]]:
        """The kinds and bodies of the frames that are whole now. Raises `InvalidValue` for what is no frame."""
        self._octets += octets
        frames: list[tuple[str, Any]] = []
        start = 0
        while len(self._octets) - start >= _SIZE:
            size = int.from_bytes(self._octets[start : start + _SIZE], "big")
            if size > MAX_FRAME:
                raise InvalidValue(f"a frame has at most {MAX_FRAME} octets, not {size}")
            end = start + _SIZE + size
            if len(self._octets) < end:
                break
            frames.append(_decode(self._octets[start + _SIZE : end]))
            start = end
        del self._octets[:start]
        return frames


def _decode(octets: bytearray) -> tuple[str, Any]:
    try:
        frame = json.loads(octets.decode("ascii"))
    except ValueError as error:
        raise InvalidValue("a frame is not JSON") from error
    if not isinstance(frame, list) or len(frame) != 2 or not isinstance(frame[0], str):
        raise InvalidValue("expected [kind, body] in a frame")
    return frame[0], frame[1]


class WorkerLink(asyncio.Protocol):
    """One end. Register handlers with `on`, then `open` it; what comes of a kind that has none goes to `on_other`."""

    def __init__(self, emit: Emit = discard) -> None:
        """`emit` is told of bugs in handlers, and of frames that are none."""
        self.closed = asyncio.Event()
        """Set when the stream has ended, from either side."""
        self.on_other: Callable[[str, Any], None] | None = None
        self._emit = emit
        self._handlers: dict[str, Handler] = {}
        self._parser = FrameParser()
        self._transport: asyncio.Transport | None = None

    async def open(self, end: socket.socket) -> None:
        """Speak over that socket, which belongs to the link from now on."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    def on(self, kind: str, handler: Handler) -> None:
        """Give the bodies of this kind to a handler."""
        self._handlers[kind] = handler

    def send(self, kind: str, body: Any = None) -> None:
        """Tell the other end; never waits. Once the stream has ended, nothing happens."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(encode_frame(kind, body))
        if transport.get_write_buffer_size() > MAX_WAITING:
            self.abort()

    def close(self) -> None:
        """End it once everything that was sent is written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            frames = self._parser.feed(data)
        except InvalidValue as error:
            self._emit(Bug("link", error))
            self.abort()
            return
        for kind, body in frames:
            try:
                self._handle(kind, body)
            except Exception as error:
                self._emit(Bug(f"link: {kind}", error))

    def _handle(self, kind: str, body: Any) -> None:
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(body)
        elif self.on_other is not None:
            self.on_other(kind, body)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.closed.set()
