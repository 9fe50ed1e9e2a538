"""Secrets that stand in a file or in the environment: taken as they are, and missed only by whoever needs them."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.app.assemble import open_smarthost
from mailrider.app.check.local import check_rights
from mailrider.config import load, loads
from mailrider.config.secret_values import MAX_SECRET
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.errors import ConfigError
from mailrider.settings.directive import MissingSecret, revealed
from mailrider.smtp.sasl import Credentials

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.config import Configuration

TEXT = "hostname a.test\ntarget.smtp smart {{\nhost tls://smtp.test:465\n{line}\n}}\n{more}"


def reading(folder: Path, line: str, more: str = "", **environment: str) -> Configuration:
    path = folder / "mailrider.conf"
    path.write_text(TEXT.format(line=line, more=more))
    return load(path, environment=environment)


def auth_of(configuration: Configuration) -> Credentials | MissingSecret | None:
    settings = configuration.target("smart").settings
    assert isinstance(settings, SmarthostSettings)
    return settings.auth


def password(configuration: Configuration) -> str:
    credentials = revealed(auth_of(configuration))
    assert credentials is not None
    return credentials.password


def missing(configuration: Configuration) -> str:
    with pytest.raises(ConfigError) as caught:
        revealed(auth_of(configuration))
    return str(caught.value)


def refused(folder: Path, line: str, more: str = "", **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        reading(folder, line, more, **environment)
    return str(caught.value)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"hunter2\n", "hunter2"),
        (b"hunter2", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b"hunter2\n\n", "hunter2\n"),  # one line end, and no more
        (b" two words \n", " two words "),
        (b'$(x) {env:HOME} {file:other} "quoted" { # }\n', '$(x) {env:HOME} {file:other} "quoted" { # }'),
        ("pässwörd\n".encode(), "pässwörd"),
    ],
)
def test_a_file_is_taken_as_it_is_without_its_line_end(tmp_path: Path, octets: bytes, expected: str) -> None:
    (tmp_path / "pw").write_bytes(octets)
    assert password(reading(tmp_path, "auth plain user {file:pw}", HOME="/root")) == expected


@pytest.mark.parametrize("written", ["{file:my password}", "{file:#}"])
def test_a_path_may_have_spaces_between_quotes(tmp_path: Path, written: str) -> None:
    (tmp_path / written[6:-1]).write_text("hunter2")
    assert password(reading(tmp_path, f'auth plain user "{written}"')) == "hunter2"


def test_a_relative_path_begins_at_the_credentials_of_systemd_or_at_the_file_that_names_it(tmp_path: Path) -> None:
    for name in ("credentials", "included"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pw").write_text(name)
    (tmp_path / "pw").write_text("here")
    line = "auth plain user {file:pw}"
    (tmp_path / "included" / "login.conf").write_text(line)
    assert password(reading(tmp_path, line)) == "here"
    assert password(reading(tmp_path, "import included/login.conf")) == "included"
    credentials = str(tmp_path / "credentials")
    assert password(reading(tmp_path, line, CREDENTIALS_DIRECTORY=credentials)) == "credentials"
    absolute = f"auth plain user {{file:{tmp_path}/pw}}"
    assert password(reading(tmp_path, absolute, CREDENTIALS_DIRECTORY=credentials)) == "here"
    assert password(reading(tmp_path, line, CREDENTIALS_DIRECTORY="")) == "here"


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (None, "cannot read the file {}: No such file or directory"),
        (b"", "the file {} is empty"),
        (b"\n", "the file {} is empty"),
        (b"hunter2\xff", "the file {} is not UTF-8 text"),
        (b"hunter2" * MAX_SECRET, "the file {} is larger than 65536 octets"),
    ],
)
def test_a_file_that_gives_no_secret_is_told_to_whoever_needs_it(
    tmp_path: Path, octets: bytes | None, reason: str
) -> None:
    if octets is not None:
        (tmp_path / "pw").write_bytes(octets)
    configuration = reading(tmp_path, "auth plain user {file:pw}")
    told = missing(configuration)
    assert told == f"{tmp_path}/mailrider.conf:4:17: auth: {reason.format(tmp_path / 'pw')}"
    assert "hunter2" not in repr(configuration) + told


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pw")
    assert "it is not a regular file" in missing(reading(tmp_path, "auth plain user {file:pw}"))


@pytest.mark.parametrize("line", ["auth plain user {env:PW}", "auth plain user x{env:PW}y", 'auth plain "{env:PW}" x'])
@pytest.mark.parametrize("macro", [False, True])
def test_a_variable_that_is_not_set_is_named_in_a_secret_and_empty_elsewhere(
    tmp_path: Path, line: str, macro: bool
) -> None:
    if macro:
        line = line.replace("{env:PW}", "$(pw)")
        (tmp_path / "macros.conf").write_text("$(pw) = {env:PW}")
    more = "deliver_to &smart\nlog {env:LOG}text"
    text = TEXT.format(line=line, more=more)
    (tmp_path / "mailrider.conf").write_text(("import macros.conf\n" if macro else "") + text)
    configuration = load(tmp_path / "mailrider.conf", environment={})
    assert "auth: the environment variable PW is not set" in missing(configuration)
    assert isinstance(revealed(auth_of(load(tmp_path / "mailrider.conf", environment={"PW": "hunter2"}))), Credentials)


async def test_what_does_not_need_the_secret_works_without_it_and_what_does_says_so(tmp_path: Path) -> None:
    more = "target.queue q { target &smart }".replace("{ ", "{\n").replace(" }", "\n}")
    configuration = reading(tmp_path, "auth plain user {file:pw}", more)
    assert configuration.targets.keys() == {"smart", "q"}
    settings: Any = configuration.target("smart").settings
    with pytest.raises(ConfigError, match="cannot read the file"):
        async with open_smarthost(settings, Any):  # type: ignore[arg-type] # it does not get so far
            pass


@pytest.mark.parametrize(
    ("line", "more", "told"),
    [
        ("auth plain user x{file:pw}", "", "{file:PATH} stands by itself"),
        ("auth plain user {file:pw}{file:pw}", "", "{file:PATH} stands by itself"),
        ("hostname {file:pw}", "", "hostname is not a secret: expected its value itself, not {file:PATH}"),
        ("", "target.queue q {\ntarget &smart\nlocation {file:pw}\n}", "location is not a secret"),
        ("", "log {file:pw}", "log is not a secret"),
        ("auth plain user $(pw)", "$(pw) = {file:pw}", "{file:PATH} stands where the secret is used, not in a macro"),
        ("", "import {file:pw}", "there is neither a snippet nor a file of that name"),
    ],
)
def test_a_file_stands_as_a_whole_argument_of_a_secret_and_nowhere_else(
    tmp_path: Path, line: str, more: str, told: str
) -> None:
    (tmp_path / "pw").write_text("hunter2")
    said = refused(tmp_path, line, more)
    assert told in said
    assert "hunter2" not in said


@pytest.mark.parametrize("value", ["{file:pw}", "$(x)", "{env:HOME}"])
def test_what_a_variable_holds_is_never_read_again(tmp_path: Path, value: str) -> None:
    (tmp_path / "pw").write_text("hunter2")
    assert password(reading(tmp_path, "auth plain user {env:PW}", PW=value, HOME="x")) == value


@pytest.mark.parametrize("line", ["auth plain user {file:pw} extra", "auth plain {file:pw}", "auth {file:pw}"])
def test_a_wrong_line_does_not_show_what_is_in_the_file(tmp_path: Path, line: str) -> None:
    (tmp_path / "pw").write_text("hunter2")
    with pytest.raises(ConfigError) as caught:
        reading(tmp_path, line)
    assert "expected plain USER PASSWORD, or off" in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.problems)


def test_an_empty_path_is_a_mistake(tmp_path: Path) -> None:
    assert "expected the path of a file: {file:PATH}" in missing(reading(tmp_path, "auth plain user {file:}"))


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o660, True), (0o644, True)])
def test_check_warns_of_a_file_that_others_can_read(tmp_path: Path, mode: int, warned: bool) -> None:
    (tmp_path / "pw").write_text("hunter2")
    (tmp_path / "pw").chmod(mode)
    configuration = reading(tmp_path, "auth plain user {file:pw}")
    assert configuration.secret_files == (tmp_path / "pw",)
    found = [each for each in check_rights(configuration, []) if each.subject == "secret"]
    assert bool(found) is warned
    assert all(f"chmod 600 {tmp_path / 'pw'}" in each.cure for each in found)


def test_a_text_that_is_no_file_has_its_folder(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("hunter2")
    text = TEXT.format(line="auth plain user {file:pw}", more="")
    assert password(loads(text, directory=tmp_path, environment={})) == "hunter2"
