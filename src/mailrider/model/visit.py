"""Where an attempt is: how whoever delivers tells a queue, which counts the attempts at each mail server's address.

Many names may lead to one place, and only delivery knows the addresses. A queue sets `VISITS` for each attempt; where
it is None nobody counts.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from datetime import datetime
    from ipaddress import IPv4Address, IPv6Address

CROWDED: Final = Reply.make(
    451,
    "4.4.5",
    "Many messages are under way to this mail server, which is slow; this one waits, and will be tried again",
)
"""What recipients get of an attempt that is to come again."""


class Visits(Protocol):
    """The addresses that one attempt is at."""

    def arrive(self, address: IPv4Address | IPv6Address, slots: int | None) -> datetime | None:
        """The attempt is about to use the address. None: it may; a moment: not now, it is to come again then.

        `slots`: how many messages a limit lets be under way in all, if there is such a limit.
        """

    def leave(self, address: IPv4Address | IPv6Address) -> None:
        """The attempt is done with an address that it was let use."""


VISITS: ContextVar[Visits | None] = ContextVar("who counts where the attempt at hand is", default=None)
