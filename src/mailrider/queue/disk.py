"""The disk that a store is on: how much of it is left, and the space that we hold for when nothing is.

New mail is refused while less than a reserve is free, so a queue alone never fills its disk. Where others fill it, what
is queued still has to move, and even a deletion is a write:

- the write-ahead log gets its space when a store is opened, and is written over from then on (`hold_log`);
- a spare file (`queue.spare`) is given up piece by piece, for what makes the database itself longer (`release`), and
  is made again when there is space (`fill_spare_file`).

Nothing here raises: what the system does not tell or cannot do leaves a store as if there were no reserve.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mailrider.files import PRIVATE_FILE, follow_owner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPARE_FILE: Final = "queue.spare"
SPARE: Final = 8 << 20  # octets of the spare file
LOG: Final = 4 << 20  # octets of log that are held: as much as is written before the log is carried over
SHARED: Final = 64 << 10  # octets that SQLite needs to open the log: its index, a page of the log itself
PIECES: Final = 8  # in which the spare file is given up
SMALL: Final = 16  # on a small disk the spare file has at most one part in so many; the log half of it

LARGE: Final = 1 << 30  # octets of a disk on which the log may be as long as is fast
SHORTEST: Final = 1 / 16  # still longer than what is held

PART: Final = 20  # the reserve is one part in so many of the disk, if nobody says otherwise,
MOST: Final = 1 << 30  # and at most so many octets

TWICE: Final = 2  # new mail is written to the log, and to the file when the log is carried over
ROWS: Final = 12 << 10  # octets beside its own that new mail takes: pages of tables and indexes that its commit changes
LARGE_MAIL: Final = 32 << 20  # octets
LOOKED: Final = 0.1  # seconds for which it is believed how much is free,
FILES: Final = 8  # files that can be made, at least: with fewer a disk is full as well


class Disk:
    """The disk under the directory `location`. `reserve`: in octets; None: what suits the disk."""

    def __init__(self, location: Path, reserve: int | None, monotonic: Callable[[], float]) -> None:
        self._location = location
        self._spare = location / SPARE_FILE
        self._wanted = reserve
        self._monotonic = monotonic
        self._size = 0
        self._looks_at = 0.0
        self._room = 0  # octets that may be taken before it is looked at again
        self.free = 0
        self.coming = 0  # octets that were taken and are not written yet
        self.left = 0  # of it, or of the file, for new mail

    # New mail --------------------------------------------------------------------------------------------------------

    @property
    def reserve(self) -> int:
        """Octets that new mail leaves free."""
        return min(self._size // PART, MOST) if self._wanted is None else self._wanted

    @property
    def scale(self) -> float:
        """1, or less on a small disk: the log is kept as much shorter there."""
        return min(1.0, max(SHORTEST, self._size / LARGE)) if self._size else 1.0

    def take(self, octets: int, uncarried: int) -> bool:
        """Take space for so many octets of new mail; False: that is too much, as far as is known.

        `uncarried`: octets that stand in the log only; the file needs space for them as well.
        """
        if self._monotonic() >= self._looks_at and not self.count(-uncarried):
            return True
        octets *= TWICE
        if octets > self._room:
            return False
        self._room -= octets
        return True

    def count(self, usable: int) -> bool:
        """Look how much there is for new mail, with so many octets that are usable in the file. False: nobody knows."""
        if not self.look():
            return False
        self._looks_at = self._monotonic() + LOOKED
        self.left = max(0, self.free + usable - TWICE * self.coming)
        self._room = self.left - self.reserve
        return True

    def has_plenty_again(self) -> bool:
        """True if a disk that was short has space, as last counted, for more than small mail beside the reserve."""
        return self._room >= min(self.reserve, TWICE * LARGE_MAIL)

    def look(self) -> bool:
        """Ask the system how much is free. False: it does not tell."""
        try:
            found = os.statvfs(self._location)
        except OSError:
            return False
        self._size = found.f_blocks * found.f_frsize
        no_files = found.f_files > 0 and found.f_favail < FILES
        self.free = 0 if no_files else found.f_bavail * found.f_frsize
        return True

    # Held space ------------------------------------------------------------------------------------------------------

    def fill_spare_file(self) -> bool:
        """Make the spare file as long as it should be, if there is plenty of space; True if it is."""
        wanted = self._share(SPARE)
        if not self.is_tight() and self.spare < wanted:
            _allocate(self._spare, wanted)
        return self.spare >= wanted

    def is_tight(self) -> bool:
        """True if there is not plenty of space: what is free has to be given back to the system."""
        return not self.look() or self.free < self.reserve + 2 * self._share(SPARE)

    @property
    def spare(self) -> int:
        """Octets that the spare file still holds."""
        return _length(self._spare)

    def release(self) -> bool:
        """Give up a piece of the spare file. False: nothing is left of it."""
        length = self.spare
        if not length:
            return False
        piece = max(self._share(SPARE) // PIECES, SHARED)
        try:
            os.truncate(self._spare, max(0, length - piece))
        except OSError:
            return False
        return True

    def make_way(self, log: Path) -> None:
        """Before a store is opened: see to it that the log can be."""
        self.look()
        while self.free < self._share(LOG) + SHARED and not _length(log) and self.release():
            self.look()

    def hold_log(self, log: Path) -> None:
        """Give an empty log its space, or as much as there is: SQLite does not read what it did not write."""
        wanted = self._share(LOG)
        while wanted >= SHARED and not _length(log):
            _allocate(log, wanted)
            wanted //= 2

    def _share(self, octets: int) -> int:
        return min(octets, self._size // SMALL)


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _allocate(path: Path, octets: int) -> None:
    """Make a file longer, with octets that are really there, unless there is no space or the system cannot."""
    with suppress(OSError, AttributeError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
        try:
            length = os.fstat(descriptor).st_size
            if not length:
                follow_owner(descriptor, path.parent)
            os.posix_fallocate(descriptor, length, max(1, octets - length))
        finally:
            os.close(descriptor)
