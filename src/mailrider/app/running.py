"""A configuration, open: its targets, queues and endpoints, from the first connection to the last attempt.

It ends in one of two ways:

- `finish`: another configuration has taken over. No new clients, no new attempts; sessions and attempts that are under
  way come to their own end, beside those of the other, and nobody is cut off within `FINISH`;
- `stop`: the end of the process. What has not begun to send ends at once; what sends, or waits for the reply to it, has
  a bound, and what is cut off behind its final dot is recorded in doubt.

Sockets are bound before anything is opened, and accept only when everything else is open: a configuration that cannot
be opened has served nobody, and one that was in force before it goes on as if nothing had been.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from mailrider.app.assemble import open_engine
from mailrider.app.certificate_watch import CertificateWatch
from mailrider.app.endpoints import GRACE, EndpointResources, open_endpoint
from mailrider.app.listening import bind, host_names
from mailrider.app.process_watch import ProcessWatch
from mailrider.app.reports import make_recorder, open_reporting
from mailrider.app.targets import Targets
from mailrider.clock import after
from mailrider.config import looks_for_servers, placed
from mailrider.dns.validation import Proven
from mailrider.model.event import Bug
from mailrider.observe.metric_sums import SHOWN, TOLD
from mailrider.observe.metrics import fan_out
from mailrider.observe.openmetrics import open_openmetrics
from mailrider.queue.settings import QueueSettings
from mailrider.queue.worker_place import ALONE, WorkerNumber
from mailrider.settings.pipeline import TargetRef

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from mailrider.app.worker_link import WorkerLink
    from mailrider.clock import Clock
    from mailrider.config import Configuration
    from mailrider.delivery.limits.shares import Shares
    from mailrider.endpoint.listener import Endpoint
    from mailrider.endpoint.logins import Logins
    from mailrider.endpoint.sockets import Sockets
    from mailrider.model.event import Emit
    from mailrider.net.accept_turns import Turns
    from mailrider.observe.metrics import Metrics
    from mailrider.reporting.service import TLSReporting

FINISH: Final = 3600.0
"""Seconds for what is under way when another configuration takes over: longer than any attempt or session that is not
kept up by a server or client on purpose."""


LINGER: Final = 15.0  # seconds for clients that have just connected; whoever is idle then hears 421, and comes back


@dataclass(frozen=True, slots=True)
class Process:
    """What all configurations of a process share. `logins` are the wrong passwords so far, `proven` that
    validation of DNSSEC has worked, `place` which of the workers this process is. A worker has `turns` to accept by,
    and its `link` to the supervisor."""

    sockets: Sockets
    emit: Emit
    clock: Clock
    metrics: Metrics
    logins: Logins
    proven: Proven = field(default_factory=Proven)
    place: WorkerNumber = ALONE
    turns: Turns | None = None
    link: WorkerLink | None = None


class Running:
    """A configuration, open. `open` makes one; `stop` must end it."""

    def __init__(self, process: Process, stack: AsyncExitStack, closed_first: AsyncExitStack, targets: Targets) -> None:
        self.endpoints: list[Endpoint] = []
        self._process = process
        self._stack = stack
        self._closed_first = closed_first  # what the next configuration has of its own
        self._targets = targets
        self._reporting: TLSReporting | None = None

    @classmethod
    async def open(cls, configuration: Configuration, process: Process, shares: Shares) -> Self:
        """Everything that the configuration names. Raises `ConfigError` and `LocalError`; then nothing is open."""
        bind(configuration, process.sockets)
        named = {name: instance.settings for name, instance in configuration.targets.items()}
        clock = process.clock
        recorder = make_recorder(configuration, clock)
        reports = configuration.globals.tlsrpt
        emit = process.emit if recorder is None else fan_out(process.emit, recorder)
        async with AsyncExitStack() as stack:
            stack.callback(shares.close)
            engine = await stack.enter_async_context(
                open_engine(
                    configuration.globals.dns,
                    emit,
                    clock,
                    shares,
                    process.proven,
                    needs_dnssec=looks_for_servers(configuration),
                    reports_tls=recorder is not None,
                    report_networks=() if reports is None else reports.allow_addresses,
                )
            )
            targets = await stack.enter_async_context(Targets(engine, named, process.place))
            running = cls(process, stack, await stack.enter_async_context(AsyncExitStack()), targets)
            for name, instance in configuration.targets.items():
                if isinstance(instance.settings, QueueSettings):  # it may hold mail, whether or not it is referred to
                    with placed(instance):
                        await targets.open(TargetRef(name))
            if recorder is not None:
                reporting = open_reporting(configuration, recorder, engine, targets.open)
                running._reporting = await stack.enter_async_context(reporting)
            workers = process.place.workers
            resources = EndpointResources(targets.open, clock, emit, shares, targets.names, process.logins, workers)
            for given in configuration.endpoints:
                with placed(given):
                    endpoint = open_endpoint(given.kind, given.settings, resources)
                    running.endpoints.append(await stack.enter_async_context(endpoint))
            await running._accept(configuration)
            running._stack = stack.pop_all()
        return running

    async def _accept(self, configuration: Configuration) -> None:
        process = self._process
        is_first = not process.place.number  # of several workers one tells what concerns all
        watches: list[ProcessWatch | CertificateWatch] = [
            ProcessWatch(process.clock, process.emit, tells_clock=is_first)
        ]
        if is_first:
            watches.append(CertificateWatch(configuration, process.clock, process.emit))
        for watch in watches:
            self._closed_first.callback(watch.close)
            watch.open()
        for endpoint in self.endpoints:
            await endpoint.open(process.sockets.take, process.turns)
        if configuration.globals.openmetrics is not None:
            address, names = configuration.globals.openmetrics, host_names(configuration)
            opened = open_openmetrics(
                address, process.metrics, process.clock, self.refresh, names, process.sockets.take
            )
            await self._closed_first.enter_async_context(opened)

    async def refresh(self) -> None:
        """Show the counters what is in the queues."""
        now, metrics = self._process.clock.now(), self._process.metrics
        destinations = SHOWN if self._process.place.workers == 1 else TOLD
        metrics.show_queues_only(self._targets.queues)
        for name, queue in self._targets.queues.items():
            metrics.show_queue(name, await queue.stats(now, destinations), now, queue.destinations_down)

    async def write_tls_counts(self) -> None:
        """Write down now what TLS reports count. Raises `ReportsUnavailable`."""
        if self._reporting is not None:
            await self._reporting.write()

    def hand_over(self) -> None:
        """Another configuration has been opened, and accepts new connections from now on: alone."""
        for endpoint in self.endpoints:
            endpoint.stop_accepting()

    async def finish(self) -> bool:
        """Let others go on, and wait until all that is under way has ended. False if that takes longer than `FINISH`.

        May be cancelled; `stop` is due in any case.
        """
        await self._closed_first.aclose()
        queues = list(self._targets.queues.values())
        leaving = [] if self._reporting is None else [self._reporting.leave_off()]
        # Side by side: a slow host that takes a report keeps no mail from the queues that go on.
        await asyncio.gather(*leaving, *(queue.leave_off() for queue in queues))
        try:
            async with after(self._process.clock, LINGER):
                await self._sessions_ended()
        except TimeoutError:
            for endpoint in self.endpoints:
                endpoint.stop()
        try:
            async with after(self._process.clock, FINISH):
                # In this order: a session may still bring a message for a target at once, but none for an attempt.
                await self._sessions_ended()
                await asyncio.gather(*(queue.finish() for queue in queues))
        except TimeoutError:
            return False
        return True

    async def finish_unless(self, told: Coroutine[Any, Any, object]) -> bool:
        """The same until `told` comes to its end. True if all has ended."""
        ends, hurries = asyncio.create_task(self.finish()), asyncio.create_task(told)
        await asyncio.wait({ends, hurries}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ends, hurries):
            task.cancel()
        ended, _ = await asyncio.gather(ends, hurries, return_exceptions=True)
        if isinstance(ended, Exception):
            self._process.emit(Bug("an earlier configuration", ended))
        return ended is True

    async def _sessions_ended(self) -> None:
        await asyncio.gather(*(endpoint.ended() for endpoint in self.endpoints))

    async def stop(self) -> None:
        """End everything, within bounds."""
        await self._closed_first.aclose()
        queues = [queue.stop() for queue in self._targets.queues.values()]
        await asyncio.gather(*(endpoint.close(GRACE) for endpoint in self.endpoints), *queues)
        await self._stack.aclose()

    async def stop_quietly(self) -> None:
        """The same; nothing keeps what else has to end from its end."""
        try:
            await self.stop()
        except Exception as error:
            self._process.emit(Bug("the end of a configuration", error))


@asynccontextmanager
async def open_configuration(configuration: Configuration, process: Process, shares: Shares) -> AsyncIterator[Running]:
    """A configuration, open while this is entered."""
    running = await Running.open(configuration, process, shares)
    try:
        yield running
    finally:
        await running.stop()
