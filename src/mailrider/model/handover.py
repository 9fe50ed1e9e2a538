"""How a message is given to a target: what it has passed already, how long it may wait, and who is told of the attempt.

It goes as an argument from whoever gives (an endpoint, a queue, a program) to the target, through pipelines between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from datetime import datetime
    from ipaddress import IPv4Address, IPv6Address

PATIENCE: Final = 5.0
"""Seconds that a message waits for limits where somebody waits for it; a queue does not wait, it comes again."""

CROWDED: Final = Reply.make(
    451,
    "4.4.5",
    "Many messages are under way to this mail server, which is slow; this one waits, and will be tried again",
)
"""What recipients get of an attempt that is to come again."""


class Stoppable(Protocol):
    """An attempt that runs, as a queue sees it that is to stop."""

    @property
    def is_sending(self) -> bool:
        """True while content is sent, or the reply to it is waited for."""

    @property
    def has_effect(self) -> bool:
        """True if a server may have the message, a recipient is decided, or it came to its own end: all that has to be
        recorded. False if it was cut off before."""

    def cut_off(self) -> None:
        """End it now; it still reports what it came to."""


class Watcher(Protocol):
    """Who is told where an attempt is: the queue that makes it.

    Many names may lead to one place, and only delivery knows the addresses. A queue counts the attempts at each mail
    server's address, and knows what a stop must not cut off without a record.
    """

    def began(self, attempt: Stoppable) -> None:
        """It runs from now on."""

    def ended(self, attempt: Stoppable) -> None:
        """It is over."""

    def arrive(self, address: IPv4Address | IPv6Address, slots: int | None) -> datetime | None:
        """The attempt is about to use the address. None: it may; a moment: not now, it is to come again then.

        `slots`: how many messages a limit lets be under way in all, if there is such a limit.
        """

    def leave(self, address: IPv4Address | IPv6Address) -> None:
        """The attempt is done with an address that it was let use."""


@dataclass(frozen=True, slots=True)
class Handover:
    """How a message is given to a target.

    `passed`: the limits that it is inside of, which it need not pass again. `patience`: seconds that it may wait for
    others; 0: it is told at once when it may come again. `watcher` None: no queue tries it again, so each outcome is
    the last one.
    """

    passed: frozenset[object] = frozenset()
    patience: float = PATIENCE
    watcher: Watcher | None = None


DIRECT: Final = Handover()
"""Given by somebody who waits for the outcome."""
