"""The daemon and clients without measure: thousands that say nothing, lines without end. Memory has its bound.

In a long run ten thousand clients, and lines of a gigabyte.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import SystemClock, after
from mailrider.lab.mx import LabMX
from tests.flow.app.running import FEW_FILES, PATIENCE, running, submit
from tests.support.long_runs import LONG
from tests.support.loopback import free_port
from tests.support.loops import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.flow.app.running import Process

CROWD = 10_000 if LONG else 2_000
IDLE = 16 * 1024  # octets of memory for a client that says nothing
SLACK = 48 << 20  # octets that a process may grow by, whatever is sent to it
LINE = 1 << (30 if LONG else 27)  # octets
CONFIGURATION = """hostname mx.here.test
state_dir state
runtime_dir {folder}/run
dns {{
    server 127.0.0.1:9
}}
target.smtp next {{
    host tcp://{mx.address}:{mx.port}
    starttls no
    min_tls_level none
}}
target.queue queue {{
    target &next
}}
smtp tcp://127.0.0.1:{port} {{
    max_connections 11000
    max_client_connections 11000
    deliver_to &queue
}}
"""


def configured(folder: Path, port: int, mx: LabMX) -> Path:
    path = folder / "mailrider.conf"
    path.write_text(CONFIGURATION.format(folder=folder, mx=mx, port=port))
    return path


def memory(daemon: Process) -> int:
    """Octets that the process has in memory."""
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def files(daemon: Process) -> int:
    return sum(1 for _ in Path(f"/proc/{daemon.process.pid}/fd").iterdir())


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def greeted(port: int) -> socket.socket:
    """A client that has heard the greeting, and says nothing."""
    loop, client = asyncio.get_running_loop(), socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", port))
    heard = b""
    while not heard.endswith(b"\r\n"):
        heard += await loop.sock_recv(client, 100)
    assert heard.startswith(b"220 ")
    return client


@pytest.mark.usefixtures("many_files")
async def test_thousands_of_idle_clients_keep_nobody_out(tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < CROWD + 500:
        pytest.skip(f"needs {CROWD + 500} open files")
    port = free_port()
    async with LabMX() as mx, running(configured(tmp_path, port, mx)) as daemon:
        await submit(port)
        before, usual = memory(daemon), files(daemon)
        crowd: list[socket.socket] = []
        try:
            for _ in range(CROWD // 100):
                crowd += await asyncio.gather(*(greeted(port) for _ in range(100)))
            assert files(daemon) >= CROWD
            assert memory(daemon) - before < CROWD * IDLE
            await submit(port, "in-the-crowd@example.net")
            await eventually(lambda: len(mx.messages) == 2)
        finally:
            for client in crowd:
                client.close()
        await eventually(lambda: files(daemon) <= usual)
        assert await daemon.stop() == 0


@pytest.mark.parametrize(
    ("before", "behind", "reply"),
    [
        (b"", b"\r\n", b"500 5.5.2 Line too long\r\n"),
        (b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n", b"\r\n.\r\n", b"552 5.3.4 "),
        (b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nSubject: x\r\n\r\n", b"\r\n.\r\n", b"552 5.3.4 "),
    ],
    ids=["a command", "a header", "a body"],
)
async def test_a_line_without_end_costs_no_memory(tmp_path: Path, before: bytes, behind: bytes, reply: bytes) -> None:
    port = free_port()
    async with LabMX() as mx, running(configured(tmp_path, port, mx)) as daemon:
        await submit(port)
        usual = memory(daemon)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        writer.write(b"HELO client.example\r\n")
        await reader.readline()
        for line in before.splitlines(keepends=True):
            writer.write(line)
            if line.startswith((b"MAIL", b"RCPT", b"DATA")):
                await reader.readline()
        piece = b"x" * (1 << 20)
        pieces = LINE // len(piece)
        for number in range(pieces):
            writer.write(piece)
            await writer.drain()
            if number == pieces // 2:
                assert memory(daemon) - usual < SLACK
                await submit(port, "meanwhile@example.net")
        writer.write(behind)
        async with after(SystemClock(), PATIENCE):
            assert (await reader.readline()).startswith(reply)
        assert memory(daemon) - usual < SLACK
        writer.close()
        await eventually(lambda: len(mx.messages) == 2)
        assert await daemon.stop() == 0


async def test_the_daemon_takes_as_many_files_as_it_may(tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with LabMX() as mx, running(configured(tmp_path, free_port(), mx), entry=FEW_FILES) as daemon:
        assert resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE) == (most, most)
        assert await daemon.stop(signal.SIGTERM) == 0
