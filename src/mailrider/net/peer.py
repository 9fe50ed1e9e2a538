"""Who is at the other end of a unix socket: what the kernel knows, and nobody can pretend (SO_PEERCRED, Linux)."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailrider.net.channel import Channel

_UCRED = struct.Struct("=iII")
_SO_PEERCRED = getattr(socket, "SO_PEERCRED", None)


@dataclass(frozen=True, slots=True)
class PeerCredentials:
    """The process that connected, as it was then."""

    pid: int
    uid: int
    gid: int


def peer_credentials(channel: Channel) -> PeerCredentials | None:
    """Who connected to a channel on a unix socket; None on others, on a closed one, and where the system cannot say."""
    if channel.is_closed or _SO_PEERCRED is None:
        return None
    fileno = channel.fileno()
    try:
        # The transport's own socket stays the transport's: this one is a duplicate. (uvloop hides getsockopt.)
        with socket.socket(fileno=os.dup(fileno)) as same:
            if same.family != socket.AF_UNIX:
                return None
            return PeerCredentials(*_UCRED.unpack(same.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _UCRED.size)))
    except OSError:
        return None
