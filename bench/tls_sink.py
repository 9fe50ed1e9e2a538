"""A server that offers STARTTLS and throws everything away, in a process of its own: what smtp-sink cannot do.

with tls_sink() as sink:                # sink.port, sink.tlsa
    ...

python -m bench.tls_sink                # prints its port and TLSA record, until its input ends
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import uvloop

from mailrider.clock import SystemClock
from mailrider.lab.ca import CA
from mailrider.net.listen import listen
from mailrider.net.tls import make_server_context
from mailrider.smtp.capabilities import Capabilities
from mailrider.smtp.replies import usual_reply
from mailrider.smtp.server import ServerMachine
from mailrider.smtp.server_states import ContentChunk, Limits, Rejected, ServerState
from mailrider.x509.describe import describe_chain

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from mailrider.net.channel import Channel

HOST = "127.0.0.1"
NAME = "mx.bench.test"
OFFER = Capabilities(pipelining=True, eight_bit_mime=True, starttls=True)
IN_TLS = Capabilities(pipelining=True, eight_bit_mime=True)
LIMITS = Limits(max_commands=10**9)


class Sink:
    """One connection."""

    def __init__(self, channel: Channel, context: ssl.SSLContext, delay: float) -> None:
        self._channel = channel
        self._context = context
        self._delay = delay
        self._machine = ServerMachine(OFFER, LIMITS)
        self._handshake: asyncio.Task[None] | None = None
        self._run()

    def data_received(self, data: bytes) -> None:
        self._machine.receive(data)
        self._run()

    def connection_lost(self, error: Exception | None) -> None:
        pass

    def _run(self) -> None:
        machine = self._machine
        while (event := machine.next_event()) is not None:
            if not isinstance(event, ContentChunk | Rejected):
                machine.answer(usual_reply(machine, event, NAME))
        if output := machine.take_output():
            if self._delay and machine.state not in (ServerState.HANDSHAKE, ServerState.CLOSED):
                asyncio.get_running_loop().call_later(self._delay, self._channel.write, output)
                return
            self._channel.write(output)
        if machine.state is ServerState.HANDSHAKE:
            began = self._channel.start_tls_server(self._context)
            machine.tls_established(IN_TLS)
            self._handshake = asyncio.ensure_future(self._secure(began))
        elif machine.state is ServerState.CLOSED:
            self._handshake = asyncio.ensure_future(self._channel.close())

    @staticmethod
    async def _secure(handshake: object) -> None:
        with contextlib.suppress(ConnectionError):
            await handshake  # type: ignore[misc]


async def serve(delay: float) -> None:
    certificate = CA().issue([NAME])
    with tempfile.TemporaryDirectory() as folder:
        context = make_server_context(*certificate.write(Path(folder), "sink"))

    def accept(channel: Channel) -> Sink:
        return Sink(channel, context, delay)

    async with await listen(SystemClock(), IPv4Address(HOST), 0, accept) as listener:
        print(listener.port, "3 1 1", describe_chain(certificate.chain_der)[0].spki_sha256, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@dataclass(frozen=True, slots=True)
class TLSSink:
    """A running one. `tlsa` is the record that its key matches."""

    port: int
    tlsa: str
    process: psutil.Process

    def cpu(self) -> float:
        """Seconds of processor time it has used until now."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextlib.contextmanager
def tls_sink(delay: float = 0.0) -> Iterator[TLSSink]:
    """A sink on a free port of loopback while the block lasts, every reply of which takes `delay` seconds."""
    command = [sys.executable, "-m", "bench.tls_sink", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port, _, tlsa = process.stdout.readline().strip().partition(" ")
            yield TLSSink(int(port), tlsa, psutil.Process(process.pid))
        finally:
            process.stdin.close()


if __name__ == "__main__":
    uvloop.run(serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0))
