"""Help is there for everybody: for those without a configuration, and with a wrong one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import pytest

from mailrider.cli.main import cli
from tests.support.commands import run_here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def commands(group: click.Group, *above: str) -> Iterator[tuple[str, ...]]:
    """Every command, as it is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)


@pytest.mark.parametrize("command", [(), *commands(cli)], ids=" ".join)
def test_help_needs_no_configuration(command: tuple[str, ...], tmp_path: Path) -> None:
    wrong = tmp_path / "mailrider.conf"
    wrong.write_text("nonsense")
    ran = run_here("-c", wrong, *command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: {' '.join(('mailrider', *command))} [OPTIONS]")


@pytest.mark.parametrize("port", ["--port=0", "--port=65536", "--dns-port=65536", "--https-port=-1", "--port=smtp"])
def test_a_port_that_is_none_is_a_mistake_of_usage(port: str) -> None:
    ran = run_here("lab", port)
    assert (ran.code, ran.out) == (64, "")
    assert port.partition("=")[0] in ran.err


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", [(), ("queue",), ("dkim",), ("auth",), ("lab",), ("history",)], ids=" ".join)
def test_lists_of_commands_have_whole_sentences(
    command: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ran = run_here(*command, "--help")
    listed = ran.out.partition("Commands:\n")[2]
    assert listed
    assert not [line for line in listed.splitlines() if line.endswith("...")]
    assert max(map(len, ran.out.splitlines())) <= columns


@pytest.mark.parametrize("words", ["run -c FILE", "setup example.org -c FILE", "queue list --config FILE"])
def test_who_names_the_configuration_behind_the_command_is_told_where_it_stands(words: str) -> None:
    option = words.split()[-2]
    ran = run_here(*words.split())
    assert ran.code == os.EX_USAGE
    assert f"{option} stands in front of the command: mailrider {option} FILE COMMAND" in ran.err


def test_nobody_is_told_so_of_an_option_that_no_command_knows() -> None:
    assert "in front of the command" not in run_here("run", "--unknown").err
