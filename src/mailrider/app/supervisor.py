"""The supervisor: starts workers, keeps them alive, and replaces them. It carries no mail, nor imports what does.

It reads the configuration once for all, binds the listening sockets, and starts `workers` processes that inherit what
they need (`app.worker`). What always holds:

- nothing begins while a worker of an earlier supervisor lives: a lock that all of them inherit says so;
- a worker that ends by itself is started again, with the configuration that is in force, after a delay that grows;
- a worker whose event loop stands still is killed;
- a reload replaces one worker after the other, each beside its predecessor, which ends what it has begun; if the first
  of them does not come to serve, nothing has changed;
- the supervisor ends after its workers, and they end if it does not live any more.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from mailrider.app.cores import count_workers, count_workers_again, usable_cores
from mailrider.app.file_limit import allow_files
from mailrider.app.listening import addresses_of, bind, has_work, name_of
from mailrider.app.metrics_endpoint import MetricsEndpoint
from mailrider.app.notify import Notifier, watchdog_interval
from mailrider.app.signals import obeyed
from mailrider.app.supervision import WorkerPlaces, too_many
from mailrider.app.timers import Timers
from mailrider.app.worker_lock import is_told_to_stop, take_lock
from mailrider.app.worker_process import NotBegun, WorkerProcess
from mailrider.app.worker_starts import Generation, WorkerContext, WorkerStarts
from mailrider.app.worker_talk import WorkerTalk
from mailrider.clock import SystemClock
from mailrider.config import dropped_queues
from mailrider.endpoint.sockets import Sockets, inherited_sockets
from mailrider.errors import ConfigError, LocalError, MailriderError, in_one_line
from mailrider.model.daemon_event import (
    DaemonReady,
    DaemonStopping,
    LogNotReopened,
    Reloaded,
    ReloadRefused,
    RunningAsRoot,
    SocketUnused,
    VersionChanged,
    WorkerDied,
    WorkerFailed,
    WorkerHangs,
    WorkerReady,
)
from mailrider.model.event import Bug
from mailrider.net.accept_turns import Page
from mailrider.observe.metrics import FanOut, Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from mailrider.clock import Clock
    from mailrider.config import Configuration
    from mailrider.config.snapshot import CarriedText
    from mailrider.model.event import Emit

SILENCE: Final = 30.0  # seconds after which a worker that says nothing is killed
STOP_WITHIN: Final = 75.0  # seconds that workers have to end; the service manager waits 90
BEATS: Final = 6  # that a worker sends within the time after which it would be killed
COUNTED_EVERY: Final = 15.0  # seconds between two looks at the counters, so that a dead worker's are known

_CLOCK: Final = SystemClock()


class Supervisor:
    """Runs until it is told to stop. `load` reads the configuration, again for each reload."""

    def __init__(
        self,
        load: Callable[[], tuple[Configuration, CarriedText]],
        emit: Emit,
        write_log: Callable[[str], object],
        *,
        environment: Mapping[str, str] = os.environ,
        clock: Clock = _CLOCK,
        lost_lines: Callable[[], int] | None = None,
        reopen_log: Callable[[], None] = lambda: None,
        change_log: Callable[[Configuration], None] = lambda _: None,
        silence: float = SILENCE,
        cores: Callable[[], int] = usable_cores,
    ) -> None:
        """`write_log` takes lines of workers. `change_log`: to what a new configuration wants; it may raise
        `LocalError`."""
        self._load = load
        self._reopen_log = reopen_log
        self._change_log = change_log
        metrics = Metrics()
        if lost_lines is not None:
            metrics.show_lost_lines(lost_lines)
        self._listeners = FanOut(emit, metrics)
        self._emit = self._listeners.emit
        self._clock = clock
        self._silence = silence
        self._cores = cores
        self._version = version("mailrider")
        self._code = os.EX_OK
        self._notifier = Notifier(environment)
        self._alive_every = watchdog_interval(environment, os.getpid())
        self._sockets = Sockets(inherited_sockets(environment, os.getpid()))
        self._told: asyncio.Queue[signal.Signals | None] = asyncio.Queue()  # None: everything is open, or cannot be
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers = Timers(clock)
        self._places = WorkerPlaces[WorkerProcess]()
        self._talk = WorkerTalk(metrics, clock, silence, self._places.label)
        beat, accept = silence / BEATS, self._accept_version
        context = WorkerContext(self._sockets, environment, clock, self._emit, beat, write_log, accept)
        self._workers = WorkerStarts(context, self._talk, self._ended)
        self._metrics = MetricsEndpoint(self._talk, clock, self._sockets)
        self._generations = itertools.count(1)
        self._is_stopping = False
        self._descriptors = ExitStack()  # those that workers inherit
        self._force: Generation

    @property
    def workers(self) -> list[WorkerProcess]:
        """The workers that serve, by place."""
        return self._places.serving

    async def run(self, configuration: Configuration, carried: CarriedText) -> int:
        """Until SIGTERM or SIGINT; the exit code. Raises `ConfigError` and `LocalError` if it cannot begin."""
        allow_files()
        page = self._workers.page = Page.create()
        self._descriptors.callback(page.close)
        with obeyed(self._told.put_nowait):
            try:
                if os.geteuid() == 0:
                    self._emit(RunningAsRoot())
                state_dir = configuration.globals.state_dir
                gives_up = partial(is_told_to_stop, self._told, self._emit)
                lock = await take_lock(state_dir, self._clock, self._emit, gives_up)
                if lock is not None:
                    self._workers.lock = lock
                    self._descriptors.callback(os.close, lock)
                    self._timers.repeat("watchdog", self._alive_every, self._notifier.say_alive)
                    self._timers.repeat("silence", self._silence / BEATS, self._look_for_silence)
                    self._timers.repeat("counters", COUNTED_EVERY, self._talk.ask_for_counters)
                    await self._serve(configuration, carried)
            finally:
                self._notifier.say("STOPPING=1")
                await self._stop()
        return self._code

    # The beginning ---------------------------------------------------------------------------------------------------

    async def _open(self, configuration: Configuration, carried: CarriedText, one_at_a_time: asyncio.Lock) -> None:
        async with one_at_a_time:
            has_work(configuration)
            bind(configuration, self._sockets)
            workers = count_workers(configuration, self._cores)
            self._put_in_force(Generation.make(next(self._generations), configuration, carried, workers))
            self._descriptors.callback(lambda: os.close(self._force.text))
            await self._metrics.open(configuration)
            for unused in self._sockets.keep_only(addresses_of(configuration)):
                self._emit(SocketUnused(unused))
            await self._start_all(self._force)
            if self._is_stopping:
                return
            self._emit(DaemonReady(name_of(configuration), len(configuration.endpoints)))
            self._tell_ready()
            for worker in self.workers[:1]:
                worker.look_into_unknown()

    async def _start_all(self, generation: Generation) -> None:
        """Have a process for every place. Raises if there is none that serves, or the configuration is not right."""
        begun = [await self._launch(place, generation) for place in range(generation.workers)]
        failures = await asyncio.gather(*map(self._workers.wait_until_ready, begun))
        for fault in filter(None, failures):
            if fault.is_config or None not in failures:
                raise (ConfigError if fault.is_config else LocalError)(fault.reason)
        for worker, failure in zip(begun, failures, strict=True):
            if failure is None:
                self._put_in_service(worker)
            else:
                self._give_up(worker.worker, failure)

    def _put_in_force(self, generation: Generation) -> None:
        self._force = generation
        self._places.put_in_force(generation.number, generation.workers)
        self._talk.put_in_force(generation.number)

    def _tell_ready(self) -> None:
        self._notifier.say("READY=1", f"STATUS=workers: {self._force.workers}")

    # Workers ---------------------------------------------------------------------------------------------------------

    async def _launch(self, place: int, generation: Generation) -> WorkerProcess:
        """Start a process for a place. Raises `LocalError`."""
        worker = await self._workers.start(place, generation, self._begin)
        if self._is_stopping:
            worker.stop()
        return worker

    def _accept_version(self, installed: str) -> bool:
        """False if the program was upgraded beneath us: then all of it begins anew."""
        if installed == self._version:
            return True
        if not self._code:
            self._emit(VersionChanged(self._version, installed))
            self._code = os.EX_TEMPFAIL
            self._told.put_nowait(signal.SIGTERM)
        return False

    def _ended(self, worker: WorkerProcess, code: int) -> None:
        """A worker has ended, and was waited for."""
        if self._places.end(worker):
            self._replace_dead(worker, code)

    def _replace_dead(self, worker: WorkerProcess, code: int) -> None:
        if not self._is_stopping:
            lived = self._clock.monotonic() - worker.started
            self._start_again(worker.worker, lived, lambda delay: WorkerDied(worker.worker, worker.pid, code, delay))

    def _start_again(self, place: int, lived: float, event: Callable[[float], Any]) -> None:
        """Start a process for a place after a delay that grows with every failure; `event` tells of it."""
        delay = self._places.delay(place, lived)
        if delay is None:
            return
        self._emit(event(delay))
        self._timers.at(f"place {place}", delay, lambda: self._begin(self._fill(place)))

    def _give_up(self, place: int, failure: NotBegun) -> None:
        """A place has no worker for now; another one is started later."""
        if not self._is_stopping:
            reason = in_one_line(failure.reason)
            self._start_again(place, 0.0, lambda delay: WorkerFailed(place, reason, delay))

    async def _fill(self, place: int) -> None:
        """Have a process of the configuration in force serve a place; its predecessor finishes then."""
        generation = self._force
        if self._is_stopping or not self._places.begin(place):
            return
        try:
            failure = await self._try_to_fill(place, generation)
        finally:
            self._places.begun(place)
        if failure is not None:
            self._give_up(place, failure)
        elif generation is not self._force:
            await self._fill(place)  # there was a reload meanwhile

    async def _try_to_fill(self, place: int, generation: Generation) -> NotBegun | None:
        try:
            worker = await self._launch(place, generation)
        except LocalError as error:
            return NotBegun(str(error))
        failure = await self._workers.wait_until_ready(worker)
        if failure is None:
            self._put_in_service(worker)
        return failure

    def _put_in_service(self, worker: WorkerProcess) -> None:
        """The worker serves its place from now on, unless there was a reload while it began."""
        if not self._workers.is_there(worker):  # it has died since
            self._replace_dead(worker, worker.ended.result())
            return
        finishes = self._places.put_in_service(worker)
        if finishes is not worker:
            self._emit(WorkerReady(worker.worker, worker.pid, worker.generation))
        if finishes is not None:
            self._let_finish(finishes)

    def _let_finish(self, worker: WorkerProcess) -> None:
        """Another serves its place, or nobody is to. Of too many that finish, the oldest has to stop."""
        worker.finish()
        finishing = [each for each in self._workers.all if each.is_expected_to_end and each.serves]
        for oldest in too_many(finishing, self._force.workers):
            oldest.stop()

    # Now and then ----------------------------------------------------------------------------------------------------

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended_work)

    def _ended_work(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._emit(Bug("supervisor", error))

    def _ended_opening(self, task: asyncio.Task[None]) -> None:
        """What it raised is for `_serve`; during a stop nobody asks for it, and nothing is to complain of that."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    def _look_for_silence(self) -> None:
        for worker in self._talk.take_silent():
            self._emit(WorkerHangs(worker.worker, worker.pid, self._silence))
            worker.kill()

    # Signals ---------------------------------------------------------------------------------------------------------

    async def _serve(self, configuration: Configuration, carried: CarriedText) -> None:
        """Open everything, and do what signals say meanwhile and from then on. Raises if it cannot be opened."""
        one_at_a_time = asyncio.Lock()
        opening = asyncio.create_task(self._open(configuration, carried, one_at_a_time))
        opening.add_done_callback(lambda _: self._told.put_nowait(None))
        self._tasks.add(opening)
        opening.add_done_callback(self._ended_opening)
        try:
            while True:
                caught = await self._told.get()
                if caught is None:
                    opening.result()
                elif caught is signal.SIGHUP:
                    self._reopen_log()
                    self._begin(self._reload(one_at_a_time))
                else:
                    self._emit(DaemonStopping(caught.name))
                    return
        finally:
            self._is_stopping = True

    async def _reload(self, one_at_a_time: asyncio.Lock) -> None:
        async with one_at_a_time:
            if self._is_stopping:
                return
            self._notifier.say("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}")
            try:
                await self._replace()
            except Exception as error:
                if not self._is_stopping:
                    self._refuse(error)
            if not self._is_stopping:
                self._tell_ready()

    def _refuse(self, error: Exception) -> None:
        """What was in force stays."""
        if not isinstance(error, MailriderError | OSError):
            self._emit(Bug("reload", error))
        self._sockets.go_back(addresses_of(self._force.configuration))
        self._emit(ReloadRefused(in_one_line(error)))

    async def _replace(self) -> None:
        """Put a new configuration in force. Raises, and nothing has changed. A stop that comes meanwhile ends it."""
        configuration, carried = self._load()
        has_work(configuration)
        old = self._force
        workers = count_workers_again(configuration, old.configuration, old.workers, self._cores)
        bind(configuration, self._sockets)
        if configuration.globals.openmetrics is not None:
            self._sockets.bind(configuration.globals.openmetrics)
        new = Generation.make(next(self._generations), configuration, carried, workers)
        try:
            worker = await self._launch(0, new)
            failure = await self._workers.wait_until_ready(worker)
            if failure is not None:
                raise (ConfigError if failure.is_config else LocalError)(failure.reason)
            try:
                await self._metrics.open(configuration)
            except BaseException:
                worker.stop()
                raise
        except BaseException:
            os.close(new.text)
            raise
        self._put_in_force(new)
        os.close(old.text)
        self._put_in_service(worker)
        for place in range(1, workers):
            await self._fill(place)
        for each in self._places.clear_surplus():
            self._let_finish(each)
        if self._is_stopping:
            return
        self._sockets.keep_only(addresses_of(configuration))
        try:
            self._change_log(configuration)
        except LocalError as error:
            self._emit(LogNotReopened(str(error)))
        self._listeners.ask_again()
        self._emit(Reloaded(name_of(configuration), len(configuration.endpoints)))
        if dropped := dropped_queues(old.configuration, configuration):
            worker.look_into_dropped(dropped)

    # The end ---------------------------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        self._timers.cancel()
        self._timers.repeat("watchdog", self._alive_every, self._notifier.say_alive)
        for each in self._workers.all:
            each.stop()
        # Each worker has a task that waits for its end.
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_WITHIN)
        for each in self._workers.all:
            each.kill()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._metrics.close()
        self._timers.cancel()
        self._sockets.close()
        self._descriptors.close()
