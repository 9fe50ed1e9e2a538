"""A loopback of one's own: tests that run side by side use the same addresses and ports, and do not meet.

Linux only, as root; see namespaces(7) and network_namespaces(7).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

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
