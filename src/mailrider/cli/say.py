"""What a command says to whoever called it, on standard error: standard output is for what was asked for."""

from __future__ import annotations

import sys

import click

from mailrider.model.text import visible


def say(text: str) -> None:
    """Say it; on a terminal a long line goes on below."""
    if not sys.stderr.isatty():
        click.echo(f"mailrider: {visible(text)}", err=True)
        return
    from rich.console import Console  # only for people

    from mailrider.report.lines import print_line

    print_line(f"mailrider: {text}", Console(stderr=True, highlight=False))
