"""`mailrider run`: the daemon, in the foreground: one process, or a supervisor and its workers."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing
from typing import TYPE_CHECKING

import click

from mailrider.app.cores import count_workers, usable_cores
from mailrider.app.listening import has_work
from mailrider.app.signals import hold_back_sighup
from mailrider.cli.daemon_log import DaemonLog
from mailrider.config import load, load_to_carry

if TYPE_CHECKING:
    from mailrider.config import Configuration
    from mailrider.config.snapshot import CarriedText


@click.command()
@click.option("--debug", is_flag=True, help="Write the SMTP dialogues and every decision to the log.")
@click.pass_obj
def run(config: str | None, debug: bool) -> int:
    """Accept mail, queue it, deliver it; until SIGTERM. SIGHUP reads the configuration again."""
    with hold_back_sighup():
        configuration, carried = load_to_carry(config, debug=debug)
        has_work(configuration)
        workers = count_workers(configuration, usable_cores)
        with closing(DaemonLog(configuration)) as log:
            if workers == 1:
                return _run_alone(config, configuration, log, debug=debug)
            return _supervise(config, configuration, carried, log, debug=debug)


def _run_alone(config: str | None, configuration: Configuration, log: DaemonLog, *, debug: bool) -> int:
    import uvloop

    from mailrider.app.daemon import Daemon

    daemon = Daemon(
        lambda: load(config, debug=debug),
        log,
        lost_lines=lambda: log.lost,
        reopen_log=log.reopen,
        change_log=log.change,
    )
    uvloop.run(daemon.run(configuration))
    return os.EX_OK


def _supervise(
    config: str | None, configuration: Configuration, carried: CarriedText, log: DaemonLog, *, debug: bool
) -> int:
    """Run the supervisor, without importing what carries mail: see `app.supervisor`."""
    from mailrider.app.supervisor import Supervisor

    async def supervise() -> int:
        supervisor = Supervisor(
            lambda: load_to_carry(config, debug=debug),
            log,
            log.write,
            lost_lines=lambda: log.lost,
            reopen_log=log.reopen,
            change_log=log.change,
        )
        return await supervisor.run(configuration, carried)

    return asyncio.run(supervise())
