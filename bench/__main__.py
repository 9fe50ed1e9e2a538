"""All benches, one after the other, each in a process of its own: `make bench`.

Figures are ratios within one run of one bench; a machine's own speed says little. What each measures, and how the other
programs were configured, stands at the top of its module. One that fails says why, and the others go on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

BENCHES = ("peers", "channel", "session", "pool", "endpoint", "queue", "tarpit", "startup", "tls_reports")
WITH_SYSTEMS = {  # and what differs from their defaults, so that all of it takes less than half an hour
    "relay": ["--rounds", "1"],
    "destinations": ["--rounds", "1"],
    "delay": ["--seconds", "6"],
    "growth": ["--most", "100000", "--messages", "4000", "--rounds", "1"],
    "outage": ["--rounds", "1"],
    "validation": ["--rounds", "1"],
}
LONGEST = 1200.0  # seconds for one bench
FAREWELL = 60.0  # seconds in which it stops what it started


def run(name: str, options: list[str]) -> bool:
    """Run one; whether it ended well."""
    print(f"\n== bench.{' '.join([name, *options])}", flush=True)
    with subprocess.Popen([sys.executable, "-m", f"bench.{name}", *options]) as process:
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            print(f"bench.{name}: not finished within {LONGEST:.0f} s", file=sys.stderr, flush=True)
            process.send_signal(signal.SIGINT)
            try:
                code = process.wait(FAREWELL)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            return False
    if code:
        print(f"bench.{name}: failed, with {code}", file=sys.stderr, flush=True)
    return code == 0


def main() -> int:
    """Run all; 1 if one of them failed."""
    results = [run(name, []) for name in BENCHES]
    if os.geteuid() == 0:
        results += [run(name, options) for name, options in WITH_SYSTEMS.items()]
    else:
        print(f"\nleft out, since they need root: {', '.join(WITH_SYSTEMS)}")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
