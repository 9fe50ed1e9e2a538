"""An endpoint: sockets that accept SMTP or LMTP, and the sessions that came of them.

`open` listens, `close` ends in order: no more connections, a good bye for who is idle, time for who is in the middle of
a message, a good bye for who is there still (RFC 5321 3.8), and then the end. How many may be connected at once, in all
and from one address, is bounded: one client can neither use up memory nor keep others out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from mailrider.clock import after
from mailrider.delivery.limits.shares import TurnedAway
from mailrider.endpoint.authentication import Client
from mailrider.endpoint.session import ClientSession
from mailrider.model.bounded_map import BoundedMap
from mailrider.model.endpoint_event import (
    AddressLeftOut,
    ClientConnected,
    ClientTurnedAway,
    EndpointClosed,
    EndpointOpened,
)
from mailrider.model.reply import Reply
from mailrider.net.listen import Listener, NoIPv6, Proxies
from mailrider.net.peer import peer_credentials
from mailrider.settings.socket_address import Scheme
from mailrider.smtp.replies import encode_reply

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Coroutine, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from mailrider.delivery.limits.shares import ClientShares
    from mailrider.endpoint.service import Service
    from mailrider.net.accept_turns import Turns
    from mailrider.net.channel import Channel
    from mailrider.settings.socket_address import SocketAddress

LAST_WORD: Final = 2.0  # seconds of the grace that the 421 has to get to those who are there still

TELL_AGAIN: Final = 60.0  # seconds until the log says again that a client was turned away
MAX_TOLD: Final = 10_000  # clients of whom that is remembered

# What a client hears who is not served, where it is one too many, and otherwise (RFC 3463 3.4).
_TOO_MANY: Final = encode_reply(Reply.make(421, "4.7.0", "Too many connections, try again later"))
_NOT_NOW: Final = encode_reply(Reply.make(421, "4.3.2", "Service not available, try again later"))


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections an endpoint serves at once: in all, and from one client.

    Those on unix sockets, where a client is a user of this machine, are counted for themselves.
    """

    most: int = 10_000
    most_of_one: int = 500


@dataclass(slots=True)
class _Present:
    """Who is connected now."""

    total: int = 0
    by_client: Counter[str] = field(default_factory=Counter)

    def enter(self, client: str) -> None:
        """One connection more."""
        self.total += 1
        self.by_client[client] += 1

    def leave(self, client: str) -> None:
        """One less."""
        self.total -= 1
        self.by_client[client] -= 1
        if not self.by_client[client]:
            del self.by_client[client]


class Endpoint:
    """One `submission`, `smtp` or `lmtp` block, while it is open."""

    def __init__(
        self,
        service: Service,
        addresses: Sequence[SocketAddress],
        limits: ConnectionLimits,
        proxies: Collection[IPv4Network | IPv6Network] = (),
        shares: ClientShares | None = None,
    ) -> None:
        """`proxies`: networks from which connections announce their client by the PROXY protocol. `shares`: where
        clients are counted together with those of other processes."""
        self._service = service
        self._addresses = addresses
        self._limits = limits
        self._shares = shares
        self._proxies = Proxies(proxies, self._turn_away) if proxies else None
        self._listeners: list[Listener] = []
        self._sessions: dict[ClientSession, asyncio.Task[None]] = {}
        self._remote, self._on_unix_sockets = _Present(), _Present()
        self._empty = asyncio.Event()
        self._closing = False
        self._told: BoundedMap[tuple[str, str], float] = BoundedMap(MAX_TOLD)

    @property
    def ports(self) -> list[int]:
        """The TCP ports, in the order of the addresses; 0 for unix sockets."""
        return [listener.port for listener in self._listeners]

    @property
    def connections(self) -> int:
        """How many sessions are under way."""
        return len(self._sessions)

    async def open(self, take: Callable[[SocketAddress], socket.socket], turns: Turns | None = None) -> None:
        """Listen on all addresses. `LocalError` if one cannot be; then none is. `take` gives sockets that are bound;
        with `turns` other processes accept from them as well.

        Where the kernel has no IPv6, `[::]` is left out if the same port of `0.0.0.0` is there.
        """
        try:
            for address in self._addresses:
                try:
                    await self._listen(address, take(address), turns)
                except NoIPv6 as error:
                    if address.ipv4_counterpart not in self._addresses:
                        raise
                    self._service.emit(AddressLeftOut(self._service.name, str(address), str(error)))
        except BaseException:
            await self.close(0)
            raise

    async def _listen(self, address: SocketAddress, ready: socket.socket, turns: Turns | None) -> None:
        implicit, local = address.scheme is Scheme.TLS, address.is_local
        listener = Listener(
            self._service.clock,
            lambda channel: self._accept(channel, local=local, implicit_tls=implicit),
            None if address.path is not None else self._proxies,
        )
        await listener.open_socket(ready, turns)
        self._listeners.append(listener)
        self._service.emit(EndpointOpened(self._service.name, str(address)))

    def _turn_away(self, client: str, reason: str) -> None:
        """Say so; of the same client for the same reason once a minute in the log: who floods us does not flood it."""
        now = self._service.clock.monotonic()
        until = self._told.get((client, reason), now)
        if until <= now:
            self._told[client, reason] = now + TELL_AGAIN
        self._service.emit(ClientTurnedAway(self._service.name, client, reason, is_repeated=until > now))

    def _accept(self, channel: Channel, *, local: bool, implicit_tls: bool) -> ClientSession:
        service, address = self._service, channel.peer_address
        local = local and channel.announced is None  # who comes through a proxy comes from anywhere
        peer = None if address else peer_credentials(channel)
        uid = None if peer is None else peer.uid
        trusted = service.trust is not None and service.trust.covers(address, announced=channel.announced)
        session = ClientSession(service, channel, Client(address, local, uid, trusted), implicit_tls=implicit_tls)
        present = self._remote if address else self._on_unix_sockets
        refused = self._refusal(session, present)
        if refused is not None:
            self._start(session, present, self._refuse(session, channel, refused, implicit_tls=implicit_tls))
        elif self._shares is None:
            service.emit(ClientConnected(service.name, session.client.name))
            self._start(session, present, session.begin())
        else:
            kind = "remote" if address else "local"
            begin = self._begin_within(self._shares, kind, session, channel, implicit_tls=implicit_tls)
            self._start(session, present, begin)
        return session

    def _refuse(
        self, session: ClientSession, channel: Channel, refused: TurnedAway, *, implicit_tls: bool
    ) -> Coroutine[Any, Any, None]:
        self._turn_away(session.client.name, refused.reason)
        if not implicit_tls:
            channel.write(_TOO_MANY if refused.is_counted else _NOT_NOW)
        return channel.close()

    def _begin_within(
        self, shares: ClientShares, kind: str, session: ClientSession, channel: Channel, *, implicit_tls: bool
    ) -> Coroutine[Any, Any, None]:
        """Serve the client if it is not too many, together with those of other processes."""
        work = session.begin()  # at once: a client that begins with TLS does not wait

        async def begin() -> None:
            try:
                refused = await shares.enter(kind, session.client.key)
            except BaseException:
                await give_up()
                raise
            if refused is not None:
                await give_up()
                await self._refuse(session, channel, refused, implicit_tls=implicit_tls)
                return
            try:
                self._service.emit(ClientConnected(self._service.name, session.client.name))
                await work
            finally:
                shares.leave(kind, session.client.key)

        async def give_up() -> None:
            if implicit_tls:  # the handshake has begun
                session.abort()
                await work
            else:
                work.close()

        return begin()

    def _refusal(self, session: ClientSession, present: _Present) -> TurnedAway | None:
        if self._closing:
            return TurnedAway("shutting down", is_counted=False)
        if present.total >= self._limits.most:
            return TurnedAway(f"there are {self._limits.most} connections already (max_connections)")
        if present.by_client[session.client.key] >= self._limits.most_of_one:
            return TurnedAway(f"it has {self._limits.most_of_one} connections already (max_client_connections)")
        return None

    def _start(self, session: ClientSession, present: _Present, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._sessions[session] = task
        present.enter(session.client.key)

        def done(_: object) -> None:
            del self._sessions[session]
            present.leave(session.client.key)
            if not self._sessions:
                self._empty.set()

        task.add_done_callback(done)

    def stop_accepting(self) -> None:
        """Leave new connections to others who serve the same sockets; whoever is connected is served as before."""
        for listener in self._listeners:
            listener.stop()

    def stop(self) -> None:
        """Accept no more; say good bye to who is idle, and to the others once their message is through."""
        self._closing = True
        self.stop_accepting()
        for session in list(self._sessions):
            session.leave()

    async def ended(self) -> None:
        """Wait until all sessions have ended; `stop` before that."""
        self._empty.clear()
        if self._sessions:
            await self._empty.wait()

    async def close(self, grace: float) -> None:
        """End, within so many seconds; who is not done by then has been told 421, and is cut off."""
        self.stop()
        last_word = min(LAST_WORD, grace / 2)
        await self._wait_until_empty(grace - last_word)
        for session, task in list(self._sessions.items()):
            if session.dismiss():
                task.cancel()
        cut_off = len(self._sessions)
        await self._wait_until_empty(last_word)
        left = list(self._sessions.items())
        for session, task in left:
            session.abort()
            task.cancel()
        await asyncio.gather(*(task for _, task in left), return_exceptions=True)
        for listener in self._listeners:
            await listener.close()
        if self._listeners:
            where = ", ".join(map(str, self._addresses))
            self._service.emit(EndpointClosed(self._service.name, where, cut_off))
        self._listeners = []

    async def _wait_until_empty(self, seconds: float) -> None:
        try:
            async with after(self._service.clock, seconds):
                await self.ended()
        except TimeoutError:
            pass
