"""Kill -9 at any moment: nothing that was accepted is lost, and what is repeated was in hand at that moment.

MAILRIDER_CRASH_SECONDS says for how long; the default is 10, and 60 in a long run.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.crash.victim import PARALLELISM, Run, live
from tests.support.long_runs import LONG

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = float(os.environ.get("MAILRIDER_CRASH_SECONDS") or (60 if LONG else 10))

pytestmark = [pytest.mark.crash, pytest.mark.timeout(SECONDS * 2 + 120)]


def begin(run: Run) -> int:
    """Start the process; a fork, since that is fast, and this process has neither threads nor a loop here."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        live(run)
        code = 0
    finally:
        os._exit(code)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def finish(folder: Path, number: int) -> None:
    """Let it live until the queue is empty."""
    pid = begin(Run(folder, number, submits=False))
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def judge(folder: Path, kills: int) -> str:
    """Every accepted recipient came to exactly one end, but for what was in hand when the process died."""
    accepted = set(lines(folder / "accepted"))
    delivered = [tuple(line.split()) for line in lines(folder / "delivered")]
    bounced = {line.split()[0] for line in lines(folder / "bounced")}
    arrived = {who for who, _ in delivered}
    lost = {who for who in accepted if who not in arrived and who.partition("/")[0] not in bounced}
    assert not lost, f"{len(lost)} of {len(accepted)} lost: {sorted(lost)[:5]}"
    within = [who for (who, _), count in Counter(delivered).items() if count > 1]
    assert not within, f"delivered twice without a crash in between: {within[:5]}"
    repeated = len(delivered) - len(arrived)
    assert repeated <= kills * PARALLELISM
    assert "?" not in arrived
    return f"{kills} kills, {len(accepted)} accepted, {len(delivered)} delivered, {repeated} of them twice, 0 lost"


def test_killed_at_random_moments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random()
    end = time.monotonic() + SECONDS * 0.7
    kills = 0
    while time.monotonic() < end:
        kills += 1
        pid = begin(Run(tmp_path, kills))
        time.sleep(rng.choice([0.02, 0.1, 0.3]) * (0.5 + rng.random()))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finish(tmp_path, kills + 1)
    with capsys.disabled():
        sys.stdout.write(f"\n    {judge(tmp_path, kills)}\n")


def test_killed_at_every_commit_boundary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end = time.monotonic() + SECONDS * 0.3
    kills = 0
    while kills < 10 or time.monotonic() < end:
        for point in ("before commit", "after commit"):
            kills += 1
            pid = begin(Run(tmp_path, kills, fault=(point, kills // 2 + 1)))
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    finish(tmp_path, kills + 1)
    with capsys.disabled():
        sys.stdout.write(f"\n    {judge(tmp_path, kills)}\n")
