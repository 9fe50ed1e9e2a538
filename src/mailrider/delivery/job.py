"""What an attempt is given: a message, the rules of its target, hosts, connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mailrider.model.value import value

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from mailrider.delivery.connection.connect import ConnectRequest
    from mailrider.delivery.connection.peer import Peer
    from mailrider.delivery.destination import Budget
    from mailrider.delivery.mx import Address, HostNotFound
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Envelope
    from mailrider.model.route import Candidate, Candidates, Host
    from mailrider.model.security import PeerEvidence, Refusal, Requirement
    from mailrider.model.tls_session import PoliciesSeen
    from mailrider.policy.base import Admission
    from mailrider.policy.judge import Judgement
    from mailrider.policy.requiretls import MessageSecurity
    from mailrider.smtp.capabilities import Capabilities
    from mailrider.smtp.content import Content
    from mailrider.smtp.transaction import Transaction


class SessionLike(Protocol):
    """What an attempt needs of a session."""

    @property
    def peer(self) -> Peer: ...
    @property
    def evidence(self) -> PeerEvidence: ...
    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def takes_no_more_domains(self) -> bool: ...
    async def transact(self, transaction: Transaction, content: Content) -> Exception | None: ...


class Lease(Protocol):
    """A judged connection, ours until the end of the `async with` that gave it. `reused`: it carried others before."""

    @property
    def session(self) -> SessionLike: ...
    @property
    def judgement(self) -> Judgement: ...
    @property
    def reused(self) -> bool: ...

    def give_up(
        self, *, wants_tls: bool = False, knows_no_chunks: bool = False, takes_no_more_domains: bool = False
    ) -> None:
        """The connection is not to be used again. `wants_tls`: the server takes nothing in clear, `knows_no_chunks`:
        it does not know BDAT, `takes_no_more_domains`: it takes no recipients of other domains on it."""


class DestinationLike(Protocol):
    """Knows the hosts of a next hop and what they must prove; `destination.Destination` is the one that asks DNS."""

    @property
    def next_hop(self) -> NextHop: ...
    async def find(self) -> Candidates: ...
    async def usable_group(self, group: Sequence[Candidate]) -> tuple[Candidate, ...] | None: ...
    async def admit(self, candidate: Candidate) -> Admission: ...
    async def host(self, candidate: Candidate) -> Host | HostNotFound: ...
    def late_addresses(self, candidate: Candidate) -> asyncio.Future[tuple[Address, ...]] | None: ...
    async def close(self) -> None: ...
    def budget(self, candidate: Candidate) -> Budget: ...
    async def requirement(self, host: Host) -> Requirement | Refusal: ...
    def policies_seen(self, candidate: Candidate) -> PoliciesSeen | None: ...
    async def tls_failed(self) -> None: ...


class Connections(Protocol):
    """Where connections come from."""

    def lease(self, call: ConnectRequest, *, fresh: bool = False) -> AbstractAsyncContextManager[Lease]:
        """A connection for the call, a new one if `fresh`. Entering raises `Unusable` and `ConnectLater`."""


@value
class Job:
    """What is to be delivered: the same for all next hops of a message."""

    envelope: Envelope
    content: Content
    security: MessageSecurity


@dataclass(frozen=True, slots=True)
class AttemptRules:
    """What a target's configuration says about all of its attempts.

    `local_ip`: the source address; addresses of another family cannot be used. `prohibits` tells the addresses that are
    never connected to. `reports_tls`: TLS reports are told what new connections show (RFC 8460).
    """

    strict_eight_bit: bool = False
    local_ip: Address | None = None
    prohibits: Callable[[Address], bool] = lambda _: False
    reports_tls: bool = False
