"""Programs of our own, on addresses of our own: started, awaited, stopped, and nothing else touched.

Each program runs in a process group of its own, so that stopping it ends exactly what it started.
Readiness is something that is seen (a port that accepts, a file that is there) within a bound.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

READY_WITHIN = 200.0  # seconds; a server that needs longer will not come any more, however busy the machine is
GONE_WITHIN = 60.0
_PAUSE = 0.01


class NotReadyError(RuntimeError):
    """A server did not come up; the message ends with what it said."""


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """A folder that servers who drop their privileges can still enter, gone at the end."""
    path = Path(tempfile.mkdtemp(prefix="mailrider-peers-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def wait_until(condition: Callable[[], bool], what: str, within: float = READY_WITHIN) -> None:
    """Look again and again, briefly; raises `NotReadyError` when `within` seconds are over."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise NotReadyError(f"{what}: not within {within:g} s")
        time.sleep(_PAUSE)


def accepts(address: str, port: int) -> bool:
    """Whether somebody accepts TCP connections there, now."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in the foreground of a process group of its own while the block lasts.

    Enters once `ready()` holds; what the program writes goes to `log`, and its end into the error
    if it gives up before.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else {**os.environ, **environment},
            process_group=0,
        )
    try:
        try:
            wait_until(lambda: process.poll() is not None or ready(), command[0])
        except NotReadyError as error:
            raise NotReadyError(f"{error}\n{end_of(log)}") from None
        if process.poll() is not None:
            raise NotReadyError(f"{command[0]} ended with {process.returncode}\n{end_of(log)}")
        yield process
    finally:
        _stop_group(process)


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the leader, then end whatever is left of its group."""
    process.terminate()
    try:
        process.wait(GONE_WITHIN)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(GONE_WITHIN)


def end_of(log: Path, characters: int = 2000) -> str:
    """The last words of a server."""
    return log.read_text(errors="replace")[-characters:]
