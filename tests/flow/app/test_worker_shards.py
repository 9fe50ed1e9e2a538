"""Workers and their shards, as real processes: fewer of them deliver what more have left, and commands reach all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from mailrider.clock import SystemClock
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXScript, Stage
from mailrider.model.daemon_event import Reloaded
from mailrider.queue.ids import place_of
from mailrider.queue.message import EVERYTHING
from mailrider.queue.sqlite.shards import ShardsReader, shards_in
from tests.flow.app.running import running, submit
from tests.flow.app.test_run import configuration
from tests.flow.app.test_workers import supervised, with_workers
from tests.support.loopback import free_port
from tests.support.loops import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.smtp.commands import Command


class Reluctant:
    """A server that takes mail from the moment at which it is told to."""

    def __init__(self) -> None:
        self.takes = False

    def recipient(self, _: Command) -> str | None:
        return None if self.takes else "450 4.2.0 Later"

    @property
    def script(self) -> MXScript:
        return MXScript(replies={Stage.RCPT: self.recipient})


async def waiting(tmp_path: Path) -> dict[str, int]:
    """The recipients that were tried once and wait, each with the shard that took it in."""
    reader = ShardsReader(tmp_path / "state/queue", SystemClock())
    found = [each async for each in reader.entries(EVERYTHING)]
    return {each.recipient: place_of(each.message_id) for each in found if each.progress.tries and each.state == 0}


async def fill(tmp_path: Path, port: int, shards: set[int]) -> set[str]:
    """Mail that waits in each of these shards; the recipients."""
    sent = 0
    while set((await waiting(tmp_path)).values()) != shards or len(await waiting(tmp_path)) < sent:
        if sent < 200:
            await submit(port, f"b{sent}@d{sent}.example")
            sent += 1
        else:
            await asyncio.sleep(0.02)
    return set(await waiting(tmp_path))


async def queue(tmp_path: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mailrider",
        "-c",
        str(tmp_path / "mailrider.conf"),
        "queue",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return said.decode()


def arrived(mx: LabMX) -> list[str]:
    return sorted(message.addresses[0] for message in mx.messages)


async def test_what_three_workers_have_two_deliver_after_a_reload(tmp_path: Path) -> None:
    port, server = free_port(), Reluctant()
    async with LabMX(server.script) as mx, supervised(with_workers(tmp_path, port, mx, 3)) as it:
        recipients = await fill(tmp_path, port, {0, 1, 2})
        with_workers(tmp_path, port, mx, 2)
        os.kill(os.getpid(), signal.SIGHUP)
        await it.until(Reloaded)
        server.takes = True
        assert f"{len(recipients)} recipients tried again now" in await queue(tmp_path, "retry", "--all")
        await eventually(lambda: len(arrived(mx)) >= len(recipients))
        assert arrived(mx) == sorted(recipients)


async def test_what_three_workers_have_one_process_delivers_after_a_restart(tmp_path: Path) -> None:
    port, server = free_port(), Reluctant()
    async with LabMX(server.script) as mx:
        async with supervised(with_workers(tmp_path, port, mx, 3)):
            recipients = await fill(tmp_path, port, {0, 1, 2})
            assert "is in use: stop the daemon" in await queue(tmp_path, "merge")
        assert shards_in(tmp_path / "state/queue") == [0, 1, 2]
        server.takes = True
        async with running(configuration(tmp_path, port, mx)) as daemon:
            await queue(tmp_path, "retry", "--all")
            await eventually(lambda: len(arrived(mx)) >= len(recipients))
            assert "is in use: stop the daemon" in await queue(tmp_path, "merge")
            assert await daemon.stop() == 0
        assert arrived(mx) == sorted(recipients)
        assert await queue(tmp_path, "merge") == "0 messages moved from 2 shards\n"
