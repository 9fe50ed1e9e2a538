"""Programs on a terminal of so many columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS = 40
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_OURS = ("COLUMNS", "LINES", "LANG", "LC_ALL", "LC_CTYPE", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")


def environment(**more: str) -> dict[str, str]:
    """That of the tests, without what says how output looks."""
    return {name: value for name, value in os.environ.items() if name not in _OURS} | more


def on_terminal(command: Sequence[str], columns: int, **more: str) -> str:
    """What somebody sees of a program, standard error included; `more`: of its environment."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    given = environment(TERM="xterm-256color", **more)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=given)
    os.close(terminal)
    octets = b""
    try:
        while piece := os.read(master, 65536):
            octets += piece
    except OSError:
        pass  # how a terminal ends when nobody has it open any more
    finally:
        os.close(master)
        process.wait()
    return octets.decode().replace("\r\n", "\n")


def without_style(text: str) -> str:
    """Without colours, bold and dim."""
    return _STYLE.sub("", text)
