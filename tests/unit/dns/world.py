"""Servers and a validating library that are none, on virtual time: what a probe can meet (RFC 4035 4)."""

from __future__ import annotations

import asyncio
import enum
import random
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar

import dns.flags
import dns.message
import dns.rrset

from mailrider.dns.answer import RecordType
from mailrider.dns.caching import CachingResolver
from mailrider.dns.probe import DNSKEY, Prober
from mailrider.dns.proof import BOGUS_NAME, SIGNED_NAME
from mailrider.dns.servers import ServerAddress, choose_servers
from mailrider.dns.stub import NameServers
from mailrider.dns.transport import Transport
from mailrider.dns.unbound import Validated
from mailrider.dns.validation import Proven, Validates, ValidationKeeper
from mailrider.dns.wire import NUMBERS, Question
from mailrider.errors import LocalError
from mailrider.model.domain import Domain
from tests.unit.dns.messages import Row, message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mailrider.dns.anchors import Anchor
    from mailrider.model.event import Event
    from mailrider.testing.clock import FakeClock

T = TypeVar("T")

ONE, TWO, HERE = (ServerAddress(ip_address(ip)) for ip in ("192.0.2.1", "192.0.2.2", "127.0.0.1"))
TLS = ServerAddress(ip_address("192.0.2.3"), 853, tls_name="dns.test")
NAME, UNSIGNED, BOGUS = Domain("signed.test"), Domain("unsigned.test"), Domain("bogus.test")
TIMEOUT, PATIENCE = 5.0, 15.0

ROOT_KEY = "257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ=="
_ROOT_SIGNATURE = "DNSKEY 13 0 300 20300101000000 20200101000000 1 . AAAA"


class Server(enum.Enum):
    """How a server behaves."""

    FIT = enum.auto()
    SILENT = enum.auto()
    STRIPS = enum.auto()
    OTHER_KEYS = enum.auto()


class World(Transport):
    """Servers by their address, as a transport and as a library. `validators` are the contexts that are open."""

    def __init__(self) -> None:
        self.servers: dict[ServerAddress, Server] = {}
        self.validators: list[tuple[tuple[ServerAddress, ...], bool]] = []
        self.opened: list[tuple[tuple[ServerAddress, ...], bool]] = []
        self.asked: list[tuple[str, bool]] = []
        self.broken = ""

    # The library -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open_validator(self, servers: tuple[ServerAddress, ...], caches: bool) -> AsyncIterator[_Validator]:
        if self.broken:
            raise LocalError(self.broken)
        self.validators.append((servers, caches))
        self.opened.append((servers, caches))
        try:
            yield _Validator(self, servers, caches)
        finally:
            self.validators.remove((servers, caches))

    # The network -------------------------------------------------------------------------------------------------

    async def ask_udp(self, server: ServerAddress, query: bytes, accept: Callable[[bytes], T | None]) -> T:
        return await self._ask(server, query, accept)

    async def ask_tcp(self, server: ServerAddress, query: bytes, accept: Callable[[bytes], T | None]) -> T:
        return await self._ask(server, query, accept)

    async def _ask(self, server: ServerAddress, query: bytes, accept: Callable[[bytes], T | None]) -> T:
        behaviour = self.servers[server]
        if behaviour is Server.SILENT:
            await asyncio.Event().wait()
        question = dns.message.from_wire(query)
        if question.question[0].rdtype == DNSKEY:
            reply = accept(keys_message(question, signed=behaviour is not Server.STRIPS))
        else:
            name = Domain(question.question[0].name.to_text(omit_final_dot=True))
            record_type = RecordType(dns.rdatatype.to_text(question.question[0].rdtype))
            reply = accept(answer(Question(name, record_type, question.id), flags="QR RD RA AD"))
        assert reply is not None
        return reply


class _Validator:
    def __init__(self, world: World, servers: tuple[ServerAddress, ...], caches: bool) -> None:
        self._world, self._servers, self._caches = world, servers, caches

    async def ask(self, name: str, record_type: int) -> Validated:
        heard = [self._world.servers[server] for server in self._servers]
        if all(behaviour is Server.SILENT for behaviour in heard):
            await asyncio.Event().wait()
        if record_type == DNSKEY:
            if Server.OTHER_KEYS in heard:
                return Validated(bogus=True, why="no key fits")
            return Validated(keys_message(dns.message.make_query(".", "DNSKEY")), secure=True)
        if Server.FIT not in heard:
            return Validated(bogus=True, why="signatures are missing")
        if name not in (SIGNED_NAME.ascii, BOGUS_NAME.ascii):
            self._world.asked.append((name, self._caches))
        if name in (BOGUS_NAME.ascii, BOGUS.ascii):
            return Validated(bogus=True, why="wrong signature")
        number = next(each for each, value in NUMBERS.items() if value == record_type)
        packet = answer(Question(Domain(name), number, 0))
        return Validated(packet, secure=name != UNSIGNED.ascii)


def answer(question: Question, flags: str = "QR RD RA") -> bytes:
    """An answer for any name and for the two types that are asked for."""
    row: Row = (f"{question.name.ascii}.", "A", "192.0.2.7")
    if question.record_type is RecordType.MX:
        row = (f"{question.name.ascii}.", "MX", "10 mx.test.")
    return message(question, [row], flags=flags)


def keys_message(query: dns.message.Message, *, signed: bool = True) -> bytes:
    """The root's keys, with their signature or without."""
    reply = dns.message.make_response(query)
    reply.answer = [dns.rrset.from_text(".", 300, "IN", "DNSKEY", ROOT_KEY)]
    if signed:
        reply.answer.append(dns.rrset.from_text(".", 300, "IN", "RRSIG", _ROOT_SIGNATURE))
    return reply.to_wire()


@asynccontextmanager
async def validating(
    world: World,
    clock: FakeClock,
    events: list[Event],
    *,
    auto: bool = False,
    anchors: tuple[Anchor, ...] = (),
    proven: Proven | None = None,
) -> AsyncIterator[CachingResolver]:
    """A resolver and its keeper over that world; leaves nothing open."""
    rng = random.Random(1)
    servers = tuple(world.servers)
    names = NameServers(choose_servers(servers), clock=clock, rng=rng, timeout=TIMEOUT, attempts=3, transport=world)
    prober = Prober(world.open_validator, world, clock, rng, timeout=TIMEOUT, patience=PATIENCE)
    resolver = CachingResolver(names, clock, events.append, cache_size=100, validator="libunbound 0", patience=PATIENCE)
    how = Validates(servers, anchors, "libunbound 0", auto)
    keeper = ValidationKeeper(resolver, how, prober, clock, events.append, proven or Proven())
    async with resolver, keeper:
        yield resolver
    assert world.validators == []
    assert clock.pending == 0
