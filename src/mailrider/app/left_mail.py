"""Mail in queues that the configuration has no more, or has in another directory.

A reload knows which ones these are: those that were in force before it. A start looks into the state directory, where
queues without a `location` are.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from mailrider.config import kept_directories
from mailrider.errors import MailriderError
from mailrider.model.daemon_event import LEFT_AT_RELOAD, MailLeftBehind
from mailrider.model.event import Bug
from mailrider.queue.sqlite.shards import ShardsReader, shards_in

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.config import Configuration
    from mailrider.model.event import Emit

AT_START: Final = (
    "no queue of this configuration has this location: unless another program delivers from it, mail that waits there "
    "stays; add a queue with this location, and reload"
)
"""The advice of a start, which does not know whose the directory is: of an earlier configuration, or a program's."""


def unknown_queues(configuration: Configuration) -> list[tuple[str, Path]]:
    """The queues in the state directory that are not of this configuration: names and directories.

    Links are followed. What cannot be looked into is no queue of ours.
    """
    kept = kept_directories(configuration)
    try:
        inside = sorted(configuration.globals.state_dir.iterdir())
    except OSError:
        return []
    return [(each.name, each) for each in inside if os.path.realpath(each) not in kept and _holds_a_queue(each)]


def _holds_a_queue(directory: Path) -> bool:
    try:
        return bool(shards_in(directory))
    except OSError:
        return False


async def tell_left_mail(
    queues: Iterable[tuple[str, Path]], clock: Clock, emit: Emit, advice: str = LEFT_AT_RELOAD
) -> None:
    """Tell what waits in these queues: each is a name and a directory. Nothing is told of one that is empty.

    No failure of this is one of the reload, which is over.
    """
    for name, location in queues:
        try:
            messages = (await ShardsReader(location, clock).stats(clock.now(), 0)).messages
        except Exception as error:
            if not isinstance(error, MailriderError | OSError):
                emit(Bug("mail that is left behind", error))
            emit(MailLeftBehind(name, str(location), None, advice))
        else:
            if messages:
                emit(MailLeftBehind(name, str(location), messages, advice))
