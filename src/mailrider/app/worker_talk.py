"""What workers tell their supervisor, and what it tells them: that they live, counters, passwords, what they share."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

from mailrider.app.login_findings import LoginFindings
from mailrider.app.share_service import ShareService
from mailrider.app.supervision import SilenceWatch
from mailrider.app.worker_process import NotBegun
from mailrider.observe.metric_sums import MetricSums, decode_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.app.worker_process import WorkerProcess
    from mailrider.clock import Clock
    from mailrider.observe.metrics import Metrics

BEGINS_WITHIN: Final = 30.0  # seconds that the interpreter may take before a worker says anything


class WorkerTalk:
    """Talks with all workers. `sums` are the counters of all, the dead ones' as well."""

    def __init__(self, metrics: Metrics, clock: Clock, silence: float, label: Callable[[int], str | None]) -> None:
        """`metrics` are those of the supervisor, `silence` the seconds after which somebody says nothing, `label` what
        a worker is called beside its counters."""
        self.sums = MetricSums(metrics)
        self.sums.label_with(label)
        self.is_proven = False
        """Validation of DNSSEC has worked in a worker: bad servers do not turn it off in one that starts later."""
        self._clock = clock
        self._shares = ShareService(clock)
        self._silence = SilenceWatch(silence, clock.monotonic())
        self._logins = LoginFindings()
        self._workers: dict[int, WorkerProcess] = {}
        self._looks = itertools.count(1)
        self._awaited: dict[tuple[int, int], asyncio.Event] = {}  # answers, by worker and look

    def listen(self, worker: WorkerProcess) -> None:
        """A process is about to be started."""
        link, number = worker.link, worker.number
        link.on("beat", lambda _: self._silence.hear(number, self._clock.monotonic()))
        link.on("ready", lambda _: worker.settle(None))
        link.on("failed", lambda body: worker.settle(NotBegun(body["reason"], body["is_config"])))
        link.on("counted", lambda body: self._take_counters(worker, *body))
        link.on("login", lambda body: self._note_login(worker, body))
        link.on("proven", lambda _: self._note_proven())
        link.on_other = lambda kind, body: self._shares.received(number, kind, body)

    def came(self, worker: WorkerProcess) -> None:
        """A worker was started."""
        self._workers[worker.number] = worker
        self._silence.hear(worker.number, self._clock.monotonic() + BEGINS_WITHIN)
        self._shares.worker_came(worker.number, worker.link, worker.generation)

    def gone(self, worker: WorkerProcess) -> None:
        """A worker has ended, and was waited for."""
        self._workers.pop(worker.number, None)
        self._silence.forget(worker.number)
        self.sums.end(worker.number)
        self._shares.worker_gone(worker.number)
        for look in [look for number, look in self._awaited if number == worker.number]:
            self._awaited[worker.number, look].set()

    def take_silent(self) -> list[WorkerProcess]:
        """The workers that have been silent for too long; each is named once."""
        silent = self._silence.look(self._clock.monotonic())
        for number in silent:
            self._silence.forget(number)
        return [self._workers[number] for number in silent if number in self._workers]

    # What is known ----------------------------------------------------------------------------------------------------

    def put_in_force(self, generation: int) -> None:
        """What workers of earlier configurations could not reach, those of this one try."""
        self._shares.put_in_force(generation)

    def tell_known(self, worker: WorkerProcess) -> None:
        """What others know of passwords; before its orders."""
        for findings in self._logins.frames(self._clock.monotonic()):
            worker.link.send("logins", findings)

    def _note_login(self, worker: WorkerProcess, body: Any) -> None:
        """Tell the other workers now, and those that start later before they accept."""
        self._logins.note(body, self._clock.monotonic())
        for each in self._workers.values():
            if each is not worker and each.is_told:
                each.link.send("login", body)

    def _note_proven(self) -> None:
        self.is_proven = True

    # Counters ---------------------------------------------------------------------------------------------------------

    def _take_counters(self, worker: WorkerProcess, look: int | None, text: str) -> None:
        """`look`: the one that this answers. An answer to an earlier question may be older than what is asked for."""
        self.sums.show(worker.number, decode_metrics(text))
        if look is not None and (answered := self._awaited.get((worker.number, look))) is not None:
            answered.set()

    def ask_for_counters(self) -> None:
        """Ask all workers for their counters, so that those of one that dies are known."""
        for each in self._workers.values():
            if each.serves:
                each.link.send("metrics")

    async def refresh(self) -> None:
        """Have every worker look into its queues and tell its counters, and wait for them."""
        look = next(self._looks)
        asked = [each for each in self._workers.values() if each.serves]
        answers = {(each.number, look): asyncio.Event() for each in asked}
        self._awaited |= answers
        try:
            for each in asked:
                each.link.send("metrics", look)
            await asyncio.gather(*(answered.wait() for answered in answers.values()))
        finally:
            for key in answers:
                del self._awaited[key]
