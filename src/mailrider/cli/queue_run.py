"""`mailrider queue run`: deliver what is due, and end."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from typing import TYPE_CHECKING

import click

from mailrider.cli.chosen_queue import operator
from mailrider.cli.setup import make_log
from mailrider.errors import ConfigError, Problem
from mailrider.model.outcome import Status
from mailrider.model.queue_event import RecipientDone

if TYPE_CHECKING:
    from mailrider.cli.chosen_queue import ChosenQueue
    from mailrider.model.event import Emit, Event


@click.command()
@click.option("--debug", is_flag=True, help="The dialogue and every decision, on standard error.")
@click.pass_obj
def run(chosen: ChosenQueue, debug: bool) -> int:
    """Deliver what is due now, and end when that is done, here or by the daemon; what is due later stays."""
    log = make_log(chosen.configuration, debug=debug, quiet=False)
    tally = EndTally(log)
    import uvloop

    try:
        uvloop.run(_run(chosen, tally))
    except ConfigError as error:
        raise _with_user(error) from error
    click.echo(f"{tally.delivered} delivered, {tally.deferred} deferred, {tally.failed} failed", err=True)
    if tally.failed:
        return os.EX_UNAVAILABLE
    return os.EX_TEMPFAIL if tally.deferred else os.EX_OK


def _with_user(error: ConfigError) -> ConfigError:
    """With the name of the user who may not read something: where root called us, that is somebody else."""
    if os.strerror(errno.EACCES) not in str(error):
        return error
    hint = f"this command runs as the user {operator()}; called by root, it becomes the user whom the queue belongs to"
    return ConfigError([*error.problems, Problem(hint)])


async def _run(chosen: ChosenQueue, tally: EndTally) -> None:
    """Until all that is due now is done, or somebody asks to stop: running attempts get their time in either case."""
    from mailrider.app.library import Queue  # with all that delivers

    chosen.become_owner()
    named = {name: each.settings for name, each in chosen.configuration.targets.items()}
    dns = chosen.configuration.globals.dns
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Queue(chosen.settings, named=named, dns=dns, on_event=tally) as queue:
        waiting = [asyncio.create_task(queue.drain()), asyncio.create_task(stop.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


class EndTally:
    """Counts how recipients ended, and passes events on to the log."""

    def __init__(self, log: Emit) -> None:
        self._log = log
        self.delivered = self.deferred = self.failed = 0

    def __call__(self, event: Event) -> None:
        self._log(event)
        if not isinstance(event, RecipientDone):
            return
        if event.operator == "removed":
            return
        if not event.is_over:
            self.deferred += 1
        elif event.outcome.status is Status.DELIVERED:
            self.delivered += 1
        else:
            self.failed += 1
