"""`mailrider explain DOMAIN`: where mail for a domain would go, how safely, and why; for a person or as JSON."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import uvloop

from mailrider.app.assemble import open_engine, open_explainer
from mailrider.app.reports import explain_reports
from mailrider.cli.arguments import ParsedType
from mailrider.cli.explain_page import print_page
from mailrider.cli.setup import choose_target, make_log
from mailrider.clock import SystemClock
from mailrider.config import load, placed
from mailrider.delivery.settings import RemoteSettings
from mailrider.model.domain import parse_next_hop
from mailrider.model.outcome import Deferred, Failed
from mailrider.model.text import json_line
from mailrider.report.explanation import as_json_object

if TYPE_CHECKING:
    from mailrider.app.reports import ReportsExplained
    from mailrider.config import Configuration
    from mailrider.delivery.explain.plan import Explanation
    from mailrider.model.domain import NextHop
    from mailrider.model.event import Emit


NEXT_HOP = ParsedType("domain", lambda text: parse_next_hop(text.rpartition("@")[2]))  # of an address its domain


@click.command()
@click.argument("domain", type=NEXT_HOP)
@click.option("--target", metavar="NAME", help="The target.remote to use, if several are configured.")
@click.option("--no-connect", is_flag=True, help="Ask DNS and policy hosts only, call no mail server.")
@click.option("--json", "as_json", is_flag=True, help="The same facts as one JSON object.")
@click.option("--debug", is_flag=True, help="The dialogue and every decision, on standard error.")
@click.pass_obj
def explain(
    config: str | None, domain: NextHop, target: str | None, no_connect: bool, as_json: bool, debug: bool
) -> int:
    """Show the delivery plan for DOMAIN (or an address of it), with its evidence.

    Ends with 75 if an ordinary message would be deferred now, with 69 if it would fail. Servers are waited for as long
    as a delivery would wait: for a greeting up to 5 minutes.
    """
    configuration = load(config)
    instance = choose_target(configuration, target, ["target.remote"])
    settings = instance.settings
    assert isinstance(settings, RemoteSettings)  # noqa: S101 # that is its kind
    log = make_log(configuration, debug=debug, quiet=True)
    with placed(instance):
        explanation, reports = uvloop.run(_explain(configuration, settings, domain, log, connect=not no_connect))
    if as_json:
        shown = as_json_object(explanation, settings, SystemClock().now())
        click.echo(json_line(shown if reports is None else {**shown, "tlsrpt": reports.as_json()}))
    else:
        print_page(explanation, settings, SystemClock().now())
        if reports is not None:
            click.echo(reports.text)
    return exit_code(explanation)


def exit_code(explanation: Explanation) -> int:
    """What would become of an ordinary message now, as `send` would end; 0 where nobody was asked."""
    outcome = explanation.outcomes.get("ordinary")
    if isinstance(outcome, Failed):
        return os.EX_UNAVAILABLE
    return os.EX_TEMPFAIL if isinstance(outcome, Deferred) else os.EX_OK


async def _explain(
    configuration: Configuration, settings: RemoteSettings, next_hop: NextHop, log: Emit, *, connect: bool
) -> tuple[Explanation, ReportsExplained | None]:
    async with (
        open_engine(configuration.globals.dns, log) as engine,
        open_explainer(settings, engine) as explainer,
    ):
        return await explainer.explain(next_hop, connect=connect), await explain_reports(
            configuration, engine, next_hop
        )
