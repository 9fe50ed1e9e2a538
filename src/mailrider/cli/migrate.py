"""`mailrider migrate`: another mail server's configuration as one of ours, on standard output."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import click

from mailrider.cli.say import say
from mailrider.cli.streams import standard_input
from mailrider.config.loader import own_name
from mailrider.errors import ConfigError
from mailrider.files import read_regular
from mailrider.migrate.postfix import migrate as migrate_postfix

MAX_FILE: Final = 4 << 20  # octets of a file that is read
STANDARD_PLACE: Final = Path("/etc/postfix")
_BLOCKS: Final = re.compile(r"^(?:\$\(\S+\)[ \t]*=|[a-z][^=\n#]*\{[ \t]*$)", re.MULTILINE)


@click.command()
@click.argument("main_cf", metavar="MAIN.CF|-")
@click.argument("master_cf", metavar="[MASTER.CF]", required=False)
def migrate(main_cf: str, master_cf: str | None) -> int:
    """Translate Postfix's main.cf (or what `postconf -n` prints) and master.cf to a configuration on standard output.

    Each line is translated, or stands in a comment with the reason why not. Tables in text are read where main.cf names
    them, and where it was copied to another machine, beside it. Passwords are never written.
    """
    main = _text(standard_input().buffer.read()) if main_cf == "-" else _named(main_cf)
    if _BLOCKS.search(main):
        text = f"{main_cf} is no main.cf: it has blocks, as the configurations of maddy and of mailrider have"
        raise ConfigError(f"{text}; those load as they are, and mailrider -c {main_cf} check says what differs")
    master = None if master_cf is None else _named(master_cf)
    folder = Path(main_cf).parent if main_cf != "-" else STANDARD_PLACE
    name = "postconf -n" if main_cf == "-" else Path(main_cf).name
    master_name = "" if master_cf is None else Path(master_cf).name
    click.echo(migrate_postfix(main, name, master, master_name, _NamedFiles(folder), own_name()), nl=False)
    return os.EX_OK


def _required(path: Path) -> str:
    octets, _ = read_regular(path, MAX_FILE)
    return _text(octets)


def _named(name: str) -> str:
    """A file that the command line names. If it cannot be read, the command ends with `EX_NOINPUT`."""
    try:
        return _required(Path(name))
    except OSError as error:
        say(f"{name}: {error.strerror or error}")
        raise click.exceptions.Exit(os.EX_NOINPUT) from None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8-sig", "replace").replace("\r\n", "\n")


class _NamedFiles:
    """Reads the files that main.cf names; those of /etc/postfix first beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> str | None:
        path = Path(name)
        places = [path]
        if path.is_relative_to(STANDARD_PLACE):
            places.insert(0, self._folder / path.relative_to(STANDARD_PLACE))
        for each in places:
            try:
                return _required(each)
            except (OSError, ValueError):
                continue
        return None
