"""Mail in queues that a reload has taken out of the configuration, or has given another directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.errors import MailriderError
from mailrider.model.daemon_event import MailLeftBehind
from mailrider.model.event import Bug
from mailrider.queue.sqlite.shards import ShardsReader

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.model.event import Emit


async def tell_left_mail(queues: Iterable[tuple[str, Path]], clock: Clock, emit: Emit) -> None:
    """Tell what waits in these queues: each is a name and a directory. Nothing is told of one that is empty.

    No failure of this is one of the reload, which is over.
    """
    for name, location in queues:
        try:
            messages = (await ShardsReader(location, clock).stats(clock.now(), 0)).messages
        except Exception as error:
            if not isinstance(error, MailriderError | OSError):
                emit(Bug("mail that is left behind", error))
            emit(MailLeftBehind(name, str(location), None))
        else:
            if messages:
                emit(MailLeftBehind(name, str(location), messages))
