"""Is a DNS server fit for validation in this process? It must hand signatures on, over UDP and TCP (RFC 4035 4.1).

Each server is asked itself for the keys of the root, and through a validator for them, for a name that is signed, and
for one whose signature is wrong on purpose. `judge_probe` and `next_plan` are pure; `Prober` asks.

What always holds: a server that gives no answer proves nothing against itself; one whose keys of the root fit no trust
anchor is never a reason to go on without validation, because that is what an attacker would send.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from mailrider.clock import after
from mailrider.dns.answer import RecordType
from mailrider.dns.proof import BOGUS_NAME, SIGNED_NAME
from mailrider.dns.transport import NotAnAnswer
from mailrider.dns.unbound import Validated
from mailrider.dns.validating import Failing, Unvalidated
from mailrider.dns.wire import NUMBERS, PAYLOAD
from mailrider.errors import LocalError

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Mapping

    from mailrider.clock import Clock
    from mailrider.dns.servers import ServerAddress
    from mailrider.dns.transport import Transport
    from mailrider.dns.validating import Asks, OpenValidator

MAX_KEYS_MESSAGE: Final = 8192  # octets: the root's keys and signatures take 1,400; more is not read
DNSKEY: Final = int(dns.rdatatype.DNSKEY)

_UNREADABLE = (dns.exception.DNSException, ValueError, IndexError)


class Fitness(enum.Enum):
    """What a probe showed of one server."""

    FIT = enum.auto()
    SILENT = enum.auto()
    STRIPS = enum.auto()
    OTHER_KEYS = enum.auto()


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """A probe's result; `reason` is there if it is not `FIT`. `root_keys`: DNSKEY rdata, if they were secure."""

    fitness: Fitness
    reason: str = ""
    root_keys: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class KeysAnswer:
    """What a server says when it is asked itself for the root's keys; `error` if it says nothing of use."""

    is_signed: bool = False
    is_truncated: bool = False
    error: str = ""


def judge_probe(
    keys: Validated, signed: Validated, bogus: Validated, udp: KeysAnswer | None = None, tcp: KeysAnswer | None = None
) -> ProbeResult:
    """What the answers show: `udp` and `tcp` are from a plain server itself, the others from a validator."""
    for way, answer in (("UDP", udp), ("TCP", tcp)):
        if answer is None:  # a server over TLS, or the recursion from the root
            continue
        if answer.error:
            return ProbeResult(Fitness.SILENT, f"the root's keys over {way}: {answer.error}")
        if not answer.is_signed and not (answer.is_truncated and way == "UDP"):
            return ProbeResult(Fitness.STRIPS, f"the root's keys come without signatures (RRSIG) over {way}")
    if keys.bogus:
        return ProbeResult(Fitness.OTHER_KEYS, f"its keys of the root fit no trust anchor: {keys.why}")
    if not keys.secure:
        return ProbeResult(Fitness.SILENT, f"no keys of the root: {_problem(keys)}")
    if signed.bogus:
        return ProbeResult(Fitness.STRIPS, f"{SIGNED_NAME} does not validate: {signed.why}")
    if not signed.secure:
        return ProbeResult(Fitness.SILENT, f"{SIGNED_NAME}: {_problem(signed)}")
    if _has_answer(bogus) and not bogus.bogus and not bogus.secure:
        return ProbeResult(Fitness.STRIPS, f"the wrong signature of {BOGUS_NAME} is not found")
    return ProbeResult(Fitness.FIT, root_keys=read_keys(keys.packet))


def _problem(answer: Validated) -> str:
    if answer.error:
        return answer.error
    rcode = dns.rcode.to_text(dns.rcode.Rcode(answer.packet[3] & 15)) if len(answer.packet) > 3 else "no answer"
    return rcode if rcode != "NOERROR" else "not signed"


def _has_answer(answer: Validated) -> bool:
    return len(answer.packet) > 12 and answer.packet[3] & 15 == 0 and answer.packet[6:8] != b"\0\0"


def read_keys(packet: bytes) -> tuple[bytes, ...]:
    """The rdata of the root's DNSKEY records in a message; none if it cannot be read."""
    if len(packet) > MAX_KEYS_MESSAGE:
        return ()
    try:
        message = dns.message.from_wire(packet, ignore_trailing=True)
    except _UNREADABLE:
        return ()
    rrset = message.get_rrset(message.answer, dns.name.root, dns.rdataclass.IN, dns.rdatatype.DNSKEY)
    return tuple(sorted(rdata.to_wire() or b"" for rdata in rrset)) if rrset is not None else ()


# What follows from all findings ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Validating:
    """A validator asks these servers."""

    servers: tuple[ServerAddress, ...] = ()


Plan = Validating | Unvalidated | Failing
"""What is to be done."""


def next_plan(before: Plan | None, findings: Mapping[ServerAddress, ProbeResult], *, may_turn_off: bool) -> Plan:
    """What follows from a probe of all servers. `may_turn_off`: without validation rather than not at all.

    Once validation worked it stays: nobody can turn it off from outside by stripping signatures later.
    """
    was_asked = before.servers if isinstance(before, Validating) else ()
    if any(finding.fitness is Fitness.FIT for finding in findings.values()):
        return Validating(tuple(s for s, finding in findings.items() if _is_usable(s, finding, was_asked)))
    if isinstance(before, Validating):
        return Validating(tuple(s for s in findings if s in was_asked) or tuple(findings))
    reason = "; ".join(f"{server}: {finding.reason}" for server, finding in findings.items()) or "no DNS server"
    has_other_keys = any(finding.fitness is Fitness.OTHER_KEYS for finding in findings.values())
    if may_turn_off and not has_other_keys:
        return Unvalidated(f"no DNS server is fit for validation ({reason})")
    return Failing(f"nothing can be validated ({reason})")


def _is_usable(server: ServerAddress, finding: ProbeResult, was_asked: tuple[ServerAddress, ...]) -> bool:
    """A server that was fit and is silent for a moment is kept: the validator asks another while it is."""
    return finding.fitness is Fitness.FIT or (finding.fitness is Fitness.SILENT and server in was_asked)


# Asking ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prober:
    """Asks for what `judge_probe` judges. `timeout` bounds a question to a server itself, `patience` the others."""

    open_validator: OpenValidator
    transport: Transport
    clock: Clock
    rng: random.Random
    timeout: float
    patience: float

    async def probe(self, servers: tuple[ServerAddress, ...]) -> dict[ServerAddress, ProbeResult]:
        """A finding for each server."""
        findings = await asyncio.gather(*map(self._probe, servers))
        return dict(zip(servers, findings, strict=True))

    async def _probe(self, server: ServerAddress) -> ProbeResult:
        try:
            async with self.open_validator((server,), True) as validator:
                if not server.is_plain:
                    return judge_probe(*await self._ask_validator(validator))
                (keys, signed, bogus), udp, tcp = await asyncio.gather(
                    self._ask_validator(validator),
                    self._ask_keys(server, self.transport.ask_udp),
                    self._ask_keys(server, self.transport.ask_tcp),
                )
                return judge_probe(keys, signed, bogus, udp, tcp)
        except LocalError as error:  # no thread, no descriptor: nothing is said of the server
            return ProbeResult(Fitness.SILENT, str(error))

    async def _ask_validator(self, validator: Asks) -> tuple[Validated, Validated, Validated]:
        """The root's keys, a signed name, a bogus one."""
        questions = (
            ("", DNSKEY),
            (SIGNED_NAME.ascii, int(NUMBERS[RecordType.MX])),
            (BOGUS_NAME.ascii, int(NUMBERS[RecordType.A])),
        )
        keys, signed, bogus = await asyncio.gather(*(self._bounded(validator.ask(*each)) for each in questions))
        return keys, signed, bogus

    async def _bounded(self, asking: Awaitable[Validated]) -> Validated:
        try:
            async with after(self.clock, self.patience):
                return await asking
        except TimeoutError:
            return Validated(error=f"no answer within {self.patience:g} s")

    async def _ask_keys(self, server: ServerAddress, carry: _Carry) -> KeysAnswer:
        """What a server says itself when it is asked for the root's keys and signatures (DO, RFC 3225)."""
        query = dns.message.make_query(
            dns.name.root, dns.rdatatype.DNSKEY, want_dnssec=True, payload=PAYLOAD, id=self.rng.getrandbits(16)
        )
        try:
            async with after(self.clock, self.timeout):
                return await carry(server, query.to_wire(), partial(read_keys_answer, query))
        except TimeoutError:
            return KeysAnswer(error=f"no answer within {self.timeout:g} s")
        except NotAnAnswer as error:
            return KeysAnswer(error=str(error))
        except OSError as error:
            return KeysAnswer(error=error.strerror or str(error))


if TYPE_CHECKING:
    from collections.abc import Callable

    _Carry = Callable[[ServerAddress, bytes, Callable[[bytes], KeysAnswer | None]], Awaitable[KeysAnswer]]


def read_keys_answer(query: dns.message.Message, octets: bytes) -> KeysAnswer | None:
    """What a message says to the question for the root's keys; None if it does not answer that."""
    if len(octets) > MAX_KEYS_MESSAGE:
        return KeysAnswer(error=f"more than {MAX_KEYS_MESSAGE} octets")
    try:
        message = dns.message.from_wire(octets, ignore_trailing=True)
    except _UNREADABLE:
        return None
    if not query.is_response(message):
        return None
    if message.rcode() != dns.rcode.NOERROR:
        return KeysAnswer(error=dns.rcode.to_text(message.rcode()))
    signature = message.get_rrset(
        message.answer, dns.name.root, dns.rdataclass.IN, dns.rdatatype.RRSIG, dns.rdatatype.DNSKEY
    )
    return KeysAnswer(signature is not None, bool(message.flags & dns.flags.TC))
