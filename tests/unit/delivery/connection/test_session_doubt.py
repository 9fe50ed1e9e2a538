"""A loss leaves a doubt from the moment that the kernel has all of the content with its end, and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from mailrider.delivery.connection.peer import Peer, SessionRules
from mailrider.delivery.connection.session import Session
from mailrider.errors import ConnectionLost
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.reply import Reply
from mailrider.smtp.capabilities import Capabilities
from mailrider.smtp.client import AnsweredCommand, ClientMachine
from mailrider.smtp.content import Content
from mailrider.smtp.transaction import Transaction

if TYPE_CHECKING:
    from mailrider.smtp.commands import Command

DOMAIN = Domain("example.net")
RECIPIENT = Recipient(Mailbox("b", DOMAIN))
ENVELOPE = Envelope(ReversePath(Mailbox("a", DOMAIN)), (RECIPIENT,))


class FullChannel:
    """A channel whose kernel does not take the end of the content at once."""

    tls = None
    needs_drain = is_closed = False

    def write_end(self, _: bytes) -> None:
        self.needs_drain = True

    def abort(self) -> None:
        """Gone."""


class Talk:
    """Says yes to everything; the connection is `lost` while the kernel takes the last octets, or behind them."""

    has_answers = False
    error = None
    bytes_received = 0

    def __init__(self, lost_behind: bool) -> None:
        self.channel = FullChannel()
        self.machine = ClientMachine()
        self.said: list[Any] | None = []
        self._lost_behind = lost_behind
        self._sent: list[Command] = []

    def send(self, *commands: Command) -> None:
        self._sent += commands

    def prepare(self, *_: Command) -> bytes:
        return b"BDAT 1 LAST\r\n"

    def monotonic(self) -> float:
        return 0.0

    async def answers(self, seconds: float, until: float = 0.0) -> list[AnsweredCommand]:
        if self.channel.needs_drain:
            raise ConnectionLost("gone behind the end")
        sent, self._sent = self._sent, []
        return [AnsweredCommand(command, _reply(command)) for command in sent]

    def take_answers(self) -> list[AnsweredCommand]:
        return []

    async def drain(self, _: float) -> None:
        if not self._lost_behind:
            raise ConnectionLost("gone while room was awaited")


def _reply(command: Command) -> Reply:
    return Reply(354 if type(command).__name__ == "Data" else 250)


@pytest.mark.parametrize("chunking", [False, True], ids=["DATA", "BDAT"])
@pytest.mark.parametrize("taken", [False, True], ids=["before the kernel has the end", "behind it"])
async def test_a_loss_is_in_doubt_once_the_kernel_has_the_end(taken: bool, chunking: bool) -> None:
    content = Content.inspect(b"Subject: x\r\n\r\nbody\r\n")
    peer = Peer(DOMAIN, "192.0.2.1", 25, None)
    session = Session(cast("Any", Talk(taken)), peer, SessionRules(DOMAIN, 1, 1), None)
    transaction = Transaction(ENVELOPE, (RECIPIENT,), content, Capabilities(pipelining=True, chunking=chunking))
    lost = await session.transact(transaction, content)
    assert isinstance(lost, ConnectionLost)
    assert (transaction.in_doubt, transaction.accepted) == (taken, (0,))
