"""The daemon of most tests is a fork: it is a process like one that a shell starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.forked import fork, forked

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--version"], 0), (["--nonsense"], 64), (["-c", "/none", "run"], 78)]
)
async def test_it_ends_with_the_code_and_the_words_of_the_program(arguments: list[str], code: int) -> None:
    command = [sys.executable, "-m", "mailrider", *arguments]
    real = subprocess.run(command, capture_output=True, check=False)
    async with forked(*arguments) as process:
        assert process.stderr is not None
        assert await process.stderr.read() == real.stderr
        assert await process.wait() == process.returncode == real.returncode == code


async def test_it_has_the_descriptors_the_directory_and_the_variables_that_it_is_given(tmp_path: Path) -> None:
    reads, writes = os.pipe()
    with (tmp_path / "out").open("wb") as out:
        process = await fork(
            "tests.flow.app.test_forked:tell",
            ["31"],
            {1: out.fileno(), 31: writes},
            environment={"WORD": "hello"},
            directory=tmp_path,
        )
    os.close(writes)
    assert await process.wait() == 7
    with os.fdopen(reads, "rb") as told:
        assert told.read() == b"hello"
    assert (tmp_path / "out").read_text() == f"{tmp_path} [0, 1, 2, 31]\n"


def tell(arguments: list[str]) -> int:
    """What the fork above does."""
    given = [int(each) for each in os.listdir("/proc/self/fd")]
    sys.stdout.write(f"{os.getcwd()} {sorted(each for each in given if os.path.exists(f'/proc/self/fd/{each}'))}\n")
    os.write(int(arguments[0]), os.environ["WORD"].encode())
    return 7


async def test_a_signal_ends_it_and_is_its_code() -> None:
    process = await fork("tests.flow.app.test_forked:wait", [], {})
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        process.send_signal(signal.SIGKILL)


def wait(_: list[str]) -> None:
    """What the fork above does."""
    signal.pause()
