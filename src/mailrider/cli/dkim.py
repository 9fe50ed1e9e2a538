"""`mailrider dkim`: the keys that sign, their records in DNS, and how one key takes another's place."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import click
import uvloop

from mailrider.app.assemble import open_engine
from mailrider.app.dkim import Step, keys_in_use, list_keys, lookup_published, new_selector, rotate
from mailrider.cli.arguments import DOMAIN, SPAN
from mailrider.clock import SystemClock
from mailrider.config import load, queues_of
from mailrider.errors import ConfigError, InvalidValue
from mailrider.model.event import discard
from mailrider.model.text import json_line
from mailrider.report.lines import print_commented, print_line
from mailrider.signing.keys import dns_record, examine_key, key_path, open_key
from mailrider.signing.open import DIRECTORY
from mailrider.signing.settings import DKIMSettings
from mailrider.x509.key_kind import KeyKind

if TYPE_CHECKING:
    from mailrider.app.dkim import Rotation
    from mailrider.app.examine import SignatureKey
    from mailrider.config import Configuration
    from mailrider.model.domain import Domain

ASK_AGAIN: Final = 30.0  # seconds between two questions for a record that is waited for
SETTLE: Final = timedelta(hours=1)  # until the other servers of a zone have what the first one has
READ_LATE: Final = timedelta(days=2)  # after delivery, in which a receiver may verify: mail that is fetched, forwarded


@click.group()
def dkim() -> None:
    """DKIM keys: list them, make them, compare them with DNS, give one another's place."""


@dkim.command("list")
@click.argument("domain", type=DOMAIN, required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per key on standard output.")
@click.pass_obj
def list_command(config: str | None, domain: Domain | None, as_json: bool) -> int:
    """Show every key, of DOMAIN or of all, and what it is for."""
    configuration = load(config)
    rows = list(list_keys(configuration, configuration.globals.state_dir / DIRECTORY, domain))
    for row in rows:
        if as_json:
            click.echo(json_line(asdict(row)))
        else:
            print_line(f"{row.selector}._domainkey.{row.domain}  {row.kind or '-'}\n    {row.state}\n    {row.path}")
    if not rows and not as_json:
        click.echo("there is no key; `mailrider dkim new DOMAIN` makes some", err=True)
    return os.EX_OK


@dkim.command()
@click.argument("domain", type=DOMAIN)
@click.argument("selector", required=False)
@click.option(
    "--algorithm",
    type=click.Choice([each.value for each in KeyKind]),
    help="Of the key; without SELECTOR and this, one of RSA 2048 and one of Ed25519 are made.",
)
@click.pass_obj
def new(config: str | None, domain: Domain, selector: str | None, algorithm: str | None) -> int:
    """Make keys for DOMAIN, and print their records for the zone and the lines for the configuration.

    A key that is there already is printed, never replaced.
    """
    configuration = load(config)
    directory = configuration.globals.state_dir / DIRECTORY
    now = SystemClock().now()
    kinds = [KeyKind(algorithm)] if algorithm else [KeyKind.RSA2048] if selector else [KeyKind.RSA2048, KeyKind.ED25519]
    lines: list[str] = []
    for kind in kinds:
        name = selector or new_selector(directory, domain, "ed25519" if kind is KeyKind.ED25519 else "rsa", now)
        try:
            DKIMSettings.of([domain], name)
        except InvalidValue as error:
            raise click.UsageError(str(error)) from error
        key = open_key(key_path(directory, domain, name), kind, domain, name, discard)
        print_commented([dns_record(domain, name, key)], ";")
        lines.append(f"dkim {domain} {name}" + (" { newkey_algo ed25519 }" if key.name == "ed25519" else ""))
    where = "; In the configuration, within modify { } of an endpoint, target.queue or target.remote:"
    print_commented([where, *(f";     {line}" for line in lines)], ";")
    return os.EX_OK


@dkim.command()
@click.argument("domain", type=DOMAIN, required=False)
@click.pass_obj
def check(config: str | None, domain: Domain | None) -> int:
    """Compare the keys that sign, of DOMAIN or of all, with DNS; exit with 69 if a record is not right.

    The records are asked for at the resolver of the configuration.
    """
    configuration = load(config)
    keys = _keys(configuration, domain)
    return uvloop.run(_check(configuration, keys))


async def _check(configuration: Configuration, keys: list[SignatureKey]) -> int:
    code = os.EX_OK
    async with open_engine(configuration.globals.dns, discard) as engine:
        for each in keys:
            key = examine_key(each.path)
            name = f"{each.selector}._domainkey.{each.domain}"
            if key is None:
                print_line(f"{name}: there is no key yet; mailrider dkim new {each.domain} {each.selector}")
                code = os.EX_UNAVAILABLE
                continue
            found = await lookup_published(engine.resolver, each, key)
            words = found.fault or found.unknown or "the record is that of the key"
            print_line(f"{name}: {words}{', and says that the domain is testing (t=y)' if found.testing else ''}")
            if found.fault:
                click.echo(f"    it has to be:\n{dns_record(each.domain, each.selector, key)}")
                code = os.EX_UNAVAILABLE
            elif found.unknown:
                code = code or os.EX_TEMPFAIL
    return code


@dkim.command("rotate")
@click.argument("domain", type=DOMAIN)
@click.option(
    "--wait", type=SPAN, default="0", metavar="TIME", help="How long to wait for DNS, such as 2d; default: 0."
)
@click.option(
    "--settle",
    type=SPAN,
    default=SETTLE,
    metavar="TIME",
    help="How long a record has to be in DNS before its key signs; default: 1h.",
)
@click.pass_obj
def rotate_command(config: str | None, domain: Domain, wait: timedelta, settle: timedelta) -> int:
    """Give each key of DOMAIN a successor: publish its record, wait for it, switch.

    The first call makes the new keys and prints their records. Each call looks whether they are in DNS, and once they
    have been there for the time of --settle the new keys sign. It ends with 0 then, and with 75 as long as it has to be
    called again. The configuration stays as it is; reload the daemon.
    """
    configuration = load(config)
    keys = _keys(configuration, domain)
    return uvloop.run(_rotate(configuration, keys, wait, settle))


async def _rotate(configuration: Configuration, keys: list[SignatureKey], wait: timedelta, settle: timedelta) -> int:
    clock = SystemClock()
    until = clock.monotonic() + wait.total_seconds()
    told: set[tuple[str, Step]] = set()
    async with open_engine(configuration.globals.dns, discard) as engine:
        while True:
            waiting: list[SignatureKey] = []
            for key in keys:
                rotation = await rotate(key, engine.resolver, clock.now(), settle, discard)
                if (rotation.successor.selector, rotation.step) not in told:
                    told.add((rotation.successor.selector, rotation.step))
                    _tell(rotation, configuration, settle)
                if rotation.step is not Step.SIGNS:
                    waiting.append(key)
            keys = waiting
            if not keys:
                return os.EX_OK
            left = until - clock.monotonic()
            if left <= 0:
                return os.EX_TEMPFAIL
            await asyncio.sleep(min(ASK_AGAIN, left))


def _tell(rotation: Rotation, configuration: Configuration, settle: timedelta) -> None:
    key, successor = rotation.old, rotation.successor
    match rotation.step:
        case Step.WAITS:
            missing = rotation.found.fault or rotation.found.unknown
            print_commented([f"; {missing}: publish this record, and call this again", rotation.record], ";")
        case Step.SEEN if successor.seen is not None:
            at = f"{successor.seen + settle:%Y-%m-%d %H:%M} UTC"
            print_commented([f"; the record of {successor.selector} is in DNS; from {at} on this makes it sign"], ";")
        case Step.SIGNS if successor.signs is not None:
            until = successor.signs + longest_time_in_queue(configuration) + READ_LATE
            lines = (
                f"; {successor.selector} signs for {key.domain} in place of {key.selector}: reload the daemon",
                f"; leave the record of {key.selector} in DNS until {until:%Y-%m-%d}; then remove it and {key.path}",
            )
            print_commented(lines, ";")
        case _:
            raise AssertionError(rotation.step)


def longest_time_in_queue(configuration: Configuration) -> timedelta:
    """How long a message that is signed now may be on its way."""
    return max((each.settings.expire for each in queues_of(configuration)), default=timedelta(0))


def _keys(configuration: Configuration, domain: Domain | None) -> list[SignatureKey]:
    keys = keys_in_use(configuration, domain)
    if not keys:
        of = "" if domain is None else f" for {domain}"
        raise ConfigError(f"the configuration signs nothing{of}: write modify {{ dkim DOMAIN SELECTOR }}")
    return keys
