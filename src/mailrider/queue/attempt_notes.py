"""Which attempts a process has under way, noted so that others can read it after the process has died.

What is leased may only wait in memory; what was under way at a death may be its reason (`queue.sqlite.deaths`). The
notes are a file that is mapped into memory: a note costs no call of the system, and stays when the process ends.
"""

from __future__ import annotations

import mmap
import os
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mailrider.files import make_private

if TYPE_CHECKING:
    from pathlib import Path

PLACES: Final = 4096  # attempts that are noted; more of them at once are not
_EMPTY: Final = 0
_WIDTH: Final = 8  # octets of a number


class AttemptNotes:
    """Notes in a file."""

    def __init__(self, path: Path) -> None:
        """Make it anew. Raises `OSError`."""
        self._path = path
        path.unlink(missing_ok=True)
        make_private(path)
        opened = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.posix_fallocate(opened, 0, PLACES * _WIDTH)  # to write into a hole of a full disk would be a SIGBUS
            self._numbers = memoryview(mmap.mmap(opened, PLACES * _WIDTH)).cast("q")
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(opened)
        self._free = list(range(PLACES))

    def begin(self, recipient: int) -> int:
        """An attempt begins, and this is the first of its recipients; returns what `end` is to be given."""
        if not self._free:
            return -1
        place = self._free.pop()
        self._numbers[place] = recipient
        return place

    def end(self, place: int) -> None:
        """It has ended."""
        if place >= 0:
            self._numbers[place] = _EMPTY
            self._free.append(place)

    def forget(self) -> None:
        """A death is no attempt's fault from now on: this process has been told to stop."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_attempt_notes(path: Path) -> list[int]:
    """The first recipients of the attempts that were under way; none if nothing is known of them."""
    try:
        with path.open("rb") as file:
            octets = file.read(PLACES * _WIDTH)
    except OSError:
        return []
    numbers = array("q", octets[: len(octets) // _WIDTH * _WIDTH])
    return [number for number in numbers if number != _EMPTY]
