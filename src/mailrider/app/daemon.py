"""The daemon: endpoints, queues and targets of a configuration, open until a signal says otherwise.

- SIGTERM, SIGINT: no new connections; messages that are under way have some seconds; then everything is closed. What
  was accepted is in the queue, what was not has got no 250.
- SIGHUP: the configuration is read again, and opened beside the one that is in force. If anything fails at that, the
  old one goes on, and the log says what it was. Otherwise the new one takes over: the listening sockets stay, so that
  nobody is refused or waits, and what the old one has begun comes to its own end beside it (`running`).

Type=notify services are told (sd_notify(3)), and sockets taken over (sd_listen_fds(3)). Nothing here forks, changes its
user, or writes a process id anywhere: that is the service manager's trade.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from mailrider.app.cores import count_workers_again
from mailrider.app.examine import examine
from mailrider.app.file_limit import allow_files
from mailrider.app.left_mail import AT_START, tell_left_mail, unknown_queues
from mailrider.app.listening import addresses_of, has_work, name_of
from mailrider.app.notify import Notifier, watchdog_interval
from mailrider.app.running import Process, Running
from mailrider.app.signals import obeyed
from mailrider.app.timers import Timers
from mailrider.app.worker_lock import is_told_to_stop, wait_for_earlier_workers
from mailrider.clock import SystemClock
from mailrider.config import dropped_queues
from mailrider.delivery.limits.shares import Shares
from mailrider.endpoint.logins import Logins
from mailrider.endpoint.sockets import Sockets, inherited_sockets
from mailrider.errors import LocalError, MailriderError, in_one_line
from mailrider.model.daemon_event import (
    LEFT_AT_RELOAD,
    DaemonReady,
    DaemonStopping,
    EarlierConfigurationEnded,
    LogNotReopened,
    Reloaded,
    ReloadRefused,
    RunningAsRoot,
    SocketUnused,
)
from mailrider.model.event import Bug
from mailrider.observe.metrics import FanOut, Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.config import Configuration
    from mailrider.endpoint.listener import Endpoint
    from mailrider.model.event import Emit

# Seconds that a thread may keep the interpreter: the store's writer works beside the event loop, and is passed over as
# long as the loop turns faster than this. With 0.5 ms a commit beside a busy loop may take seconds, with 0.1 ms 10 ms.
SWITCH_INTERVAL: Final = 0.0001
COLLECTED: Final = 20_000  # new objects that make the garbage collector look at them; some hundred messages
MAX_FINISHING: Final = 8  # earlier configurations that may still be at work: each has connections, threads and files

_CLOCK: Final = SystemClock()


class Daemon:
    """Runs until it is told to stop. `load` reads the configuration, again for each reload."""

    def __init__(
        self,
        load: Callable[[], Configuration],
        emit: Emit,
        *,
        environment: Mapping[str, str] = os.environ,
        clock: Clock = _CLOCK,
        lost_lines: Callable[[], int] | None = None,
        reopen_log: Callable[[], None] = lambda: None,
        change_log: Callable[[Configuration], None] = lambda _: None,
    ) -> None:
        """`lost_lines`: how many lines of the log nobody could be given, for the counters. `reopen_log`: at SIGHUP.
        `change_log`: to what a new configuration wants; it may raise `LocalError`."""
        self._load = load
        self._reopen_log = reopen_log
        self._change_log = change_log
        self._metrics = Metrics()
        if lost_lines is not None:
            self._metrics.show_lost_lines(lost_lines)
        self._told = FanOut(emit, self._metrics)
        self._emit = self._told.emit
        self._clock = clock
        self._notifier = Notifier(environment)
        self._timers = Timers(clock)
        self._alive_every = watchdog_interval(environment, os.getpid())
        sockets = Sockets(inherited_sockets(environment, os.getpid()))
        self._process = Process(sockets, self._emit, clock, self._metrics, Logins(clock))
        self._shares = Shares(clock, by_owner=True)
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._running: Running | None = None
        self._finishing: dict[asyncio.Task[None], asyncio.Event] = {}
        self._looks: set[asyncio.Task[None]] = set()

    @property
    def endpoints(self) -> list[Endpoint]:
        """Those that are open, of the configuration in force."""
        return [] if self._running is None else self._running.endpoints

    async def run(self, configuration: Configuration) -> None:
        """Until SIGTERM or SIGINT. Raises `ConfigError` and `LocalError` if it cannot begin."""
        prepare_process()
        with obeyed(self._signals.put_nowait):
            try:
                if os.geteuid() == 0:
                    self._emit(RunningAsRoot())
                self._timers.repeat("watchdog", self._alive_every, self._notifier.say_alive)
                state_dir = configuration.globals.state_dir
                gives_up = partial(is_told_to_stop, self._signals, self._emit)
                if await wait_for_earlier_workers(state_dir, self._clock, self._emit, gives_up):
                    await self._open(configuration)
                    self._emit(DaemonReady(name_of(configuration), len(self.endpoints)))
                    self._tell_ready()
                    self._look_for_left_mail(unknown_queues(configuration), AT_START)
                    await self._serve(configuration)
            finally:
                self._notifier.say("STOPPING=1")
                await self._stop()
                self._timers.cancel()
                self._process.sockets.close()

    async def _open(self, configuration: Configuration) -> None:
        """Open a configuration, beside the one that is in force if there is one; from then on it is in force."""
        examine(configuration)
        shares = self._shares.successor()
        self._running = await Running.open(configuration, self._process, shares)
        self._shares = shares
        for unused in self._process.sockets.keep_only(addresses_of(configuration)):
            self._emit(SocketUnused(unused))

    def _tell_ready(self) -> None:
        self._notifier.say("READY=1", f"STATUS=open endpoints: {len(self.endpoints)}")

    async def _serve(self, configuration: Configuration) -> None:
        while True:
            caught = await self._signals.get()
            if caught is not signal.SIGHUP:
                self._emit(DaemonStopping(caught.name))
                return
            self._reopen_log()
            configuration = await self._reload(configuration)

    async def _reload(self, old: Configuration) -> Configuration:
        """The configuration that is in force then: the new one, or for whatever reason it is not right, the old one."""
        self._notifier.say("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}")
        before = self._running
        try:
            new = self._load()
            has_work(new)
            count_workers_again(new, old, 1)
            await self._open(new)
        except Exception as error:
            if not isinstance(error, MailriderError | OSError):
                self._emit(Bug("reload", error))
            self._process.sockets.go_back(addresses_of(old))
            self._emit(ReloadRefused(in_one_line(error)))
            self._tell_ready()
            return old
        if before is not None:
            before.hand_over()
            self._let_finish(before)
        try:
            self._change_log(new)
        except LocalError as error:
            self._emit(LogNotReopened(str(error)))
        self._told.ask_again()
        self._emit(Reloaded(name_of(new), len(self.endpoints)))
        self._tell_ready()
        self._look_for_left_mail(dropped_queues(old, new), LEFT_AT_RELOAD)
        return new

    def _look_for_left_mail(self, queues: list[tuple[str, Path]], advice: str) -> None:
        """Beside all else: to look into a large queue takes a while, and a signal does not wait for it."""
        task = asyncio.create_task(tell_left_mail(queues, self._clock, self._emit, advice))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    # The end ---------------------------------------------------------------------------------------------------------

    def _let_finish(self, running: Running) -> None:
        """Another has taken over: let it come to its end. Of too many, the oldest has to stop."""
        hurry = asyncio.Event()
        task = asyncio.create_task(self._finish(running, hurry))
        self._finishing[task] = hurry
        task.add_done_callback(self._finishing.pop)
        for _, oldest in list(self._finishing.items())[:-MAX_FINISHING]:
            oldest.set()

    async def _finish(self, running: Running, hurry: asyncio.Event) -> None:
        has_ended = await running.finish_unless(hurry.wait())
        await running.stop_quietly()
        self._emit(EarlierConfigurationEnded(not has_ended))

    async def _stop(self) -> None:
        """End the configuration in force, and all before it."""
        for look in self._looks:
            look.cancel()
        finishing = list(self._finishing.items())
        for _, hurry in finishing:
            hurry.set()
        last = [] if self._running is None else [self._running.stop_quietly()]
        await asyncio.gather(*(task for task, _ in finishing), *last)


def prepare_process() -> None:
    """Make the interpreter fit for a process that carries mail."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    _rest_collector()
    allow_files()


def _rest_collector() -> None:
    """What is there at the start stays, and mail makes few cycles: looking for them is worth it now and then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED, 20, 50)
