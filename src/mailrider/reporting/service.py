"""TLS reporting as it runs: counts are written down, reports made once a day is over, and sent until they are taken.

    async with TLSReporting(rules, recorder, store, courier, resolver, clock, emit):
        ...

Every `TICK` seconds: what was counted goes to the store; days that are due are looked at (who wants a report? RFC 8460
3), and their reports frozen; what waits is sent, and tried again from 5 minutes doubling for 24 hours (RFC 8460 5.5). A
store that cannot be used holds all of it up, and loses nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar

from mailrider.dns.answer import LookupFailed
from mailrider.dns.resolver import lookup_txt
from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain, owner_of
from mailrider.model.event import Bug
from mailrider.reporting.event import TLSReportSettled, TLSReportsHeldUp, TLSReportsResumed
from mailrider.reporting.store import DeliveryState, EndpointKind, ReportsUnavailable
from mailrider.tlsrpt.record import HTTPSEndpoint, MailEndpoint, NoReportRecord, find_record, record_name
from mailrider.tlsrpt.report import build_report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import date, datetime

    from mailrider.clock import Clock
    from mailrider.dns.resolver import Resolver
    from mailrider.model.event import Emit
    from mailrider.reporting.recorder import Counts, Recorder
    from mailrider.reporting.store import ReportDelivery, ReportStore
    from mailrider.tlsrpt.record import TLSRPTRecord
    from mailrider.tlsrpt.report import DayCounts, Reporter, TLSReport

TICK: Final = 10.0  # seconds; a crash loses no more counts than were made in so many
MAX_WRITTEN: Final = 1000  # domains in one transaction, which takes 0.1 s
MAX_MADE: Final = 200  # reports made in one tick
MAX_SENDING: Final = 16  # attempts under way at once
MAX_LOOKED_AT: Final = 1000  # of those that wait, in one tick
# Seconds between two reports to one host or mailbox, and between two for names of one owner: a wildcard record gives
# thousands of names one victim, or each of them a mailbox of its own at the victim's.
PACE: Final = 10.0
FIRST_RETRY: Final = timedelta(minutes=5)
LIFETIME: Final = timedelta(hours=24)  # RFC 8460 5.5
REFUSED_FOR: Final = timedelta(days=7)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReportingRules:
    """Who reports, of which days, and how long what was sent is remembered."""

    reporter: Reporter
    only_failures: bool = False
    retain: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of an attempt. `state` WAITING: it may work later."""

    state: DeliveryState
    note: str


class Courier(Protocol):
    """Brings a frozen report to one endpoint; never raises for what others do."""

    async def send(self, report: TLSReport, kind: EndpointKind, target: str) -> Sent: ...


@dataclass(slots=True, eq=False)
class TLSReporting:
    """Makes reports and has them sent while it is entered; `in_thread` runs what blocks."""

    rules: ReportingRules
    recorder: Recorder
    store: ReportStore
    courier: Courier
    resolver: Resolver
    clock: Clock
    emit: Emit
    in_thread: Callable[..., Awaitable[Any]] = asyncio.to_thread
    tick: float = TICK
    _is_held_up: bool = False
    _is_leaving: bool = False
    _task: asyncio.Task[None] | None = None
    _making: asyncio.Task[None] | None = None
    _sending: dict[asyncio.Task[None], tuple[str, ...]] = field(default_factory=dict)
    _free_at: dict[str, float] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for task in (self._task, self._making, *self._sending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._guarded(self.write)
        await self.in_thread(self.store.close)

    async def leave_off(self) -> None:
        """Make and send no more reports, since another one does; what is counted is still written down."""
        self._is_leaving = True
        if self._making is not None:
            self._making.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self.in_thread(self.store.follow)

    async def _run(self) -> None:
        while True:
            await self.clock.sleep(self.tick)
            await self._guarded(self._turn)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it; that the store is away is told once, and a bug does not end what comes after."""
        try:
            await work()
        except ReportsUnavailable as error:
            if not self._is_held_up:
                self._is_held_up = True
                self.emit(TLSReportsHeldUp(str(error)))
        except Exception as error:
            self.emit(Bug("TLS reporting", error))
        else:
            if self._is_held_up:
                self._is_held_up = False
                self.emit(TLSReportsResumed())

    async def _turn(self) -> None:
        await self.write()
        if self._is_leaving or not await self.in_thread(self.store.become_leader):
            return
        if self._is_leaving:  # meanwhile: what it may just have taken is another's
            await self.in_thread(self.store.follow)
            return
        if self._making is None or self._making.done():
            # By itself: name servers that take their time hold up neither what is counted nor what is sent.
            self._making = asyncio.create_task(self._guarded(self._make))
        await self._send()

    # Counting ----------------------------------------------------------------------------------------------------

    async def write(self) -> None:
        """Write down what was counted since the last time. Raises `ReportsUnavailable`."""
        counts = self.recorder.take()
        try:
            while counts:
                await self._write_some(counts)
        finally:
            self.recorder.give_back(counts)
        for address in self.recorder.take_refused():
            await self.in_thread(self.store.refuse, address, self.clock.now() + REFUSED_FOR)

    async def _write_some(self, counts: Counts) -> None:
        """Write down some of the counts, and take them out; not more, so that other processes have their turn."""
        some = dict(itertools.islice(counts.items(), MAX_WRITTEN))
        writing = asyncio.ensure_future(self.in_thread(self.store.add, some))
        try:
            await asyncio.shield(writing)
        finally:
            # A thread goes on though nobody waits for it: what it writes must not be given back, and written again.
            await asyncio.wait([writing])
            if writing.exception() is None:
                for key in some:
                    del counts[key]

    # Making ------------------------------------------------------------------------------------------------------

    async def _make(self) -> None:
        now = self.clock.now()
        await self.in_thread(self.store.forget, (now - self.rules.retain).date(), now)
        due = await self.in_thread(self.store.due, now, MAX_MADE)
        # Side by side: name servers that take their time hold up nobody else's report.
        making = [self._make_one(day, domain, since, counts, now) for day, domain, since, counts in due]
        made = await asyncio.gather(*making, return_exceptions=True)
        for error in made:
            if error is not None:
                raise error

    async def _make_one(self, day: date, domain: str, due: datetime, counts: DayCounts, now: datetime) -> None:
        end = partial(self.in_thread, self.store.end, day, domain)
        if not counts.has_sessions or (self.rules.only_failures and not counts.has_failures):
            await end("nothing to report")
            return
        try:
            record = await report_record(self.resolver, Domain(domain))
        except LookupFailed as error:
            # Since when it is due is not kept apart: the day itself says when it is too late.
            if now - due > LIFETIME or (now.date() - day).days > 2:
                await end(f"its record could not be looked up: {error}")
            else:
                await self.in_thread(self.store.postpone, day, domain, now + FIRST_RETRY)
            return
        if isinstance(record, NoReportRecord):
            await end(record.reason)
            return
        if now - due > LIFETIME:
            await end("it would have come more than 24 hours too late")
            return
        refusing = await self.in_thread(self.store.refusing, now)
        endpoints = endpoints_of(record, refusing)
        if not endpoints:
            await end("its mail addresses refuse reports")
            return
        # Up to 20 policies with 200 failures each: 4 MB.
        report = await self.in_thread(build_report, domain, day, counts, self.rules.reporter, self.store.secret)
        await self.in_thread(self.store.freeze, report, endpoints, now, now + LIFETIME)

    # Sending -----------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        now, monotonic = self.clock.now(), self.clock.monotonic()
        self._free_at = {key: when for key, when in self._free_at.items() if when > monotonic}
        busy = {key for keys in self._sending.values() for key in keys} | self._free_at.keys()
        waiting = await self.in_thread(self.store.waiting, now, MAX_LOOKED_AT)
        if self._is_leaving:  # meanwhile: another one sends these; making reports twice does no harm
            return
        for delivery in waiting:
            keys = (*delivery.paces, f"names of {owner_of(delivery.domain)}")
            if len(self._sending) >= MAX_SENDING:
                return
            if busy.isdisjoint(keys):
                busy.update(keys)
                task = asyncio.create_task(self._guarded(partial(self._deliver, delivery)))
                self._sending[task] = keys
                task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        for key in self._sending.pop(task):
            self._free_at[key] = self.clock.monotonic() + PACE

    async def _deliver(self, delivery: ReportDelivery) -> None:
        report = await self.in_thread(self.store.report, delivery.day, delivery.domain)
        now = self.clock.now()
        if report is None or now > delivery.until:
            await self._settle(delivery, Sent(DeliveryState.EXPIRED, "24 hours are over"), now)
            return
        try:
            sent = await self.courier.send(report, delivery.kind, delivery.target)
        except Exception as error:  # a bug: it is told, and tried again like whatever failed for now
            self.emit(Bug("TLS reporting", error))
            sent = Sent(DeliveryState.WAITING, f"an error in this program: {type(error).__name__}")
        now = self.clock.now()
        again = now + FIRST_RETRY * 2 ** min(delivery.tries, 10)
        if sent.state is DeliveryState.WAITING and again > delivery.until:
            sent = Sent(DeliveryState.EXPIRED, sent.note)
        await self._settle(delivery, sent, again)

    async def _settle(self, delivery: ReportDelivery, sent: Sent, again: datetime) -> None:
        await self.in_thread(self.store.settle, delivery, sent.state, again, sent.note)
        if sent.state is not DeliveryState.WAITING:
            day = delivery.day.isoformat()
            self.emit(TLSReportSettled(delivery.domain, day, delivery.kind, sent.state, sent.note))


async def report_record(resolver: Resolver, domain: Domain) -> TLSRPTRecord | NoReportRecord:
    """Where a domain wants its reports (RFC 8460 3). Raises `LookupFailed`."""
    try:
        name = record_name(domain)
    except InvalidValue:
        return NoReportRecord("the domain is too long to have a record")
    return find_record((await lookup_txt(resolver, name)).records)


def endpoints_of(record: TLSRPTRecord, refusing: Iterable[str] = ()) -> list[tuple[EndpointKind, str]]:
    """Where the report goes: each URL for itself, all mail addresses together in one message."""
    found = [(EndpointKind.HTTPS, each.url) for each in record.endpoints if isinstance(each, HTTPSEndpoint)]
    mail = [str(each.address) for each in record.endpoints if isinstance(each, MailEndpoint)]
    wanted = dict.fromkeys(each for each in mail if each not in set(refusing))
    if wanted:
        found.append((EndpointKind.MAIL, "\n".join(wanted)))
    return list(dict.fromkeys(found))
