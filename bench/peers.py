"""Debian's smtp-source against Debian's smtp-sink: what two C programs make of this machine.

    python -m bench.peers                          # 20 sessions, kept and not kept
    python -m bench.peers --sessions 50 --messages 20000 --size 4096

Others import `smtp_sink` and `run_smtp_source`, so that ours and theirs are measured in one run
against one server. smtp-sink knows PIPELINING and 8BITMIME, but neither TLS nor CHUNKING.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import psutil

from bench.measure import Measurement, best_of, machine, measure_program, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
_READY_WITHIN = 10.0  # seconds
_SBIN = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: so many messages of so many payload bytes, over so many sessions at a time.

    `kept`: a session goes on to the next message; else each message has a connection of its own.
    """

    sessions: int = 20
    messages: int = 10_000
    size: int = 1024
    kept: bool = True


@dataclass(frozen=True, slots=True)
class Sink:
    """A running smtp-sink."""

    port: int
    process: psutil.Process

    def cpu(self) -> float:
        """Seconds of processor time it has used until now."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


class MissingError(SystemExit):
    """Something that a bench needs is not there, which ends it; the text says what, and where it comes from."""


@contextlib.contextmanager
def smtp_sink(*options: str) -> Iterator[Sink]:
    """An smtp-sink on a free port of loopback while the block lasts."""
    port = _free_port()
    account = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [find_program("smtp-sink"), *account, *options, f"inet:{HOST}:{port}", "1000"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process)
            yield Sink(port, psutil.Process(process.pid))
        finally:
            process.terminate()


def run_smtp_source(sink: Sink, load: Load) -> Measurement:
    """One round of smtp-source."""
    keep = ["-d"] if load.kept else []
    command = [find_program("smtp-source"), *keep]
    command += ["-s", str(load.sessions), "-m", str(load.messages), "-l", str(load.size)]
    command += ["-f", "a@example.org", "-t", "b@example.net", f"inet:{HOST}:{sink.port}"]
    return measure_program(_name("smtp-source", load), command, load.messages)


def _name(program: str, load: Load) -> str:
    return f"{program}, {load.sessions} {'kept' if load.kept else 'new'} connections"


def find_program(program: str) -> str:
    """Where a program of Debian's postfix package is. Raises `MissingError`."""
    path = shutil.which(program, path=_SBIN)
    if path is None:
        raise MissingError(f"{program} is not here; on Debian it comes with postfix")
    return path


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _READY_WITHIN
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("smtp-sink does not answer") from None
            time.sleep(0.01)


def compare(load: Load, rounds: int) -> None:
    """Measure smtp-source with kept and with new connections, and print both."""
    with smtp_sink() as sink:
        results = [best_of(rounds, partial(run_smtp_source, sink, replace(load, kept=kept))) for kept in (True, False)]
        print(f"{machine()}; {load.size} bytes; smtp-sink used {sink.cpu():.2f} s of CPU")
        print_table(results)


def main() -> None:
    usual = Load()
    parser = argparse.ArgumentParser(prog="python -m bench.peers")
    parser.add_argument("--sessions", type=int, default=usual.sessions)
    parser.add_argument("--messages", type=int, default=usual.messages)
    parser.add_argument("--size", type=int, default=usual.size, help="payload bytes")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest one counts")
    options = parser.parse_args()
    compare(Load(options.sessions, options.messages, options.size), options.rounds)


if __name__ == "__main__":
    main()
