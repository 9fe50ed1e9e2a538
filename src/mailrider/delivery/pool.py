"""The connections of a target: leased, judged for each message, given back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.model.event import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mailrider.delivery.connect import Call, Connector
    from mailrider.delivery.session import Session
    from mailrider.model.event import Emit
    from mailrider.policy.judge import Judgement


@dataclass(slots=True)
class PooledLease:
    """A connection for one transaction; see `attempt.Lease`."""

    session: Session
    judgement: Judgement
    reused: bool = False
    usable: bool = True

    def give_up(self) -> None:
        """The connection is not to be used again."""
        self.usable = False


class Pool:
    """Opens a connection for each call and closes it behind."""

    def __init__(self, connector: Connector, emit: Emit) -> None:
        self._connector = connector
        self._emit = emit
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._closing:
            await asyncio.wait(self._closing)

    @asynccontextmanager
    async def lease(self, call: Call, *, fresh: bool = False) -> AsyncIterator[PooledLease]:
        """A new connection for the call. Entering raises `Unusable`."""
        session = await self._connector.open(call)
        lease = PooledLease(session, self._connector.judge(call, session))
        try:
            yield lease
        finally:
            self._close(session, "not kept")

    def _close(self, session: Session, reason: str) -> None:
        peer = session.peer
        self._emit(ConnectionClosed(peer.name, peer.address, session.transactions, reason))
        task = asyncio.create_task(session.quit())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
