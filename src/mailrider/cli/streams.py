"""What a caller gives: the words of the command line, and standard streams, which may be closed."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from typing import TextIO

INPUT_IS_CLOSED: Final = "standard input is closed"
LAST_STANDARD_STREAM: Final = 2  # the number of standard error


def occupy_standard_streams() -> None:
    """Open what of 0, 1 and 2 was closed by our caller: a socket must not get what is written there.

    libuv would end the program over a socket of that number, once the message is delivered.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD_STREAM:
        pass
    os.close(number)


def command_line() -> list[str]:
    """The words behind the program's name. What the locale's encoding cannot read is UTF-8, as addresses are."""
    return [_in_utf8(word) if _UNREAD.search(word) else word for word in sys.argv[1:]]


_UNREAD: Final = re.compile("[\udc80-\udcff]")  # how Python keeps octets that it could not decode


def _in_utf8(word: str) -> str:
    octets = os.fsencode(word)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return word


def standard_input() -> TextIO:
    """Standard input; if it is closed the command ends with a word and `EX_NOINPUT`."""
    if sys.stdin is None:
        click.echo(f"mailrider: {INPUT_IS_CLOSED}", err=True)
        raise click.exceptions.Exit(os.EX_NOINPUT)
    return sys.stdin
