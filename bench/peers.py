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
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.measure import Measurement, best_of, machine, measure_program, print_table
from tests.peers.process import accepts, running

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
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
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    account = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [find_program("smtp-sink"), *account, *options, f"inet:{HOST}:{port}", "1000"]
    with tempfile.NamedTemporaryFile(prefix="mailrider-bench-") as log:
        with running(command, log=Path(log.name), ready=lambda: accepts(HOST, port)) as process:
            yield Sink(port, psutil.Process(process.pid))


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


def load_options(program: str, usual: Load, rounds: int = 3) -> argparse.ArgumentParser:
    """A parser for what makes a load, with these defaults."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--sessions", type=int, default=usual.sessions)
    parser.add_argument("--messages", type=int, default=usual.messages)
    parser.add_argument("--size", type=int, default=usual.size, help="payload octets")
    parser.add_argument("--rounds", type=int, default=rounds, help="the fastest one counts")
    return parser


def compare(load: Load, rounds: int) -> None:
    """Measure smtp-source with kept and with new connections, and print both."""
    with smtp_sink() as sink:
        results = [best_of(rounds, partial(run_smtp_source, sink, replace(load, kept=kept))) for kept in (True, False)]
        print(f"{machine()}; {load.size} bytes; smtp-sink used {sink.cpu():.2f} s of CPU")
        print_table(results)


def main() -> None:
    options = load_options("bench.peers", Load()).parse_args()
    compare(Load(options.sessions, options.messages, options.size), options.rounds)


if __name__ == "__main__":
    main()
