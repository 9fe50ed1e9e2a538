"""`mailrider auth`: the password file as a person manages it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import argon2
import pytest
from click.testing import CliRunner

from mailrider.cli.main import cli
from mailrider.endpoint import passwords as auth

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # For speed alone: how much work a hash is must not be for others to choose.
    monkeypatch.setattr(auth, "HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def run(*arguments: str, given: str | bytes = "") -> tuple[object, str]:
    """What the command returns (None: a wrong use), and what it says."""
    found: list[object] = []
    runner = CliRunner()
    with runner.isolation(input=given) as (out, *_):
        try:
            found.append(cli.main(list(arguments), standalone_mode=False))
        except Exception as error:
            return None, str(error)
        return found[0], out.getvalue().decode()


def config(tmp_path: Path, *files: str) -> str:
    path = tmp_path / "mailrider.conf"
    endpoints = [f"submission unix:///run/x{number} {{\nauth {file}\n}}\n" for number, file in enumerate(files)]
    path.write_text(f"hostname a.test\nstate_dir {tmp_path}\n" + "".join(endpoints))
    return str(path)


def test_users_come_and_go(tmp_path: Path) -> None:
    using = ("-c", config(tmp_path, "users", "users"), "auth")
    assert run(*using, "add", "anna", given="open sesame\n") == (0, "anna: added\n")
    assert run(*using, "add", "bert", given="hello bert\n") == (0, "bert: added\n")
    assert run(*using, "add", "anna", given="another one\n") == (0, "anna: new password\n")
    assert run(*using, "list") == (0, "anna\nbert\n")
    assert run(*using, "check", "anna", given="another one\n") == (0, "anna: right\n")
    assert run(*using, "check", "anna", given="open sesame\n") == (69, "anna: wrong\n")
    assert run(*using, "check", "nobody", given="\n") == (69, "nobody: wrong\n")
    assert run(*using, "add", "Cy@X.test", given="hello from cy\n") == (0, "Cy@x.test: added\n")
    assert run(*using, "check", "Cy@x.TEST", given="hello from cy\n") == (0, "Cy@x.TEST: right\n")
    assert run(*using, "remove", "Cy@X.test") == (0, "Cy@X.test: removed\n")
    assert run(*using, "remove", "anna") == (0, "anna: removed\n")
    assert run("auth", "--file", str(tmp_path / "users"), "list") == (0, "bert\n")
    assert "open sesame" not in (tmp_path / "users").read_text()


# https://github.com/OpenSMTPD/OpenSMTPD/pull/1310
@pytest.mark.parametrize("command", ["add", "check"])
def test_a_password_that_is_no_utf_8_is_a_wrong_use(command: str, tmp_path: Path) -> None:
    using = ("auth", "--file", str(tmp_path / "users"))
    assert run(*using, "add", "anna", given="\xf6ffne dich\n".encode()) == (0, "anna: added\n")
    assert run(*using, command, "anna", given="\xf6ffne dich\n".encode("latin-1")) == (
        None,
        "a password is text in UTF-8 (RFC 4616), this is in another encoding",
    )


@pytest.mark.parametrize(
    ("arguments", "given", "expected"),
    [
        (("add", "a:b"), "open sesame\n", "a user name is printable"),
        (("add", "anna"), "short\n", "at least 8 characters"),
        (("add", "anna"), "open\0sesame\n", "no NUL and at most 1024 octets"),
        (("add", "anna"), "é" * 513 + "\n", "no NUL and at most 1024 octets"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path: Path, arguments: tuple[str, ...], given: str, expected: str) -> None:
    code, said = run("-c", config(tmp_path, "users"), "auth", *arguments, given=given)
    assert code is None
    assert expected in said


def test_who_is_not_there_cannot_be_removed(tmp_path: Path) -> None:
    using = ("-c", config(tmp_path, "users"), "auth")
    assert run(*using, "add", "anna", given="open sesame\n")[0] == 0
    assert run(*using, "remove", "nobody") == (69, "")
    assert run(*using, "list") == (0, "anna\n")


def test_nothing_has_to_be_there_before_the_first_user(tmp_path: Path) -> None:
    using = ("-c", config(tmp_path, "not/yet/there"), "auth")
    assert run(*using, "list") == (0, "")
    assert run(*using, "check", "anna", given="open sesame\n") == (69, "anna: wrong\n")
    assert run(*using, "add", "anna", given="open sesame\n") == (0, "anna: added\n")
    assert (tmp_path / "not/yet").stat().st_mode & 0o077 == 0


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    assert "cannot read the password file" in run("-c", config(tmp_path, "users"), "auth", "list")[1]


def test_which_file_is_meant_has_to_be_clear(tmp_path: Path) -> None:
    assert "no endpoint has a password file" in run("-c", config(tmp_path), "auth", "list")[1]
    assert "several password files" in run("-c", config(tmp_path, "a", "b"), "auth", "list")[1]
