"""The daemon killed while it accepts and delivers: whatever got its 250 arrives."""

from __future__ import annotations

import asyncio
import itertools
import signal
from typing import TYPE_CHECKING

import pytest

from mailrider.lab.mx import LabMX
from tests.flow.daemon.running import free_port, running, submit
from tests.flow.daemon.test_run import configuration
from tests.support.loops import eventually

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = 4


@pytest.mark.parametrize("enough", [1, 25])
async def test_what_got_its_250_arrives_though_the_daemon_is_killed_under_load(tmp_path: Path, enough: int) -> None:
    port = free_port()
    numbers = itertools.count()
    accepted: list[str] = []

    async def client() -> None:
        while True:
            recipient = f"b{next(numbers)}@example.net"
            try:
                await submit(port, recipient)
            except OSError:  # SMTPException is one: the daemon is gone
                return
            accepted.append(recipient)

    async with LabMX() as mx:
        config = configuration(tmp_path, port, mx)
        async with running(config) as daemon:
            clients = [asyncio.ensure_future(client()) for _ in range(CLIENTS)]
            await eventually(lambda: len(accepted) >= enough)
            await daemon.stop(signal.SIGKILL)
            await asyncio.gather(*clients)
        async with running(config) as daemon:
            await eventually(lambda: set(accepted) <= {message.addresses[0] for message in mx.messages})
            assert await daemon.stop() == 0
