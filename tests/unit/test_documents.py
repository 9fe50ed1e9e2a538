"""What is written for people is true: README, changelog, RFC coverage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "mailrider"
COVERAGE = (ROOT / "docs" / "rfc-coverage.md").read_text()
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")]

_CITED = re.compile(r"\bRFCs?\s?(\d{3,5}(?:(?:, | and |/)\d{3,5}\b(?!\.))*)")
_NUMBER = re.compile(r"\d{3,5}")
_MODULE = re.compile(r"`([a-z0-9_]+(?:/[a-z0-9_]+)*\.py)`")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def cited(text: str) -> set[str]:
    """The numbers of the RFCs that a text cites: `RFC 5321 4.2`, `RFC 2920, 3030`."""
    return {number for match in _CITED.findall(text) for number in _NUMBER.findall(match)}


def test_what_counts_as_a_citation() -> None:
    assert cited("RFC 5321 4.2, RFC3207; RFC 2920, 3030, 4954 4 (RFCs 6531/6533)") == {
        *("5321", "3207", "2920", "3030", "4954", "6531", "6533")
    }


def test_every_rfc_that_the_code_cites_stands_in_the_coverage() -> None:
    known = cited(COVERAGE)
    missing = {
        f"RFC {number} in {path.relative_to(SOURCES)}"
        for path in SOURCES.rglob("*.py")
        for number in cited(path.read_text()) - known
    }
    assert not missing


BINDING = (
    *("5321", "3207", "2920", "3030", "1870", "6152", "6531", "6533", "6376", "8463", "3461", "3464", "3463", "5248"),
    *("7505", "9422", "6698", "7671", "7672", "8461", "8689", "4954", "2033", "8314"),
)


@pytest.mark.parametrize("number", BINDING)
def test_every_rfc_that_binds_us_has_a_table(number: str) -> None:
    headings = [line for line in COVERAGE.splitlines() if line.startswith("## ")]
    assert any(number in cited(heading) for heading in headings)


def test_every_row_says_whether_and_where() -> None:
    rows = [line.strip("| ").split(" | ") for line in COVERAGE.splitlines() if line.startswith("| ")]
    sections = [row for row in rows if row[0][0].isdigit()]
    assert len(sections) > 80
    for row in sections:
        assert row[2].startswith(("Yes", "Partial: ", "No: ", "see ")), row
        assert row[2].startswith(("No", "see")) or (len(row) == 4 and _MODULE.search(row[3])), row


def test_every_module_in_the_coverage_exists() -> None:
    assert not [name for name in _MODULE.findall(COVERAGE) if not (SOURCES / name).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(page.read_text()) if not link.startswith(("http:", "https:", "mailto:"))]
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_row_of_a_table_is_a_line_with_a_cell_for_each_column(page: Path) -> None:
    columns, is_code = 0, False
    for number, text in enumerate(page.read_text().splitlines(), 1):
        line = text.strip()
        is_code ^= line.startswith("```")
        cells = line.replace("\\|", "").count("|") - 1 if line.startswith("|") and not is_code else 0
        assert not cells or line.endswith("|"), f"line {number} is only a part of a row: {line}"
        assert not columns or not cells or cells == columns, f"line {number} has {cells} cells, not {columns}: {line}"
        columns = cells


def test_the_changelog_has_the_version() -> None:
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{version[1]}]" in changelog or "## [Unreleased]" in changelog


_NAMED = re.compile(r"`([a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def test_the_tests_that_hold_an_attack_exist() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| attack |")]
    assert len(rows) >= 40
    assert not [row for row in rows if not _NAMED.search(row)]
    tests = {path: (ROOT / "tests" / path).read_text() for path in {path for path, _ in _NAMED.findall(page)}}
    assert page.count(".py::test_") == len(_NAMED.findall(page))
    assert not [name for path, name in _NAMED.findall(page) if f"def {name}(" not in tests[path]]


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_readers_find_the_page_about_security(page: str) -> None:
    assert "security.md)" in (ROOT / page).read_text().replace("security-levels.md", "")
