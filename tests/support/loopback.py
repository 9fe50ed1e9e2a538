"""A loopback of one's own: tests that run side by side use the same addresses and ports, and do not meet.

Linux only, as root; see namespaces(7) and network_namespaces(7). Within a process each test has addresses and ports of
its own, as anybody may have them.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import socket
import struct
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 0x1
_INTERFACE_FLAGS = "16sh14x"  # struct ifreq, as far as flags need it


def leave_network() -> None:
    """This process, and those that it starts from now on, have a network of their own: a loopback and nothing else."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack(_INTERFACE_FLAGS, b"lo", 0)
        _, flags = struct.unpack(_INTERFACE_FLAGS, fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack(_INTERFACE_FLAGS, b"lo", flags | IFF_UP))


_numbers = itertools.count(1)


def new_address() -> str:
    """A loopback address that no other test of this process uses."""
    number = next(_numbers)
    return f"127.{60 + os.getpid() % 60}.{number // 250}.{number % 250 + 1}"


def free_port() -> int:
    """A port that is free on every address, and that nobody is given before whoever asked for it takes it: no other
    test of this process, nor who leaves the choice to the system, for it is below those that the system chooses."""
    return next(port for port in _ports() if _is_free(port))


@cache
def _ports() -> Iterator[int]:
    """Each of them, again and again, from a place on that depends on the process."""
    first_of_system, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    ports = range(int(first_of_system) // 2, int(first_of_system))
    begin = os.getpid() * 101 % len(ports)
    return itertools.cycle([*ports[begin:], *ports[:begin]])


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                return False
    return True
