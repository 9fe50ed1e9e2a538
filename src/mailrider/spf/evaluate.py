"""Whether a domain lets an address send for it: check_host() of RFC 7208 4, with its bounds.

Everything in a record is a stranger's word: at most `MAX_LOOKUPS` terms that ask DNS in all (RFC 7208 4.6.4), at most
`MAX_NAMES` hosts for each of them, at most `MAX_VOID` answers without records.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING, Any, Final

from mailrider.dns.answer import LookupFailed, MXRecord, RecordType
from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain, reverse_name
from mailrider.spf.record import SPFSyntax, expand, find_records, parse_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.dns.resolver import Resolver
    from mailrider.spf.record import SPFTerm

MAX_LOOKUPS: Final = 10
MAX_NAMES: Final = 10
MAX_VOID: Final = 2


class SPFResult(enum.StrEnum):
    """The results of an evaluation (RFC 7208 2.6)."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105 # no password
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


_QUALIFIED: Final = {
    "+": SPFResult.PASS,
    "-": SPFResult.FAIL,
    "~": SPFResult.SOFTFAIL,
    "?": SPFResult.NEUTRAL,
}


@dataclass(frozen=True, slots=True)
class SPFVerdict:
    """The result, and the term or the mistake that it comes from."""

    result: SPFResult
    reason: str


class _Ended(Exception):
    """The evaluation is over, with an error."""

    def __init__(self, result: SPFResult, reason: str) -> None:
        super().__init__(reason)
        self.verdict = SPFVerdict(result, reason)


@dataclass(slots=True)
class _Evaluation:
    """One question; `lookups` and `void` are what it has used up."""

    resolver: Resolver
    address: IPv4Address | IPv6Address
    sender: str
    helo: str
    lookups: int = 0
    void: int = 0
    names: list[Domain] | None = field(default=None)

    async def evaluate(self, domain: Domain) -> SPFVerdict:
        answer = await self.lookup(domain, RecordType.TXT, counts=False)
        texts = find_records(answer)
        if not texts:
            return SPFVerdict(SPFResult.NONE, f"{domain} has no SPF record")
        if len(texts) > 1:
            raise _Ended(SPFResult.PERMERROR, f"{domain} has {len(texts)} SPF records, one is allowed")
        try:
            record = parse_record(texts[0])
        except SPFSyntax as error:
            raise _Ended(SPFResult.PERMERROR, f"the record of {domain} is wrong: {error}") from error
        for mechanism in record.mechanisms:
            if await self.matches(mechanism, domain):
                return SPFVerdict(_QUALIFIED[mechanism.qualifier], f"{mechanism.text} of {domain}")
        if not record.redirect:
            return SPFVerdict(SPFResult.NEUTRAL, f"no term of {domain} matches")
        self.count(record.redirect)
        target = self.expanded(record.redirect, domain)
        verdict = None if target is None else await self.evaluate(target)
        if verdict is None or verdict.result is SPFResult.NONE:
            raise _Ended(SPFResult.PERMERROR, f"redirect={record.redirect} of {domain} leads to no record")
        return verdict

    def count(self, text: str) -> None:
        self.lookups += 1
        if self.lookups > MAX_LOOKUPS:
            raise _Ended(SPFResult.PERMERROR, f"more than {MAX_LOOKUPS} terms ask DNS, up to {text}")

    async def lookup(self, name: Domain, record_type: RecordType, *, counts: bool = True) -> Sequence[Any]:
        try:
            answer = await self.resolver.lookup(name, record_type)
        except LookupFailed as error:
            raise _Ended(SPFResult.TEMPERROR, str(error)) from error
        if counts and not answer.records:
            self.void += 1
            if self.void > MAX_VOID:
                raise _Ended(SPFResult.PERMERROR, f"more than {MAX_VOID} names in it have no records, up to {name}")
        return answer.records

    def expanded(self, spec: str, domain: Domain) -> Domain | None:
        """The name that a domain-spec means; None for one that cannot exist, which matches nothing."""
        local, _, sender_domain = self.sender.rpartition("@")
        four = self.address.version == 4
        dotted = str(self.address) if four else ".".join(self.address.exploded.replace(":", ""))
        values = {
            "s": self.sender,
            "l": local,
            "o": sender_domain,
            "d": domain.ascii,
            "i": dotted,
            "p": self.names[0].ascii if self.names else "unknown",
            "v": "in-addr" if four else "ip6",
            "h": self.helo,
        }
        try:
            return Domain.parse(expand(spec, values))
        except InvalidValue:
            return None

    async def matches(self, mechanism: SPFTerm, domain: Domain) -> bool:
        name = mechanism.name
        if name == "all":
            return True
        if mechanism.network is not None:
            return self.address in mechanism.network
        self.count(mechanism.text)
        if "%{p" in mechanism.domain.lower():
            await self.validated_names(domain)
        target = self.expanded(mechanism.domain, domain) if mechanism.domain else domain
        if target is None:
            return False
        match name:
            case "include":
                return await self.included(mechanism, target)
            case "a":
                return await self.is_address_of(target, mechanism.lengths)
            case "mx":
                return await self.is_mx_of(target, mechanism.lengths)
            case "exists":
                return bool(await self.lookup(target, RecordType.A))
            case _:
                names = await self.validated_names(target)
                return any(each == target or each.ascii.endswith(f".{target.ascii}") for each in names)

    async def included(self, mechanism: SPFTerm, target: Domain) -> bool:
        verdict = await self.evaluate(target)
        if verdict.result is SPFResult.NONE:
            raise _Ended(SPFResult.PERMERROR, f"{mechanism.text}: {verdict.reason}")
        return verdict.result is SPFResult.PASS

    async def is_address_of(self, host: Domain, lengths: tuple[int, int], *, counts: bool = True) -> bool:
        kind = RecordType.A if self.address.version == 4 else RecordType.AAAA
        length = lengths[0] if self.address.version == 4 else lengths[1]
        addresses = await self.lookup(host, kind, counts=counts)
        return any(self.address in ip_network((each, length), strict=False) for each in addresses)

    async def is_mx_of(self, domain: Domain, lengths: tuple[int, int]) -> bool:
        records = [each for each in await self.lookup(domain, RecordType.MX) if isinstance(each, MXRecord)]
        hosts = [each.host for each in records if each.host is not None]
        if len(hosts) > MAX_NAMES:
            raise _Ended(SPFResult.PERMERROR, f"{domain} has more than {MAX_NAMES} MX hosts")
        for host in hosts:
            if await self.is_address_of(host, lengths, counts=False):
                return True
        return False

    async def validated_names(self, domain: Domain) -> Sequence[Domain]:
        """The names of the address that lead back to it (RFC 7208 5.5), those within `domain` first."""
        if self.names is None:
            found: list[Domain] = []
            try:
                answer = await self.resolver.lookup(reverse_name(self.address), RecordType.PTR)
                names = answer.records[:MAX_NAMES]
                found = [each for each in names if await self.is_address_of(each, (32, 128), counts=False)]
            except (LookupFailed, _Ended):
                pass  # RFC 7208 5.5: then it does not match
            self.names = sorted(found, key=lambda each: not each.ascii.endswith(domain.ascii))
        return self.names


async def check_host(
    resolver: Resolver, address: IPv4Address | IPv6Address, domain: Domain, *, helo: Domain, sender: str = ""
) -> SPFVerdict:
    """What the record of `domain` says of mail from that address. `sender` empty: postmaster of the domain."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # RFC 7208 5
    evaluation = _Evaluation(resolver, address, sender or f"postmaster@{domain.ascii}", helo.ascii)
    try:
        return await evaluation.evaluate(domain)
    except _Ended as ended:
        return ended.verdict
