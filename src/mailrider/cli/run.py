"""`mailrider run`: the daemon, in the foreground."""

from __future__ import annotations

import click
import uvloop

from mailrider.cli.setup import make_log
from mailrider.config import load
from mailrider.daemon import Daemon, has_work


@click.command()
@click.option("--debug", is_flag=True, help="Write the SMTP dialogues and every decision to the log.")
@click.pass_obj
def run(config: str | None, debug: bool) -> int:
    """Accept mail, queue it, deliver it; until SIGTERM. SIGHUP reads the configuration again."""
    configuration = load(config)
    has_work(configuration)
    log = make_log(configuration, debug=debug or configuration.globals.debug, quiet=False)
    uvloop.run(Daemon(lambda: load(config), log).run(configuration))
    return 0
