"""A sender and a receiver in one process, on one clock: for what smtp-source and smtp-sink cannot tell.

    office = Office()
    async with office.receiving(mx_address), office.sending(address, port, sessions=20) as sender:
        sender.submit(Mail(1, "d1.bench.test"))
        await office.delivered(1)
    office.received[1] - office.sent[1]     # seconds from the end of data here to the end of data there

A message has a number, in a header field, by which it is known again. The receiver offers STARTTLS if it is given a
context. Both cost little beside any mail system; neither is a client or a server for any other purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, cast

from bench.network import PATIENCE, SMTP_PORT

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

NUMBER = b"X-Number: "
END = b"\r\n.\r\n"
LINE = b"x" * 70 + b"\r\n"
BACKLOG = 1024
NOISE = 100  # octets of an envelope or a header field, roughly


class UnexpectedReplyError(RuntimeError):
    """The system refused what it was sent."""


class Mail(NamedTuple):
    """One message, to somebody at `domain`."""

    number: int
    domain: str


class Office:
    """What was sent and what arrived, by number: seconds of the monotonic clock."""

    def __init__(self, size: int = 4096) -> None:
        self._body = LINE * max(1, (size - NOISE) // len(LINE))
        self.sent: dict[int, float] = {}
        self.received: dict[int, float] = {}
        self.connections = 0
        """How many the receiver has accepted."""
        self._awaited = 0
        self._enough: asyncio.Future[None] | None = None

    async def delivered(self, count: int, patience: float = PATIENCE) -> None:
        """Until so many different messages have arrived since the beginning. Raises `TimeoutError`."""
        self._awaited, self._enough = count, asyncio.get_running_loop().create_future()
        self._look()
        async with asyncio.timeout(patience):
            await self._enough

    def arrived(self, number: int) -> None:
        """The receiver has all of it."""
        self.received.setdefault(number, time.monotonic())
        self._look()

    def failed(self, error: Exception) -> None:
        """Whoever waits for deliveries waits in vain."""
        if self._enough is not None and not self._enough.done():
            self._enough.set_exception(error)

    def _look(self) -> None:
        if self._enough is not None and not self._enough.done() and len(self.received) >= self._awaited:
            self._enough.set_result(None)

    def content(self, mail: Mail) -> bytes:
        """The message, and its end."""
        header = b"From: <sender@client.bench.test>\r\n%b%d\r\nSubject: bench\r\n\r\n" % (NUMBER, mail.number)
        return header + self._body + b".\r\n"

    @contextlib.asynccontextmanager
    async def receiving(self, address: str, context: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        """A server for all mail while the block lasts."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Inbox(self, context), address, SMTP_PORT, backlog=BACKLOG)
        try:
            yield
        finally:
            server.close()

    @contextlib.asynccontextmanager
    async def sending(self, address: str, port: int, sessions: int) -> AsyncIterator[Sender]:
        """So many connections to the system while the block lasts."""
        sender, loop = Sender(self), asyncio.get_running_loop()
        made = [(await loop.create_connection(lambda: Session(sender), address, port))[0] for _ in range(sessions)]
        try:
            while len(sender.idle) < sessions:  # noqa: ASYNC110 # a look now and then is no work
                await asyncio.sleep(0.001)
            yield sender
        finally:
            for transport in made:
                transport.abort()


class Sender:
    """Shares out the messages among its sessions, in turn."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.idle: deque[Session] = deque()
        self._waiting: deque[Mail] = deque()

    def submit(self, mail: Mail) -> None:
        """Send it over the session that has been idle longest, or over the next that is."""
        if self.idle:
            self.idle.popleft().send(mail)
        else:
            self._waiting.append(mail)

    def free(self, session: Session) -> None:
        """That one has nothing to do."""
        if self._waiting:
            session.send(self._waiting.popleft())
        else:
            self.idle.append(session)


class Session(asyncio.Protocol):
    """One connection to the system: the envelope at once (PIPELINING), the content when it may come."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._rest = b""
        self._greeted = False
        self._mail: Mail | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, mail: Mail) -> None:
        self._mail = mail
        recipient = f"recipient@{mail.domain}".encode()
        self._transport.write(b"MAIL FROM:<sender@client.bench.test>\r\nRCPT TO:<%b>\r\nDATA\r\n" % recipient)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if line[3:4] == b" ":
                self._replied(line)

    def _replied(self, line: bytes) -> None:
        office = self._sender.office
        if line[:1] not in b"23":
            office.failed(UnexpectedReplyError(line.decode()))
        elif line.startswith(b"220") and not self._greeted:
            self._greeted = True
            self._transport.write(b"EHLO client.bench.test\r\n")
        elif line.startswith(b"354"):
            assert self._mail is not None
            self._transport.write(office.content(self._mail))
            office.sent[self._mail.number] = time.monotonic()
        elif self._mail is None:  # to EHLO
            self._sender.free(self)
        elif self._mail.number in office.sent:
            self._mail = None
            self._sender.free(self)


class Inbox(asyncio.Protocol):
    """One connection of the system's: takes everything, in clear or over TLS."""

    def __init__(self, office: Office, context: ssl.SSLContext | None) -> None:
        self._office = office
        self._context = context
        self._buffer = b""
        self._content = False
        self._handshake: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._office.connections += 1
        self._transport.write(b"220 mx.bench.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._handshake is None:
            self._run()

    def _run(self) -> None:
        replies: list[bytes] = []
        while (found := self._buffer.find(END if self._content else b"\r\n")) >= 0:
            if self._content:
                item, self._buffer = self._buffer[:found], self._buffer[found + len(END) :]
                self._content = False
                begin = item.index(NUMBER) + len(NUMBER)
                self._office.arrived(int(item[begin : item.index(b"\r", begin)]))
                replies.append(b"250 2.0.0 taken\r\n")
                continue
            item, self._buffer = self._buffer[:found], self._buffer[found + 2 :]
            match item[:4].upper():
                case b"EHLO":
                    offer = b"" if self._context is None else b"250-STARTTLS\r\n"
                    replies.append(b"250-mx.bench.test\r\n250-PIPELINING\r\n%b250 8BITMIME\r\n" % offer)
                case b"DATA":
                    self._content = True
                    replies.append(b"354 go ahead\r\n")
                case b"QUIT":
                    self._transport.write(b"".join([*replies, b"221 2.0.0 bye\r\n"]))
                    self._transport.close()
                    return
                case b"STAR":
                    self._start_tls()
                    return
                case _:
                    replies.append(b"250 2.1.0 fine\r\n")
        if replies:
            self._transport.write(b"".join(replies))

    def _start_tls(self) -> None:
        self._transport.pause_reading()
        self._transport.write(b"220 2.0.0 go ahead\r\n")
        self._handshake = asyncio.ensure_future(self._secure())

    async def _secure(self) -> None:
        assert self._context is not None
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            secured = await loop.start_tls(self._transport, self, self._context, server_side=True)
            assert secured is not None
            self._transport, self._context, self._handshake = secured, None, None
            self._run()
