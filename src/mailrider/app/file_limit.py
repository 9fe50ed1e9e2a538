"""How many file descriptors a process may have."""

from __future__ import annotations

import resource


def allow_files() -> None:
    """Take as many file descriptors as we may have: shells grant 1024 at first, and each connection needs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
