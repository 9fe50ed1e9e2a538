"""TLS reporting: what it would take, and what keeps reports from being sent or believed (RFC 8460 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.app.check.finding import error, note, ok, warning
from mailrider.app.reports import remote_behind, report_keys
from mailrider.config import direct_targets
from mailrider.delivery.settings import RemoteSettings
from mailrider.dkim.record import allowed_services, record_name
from mailrider.dns.answer import LookupFailed, RecordType
from mailrider.dns.caching import CachingResolver
from mailrider.dns.servers import CURE
from mailrider.model.domain import Domain
from mailrider.model.ip import is_global

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mailrider.app.check.addresses import SourceAddress
    from mailrider.app.check.finding import Finding
    from mailrider.config import Configuration
    from mailrider.dns.resolver import Resolver

SUBJECT = "TLS reports"


def check_reporting(configuration: Configuration) -> Iterator[Finding]:
    """What can be seen here."""
    settings = configuration.globals.tlsrpt
    remotes = [each.settings for each in direct_targets(configuration) if isinstance(each.settings, RemoteSettings)]
    if settings is None:
        if remotes:
            cure = 'tlsrpt { organization "NAME"; contact ADDRESS; through &QUEUE }, each on a line of its own'
            yield note(SUBJECT, "none are sent (RFC 8460): nobody learns from us that his TLS is broken", cure)
        return
    contact = settings.contact
    if contact is not None and isinstance(contact.domain, Domain) and not report_keys(configuration, contact.domain):
        cure = f"modify {{ dkim {contact.domain} SELECTOR }} in an endpoint, queue or target"
        yield error(SUBJECT, f"nothing signs for {contact.domain}, so no report is sent by mail", cure)
    if remote_behind(configuration, settings.through) is None:
        yield warning(SUBJECT, f"through {settings.through} leads to no target.remote, so a smarthost sends reports")
    reporting = [each for each in remotes if each.tlsrpt]
    if not reporting:
        yield warning(SUBJECT, "no target.remote is reported about")
    for each in reporting:
        missing = [name for name in ("mtasts", "dane") if getattr(each.mx_auth, name) is None]
        if missing:
            yield warning(SUBJECT, f"a target that is reported about lacks {' and '.join(missing)} in mx_auth")
    yield ok(SUBJECT, f"{settings.send} days are reported, as {contact}")


async def check_reporting_outside(
    configuration: Configuration, resolver: Resolver, sources: Sequence[SourceAddress]
) -> list[Finding]:
    """What takes questions to others. `sources`: the addresses that targets which are reported about send from."""
    if configuration.globals.tlsrpt is None:
        return []
    findings = await _check_keys(configuration, resolver)
    if isinstance(resolver, CachingResolver):
        await resolver.settled()
    if resolver.dnssec_off:
        findings.append(warning(SUBJECT, f"they say nothing of DANE, since DNSSEC is off: {resolver.dnssec_off}", CURE))
    named = {each.version for each in configuration.globals.own_addresses}
    for source in sources:
        if not is_global(source.address) and source.address.version not in named:
            text = f"they do not tell our public address: {source.address} is private, and others see another one"
            findings.append(note(SUBJECT, text, "write own_addresses with the address that others see"))
    return findings


async def _check_keys(configuration: Configuration, resolver: Resolver) -> list[Finding]:
    """Whether the key records allow reports: `s=` names `tlsrpt` or `*` (RFC 8460 3)."""
    settings = configuration.globals.tlsrpt
    contact = None if settings is None else settings.contact
    if contact is None or not isinstance(contact.domain, Domain):
        return []
    findings: list[Finding] = []
    for key in report_keys(configuration, contact.domain):
        try:
            answer = await resolver.lookup(record_name(key.domain, key.selector), RecordType.TXT)
        except LookupFailed:
            continue  # which is told where the key itself is looked at
        for record in answer.records:
            services = allowed_services([record])
            if not {"*", "tlsrpt"} & services:
                where = f"{key.selector}._domainkey.{key.domain}"
                text = f"{where} allows no reports (s={':'.join(sorted(services))[:100]}), so receivers may ignore them"
                findings.append(
                    warning(SUBJECT, text, "take s= out of the record: without it a key is for all, reports included")
                )
    return findings
