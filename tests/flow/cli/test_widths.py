"""What commands print: on terminals of all widths, in a pipe, without colour, in UTF-8 and in the C locale."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from mailrider.cli.main import main
from mailrider.lab.command import introduction, invitation
from mailrider.lab.internet import Internet
from mailrider.lab.pytest_lab import PytestLab
from mailrider.report.lines import print_commented
from tests.support.terminals import environment, on_terminal, without_style

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORDS = "Greylisted; please come again in a few minutes, since we have never seen this sender before, sorry"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38|4[0-7]|48)[;\dm]")
QUEUE = """
log off
target.queue mail {
    target &lab
    modify {
        dkim sender.test s1
    }
}
"""


@dataclass
class Machine:
    """A queue in which one recipient waits and one is done, and commands that look at it."""

    config: str
    message: str
    id: str

    def words(self, name: str) -> list[str]:
        words = {
            "send": f"send --target lab --from a@sender.test --to b@plain.test --to c@dane.test {self.message}",
            "trace": f"trace {self.id}",
            "dkim list": "dkim list",
            "dkim check": "dkim check",
            "dkim new": "dkim new other.test",
            "explain": "explain dane.test",
            "check": "check dane.test --against dane.test",
            "queue list": "queue list",
            "queue show": f"queue show {self.id}",
            "queue stats": "queue stats",
            "an unknown id": "trace 0000000000000",
        }
        return ["-c", self.config, *words[name].split()]

    def command(self, name: str) -> list[str]:
        return [sys.executable, "-m", "mailrider", *self.words(name)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("widths")
    with PytestLab(tmp_path_factory.mktemp("lab")) as lab:
        config, message = folder / "mailrider.conf", folder / "message"
        config.write_text(lab.configuration_file.read_text() + QUEUE)
        message.write_bytes(b"From: a@sender.test\r\nSubject: x\r\n\r\nHello.\r\n")
        lab.refuse("b@plain.test", f"451 4.7.1 {WORDS}")
        begin = [sys.executable, "-m", "mailrider", "-c", str(config)]
        send = [*begin, "send", "--queue", "--from", "a@sender.test", "--to", "b@plain.test", "--to", "c@dane.test"]
        sent = subprocess.run([*send, str(message)], capture_output=True, text=True, check=True)
        subprocess.run([*begin, "queue", "run"], capture_output=True, check=False)
        yield Machine(str(config), str(message), sent.stdout.strip())


@dataclass
class Screen:
    """Runs commands in this process, as on a terminal of some width, or in a pipe."""

    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __call__(self, words: list[str], columns: int = 0, **more: str) -> str:
        self.patch.setenv("TTY_COMPATIBLE", "1" if columns else "0")
        for name, value in (({"COLUMNS": str(columns)} if columns else {}) | more).items():
            self.patch.setenv(name, value)
        with pytest.raises(SystemExit):
            main(words)
        return self.capture.readouterr().out


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Screen:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "LC_ALL"):
        monkeypatch.delenv(name, raising=False)
    return Screen(monkeypatch, capsys)


NAMES = (
    *("send", "trace", "dkim list", "dkim check", "dkim new", "explain", "check"),
    *("queue list", "queue show", "queue stats"),
)


def too_long(text: str, columns: int) -> list[str]:
    """Lines that are longer than they need be: records for a zone file stay in one line, and words are not broken."""
    lines = [line for line in without_style(text).split("\n") if " IN TXT " not in line]
    return [line for line in lines if len(line) > columns and len(line.strip("# ").split()) > 1]


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("name", NAMES)
def test_every_line_fits_the_terminal(machine: Machine, screen: Screen, name: str, columns: int) -> None:
    shown = screen(machine.words(name), columns)
    assert shown.strip()
    assert too_long(shown, columns) == []


@pytest.mark.parametrize("columns", [60, 80])
def test_what_goes_on_below_stands_further_right(machine: Machine, screen: Screen, columns: int) -> None:
    lines = without_style(screen(machine.words("trace"), columns)).split("\n")
    at = next(number for number, line in enumerate(lines) if "451 4.7.1" in line)
    indent = len(lines[at]) - len(lines[at].lstrip())
    assert lines[at + 1].startswith(" " * (indent + 4))
    assert lines[at + 1][indent + 4] != " "


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_gets_plain_text_and_whole_lines(machine: Machine, screen: Screen, name: str) -> None:
    shown = screen(machine.words(name))
    assert "\x1b" not in shown
    if name in ("send", "trace", "queue list", "queue show"):
        assert any(line.endswith(WORDS) for line in shown.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_without_colour_there_is_none(machine: Machine, screen: Screen, name: str) -> None:
    assert not COLOUR.search(screen(machine.words(name), 80, NO_COLOR="1"))


@pytest.mark.parametrize("python", [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=["as utf-8", "as ascii"])
@pytest.mark.parametrize("name", ["explain", "trace", "queue stats"])
def test_on_a_terminal_in_the_c_locale_all_is_ascii(machine: Machine, name: str, python: dict[str, str]) -> None:
    shown = on_terminal(machine.command(name), 80, LC_ALL="C", **python)
    assert shown.isascii()
    assert "\\u" not in shown
    assert too_long(shown, 80) == []


def test_in_utf8_good_and_bad_have_marks(machine: Machine) -> None:
    lines = without_style(on_terminal(machine.command("explain"), 80, LANG="C.UTF-8"))
    assert "✓ signed" in lines
    lines = without_style(on_terminal(machine.command("explain"), 80, LC_ALL="C"))
    assert "+ signed" in lines


def test_what_is_said_on_standard_error_goes_on_below(machine: Machine) -> None:
    first, *rest = on_terminal(machine.command("an unknown id"), 60).strip().split("\n")
    assert first.startswith("mailrider: no queue knows of 0000000000000")
    assert len(first) <= 60
    assert all(line.startswith("    ") and len(line) <= 60 for line in rest)
    assert rest


def test_in_a_pipe_standard_error_has_whole_lines(machine: Machine) -> None:
    command = machine.command("an unknown id")
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert ran.returncode == 69
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_setup_comments_as_zone_files_do(tmp_path: Path, screen: Screen, columns: int) -> None:
    config = tmp_path / "mailrider.conf"
    signing = "modify { \ndkim x.test s1\n }"
    config.write_text(
        f"hostname mx.x.test\nstate_dir {tmp_path}/state\ntarget.remote out {{ mx_auth off\n{signing}\n}}\n"
    )
    shown = screen(["-c", str(config), "setup", "x.test"], columns)
    assert all(line.startswith(";") or " IN " in line for line in shown.splitlines())
    assert too_long(shown, columns) == []


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_lab_comments_as_configurations_do(
    tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    lab = Internet(tmp_path, port=2525, dns_port=0, https_port=0)
    print_commented([*introduction(lab), *invitation(tmp_path / "lab.conf")], "#")
    lines = capsys.readouterr().out.splitlines()
    assert any("dane.test" in line for line in lines)
    assert all(not line or line.startswith("#") for line in lines)
    assert too_long("\n".join(lines), columns) == []
