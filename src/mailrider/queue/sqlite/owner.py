"""Who holds a lease: a process, told apart from all others, and whether it still lives.

A process id alone says little, since it is used again: with the boot, the pid namespace and the time of its start it
names one process for ever. What cannot be known (a process of another namespace, one that /proc hides from us, a system
without /proc) is not guessed: there the expiry of the registration decides.
"""

from __future__ import annotations

import enum
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


class Liveness(enum.Enum):
    """What is known of a process."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Identity:
    """A process. `boot` and `namespace` are empty where the system does not tell."""

    boot: str
    namespace: str
    pid: int
    start: str

    @classmethod
    def own(cls) -> Identity:
        """This process."""
        pid = os.getpid()
        return cls(current_boot(), _namespace(), pid, _start(pid) or "")

    def encode(self) -> str:
        """As a store keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Identity:
        """The inverse."""
        return cls(**json.loads(text))

    def liveness(self) -> Liveness:
        """Whether it still runs, as seen from this process."""
        if self.boot and current_boot() and self.boot != current_boot():
            return Liveness.DEAD
        if not self.namespace or self.namespace != _namespace() or not self.start:
            return Liveness.UNKNOWN
        if _start(self.pid) == self.start:
            return Liveness.ALIVE
        return Liveness.UNKNOWN if _is_hidden(self.pid) else Liveness.DEAD


def current_boot() -> str:
    """The boot that this is; empty where the system does not tell."""
    return _read(Path("/proc/sys/kernel/random/boot_id")).strip()


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""


def _start(pid: int) -> str | None:
    """The time of its start in ticks since the boot; None if there is no such process to be seen, or a zombie only."""
    # proc(5): the second field is the name in parentheses, which may hold anything; the third is the state.
    fields = _stat(pid).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else None


def _is_hidden(pid: int) -> bool:
    """True if there is such a process, and /proc does not show it: another user's (hidepid, ProtectProc=)."""
    if _stat(pid):
        return False
    try:
        os.kill(pid, 0)  # only asks whether it could be
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _stat(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/stat"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
