"""Who connected to a unix socket."""

from __future__ import annotations

import os
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import SystemClock
from mailrider.net.dial import TCPDialer, UnixDialer
from mailrider.net.listen import Listener, listen, unix_socket
from mailrider.net.peer import PeerCredentials, peer_credentials
from tests.support.channels import Recorder
from tests.support.loops import LOOPS, eventually, run_clean

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.net.channel import Channel

CLOCK = SystemClock()
LOOPBACK = IPv4Address("127.0.0.1")


@pytest.mark.parametrize("loop", LOOPS)
def test_the_kernel_tells_who_connected_to_a_unix_socket(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        found: list[PeerCredentials | None] = []
        accepted: list[Channel] = []

        def accept(channel: Channel) -> Recorder:
            accepted.append(channel)
            found.append(peer_credentials(channel))
            return Recorder(channel)

        soon = CLOCK.monotonic() + 20
        async with Listener(CLOCK, accept) as local:
            await local.open_socket(unix_socket(tmp_path / "s", 0o600))
            channel = await UnixDialer(CLOCK, tmp_path / "s").connect(LOOPBACK, 0, soon)
            await eventually(lambda: bool(found))
            channel.abort()
        async with await listen(CLOCK, LOOPBACK, 0, accept) as listener:
            channel = await TCPDialer(CLOCK).connect(LOOPBACK, listener.port, soon)
            await eventually(lambda: len(found) == 2)
            channel.abort()
        assert found == [PeerCredentials(os.getpid(), os.getuid(), os.getgid()), None]
        assert peer_credentials(accepted[0]) is None

    run_clean(loop, scenario())
