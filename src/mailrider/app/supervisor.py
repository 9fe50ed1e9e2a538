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
import os
import signal
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Protocol

from mailrider.app.cores import count_workers, count_workers_again, usable_cores
from mailrider.app.earlier_workers import is_told_to_stop, take_lock
from mailrider.app.file_limit import allow_files
from mailrider.app.listening import addresses_of, bind, has_work, host_names, mail_addresses_of, name_of
from mailrider.app.login_book import LoginBook
from mailrider.app.notify import Notifier, watchdog_interval
from mailrider.app.share_service import ShareService
from mailrider.app.supervision import SilenceWatch, lowest_free, next_delay, worker_environment
from mailrider.app.timers import Timers
from mailrider.app.worker_process import NotBegun, WorkerProcess
from mailrider.clock import SystemClock, after
from mailrider.endpoint.sockets import Sockets, inherited_sockets
from mailrider.errors import ConfigError, LocalError, MailriderError
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
from mailrider.net.turns import SLOTS, Page
from mailrider.observe.log import is_journal
from mailrider.observe.metrics import FanOut, Metrics
from mailrider.observe.sums import Sums, decode_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from mailrider.app.link import Link
    from mailrider.clock import Clock
    from mailrider.config import Configuration
    from mailrider.config.carried import CarriedText
    from mailrider.model.event import Emit

SILENCE: Final = 30.0  # seconds after which a worker that says nothing is killed
BEGINS_WITHIN: Final = 30.0  # seconds that the interpreter may take before a worker says anything
READY_WITHIN: Final = 60.0  # seconds in which a worker has to be ready
STOP_WITHIN: Final = 75.0  # seconds that workers have to end; the service manager waits 90
BEATS: Final = 6  # that a worker sends within the time after which it would be killed
COUNTED_EVERY: Final = 15.0  # seconds between two looks at the counters, so that a dead worker's are known
MAX_FINISHING: Final = 8  # earlier workers of one place that may still be at work
STDERR: Final = 2  # the number of standard error

_CLOCK: Final = SystemClock()


class WorkerService(Protocol):
    """Something that workers ask of their supervisor, in frames whose kinds begin with `prefix`."""

    prefix: str

    def worker_came(self, number: int, link: Link) -> None:
        """A process has been started; it may ask from now on."""

    def worker_gone(self, number: int) -> None:
        """It has ended, and was waited for."""

    def received(self, number: int, kind: str, body: Any) -> None:
        """It has sent something."""


@dataclass(slots=True)
class _Generation:
    """A configuration that workers are started with; `text` is a descriptor of what they read."""

    number: int
    configuration: Configuration
    workers: int
    text: int
    taken: frozenset[str]


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
        services: Sequence[WorkerService] = (),
        silence: float = SILENCE,
        cores: Callable[[], int] = usable_cores,
    ) -> None:
        """`write_log` takes lines of workers. `change_log`: to what a new configuration wants; it may raise
        `LocalError`."""
        self._load = load
        self._write_log = write_log
        self._reopen_log = reopen_log
        self._change_log = change_log
        metrics = Metrics()
        if lost_lines is not None:
            metrics.show_lost_lines(lost_lines)
        self._listeners = FanOut(emit, metrics)
        self._emit = self._listeners.emit
        self._sums = Sums(metrics)
        self._sums.label_with(self._label)
        self._environment = environment
        self._clock = clock
        self._services = {each.prefix: each for each in (ShareService(clock), *services)}
        self._bound = silence
        self._silence = SilenceWatch(silence, clock.monotonic())
        self._cores = cores
        self._logins = LoginBook()
        self._is_proven = False  # validation of DNSSEC has worked in a worker
        self._version = version("mailrider")
        self._notifier = Notifier(environment)
        self._sockets = Sockets(inherited_sockets(environment, os.getpid()))
        self._told: asyncio.Queue[signal.Signals | None] = asyncio.Queue()  # None: everything is open, or cannot be
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers = Timers(clock)
        self._workers: dict[int, WorkerProcess] = {}  # every process that has not been waited for, by number
        self._serving: dict[int, WorkerProcess] = {}  # by place
        self._delays: dict[int, float] = {}  # by place
        self._filling: set[int] = set()  # places for which a process begins
        self._numbers = 0
        self._generations = 0
        self._doors = AsyncExitStack()
        self._is_stopping = False
        self._code = os.EX_OK
        self._descriptors = ExitStack()  # those that workers inherit
        self._page: Page
        self._lock: int
        self._force: _Generation

    @property
    def workers(self) -> list[WorkerProcess]:
        """Those that serve, by place."""
        return [self._serving[place] for place in sorted(self._serving)]

    async def run(self, configuration: Configuration, carried: CarriedText) -> int:
        """Until SIGTERM or SIGINT; the exit code. Raises `ConfigError` and `LocalError` if it cannot begin."""
        allow_files()
        loop = asyncio.get_running_loop()
        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        for each in handled:
            loop.add_signal_handler(each, self._told.put_nowait, each)
        self._page = Page.create()
        self._descriptors.callback(self._page.close)
        try:
            if os.geteuid() == 0:
                self._emit(RunningAsRoot())
            state_dir = configuration.globals.state_dir
            gives_up = partial(is_told_to_stop, self._told, self._emit)
            lock = await take_lock(state_dir, self._clock, self._emit, gives_up)
            if lock is not None:
                self._lock = lock
                self._descriptors.callback(os.close, lock)
                self._timers.repeat(
                    "watchdog", watchdog_interval(self._environment, os.getpid()), self._notifier.say_alive
                )
                self._timers.repeat("silence", self._bound / BEATS, self._look_for_silence)
                self._timers.repeat("counters", COUNTED_EVERY, self._ask_for_counters)
                await self._serve(configuration, carried)
        finally:
            self._notifier.say("STOPPING=1")
            await self._stop()
            for each in handled:
                loop.remove_signal_handler(each)
        return self._code

    # The beginning ---------------------------------------------------------------------------------------------------

    async def _open(self, configuration: Configuration, carried: CarriedText, one_at_a_time: asyncio.Lock) -> None:
        async with one_at_a_time:
            has_work(configuration)
            bind(configuration, self._sockets)
            self._force = self._new_generation(configuration, carried, count_workers(configuration, self._cores))
            self._descriptors.callback(lambda: os.close(self._force.text))
            await self._open_doors(configuration)
            for unused in self._sockets.keep_only(addresses_of(configuration)):
                self._emit(SocketUnused(unused))
            await self._start_all(self._force)
            self._emit(DaemonReady(name_of(configuration), len(configuration.endpoints)))
            self._tell_ready()

    async def _start_all(self, generation: _Generation) -> None:
        """Have a process for every place. Raises if there is none that serves, or the configuration is not right."""
        begun = [await self._launch(place, generation) for place in range(generation.workers)]
        failures = await asyncio.gather(*map(self._wait_until_ready, begun))
        for fault in filter(None, failures):
            if fault.is_config or None not in failures:
                raise (ConfigError if fault.is_config else LocalError)(fault.reason)
        for worker, failure in zip(begun, failures, strict=True):
            if failure is None:
                self._seat(worker)
            else:
                self._give_up(worker.worker, failure)

    def _new_generation(self, configuration: Configuration, carried: CarriedText, workers: int) -> _Generation:
        text = os.memfd_create("mailrider configuration", os.MFD_CLOEXEC)
        os.write(text, carried.encode())
        self._generations += 1
        return _Generation(self._generations, configuration, workers, text, frozenset(carried.environment))

    async def _open_doors(self, configuration: Configuration) -> None:
        """Show the counters where this configuration says so. Raises `LocalError`, and all is as it was."""
        async with AsyncExitStack() as opened:
            if configuration.globals.openmetrics is not None:
                from mailrider.observe.openmetrics import open_openmetrics  # with aiohttp

                await opened.enter_async_context(
                    open_openmetrics(
                        configuration.globals.openmetrics,
                        self._sums,
                        self._clock,
                        self._refresh,
                        host_names(configuration),
                        self._sockets.take,
                    )
                )
            doors, self._doors = self._doors, opened.pop_all()
            await doors.aclose()

    def _tell_ready(self) -> None:
        self._notifier.say("READY=1", f"STATUS=workers: {self._force.workers}")

    # Workers ---------------------------------------------------------------------------------------------------------

    async def _launch(self, place: int, generation: _Generation) -> WorkerProcess:
        """Start a process for a place. Raises `LocalError`."""
        slot = lowest_free({each.slot for each in self._workers.values()}, SLOTS)
        if slot is None:
            raise LocalError(f"there are {SLOTS} workers already")
        self._numbers += 1
        worker = WorkerProcess(self._numbers, place, slot, generation.number, self._emit, self._clock.monotonic())
        self._workers[worker.number] = worker
        self._page.announce(1 + max(each.slot for each in self._workers.values()))
        sockets = [each.fileno() for each in self._sockets.at(mail_addresses_of(generation.configuration))]
        shared = (generation.text, self._page.descriptor, self._lock)
        place_of_log = generation.configuration.globals.log

        def orders(log: int) -> dict[str, Any]:
            return {
                "worker": place,
                "workers": generation.workers,
                "slot": slot,
                "text": generation.text,
                "page": self._page.descriptor,
                "lock": self._lock,
                "log": log,
                "sockets": sockets,
                "beat": self._bound / BEATS,
                "style": place_of_log.format.value,
                "debug": generation.configuration.globals.debug,
                "journal": place_of_log.path is None and is_journal(self._environment, STDERR),
                "proven": self._is_proven,
            }

        environment = worker_environment(self._environment, generation.taken)
        self._hear(worker)
        try:
            await worker.start(
                orders,
                (*shared, *sockets),
                environment,
                self._clock,
                self._write_log,
                self._accept_version,
                lambda: self._tell_logins(worker),
            )
        except OSError as error:
            del self._workers[worker.number]
            raise LocalError(f"cannot start a worker: {error.strerror}") from error
        self._silence.hear(worker.number, self._clock.monotonic() + BEGINS_WITHIN)
        self._begin(self._tend(worker))
        if self._is_stopping:
            worker.stop()
        for service in self._services.values():
            service.worker_came(worker.number, worker.link)
        return worker

    def _hear(self, worker: WorkerProcess) -> None:
        """What the worker says."""
        link = worker.link
        link.on("beat", lambda _: self._silence.hear(worker.number, self._clock.monotonic()))
        link.on("ready", lambda _: worker.settle(None))
        link.on("failed", lambda body: worker.settle(NotBegun(body["reason"], body["is_config"])))
        link.on("counted", lambda text: self._take_counters(worker, text))
        link.on("login", lambda body: self._note_login(worker, body))
        link.on("proven", lambda _: self._note_proven())
        link.on_other = lambda kind, body: self._serve_kind(worker, kind, body)

    def _serve_kind(self, worker: WorkerProcess, kind: str, body: Any) -> None:
        service = self._services.get(kind.partition(".")[0])
        if service is not None:
            service.received(worker.number, kind, body)

    def _note_login(self, worker: WorkerProcess, body: Any) -> None:
        """The others learn it now, and those that start later before they accept."""
        self._logins.note(body, self._clock.monotonic())
        for each in self._workers.values():
            if each is not worker and each.is_told:
                each.link.send("login", body)

    def _note_proven(self) -> None:
        """As in one process: bad servers do not turn validation off in a worker that starts later."""
        self._is_proven = True

    def _tell_logins(self, worker: WorkerProcess) -> None:
        for findings in self._logins.frames(self._clock.monotonic()):
            worker.link.send("logins", findings)

    def _accept_version(self, installed: str) -> bool:
        """False if the program was upgraded beneath us: then all of it begins anew."""
        if installed == self._version:
            return True
        if not self._code:
            self._emit(VersionChanged(self._version, installed))
            self._code = os.EX_TEMPFAIL
            self._told.put_nowait(signal.SIGTERM)
        return False

    async def _tend(self, worker: WorkerProcess) -> None:
        """Wait for its end, and clear up behind it."""
        code = await worker.ended
        del self._workers[worker.number]
        self._page.clear(worker.slot)
        self._silence.forget(worker.number)
        self._sums.end(worker.number)
        worker.counted.set()
        for service in self._services.values():
            service.worker_gone(worker.number)
        if self._serving.get(worker.worker) is worker:
            del self._serving[worker.worker]
            self._replace_dead(worker, code)

    def _replace_dead(self, worker: WorkerProcess, code: int) -> None:
        if not self._is_stopping:
            lived = self._clock.monotonic() - worker.started
            self._start_again(worker.worker, lived, lambda delay: WorkerDied(worker.worker, worker.pid, code, delay))

    def _start_again(self, place: int, lived: float, event: Callable[[float], Any] | None = None) -> None:
        """Start a process for a place after a delay that grows with every failure."""
        if place >= self._force.workers:
            return
        delay = self._delays[place] = next_delay(self._delays.get(place, 0.0), lived)
        if event is not None:
            self._emit(event(delay))
        self._timers.at(f"place {place}", delay, lambda: self._begin(self._fill(place)))

    def _give_up(self, place: int, failure: NotBegun) -> None:
        """It is tried again later."""
        if not self._is_stopping:
            self._emit(WorkerFailed(place, failure.reason))
            self._start_again(place, 0.0)

    async def _fill(self, place: int) -> None:
        """Have a process of the configuration in force serve a place; its predecessor finishes then."""
        generation = self._force
        if place in self._filling or self._is_stopping or not self._lacks(place):
            return
        self._filling.add(place)
        try:
            failure = await self._try_to_fill(place, generation)
        finally:
            self._filling.discard(place)
        if failure is not None:
            self._give_up(place, failure)
        elif generation is not self._force:
            await self._fill(place)  # there was a reload meanwhile

    def _lacks(self, place: int) -> bool:
        """Whether the configuration in force has that place, and none of its workers serves it."""
        worker = self._serving.get(place)
        return place < self._force.workers and (worker is None or worker.generation != self._force.number)

    async def _try_to_fill(self, place: int, generation: _Generation) -> NotBegun | None:
        try:
            worker = await self._launch(place, generation)
        except LocalError as error:
            return NotBegun(str(error))
        failure = await self._wait_until_ready(worker)
        if failure is None:
            self._seat(worker)
        return failure

    async def _wait_until_ready(self, worker: WorkerProcess) -> NotBegun | None:
        """What keeps a worker from serving; then it is killed."""
        try:
            async with after(self._clock, READY_WITHIN):
                failure = await asyncio.shield(worker.ready)
        except TimeoutError:
            failure = NotBegun(f"it was not ready within {READY_WITHIN:.0f} seconds")
        if failure is not None:
            worker.is_expected_to_end = True
            worker.kill()
        return failure

    def _seat(self, worker: WorkerProcess) -> None:
        """It serves its place from now on, unless there was a reload while it began."""
        if worker.number not in self._workers:  # it has died since
            self._replace_dead(worker, worker.ended.result())
            return
        if worker.generation != self._force.number:
            self._let_finish(worker)
            return
        predecessor = self._serving.get(worker.worker)
        self._serving[worker.worker] = worker
        self._emit(WorkerReady(worker.worker, worker.pid, worker.generation))
        if predecessor is not None:
            self._let_finish(predecessor)

    def _let_finish(self, worker: WorkerProcess) -> None:
        """Another serves its place, or nobody is to. Of too many that finish, the oldest has to stop."""
        worker.finish()
        finishing = [each for each in self._workers.values() if each.is_expected_to_end and each.serves]
        for oldest in finishing[: -MAX_FINISHING * max(1, self._force.workers)]:
            oldest.stop()

    def _label(self, number: int) -> str | None:
        """What a worker is called beside its counters; only those that serve are."""
        worker = self._workers.get(number)
        return str(worker.worker) if worker is not None and self._serving.get(worker.worker) is worker else None

    # Now and then ----------------------------------------------------------------------------------------------------

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._emit(Bug("supervisor", error))

    def _ended_opening(self, task: asyncio.Task[None]) -> None:
        """What it raised is for `_serve`; during a stop nobody asks for it, and nothing is to complain of that."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    def _look_for_silence(self) -> None:
        for number in self._silence.look(self._clock.monotonic()):
            worker = self._workers.get(number)
            self._silence.forget(number)
            if worker is not None:
                self._emit(WorkerHangs(worker.worker, worker.pid, self._bound))
                worker.kill()

    # Counters --------------------------------------------------------------------------------------------------------

    def _take_counters(self, worker: WorkerProcess, text: str) -> None:
        self._sums.show(worker.number, decode_metrics(text))
        worker.counted.set()

    def _ask_for_counters(self, *, queues: bool = False) -> list[WorkerProcess]:
        """`queues`: they look into their queues for it."""
        asked = [each for each in self._workers.values() if each.serves]
        for each in asked:
            each.counted.clear()
            each.link.send("metrics", queues)
        return asked

    async def _refresh(self) -> None:
        """Ask every worker for its counters, and wait for them."""
        await asyncio.gather(*(each.counted.wait() for each in self._ask_for_counters(queues=True)))

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
                if self._is_stopping:
                    return
                if not isinstance(error, MailriderError | OSError):
                    self._emit(Bug("reload", error))
                self._emit(ReloadRefused(str(error) or type(error).__name__))
                self._sockets.keep_only(addresses_of(self._force.configuration))
            self._tell_ready()

    async def _replace(self) -> None:
        """Put a new configuration in force. Raises, and nothing has changed."""
        configuration, carried = self._load()
        has_work(configuration)
        old = self._force
        workers = count_workers_again(configuration, old.configuration, old.workers, self._cores)
        bind(configuration, self._sockets)
        if configuration.globals.openmetrics is not None:
            self._sockets.bind(configuration.globals.openmetrics)
        new = self._new_generation(configuration, carried, workers)
        try:
            worker = await self._launch(0, new)
            failure = await self._wait_until_ready(worker)
            if failure is not None:
                raise (ConfigError if failure.is_config else LocalError)(failure.reason)
            try:
                await self._open_doors(configuration)
            except BaseException:
                worker.stop()
                raise
        except BaseException:
            os.close(new.text)
            raise
        self._force = new
        os.close(old.text)
        self._seat(worker)
        for place in range(1, max(old.workers, workers)):
            if place < workers:
                await self._fill(place)
            elif place in self._serving:
                self._let_finish(self._serving.pop(place))
        self._sockets.keep_only(addresses_of(configuration))
        try:
            self._change_log(configuration)
        except LocalError as error:
            self._emit(LogNotReopened(str(error)))
        self._listeners.ask_again()
        self._emit(Reloaded(name_of(configuration), len(configuration.endpoints)))

    # The end ---------------------------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        self._timers.cancel()
        self._timers.repeat("watchdog", watchdog_interval(self._environment, os.getpid()), self._notifier.say_alive)
        for each in list(self._workers.values()):
            each.stop()
        # Each worker has a task that waits for its end.
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_WITHIN)
        for each in list(self._workers.values()):
            each.kill()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._doors.aclose()
        self._timers.cancel()
        self._sockets.close()
        self._descriptors.close()
