"""An MX host of the lab: an SMTP (or LMTP) server on loopback that does what a script says.

    async with LabMX(MXScript(recipients={"full@good.test": "452 4.2.2 Full"})) as mx:
        ... deliver to mx.address, mx.port ...
        message = await mx.wait_message()
        assert message.content == b"..."
        assert mx.connections[0].said() == b"..."
        await mx.wait_closed()

It runs on `smtp.server` and `net.channel`, as the product's own endpoints do. `messages` are those that it accepted,
`unanswered` those that it had whole and gave no reply to; `connections` are all that were made, with what was said.
`script` may be exchanged at any time, for connections to come.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections import Counter, deque
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from mailrider.clock import SystemClock
from mailrider.lab.mx_connection import LabConnection, LabMessage
from mailrider.lab.mx_script import Action, MXScript, PortState, Stage, TLSFault
from mailrider.net.listen import listen
from mailrider.net.tls import make_server_context

if TYPE_CHECKING:
    import ssl
    from typing import Self

    from mailrider.clock import Clock
    from mailrider.lab.ca import LabCertificate
    from mailrider.lab.mx_script import MXTLS, Step
    from mailrider.net.channel import Channel
    from mailrider.net.listen import Listener
    from mailrider.smtp.commands import Command

MAX_LOG = 10_000  # connections and messages remembered; a lab may run for days
_TAKES_EVERYTHING = MXScript()


class LabMX:
    """A scripted MX host; use it with `async with`.

    `keeps_content` False: messages are known by size and digest alone. `port_state`: what those find who connect.
    """

    def __init__(
        self,
        script: MXScript = _TAKES_EVERYTHING,
        address: str = "127.0.0.25",
        port: int = 0,
        *,
        port_state: PortState = PortState.OPEN,
        keeps_content: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.address = address
        self.port = port
        self.clock = clock or SystemClock()
        self.keeps_content = keeps_content
        self.messages: deque[LabMessage] = deque(maxlen=MAX_LOG)
        self.unanswered: deque[LabMessage] = deque(maxlen=MAX_LOG)
        self.connections: deque[LabConnection] = deque(maxlen=MAX_LOG)
        self.opened = 0
        """How many connections were made."""
        self.accepted = 0
        """How many messages were accepted."""
        self.open_connections = 0
        self._script = script
        self._port_state = port_state
        self._steps_taken: Counter[tuple[Stage, str | None]] = Counter()
        self._changed = asyncio.Event()
        self._plays: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._listener: Listener | None = None
        self._sockets: list[socket.socket] = []
        self._contexts: dict[int, tuple[MXTLS, ssl.SSLContext]] = {}

    @property
    def script(self) -> MXScript:
        """What new connections play; setting it begins all lists of actions anew."""
        return self._script

    @script.setter
    def script(self, script: MXScript) -> None:
        self._script = script
        self._steps_taken.clear()

    # Opening and closing ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        await self._close()
        for play in self._plays:
            play.cancel()
        await asyncio.gather(*self._plays, return_exceptions=True)
        if self._failure is not None and exc_type is None:
            raise self._failure

    async def set_port_state(self, port_state: PortState) -> None:
        """Close, open or wall up the port; open connections are cut."""
        await self._close()
        self._port_state = port_state
        await self._open()

    async def _open(self) -> None:
        if self._port_state is PortState.OPEN:
            self._listener = await listen(self.clock, ip_address(self.address), self.port, self._accept)
            self.port = self._listener.port
            return
        # Bound, it is nobody else's; but nobody listens.
        bound = self._socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((self.address, self.port))
        self.port = bound.getsockname()[1]
        if self._port_state is PortState.UNANSWERED:
            bound.listen(0)
            for _ in range(3):  # Linux answers no further SYN once more than the backlog waits to be accepted
                self._socket().connect_ex((self.address, self.port))

    def _socket(self) -> socket.socket:
        family = socket.AF_INET if ip_address(self.address).version == 4 else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setblocking(False)
        self._sockets.append(opened)
        return opened

    async def _close(self) -> None:
        for opened in self._sockets:
            opened.close()
        self._sockets.clear()
        if self._listener is not None:
            await self._listener.close()
            self._listener = None

    # Waiting ----------------------------------------------------------------------------------------------------------

    async def wait_message(self, times: int = 1) -> LabMessage:
        """The message accepted as that many-th (the first, unless said otherwise), once it is."""
        while self.accepted < times:
            await self._news()
        return self.messages[times - 1 - self.accepted]

    async def wait_connection(self, times: int = 1) -> LabConnection:
        """The connection made as that many-th, once it is."""
        while self.opened < times:
            await self._news()
        return self.connections[times - 1 - self.opened]

    async def wait_unanswered(self, times: int = 1) -> LabMessage:
        """The message left without a reply as that many-th, once it has come."""
        while len(self.unanswered) < times:
            await self._news()
        return self.unanswered[times - 1]

    async def wait_command(self, kind: type[Command]) -> LabConnection:
        """The connection on which such a command came, once it has."""
        while True:
            for connection in self.connections:
                if any(isinstance(command, kind) for command in connection.commands):
                    return connection
            await self._news()

    async def wait_closed(self) -> None:
        """Until no connection is open."""
        while self.open_connections:
            await self._news()

    async def _news(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # What connections tell and ask ------------------------------------------------------------------------------------

    def _accept(self, channel: Channel) -> LabConnection:
        self.opened += 1
        self.open_connections += 1
        connection = LabConnection(self, self._script, channel, self.opened)
        self.connections.append(connection)
        play = asyncio.get_running_loop().create_task(connection.play())
        self._plays.add(play)
        play.add_done_callback(self._played)
        self._changed.set()
        return connection

    def _played(self, play: asyncio.Task[None]) -> None:
        self._plays.discard(play)
        if not play.cancelled() and play.exception() is not None:
            self._failure = self._failure or play.exception()

    def command_received(self) -> None:
        """A command has come that makes sense."""
        self._changed.set()

    def connection_ended(self) -> None:
        """One of ours is gone."""
        self.open_connections -= 1
        self._changed.set()

    def message_accepted(self, message: LabMessage) -> None:
        """A message has come, and is taken."""
        self.accepted += 1
        self.messages.append(message)
        self._changed.set()

    def message_unanswered(self, message: LabMessage) -> None:
        """A message has come whole, and nothing will be said about it."""
        self.unanswered.append(message)
        self._changed.set()

    def next_action(self, script: MXScript, command: Command, stage: Stage, address: str | None) -> Action | None:
        """What the script wants done now; None: what is usual."""
        step: Step | None = None
        if address is not None:
            step = (script.recipients if stage is Stage.RCPT else script.finals).get(address)
        if step is None:
            step = script.replies.get(stage)
            address = None
        if callable(step):
            return step(command)
        if isinstance(step, Sequence) and not isinstance(step, str):
            taken = self._steps_taken[stage, address]
            self._steps_taken[stage, address] += 1
            return step[taken] if taken < len(step) else None
        return step

    # TLS --------------------------------------------------------------------------------------------------------------

    def context_of(self, tls: MXTLS) -> ssl.SSLContext:
        """The context for a script's TLS; made once."""
        known = self._contexts.get(id(tls))
        if known is None:
            known = self._contexts[id(tls)] = (tls, _context(tls))
        return known[1]


def _context(tls: MXTLS) -> ssl.SSLContext:
    by_name = {name.lower(): _certified(tls, certificate) for name, certificate in tls.by_name.items()}
    if tls.certificate is None:
        raise ValueError("TLS without a certificate")
    return _certified(tls, tls.certificate, by_name)


def _certified(
    tls: MXTLS, certificate: LabCertificate, by_name: dict[str, ssl.SSLContext] | None = None
) -> ssl.SSLContext:
    with tempfile.TemporaryDirectory() as folder:  # ssl reads certificates from files only
        cert, key = certificate.write(Path(folder), "mx")
        return make_server_context(
            cert,
            key,
            protocols=tls.protocols,
            ciphers=tls.ciphers,
            client_ca=cert if tls.fault is TLSFault.REJECTS_LATE else tls.client_ca,
            choose=None if by_name is None else lambda name: by_name.get((name or "").lower()),
            weak=True,
        )
