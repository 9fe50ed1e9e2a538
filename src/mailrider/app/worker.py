"""A worker: the whole engine in one of several processes, started by a supervisor (`app.worker_process`).

It inherits its end of the link, over which it hears what it is to be (`Orders`): its place, the text of the
configuration, the listening sockets, the page with everybody's sessions. Its first word is the version of the program.
It ends when it is told to finish, at SIGTERM, and when the link ends: then its supervisor is gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from mailrider.app.daemon import prepare_process
from mailrider.app.examine import examine
from mailrider.app.left_mail import AT_START, tell_left_mail, unknown_queues
from mailrider.app.running import Process, Running
from mailrider.app.worker_link import WorkerLink
from mailrider.clock import SystemClock
from mailrider.config import load_carried
from mailrider.config.snapshot import CarriedText
from mailrider.delivery.limits.share_client import TOLD, ShareClient
from mailrider.delivery.limits.shares import WorkerShares
from mailrider.dns.validation import Proven
from mailrider.endpoint.logins import LoginFinding, Logins
from mailrider.endpoint.sockets import Sockets
from mailrider.errors import ConfigError, MailriderError
from mailrider.model.daemon_event import EarlierConfigurationEnded
from mailrider.model.event import Bug, discard
from mailrider.model.queue_event import QueueAvailable, QueueHasSpace, QueueShort, QueueUnavailable
from mailrider.net.accept_turns import Page, Turns
from mailrider.observe.log import EventLog
from mailrider.observe.metric_sums import encode_metrics
from mailrider.observe.metrics import Metrics, fan_out
from mailrider.observe.unblocked_stream import UnblockedStream
from mailrider.queue.worker_place import WorkerNumber

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from mailrider.config import Configuration
    from mailrider.model.event import Emit, Event

STDERR: Final = 2  # the number of standard error
LAST_LINES: Final = 1.0  # seconds that the supervisor has to read our last lines


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is to be. Numbers of descriptors are those that it inherits.

    `text` holds a `CarriedText`, `lock` is open for as long as it lives. It says that it lives every `beat` seconds.
    `proven`: validation of DNSSEC has worked in a worker of this daemon.
    """

    worker: int
    workers: int
    slot: int
    text: int
    page: int
    log: int
    lock: int
    sockets: Sequence[int]
    beat: float
    style: str
    debug: bool
    journal: bool
    proven: bool


class StoreTroubles:
    """Whether the stores of this process take mail, as their events tell; `changed` is called with True if not."""

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self._changed = changed
        self._troubles: dict[type[Event], int] = {QueueShort: 0, QueueUnavailable: 0}

    def __call__(self, event: Event) -> None:
        before = any(self._troubles.values())
        if type(event) in self._troubles:
            self._troubles[type(event)] += 1
        elif (trouble := _ENDS.get(type(event))) is not None:
            self._troubles[trouble] = max(0, self._troubles[trouble] - 1)
        after = any(self._troubles.values())
        if after != before:
            self._changed(after)

    def listener_for(self, kind: type[Event]) -> Emit | None:
        """See `fan_out`."""
        return self if kind in self._troubles or kind in _ENDS else None


_ENDS: Final[dict[type[Event], type[Event]]] = {QueueHasSpace: QueueShort, QueueAvailable: QueueUnavailable}


async def wait_for_orders(orders: asyncio.Future[Orders], told: asyncio.Queue[str]) -> Orders | None:
    """None if there is an end before them; what comes after them stays in the queue."""
    end = asyncio.create_task(told.get())
    end.add_done_callback(lambda _: orders.cancel())
    try:
        given = await orders
        return None if end.done() else given
    except asyncio.CancelledError:
        return None
    finally:
        end.cancel()


class Worker:
    """A worker process, from its first frame to its end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._clock = SystemClock()
        self._emit: Emit = discard
        self._link = WorkerLink(lambda event: self._emit(event))
        self._orders: asyncio.Future[Orders] = asyncio.get_running_loop().create_future()
        self._told: asyncio.Queue[str] = asyncio.Queue()
        self._stream: UnblockedStream | None = None
        self._metrics = Metrics()
        self._logins = Logins(self._clock, lambda finding: self._link.send("login", asdict(finding)))
        self._configuration: Configuration | None = None
        self._running: Running | None = None
        self._asked: set[asyncio.Task[None]] = set()
        self._told_earlier: list[Sequence[Any]] = []  # see `ShareClient`

    async def run(self) -> int:
        """Run until the supervisor says otherwise; returns the exit code."""
        loop = asyncio.get_running_loop()
        for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGTTOU):  # of the terminal: they are the supervisor's
            signal.signal(ignored, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, self._told.put_nowait, "stop")
        self._link.on("start", lambda body: self._orders.set_result(Orders(**body)))
        self._link.on("finish", lambda _: self._told.put_nowait("finish"))
        self._link.on("metrics", self._count)
        self._link.on("dropped_queues", self._look_into_dropped)
        self._link.on("unknown_queues", lambda _: self._look_into_unknown())
        self._link.on("login", lambda body: self._logins.learn(LoginFinding(**body)))
        self._link.on("logins", self._learn_earlier)  # before the orders
        self._link.on(TOLD, self._told_earlier.extend)
        await self._link.open(self._end)
        self._link.send("hello", {"version": version("mailrider")})
        gone = asyncio.create_task(self._watch_link())
        orders = await wait_for_orders(self._orders, self._told)
        code = 0 if orders is None else await self._work(orders)
        gone.cancel()
        self._link.close()
        if self._stream is not None:
            self._stream.finish(LAST_LINES)
        return code

    async def _watch_link(self) -> None:
        await self._link.closed.wait()
        self._told.put_nowait("stop")

    async def _work(self, orders: Orders) -> int:
        for descriptor in (orders.text, orders.page, orders.log, orders.lock, *orders.sockets):
            os.set_inheritable(descriptor, False)
        self._beat(orders.beat)
        self._configuration = configuration = _read_configuration(orders.text)
        without_counters = replace(configuration.globals, openmetrics=None)  # they are the supervisor's to show
        configuration = replace(configuration, globals=without_counters)
        turns = Turns(Page(orders.page), orders.slot)
        process = self._make_process(orders, turns)
        try:
            examine(configuration)
            client = ShareClient(self._link, self._clock, orders.workers, self._told_earlier)
            shares = WorkerShares(self._clock, client)
            self._running = await Running.open(configuration, process, shares)
        except (MailriderError, OSError) as error:
            self._link.send("failed", {"is_config": isinstance(error, ConfigError), "reason": str(error)})
            return os.EX_UNAVAILABLE
        turns.come()
        self._link.send("ready", {"endpoints": len(self._running.endpoints)})
        told = await self._told.get()
        turns.leave()
        if told == "finish":
            await self._finish(self._running, process.sockets)
        await self._running.stop_quietly()
        self._link.send("counted", [None, encode_metrics(self._metrics)])
        process.sockets.close()
        return os.EX_OK

    def _make_process(self, orders: Orders, turns: Turns) -> Process:
        self._stream = stream = UnblockedStream(orders.log, self._clock, spare=STDERR)
        self._metrics.show_lost_lines(lambda: stream.lost)
        log = EventLog(stream, style=orders.style, debug=orders.debug, journal=orders.journal, worker=orders.worker)
        listeners: list[Emit] = [self._metrics, StoreTroubles(turns.refuse)]
        self._emit = fan_out(*listeners) if orders.style == "off" else fan_out(log, *listeners)
        sockets = Sockets(socket.socket(fileno=descriptor) for descriptor in orders.sockets)
        place = WorkerNumber(orders.worker, orders.workers)
        proven = Proven(has_worked=orders.proven, tell=lambda: self._link.send("proven"))
        return Process(sockets, self._emit, self._clock, self._metrics, self._logins, proven, place, turns, self._link)

    def _learn_earlier(self, findings: list[tuple[float, Any]]) -> None:
        """What workers found out before this one began; the clock is the machine's."""
        for at, body in findings:
            self._logins.learn(LoginFinding(**body), at)

    def _beat(self, seconds: float) -> None:
        """Say that this event loop turns."""
        self._link.send("beat")
        self._clock.call_at(self._clock.monotonic() + seconds, lambda: self._beat(seconds))

    def _count(self, look: int | None) -> None:
        """`look`: somebody looks, so the queues are looked into."""
        self._begin(self._send_counters(look))

    def _look_into_dropped(self, queues: list[tuple[str, str]]) -> None:
        """The configuration before ours had these queues, by name and directory."""
        self._begin(tell_left_mail([(name, Path(location)) for name, location in queues], self._clock, self._emit))

    def _look_into_unknown(self) -> None:
        if self._configuration is not None:
            self._begin(tell_left_mail(unknown_queues(self._configuration), self._clock, self._emit, AT_START))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _send_counters(self, look: int | None) -> None:
        try:
            if self._running is not None and look is not None:
                await self._running.refresh()
        except Exception as error:
            # The last figures are better than none.
            if not isinstance(error, MailriderError):
                self._emit(Bug("counters", error))
        self._link.send("counted", [look, encode_metrics(self._metrics)])

    async def _finish(self, running: Running, sockets: Sockets) -> None:
        """Another serves this place: let what is under way come to its end, or to a stop if we are told to."""
        running.hand_over()
        sockets.close()  # or those at addresses that are not served any more would keep clients waiting
        self._emit(EarlierConfigurationEnded(not await running.finish_unless(self._told.get())))


def _read_configuration(descriptor: int) -> Configuration:
    """The text is one that others read as well: the descriptor's place in it stays."""
    octets = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    os.close(descriptor)
    return load_carried(CarriedText.decode(octets))


async def _run(descriptor: int) -> int:
    os.set_inheritable(descriptor, False)
    return await Worker(socket.socket(fileno=descriptor)).run()


def main(arguments: Sequence[str]) -> int:
    """Run a worker. The argument is the number of the link's descriptor."""
    prepare_process()
    return uvloop.run(_run(int(arguments[0])))
