"""All benches, one after the other, each in a process of its own: `make bench`.

Figures are ratios within one run of one bench; a machine's own speed says little. What each measures, and how the other
programs were configured, stands at the top of its module.
"""

from __future__ import annotations

import subprocess
import sys

BENCHES = (
    "peers",
    "channel",
    "session",
    "pool",
    "endpoint",
    "queue",
    "relay",
    "destinations",
    "delay",
    "growth",
    "outage",
)


def main() -> int:
    """Run all; the number of those that failed."""
    failed = 0
    for name in BENCHES:
        print(f"\n== bench.{name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
