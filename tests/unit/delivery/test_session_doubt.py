"""From the moment that the last piece is handed over a loss leaves a doubt, even while room is awaited (spec 4, 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from mailrider.delivery.session import Dialect, Peer, Session
from mailrider.errors import ConnectionLost
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.reply import Reply
from mailrider.smtp.capabilities import Capabilities
from mailrider.smtp.client import Answer
from mailrider.smtp.content import Content
from mailrider.smtp.transaction import Transaction

if TYPE_CHECKING:
    from mailrider.smtp.commands import Command

DOMAIN = Domain("example.net")
RECIPIENT = Recipient(Mailbox("b", DOMAIN))
ENVELOPE = Envelope(ReversePath(Mailbox("a", DOMAIN)), (RECIPIENT,))


class FullChannel:
    """A channel whose buffer is full as soon as content was written."""

    tls = None
    needs_drain = False

    def write(self, _: bytes) -> None:
        self.needs_drain = True

    def abort(self) -> None:
        """Gone."""


class Talk:
    """Says yes to everything, until room is awaited: then the connection is lost."""

    has_answers = False
    error = None
    bytes_received = 0

    def __init__(self) -> None:
        self.channel = FullChannel()
        self._sent: list[Command] = []

    def send(self, *commands: Command) -> None:
        self._sent += commands

    def prepare(self, *_: Command) -> bytes:
        return b"BDAT 1 LAST\r\n"

    async def answers(self, _: float) -> list[Answer]:
        sent, self._sent = self._sent, []
        return [Answer(command, _reply(command)) for command in sent]

    def take_answers(self) -> list[Answer]:
        return []

    async def drain(self, _: float) -> None:
        raise ConnectionLost("gone while room was awaited")


def _reply(command: Command) -> Reply:
    return Reply(354 if type(command).__name__ == "Data" else 250)


@pytest.mark.parametrize("chunking", [False, True], ids=["DATA", "BDAT"])
async def test_a_loss_while_the_last_piece_waits_for_room_is_in_doubt(chunking: bool) -> None:
    content = Content.inspect(b"Subject: x\r\n\r\nbody\r\n")
    peer = Peer(DOMAIN, "192.0.2.1", 25, None)
    session = Session(cast("Any", Talk()), peer, Dialect(DOMAIN, 1, 1), "")
    transaction = Transaction(ENVELOPE, (RECIPIENT,), content, Capabilities(pipelining=True, chunking=chunking))
    lost = await session.transact(transaction, content)
    assert isinstance(lost, ConnectionLost)
    assert (transaction.in_doubt, transaction.accepted) == (True, (0,))
