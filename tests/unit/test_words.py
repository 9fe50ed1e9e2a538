"""The words of the source: nothing is cited that a reader cannot open."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import mailrider

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]
PUBLIC = {"_asdict", "_exit", "_make", "_replace"}  # of named tuples and `os`, in spite of their names
MOST_PRIVATES = 29
SOURCE = Path(mailrider.__file__).parent


def test_no_comment_cites_a_specification_that_is_not_in_the_repository() -> None:
    files = [*SOURCE.rglob("*.py"), *TESTS.rglob("*.py")]
    citation = re.compile(r"\bspec\s+sections?\s+[0-9]", re.IGNORECASE)
    assert [file.name for file in files if citation.search(file.read_text("utf-8"))] == []


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for file in SOURCE.rglob("*.py"):
        for found in re.finditer(r"^class (_?[A-Z]\w+)", file.read_text("utf-8"), re.MULTILINE):
            places.setdefault(found[1], []).append(file.relative_to(SOURCE).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def private_names(tree: ast.AST) -> Iterator[str]:
    """What a test takes from something other than itself: attributes, imports, and names that are replaced."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}):
                yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            yield from (each.value for each in node.args if isinstance(each, ast.Constant) and type(each.value) is str)


def test_tests_look_at_no_more_privates_than_they_did() -> None:
    """They should look at what happens. Each new one needs a reason, and a line in the test that says it."""
    places = [
        f"{file.relative_to(TESTS)}: {name}"
        for file in sorted(TESTS.rglob("*.py"))
        for name in private_names(ast.parse(file.read_text("utf-8")))
        if re.match(r"_[A-Za-z]", name) and name not in PUBLIC
    ]
    assert len(places) <= MOST_PRIVATES, "\n".join(places)
