"""Asks from the root down, in a network where the root's addresses are ours; started by `test_validation`."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys

from mailrider.clock import SystemClock
from mailrider.dns.opening import open_resolver
from mailrider.dns.settings import DNSSettings
from mailrider.model.event import discard
from tests.peers.hierarchy import start_hierarchy
from tests.peers.test_validation import ZONES, status

# The servers of the root, a to m; b moved in 2023, and not every library knows.
ROOT_SERVERS = (
    *("198.41.0.4", "170.247.170.2", "199.9.14.201", "192.33.4.12", "199.7.91.13", "192.203.230.10", "192.5.5.241"),
    *("192.112.36.4", "198.97.190.53", "192.36.148.17", "192.58.128.30", "193.0.14.129", "199.7.83.42", "202.12.27.33"),
)


async def main() -> None:
    for command in ("link set lo up", *(f"addr add {address}/32 dev lo" for address in ROOT_SERVERS)):
        subprocess.run(["ip", *command.split()], check=True, timeout=200)
    first, *others = ROOT_SERVERS
    with start_hierarchy(ZONES, authority=first, also=others) as root:
        settings = DNSSettings(server="recursive", validate="yes", trust_anchor=[root.anchor])
        async with open_resolver(settings, SystemClock(), random.SystemRandom(), discard) as resolver:
            names = ("ecdsa.test", "unsigned.test", "expired.test")
            sys.stdout.write(json.dumps({name: await status(resolver, name, "MX") for name in names}))


if __name__ == "__main__":
    asyncio.run(main())
