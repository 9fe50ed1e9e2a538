"""`mailrider run`: the daemon, in the foreground: one process, or a supervisor and its workers."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import click

from mailrider.app.cores import count_workers, usable_cores
from mailrider.app.listening import has_work
from mailrider.cli.setup import make_log, writes_to_journal
from mailrider.clock import SystemClock
from mailrider.config import load, load_to_carry
from mailrider.errors import LocalError
from mailrider.model.daemon_event import LogLinesLost, LogNotReopened
from mailrider.observe.log_file import LogFile
from mailrider.observe.unblocked import UnblockedStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.config import Configuration
    from mailrider.config.carried import CarriedText
    from mailrider.model.event import Emit

LAST_LINES = 1.0  # seconds that a reader of the log has for its last lines


@click.command()
@click.option("--debug", is_flag=True, help="Write the SMTP dialogues and every decision to the log.")
@click.pass_obj
def run(config: str | None, debug: bool) -> int:
    """Accept mail, queue it, deliver it; until SIGTERM. SIGHUP reads the configuration again."""
    configuration, carried = load_to_carry(config, debug=debug)
    has_work(configuration)
    workers = count_workers(configuration, usable_cores)
    path = configuration.globals.log.path
    file = None if path is None else LogFile(path)
    stderr = UnblockedStream(sys.stderr.fileno(), SystemClock())
    stream = file or stderr
    log = make_log(configuration, debug=configuration.globals.debug, quiet=False, stream=stream)
    stderr.on_recovery = lambda lines: log(LogLinesLost(lines))

    def reopen() -> None:
        if file is not None:
            try:
                file.reopen()
            except LocalError as error:
                log(LogNotReopened(str(error)))

    try:
        if workers == 1:
            return _run_alone(config, configuration, log, stream, reopen, debug=debug)
        return _supervise(config, configuration, carried, log, stream, reopen, debug=debug)
    finally:
        stderr.finish(LAST_LINES)
        if file is not None:
            file.close()


def _run_alone(
    config: str | None,
    configuration: Configuration,
    log: Emit,
    stream: LogFile | UnblockedStream,
    reopen: Callable[[], None],
    *,
    debug: bool,
) -> int:
    import uvloop

    from mailrider.app.daemon import Daemon

    daemon = Daemon(lambda: load(config, debug=debug), log, lost_lines=lambda: stream.lost, reopen_log=reopen)
    uvloop.run(daemon.run(configuration))
    return os.EX_OK


def _supervise(
    config: str | None,
    configuration: Configuration,
    carried: CarriedText,
    log: Emit,
    stream: LogFile | UnblockedStream,
    reopen: Callable[[], None],
    *,
    debug: bool,
) -> int:
    """With nothing that carries mail: see `app.supervisor`."""
    from mailrider.app.supervisor import Supervisor

    async def supervise() -> int:
        supervisor = Supervisor(
            lambda: load_to_carry(config, debug=debug),
            log,
            stream.write,
            style=configuration.globals.log.format.value,
            debug=configuration.globals.debug,
            journal=writes_to_journal(stream),
            lost_lines=lambda: stream.lost,
            reopen_log=reopen,
        )
        return await supervisor.run(configuration, carried)

    return asyncio.run(supervise())
