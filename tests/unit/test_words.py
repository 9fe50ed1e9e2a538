"""The words of the source: nothing is cited that a reader cannot open."""

from __future__ import annotations

import re
from pathlib import Path

import mailrider

SOURCE = Path(mailrider.__file__).parent


def test_no_comment_cites_a_specification_that_is_not_in_the_repository() -> None:
    files = [*SOURCE.rglob("*.py"), *Path(__file__).parents[1].rglob("*.py")]
    citation = re.compile(r"\bspec\s+sections?\s+[0-9]", re.IGNORECASE)
    assert [file.name for file in files if citation.search(file.read_text("utf-8"))] == []


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for file in SOURCE.rglob("*.py"):
        for found in re.finditer(r"^class (_?[A-Z]\w+)", file.read_text("utf-8"), re.MULTILINE):
            places.setdefault(found[1], []).append(file.relative_to(SOURCE).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
