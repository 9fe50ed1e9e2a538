"""`mailrider check`: is this machine fit to send? Configuration, resolver, and what is weak."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
import uvloop
from rich.console import Console

from mailrider.app.assemble import open_engine, open_remote, open_smarthost
from mailrider.app.examine import examine_instance, examine_signatures, signatures_within
from mailrider.cli.check_clients import missing_secrets, unusable_aliases
from mailrider.cli.check_dns import about_servers, about_validation, check_resolver
from mailrider.cli.check_files import open_files
from mailrider.cli.finding import Finding
from mailrider.cli.setup import direct_targets
from mailrider.config import load, placed
from mailrider.delivery.settings import PROHIBITED_ADDRESSES, RemoteSettings
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.dns.proof import BOGUS_NAME, SIGNED_NAME
from mailrider.dns.servers import configured_servers
from mailrider.dns.settings import Validate
from mailrider.endpoint.settings import EndpointSettings, weak_spots
from mailrider.errors import ConfigError, InvalidValue, LocalError, Problem
from mailrider.model.domain import Domain
from mailrider.model.security import MXLevel, TLSLevel
from mailrider.model.text import json_line
from mailrider.net.settings import TLSVersion
from mailrider.settings.directive import MissingSecret
from mailrider.signing.keys import examine_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.app.assemble import Engine
    from mailrider.config import Configuration, Instance
    from mailrider.model.event import Event
    from mailrider.policy.settings import MXAuth
    from mailrider.settings.directive import Settings


def _domain(_: click.Context, __: click.Parameter, text: str) -> Domain:
    """A domain; what is none is a mistake of usage."""
    try:
        return Domain.parse(text)
    except InvalidValue as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option(
    "--signed",
    callback=_domain,
    default=SIGNED_NAME.ascii,
    show_default=True,
    metavar="NAME",
    help="A name that is signed.",
)
@click.option(
    "--bogus",
    callback=_domain,
    default=BOGUS_NAME.ascii,
    show_default=True,
    metavar="NAME",
    help="One with a wrong signature.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding on standard output.")
@click.pass_obj
def check(config: str | None, signed: Domain, bogus: Domain, as_json: bool) -> int:
    """Load the configuration, test the resolver, and say what is off or weak, and what to do."""
    configuration = load(config)
    findings = [Finding("ok", "configuration", _where(configuration))]
    findings += _user(configuration)
    findings += uvloop.run(_test(configuration, signed, bogus))
    missing = list(missing_secrets(configuration))
    findings += [*missing, *unusable_aliases(configuration)]
    findings += [Finding("warning", *each) for each in open_files(configuration)]
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        if as_json:
            click.echo(json_line(asdict(finding)))
        else:
            colour = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}[finding.level]
            console.print(f"[{colour}]{finding.level:8}[/] ", end="")
            console.print(f"{finding.subject}: {finding.text}", markup=False)
            if finding.cure:
                console.print(f"         {finding.cure}", style="dim", markup=False)
    return os.EX_CONFIG if missing else os.EX_OK


def _where(configuration: Configuration) -> str:
    return f"{configuration.path} is right" if configuration.path else "none found, the built-in one is used"


def _user(configuration: Configuration) -> Iterator[Finding]:
    """Root may test the configuration of another user's daemon, so this is no more than a hint."""
    if os.geteuid() == 0 and configuration.endpoints:
        text = "if the daemon is run as root, as this is, whoever breaks into it has the whole machine"
        yield Finding("warning", "user", text, "let a service manager start it as a user of its own; see the guide")


async def _test(configuration: Configuration, signed: Domain, bogus: Domain) -> list[Finding]:
    dns = configuration.globals.dns
    findings = [] if dns.validate is Validate.YES else list(about_servers(configured_servers(dns.server)))
    events: list[Event] = []
    async with open_engine(dns, events.append) as engine:
        findings.append(await check_resolver(engine.resolver, signed, bogus))
        findings += about_validation(engine.resolver, events)
        problems = await _try_everything(configuration, engine)
        for each in direct_targets(configuration):
            if isinstance(each.settings, RemoteSettings):
                findings += weaknesses(each.label, each.settings, engine.resolver.validates)
        for each in configuration.endpoints:
            if isinstance(each.settings, EndpointSettings):
                findings += endpoint_weaknesses(each.label, each.settings)
        findings += _about_endpoints(configuration)
    if problems:
        raise ConfigError(problems)
    return [*findings, *_short_keys(configuration)]


def _about_endpoints(configuration: Configuration) -> Iterator[Finding]:
    def find(name: str) -> Settings | None:
        instance = configuration.targets.get(name)
        return None if instance is None else instance.settings

    for each in configuration.endpoints:
        if isinstance(each.settings, EndpointSettings):
            for text, cure in weak_spots(each.settings, find):
                yield Finding("warning", each.label, text, cure)


async def _try_everything(configuration: Configuration, engine: Engine) -> list[Problem]:
    """What is wrong with certificates, ciphers, curves, passwords: that is only known once they were loaded."""
    problems: list[Problem] = []
    for each in (*direct_targets(configuration), *configuration.endpoints):
        try:
            examine_instance(each)
            with placed(each):
                await _try(each.settings, engine)
        except ConfigError as error:
            problems += error.problems
        except LocalError as error:
            problems.append(Problem(str(error)))
    for each in _owners(configuration):
        try:
            examine_signatures(each)
        except ConfigError as error:
            problems += error.problems
    return problems


def _owners(configuration: Configuration) -> Iterator[Instance]:
    yield from configuration.deliver_to
    yield from configuration.targets.values()
    yield from configuration.endpoints


def _short_keys(configuration: Configuration) -> Iterator[Finding]:
    """RSA keys for DKIM that receivers take, and that others may break before long."""
    signatures = (each for owner in _owners(configuration) for each in signatures_within(owner.settings))
    for path in dict.fromkeys(path for _, path, _ in signatures):
        key = examine_key(path)
        if key is not None and key.is_short:
            text = f"the key {path} is RSA with less than 2048 bits, which RFC 8301 3.2 advises against"
            cure = "name another selector: a new key is made, and its record goes into DNS beside the old one"
            yield Finding("warning", "dkim", text, cure)


async def _try(settings: Settings, engine: Engine) -> None:
    match settings:
        case RemoteSettings():
            async with open_remote(settings, engine):
                pass
        case SmarthostSettings(auth=MissingSecret()):
            pass  # which is told by itself
        case SmarthostSettings():
            async with open_smarthost(settings, engine):
                pass
        case _:  # a queue is opened by those who deliver from it
            pass


def weaknesses(label: str, settings: RemoteSettings, validates: bool) -> Iterator[Finding]:
    """What a postmaster should know about a target's settings. Pure."""
    auth = settings.mx_auth
    if not auth.is_stated:
        text = "without mx_auth nothing is enforced: whoever controls the network can read and redirect mail"
        yield Finding("warning", label, text, "mx_auth { mtasts  dane  dnssec  local_policy }, or mx_auth off")
    elif not auth.policies:
        yield Finding("note", label, "mx_auth is off, and says so: nothing is enforced")
    else:
        yield from _weak_policies(label, settings, auth, validates)
    if settings.prohibited_addresses != PROHIBITED_ADDRESSES:
        yield Finding("warning", label, "prohibited_addresses is not the default: other people's zones may point at us")
    if settings.port != 25:
        yield Finding("warning", label, f"port {settings.port} is for labs: MX hosts listen on 25")
    if settings.tls_client is not None and settings.tls_client.protocols[0] < "tls1.2":
        yield Finding(
            "warning", label, f"{settings.tls_client.protocols[0].value} is insecure", "protocols tls1.2 tls1.3"
        )


def endpoint_weaknesses(label: str, settings: EndpointSettings) -> Iterator[Finding]:
    """The same for an endpoint. Pure."""
    oldest = settings.tls.versions[0] if settings.tls is not None and settings.tls.is_on else TLSVersion.TLS1_2
    if oldest < TLSVersion.TLS1_2:
        text = f"{oldest.value} is insecure: whoever listens may read mail and passwords of clients that use it"
        yield Finding("warning", label, text, "protocols tls1.2, or an endpoint of their own for devices that need it")


def _weak_policies(label: str, settings: RemoteSettings, auth: MXAuth, validates: bool) -> Iterator[Finding]:
    if (auth.dane or auth.dnssec) and not validates:
        text = "dane and dnssec are listed, but the resolver cannot support them"
        yield Finding("warning", label, text, "dns { server 127.0.0.1 } with a validating resolver there")
    yield from _unreachable(label, auth)
    if auth.local_policy is None or auth.local_policy.min_tls_level is TLSLevel.NONE:
        text = "domains without DANE or MTA-STS may get mail in clear"
        yield Finding("warning", label, text, "local_policy { min_tls_level encrypted } refuses that")
    if auth.local_policy is not None and settings.requiretls_override:
        text = "a sender can waive local_policy with `TLS-Required: No`"
        yield Finding("warning", label, text, "requiretls_override no forbids that")


def _unreachable(label: str, auth: MXAuth) -> Iterator[Finding]:
    """An MX level that is demanded, and that no listed policy awards."""
    demanded = auth.local_policy.min_mx_level if auth.local_policy is not None else MXLevel.NONE
    awarded = MXLevel.DNSSEC if auth.dnssec else MXLevel.MTASTS if auth.mtasts else MXLevel.NONE
    if demanded > awarded:
        text = f"local_policy demands MX level {demanded.word}, which no listed policy awards: all mail is deferred"
        cure = "list dnssec" if demanded is MXLevel.DNSSEC else "list mtasts, dnssec or both"
        yield Finding("warning", label, text, cure)
