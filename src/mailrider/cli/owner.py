"""Root's commands on a queue run as the user whom its directory belongs to.

Whoever has broken into the daemon owns that directory, and may change what is in it while a command opens it. A command
that runs as the same user can do nothing there that he could not do himself, and what it makes is that user's, too.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import click

import mailrider

PROGRAM = tuple(Path(str(each.__file__)) for each in (os, click, mailrider))  # there may be more to import later


def become_owner(*folders: Path) -> None:
    """Root becomes the user whom all of these belong to, for good: user, group and further groups.

    Nothing changes for anybody else; for folders of root or of several users; and where that user could not go on,
    because he cannot read this program or get at a folder, as in a home directory that is closed to others. What root
    makes belongs to the folder's owner then: see `mailrider.files`.
    """
    if os.geteuid() != 0:
        return
    there = [_nearest(each) for each in folders]
    owners = {_owner(each) for each in there}
    if len(owners) != 1:
        return
    user, group = owners.pop()
    if user == 0:
        return
    try:
        known = pwd.getpwuid(user)
        group, groups = known.pw_gid, os.getgrouplist(known.pw_name, known.pw_gid)
    except KeyError:
        groups = [group]
    try:
        can_go_on = _can_read(user, group, groups, (*there, *PROGRAM))
    except OSError:  # of a container that lets nobody become another user
        can_go_on = False
    if can_go_on:
        os.setgroups(groups)
        os.setgid(group)
        os.setuid(user)


def _nearest(folder: Path) -> Path:
    """The folder, or the one above it that is there: what is made in that belongs to its owner."""
    while not os.path.lexists(folder):
        folder = folder.parent
    return folder


def _owner(folder: Path) -> tuple[int, int]:
    """The user and the group of a folder; of a link that root has not made those of the link."""
    found = folder.lstat()
    if found.st_uid == 0:
        found = folder.stat()
    return found.st_uid, found.st_gid


def _can_read(user: int, group: int, groups: list[int], paths: tuple[Path, ...]) -> bool:
    """True if a user could read all of these. Afterwards we are root again."""
    before, primary = os.getgroups(), os.getegid()
    try:
        os.setgroups(groups)
        os.setegid(group)
        os.seteuid(user)
        return all(os.access(each, os.R_OK, effective_ids=True) for each in paths)
    finally:
        os.seteuid(0)
        os.setegid(primary)
        os.setgroups(before)
