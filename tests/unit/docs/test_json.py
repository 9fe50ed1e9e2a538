"""docs/json.md names every key that a command prints with `--json`."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from mailrider.app.check.finding import Finding
from mailrider.app.dkim import KeyFile

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "json.md").read_text()
# Where objects are made for programs, as dictionaries.
MODULES = ("report/outcome.py", "report/queue.py", "report/trace.py", "report/explanation.py", "model/plain.py")


def keys_in(module: str) -> set[str]:
    tree = ast.parse((ROOT / "src" / "mailrider" / module).read_text())
    keys = [key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys]
    return {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


@pytest.mark.parametrize("module", MODULES)
def test_every_key_of_an_object_is_explained(module: str) -> None:
    keys = keys_in(module)
    assert keys
    assert {key for key in keys if f"`{key}`" not in PAGE} == set()


@pytest.mark.parametrize("kind", [Finding, KeyFile])
def test_every_field_of_a_line_is_explained(kind: type[Finding] | type[KeyFile]) -> None:
    assert [each.name for each in dataclasses.fields(kind) if f"`{each.name}`" not in PAGE] == []
