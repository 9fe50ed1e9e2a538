"""Everything that `mailrider check` looks at, in order: first what is here, then what the world says of us."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mailrider.app.assemble import open_engine, open_remote, open_smarthost
from mailrider.app.check.addresses import check_names, source_addresses
from mailrider.app.check.clients import missing_secrets, unusable_aliases
from mailrider.app.check.finding import Level, error, note, ok, warning
from mailrider.app.check.local import (
    check_certificates,
    check_disks,
    check_keys,
    check_readable,
    check_rights,
    check_user,
    check_workers,
)
from mailrider.app.check.port import check_port
from mailrider.app.check.records import check_dkim, check_dmarc, check_spf
from mailrider.app.check.reports import check_reporting, check_reporting_outside
from mailrider.app.check.resolver import about_resolver, about_servers, check_clock, check_resolver
from mailrider.app.check.weaknesses import endpoint_weaknesses, weaknesses
from mailrider.app.cores import usable_cores
from mailrider.app.dkim import keys_in_use
from mailrider.app.examine import examine_instance, examine_signatures
from mailrider.config import direct_targets, looks_for_servers, placed
from mailrider.delivery.settings import RemoteSettings
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.dns.servers import configured_servers
from mailrider.dns.settings import Validate
from mailrider.endpoint.faults import weak_spots
from mailrider.errors import ConfigError, LocalError, Problem
from mailrider.settings.directive import MissingSecret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.app.assemble import Engine
    from mailrider.app.check.addresses import SourceAddress
    from mailrider.app.check.finding import Finding
    from mailrider.config import Configuration, Instance
    from mailrider.model.domain import Domain
    from mailrider.model.event import Event
    from mailrider.settings.directive import Settings


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be looked at: the mail of `domain`, or of all that the configuration names.

    `against`: whose servers are called. `signed` and `bogus`: names with a right and with a wrong signature. Not
    `outside`: only what is on this machine.
    """

    domain: Domain | None
    against: Domain
    signed: Domain
    bogus: Domain
    outside: bool = True


async def examine_machine(configuration: Configuration, wanted: Wanted) -> list[Finding]:
    """All findings. Raises `ConfigError` for what keeps the configuration from being opened at all."""
    dns = configuration.globals.dns
    events: list[Event] = []
    async with open_engine(dns, events.append) as engine:
        problems = await _try_everything(configuration, engine)
        if problems:
            raise ConfigError(dict.fromkeys(problems))  # what several share is told once
        path = configuration.path
        findings = [ok("configuration", f"{path} is right" if path else "none found, the built-in one is used")]
        if dns.validate is not Validate.YES:
            findings += about_servers(configured_servers(dns.server))
        outside = wanted.outside
        if wanted.outside:
            found = await check_resolver(engine.resolver, wanted.signed, wanted.bogus)
            # Without DNS nobody else is to blame for what cannot be looked up.
            outside = found.level is not Level.ERROR
            findings += about_resolver(found, engine.resolver, events, needs=looks_for_servers(configuration))
        # Without asking anybody it is not known whether our own validation works.
        may_validate = not wanted.outside and dns.validate is not Validate.NO
        findings += _about_settings(configuration, engine.resolver.validates or may_validate)
        findings += _here(configuration, engine)
        if outside:
            findings += await _outside(configuration, engine, wanted)
        elif wanted.outside:
            findings.append(note("domains", "without DNS, what the world says of us was not looked at"))
    return findings


def _here(configuration: Configuration, engine: Engine) -> Iterator[Finding]:
    keys = keys_in_use(configuration)
    yield from missing_secrets(configuration)
    yield from unusable_aliases(configuration)
    yield from check_workers(configuration, usable_cores())
    yield from check_user(configuration)
    yield from check_rights(configuration, keys)
    yield from check_readable(configuration, keys)
    yield from check_keys(keys)
    yield from check_certificates(configuration, engine.clock.now())
    yield from check_disks(configuration, engine.clock)
    yield from check_reporting(configuration)


async def _outside(configuration: Configuration, engine: Engine, wanted: Wanted) -> list[Finding]:
    choice = configured_servers(configuration.globals.dns.server)
    findings = await check_clock(wanted.signed, choice, engine.clock)
    sources: list[SourceAddress] = []
    reported: list[SourceAddress] = []
    hostname = configuration.globals.hostname
    for target in direct_targets(configuration):
        settings = target.settings
        if isinstance(settings, RemoteSettings) and settings.hostname is not None:
            found, seen = await check_port(target.label, settings, wanted.against, engine.resolver, engine.clock)
            own = source_addresses(settings, seen)
            findings += found
            findings += await check_names(target.label, settings.hostname, own, engine.resolver)
            sources += [each for each in own if each not in sources]
            reported += [each for each in own if settings.tlsrpt and each not in reported]
            hostname = hostname or settings.hostname
        elif isinstance(settings, SmarthostSettings) and not isinstance(settings.auth, MissingSecret):
            findings += await _check_smarthost(target, settings, engine)
    findings += await check_reporting_outside(configuration, engine.resolver, reported)
    return [*findings, *await _about_domains(configuration, engine, wanted, hostname, sources)]


async def _about_domains(
    configuration: Configuration, engine: Engine, wanted: Wanted, hostname: Domain | None, sources: list[SourceAddress]
) -> list[Finding]:
    findings: list[Finding] = []
    domains = [wanted.domain] if wanted.domain is not None else sending_domains(configuration)
    for domain in domains:
        keys = keys_in_use(configuration, domain)
        if wanted.domain is None and not keys and not looks_for_servers(configuration):
            text = "all mail goes to servers that the configuration names: SPF, DKIM and DMARC are theirs to get right"
            findings.append(note(f"domain {domain}", text, f"mailrider check {domain} looks at them all the same"))
            continue
        if hostname is not None:
            findings += await check_spf(domain, hostname, sources, engine.resolver)
        findings += await check_dkim(domain, keys, engine.resolver)
        findings += await check_dmarc(domain, engine.resolver)
    if not domains:
        text = "no domain is named, so SPF, DKIM and DMARC were not looked at"
        findings.append(note("domains", text, "mailrider check DOMAIN"))
    return findings


def sending_domains(configuration: Configuration) -> list[Domain]:
    """The domains that the configuration names as those of senders."""
    settings = configuration.globals
    named = [settings.origin, settings.autogenerated_msg_domain]
    found = [each.domain for each in keys_in_use(configuration)]
    # Our own name is that of a machine, which stands in no address unless somebody says so.
    found += [each for each in named if each is not None and each != settings.hostname]
    return list(dict.fromkeys(found))


async def _check_smarthost(target: Instance[Settings], settings: SmarthostSettings, engine: Engine) -> list[Finding]:
    findings: list[Finding] = []
    async with open_smarthost(settings, engine) as delivery:
        for host, fault in await delivery.try_servers():
            login = "" if settings.auth is None else ", and our login is right"
            if fault:
                cure = "see that it runs, and that host, starttls and auth are right"
                findings.append(error(target.label, f"{host} cannot be used: {fault}", cure))
            else:
                findings.append(ok(target.label, f"{host} answers{login}"))
    return findings


def _about_settings(configuration: Configuration, validates: bool) -> Iterator[Finding]:
    def find(name: str) -> Settings | None:
        instance = configuration.targets.get(name)
        return None if instance is None else instance.settings

    for each in direct_targets(configuration):
        if isinstance(each.settings, RemoteSettings):
            yield from weaknesses(each.label, each.settings, validates)
    for endpoint in configuration.endpoints:
        yield from endpoint_weaknesses(endpoint.label, endpoint.settings)
        for spot in weak_spots(endpoint.settings, find):
            yield (note if spot.is_choice else warning)(endpoint.label, spot.text, spot.cure)


async def _try_everything(configuration: Configuration, engine: Engine) -> list[Problem]:
    """What is wrong with certificates, ciphers, curves, passwords: that is only known once they were loaded."""
    problems: list[Problem] = []
    for each in (*direct_targets(configuration), *configuration.endpoints):
        try:
            examine_instance(each)
            with placed(each):
                await _try(each.settings, engine)
        except ConfigError as fault:
            problems += fault.problems
        except LocalError as fault:
            problems.append(Problem(str(fault)))
    for each in configuration.owners:
        try:
            examine_signatures(each)
        except ConfigError as fault:
            problems += fault.problems
    return problems


async def _try(settings: Settings, engine: Engine) -> None:
    match settings:
        case RemoteSettings():
            async with open_remote(replace(settings, modify=None), engine):  # keys are looked at, not made
                pass
        case SmarthostSettings(auth=MissingSecret()):
            pass  # which is told by itself
        case SmarthostSettings():
            async with open_smarthost(settings, engine):
                pass
        case _:  # a queue is opened by those who deliver from it
            pass
