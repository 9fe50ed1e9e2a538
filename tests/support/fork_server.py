"""A process that has imported mailrider, and forks itself into a program whenever it is asked: `tests.support.forked`.

To import all of mailrider takes a daemon, and each worker, most of a second of processor; a fork takes some
milliseconds. What runs is the same from then on. It serves until its standard input ends, and ends what it has started.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.support import forked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PRELOADED: Final = (
    "mailrider.cli.run",
    "mailrider.app.daemon",
    "mailrider.app.supervisor",
    "mailrider.app.worker",
    "mailrider.cli.queue",
    "mailrider.cli.send",
    "mailrider.cli.sendmail",
)
STDIN: Final = 0
STDERR: Final = 2
UCRED: Final = struct.Struct("3i")
LARGEST: Final = 1 << 20  # octets of an order
MOST: Final = 64  # descriptors that come with it


@dataclass(frozen=True, slots=True)
class Order:
    """What a fork is to be: `module:function` called with these arguments. `numbers`: those of its descriptors."""

    entry: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class Child:
    """A fork: the connection of who asked for it, and which process that is: as it were, its parent."""

    connection: socket.socket
    parent: int


def serve(listening: socket.socket) -> Order | None:
    """In each fork returns its order, in this process None at the end.

    Who asks sends an order and its descriptors; the answer is the process id, and once it has ended its exit code.
    Who sends the id of a process instead is told the forks that this process has asked for.
    """
    children: dict[int, Child] = {}
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno())
    poll = select.poll()
    for descriptor in (STDIN, listening.fileno(), woken.fileno()):
        poll.register(descriptor, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if woken.fileno() in ready:
            woken.recv(1000)
            _tell_ends(children)
        if listening.fileno() in ready:
            connection, _ = listening.accept()
            octets, descriptors, _, _ = socket.recv_fds(connection, LARGEST, MOST)
            if not descriptors:  # who asks for a process's children
                with connection:
                    _send(connection, *(pid for pid, child in children.items() if child.parent == int(octets)))
                continue
            if not (pid := os.fork()):
                for each in (listening, woken, wakes, connection, *(child.connection for child in children.values())):
                    each.close()
                order = Order(**json.loads(octets))
                _become(order, descriptors)
                return order
            for number in descriptors:
                os.close(number)
            children[pid] = Child(connection, _peer_of(connection))
            _send(connection, pid)
        if STDIN in ready:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            return None


def _peer_of(connection: socket.socket) -> int:
    """Its process id; see unix(7)."""
    pid, _, _ = UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return int(pid)


def _tell_ends(children: dict[int, Child]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with children.pop(pid).connection as connection:
            _send(connection, os.waitstatus_to_exitcode(status))


def _send(connection: socket.socket, *numbers: int) -> None:
    try:
        connection.send(" ".join(map(str, numbers)).encode() or b" ")
    except OSError:
        pass  # who asked is gone


def _become(order: Order, descriptors: list[int]) -> None:
    """From here on this process has nothing of the server but what it has imported."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    held = [fcntl.fcntl(each, fcntl.F_DUPFD, max(order.numbers) + 1) for each in descriptors]
    for each in descriptors:
        os.close(each)
    for each, number in zip(held, order.numbers, strict=True):
        os.dup2(each, number)
        os.close(each)
    sys.stdin = _opened(0, "rb")
    sys.stdout, sys.stderr = _opened(1, "wb"), _opened(2, "wb")
    os.chdir(order.directory)
    os.environ.clear()
    os.environ.update(order.environment)
    sys.argv[1:] = order.arguments


def _opened(number: int, mode: str) -> io.TextIOWrapper:
    """As the interpreter does it when it begins."""
    return io.TextIOWrapper(open(number, mode, closefd=False), line_buffering=number == STDERR)


def main(listening: socket.socket) -> int:
    """The exit code, of the server or of what a fork has become."""
    for each in PRELOADED:
        importlib.import_module(each)
    gc.collect()
    gc.freeze()  # forks need not look at it again
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    address = listening.getsockname()
    if (order := serve(listening)) is None:
        return 0
    forked.fork_workers_too(address)
    module, _, name = order.entry.partition(":")
    return int(getattr(importlib.import_module(module), name)(list(order.arguments)) or 0)


if __name__ == "__main__":
    sys.exit(main(socket.socket(fileno=int(sys.argv[1]))))
