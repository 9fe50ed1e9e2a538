"""Accepting while the next hop is down, and what happens when it comes back: beside tuned Postfix.

    python -m bench.outage
    python -m bench.outage --only mailrider --messages 50000 --rounds 1

Nobody listens at the address of the only MX host, so that connections are refused. smtp-source says how fast a system
accepts all the same (with its durable queue, as always). When the system has come to rest smtp-sink begins to listen,
and the operator says so: `mailrider queue retry --all`, `postqueue -f`; neither would wait for it, but both would take
their retry time. The clock of the drain runs from before that command until the sink has every message. Round by round
all systems have a turn, and the best of each counts. Wants root.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.measure import Measurement, machine, measured, print_table
from bench.network import (
    PATIENCE,
    SMTP_PORT,
    Traffic,
    UnfinishedError,
    counting_sink,
    network,
    send,
    traffic_options,
    wait_all,
)
from bench.systems import MAILRIDERS, POSTFIX_TUNED, Mailrider, Postfix

if TYPE_CHECKING:
    from bench.footprint import ControlGroup
    from bench.network import Network

LOOK = 0.5  # seconds between two looks whether a system is at rest
AT_REST = 0.02  # of one processor, at most


SYSTEMS: tuple[Mailrider | Postfix, ...] = (POSTFIX_TUNED, *MAILRIDERS)


@dataclass(slots=True)
class Row:
    """A system's best."""

    accepted: Measurement
    drained: Measurement

    def improve(self, other: Row) -> None:
        """What is better in the other one counts."""
        self.accepted = min(self.accepted, other.accepted, key=lambda each: each.wall)
        self.drained = min(self.drained, other.drained, key=lambda each: each.wall)


def outage(system: Mailrider | Postfix, net: Network, traffic: Traffic) -> Row:
    """One round."""
    with system.start(net) as running:
        with measured(system.name, traffic.messages, running.group.cpu) as accepting:
            wait_all(send(traffic, running.address, running.port))
        _wait_for_rest(running.group)
        command, environment = system.flush(running)
        with counting_sink(net.mx_address, SMTP_PORT, traffic.messages) as sink:
            with measured(system.name, traffic.messages, running.group.cpu) as draining:
                subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)
                sink.wait(PATIENCE)
    return Row(accepting.result, draining.result)


def _wait_for_rest(group: ControlGroup) -> None:
    """Until the system has nothing to do but to wait. Raises `UnfinishedError` for one that never rests."""
    used, end = LOOK, time.monotonic() + PATIENCE
    while used > AT_REST * LOOK:
        if time.monotonic() > end:
            raise UnfinishedError(f"it did not come to rest within {PATIENCE:.0f} s")
        before = group.cpu()
        time.sleep(LOOK)
        used = group.cpu() - before


def main() -> int:
    options = traffic_options("bench.outage", messages=20_000, rounds=2).parse_args()
    systems = [each for each in SYSTEMS if options.only.lower() in each.name.lower()]
    print(f"{machine()}; {options.size} octets, {options.sessions} sessions; durable queues")
    for system in systems:
        print(f"    {system.name}: {system.configuration}")
    rows: dict[str, Row] = {}
    failed = []
    with network(1) as net:
        for system in systems * options.rounds:
            messages = min(options.messages, system.capacity)
            try:
                one = outage(system, net, Traffic(messages, options.sessions, options.size))
            except (UnfinishedError, subprocess.SubprocessError) as error:
                failed.append(f"{system.name}: {error}")
                continue
            rows.setdefault(system.name, one).improve(one)
    print("\naccepting, the next hop refuses connections")
    print_table([each.accepted for each in rows.values()])
    print("\ndraining, from the command to the last message")
    print_table([each.drained for each in rows.values()])
    for each in failed:
        print(f"a round failed: {each}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
