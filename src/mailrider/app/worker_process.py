"""A worker as its supervisor sees it: a process, the link to it, and its log."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import mailrider
from mailrider.app.worker_link import WorkerLink
from mailrider.observe.log_relay import LogRelay, make_pipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mailrider.clock import Clock
    from mailrider.model.event import Emit

# `-P`: no module from where we were started, but our own package, wherever it was found: before others of its name, and
# what stands beside it after everything else. A process group of its own, since what a terminal sends is for the
# supervisor; but no session: to each of them the scheduler gives the same part of a busy machine (sched(7), autogroup).
_BEGIN: Final = (
    "import os, sys; os.setpgid(0, 0); "
    "sys.path.insert(0, sys.argv[1]); import mailrider; sys.path.append(sys.path.pop(0)); "
    "from mailrider.app.worker import main; sys.exit(main(sys.argv[2:]))"
)
PROGRAM: Final = (sys.executable, "-P", "-c", _BEGIN, str(Path(mailrider.__file__).absolute().parents[1]))
NOT_READY: Final = "it ended before it was ready"


async def run_program(
    *arguments: str, inherited: Sequence[int], environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Start the program of a worker. Raises `OSError`. (Tests put another in its place.)"""
    return await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, stdin=asyncio.subprocess.DEVNULL, pass_fds=inherited, env=environment
    )


@dataclass(frozen=True, slots=True)
class NotBegun:
    """Why a worker did not begin; `is_config`: because of its configuration."""

    reason: str
    is_config: bool = False


class WorkerProcess:
    """`number` is given to no other process, `worker` is its place, `generation` that of its configuration."""

    def __init__(self, number: int, worker: int, slot: int, generation: int, emit: Emit, started: float) -> None:
        self.number = number
        self.worker = worker
        self.slot = slot
        self.generation = generation
        self.link = WorkerLink(emit)
        self.started = started
        self.pid = 0
        self._process: asyncio.subprocess.Process | None = None
        self.is_expected_to_end = False
        self.is_told = False
        """True once it has been told what others know: from then on it hears what is new."""
        self.ready: asyncio.Future[NotBegun | None] = asyncio.get_running_loop().create_future()
        """None once it serves."""
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Its exit code, or the negative number of the signal that ended it; its last lines are in the log then."""

    @property
    def serves(self) -> bool:
        """True once it has begun."""
        return self.ready.done() and self.ready.result() is None

    def settle(self, failure: NotBegun | None) -> None:
        """The worker is ready, or it is not going to be."""
        if not self.ready.done():
            self.ready.set_result(failure)

    def finish(self) -> None:
        """Another serves its place."""
        self.is_expected_to_end = True
        self.link.send("finish")

    def look_into_dropped(self, queues: Sequence[tuple[str, Path]]) -> None:
        """Have it tell what waits in queues that its configuration has no more, by name and directory."""
        self.link.send("dropped_queues", [(name, str(location)) for name, location in queues])

    def look_into_unknown(self) -> None:
        """Have it tell what waits in queues of the state directory that its configuration has not."""
        self.link.send("unknown_queues")

    def stop(self) -> None:
        """Within its bounds."""
        self.is_expected_to_end = True
        self.kill(signal.SIGTERM)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal, if it still lives."""
        if self._process is not None and self._process.returncode is None:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                pass  # it was waited for a moment ago

    async def start(
        self,
        make_orders: Callable[[int], Mapping[str, Any]],
        inherited: Sequence[int],
        environment: Mapping[str, str],
        clock: Clock,
        write_log: Callable[[str], object],
        may_begin: Callable[[str], bool],
        tell_known: Callable[[], object],
    ) -> None:
        """Start the process. Raises `OSError`.

        `make_orders` is given the number of the log's descriptor, `may_begin` the version that the worker has.
        `tell_known` is called before the orders are sent.
        """
        ours, theirs = socket.socketpair()
        reads, writes = make_pipe()
        try:
            process = await run_program(
                str(theirs.fileno()), inherited=(theirs.fileno(), writes, *inherited), environment=environment
            )
        except BaseException:
            os.close(reads)
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(writes)
        orders = make_orders(writes)

        def greet(body: Any) -> None:
            if may_begin(body["version"]):
                tell_known()
                self.is_told = True
                self.link.send("start", orders)

        self._process, self.pid = process, process.pid
        self.link.on("hello", greet)
        self.ended = asyncio.create_task(self._wait(process, LogRelay(reads, clock, write_log)))
        await self.link.open(ours)

    async def _wait(self, process: asyncio.subprocess.Process, relay: LogRelay) -> int:
        code = await process.wait()
        await self.link.closed.wait()  # what it said last is heard
        relay.close()
        self.settle(NotBegun(NOT_READY))
        return code
