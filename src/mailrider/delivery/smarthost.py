"""`target.smtp` and `target.lmtp`: delivery to fixed servers, over the same sessions and pools as `target.remote`.

There is one next hop, the target itself, whose candidates stand in the configuration; DNS is asked for their addresses
only. What TLS must prove stands there too. LMTP differs in its greeting and in a reply for each recipient (RFC 2033).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING
from urllib.parse import quote

from mailrider.delivery.connection.connect import Connector, ConnectRequest
from mailrider.delivery.connection.unusable import Unusable
from mailrider.delivery.destination import Budget
from mailrider.delivery.message import MessageDelivery
from mailrider.delivery.mx import HostNotFound, LateAddresses, find_host
from mailrider.errors import InvalidValue
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.event import OwnLoginAccepted, OwnLoginRefused
from mailrider.model.reply import Reply
from mailrider.model.route import Candidate, Candidates, Host
from mailrider.model.security import NO_REQUIREMENT, MXLevel, Requirement, TLSLevel, strictest
from mailrider.policy.base import Admission
from mailrider.policy.requiretls import ORDINARY, MessageSecurity

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.delivery.connection.pool import Pool, PooledLease
    from mailrider.delivery.connection.session import Session
    from mailrider.delivery.job import AttemptRules, Connections, DestinationLike, Job
    from mailrider.delivery.limits.rules import Limiter
    from mailrider.delivery.mx import Address
    from mailrider.delivery.race import AddressHistory
    from mailrider.dns.resolver import Resolver
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Emit
    from mailrider.model.outcome import Try
    from mailrider.settings.socket_address import SocketAddress
    from mailrider.smtp.content import Content
    from mailrider.smtp.sasl import Credentials

_PROVED = Requirement(min_tls=TLSLevel.AUTHENTICATED, tls_reason="requiretls")
_ADMITTED = Admission(MXLevel.NONE)
# RFC 4954 6: authentication is required, too weak, has failed, or needs TLS; and 503, "say EHLO first".
JUDGES_OUR_LOGIN = frozenset({454, 503, 530, 534, 535, 538})
LOOPBACK = IPv4Address("127.0.0.1")  # where a unix socket is, as far as reports are concerned


def _nobody(_: Try) -> None:
    """Who is told of each try, where nobody listens."""


class AuthenticatingConnector(Connector):
    """A connector that logs in, once the judge has said that this is the server that may have the password."""

    credentials: Credentials | None = None
    _is_refused = False

    async def open(self, call: ConnectRequest) -> Session:
        """See `Connector.open`."""
        session = await super().open(call)
        try:
            if self.credentials is not None and self.judge(call, session).refusal is None:
                await self._log_in(session, self.credentials)
        except BaseException:
            # Cancelled, refused, a bug: nobody else knows of this connection yet.
            session.abort()
            raise
        return session

    async def _log_in(self, session: Session, credentials: Credentials) -> None:
        """Log in. That it is refused for good is told once, until it works: the mistake is ours, and all mail waits."""
        try:
            await session.authenticate(credentials)
        except Unusable as error:
            is_final = error.refusal is not None and error.refusal.is_permanent
            if (is_final or isinstance(error.__cause__, InvalidValue)) and not self._is_refused:
                self._is_refused = True
                self._emit(OwnLoginRefused(session.peer.name, credentials.user, error.reply.text))
            raise
        if self._is_refused:
            self._is_refused = False
            self._emit(OwnLoginAccepted(session.peer.name, credentials.user))


@dataclass(frozen=True, slots=True)
class FixedServer:
    """One configured server: its pool, and what a connection to it must prove."""

    host: NextHop
    pool: Pool
    requirement: Requirement
    address_history: AddressHistory


class FixedDestination:
    """A target's servers, and the connections to them, for one message: see `DestinationLike` and `Connections`.

    Two servers may have the same host and differ in port, scheme or path: the candidate tells them apart.
    """

    def __init__(
        self,
        servers: Sequence[FixedServer],
        resolver: Resolver,
        clock: Clock,
        connect_timeout: float,
        message: Requirement = NO_REQUIREMENT,
        *,
        waits_for_all: bool = False,
    ) -> None:
        """`waits_for_all`: see `Destination`."""
        self.next_hop = servers[0].host
        self._servers = {Candidate(server.host, preference): server for preference, server in enumerate(servers)}
        self._resolver = resolver
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._message = message
        self._budgets: dict[Candidate, Budget] = {}
        self._late = None if waits_for_all else LateAddresses(resolver, clock, dane=False)

    async def find(self) -> Candidates:
        """The servers in the order of the configuration."""
        return Candidates(self.next_hop, tuple(self._servers))

    async def usable_group(self, group: Sequence[Candidate]) -> tuple[Candidate, ...] | None:
        """All of them: whoever names a server means it."""
        return tuple(group)

    def budget(self, candidate: Candidate) -> Budget:
        """The time that looking up and connecting to this server may still take."""
        return self._budgets.setdefault(candidate, Budget(self._clock, self._connect_timeout))

    async def host(self, candidate: Candidate) -> Host | HostNotFound:
        """The server's addresses."""
        with self.budget(candidate) as deadline:
            found = await find_host(self._resolver, candidate, self._clock, deadline, force_ipv4=False, late=self._late)
        if isinstance(found, Host):
            return self._servers[candidate].address_history.ordered(found)
        if found.reply.is_permanent:
            # A configured server without an address is a mistake of ours, to be mended, and no reason to bounce.
            return HostNotFound(candidate, Reply.make(451, "4.4.4", found.reply.text))
        return found

    def late_addresses(self, candidate: Candidate) -> asyncio.Future[tuple[Address, ...]] | None:
        """The addresses of the server that are not known yet; None if all are."""
        return None if self._late is None else self._late.of(candidate)

    async def close(self) -> None:
        """End the lookups that are not needed any more."""
        if self._late is not None:
            await self._late.close()

    async def admit(self, _: Candidate) -> Admission:
        """MX levels are about MX records; there are none here."""
        return _ADMITTED

    async def requirement(self, host: Host) -> Requirement:
        """What the configuration demands of the server, and the message itself."""
        return strictest(self._servers[host.candidate].requirement, self._message)

    def lease(self, call: ConnectRequest, *, fresh: bool = False) -> PooledLease:
        """A connection to the server."""
        return self._servers[call.candidate].pool.lease(call, fresh=fresh)

    def policies_seen(self, _: Candidate) -> None:
        """TLS reports are about the servers of recipients' domains, and not about one that we are told to use."""

    async def tls_failed(self) -> None:
        """There is nothing to look at again."""


class FixedDelivery(MessageDelivery):
    """Delivers everything to the servers of one target."""

    session_codes = JUDGES_OUR_LOGIN

    def __init__(
        self,
        rules: AttemptRules,
        connect_timeout: float,
        servers: Sequence[FixedServer],
        resolver: Resolver,
        clock: Clock,
        emit: Emit,
        limiter: Limiter | None = None,
        *,
        lmtp: bool = False,
    ) -> None:
        """`connect_timeout` in seconds."""
        super().__init__(rules, clock, emit, limiter)
        self.next_hop = servers[0].host
        self.is_lmtp = lmtp
        self._connect_timeout = connect_timeout
        self._servers = servers
        self._resolver = resolver

    async def try_servers(self) -> list[tuple[NextHop, str]]:
        """Connect to each server and log in, as a delivery would, and send nothing: what is wrong with each, or ""."""
        return [(server.host, await self._try_server(server)) for server in self._servers]

    async def _try_server(self, server: FixedServer) -> str:
        destination = FixedDestination([server], self._resolver, self._clock, self._connect_timeout, waits_for_all=True)
        (candidate,) = (await destination.find()).candidates
        host = await destination.host(candidate)
        if isinstance(host, HostNotFound):
            return str(host.reply)
        requirement = await destination.requirement(host)
        fault = "it has no address that can be used"
        for address in host.addresses:
            budget = destination.budget(candidate)
            call = ConnectRequest(server.host, candidate, address, requirement, MXLevel.NONE, budget, _nobody)
            try:
                async with destination.lease(call, fresh=True) as lease:
                    refusal = lease.judgement.refusal
            except Unusable as error:
                fault = str(error.reply)
            else:
                return "" if refusal is None else refusal.reason
        return fault

    def security(self, envelope: Envelope, _: Content) -> MessageSecurity:
        """See `MessageDelivery`."""
        if not envelope.requiretls or self.is_lmtp:
            return ORDINARY
        # RFC 8689 4.2.1: whoever takes such a message must offer the extension, over a channel that has proved itself.
        # As with `target.remote`, a notification is never failed for want of the extension.
        return MessageSecurity(_PROVED, needs_extension=not envelope.sender.is_null)

    async def destination_and_connections(self, _: NextHop, job: Job) -> tuple[DestinationLike, Connections]:
        """See `MessageDelivery`."""
        demanded = job.security.requirement
        destination = FixedDestination(self._servers, self._resolver, self._clock, self._connect_timeout, demanded)
        return destination, destination


@dataclass(frozen=True, slots=True)
class UnixHost(AddressLiteral):
    """This machine, named in reports by the unix socket that we go through."""

    path: Path

    def __str__(self) -> str:
        return f"unix://{quote(str(self.path))}"


def server_host(address: SocketAddress) -> NextHop:
    """A configured server as an attempt names it: an IP address as a literal, a unix socket by its path."""
    if address.path is not None:
        return UnixHost(LOOPBACK, address.path)
    return address.host if isinstance(address.host, Domain) else AddressLiteral(address.host or LOOPBACK)
