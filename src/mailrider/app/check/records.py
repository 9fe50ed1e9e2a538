"""What a sending domain says of itself in DNS: SPF, DKIM, DMARC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.app.check.finding import error, note, ok, warning
from mailrider.app.dkim import lookup_published
from mailrider.dkim.record import parse_tags
from mailrider.dns.answer import LookupFailed, RecordType
from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.signing.keys import dns_record, examine_key
from mailrider.signing.rotation import read_successor
from mailrider.spf.evaluate import SPFResult, check_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.app.check.addresses import SourceAddress
    from mailrider.app.check.finding import Finding
    from mailrider.app.examine import SignatureKey
    from mailrider.dns.resolver import Resolver

MAX_STEPS: Final = 8  # domains above one that are asked for a DMARC policy: what receivers do, too
_DMARC: Final = "v=DMARC1; p=none; rua=mailto:postmaster@{domain}"
_DMARC_POLICIES: Final = ("none", "quarantine", "reject")
_NOT_COVERED: Final = (SPFResult.FAIL, SPFResult.SOFTFAIL, SPFResult.NEUTRAL)


async def check_spf(
    domain: Domain, hostname: Domain, sources: Sequence[SourceAddress], resolver: Resolver
) -> list[Finding]:
    """Whether the domain lets each of our addresses send for it."""
    findings: list[Finding] = []
    for source in sources:
        if not source.is_sure:
            continue
        address = source.address
        verdict = await check_host(resolver, address, domain, helo=hostname)
        term = f"ip{address.version}:{address}"
        subject = f"SPF of {domain}"
        if verdict.result is SPFResult.PASS:
            findings.append(ok(subject, f"it covers {address} ({verdict.reason})"))
        elif verdict.result is SPFResult.NONE:
            cure = f'{domain}. IN TXT "v=spf1 {term} -all"'
            findings.append(warning(subject, f"there is no record, so nothing says that {address} may send", cure))
        elif verdict.result in _NOT_COVERED:
            text = f"it does not cover {address}: {verdict.result} ({verdict.reason})"
            findings.append(error(subject, text, f"add {term} to the record"))
        elif verdict.result is SPFResult.PERMERROR:
            text = f"receivers cannot use the record: {verdict.reason}"
            findings.append(error(subject, text, "mend it; RFC 7208 has the rules"))
        else:
            findings.append(warning(subject, f"whether it covers {address} is not known: {verdict.reason}"))
    return list(dict.fromkeys(findings))


async def check_dkim(domain: Domain, keys: Sequence[SignatureKey], resolver: Resolver) -> list[Finding]:
    """Whether the records in DNS are those of the keys that sign for a domain."""
    subject = f"DKIM of {domain}"
    if not keys:
        cure = f"mailrider dkim new {domain}, and modify {{ dkim {domain} SELECTOR }} in an endpoint, queue or target"
        return [warning(subject, "nothing here signs its mail", cure)]
    return [finding for each in keys for finding in await _check_key(subject, each, resolver)]


async def _check_key(subject: str, key: SignatureKey, resolver: Resolver) -> list[Finding]:
    name = f"{key.selector}._domainkey"
    loaded = examine_key(key.path)
    if loaded is None:
        cure = f"mailrider dkim new {key.domain} {key.selector} makes it now, so that its record can be published first"
        return [warning(subject, f"the key of {name} is not there; it is made when it is first needed", cure)]
    findings: list[Finding] = []
    found = await lookup_published(resolver, key, loaded)
    if found.fault:
        record = dns_record(key.domain, key.selector, loaded)
        findings.append(error(subject, f"{name}: {found.fault}: receivers find our signatures wrong", record))
    elif found.unknown:
        findings.append(warning(subject, f"whether {name} is right is not known: {found.unknown}"))
    else:
        findings.append(ok(subject, f"{name} is the record of the key"))
    if found.testing:
        findings.append(warning(subject, f"{name} says that the domain is testing (t=y): receivers may ignore it"))
    pending = None if key.given.options.key_path else read_successor(key.directory, key.domain, key.selector)
    if pending is not None:
        text = f"{pending.selector} is to take the place of {key.selector}"
        findings.append(note(subject, text, f"mailrider dkim rotate {key.domain} goes on with it"))
    return findings


async def check_dmarc(domain: Domain, resolver: Resolver) -> list[Finding]:
    """Whether receivers are told what to do with forgeries (RFC 7489 6.3, 6.6.3)."""
    subject = f"DMARC of {domain}"
    try:
        where, texts = await _find_dmarc(domain, resolver)
    except LookupFailed as failure:
        return [warning(subject, f"whether there is a policy is not known: {failure}")]
    if not texts:
        text = "there is no policy: anybody may use the domain, and large receivers want one from bulk senders"
        return [warning(subject, text, f'_dmarc.{domain}. IN TXT "{_DMARC.format(domain=domain)}"')]
    tags = parse_tags(texts[0])
    policy, tag = tags.get("p", "").lower(), "p"
    if where != domain and tags.get("sp", "").lower() in _DMARC_POLICIES:
        policy, tag = tags["sp"].lower(), "sp"  # RFC 7489 6.3: for all names below the one where it stands
    if len(texts) > 1 or policy not in _DMARC_POLICIES:
        text = f"the policy at _dmarc.{where} cannot be used: " + (
            f"{len(texts)} records" if len(texts) > 1 else f"p= is {policy[:20] or 'missing'}"
        )
        return [error(subject, text, 'one record, such as "v=DMARC1; p=quarantine"')]
    if policy == "none":
        return [note(subject, f"the policy at _dmarc.{where} is {tag}=none: forgeries are reported, and delivered")]
    return [ok(subject, f"the policy at _dmarc.{where} is {tag}={policy}")]


async def _find_dmarc(domain: Domain, resolver: Resolver) -> tuple[Domain, list[str]]:
    """The records of the domain, or of the nearest one above that has any."""
    current: Domain | None = domain
    for _ in range(MAX_STEPS):
        if current is None or "." not in current.ascii:
            break
        try:
            name = Domain(f"_dmarc.{current.ascii}")
        except InvalidValue:
            break
        answer = await resolver.lookup(name, RecordType.TXT)
        texts = [text.decode("ascii", "replace") for text in answer.records]
        found = [text for text in texts if text.partition(";")[0].replace(" ", "") == "v=DMARC1"]
        if found:
            return current, found
        current = current.parent
    return domain, []
