"""The pytest plugin, used by a project of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).with_name("project.py")
GUIDE = (Path(__file__).parents[3] / "docs" / "guide.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def run_pytest(folder: Path) -> str:
    """In a process of its own, with no plugin but ours."""
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugins = ["-p", "no:cacheprovider", "-p", "mailrider.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *plugins, "test_shop.py"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_project_of_its_own(tmp_path: Path) -> None:
    shutil.copy(PROJECT, tmp_path / "test_shop.py")
    assert "12 passed" in run_pytest(tmp_path)


def test_the_guides_example(tmp_path: Path) -> None:
    (example,) = [block for block in PYTHON if "mailrider_lab" in block]
    (tmp_path / "test_shop.py").write_text(example)
    assert "2 passed" in run_pytest(tmp_path)


def test_pytest_finds_it_where_mailrider_is_installed() -> None:
    entries = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["pytest11"]
    assert entries == {"mailrider": "mailrider.pytest_plugin"}
