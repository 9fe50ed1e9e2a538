"""The way of a warm message through our modules: a newcomer follows it in an hour, and it gets no longer unnoticed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
MOST_MODULES = 45
MOST_CHANGES = 312


def test_a_warm_message_passes_few_modules_with_little_back_and_forth() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bench.message_way"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    modules, changes = (int(each.split()[0]) for each in ran.stdout.splitlines()[0].split(", "))
    assert modules <= MOST_MODULES, ran.stdout
    assert changes <= MOST_CHANGES, ran.stdout
