"""Connections for attempts: a `ConnectRequest` says which one is wanted, a `Lease` is one that was judged for it.

`Connector` makes new ones: dial, greeting, EHLO, STARTTLS, judgement, with the fallback in clear where nothing demands
TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.delivery.connection.opening import open_session
from mailrider.delivery.connection.peer import Peer
from mailrider.delivery.connection.unusable import Unusable
from mailrider.delivery.race import AddressHistory, RaceLost
from mailrider.errors import LocalError, NetworkError
from mailrider.model.bounded_map import BoundedMap
from mailrider.model.domain import Domain
from mailrider.model.event import ConnectionJudged, ConnectionOpened, FellBackToClear, TestingPolicyMissed
from mailrider.model.outcome import Try, TryResult
from mailrider.model.reply import Reply, quote_reply
from mailrider.model.security import Mechanism
from mailrider.model.tls_session import TLSSessionSeen
from mailrider.model.value import value
from mailrider.net.errors import ConnectRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.clock import Clock
    from mailrider.delivery.connection.fallback import FallbackMemory
    from mailrider.delivery.connection.peer import SessionRules
    from mailrider.delivery.connection.session import Session
    from mailrider.delivery.destination import Budget
    from mailrider.delivery.race import Race
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Recipient
    from mailrider.model.event import Emit
    from mailrider.model.route import Candidate
    from mailrider.model.security import MXLevel, Requirement, Verdict
    from mailrider.model.tls_problem import TLSProblem
    from mailrider.model.tls_session import PoliciesSeen
    from mailrider.net.channel import Channel
    from mailrider.net.dial import Dialer
    from mailrider.net.tls import ClientContext
    from mailrider.policy.judge import Judge, Judgement

DAY: Final = 86_400.0  # seconds
MAX_KNOWN: Final = 10_000  # servers that do not know BDAT


@value
class ConnectRequest:
    """The connection that is wanted: for which next hop, to which host and address, and what it must satisfy.

    `addresses_left`: how many of the host's addresses share what is left of the budget, this one included. `race`: that
    of the host's addresses, if it has several. `in_clear`: why TLS is not to be tried, where nothing demands it.
    `policies_seen`: what TLS reports are told of the policies, asked for when a new connection is made; None: they are
    told nothing.
    `message`: the id of the message that it is for, `recipients`: its recipients at this next hop.
    """

    next_hop: NextHop
    candidate: Candidate
    address: IPv4Address | IPv6Address
    requirement: Requirement
    admitted: MXLevel
    budget: Budget
    note: Callable[[Try], None]
    addresses_left: int = 1
    race: Race | None = None
    in_clear: TLSProblem | None = None
    policies_seen: Callable[[], PoliciesSeen | None] | None = None
    message: str = ""
    recipients: Sequence[Recipient] = ()

    @property
    def mx(self) -> NextHop:
        """The host's name."""
        return self.candidate.host

    @property
    def server_name(self) -> str | None:
        """The name that TLS asks for: the TLSA base domain under DANE (RFC 7672 8.1), else the MX host's."""
        if self.requirement.sni is not None:
            return self.requirement.sni.ascii
        host = self.candidate.host
        return host.ascii if isinstance(host, Domain) else None


class Connector:
    """Opens connections, and judges them."""

    def __init__(
        self,
        dialer: Dialer,
        clock: Clock,
        context: ClientContext,
        judge: Judge,
        rules: SessionRules,
        fallback: FallbackMemory,
        emit: Emit,
        port: int,
        address_history: AddressHistory | None = None,
        strict_context: ClientContext | None = None,
    ) -> None:
        """`address_history` learns which addresses can be connected to; `strict_context`: for TLS that is demanded."""
        self._address_history = address_history or AddressHistory(clock)
        self._dialer = dialer
        self._clock = clock
        self._context = context
        self._strict_context = strict_context or context
        self._judge = judge
        self._rules = rules
        self._fallback = fallback
        self._no_chunks: BoundedMap[str, float] = BoundedMap(MAX_KNOWN)  # addresses: until when
        self._emit = emit
        self.port = port

    async def open(self, call: ConnectRequest) -> Session:
        """A new connection past EHLO. Raises `Unusable`, and `RaceLost` where the call has a race."""
        address = str(call.address)
        in_clear = None if call.requirement.demands_tls else self._why_in_clear(call)
        try:
            session = await self._open(call, in_clear)
        except Unusable as error:
            if error.problem is not None:
                self._tell_session_failed(call, error, error.problem)
            if error.problem is None or not error.may_fall_back or call.requirement.demands_tls:
                raise
            self._fallback.failed(address, call.next_hop, error.problem)
            self._tell_fallback(call, error.reply, error.problem)
            session = await self._open(call, error.problem)
        else:
            self._tell_session(call, session)
        if self._clock.monotonic() < self._no_chunks.get(address, 0.0):
            session.leave_out_chunking()
        refused = session.evidence.clear_because
        if session.starttls_refusal is not None and refused is not None and not call.requirement.demands_tls:
            self._tell_fallback(call, quote_reply(session.peer.name, session.starttls_refusal), refused)
        if session.evidence.tls is not None:
            self._fallback.worked(address, call.next_hop)
        tls = session.evidence.tls
        self._emit(
            ConnectionOpened(
                session.peer.name,
                address,
                tls.version if tls else None,
                tls.cipher if tls else None,
                session.evidence.clear_reason,
            )
        )
        return session

    def _why_in_clear(self, call: ConnectRequest) -> TLSProblem | None:
        """Why TLS is not tried with that address; None if it is."""
        address = str(call.address)
        if call.in_clear is not None:
            self._fallback.failed(address, call.next_hop, call.in_clear)
        return self._fallback.recall(address, call.next_hop)

    def chunks_not_known(self, call: ConnectRequest) -> None:
        """The server offers CHUNKING, and does not know BDAT: it is sent no BDAT for a day."""
        self._no_chunks[str(call.address)] = self._clock.monotonic() + DAY

    def try_tls_again(self, call: ConnectRequest) -> None:
        """Whatever failed lately: in clear that server takes nothing."""
        self._fallback.worked(str(call.address), call.next_hop)

    def judge(self, call: ConnectRequest, session: Session) -> Judgement:
        """What a new connection is worth for this call."""
        judgement = self._judge.judge(call.requirement, call.admitted, session.evidence, self._clock.now())
        if judgement.refusal is None:
            self.announce(call, session, judgement)
        return judgement

    def verdicts(self, call: ConnectRequest, session: Session) -> tuple[Verdict, ...]:
        """What PKIX says of its certificate, and DANE where it speaks."""
        return self._judge.verdicts(call.requirement, session.evidence, self._clock.now())

    def judge_kept(self, call: ConnectRequest, session: Session, opened_for: Hashable) -> Judgement | None:
        """What a kept connection, opened for a next hop named `opened_for`, is worth for this call; None: too little.

        What the peer proved is its own; what is demanded is this call's, from current DNS and policy.
        """
        if session.capabilities.max_domains is not None and not session.has_room_for(call.recipients):
            return None  # RFC 9422 4.3
        tls = session.evidence.tls
        if tls is not None:
            if tls.sni != call.server_name:
                return None
            if session.evidence.lenient and tls.version != "TLSv1.3" and call.requirement.demands_tls:
                return None  # TLS 1.3 has no renegotiation (RFC 8446 4.1.2); before it, some cannot do it securely
        elif session.peer.in_clear is not None and not self._may_stay_in_clear(call, opened_for):
            return None
        judgement = self._judge.judge(call.requirement, call.admitted, session.evidence, self._clock.now())
        return judgement if judgement.refusal is None else None

    def announce(self, call: ConnectRequest, session: Session, judgement: Judgement) -> None:
        """Tell the levels that a connection has for a call."""
        peer, security = session.peer, judgement.security
        why = judgement.reason, judgement.problems
        self._emit(ConnectionJudged(call.next_hop, peer.name, peer.address, security, *why, message=call.message))
        if security.tls_level < call.requirement.wanted_tls:
            missed = f"TLS level {security.tls_level}: {session.evidence.clear_reason or judgement.reason}"
            self._emit(TestingPolicyMissed(call.next_hop, peer.name, peer.address, missed, message=call.message))

    def _may_stay_in_clear(self, call: ConnectRequest, opened_for: Hashable) -> bool:
        """A fallback is one domain's misfortune, and is remembered for so long."""
        return opened_for == call.next_hop.ascii and self._fallback.recall(str(call.address), call.next_hop) is not None

    def _tell_fallback(self, call: ConnectRequest, reply: Reply, problem: TLSProblem) -> None:
        """What goes in clear although the server has TLS stands in the evidence, with the reason."""
        address, mx = str(call.address), str(call.mx)
        call.note(Try(mx, address, TryResult.FALLBACK, reply))
        self._emit(FellBackToClear(call.next_hop, mx, address, reply.text, problem, message=call.message))

    def _tell_session(self, call: ConnectRequest, session: Session) -> None:
        """Tell TLS reports what a new connection showed; not of one that only repeats another in clear (RFC 8460 4)."""
        policies = None if call.in_clear is not None or call.policies_seen is None else call.policies_seen()
        if policies is None:
            return
        evidence = session.evidence
        # The judge keeps its verdicts: what is asked here is not computed again when the connection is judged.
        certificate_counts = policies.sts is not None or policies.dane is not None
        verdicts = self.verdicts(call, session) if certificate_counts else ()
        found = {verdict.mechanism: verdict.problems for verdict in verdicts if not verdict.ok}
        self._emit(
            TLSSessionSeen(
                policies,
                session.peer.name,
                session.helo,
                session.peer.address,
                session.local_address,
                evidence.clear_because,
                found.get(Mechanism.PKIX, ()),
                found.get(Mechanism.DANE, ()),
            )
        )

    def _tell_session_failed(self, call: ConnectRequest, error: Unusable, problem: TLSProblem) -> None:
        """Tell of a session that failed in TLS, and of its connection."""
        policies = None if call.in_clear is not None or call.policies_seen is None else call.policies_seen()
        if policies is not None:
            mx, address = str(call.mx), str(call.address)
            self._emit(TLSSessionSeen(policies, mx, error.helo, address, error.local_address, problem))

    async def _open(self, call: ConnectRequest, in_clear: TLSProblem | None) -> Session:
        lenient = not call.requirement.demands_tls
        peer = Peer(call.mx, str(call.address), self.port, call.server_name, in_clear, lenient)
        with call.budget.share(call.addresses_left) as deadline:
            if deadline <= self._clock.monotonic():
                text = f"{call.mx} [{call.address}]: no time was left to connect to it"
                raise Unusable(TryResult.CONNECT, Reply.make(451, "4.4.1", text))
            try:
                channel = await self._connect(call, deadline)
            except NetworkError as error:
                raise Unusable(TryResult.CONNECT, Reply.make(451, "4.4.1", str(error))) from error
            except LocalError as error:
                # Out of sockets, or the source address is gone: our trouble, and no server's fault.
                raise Unusable(TryResult.CONNECT, Reply.make(451, "4.3.0", error.public)) from error
        context = self._context if lenient else self._strict_context
        return await open_session(channel, peer, self._rules, self._clock, context, self._emit)

    async def _connect(self, call: ConnectRequest, deadline: float) -> Channel:
        address = call.address
        try:
            if call.race is None:
                channel = await self._dialer.connect(address, self.port, deadline)
            else:
                channel = await call.race.connect(address, lambda it: self._dialer.connect(it, self.port, deadline))
        except (NetworkError, RaceLost) as error:
            self._address_history.failed(address, answered=isinstance(error, ConnectRefused))
            raise
        self._address_history.worked(address)
        return channel
