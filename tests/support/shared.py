"""A supervisor's shares and workers that use them, in one event loop and without sockets."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from mailrider.app.share_service import ShareService
from mailrider.delivery.limits.share_client import ShareClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.clock import Clock


class MemoryWire:
    """One end of a link: what is sent arrives in the next turn of the loop, in JSON; or waits while it is `stopped`."""

    def __init__(self) -> None:
        self.arrives: Callable[[str, Any], None] = lambda kind, body: None
        self.stopped = False
        self.frames = 0
        self._held: list[tuple[str, str]] = []
        self._handlers: dict[str, Callable[[Any], None]] = {}

    def on(self, kind: str, handler: Callable[[Any], None]) -> None:
        """See `WorkerLink`."""
        self._handlers[kind] = handler

    def send(self, kind: str, body: Any = None) -> None:
        """See `WorkerLink`."""
        self.frames += 1
        self._held.append((kind, json.dumps(body)))
        asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        if not self.stopped:
            held, self._held = self._held, []
            for kind, body in held:
                self.arrives(kind, json.loads(body))

    def go_on(self) -> None:
        """What waited arrives."""
        self.stopped = False
        self._deliver()

    def hear(self, kind: str, body: Any) -> None:
        """Something from the other end."""
        self._handlers[kind](body)


class SharedWorker:
    """A worker's client and the two directions of its link."""

    def __init__(self, supervisor: SharedSupervisor, number: int, generation: int) -> None:
        self.number = number
        self.to_worker, self.to_supervisor = MemoryWire(), MemoryWire()
        self.to_supervisor.arrives = lambda kind, body: supervisor.service.received(number, kind, body)
        self.client = ShareClient(self.to_supervisor, supervisor.clock, supervisor.workers)
        self.to_worker.arrives = self.to_supervisor.hear
        supervisor.service.worker_came(number, self.to_worker, generation)  # type: ignore[arg-type] # a stand-in


class SharedSupervisor:
    """The service, and its workers."""

    def __init__(self, clock: Clock, workers: int = 2) -> None:
        self.clock = clock
        self.workers = workers
        self.service = ShareService(clock)
        self.service.put_in_force(1)
        self.numbers = 0
        self.all = [self.start() for _ in range(workers)]

    def start(self, generation: int = 1) -> SharedWorker:
        """One more."""
        self.numbers += 1
        return SharedWorker(self, self.numbers, generation)

    def end(self, worker: SharedWorker) -> None:
        """Its process was waited for."""
        self.service.worker_gone(worker.number)
