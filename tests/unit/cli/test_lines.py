"""Lines for a person, on terminals of any width, and in a pipe."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console
from rich.text import Text

from mailrider.cli.queue_show import stats_text
from mailrider.cli.say import say
from mailrider.model.text import UNSAFE
from mailrider.queue.message import DestinationCount, Stats
from mailrider.report.lines import print_commented, print_line

LINE = "  A very long sentence about what a server said, which somebody wants to read: 550 5.1.1 No such user here"


def shown(line: Text | str, columns: int, *, terminal: bool = True, encoding: str = "utf-8") -> list[str]:
    octets = io.BytesIO()
    file = io.TextIOWrapper(octets, encoding, errors="backslashreplace")
    console = Console(file=file, width=columns, force_terminal=terminal, color_system=None, highlight=False)
    print_line(line, console)
    file.flush()
    return octets.getvalue().decode(encoding).removesuffix("\n").split("\n")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("columns", [60, 80])
def test_on_a_terminal_the_rest_goes_on_below_and_further_right(columns: int, encoding: str) -> None:
    first, *rest = shown(LINE, columns, encoding=encoding)
    assert first.startswith("  A very")
    assert rest
    assert all(line.startswith("      ") and line[6] != " " for line in rest)
    assert max(map(len, [first, *rest])) <= columns
    assert " ".join(line.strip() for line in [first, *rest]) == LINE.strip()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_comment_goes_on_as_a_comment_and_a_record_stays_whole(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    record = 'x.test. IN TXT "' + "v=spf1 " * 40 + '"'
    comment = "; " + "a word and another one " * 10
    print_commented([comment, record], ";")
    lines = capsys.readouterr().out.splitlines()
    assert lines.pop() == record
    assert all(line.startswith(";") and len(line) <= columns for line in lines)
    assert " ".join(line.lstrip("; ") for line in lines) == comment.strip("; ")


HOSTILE = "\x1b]0;a title\x07 \x1b[31m \x9b2J \u202e \u2066 \u2028 \r \b \x00 \x7f \ud800"


def pieces(text: str) -> list[Text | str]:
    """A line with that text in it, in all its forms."""
    return [f"a {text} b", Text(f"a {text} b"), Text.assemble(("a ", "bold"), (text, "red"), " b")]


@pytest.mark.parametrize("columns", [20, 200])
@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("line", pieces(HOSTILE), ids=["a string", "a text", "a text with styles"])
def test_no_line_moves_the_cursor_or_reorders_the_text(line: Text | str, columns: int, terminal: bool) -> None:
    lines = shown(line, columns, terminal=terminal)
    assert not any(map(UNSAFE.search, lines))
    assert (lines[0][:2], lines[-1][-2:]) == ("a ", " b")


def test_a_style_stays_where_it_is_beside_what_was_taken_out() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system="standard", highlight=False)
    print_line(Text.assemble("a\x1b", ("red", "red"), "\x1b"), console)
    assert file.getvalue() == "a\ufffd\x1b[31mred\x1b[0m\ufffd\n"


def test_no_comment_moves_the_cursor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    print_commented([f"; {HOSTILE}", f"; {HOSTILE} and words " * 9, f"x.test. IN TXT {HOSTILE}"], ";")
    assert not any(map(UNSAFE.search, capsys.readouterr().out.split("\n")))


def test_what_a_command_says_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"the server said {HOSTILE}")
    assert not any(map(UNSAFE.search, capsys.readouterr().err.split("\n")))


def test_what_fits_stays_as_it_is() -> None:
    assert shown(LINE, 120) == [LINE]


def test_a_pipe_gets_one_line() -> None:
    assert shown(LINE, 60, terminal=False) == [LINE]


def test_words_are_not_broken() -> None:
    record = "v=DKIM1;p=" + "A" * 200
    assert record in [line.strip() for line in shown(f"  the record: {record} is wrong", 60)]


def test_several_lines_stay_several() -> None:
    assert shown("\n  a\n    b", 60) == ["", "  a", "    b"]
    assert shown("", 60) == [""]
    assert shown("[bold]x[/]", 60) == ["[bold]x[/]"]


NAME = "a-long-name.of-a-destination.example.net"
SINCE = datetime(2026, 11, 30, tzinfo=UTC)
STATS = Stats(1, 108, (DestinationCount(NAME, 1, 0, 0, 0, SINCE, SINCE),), {"under 5 minutes": 1})


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_numbers_fit_the_terminal_and_no_destination_is_cut(columns: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=columns, force_terminal=True, color_system=None)
    for each in stats_text(STATS, SINCE):
        console.print(each, soft_wrap=True)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    at = next(number for number, line in enumerate(lines) if "queued" in line)
    begin = lines[at].index("destination")
    shown_name = "".join(line[begin:].strip() for line in lines[at + 1 :])
    assert NAME in shown_name
