"""What TLS reports cost: memory for a day of many domains, and the time for making their reports.

python -m bench.tls_reports                         # 50,000 domains, 10,000 reports
python -m bench.tls_reports --domains 1000 --reports 1000
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from datetime import date, timedelta
from pathlib import Path

from mailrider.clock import SystemClock
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.model.tls_session import DANESeen, PoliciesSeen, STSSeen, TLSSessionSeen
from mailrider.reporting.recorder import Recorder
from mailrider.reporting.store import EndpointKind, ReportStore
from mailrider.tlsrpt.report import Reporter, build_report

REPORTER = Reporter("Example Inc.", "tls@sender.test", "sender.test")
MIB = 1 << 20


def session(number: int) -> TLSSessionSeen:
    """One of a domain with both kinds of policy; every tenth one fails."""
    domain = f"domain{number}.example.net"
    lines = ("version: STSv1", "mode: enforce", "max_age: 604800", f"mx: *.{domain}")
    sts = STSSeen(lines, (f"*.{domain}",))
    dane = DANESeen(f"mx.{domain}", (f"3 1 1 {number:064x}",))
    problem = TLSProblem(TLSProblemKind.STARTTLS_NOT_OFFERED, "no STARTTLS") if number % 10 == 0 else None
    return TLSSessionSeen(
        PoliciesSeen(domain, sts, dane), f"mx.{domain}", f"mx.{domain}", "8.8.8.8", "9.9.9.9", problem
    )


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--domains", type=int, default=50_000)
    options.add_argument("--reports", type=int, default=10_000)
    options.add_argument("--events", type=int, default=200_000)
    given = options.parse_args()
    _memory(given.domains)
    _events(given.events)
    _reports(given.domains, given.reports)


def _memory(domains: int) -> None:
    recorder = Recorder(SystemClock())
    tracemalloc.start()
    for number in range(domains):
        recorder(session(number))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{domains} domains in memory between two writes: {held / MIB:.0f} MiB, peak {peak / MIB:.0f} MiB")


def _events(events: int) -> None:
    recorder = Recorder(SystemClock())
    sessions = [session(number) for number in range(1000)]
    began = time.process_time()
    for number in range(events):
        recorder(sessions[number % 1000])
    each = (time.process_time() - began) / events
    print(f"one session counted: {each * 1e6:.1f} us")


def _reports(domains: int, reports: int) -> None:
    day, now = date(2026, 11, 30), SystemClock().now()
    with tempfile.TemporaryDirectory() as folder:
        store = ReportStore(Path(folder))
        recorder = Recorder(SystemClock())
        for number in range(domains):
            recorder(session(number))
        counts = {(day, domain): each for (_, domain), each in recorder.take().items()}
        began = time.process_time()
        store.add(counts)
        print(f"{domains} domains written: {time.process_time() - began:.2f} s of processor time")
        print(f"the file: {store.path.stat().st_size / MIB:.0f} MiB and its log")
        began = time.process_time()
        late = now + timedelta(days=10_000)
        for each_day, domain, _, found in store.due(late, reports):
            report = build_report(domain, each_day, found, REPORTER, store.secret)
            store.freeze(report, [(EndpointKind.MAIL, f"tls@{domain}")], now, now + timedelta(days=1))
        spent = time.process_time() - began
        print(
            f"{reports} reports made and frozen: {spent:.2f} s of processor time, {spent / reports * 1e6:.0f} us each"
        )
        store.close()


if __name__ == "__main__":
    main()
