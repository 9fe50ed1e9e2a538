"""What several workers count together, with real processes: their limits are those of one."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.flow.app.running import running, submit
from tests.support.loopback import free_port
from tests.support.loops import eventually, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Sink:
    """A mail server that counts who is there at once. While `held` it does not answer to content."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = self.most_connections = 0
        self.messages = self.most_messages = 0
        self.taken = 0
        self.free = asyncio.Event()
        self.free.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.most_connections = max(self.connections, self.most_connections)
        inside = False
        try:
            writer.write(b"220 sink\r\n")
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    writer.write(b"250-sink\r\n250 PIPELINING\r\n")
                elif verb == b"DATA":
                    inside = True
                    self.messages += 1
                    self.most_messages = max(self.messages, self.most_messages)
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    await self.free.wait()
                    self.taken += 1
                    self.messages -= 1
                    inside = False
                    writer.write(b"250 taken\r\n")
                elif verb == b"QUIT":
                    writer.write(b"221 bye\r\n")
                    return
                else:
                    writer.write(b"250 yes\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections -= 1
            self.messages -= inside
            writer.close()


@asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    """One, listening."""
    made = Sink()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.free.set()
        server.close()


def configuration(
    tmp_path: Path, port: int, server: Sink, *, workers: int, target: str = "", endpoint: str = "", more: str = ""
) -> Path:
    path = tmp_path / "mailrider.conf"
    path.write_text(
        f"""hostname mx.here.test
        workers {workers}
        state_dir state
        runtime_dir {tmp_path}/run
        dns {{
            server 127.0.0.1:9
        }}
        target.smtp next {{
            host tcp://127.0.0.1:{server.port}
            starttls no
            min_tls_level none
            {target}
        }}
        target.queue queue {{
            target &next
        }}
        submission tcp://127.0.0.1:{port} {{
            deliver_to &queue
            {endpoint}
        }}
        {more}
        """
    )
    return path


def pids(lines: list[str]) -> list[int]:
    """Of the workers that came."""
    return [int(each.partition("pid=")[2].split()[0]) for each in lines if " worker_ready " in each]


async def test_one_at_once_means_one_of_all_workers_also_when_one_dies_inside(tmp_path: Path) -> None:
    port = free_port()
    async with sink() as server:
        path = configuration(tmp_path, port, server, workers=4, target="limits {\nall concurrency 1\n}")
        server.free.clear()
        async with running(path) as daemon:
            await asyncio.gather(*(submit(port, f"b{number}@example.net") for number in range(8)))
            await eventually(lambda: server.messages == 1)
            server.free.set()
            await eventually(lambda: server.taken >= 8)
            assert server.most_messages == 1

            server.free.clear()
            await asyncio.gather(*(submit(port, f"c{number}@example.net") for number in range(8)))
            await eventually(lambda: server.messages == 1)
            for pid in pids(daemon.lines)[:2]:
                os.kill(pid, signal.SIGKILL)
            await daemon.line("worker_died")
            server.free.set()
            await eventually(lambda: server.taken >= 16)
            assert server.most_messages == 1
            assert await daemon.stop() == 0


async def test_a_rate_holds_over_workers_and_over_a_reload(tmp_path: Path) -> None:
    port, held = free_port(), set[str]()
    async with sink() as server:
        path = configuration(tmp_path, port, server, workers=2, target="limits {\nall rate 2 1h\n}")
        async with running(path, "--debug") as daemon:

            async def hold(messages: int) -> None:
                while len(held) < messages:
                    held.update(each for each in (await daemon.line(" limit_reached ")).split() if "message=" in each)

            await asyncio.gather(*(submit(port, f"b{number}@example.net") for number in range(7)))
            await hold(5)
            await eventually(lambda: server.taken == 2)
            daemon.process.send_signal(signal.SIGHUP)
            await daemon.line("reloaded")
            await submit(port, "c@example.net")
            await hold(6)
            assert server.taken == 2
            assert await daemon.stop() == 0


async def test_connections_and_clients_are_those_of_one_process(tmp_path: Path) -> None:
    port = free_port()
    async with sink() as server:
        path = configuration(
            tmp_path,
            port,
            server,
            workers=2,
            target="max_connections_per_host 2",
            endpoint="max_client_connections 3",
        )
        server.free.clear()
        async with running(path) as daemon:
            for number in range(8):
                await submit(port, f"b{number}@example.net")
            await eventually(lambda: server.messages == 2)
            # Another client than that of the messages, whose connections are perhaps not all counted as closed yet.
            other = ("127.0.0.5", 0)
            there = [await asyncio.open_connection("127.0.0.1", port, local_addr=other) for _ in range(3)]
            assert [(await reader.readline())[:3] for reader, _ in there] == [b"220"] * 3
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=other)
            assert (await reader.readline())[:3] == b"421"
            for each in (writer, *(writer for _, writer in there)):
                each.close()
            server.free.set()
            await eventually(lambda: server.taken == 8)
            assert server.most_connections == 2
            assert await daemon.stop() == 0


async def test_while_the_supervisor_stands_still_nothing_is_begun_that_may_be_too_much(tmp_path: Path) -> None:
    port = free_port()
    async with sink() as server:
        path = configuration(tmp_path, port, server, workers=2, target="limits {\nall concurrency 1\n}")
        async with running(path) as daemon:
            assert daemon.process.pid is not None
            there = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            for reader, _ in there:
                assert (await reader.readline())[:3] == b"220"
            os.kill(daemon.process.pid, signal.SIGSTOP)
            try:
                await eventually(lambda: state_of(daemon.process.pid) == "T")
                reader, writer = there[0]
                for said in (
                    b"EHLO here",
                    b"MAIL FROM:<a@example.org>",
                    b"RCPT TO:<b@example.net>",
                    b"DATA",
                    b"\r\nhello\r\n.",
                ):
                    writer.write(said + b"\r\n")
                    while (await reader.readline())[3:4] == b"-":
                        pass
                assert server.taken == 0
            finally:
                os.kill(daemon.process.pid, signal.SIGCONT)
            await eventually(lambda: server.taken == 1)
            assert server.most_messages == 1
            for _, each in there:
                each.close()
            assert await daemon.stop() == 0
