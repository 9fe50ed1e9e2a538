"""A log in a file, which may be moved away while it is written: `reopen` begins another under the same name."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from mailrider.errors import LocalError
from mailrider.files import PRIVATE_FILE

if TYPE_CHECKING:
    from pathlib import Path


class LogFile:
    """Appends text to a regular file that only its owner can read. `lost` lines so far."""

    def __init__(self, path: Path) -> None:
        """Raises `LocalError` if it cannot be opened, or is a symbolic link: see `mailrider.files`."""
        self.lost = 0
        self._path = path
        self._descriptor = _open(path)
        self._is_torn = False  # what stands last in the file is a part of a line

    def write(self, text: str) -> None:
        """Whole lines, one or many. Never fails."""
        rest = text.encode("utf-8", "backslashreplace")
        try:
            if self._is_torn:
                os.write(self._descriptor, b"\n")
                self._is_torn = False
            while rest:
                written = os.write(self._descriptor, rest)
                self._is_torn = rest[written - 1 : written] != b"\n"
                rest = rest[written:]
        except OSError:
            # The disk is full: mail matters more than its log.
            self.lost += rest.count(b"\n")

    def reopen(self) -> None:
        """Go on in whatever has the name now, or is made there. Raises `LocalError`; then it goes on as before."""
        opened = _open(self._path)
        os.close(self._descriptor)
        self._descriptor = opened
        self._is_torn = False

    def close(self) -> None:
        """No more is written."""
        os.close(self._descriptor)
        self._descriptor = -1


def _open(path: Path) -> int:
    # Without O_NONBLOCK a pipe of that name would keep us waiting.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        opened = os.open(path, flags, PRIVATE_FILE)
    except OSError as error:
        reason = "it is a symbolic link, which is not followed" if path.is_symlink() else error.strerror
        raise LocalError(f"cannot write the log to {path}: {reason}") from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise LocalError(f"cannot write the log to {path}: it is not a regular file")
    return opened
