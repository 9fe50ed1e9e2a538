"""The programs and commands in README.md, run as they stand, with the lab in place of the world."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import io
import re
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

import mailrider
from mailrider.cli.main import cli
from mailrider.lab.mx_script import MXScript
from tests.flow.delivery.internet import internet

if TYPE_CHECKING:
    import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """What stands in the README as code in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


async def test_the_program_delivers_and_shows_what_became_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = blocks("python")
    async with internet({"example.net": [MXScript()]}, originates=True) as net:
        settings = net.remote.settings
        assert mailrider.Remote(hostname="mx.example.org").settings.mx_auth.policies  # it is safe as it stands
        in_the_lab = partial(mailrider.Remote, port=settings.port, prohibited_addresses="none", dns=settings.dns)
        monkeypatch.setattr(mailrider, "Remote", in_the_lab)
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            await asyncio.to_thread(exec, compile(program, "README.md", "exec"), {})
        (message,) = net.mx("example.net").messages
    written = email.message_from_bytes(message.content, policy=email.policy.default)
    assert (written["From"], written["To"], written["Subject"]) == ("a@example.org", "b@example.net", "Hello")
    assert written.get_content() == "It travels.\r\n"
    assert written["Date"].datetime is not None
    assert written["Message-ID"].endswith("@mx.example.org>")
    assert (message.sender, message.addresses) == ("a@example.org", ["b@example.net"])
    assert shown.getvalue().startswith("b@example.net delivered 250 2.0.0 ")
    assert "mx0.example.net" in shown.getvalue()


def test_the_program_is_short() -> None:
    (program,) = blocks("python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 10


def test_the_commands_exist_with_their_options() -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("mailrider ")]
    assert len(commands) > 3
    for line in commands:
        _, name, *arguments = shlex.split(line, comments=True)
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        options = {option for parameter in command.params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= options, line
