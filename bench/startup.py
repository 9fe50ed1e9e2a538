"""What starting costs, before anything is done: seconds of processor time of a process, its own and the system's.

Each program is started several times, with its bytecode written before, and the least counts: other work on the machine
only adds. The figures to keep: `import mailrider` 0.30, `mailrider sendmail` and `mailrider queue list` 0.35.

    .venv/bin/python -m bench.startup [--rounds 9] [--modules]

`--modules` shows the costliest imports of each program (`python -X importtime`). Ends with 1 above a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mailrider

SHOWN: Final = 15  # imports
CLI: Final = "from mailrider.cli import main; main({arguments!r})"
_IMPORT = re.compile(r"import time: +(?P<own>\d+) \| +(?P<all>\d+) \| *(?P<name>\S+)")
CONFIGURATION: Final = """
hostname mx.example.org
state_dir {folder}
runtime_dir {folder}
target.queue queue {{
    target target.remote {{
        mx_auth {{
            mtasts {{ cache ram }}
            dane
            dnssec
        }}
    }}
}}
submission unix://{folder}/sendmail.socket {{
    deliver_to &queue
}}
"""


@dataclass(frozen=True, slots=True)
class Program:
    """What is started, the seconds that it may cost, and the exit code that it ends with."""

    name: str
    code: str
    most: float
    ends: int = 0


async def prepare(folder: Path) -> Path:
    """A configuration whose queue holds a message."""
    path = folder / "mailrider.conf"
    path.write_text(CONFIGURATION.format(folder=folder))
    async with mailrider.load(path).queue(deliver=False) as queue:
        await queue.submit(b"Subject: a\n\nb\n", sender="a@example.org", recipients=["b@example.net"])
    return path


def programs(path: Path) -> tuple[Program, ...]:
    """Those that have a limit, and one to compare with."""
    sendmail = ["-c", str(path), "sendmail", "bob@example.org"]
    return (
        Program("python", "pass", 1.0),
        Program("import mailrider", "import mailrider", 0.30),
        Program("mailrider.Remote", "from mailrider import Remote; Remote(hostname='mx.example.org')", 0.40),
        Program("mailrider sendmail", CLI.format(arguments=sendmail), 0.35, os.EX_TEMPFAIL),  # no daemon is there
        Program("mailrider queue list", CLI.format(arguments=["-c", str(path), "queue", "list"]), 0.35),
    )


def cost(program: Program, cache: Path) -> float:
    """Seconds of processor time of one start."""
    before = os.times()
    _start(program, cache)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _start(program: Program, cache: Path, *options: str) -> str:
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    ran = subprocess.run(
        [sys.executable, *options, "-c", program.code],
        env=environment,
        input="Subject: a\n\nb\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != program.ends:
        raise SystemExit(f"{program.name} ended with {ran.returncode}: {ran.stderr}")
    return ran.stderr


def show_imports(program: Program, cache: Path) -> None:
    """The modules that cost most by themselves."""
    lines = _IMPORT.finditer(_start(program, cache, "-X", "importtime"))
    for own, name in sorted(((int(each["own"]), each["name"]) for each in lines), reverse=True)[:SHOWN]:
        print(f"    {own / 1000:7.1f} ms  {name}")


def main() -> int:
    """Measure; 1 if a program costs more than it may."""
    parser = argparse.ArgumentParser(description="what starting costs")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--modules", action="store_true")
    options = parser.parse_args()
    too_much = False
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        for program in programs(asyncio.run(prepare(Path(folder)))):
            _start(program, Path(cache))  # writes the bytecode
            least = min(cost(program, Path(cache)) for _ in range(options.rounds))
            too_much |= least > program.most
            print(f"{program.name:<22} {least:.2f} s, at most {program.most:.2f}", flush=True)
            if options.modules:
                show_imports(program, Path(cache))
    return int(too_much)


if __name__ == "__main__":
    sys.exit(main())
