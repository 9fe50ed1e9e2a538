"""The daemon killed, stopped and reloaded while it accepts and delivers: whatever got its 250 arrives."""

from __future__ import annotations

import asyncio
import itertools
import signal
from typing import TYPE_CHECKING

import pytest

from mailrider.lab.mx import LabMX
from tests.flow.app.running import MESSAGE, running, submit
from tests.flow.app.test_run import configuration
from tests.support.loopback import free_port
from tests.support.loops import eventually

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = 4


class Load:
    """Clients that submit one message after the other, until nobody is there any more or they are told to stop."""

    def __init__(self, port: int) -> None:
        self.accepted: list[str] = []
        self._port = port
        self._numbers = itertools.count()
        self._over = False
        self._clients = [asyncio.ensure_future(self._submit()) for _ in range(CLIENTS)]

    async def _submit(self) -> None:
        while not self._over:
            recipient = f"b{next(self._numbers)}@example.net"
            try:
                await submit(self._port, recipient, MESSAGE + b"x" * 100 + b"\r\n")
            except ConnectionRefusedError:
                return
            except OSError:  # SMTPException is one: a 421, or a connection that was cut
                continue
            self.accepted.append(recipient)

    async def stop(self) -> None:
        self._over = True
        await asyncio.gather(*self._clients)


def arrived(mx: LabMX) -> list[str]:
    return [message.addresses[0] for message in mx.messages]


@pytest.mark.parametrize("enough", [1, 25])
async def test_what_got_its_250_arrives_though_the_daemon_is_killed_under_load(tmp_path: Path, enough: int) -> None:
    port = free_port()
    async with LabMX() as mx:
        config = configuration(tmp_path, port, mx)
        async with running(config) as daemon:
            load = Load(port)
            await eventually(lambda: len(load.accepted) >= enough)
            await daemon.stop(signal.SIGKILL)
            await load.stop()
        async with running(config) as daemon:
            await eventually(lambda: set(load.accepted) <= set(arrived(mx)))
            assert await daemon.stop() == 0


async def test_who_stops_it_under_load_loses_and_repeats_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx:
        config = configuration(tmp_path, port, mx)
        async with running(config) as daemon:
            load = Load(port)
            await eventually(lambda: len(load.accepted) >= 25)
            assert await daemon.stop() == 0
            await load.stop()
        async with running(config) as daemon:
            await eventually(lambda: set(load.accepted) <= set(arrived(mx)))
            assert await daemon.stop() == 0
        assert len(set(arrived(mx))) == len(arrived(mx))


async def test_who_reloads_it_under_load_loses_and_repeats_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with LabMX() as mx:
        async with running(configuration(tmp_path, port, mx)) as daemon:
            load = Load(port)
            for _ in range(5):
                before = len(load.accepted)
                await eventually(lambda least=before + 5: len(load.accepted) >= least)  # type: ignore[misc]
                daemon.process.send_signal(signal.SIGHUP)
                await daemon.line("reloaded")
            before = len(load.accepted)
            await eventually(lambda: len(load.accepted) > before)
            await load.stop()
            await eventually(lambda: set(load.accepted) <= set(arrived(mx)))
            assert await daemon.stop() == 0
        assert len(set(arrived(mx))) == len(arrived(mx))
