"""Telling other processes that there is work: a datagram to each that listens (SQLite itself notifies nobody).

Every process that runs deliveries binds a socket of its own in `runtime_dir`, named after the queue; whoever adds or
changes something sends a signal to all of them. A signal that is lost does no harm: the store is looked at now
and then.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import itertools
import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Self

from mailrider.files import PRIVATE_FILE, make_folder, set_mode
from mailrider.model.queue_event import OperatorActed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mailrider.model.event import Emit

_WORKER: Final = "w"  # in the names of workers' sockets; others go on with a digit
_numbers = itertools.count(1)  # of the listeners of this process

ACT: Final = b"act "  # what an operator did follows, as JSON
MAX_ACT: Final = 2048  # octets of it
MOST_ACTS: Final = 16  # that are read before others have their turn

MAX_LISTENERS: Final = 2048  # that are told: as many as there are places of workers, and of processes beside them


class Signal(enum.Enum):
    """What another process may be told."""

    LOOK = b"look"  # something was added or changed
    RETRY = b"retry"  # an operator wants closed destinations to be tried at once


@dataclass(frozen=True, slots=True)
class QueueDirectory:
    """Where a queue is: its directory, and that for sockets. `is_worker`: the daemon opens it."""

    location: Path
    runtime_dir: Path
    is_worker: bool = False

    def send(self, signal: Signal) -> int:
        """Tell all who listen; returns how many there are. Never fails."""
        return self._tell_all(signal.value)

    def send_act(self, acted: OperatorActed) -> int:
        """Tell all who listen what an operator did: for their logs. Of the workers of a daemon, who have one log, one
        is told. What is too long is not told. Never fails."""
        octets = json.dumps({each.name: getattr(acted, each.name) for each in fields(acted)}).encode()
        return self._tell_all(ACT + octets, one_worker=True) if len(octets) <= MAX_ACT else 0

    @property
    def prefix(self) -> str:
        """How the names of its sockets begin."""
        return f"queue-{hashlib.sha256(os.path.realpath(self.location).encode()).hexdigest()[:10]}-"

    def _tell_all(self, octets: bytes, *, one_worker: bool = False) -> int:
        told = 0
        workers, knows_a_worker = f"{self.prefix}{_WORKER}", False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                for path in sorted(self.runtime_dir.glob(f"{self.prefix}*"))[:MAX_LISTENERS]:
                    is_worker = path.name.startswith(workers)
                    if is_worker and knows_a_worker and one_worker:
                        continue
                    if _tell(sender, path, octets):
                        told += 1
                        knows_a_worker |= is_worker
        except OSError:
            return told
        return told


def _tell(sender: socket.socket, path: Path, octets: bytes) -> bool:
    try:
        sender.sendto(octets, str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)  # its process died without removing it
        return False
    except OSError:
        # Its buffer is full, so it has been told; or it is somebody else's.
        return False
    return True


class SignalListener:
    """Hears the signals of others, while it is entered. Where the socket cannot be, nothing is heard."""

    def __init__(self, place: QueueDirectory, hear: Callable[[Signal], None], emit: Emit) -> None:
        """What an operator did with another process of ours is emitted."""
        kind = _WORKER if place.is_worker else ""
        self._path = place.runtime_dir / f"{place.prefix}{kind}{os.getpid()}-{next(_numbers)}"
        self._hear = hear
        self._emit = emit
        self._socket: socket.socket | None = None

    async def __aenter__(self) -> Self:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            listener.setblocking(False)
            # Others may need the folder: the socket of `submission` is there for everybody.
            make_folder(self._path.parent, 0o755)
            listener.bind(str(self._path))
            set_mode(self._path, PRIVATE_FILE)
            asyncio.get_running_loop().add_reader(listener.fileno(), self._receive)
        except OSError:
            # No such directory can be made, or its name is too long for a socket: the store is looked at instead.
            listener.close()
        else:
            self._socket = listener
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)

    def _receive(self) -> None:
        signals: set[Signal] = set()
        try:
            acts = 0
            while self._socket is not None and len(signals) < len(Signal) and acts < MOST_ACTS:
                octets = self._socket.recv(len(ACT) + MAX_ACT)
                if octets.startswith(ACT):
                    acts += 1
                    with suppress(ValueError, TypeError):
                        self._emit(OperatorActed(**json.loads(octets.removeprefix(ACT))))
                signals |= {signal for signal in Signal if signal.value == octets}
        except OSError:
            # Nothing more to read.
            pass
        for signal in signals:
            self._hear(signal)
