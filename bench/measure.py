"""Wall time and CPU of programs and of blocks of our own code, in the same units.

A `Measurement` says what was done, how often, how long it took and what it cost (user and system
time of the measured process, children included). `ratio` compares two of one run: ratios travel
from machine to machine, seconds do not.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Measurement:
    """`transactions` done in `wall` seconds, at `cpu` seconds of processor time."""

    name: str
    transactions: int
    wall: float
    cpu: float

    @property
    def rate(self) -> float:
        """Transactions a second."""
        return self.transactions / self.wall

    @property
    def cpu_each(self) -> float:
        """Milliseconds of processor time a transaction."""
        return self.cpu / self.transactions * 1000


def ratio(ours: Measurement, theirs: Measurement) -> float:
    """How many times the rate of `theirs` ours is."""
    return ours.rate / theirs.rate


def best_of(rounds: int, measure: Callable[[], Measurement]) -> Measurement:
    """The fastest of several rounds: what disturbs a round only ever makes it slower."""
    return min((measure() for _ in range(rounds)), key=lambda one: one.wall)


def measure_program(name: str, command: Sequence[str], transactions: int, timeout: float = 300) -> Measurement:
    """Run a program to its end; raises if it fails or needs more than `timeout` seconds."""
    with measured(name, transactions, _cpu_of_children) as watch:
        subprocess.run(command, check=True, timeout=timeout, stdin=subprocess.DEVNULL)
    return watch.result


class Stopwatch:
    """What `measured` hands out; `result` is there once the block is over."""

    result: Measurement


@contextlib.contextmanager
def measured(name: str, transactions: int, cpu: Callable[[], float] = time.process_time) -> Iterator[Stopwatch]:
    """Measure a block: `with measured("ours", 1000) as watch`. `cpu`: the seconds of processor time until now that
    count; if nothing is said, those of this process and all its threads."""
    watch, before, start = Stopwatch(), cpu(), time.perf_counter()
    yield watch
    watch.result = Measurement(name, transactions, time.perf_counter() - start, cpu() - before)


def print_table(measurements: Sequence[Measurement]) -> None:
    """One line each; the last column is the rate relative to the first line."""
    print(f"{'':32} {'count':>8} {'wall s':>8} {'per s':>9} {'cpu ms each':>12} {'x':>6}")
    for one in measurements:
        print(
            f"{one.name:32} {one.transactions:8} {one.wall:8.2f} {one.rate:9.0f}"
            f" {one.cpu_each:12.4f} {ratio(one, measurements[0]):6.2f}"
        )


def machine() -> str:
    """What the figures were made on."""
    return f"{os.cpu_count()} cores, Linux {os.uname().release}"


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
