"""`mailrider run`: the daemon, in the foreground."""

from __future__ import annotations

import sys

import click
import uvloop

from mailrider.app.daemon import Daemon, has_work
from mailrider.cli.setup import make_log
from mailrider.clock import SystemClock
from mailrider.config import load
from mailrider.errors import LocalError
from mailrider.model.daemon_event import LogLinesLost, LogNotReopened
from mailrider.observe.log_file import LogFile
from mailrider.observe.unblocked import UnblockedStream

LAST_LINES = 1.0  # seconds that a reader of the log has for its last lines


@click.command()
@click.option("--debug", is_flag=True, help="Write the SMTP dialogues and every decision to the log.")
@click.pass_obj
def run(config: str | None, debug: bool) -> int:
    """Accept mail, queue it, deliver it; until SIGTERM. SIGHUP reads the configuration again."""
    configuration = load(config)
    has_work(configuration)
    path = configuration.globals.log.path
    file = None if path is None else LogFile(path)
    stderr = UnblockedStream(sys.stderr.fileno(), SystemClock())
    stream = file or stderr
    log = make_log(configuration, debug=debug or configuration.globals.debug, quiet=False, stream=stream)
    stderr.on_recovery = lambda lines: log(LogLinesLost(lines))

    def reopen() -> None:
        if file is not None:
            try:
                file.reopen()
            except LocalError as error:
                log(LogNotReopened(str(error)))

    try:
        daemon = Daemon(lambda: load(config), log, lost_lines=lambda: stream.lost, reopen_log=reopen)
        uvloop.run(daemon.run(configuration))
    finally:
        stderr.finish(LAST_LINES)
        if file is not None:
            file.close()
    return 0
