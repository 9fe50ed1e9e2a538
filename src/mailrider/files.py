"""Files and folders that are ours alone, and stay ours whoever runs the command that makes them.

What root makes (`mailrider auth add`, `queue`, `send --queue`) belongs to whom the folder belongs to: the daemon that
runs as another user has to be able to use it. What is private is so from the first moment, whatever the umask says.

A symbolic link in the place of one of our files is refused, and never followed: whoever has broken into the daemon owns
its folder, and a command of root would change, empty or give away whatever file the link leads to.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

PRIVATE_FILE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO  # the rights of everybody but the owner


def make_folder(path: Path, mode: int = PRIVATE_FOLDER) -> None:
    """Make a folder and those above it, if it is not there. Raises `OSError`."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent, mode)
    path.mkdir(mode=mode, exist_ok=True)
    follow_owner(path, path.parent)


def make_private(path: Path) -> None:
    """Make a file that only its owner can read, and take the others' rights from one that is there.

    Raises `OSError` if it cannot be made, or is a link; one that is there and not ours stays as it is.
    """
    refuse_link(path)
    with suppress(FileExistsError):
        opened = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            follow_owner(opened, path.parent)
        finally:
            os.close(opened)
    with suppress(OSError):
        mode = path.lstat().st_mode
        if mode & OTHERS:
            set_mode(path, stat.S_IMODE(mode) & ~OTHERS)


def write_new(path: Path, octets: bytes, mode: int = PRIVATE_FILE) -> None:
    """Make a file that is its folder's owner's, and see it on the disk. Raises `OSError`, also if one is there."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    with open(path, "xb", opener=lambda name, given: os.open(name, given | flags, mode)) as file:
        follow_owner(file.fileno(), path.parent)
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())


def set_mode(path: Path, mode: int) -> None:
    """Give rights to what stands there itself: no link is followed, whenever it was put there. Raises `OSError`."""
    if sys.platform != "linux":
        os.chmod(path, mode, follow_symlinks=False)
        return
    opened = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISLNK(os.fstat(opened).st_mode):
            raise _link(path)
        # Such a descriptor is a name that nobody can change; fchmod(2) does not take it, and SQLite's locks survive it.
        os.chmod(f"/proc/self/fd/{opened}", mode)
    finally:
        os.close(opened)


def refuse_link(path: Path) -> None:
    """Raise `OSError` if a symbolic link stands there."""
    if path.is_symlink():
        raise _link(path)


def _link(path: Path) -> OSError:
    return OSError(errno.ELOOP, "it is a symbolic link, which is not followed", str(path))


def read_regular(path: Path, most: int, *, follow: bool = True) -> tuple[bytes, os.stat_result]:
    """The first `most` octets of a regular file, and what it is; not of one that a link leads to, unless `follow`.

    Raises `OSError`, also for what is no such file.
    """
    # Without O_NONBLOCK a pipe of that name would keep us waiting.
    flags = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        with open(path, "rb", opener=lambda name, given: os.open(name, given | flags)) as file:
            info = os.fstat(file.fileno())
            if stat.S_ISREG(info.st_mode):
                return file.read(most), info
    except IsADirectoryError:
        pass
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


class FileStamp(NamedTuple):
    """What tells one state of a file from another."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, info: os.stat_result) -> FileStamp:
        """The stamp of a file, from its status."""
        return cls(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def error_text(error: OSError) -> str:
    """What the system says, with the path; where a right is missing, whose it is, and who we are."""
    reason = error.strerror or str(error)
    if not isinstance(error.filename, str):
        return reason
    text = f"{error.filename}: {reason}"
    if isinstance(error, PermissionError):
        for each in (Path(error.filename), *Path(error.filename).parents):
            with suppress(OSError):
                owner, own = each.stat().st_uid, os.geteuid()
                return text if owner == own else f"{text}; {each} belongs to {_name(owner)}, and we run as {_name(own)}"
    return text


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def follow_owner(path: Path | int, folder: Path) -> None:
    """What root has made (a path or an open file) goes to the folder's owner; others can give nothing away."""
    if os.geteuid() == 0:
        owner = folder.stat()
        if isinstance(path, int):
            os.fchown(path, owner.st_uid, owner.st_gid)
        else:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
