"""What an ask of a worker costs: to its supervisor and back, over a socketpair, in CPU of both and in time.

    python -m bench.shares
    python -m bench.shares --asks 20000

`alone`: one ask after the other, each for one key. `in tens`: ten at once, which go in one frame. `ahead`: a key of
which there is something ahead. What was granted is given back each time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import time
from typing import TYPE_CHECKING

import uvloop

from mailrider.app.share_service import ShareService
from mailrider.app.worker_link import WorkerLink
from mailrider.clock import SystemClock
from mailrider.delivery.limits.lines import Line
from mailrider.delivery.limits.share_client import ShareClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LINES = (Line("alone", 1_000_000, spares=False), Line("ahead", 1_000_000))


async def _supervise(ends: list[socket.socket]) -> None:
    service = ShareService()
    links = []
    for number, end in enumerate(ends):
        link = WorkerLink()
        link.on_other = lambda kind, body, number=number: service.received(number, kind, body)
        await link.open(end)
        service.worker_came(number, link, 1)
        links.append(link)
    await links[0].closed.wait()


def _cpu(pid: int) -> float:
    """Seconds of a process so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _measure(end: socket.socket, supervisor: int, asks: int) -> None:
    link = WorkerLink()
    client = ShareClient(link, SystemClock(), 2)
    await link.open(end)
    for line in LINES:
        client.declare(line)

    async def one(line: str, number: int) -> None:
        needs = ((line, f"key {number % 1000}"),)
        await client.enter(needs)
        client.leave(needs)

    async def alone() -> None:
        for number in range(asks):
            await one("alone", number)

    async def in_tens() -> None:
        for number in range(0, asks, 10):
            await asyncio.gather(*(one("alone", number + each) for each in range(10)))

    async def ahead() -> None:
        for _ in range(asks):
            await one("ahead", 0)

    async def measured(name: str, work: Callable[[], Awaitable[None]]) -> None:
        began, own, its = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF), _cpu(supervisor)
        await work()
        took, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        here = used.ru_utime + used.ru_stime - own.ru_utime - own.ru_stime
        there = _cpu(supervisor) - its
        spent = ", ".join(
            f"{what} {seconds / asks * 1e6:.1f}"
            for what, seconds in (("worker", here), ("supervisor", there), ("until answered", took))
        )
        print(f"{name:8} us an ask: {spent}")

    await measured("alone", alone)
    await measured("in tens", in_tens)
    await measured("ahead", ahead)
    link.close()


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asks", type=int, default=10_000)
    asks = parser.parse_args().asks
    pairs = [socket.socketpair() for _ in range(2)]
    supervisor = os.fork()
    if not supervisor:
        for _, theirs in pairs:
            theirs.close()
        asyncio.run(_supervise([ours for ours, _ in pairs]))
        os._exit(0)
    for ours, _ in pairs:
        ours.close()
    uvloop.run(_measure(pairs[0][1], supervisor, asks))
    os.waitpid(supervisor, 0)


if __name__ == "__main__":
    main()
