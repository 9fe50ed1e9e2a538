"""CONTRIBUTING follows the tree: commands, folders and modules that it names are there; no package is left out."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SOURCES = ROOT / "src" / "mailrider"

_CODE = re.compile(r"`([^`\n]+)`")
_MAKE = re.compile(r"`make ([a-z-]+)([^`]*)`")


def part(heading: str) -> str:
    """What stands under a heading."""
    return PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def stops() -> list[str]:
    """What is to be read at the stops of a message's way."""
    rows = [line.split("|") for line in part("Five minutes").splitlines() if line.startswith("| ")]
    tour = rows[: next(number for number, row in enumerate(rows) if row[1].strip() == "word")]
    return [name for row in tour[1:] for name in _CODE.findall(row[2])]


def exists(name: str) -> bool:
    """A path from the root or from the sources, with or without `.py`."""
    return any((base / f"{name}{end}").exists() for base in (ROOT, SOURCES) for end in ("", ".py"))


def test_every_module_of_the_tour_exists() -> None:
    assert len(stops()) > 20
    assert not [name for name in stops() if not exists(name)]


def test_every_path_that_is_named_exists() -> None:
    paths = [code for code in _CODE.findall(PAGE) if re.fullmatch(r"[\w.-]*/[\w./-]*|[\w-]+\.(?:py|txt|toml|md)", code)]
    made = {".venv", "docs/reference"}  # the first by `make setup`
    assert len(paths) > 30
    assert not [path for path in paths if path.partition("/")[0] not in made and not exists(path.rstrip("/"))]


def test_every_name_in_python_can_be_imported() -> None:
    names = re.findall(r"`(mailrider(?:\.\w+)+)`", PAGE)
    assert names
    for name in names:
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


def test_every_target_of_make_that_is_named_exists_with_its_variables() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = _MAKE.findall(PAGE)
    assert {target for target, _ in named} <= targets
    assert not [name for _, rest in named for name in re.findall(r"([A-Z]+)=", rest) if f"$({name})" not in makefile]


def test_every_target_of_make_is_explained() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(phony.split()) <= {target for target, _ in _MAKE.findall(PAGE)}


@pytest.mark.parametrize("line", [line for line in part("Five minutes").splitlines() if re.match(r"\d\. ", line)])
def test_each_layer_names_packages(line: str) -> None:
    names = [code for code in _CODE.findall(line) if code.endswith("/")]
    assert names
    assert all((SOURCES / name).is_dir() for name in names)


def test_every_package_stands_in_a_layer() -> None:
    layers = part("Five minutes").partition("A message goes this way")[0]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (declared,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    packages = {name for layer in declared for name in re.findall(r"\w+", layer) if (SOURCES / name).is_dir()}
    assert not [name for name in packages if f"`{name}/`" not in layers]
