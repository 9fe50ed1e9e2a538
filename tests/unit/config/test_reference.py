"""The manual says what the settings say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailrider.config.kinds import settings_classes
from mailrider.config.reference import COMMAND, pages, write
from mailrider.settings.directive import directives_of

DIRECTORY = Path(__file__).parents[3] / "docs/reference"


@pytest.mark.parametrize("name", pages())
def test_the_manual_is_up_to_date(name: str) -> None:
    written = (DIRECTORY / name).read_text(encoding="utf-8")
    assert written == pages()[name], f"run {COMMAND} and commit docs/reference"


def test_nothing_else_is_in_the_manual() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == {*pages(), "language.md"}


def test_every_directive_is_in_the_manual_with_what_it_means() -> None:
    manual = "\n".join(pages().values())
    for _, cls in settings_classes():
        for name, known in directives_of(cls).items():
            assert f"# {name}\n" in manual
            assert known.doc.endswith(".")
            assert known.only_global or known.doc in manual


def test_writing_it_makes_the_directory(tmp_path: Path) -> None:
    write(tmp_path / "a/b")
    assert {path.name for path in (tmp_path / "a/b").iterdir()} == set(pages())
