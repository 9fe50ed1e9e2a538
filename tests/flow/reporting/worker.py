"""A worker as a process of its own: it counts, reports like the daemon's, and takes orders a line each."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from mailrider.clock import SystemClock
from mailrider.reporting.recorder import Recorder
from mailrider.reporting.service import ReportingRules, Sent, TLSReporting
from mailrider.reporting.store import DeliveryState, ReportStore
from mailrider.testing.resolver import FakeResolver
from mailrider.tlsrpt.findings import session_findings
from mailrider.tlsrpt.report import DayCounts, Reporter
from tests.unit.reporting.world import session

if TYPE_CHECKING:
    from mailrider.reporting.store import EndpointKind
    from mailrider.tlsrpt.report import TLSReport

DOMAINS = 40


class _Courier:
    """Writes down who sent what: one line, whole, whatever other processes write."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def send(self, report: TLSReport, kind: EndpointKind, target: str) -> Sent:
        with self._file.open("a") as file:
            file.write(f"{os.getpid()} {report.day} {report.domain}\n")
        return Sent(DeliveryState.DELIVERED, str(kind))


async def _work(folder: Path) -> None:
    clock = SystemClock()
    names = [f"d{number}.test" for number in range(DOMAINS)]
    zone = {(f"_smtp._tls.{name}", "TXT"): f"v=TLSRPTv1; rua=mailto:r@{name}".encode() for name in names}
    store = ReportStore(folder)
    rules = ReportingRules(Reporter("Example Inc.", "tls@sender.test", "sender.test"))
    recorder = Recorder(clock)
    courier, resolver = _Courier(folder / "sent"), FakeResolver(zone, clock=clock)
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with TLSReporting(rules, recorder, store, courier, resolver, clock, lambda _: None, tick=0.05) as service:
        print("ready", flush=True)  # noqa: T201
        while line := (await lines.readline()).decode():
            match line.split():
                case ["count", domain, times]:
                    for _ in range(int(times)):
                        recorder(session(domain))
                    await service.write()
                case ["past", day, domain]:
                    counts = DayCounts()
                    counts.add(session_findings(session(domain)))
                    await asyncio.to_thread(store.add, {(date.fromisoformat(day), domain): counts})
                case ["hasten", domain]:
                    await asyncio.to_thread(store.make_due, domain, clock.now())
                case _:
                    raise ValueError(line)
            print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_work(Path(sys.argv[1])))
