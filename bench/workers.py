"""Where the processor time of workers goes: by process and thread, beside one process, under the load of `bench.relay`.

    python -m bench.workers                     # one process and two workers, one destination
    python -m bench.workers --domains 50 --messages 6000
    python -m bench.workers --new               # each message submitted and delivered on new connections
    python -m bench.workers --profile           # and which functions are called how often (slow)

A message's microseconds of processor time, how often the thread slept and was woken, how often another one took its
processor, and the frames that supervisor and worker exchanged (under the profile only). Wants root.
"""

from __future__ import annotations

import argparse
import os
import pstats
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.measure import machine
from bench.network import Traffic, counting_sink, network, send, wait_for
from bench.systems import MAILRIDER_TUNED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.network import Network
    from bench.systems import Mailrider, Relay

PROFILED = Path(__file__).parent / "profiled"
FRAMES = ("link.py", "_handle")
LEAST = 1.0  # microseconds a message: what is less is left out
SHOWN = 12  # functions of a profile


@dataclass(frozen=True, slots=True)
class Used:
    """What a thread has used until now."""

    cpu: float
    slept: int
    replaced: int

    @classmethod
    def read(cls, thread: Path) -> Used:
        """Of a folder of /proc."""
        switches = dict(line.split(":\t") for line in (thread / "status").read_text().splitlines() if "switch" in line)
        return cls(
            int((thread / "schedstat").read_text().split()[0]) / 1e9,
            int(switches["voluntary_ctxt_switches"]),
            int(switches["nonvoluntary_ctxt_switches"]),
        )


def used_by(relay: Relay) -> dict[tuple[int, int], Used]:
    """By process and thread, those of the supervisor first."""
    processes = sorted(relay.group.processes())
    threads = [path for process in processes for path in Path(f"/proc/{process}/task").iterdir()]
    return {(int(path.parts[2]), int(path.name)): Used.read(path) for path in threads}


def relay_and_count(system: Mailrider, net: Network, traffic: Traffic) -> None:
    """One round, and a line for each thread that took part."""
    with counting_sink(*net.sink_at, traffic.messages) as sink, system.start(net) as running:
        began, cpu, before = time.monotonic(), running.group.cpu(), used_by(running)
        wait_for(sink, send(traffic, running.address, running.port))
        wall, cpu, after = time.monotonic() - began, running.group.cpu() - cpu, used_by(running)
    count = traffic.messages
    print(f"\n{system.name}: {count / wall:.0f} a second, {cpu / count * 1000:.3f} ms of processor time a message")
    print(f"{'':26} {'cpu us':>8} {'slept':>7} {'replaced':>9}")
    for (process, thread), now in after.items():
        then = before.get((process, thread), Used(0.0, 0, 0))
        each = (now.cpu - then.cpu) / count * 1e6
        if each >= LEAST:
            name = f"process {process}" + ("" if process == thread else f", thread {thread}")
            slept, replaced = (now.slept - then.slept) / count, (now.replaced - then.replaced) / count
            print(f"{name:26} {each:8.1f} {slept:7.2f} {replaced:9.2f}")


@contextmanager
def profiled() -> Iterator[Path]:
    """Every Python that starts in the block writes its profile to the folder when it ends."""
    kept = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="mailrider-bench-") as folder:
        os.environ["MAILRIDER_BENCH_PROFILES"] = folder
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PROFILED), kept.get("PYTHONPATH"))))
        try:
            yield Path(folder)
        finally:
            os.environ.clear()
            os.environ.update(kept)


def print_profile(file: Path, messages: int) -> None:
    """What was called most, and how many frames came over the link; the start of the process is in it too."""
    calls: dict[tuple[str, int, str], tuple[Any, ...]] = vars(pstats.Stats(str(file)))["stats"]
    frames = sum(each[1] for (path, _, name), each in calls.items() if path.endswith(FRAMES[0]) and name == FRAMES[1])
    total = sum(each[1] for each in calls.values())
    print(f"\n{file.stem}: {total / messages:.0f} calls and {frames / messages:.3f} frames a message")
    longest = sorted(calls.items(), key=lambda item: -item[1][2])[:SHOWN]
    for (path, line, name), (_, number, own, *_) in longest:
        where = f"{Path(path).name}:{line} {name}" if line else name
        print(f"{own / messages * 1e6:8.1f} us {number / messages:8.2f} calls  {where}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--domains", type=int, default=1)
    parser.add_argument("--size", type=int, default=4096, help="payload octets")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--new", action="store_true", help="new connections for each message, in and out")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    traffic = Traffic(options.messages, options.sessions, options.size, options.domains, kept=not options.new)
    system = MAILRIDER_TUNED.without_reuse() if options.new else MAILRIDER_TUNED
    print(machine())
    with network(options.domains) as net:
        for workers in options.workers:
            one = system.with_workers(workers) if workers > 1 else system
            relay_and_count(one, net, traffic)
            if options.profile:
                with profiled() as folder:
                    relay_and_count(one, net, traffic)
                    for file in sorted(folder.iterdir()):
                        print_profile(file, traffic.messages)


if __name__ == "__main__":
    main()
