"""Run `mailrider` as a shell would: in this process where that is enough, in one of its own where it is not."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from mailrider.cli import main

if TYPE_CHECKING:
    from pathlib import Path

_QUEUE_ALONE = """\
hostname mx.example.org
state_dir {state}
runtime_dir {state}/run
log off
dns {{
    server 127.0.0.1:9
    timeout 100ms
    attempts 1
}}
target.remote out {{ }}
target.queue mail {{
    target &out
    {more}
}}
"""

PROGRAM = [sys.executable, "-c", "from mailrider.cli import main; main()"]


def queue_alone(state: Path, more: str = "") -> str:
    """A configuration with a queue, `mail`, and no endpoint; what is in it stays there, since no DNS answers."""
    return _QUEUE_ALONE.format(state=state, more=more)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines; fails if it is anything else."""
        return [json.loads(line) for line in self.out.splitlines()]


async def run(*arguments: str | Path, stdin: bytes = b"") -> Ran:
    """A command, in a thread of its own: the servers that it talks to live on the caller's event loop."""
    return await asyncio.to_thread(run_here, *arguments, stdin=stdin)


def run_here(*arguments: str | Path, stdin: bytes = b"") -> Ran:
    """A command, until it ends. `Console` and the log find the streams that stand in for the real ones."""
    given, out, err = (io.TextIOWrapper(io.BytesIO(octets), "utf-8") for octets in (stdin, b"", b""))
    code: object = 0
    with mock.patch.object(sys, "stdin", given), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([*map(str, arguments)])
        except SystemExit as exit_:
            code = exit_.code
    assert isinstance(code, int)
    return Ran(code, _written(out), _written(err))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


async def start(*arguments: str | Path, **streams: Any) -> asyncio.subprocess.Process:
    """A command in a process of its own."""
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE) | streams
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return await asyncio.create_subprocess_exec(*PROGRAM, *map(str, arguments), env=environment, **streams)
