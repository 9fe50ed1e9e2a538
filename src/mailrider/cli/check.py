"""`mailrider check`: is this machine fit to send? Everything that can keep mail from its recipients, and what to do."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click
import uvloop
from rich.text import Text

from mailrider.app.check.clients import missing_secrets
from mailrider.app.check.examination import Wanted, examine_machine
from mailrider.app.check.finding import Level, count
from mailrider.cli.arguments import DOMAIN
from mailrider.config import load
from mailrider.dns.proof import BOGUS_NAME, SIGNED_NAME
from mailrider.errors import ConfigError
from mailrider.model.text import json_line, visible
from mailrider.report.lines import print_line

if TYPE_CHECKING:
    from mailrider.app.check.finding import Finding
    from mailrider.model.domain import Domain

AGAINST: Final = "gmail.com"  # its servers are always there, and one connection more is nothing to them
BESIDE_LEVEL = 9  # the column at which what is found begins
_COLOURS: Final = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.ERROR: "red"}
# What monitoring systems expect of a plug-in, as Nagios and all after it have it.
PLUGIN_OK, PLUGIN_WARNING, PLUGIN_CRITICAL, PLUGIN_UNKNOWN = range(4)


@click.command()
@click.argument("domain", type=DOMAIN, required=False)
@click.option(
    "--against",
    type=DOMAIN,
    default=AGAINST,
    show_default=True,
    metavar="DOMAIN",
    help="A domain whose mail servers are called, to see whether mail gets out. They hear no more than QUIT.",
)
@click.option("--signed", type=DOMAIN, default=SIGNED_NAME.ascii, show_default=True, help="A name that is signed.")
@click.option("--bogus", type=DOMAIN, default=BOGUS_NAME.ascii, show_default=True, help="One with a wrong signature.")
@click.option("--local", is_flag=True, help="Look at this machine only: ask no DNS, call nobody.")
@click.option(
    "--plugin", is_flag=True, help="Speak as monitoring plug-ins do: 0 fine, 1 warning, 2 critical, 3 unknown."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding on standard output.")
@click.pass_obj
def check(
    config: str | None,
    domain: Domain | None,
    against: Domain,
    signed: Domain,
    bogus: Domain,
    local: bool,
    plugin: bool,
    as_json: bool,
) -> int:
    """Say whether this machine is fit to send mail of DOMAIN, or of all domains in the configuration.

    It looks at the configuration, the resolver, port 25, the names of our addresses, SPF, DKIM and DMARC, certificates,
    smarthosts, disks, the clock and rights. It asks DNS, and calls the servers of --against and the smarthosts of the
    configuration. Ends with 69 if there is any error, with 78 if the configuration is wrong, else with 0.
    """
    wanted = Wanted(domain, against, signed, bogus, outside=not local)
    if plugin:
        return _as_plugin(config, wanted)
    configuration = load(config)
    findings = uvloop.run(examine_machine(configuration, wanted))
    for finding in findings:
        if as_json:
            click.echo(json_line(asdict(finding)))
        else:
            _print(finding)
    if any(missing_secrets(configuration)):
        return os.EX_CONFIG
    return os.EX_UNAVAILABLE if count(findings, Level.ERROR) else os.EX_OK


def _print(finding: Finding) -> None:
    level = (f"{finding.level:8}", _COLOURS[finding.level])
    print_line(Text.assemble(level, f" {finding.subject}: {finding.text}"), hanging=BESIDE_LEVEL)
    if finding.cure:
        print_line(Text(f"{' ' * BESIDE_LEVEL}{finding.cure}", style="dim"), hanging=0)


def _as_plugin(config: str | None, wanted: Wanted) -> int:
    """A line, further lines, and an exit code, whatever happens. A wrong configuration is critical: it cannot run."""
    try:
        findings = uvloop.run(examine_machine(load(config), wanted))
    except ConfigError as error:
        return _plugin_line(PLUGIN_CRITICAL, f"configuration: {error.problems[0] if error.problems else error}")
    except Exception as error:
        return _plugin_line(PLUGIN_UNKNOWN, f"{type(error).__name__}: {error}")
    errors, warnings = count(findings, Level.ERROR), count(findings, Level.WARNING)
    code = PLUGIN_CRITICAL if errors else PLUGIN_WARNING if warnings else PLUGIN_OK
    told = [each for level in (Level.ERROR, Level.WARNING) for each in findings if each.level is level]
    first = f": {told[0].subject}: {told[0].text}" if told else ""
    _plugin_line(code, f"{errors} errors, {warnings} warnings{first}", f"errors={errors} warnings={warnings}")
    for finding in told:
        click.echo(visible(f"{finding.level}: {finding.subject}: {finding.text}".replace("|", "/")))
    return code


def _plugin_line(code: int, text: str, figures: str = "") -> int:
    word = ("OK", "WARNING", "CRITICAL", "UNKNOWN")[code]
    line = visible(" ".join(text.replace("|", "/").split()))  # behind a | there are figures
    click.echo(f"MAILRIDER {word} - {line}" + (f" | {figures}" if figures else ""))
    return code
