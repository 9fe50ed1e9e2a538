"""The daemon: endpoints, queues and targets of a configuration, open until a signal says otherwise (spec section 12).

- SIGTERM, SIGINT: no new connections; messages that are under way have some seconds; then everything is closed. What
  was accepted is in the queue, what was not has got no 250.
- SIGHUP: the configuration is read again. If anything in it is wrong nothing changes, and the log says what. Otherwise
  it takes the place of the old one: the listening sockets stay, so that nobody is refused meanwhile. If it turns out
  only then that it cannot be opened, the old one comes back.

Type=notify services are told (sd_notify(3)), and sockets taken over (sd_listen_fds(3)). Nothing here forks, changes its
user, or writes a process id anywhere: that is the service manager's trade.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from mailrider.assemble import open_engine
from mailrider.clock import SystemClock
from mailrider.config import placed
from mailrider.endpoint.logins import Logins
from mailrider.endpoint.open import Surroundings, open_endpoint, try_endpoint
from mailrider.endpoint.settings import EndpointSettings
from mailrider.endpoint.sockets import Sockets, inherited_sockets
from mailrider.errors import ConfigError, MailriderError
from mailrider.model.event import Event
from mailrider.model.pipeline import TargetRef
from mailrider.model.value import value
from mailrider.observe.metrics import Metrics, fan_out
from mailrider.observe.openmetrics import open_openmetrics
from mailrider.queue.settings import QueueSettings
from mailrider.targets import Targets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from mailrider.clock import Clock
    from mailrider.config import Configuration, Instance
    from mailrider.endpoint.smtp import Endpoint
    from mailrider.model.event import Emit

# Seconds that a thread may keep the interpreter: the store's writer works beside the event loop, and is passed over as
# long as the loop turns faster than this. With 0.5 ms a commit beside a busy loop may take seconds, with 0.1 ms 10 ms.
SWITCH_INTERVAL: Final = 0.0001
COLLECTED: Final = 20_000  # new objects that make the garbage collector look at them; some hundred messages
DESTINATIONS: Final = 20  # of each queue that the counters name


_CLOCK: Final = SystemClock()


@value
class DaemonReady(Event):
    """Everything is open. `configuration` is the file, or says that there is none."""

    configuration: str
    endpoints: int


@value
class ReloadRefused(Event):
    """The new configuration was not taken; the old one goes on."""

    reason: str


@value
class SocketUnused(Event):
    """A socket that the service manager gave us is at no address that the configuration names."""

    address: str


@value
class DaemonStopping(Event):
    """A signal says that this is the end."""

    signal: str


class Notifier:
    """Tells the service manager; silent where there is none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")

    def say(self, *words: str) -> None:
        """Assignments such as `READY=1`. Never fails: a service manager that does not listen is its own problem."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as opened:
                opened.connect(address)
                opened.send("\n".join(words).encode())
        except OSError:
            return


@asynccontextmanager
async def open_configuration(
    configuration: Configuration,
    sockets: Sockets,
    emit: Emit,
    clock: Clock,
    metrics: Metrics,
    logins: Logins | None = None,
) -> AsyncIterator[list[Endpoint]]:
    """Everything that a configuration names, open; left in reverse order, so that no mail comes in behind.

    `logins` are the wrong passwords so far, which no reload forgets.
    """
    named = {name: instance.settings for name, instance in configuration.targets.items()}
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(configuration.globals.dns, emit, clock))
        targets = await stack.enter_async_context(Targets(engine, named))
        for name, instance in configuration.targets.items():
            if isinstance(instance.settings, QueueSettings):  # it may hold mail, whether or not anything refers to it
                with placed(instance):
                    await targets.open(TargetRef(name))
        if configuration.globals.openmetrics is not None:
            address, refresh = configuration.globals.openmetrics, partial(_look_into_queues, targets, metrics, clock)
            names = [each.ascii for each in (configuration.globals.hostname,) if each is not None]
            await stack.enter_async_context(open_openmetrics(address, metrics, clock, refresh, names))
        endpoints = []
        logins = logins or Logins(engine.clock)
        around = Surroundings(targets.get, engine.clock, emit, sockets, engine.limiters, logins)
        for instance, door in _endpoints(configuration):
            with placed(instance):
                for target in door.every_target:
                    await targets.open(target)
                endpoints.append(await stack.enter_async_context(open_endpoint(instance.kind, door, around)))
        yield endpoints


async def _look_into_queues(targets: Targets, metrics: Metrics, clock: Clock) -> None:
    for name, queue in targets.queues.items():
        metrics.show_queue(name, await queue.store.stats(clock.now(), DESTINATIONS))


class Daemon:
    """Runs until it is told to stop. `load` reads the configuration, again for each reload."""

    def __init__(
        self,
        load: Callable[[], Configuration],
        emit: Emit,
        *,
        environment: Mapping[str, str] = os.environ,
        clock: Clock = _CLOCK,
    ) -> None:
        self._load = load
        self._metrics = Metrics(clock)
        self._emit = fan_out(emit, self._metrics)
        self._clock = clock
        self._notifier = Notifier(environment)
        self._sockets = Sockets(inherited_sockets(environment, os.getpid()))
        self._logins = Logins(clock)
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._stack = AsyncExitStack()
        self.endpoints: list[Endpoint] = []
        """Those that are open."""

    async def run(self, configuration: Configuration) -> None:
        """Until SIGTERM or SIGINT. Raises `ConfigError` and `LocalError` if it cannot begin."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        _rest_collector()
        _allow_files()
        loop = asyncio.get_running_loop()
        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        for each in handled:
            loop.add_signal_handler(each, self._signals.put_nowait, each)
        try:
            await self._open(configuration)
            await self._serve(configuration)
        finally:
            self._notifier.say("STOPPING=1")
            await self._stack.aclose()
            self._sockets.close()
            for each in handled:
                loop.remove_signal_handler(each)

    async def _open(self, configuration: Configuration) -> None:
        opened = open_configuration(configuration, self._sockets, self._emit, self._clock, self._metrics, self._logins)
        self.endpoints = await self._stack.enter_async_context(opened)
        for unused in self._sockets.keep_only(
            address for _, door in _endpoints(configuration) for address in door.listen
        ):
            self._emit(SocketUnused(unused))
        self._emit(DaemonReady(str(configuration.path or "built-in"), len(self.endpoints)))
        self._notifier.say("READY=1", f"STATUS={len(self.endpoints)} endpoints")

    async def _serve(self, configuration: Configuration) -> None:
        while True:
            caught = await self._signals.get()
            if caught is not signal.SIGHUP:
                self._emit(DaemonStopping(caught.name))
                return
            configuration = await self._reload(configuration)

    async def _reload(self, old: Configuration) -> Configuration:
        self._notifier.say("RELOADING=1", f"MONOTONIC_USEC={int(self._clock.monotonic() * 1e6)}")
        try:
            new = self._load()
            has_work(new)
            for instance, settings in _endpoints(new):
                with placed(instance):
                    try_endpoint(settings)
        except MailriderError as error:
            self._emit(ReloadRefused(str(error)))
            self._notifier.say("READY=1")
            return old
        await self._stack.aclose()
        try:
            await self._open(new)
        except MailriderError as error:
            self._emit(ReloadRefused(str(error)))
            await self._stack.aclose()
            await self._open(old)
            return old
        return new


def _rest_collector() -> None:
    """What is there at the start stays, and mail makes few cycles: looking for them is worth it now and then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED, 20, 50)


def _allow_files() -> None:
    """Take as many file descriptors as we may have: shells grant 1024 at first, and each connection needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _endpoints(configuration: Configuration) -> Iterator[tuple[Instance, EndpointSettings]]:
    for instance in configuration.endpoints:
        if isinstance(instance.settings, EndpointSettings):
            yield instance, instance.settings


def has_work(configuration: Configuration) -> None:
    """Raises `ConfigError` if there is nothing to run."""
    queues = [each for each in configuration.targets.values() if isinstance(each.settings, QueueSettings)]
    if not configuration.endpoints and not queues:
        raise ConfigError(
            "there is nothing to run: expected an endpoint (submission, smtp, lmtp) or a target.queue in the file"
        )
