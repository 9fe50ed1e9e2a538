"""Standard input, output and error, which a caller may have closed."""

from __future__ import annotations

import os
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


def standard_input() -> TextIO:
    """Standard input; if it is closed the command ends with a word and `EX_NOINPUT`."""
    if sys.stdin is None:
        click.echo(f"mailrider: {INPUT_IS_CLOSED}", err=True)
        raise click.exceptions.Exit(os.EX_NOINPUT)
    return sys.stdin
