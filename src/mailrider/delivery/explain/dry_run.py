"""A delivery that stops at EHLO: connections are real, transactions are only imagined to be accepted.

With this in place of the pool an `Attempt` goes all its way, decisions included, and no server hears a word behind
EHLO but QUIT. That is how `explain` knows what a delivery would do: by doing it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.delivery.connection.unusable import Unusable
from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply
from mailrider.smtp.client import AnsweredCommand
from mailrider.smtp.commands import Data, EndOfData
from mailrider.smtp.steps import SendChunk, SendCommands

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mailrider.delivery.connection.connect import Connector, ConnectRequest
    from mailrider.delivery.connection.peer import Peer
    from mailrider.delivery.connection.session import Session
    from mailrider.model.security import PeerEvidence
    from mailrider.policy.judge import Judgement
    from mailrider.smtp.capabilities import Capabilities
    from mailrider.smtp.content import Content
    from mailrider.smtp.transaction import Transaction

WOULD_BE_OFFERED = Reply.make(250, "2.0.0", "The message would be offered to this server")
_GO_ON = Reply.make(354, None, "Start mail input (dry run)")


@dataclass(frozen=True, slots=True)
class DrySession:
    """Stands in for a session: has its evidence and capabilities, and accepts whatever it is given."""

    peer: Peer
    evidence: PeerEvidence
    capabilities: Capabilities

    @property
    def takes_no_more_domains(self) -> bool:
        """Nobody was named to the server."""
        return False

    async def transact(self, transaction: Transaction, _: Content) -> Exception | None:
        """Every command is accepted, and nothing is sent."""
        while (step := transaction.next()) is not None:
            match step:
                case SendCommands(commands):
                    for command in commands:
                        transaction.take(
                            AnsweredCommand(command, _GO_ON if isinstance(command, Data) else WOULD_BE_OFFERED)
                        )
                case SendChunk(command):
                    transaction.take(AnsweredCommand(command, WOULD_BE_OFFERED))
                case _:
                    transaction.take(AnsweredCommand(EndOfData(), WOULD_BE_OFFERED))
        return None


@dataclass(slots=True)
class DryLease:
    """A lease of a dry run; see `job.Lease`."""

    session: DrySession
    judgement: Judgement
    reused: bool = False

    def give_up(
        self, *, wants_tls: bool = False, knows_no_chunks: bool = False, takes_no_more_domains: bool = False
    ) -> None:
        """Nothing was used up."""


class DryRun:
    """Connections for an attempt that must not deliver; each is opened once, and closed at the end.

    One does for all kinds of message, as in the pool, if it has TLS. Where TLS failed there are two: what demands TLS
    ends there, and what does not goes on in clear, on a connection of its own.
    """

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._known: dict[object, Session | Unusable] = {}

    async def contact(self, call: ConnectRequest) -> Session | Unusable:
        """The session that such a call gets, or why it gets none."""
        requirement = call.requirement
        key = (call.mx, call.address, requirement.sni, requirement.demands_tls)
        if key not in self._known and (twin := self._same_for_other_kind(call)) is not None:
            self._known[key] = twin
        if key not in self._known:
            try:
                self._known[key] = await self._connector.open(call)
            except Unusable as error:
                self._known[key] = error
        return self._known[key]

    def _same_for_other_kind(self, call: ConnectRequest) -> Session | Unusable | None:
        """What was learnt for the other kind of message, if it would go just so."""
        requirement = call.requirement
        other = self._known.get((call.mx, call.address, requirement.sni, not requirement.demands_tls))
        if isinstance(other, Unusable):
            return other if other.stage is TryResult.CONNECT else None
        return other if other is not None and other.evidence.tls is not None else None

    @asynccontextmanager
    async def lease(self, call: ConnectRequest, *, fresh: bool = False) -> AsyncIterator[DryLease]:
        """See `job.Connections`."""
        del fresh
        session = await self.contact(call)
        if isinstance(session, Unusable):
            raise session
        dry = DrySession(session.peer, session.evidence, session.capabilities)
        yield DryLease(dry, self._connector.judge(call, session))

    async def __aenter__(self) -> DryRun:
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in {id(each): each for each in self._known.values()}.values():
            if not isinstance(session, Unusable):
                await session.quit()
        self._known.clear()
