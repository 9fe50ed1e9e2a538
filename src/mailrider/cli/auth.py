"""`mailrider auth`: who may log in to the endpoints; it writes the password file that `auth` names."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailrider.cli.say import say
from mailrider.cli.streams import standard_input
from mailrider.config import load
from mailrider.endpoint.passwords import (
    hash_password,
    is_right,
    read_passwords,
    write_passwords,
)
from mailrider.endpoint.user_names import check_name, login_name
from mailrider.errors import ConfigError, InvalidValue
from mailrider.smtp.sasl import MAX_FIELD

if TYPE_CHECKING:
    from mailrider.config import Configuration

LEAST = 8  # characters of a password: NIST SP 800-63B 5.1.1.1


class ChosenFile:
    """The password file that a command is about."""

    def __init__(self, path: str | None, config: str | None) -> None:
        self._path = path
        self._config = config

    @cached_property
    def configuration(self) -> Configuration:
        """The configuration. Raises `ConfigError`."""
        return load(self._config)

    def __call__(self) -> Path:
        """Where it is. Raises `ConfigError`."""
        return Path(self._path) if self._path else password_file(self.configuration)

    @property
    def state_dir(self) -> Path | None:
        """Whose owner the daemon is; None if no configuration was asked."""
        return None if self._path else self.configuration.globals.state_dir


@click.group()
@click.option("--file", "path", metavar="FILE", help="The password file; default: the one that the endpoints name.")
@click.pass_context
def auth(context: click.Context, path: str | None) -> None:
    """Manage the users who may log in. A running daemon sees changes at once."""
    context.obj = ChosenFile(path, context.obj)


def password_file(configuration: Configuration) -> Path:
    """The password file of a configuration, if there is one and no other. Raises `ConfigError`."""
    found = {each.settings.auth for each in configuration.endpoints if each.settings.auth is not None}
    if len(found) == 1:
        return found.pop()
    if not found:
        raise ConfigError("no endpoint has a password file; add auth FILE to one, or say which with --file")
    raise ConfigError(f"there are several password files, say with --file which: {', '.join(sorted(map(str, found)))}")


def _users(path: Path) -> dict[str, str]:
    """The users of the file; none before the first was added."""
    return read_passwords(path) if path.exists() else {}


def _ask(*, confirm: bool) -> str:
    """A password from the terminal, or the first line of standard input."""
    given = standard_input()
    if given.isatty():
        password = str(click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True))
    else:
        password = given.buffer.readline().decode("utf-8", "surrogateescape").rstrip("\r\n")
    try:
        password.encode()
    except UnicodeEncodeError:
        raise click.UsageError("a password is text in UTF-8 (RFC 4616), this is in another encoding") from None
    if "\0" in password or len(password.encode()) > MAX_FIELD:
        raise click.UsageError(f"a password has no NUL and at most {MAX_FIELD} octets: others are no login (RFC 4616)")
    return password


@auth.command()
@click.argument("user")
@click.pass_obj
def add(chosen: ChosenFile, user: str) -> int:
    """Add USER, or give it a new password, which is asked for or read from standard input."""
    try:
        user = login_name(check_name(user))
    except InvalidValue as error:
        raise click.UsageError(str(error)) from error
    path = chosen()
    users = _users(path)
    password = _ask(confirm=True)
    if len(password) < LEAST:
        raise click.UsageError(f"a password has at least {LEAST} characters")
    known = user in users
    write_passwords(path, {**users, user: hash_password(password)}, chosen.state_dir)
    click.echo(f"{user}: {'new password' if known else 'added'}")
    return os.EX_OK


@auth.command()
@click.argument("user")
@click.pass_obj
def remove(chosen: ChosenFile, user: str) -> int:
    """Remove USER; exit with 69 if there is none of that name."""
    path = chosen()
    users = _users(path)
    if users.pop(login_name(user), None) is None:
        say(f"there is no user {user}")
        return os.EX_UNAVAILABLE
    write_passwords(path, users, chosen.state_dir)
    click.echo(f"{user}: removed")
    return os.EX_OK


@auth.command("list")
@click.pass_obj
def list_users(chosen: ChosenFile) -> int:
    """Show who may log in."""
    for user in sorted(_users(chosen())):
        click.echo(user)
    return os.EX_OK


@auth.command()
@click.argument("user")
@click.pass_obj
def check(chosen: ChosenFile, user: str) -> int:
    """Say whether a password of USER, asked for or read from standard input, is right; exit with 69 if it is not."""
    hashed = _users(chosen()).get(login_name(user))
    right = hashed is not None and is_right(hashed, _ask(confirm=False))
    click.echo(f"{user}: {'right' if right else 'wrong'}")
    return os.EX_OK if right else os.EX_UNAVAILABLE
