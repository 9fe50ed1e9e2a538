"""A server that plays a dialogue over a channel in memory, on a clock that stands still: `S:` is said, `C:` expected.

    server = Server(clock, '''
        S: 220 mx
        C: EHLO client.test
        S: 250 mx
        close
    ''')
    ... server.channel is the client's end ...
    await server.played()

Other lines: `TLS` (begins the handshake), `close`, `abort`, `stall` (reads no more), `go` (reads on), `wait SECONDS`,
`drip TEXT` (an octet a second), `raw TEXT` (with Python's escapes), `beneath TEXT` (the same, past TLS), `octets N`
(expects so many, whatever they are).
Where the dialogue ends the server is silent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from mailrider.testing.channels import memory_pair

if TYPE_CHECKING:
    import ssl

    from mailrider.clock import Clock
    from mailrider.net.channel import Channel


class Server:
    """See the module. `received` is all that the client sent, `lost` how the connection ended for the server."""

    def __init__(
        self,
        clock: Clock,
        script: str,
        *,
        context: ssl.SSLContext | None = None,
        piece: int | None = None,
        accepted: Channel | None = None,
    ) -> None:
        """`accepted`: the server's end of a connection that is there already; then it is the receiver to give it."""
        self.received = b""
        self.lost: list[Exception | None] = []
        self._clock = clock
        self._context = context
        self._unread = b""
        self._changed = asyncio.Event()
        self._steps = [line.strip() for line in script.splitlines() if line.strip()]
        if accepted is not None:
            self.channel = self._channel = accepted
        else:
            self.channel, self._channel = memory_pair(clock, self._accept, address="192.0.2.25", piece=piece)
        self._play = asyncio.create_task(self._run())

    def _accept(self, _: Channel) -> Server:
        return self

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._unread += data
        self._changed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)
        self._changed.set()

    async def played(self) -> None:
        """The whole dialogue was played; raises what went wrong in it."""
        await self._play

    async def ended(self) -> None:
        """The connection is gone."""
        while not self.lost:
            await self._news()

    async def _run(self) -> None:
        try:
            for step in self._steps:
                await self._perform(step)
        except BaseException:
            self._channel.abort()  # or the client would wait for ever
            raise

    async def _perform(self, step: str) -> None:
        verb, _, rest = step.partition(" ")
        match verb:
            case "S:":
                self._channel.write(rest.encode() + b"\r\n")
            case "C:":
                assert await self._line() == rest
            case "octets":
                await self._take(int(rest))
            case "TLS":
                await self._channel.start_tls_server(cast("ssl.SSLContext", self._context))
            case "close":
                await self._channel.close()
            case "abort":
                self._channel.abort()
            case "stall":
                self._channel.pause_reading()
            case "go":
                self._channel.resume_reading()
            case "raw":
                self._channel.write(rest.encode().decode("unicode_escape").encode("latin-1"))
            case "beneath":
                # Beneath TLS: a channel gives nobody a way past it.
                self._channel._transport.write(rest.encode().decode("unicode_escape").encode("latin-1"))
            case "wait":
                await self._clock.sleep(float(rest))
            case "drip":
                for octet in rest.encode() + b"\r\n":
                    self._channel.write(bytes([octet]))
                    await self._clock.sleep(1)
            case _:
                raise ValueError(step)

    async def _line(self) -> str:
        while b"\r\n" not in self._unread:
            await self._more()
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line.decode()

    async def _take(self, number: int) -> None:
        while len(self._unread) < number:
            await self._more()
        self._unread = self._unread[number:]

    async def _more(self) -> None:
        assert not self.lost, f"the client has gone; it had said {self._unread!r}"
        await self._news()

    async def _news(self) -> None:
        self._changed.clear()
        await self._changed.wait()
