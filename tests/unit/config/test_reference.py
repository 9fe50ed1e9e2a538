"""The manual says what the settings say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailrider.config.kinds import ENDPOINTS, KINDS, settings_classes
from mailrider.config.reference import COMMAND, pages, write
from mailrider.settings.directive import Block, Settings, directives_of

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


def blocks() -> set[type[Settings]]:
    """The settings of all blocks that stand in others."""
    found: set[type[Settings]] = set()
    waiting = [cls for _, cls in settings_classes()]
    while waiting:
        for known in directives_of(waiting.pop()).values():
            nested = known.type.item or known.type
            if isinstance(nested, Block) and nested.settings not in found:
                found.add(nested.settings)
                waiting.append(nested.settings)
    return found


def test_each_block_is_described_once() -> None:
    own = [known.doc for cls in blocks() for known in directives_of(cls).values()]
    manual = "\n".join(pages().values())
    repeated = {doc for doc in own if own.count(doc) == 1 and manual.count(f"\n{doc}\n") > 1}
    assert len(blocks()) > 12
    assert repeated - DIRECT == set()


# What endpoints and targets have themselves, and a block in them has, too.
DIRECT = {
    known.doc
    for name, cls in settings_classes()
    if name in (*KINDS, *ENDPOINTS)
    for known in directives_of(cls).values()
}


def test_the_list_of_pages_cuts_no_example_short() -> None:
    lines = [line for line in pages()["README.md"].splitlines() if line.startswith("- ")]
    assert [line for line in lines if line.count("`") % 2 or line.count("{") != line.count("}")] == []
    assert any(line.endswith("Options of `tls CERT KEY { ... }`") for line in lines)


def test_links_of_the_manual_lead_somewhere() -> None:
    for name, text in pages().items():
        headings = {line.lstrip("# ").strip("`") for line in text.splitlines() if line.startswith("#")}
        for file, anchor in re.findall(r"\]\(([\w.]*)(?:#([\w-]+))?\)", text):
            assert not file or file in pages() or file == "language.md", (name, file)
            assert not anchor or anchor in headings, (name, anchor)


def test_writing_it_makes_the_directory(tmp_path: Path) -> None:
    write(tmp_path / "a/b")
    assert {path.name for path in (tmp_path / "a/b").iterdir()} == set(pages())
