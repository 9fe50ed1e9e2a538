"""Telling other processes that there is work: a datagram to each that listens (SQLite itself notifies nobody).

Every process that runs deliveries binds a socket of its own in `runtime_dir`, named after the queue; whoever adds or
changes something sends a signal to all of them. A signal that is lost does no
harm: the store is looked at now and then.
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


def _prefix(location: Path) -> str:
    return f"queue-{hashlib.sha256(str(location.resolve()).encode()).hexdigest()[:10]}-"


def send_signal(runtime_dir: Path, location: Path, signal: Signal = Signal.LOOK) -> int:
    """Tell all who listen; returns how many there are. Never fails."""
    return _tell_all(runtime_dir, location, signal.value)


def send_act(runtime_dir: Path, location: Path, act: bytes) -> int:
    """Tell all who listen what an operator did: for their logs. Of the workers of a daemon, who have one log, one is
    told. What is too long is not told. Never fails."""
    return _tell_all(runtime_dir, location, ACT + act, one_worker=True) if len(act) <= MAX_ACT else 0


def _tell_all(runtime_dir: Path, location: Path, octets: bytes, *, one_worker: bool = False) -> int:
    told = 0
    workers, knows_a_worker = f"{_prefix(location)}{_WORKER}", False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for path in sorted(runtime_dir.glob(f"{_prefix(location)}*"))[:MAX_LISTENERS]:
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

    def __init__(
        self,
        runtime_dir: Path,
        location: Path,
        hear: Callable[[Signal], None],
        hear_act: Callable[[bytes], None] = lambda _: None,
        *,
        is_worker: bool = False,
    ) -> None:
        """`is_worker`: of the daemon of this queue."""
        kind = _WORKER if is_worker else ""
        self._path = runtime_dir / f"{_prefix(location)}{kind}{os.getpid()}-{next(_numbers)}"
        self._hear = hear
        self._hear_act = hear_act
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
                    self._hear_act(octets.removeprefix(ACT))
                signals |= {signal for signal in Signal if signal.value == octets}
        except OSError:
            # Nothing more to read.
            pass
        for signal in signals:
            self._hear(signal)


@dataclass(frozen=True, slots=True)
class QueueDirectory:
    """Where a queue is: its directory, and that for sockets. `is_worker`: the daemon opens it."""

    location: Path
    runtime_dir: Path
    is_worker: bool = False

    def send(self, signal: Signal) -> None:
        """Tell all who listen."""
        send_signal(self.runtime_dir, self.location, signal)

    def send_act(self, acted: OperatorActed) -> None:
        """Tell all who listen what an operator did."""
        octets = json.dumps({each.name: getattr(acted, each.name) for each in fields(acted)}).encode()
        send_act(self.runtime_dir, self.location, octets)

    def listener(self, hear: Callable[[Signal], None], emit: Emit) -> SignalListener:
        """Hears the signals of others; what an operator did with another process of ours is emitted."""

        def hear_act(octets: bytes) -> None:
            with suppress(ValueError, TypeError):
                emit(OperatorActed(**json.loads(octets)))

        return SignalListener(self.runtime_dir, self.location, hear, hear_act, is_worker=self.is_worker)
