"""What all receivers of mail have, whatever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tests.peers.maildir import Maildir


class Receiver(Protocol):
    """A running mail server and the mailbox it delivers to."""

    @property
    def address(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def mailbox(self) -> Maildir: ...
