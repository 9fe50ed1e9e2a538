"""Files that hold what is private, and that others than their owner can read or change: what `check` says of them."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from mailrider.config import queue_location
from mailrider.endpoint.settings import EndpointSettings
from mailrider.files import OTHERS
from mailrider.queue.settings import QueueSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mailrider.config import Configuration


def open_files(configuration: Configuration) -> Iterator[tuple[str, str, str]]:
    """For each file and folder that is open: whose it is, what is wrong, and what to do."""
    for each in configuration.targets.values():
        if isinstance(each.settings, QueueSettings):
            location = queue_location(each.settings)
            yield from _look_at(each.label, location, OTHERS, "mail")
            # A folder that is closed protects what is in it.
            if _mode(location) & OTHERS:
                for file in sorted(location.glob("queue.*")):
                    yield from _look_at(each.label, file, OTHERS, "mail")
    for path in configuration.secret_files:
        # A group may be there for the daemon's user, where the file is root's.
        yield from _look_at("secret", path, stat.S_IRWXO | stat.S_IWGRP, "a password")
    seen: set[Path] = set()
    for endpoint in configuration.endpoints:
        settings = endpoint.settings
        if isinstance(settings, EndpointSettings) and settings.auth is not None and settings.auth not in seen:
            seen.add(settings.auth)
            # A group may be there for those who manage it.
            yield from _look_at(endpoint.label, settings.auth, stat.S_IRWXO | stat.S_IWGRP, "passwords")


def _look_at(subject: str, path: Path, others: int, what: str) -> Iterator[tuple[str, str, str]]:
    mode = _mode(path)
    if mode & others:
        is_folder = stat.S_ISDIR(mode)
        right = "700" if is_folder else "600"
        kind = "folder" if is_folder else "file"
        text = f"others can use the {kind} {path}, which holds {what} (its rights are {stat.S_IMODE(mode):o})"
        yield subject, text, f"chmod {right} {path}"


def _mode(path: Path) -> int:
    """Zero for what is not there, or cannot be seen."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0
