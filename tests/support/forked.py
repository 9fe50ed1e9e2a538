"""`mailrider` as a process of its own, started in a few milliseconds: a fork of one that has imported it already.

The first program that is asked for starts the process that forks (`tests.support.fork_server`); it ends with this one.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from mailrider.app import worker, worker_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

PROGRAM: Final = "mailrider.cli:main"
WORKER: Final = "tests.support.forked:be_worker"
ROOT: Final = Path(__file__).parents[2]


class ForkedProcess:
    """What is used of `asyncio.subprocess.Process`."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._ended = asyncio.create_task(self._wait(connection))

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def _wait(self, connection: socket.socket) -> int:
        with connection:
            self.returncode = int(await asyncio.get_running_loop().sock_recv(connection, 100))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError when it has ended."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def fork(
    entry: str,
    arguments: Sequence[str],
    descriptors: Mapping[int, int],
    *,
    environment: Mapping[str, str] = os.environ,
    directory: Path | None = None,
) -> ForkedProcess:
    """A process that calls `module:function` with these arguments. `descriptors`: those that it has, and which of ours
    they are; the first three are ours unless others are given."""
    given = {0: 0, 1: 1, 2: 2} | dict(descriptors)
    order = {
        "entry": entry,
        "arguments": list(arguments),
        "environment": dict(environment),
        "directory": str(directory or Path.cwd()),
        "numbers": list(given),
    }
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(_address())
    connection.setblocking(False)
    socket.send_fds(connection, [json.dumps(order).encode()], list(given.values()))
    pid = int(await asyncio.get_running_loop().sock_recv(connection, 100))
    return ForkedProcess(pid, connection)


def children_of(pid: int) -> list[int]:
    """Those forks that live and for which a process has asked: the workers of a supervisor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(_address())
        connection.send(b"%d" % pid)
        return [int(each) for each in connection.recv(10_000).split()]


@asynccontextmanager
async def forked(
    *arguments: str, entry: str = PROGRAM, descriptors: Mapping[int, int] | None = None, **options: Any
) -> AsyncIterator[ForkedProcess]:
    """`mailrider` with these arguments, whose standard error can be read; killed at the end if it still lives."""
    reads, writes = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reads, "rb")
    )
    try:
        process = await fork(entry, arguments, {**(descriptors or {}), 2: writes}, **options)
        os.close(writes)
        process.stderr = reader
        try:
            yield process
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    finally:
        transport.close()


async def run_worker(
    *arguments: str, inherited: Sequence[int], environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Instead of `worker_process.run_program`."""
    with Path(os.devnull).open("rb") as nothing:
        descriptors = {0: nothing.fileno()} | {each: each for each in inherited}
        return cast("asyncio.subprocess.Process", await fork(WORKER, arguments, descriptors, environment=environment))


def be_worker(arguments: Sequence[str]) -> int:
    """What `worker_process.PROGRAM` does."""
    os.setpgid(0, 0)
    return worker.main(arguments)


def fork_workers_too(address: str) -> None:
    """In a fork: its workers are forks as well, of the process that listens there."""
    global _server_of_this_fork
    _server_of_this_fork = address
    worker_process.run_program = run_worker


_server_of_this_fork = ""


def _address() -> str:
    return _server_of_this_fork or _start_server()


@cache
def _start_server() -> str:
    folder = tempfile.mkdtemp()
    address = f"{folder}/forks"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        command = [sys.executable, "-m", "tests.support.fork_server", str(listening.fileno())]
        server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, pass_fds=[listening.fileno()])

    def end() -> None:
        server.communicate()
        shutil.rmtree(folder)

    atexit.register(end)
    return address
