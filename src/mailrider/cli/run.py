"""`mailrider run`: the daemon, in the foreground."""

from __future__ import annotations

import sys

import click
import uvloop

from mailrider.app.daemon import Daemon, has_work
from mailrider.cli.setup import make_log
from mailrider.clock import SystemClock
from mailrider.config import load
from mailrider.model.daemon_event import LogLinesLost
from mailrider.observe.unblocked import UnblockedStream

LAST_LINES = 1.0  # seconds that a reader of the log has for its last lines


@click.command()
@click.option("--debug", is_flag=True, help="Write the SMTP dialogues and every decision to the log.")
@click.pass_obj
def run(config: str | None, debug: bool) -> int:
    """Accept mail, queue it, deliver it; until SIGTERM. SIGHUP reads the configuration again."""
    configuration = load(config)
    has_work(configuration)
    stream = UnblockedStream(sys.stderr.fileno(), SystemClock())
    log = make_log(configuration, debug=debug or configuration.globals.debug, quiet=False, stream=stream)
    stream.on_recovery = lambda lines: log(LogLinesLost(lines))
    try:
        uvloop.run(Daemon(lambda: load(config), log, lost_lines=lambda: stream.lost).run(configuration))
    finally:
        stream.finish(LAST_LINES)
    return 0
