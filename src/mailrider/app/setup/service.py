"""The daemon as a service of systemd: its user, its units, and the link that programs know as sendmail.

Each step looks first, and leaves what is there: to be safe when it is repeated, and on a machine that has another mail
system. What was done is said, and what was not done, with the reason.
"""

from __future__ import annotations

import pwd
import re
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mailrider.errors import ConfigError, LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

USER: Final = "mailrider"
PATIENCE: Final = 60.0  # seconds for a command of the system

_EXEC = re.compile(r"^ExecStart=.*$", re.MULTILINE)
_WANTS_SOCKET = re.compile(r"^((?:Wants|After)=.*) mailrider\.socket", re.MULTILINE)
_LISTEN = re.compile(r"(?:^ListenStream=.*\n)+", re.MULTILINE)
_SEEN: Final = ("/root", "/home", "/run/user", "/tmp")  # noqa: S108 # what ProtectHome and PrivateTmp hide


def run_command(command: Sequence[str]) -> None:
    """Run a command of the system. Raises `LocalError`, with its words, if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603 # ours
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise LocalError(f"`{' '.join(command)}` failed: {words or f'exit code {done.returncode}'}")


def unit_text(name: str) -> str:
    """A unit file as it is shipped. Raises `ConfigError` if it is not."""
    for folder in (files("mailrider") / "packaging" / "systemd", Path(__file__).parents[4] / "packaging" / "systemd"):
        unit = folder / name
        if unit.is_file():
            return unit.read_text(encoding="utf-8")
    raise ConfigError(f"{name} does not come with this installation; take it from the source: packaging/systemd")


def adapted_units(program: Path, configuration: Path, ports: Sequence[str]) -> dict[str, str]:
    """The units for this installation. `ports`: what it listens at below 1024; without any there is no socket unit."""
    service = _EXEC.sub(f"ExecStart={program} -c {configuration} run", unit_text("mailrider.service"))
    if not ports:
        return {"mailrider.service": _WANTS_SOCKET.sub(r"\1", service)}
    listen = "".join(f"ListenStream={port}\n" for port in ports)
    return {"mailrider.service": service, "mailrider.socket": _LISTEN.sub(listen, unit_text("mailrider.socket"), 1)}


class ServiceInstaller:
    """Installs the service below `root`, by commands that `run` runs."""

    def __init__(self, run: Callable[[Sequence[str]], None] = run_command, root: Path = Path("/")) -> None:
        self._run = run
        self._root = root

    def _place(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def make_user(self, home: Path) -> Iterator[str]:
        """A user of the system for the daemon. Raises `LocalError`."""
        if self.has_user():
            yield f"the user {USER} is there"
            return
        shell = "/usr/sbin/nologin"
        self._run(["useradd", "--system", "--user-group", "--home-dir", str(home), "--shell", shell, USER])
        yield f"made the user {USER}"

    def has_user(self) -> bool:
        """True if the daemon's user is there."""
        try:
            pwd.getpwnam(USER)
        except KeyError:
            return False
        return True

    def write_units(self, units: dict[str, str]) -> Iterator[str]:
        """The unit files; one that is there and differs is somebody's work, and stays."""
        folder = self._place("/etc/systemd/system")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in units.items():
            path = folder / name
            if not path.exists():
                path.write_text(text, encoding="utf-8")
                path.chmod(0o644)
                yield f"wrote {path}"
            elif path.read_text(encoding="utf-8") == text:
                yield f"{path} is there"
            else:
                yield f"{path} is there and differs from ours: it is left as it is"

    def link_sendmail(self, program: Path) -> Iterator[str]:
        """`sendmail`, which cron, PHP and others call; another mail system's stays."""
        path = self._place("/usr/sbin/sendmail")
        if path.is_symlink() and path.readlink() == program:
            yield f"{path} is there"
        elif path.exists() or path.is_symlink():
            yield f"{path} belongs to another mail system: it is left as it is (ln -sf {program} {path} makes it ours)"
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(program)
            yield f"linked {path} to {program}"

    def start(self, units: Sequence[str], *, now: bool = True) -> Iterator[str]:
        """Enable the units, and start them if systemd runs here, and `now` is not False. Raises `LocalError`."""
        if not self._place("/run/systemd/system").is_dir():
            self._run(["systemctl", "enable", *units])
            yield "enabled the service; systemd does not run here, so it is not started"
            return
        self._run(["systemctl", "daemon-reload"])
        if not now:
            self._run(["systemctl", "enable", *units])
            yield f"enabled the service; once that is mended: systemctl start {' '.join(units)}"
            return
        self._run(["systemctl", "enable", "--now", *units])
        yield "the service is enabled, and runs"

    def give_away(self, state_dir: Path) -> Iterator[str]:
        """What root has made in the state directory goes to the daemon's user, who has to be able to use it."""
        self._run(["chown", "-R", "--no-dereference", "--from=root", f"{USER}:", str(state_dir)])
        yield f"{state_dir} belongs to {USER}"


def hidden(program: Path) -> str:
    """Why the service could not see the program where it is; empty if it can."""
    if any(program.is_relative_to(each) for each in _SEEN):
        return f"{program} is where the service cannot see it; install into /opt/mailrider, as the guide says"
    return ""
