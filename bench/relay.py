"""Relaying durably, beside the mail systems that people install: smtp-source, a system with its queue, smtp-sink.

    python -m bench.relay                       # every system; one destination and 50; the ceiling; 100 KB messages;
                                                # new connections; over TLS with DANE
    python -m bench.relay --only mailrider --messages 50000 --size 16384
    python -m bench.relay --only tuned --table new tls          # some of the tables

Each system gets the same traffic in the same run, accepts it with its durable queue, finds the destination by MX
through the same validating resolver, and delivers to the same sink; the clock stops when the sink has every message.
Round by round all systems have a turn, and the best round of each counts. Processor time is that of all processes and
threads of a system; memory and fsyncs come from rounds of their own, since looking costs time. Wants root.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.footprint import peak_of, syncs_in
from bench.measure import Measurement, machine, measured, ratio
from bench.network import (
    PATIENCE,
    SMTP_PORT,
    Traffic,
    counting_sink,
    network,
    send,
    tls_network,
    traffic_options,
    wait_for,
)
from bench.peers import MissingError
from bench.systems import MAILRIDERS, POSTFIX, POSTFIX_TUNED, Exim, Mailrider, OpenSMTPD, Postfix

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from bench.network import Network
    from bench.systems import System

REFERENCE = POSTFIX_TUNED.name
SYSTEMS: tuple[System, ...] = (POSTFIX_TUNED, POSTFIX, OpenSMTPD(), Exim(), *MAILRIDERS)
TABLES = ("one", "sources", "many", "large", "new", "tls")
LARGE = 100_000  # octets: what others publish figures for
TRACED = 1_000  # messages of the round that counts fsyncs


@dataclass(slots=True)
class Row:
    """A system's best round, and what the others told. `failure`: why there are no more of them."""

    name: str
    best: Measurement | None = None
    memory: int = 0
    syncs: float = 0.0
    failure: str = ""


def relay(system: System, net: Network, traffic: Traffic, *, watched: bool = False) -> tuple[Measurement, int]:
    """One round, and the peak of the memory in octets if that is `watched`, which costs time."""
    with counting_sink(*net.sink_at, traffic.messages) as sink, system.start(net) as running:
        with measured(system.name, traffic.messages, running.group.cpu) as watch:
            sources = send(traffic, running.address, running.port)
            with peak_of(running.group) if watched else contextlib.nullcontext([0]) as peak:
                wait_for(sink, sources)
    return watch.result, peak[0]


def count_syncs(system: System, net: Network, traffic: Traffic) -> float:
    """Fsyncs a message."""
    few = replace(traffic, messages=TRACED)
    with tempfile.NamedTemporaryFile(prefix="mailrider-bench-") as report:
        with counting_sink(*net.sink_at, few.messages) as sink:
            with system.start(net, syncs=Path(report.name)) as running:
                wait_for(sink, send(few, running.address, running.port))
        return syncs_in(Path(report.name)) / few.messages


def compare(systems: Sequence[System], net: Network, traffic: Traffic, rounds: int, *, whole: bool) -> list[Row]:
    """All systems, round by round. `whole`: their memory and fsyncs too."""
    rows = [Row(system.name) for system in systems]
    for _ in range(rounds):
        for system, row in zip(systems, rows, strict=True):
            if row.failure:
                continue
            with failing_alone(row):
                one, _ = relay(system, net, _fitting(system, traffic))
                if row.best is None or one.rate > row.best.rate:
                    row.best = one
    for system, row in zip(systems, rows, strict=True) if whole else ():
        if row.failure:
            continue
        with failing_alone(row):
            _, row.memory = relay(system, net, _fitting(system, traffic), watched=True)
            row.syncs = count_syncs(system, net, traffic)
    return rows


@contextlib.contextmanager
def failing_alone(row: Row) -> Iterator[None]:
    """What goes wrong in the block stands in the row; the others go on, and this system has no more rounds."""
    try:
        yield
    except (MissingError, RuntimeError, OSError, LookupError, subprocess.SubprocessError) as error:
        row.failure = " ".join(str(error).split())[:200]


def _fitting(system: System, traffic: Traffic) -> Traffic:
    """So many messages that a round takes some seconds, whatever the system."""
    most = system.capacity if traffic.kept else system.capacity // 2
    messages = min(traffic.messages, most)
    return replace(traffic, messages=messages - messages % traffic.domains)


def ceiling(net: Network, traffic: Traffic) -> Row:
    """The source straight to the sink."""
    with counting_sink(*net.sink_at, traffic.messages) as sink:
        began = time.monotonic()
        sources = send(traffic, net.mx_address, SMTP_PORT)
        sink.wait(PATIENCE)
        wall = time.monotonic() - began
        for source in sources:
            source.wait(PATIENCE)  # it fails when the sink has enough
    name = "smtp-source straight to smtp-sink"
    return Row(name, Measurement(name, traffic.messages, wall, 0.0))


def print_rows(title: str, rows: Sequence[Row]) -> bool:
    """A table; the last column relative to tuned Postfix, or else to the first row. Whether no system failed."""
    base = next((row.best for row in sorted(rows, key=lambda each: each.name != REFERENCE) if row.best), None)
    print(f"\n{title}")
    print(f"{'':36} {'messages':>8} {'wall s':>7} {'per s':>8} {'cpu ms':>7} {'MB':>6} {'fsyncs':>7} {'x':>6}")
    for row in rows:
        best = row.best
        if best is None or base is None:
            print(f"{row.name:36} no round: {row.failure}", flush=True)
            continue
        memory = f"{row.memory / 1e6:6.0f}" if row.memory else f"{'':6}"
        syncs = f"{row.syncs:7.2f}" if row.syncs else f"{'':7}"
        cpu = f"{best.cpu_each:7.3f}" if best.cpu else f"{'':7}"
        print(
            f"{row.name:36} {best.transactions:8} {best.wall:7.2f} {best.rate:8.0f} {cpu} {memory} {syncs}"
            f" {ratio(best, base):6.2f}  {row.failure}".rstrip(),
            flush=True,
        )
    return not any(row.failure for row in rows)


def in_clear(net: Network, systems: Sequence[System], usual: Traffic, rounds: int, tables: Collection[str]) -> bool:
    """Part a: one destination and 50, large messages, and new connections. Whether no system failed."""
    many = replace(usual, domains=50)
    large = replace(usual, size=LARGE, messages=usual.messages // 2)
    new = replace(usual, kept=False, messages=usual.messages // 4)
    fine = True
    if "one" in tables:
        rows = [ceiling(net, usual), *compare(systems, net, usual, rounds, whole=True)]
        fine &= print_rows("one destination", rows)
    if "sources" in tables:
        rows = compare(systems, net, replace(many, to_one=True), rounds, whole=False)
        fine &= print_rows("one destination, from 50 sources", rows)
    if "many" in tables:
        rows = [ceiling(net, many), *compare(systems, net, many, rounds, whole=False)]
        fine &= print_rows("50 destinations", rows)
    if "large" in tables:
        rows = [ceiling(net, large), *compare(systems, net, large, rounds, whole=False)]
        fine &= print_rows(f"one destination, {LARGE // 1000} KB", rows)
    if "new" in tables:
        rows = compare(systems, net, new, 1, whole=False)
        fine &= print_rows("one destination, each message submitted on a new connection", rows)
        single = [each.without_reuse() for each in systems if isinstance(each, Mailrider | Postfix)]
        rows = compare(single, net, new, 1, whole=False)
        fine &= print_rows("one destination, each message submitted and delivered on new connections", rows)
    return fine


def over_tls(systems: Sequence[System], usual: Traffic, rounds: int) -> bool:
    """Part b: TLS 1.3 to the receivers, DANE checked; connections kept, and a new one for each message.

    The receiver's stunnel waits for 0.2 s before it greets, lest the client speak first: where each message has a new
    connection, the rate is that of how many a system opens at a time.
    """
    checked = [replace(each, dane=True) for each in systems if isinstance(each, Mailrider | Postfix)]
    single = [each.without_reuse() for each in checked]
    few = replace(usual, messages=usual.messages // 4)
    with tls_network(50) as net:
        kept = print_rows("TLS 1.3 with DANE, kept connections", compare(checked, net, usual, rounds, whole=False))
        new = print_rows(
            "TLS 1.3 with DANE, a new connection for each message, greeted after 0.2 s",
            compare(single, net, few, 1, whole=False),
        )
    return kept and new


def main() -> int:
    parser = traffic_options("bench.relay", messages=8_000, rounds=2)
    parser.add_argument("--table", nargs="+", choices=TABLES, default=TABLES, help="all of them if none is named")
    options = parser.parse_args()
    systems = [each for each in SYSTEMS if options.only.lower() in each.name.lower()]
    print(f"{machine()}; {options.size} octets, {options.sessions} sessions; durable queues, MX by unbound")
    for system in systems:
        print(f"    {system.name}: {system.configuration}")
    traffic = Traffic(options.messages, options.sessions, options.size)
    clear = secure = True
    if set(options.table) != {"tls"}:
        with network(50) as net:
            clear = in_clear(net, systems, traffic, options.rounds, options.table)
    if "tls" in options.table:
        secure = over_tls(systems, traffic, options.rounds)
    return 0 if clear and secure else 1


if __name__ == "__main__":
    sys.exit(main())
