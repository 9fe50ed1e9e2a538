"""`mailrider run` as a process of its own, with a configuration of the test's."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import smtplib
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mailrider.cli import main
from mailrider.clock import SystemClock, after
from tests.support.forked import ForkedProcess, forked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

PATIENCE = 240.0  # seconds for anything that a process has to do, however busy the machine is
MESSAGE = b"From: a@example.org\r\nSubject: hello\r\n\r\nhello\r\n"


FEW_FILES = "tests.flow.app.running:start_with_few_files"
GIVEN_SOCKET = "tests.flow.app.running:start_with_a_socket"


def start_with_few_files(arguments: Sequence[str]) -> None:
    """The program, where the system allows more descriptors than it gives at first."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    main(arguments)


def start_with_a_socket(arguments: Sequence[str]) -> None:
    """The program, as a service manager starts it: descriptor 3 is a listening socket (sd_listen_fds(3))."""
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    main(arguments)


class Process:
    """The daemon, and every line of its log."""

    def __init__(self, process: asyncio.subprocess.Process | ForkedProcess) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line(self, word: str) -> str:
        """The next line of the log with that word in it."""
        assert self.process.stderr is not None
        async with after(SystemClock(), PATIENCE):
            while octets := await self.process.stderr.readline():
                self.lines.append(octets.decode().rstrip())
                if word in self.lines[-1]:
                    return self.lines[-1]
        raise AssertionError(f"{word} is not in the log:\n" + "\n".join(self.lines))

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code, once it has ended."""
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """The same, of one that has been told to stop already."""
        async with after(SystemClock(), PATIENCE):
            assert self.process.stderr is not None
            self.lines += (await self.process.stderr.read()).decode().splitlines()
            return await self.process.wait()


@asynccontextmanager
async def running(config: Path, *arguments: str, **options: Any) -> AsyncIterator[Process]:
    """The daemon, ready; killed at the end if it has not ended by then. `arguments` are those of `run`.

    A fork of a process that has imported all of it (`forked`).
    """
    async with forked("-c", str(config), "run", *arguments, **options) as process:
        started = Process(process)
        await started.line("daemon_ready")
        yield started


@asynccontextmanager
async def running_anew(config: Path, *arguments: str, **options: Any) -> AsyncIterator[Process]:
    """The same, but as a shell starts it: a second of processor."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mailrider",
        "-c",
        str(config),
        "run",
        *arguments,
        stderr=asyncio.subprocess.PIPE,
        **options,
    )
    started = Process(process)
    try:
        await started.line("daemon_ready")
        yield started
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def submit(
    port: int, recipient: str = "b@example.net", message: bytes = MESSAGE, *, sender: str = "a@example.org"
) -> None:
    def send() -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example") as client:
            client.sendmail(sender, [recipient], message)

    await asyncio.to_thread(send)
