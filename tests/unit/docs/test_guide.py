"""The guide says what is so: its configurations load, its commands exist, its tables of other programs are right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from mailrider import events
from mailrider.cli.main import cli
from mailrider.config import loads
from mailrider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

GUIDE = (Path(__file__).parents[3] / "docs" / "guide.md").read_text(encoding="utf-8")
CONFIGURATIONS = re.findall(r"^```conf\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^mailrider .*$", "\n".join(re.findall(r"^```sh\n(.*?)^```", GUIDE, re.M | re.S)), re.MULTILINE)
COMMANDS += re.findall(r"`(mailrider [a-z][^`]*)`", GUIDE)

# Where a line of a table stands.
PLACES = {
    "top": "{line}\n",
    "target.remote": "target.remote r {{\n {line}\n}}\n",
    "target.smtp": "target.smtp s {{\n {host}\n {line}\n}}\n",
    "target.queue": "target.queue q {{\n target &outbound\n {line}\n}}\n",
    "submission with auth": "submission tcp://127.0.0.1:587 {{\n auth users\n deliver_to &outqueue\n {line}\n}}\n",
    "submission with trust": "submission tcp://127.0.0.1:587 {{\n deliver_to &outqueue\n trust 10.20.0.0/16\n"
    " {line}\n}}\n",
    "authorize_sender": "submission tcp://127.0.0.1:587 {{\n auth users\n deliver_to &outqueue\n"
    " check {{\n authorize_sender {{\n {line}\n}}\n}}\n}}\n",
    "submission": "submission tcp://127.0.0.1:587 {{\n deliver_to &outqueue\n {line}\n}}\n",
}
AROUND = "target.remote outbound {\n}\ntarget.queue outqueue {\n target &outbound\n}\n"


def rows(table: str) -> Iterator[tuple[str, list[str], str]]:
    """What it is elsewhere, what it is here, and where that stands."""
    text = GUIDE.partition(f"<!-- table: {table} -->")[2].split("\n\n")[1]
    for line in text.splitlines()[2:]:
        there, here, place = (cell.strip() for cell in line.strip("|").split("|"))
        lines = re.findall(r"`([^`]+)`", here.partition(" (")[0] if " (" in here else here)
        yield there, lines, place


def config(line: str, place: str) -> str:
    """A whole configuration with this line; a block on one line, as tables have it, gets lines of its own."""
    line = re.sub(r"\{ (?!env)", "{\n", line)
    line = re.sub(r" \}", "\n}", line)
    host = "" if line.startswith(("host ", "targets ")) else "host tcp://127.0.0.1:2525"
    starts = "" if line.startswith("hostname") else "hostname mx.example.org\n"
    return starts + AROUND + PLACES[place].format(line=line, host=host)


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=lambda text: text.split("\n", 3)[2][:40])
def test_every_configuration_loads(text: str) -> None:
    loads(text, environment={})


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, f"there is no `{line}`"
        command = found
    options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
    if command.name != "sendmail":
        assert {word for word in words if word.startswith("-")} <= options


@pytest.mark.parametrize(
    ("line", "place"),
    [(line, place) for table in ("maddy", "postfix") for _, lines, place in rows(table) for line in lines],
)
def test_what_is_to_be_written_here_loads(line: str, place: str) -> None:
    loads(config(line, place), environment={"PASSWORD": "secret"})


@pytest.mark.parametrize(
    ("line", "place"),
    [(there.strip("`"), place) for there, lines, place in rows("maddy") if there.strip("`") not in lines],
)
def test_what_differs_from_maddy_is_refused_by_name(line: str, place: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loads(config(line, place), environment={})
    assert any(line.split()[0] in problem.message for problem in refused.value.problems)


def test_the_list_of_chapters_is_that_of_the_chapters() -> None:
    chapters = re.findall(r"^## (.*)$", GUIDE, re.MULTILINE)
    assert re.findall(r"^- \[(.*)\]\(#", GUIDE, re.MULTILINE) == chapters


def test_there_is_something_to_test() -> None:
    assert len(CONFIGURATIONS) >= 8
    assert len(COMMANDS) >= 15
    assert sum(1 for _ in rows("maddy")) >= 10
    assert sum(1 for _ in rows("postfix")) >= 20


def events_of(heading: str) -> set[str]:
    """The names in the first column of a table in the chapter for the night."""
    table = GUIDE.partition("## At night")[2].partition(f"| {heading} |")[2].split("\n\n")[0]
    return {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}


def kinds(*levels: str) -> set[str]:
    listed = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)]
    return {kind.kind_name() for kind in listed if kind.level in levels}


def test_the_chapter_for_the_night_has_each_error_and_nothing_else() -> None:
    assert events_of("error") == kinds("error")


def test_the_warnings_in_the_chapter_for_the_night_exist() -> None:
    assert len(events_of("warning")) > 10
    assert events_of("warning") - {"queue_deferred", "queue_failed"} <= kinds("warning")
