"""Run a scenario on each event loop that we support, and see that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


SOON = 200  # times that it is looked often, since most things happen at once


async def eventually(fact: Callable[[], object]) -> None:
    """Wait until `fact()` holds; for what the kernel, or another process, does in its own time."""
    for number in range(25_000):  # four minutes: on a loaded machine a process needs many seconds to start
        if fact():
            return
        await asyncio.sleep(0.001 if number < SOON else 0.01)
    raise AssertionError("it never happened")


def state_of(pid: int) -> str:
    """Of a process, as /proc tells it: T is stopped (some time after it was told to), X is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter: it ended between the opening and the reading
        return "X"


def open_sockets() -> set[str]:
    """The sockets of this process; other descriptors come and go (libuv keeps a spare one)."""
    folder = Path("/proc/self/fd")
    links = []
    for name in os.listdir(folder):
        try:
            links.append(os.readlink(folder / name))
        except FileNotFoundError:  # the one that lists
            pass
    return {link for link in links if link.startswith("socket:")}


def run_clean(loop: str, scenario: Coroutine[Any, Any, None]) -> None:
    """Run `scenario`; fails if a socket, a task or an unhandled error is left of it."""
    unhandled: list[dict[str, Any]] = []

    async def counted() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        before = open_sockets()
        await scenario
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left"
        assert open_sockets() <= before, "sockets are left"  # what others have left may be closed meanwhile

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(counted())
    assert unhandled == []
