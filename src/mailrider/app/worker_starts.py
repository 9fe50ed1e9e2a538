"""The processes of a supervisor, each from its start until it was waited for."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mailrider.app.listening import mail_addresses_of
from mailrider.app.supervision import lowest_free, worker_environment
from mailrider.app.worker_process import NotBegun, WorkerProcess
from mailrider.clock import after
from mailrider.errors import LocalError
from mailrider.net.accept_turns import SLOTS, Page
from mailrider.observe.log import is_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from mailrider.app.worker_talk import WorkerTalk
    from mailrider.clock import Clock
    from mailrider.config import Configuration
    from mailrider.config.snapshot import CarriedText
    from mailrider.endpoint.sockets import Sockets
    from mailrider.model.event import Emit

    Begin = Callable[[Coroutine[Any, Any, None]], object]

READY_WITHIN: Final = 60.0  # seconds in which a worker has to be ready
STDERR: Final = 2  # the number of standard error


@dataclass(slots=True)
class Generation:
    """A configuration that workers are started with; `text` is a descriptor of what they read, to be closed."""

    number: int
    configuration: Configuration
    workers: int
    text: int
    taken: frozenset[str]

    @classmethod
    def make(cls, number: int, configuration: Configuration, carried: CarriedText, workers: int) -> Generation:
        """A generation whose text is written down nowhere else."""
        text = os.memfd_create("mailrider configuration", os.MFD_CLOEXEC)
        os.write(text, carried.encode())
        return cls(number, configuration, workers, text, frozenset(carried.environment))


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What all workers of a supervisor have in common: they say that they live every `beat` seconds, and write their
    logs to `write_log`. `may_begin` is asked with the version that a worker has."""

    sockets: Sockets
    environment: Mapping[str, str]
    clock: Clock
    emit: Emit
    beat: float
    write_log: Callable[[str], object]
    may_begin: Callable[[str], bool]


class WorkerStarts:
    """Starts processes, and waits for their ends. `page` and `lock` are those that they inherit."""

    page: Page
    lock: int

    def __init__(self, context: WorkerContext, talk: WorkerTalk, ended: Callable[[WorkerProcess, int], None]) -> None:
        """`ended` is called with a worker that was waited for, and its exit code."""
        self._context = context
        self._talk = talk
        self._ended = ended
        self._all: dict[int, WorkerProcess] = {}
        self._numbers = 0

    @property
    def all(self) -> list[WorkerProcess]:
        """The processes that have not been waited for, the oldest first."""
        return list(self._all.values())

    def is_there(self, worker: WorkerProcess) -> bool:
        """False once it was waited for."""
        return worker.number in self._all

    async def start(self, place: int, generation: Generation, begin: Begin) -> WorkerProcess:
        """Start a process for a place; what waits for its end is given to `begin`. Raises `LocalError`."""
        context = self._context
        worker = self._add(place, generation)
        sockets = [each.fileno() for each in context.sockets.at(mail_addresses_of(generation.configuration))]
        self._talk.listen(worker)
        try:
            await worker.start(
                partial(self._orders, worker, generation, sockets),
                (generation.text, self.page.descriptor, self.lock, *sockets),
                worker_environment(context.environment, generation.taken),
                context.clock,
                context.write_log,
                context.may_begin,
                lambda: self._talk.tell_known(worker),
            )
        except OSError as error:
            del self._all[worker.number]
            raise LocalError(f"cannot start a worker: {error.strerror}") from error
        self._talk.came(worker)
        begin(self._tend(worker))
        return worker

    def _add(self, place: int, generation: Generation) -> WorkerProcess:
        slot = lowest_free({each.slot for each in self._all.values()}, SLOTS)
        if slot is None:
            raise LocalError(f"there are {SLOTS} workers already")
        self._numbers += 1
        context = self._context
        started = context.clock.monotonic()
        worker = WorkerProcess(self._numbers, place, slot, generation.number, context.emit, started)
        self._all[worker.number] = worker
        self.page.announce(1 + max(each.slot for each in self._all.values()))
        return worker

    def _orders(self, worker: WorkerProcess, generation: Generation, sockets: list[int], log: int) -> dict[str, Any]:
        """See `app.worker.Orders`."""
        settings = generation.configuration.globals
        return {
            "worker": worker.worker,
            "workers": generation.workers,
            "slot": worker.slot,
            "text": generation.text,
            "page": self.page.descriptor,
            "lock": self.lock,
            "log": log,
            "sockets": sockets,
            "beat": self._context.beat,
            "style": settings.log.format.value,
            "debug": settings.debug,
            "journal": settings.log.path is None and is_journal(self._context.environment, STDERR),
            "proven": self._talk.is_proven,
        }

    async def _tend(self, worker: WorkerProcess) -> None:
        """Wait for its end, and clear up behind it."""
        code = await worker.ended
        del self._all[worker.number]
        self.page.clear(worker.slot)
        self._talk.gone(worker)
        self._ended(worker, code)

    async def wait_until_ready(self, worker: WorkerProcess) -> NotBegun | None:
        """What keeps a worker from serving; then it is killed."""
        try:
            async with after(self._context.clock, READY_WITHIN):
                failure = await asyncio.shield(worker.ready)
        except TimeoutError:
            failure = NotBegun(f"it was not ready within {READY_WITHIN:.0f} seconds")
        if failure is not None:
            worker.is_expected_to_end = True
            worker.kill()
        return failure
