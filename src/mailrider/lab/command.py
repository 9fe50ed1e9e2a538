"""`mailrider lab`: a private internet on loopback, for trying things; `mailrider lab demo` shows it at work."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import uvloop
from rich.console import Console

from mailrider.lab.demo import MAX_PORT, run_demo
from mailrider.lab.internet import DNS_PORT, HOSTNAME, HTTPS_PORT, SMTP_PORT, Internet
from mailrider.report.lines import print_commented

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator


PORT = click.IntRange(1, MAX_PORT)
ANY_PORT = click.IntRange(0, MAX_PORT)


@click.group(invoke_without_command=True)
@click.option("--port", default=SMTP_PORT, type=PORT, show_default=True, help="Where all MX hosts listen.")
@click.option(
    "--dns-port", default=DNS_PORT, type=ANY_PORT, show_default=True, help="Where DNS listens; 0: any free port."
)
@click.option(
    "--https-port",
    default=HTTPS_PORT,
    type=ANY_PORT,
    show_default=True,
    help="Where policy hosts listen; 0: any free port.",
)
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), help="Where configuration and CA go; default: a new one."
)
@click.pass_context
def lab(context: click.Context, port: int, dns_port: int, https_port: int, folder: Path | None) -> int | None:
    """Start a private internet on loopback and print the configuration that uses it; runs until interrupted."""
    if context.invoked_subcommand is not None:
        context.obj = (port, dns_port, https_port)
        return None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        return _run(_serve(folder.resolve(), port, dns_port, https_port))
    with tempfile.TemporaryDirectory(prefix="mailrider-lab-") as temporary:
        return _run(_serve(Path(temporary), port, dns_port, https_port))


@lab.command()
@click.pass_obj
def demo(ports: tuple[int, int, int]) -> int:
    """Send one message to domains of every kind, and show what became of it."""
    return _run(_demonstrate(ports))


async def _demonstrate(ports: tuple[int, int, int]) -> int:
    return os.EX_OK if await run_demo(*ports) else os.EX_SOFTWARE


def _run(lab: Coroutine[Any, Any, int]) -> int:
    """Its exit code; a port that is taken ends in a clear word."""
    try:
        return uvloop.run(lab)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        hint = "is another lab running? --port, --dns-port and --https-port name others"
        click.echo(f"mailrider: the lab cannot listen: {error.strerror}; {hint}", err=True)
        return os.EX_UNAVAILABLE


async def _serve(folder: Path, port: int, dns_port: int, https_port: int) -> int:
    console = Console(highlight=False, soft_wrap=True)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with Internet(folder, port=port, dns_port=dns_port, https_port=https_port) as internet:
        print_commented(introduction(internet), "#")
        console.print(internet.configuration, markup=False)
        print_commented(invitation(internet.configuration_file), "#")
        await stopped.wait()
    return os.EX_OK


# All that is printed is a configuration: what is for people stands in comments.


def introduction(internet: Internet) -> Iterator[str]:
    width = max(len(domain.name) for domain in internet.world.domains)
    for domain in internet.world.domains:
        yield f"# {domain.name:{width}}  {domain.story}"
    yield ""


def invitation(file: Path) -> Iterator[str]:
    yield f"# It stands in {file}. In another terminal:"
    command = f"mailrider -c {shlex.quote(str(file))}"
    yield f"#   {command} explain dane.test"
    to = "--to friend@dane.test --to friend@plain.test"
    yield f"#   echo 'Subject: hello' | {command} send --from you@{HOSTNAME} {to}"
    yield "# Ctrl-C ends it."
