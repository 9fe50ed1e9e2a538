"""mailrider on a machine whose clock is set while it runs: how far it is off stands in a file (see test_chaos.py).

The file is mapped into memory, so that it can be read without a descriptor. A supervisor that is told so starts a
worker again after a second, however often it has died (see test_workers.py).
"""

from __future__ import annotations

import mmap
import os
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mailrider import cli, clock
from mailrider.app import supervision

if TYPE_CHECKING:
    from collections.abc import Sequence

OFFSET = struct.Struct("=d")  # seconds
VARIABLE = "MAILRIDER_TEST_CLOCK"
QUICK_RESTARTS = "MAILRIDER_TEST_QUICK_RESTARTS"


def set_clock(path: Path, seconds: float) -> None:
    """Every process with this file is that far off from now on."""
    if not path.exists():
        path.write_bytes(OFFSET.pack(0))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), OFFSET.size) as memory:
        OFFSET.pack_into(memory, 0, seconds)


def follow(path: Path) -> None:
    """The wall clock of this process is that of the file."""
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), OFFSET.size, access=mmap.ACCESS_READ)

    def now(_: clock.SystemClock) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=OFFSET.unpack_from(memory)[0])

    clock.SystemClock.now = now  # type: ignore[assignment, method-assign]


def main(arguments: Sequence[str]) -> None:
    """The program, in a process of its own."""
    follow(Path(os.environ[VARIABLE]))
    if QUICK_RESTARTS in os.environ:
        supervision.LONGEST = supervision.SHORTEST  # type: ignore[misc]
    cli.main(arguments)
