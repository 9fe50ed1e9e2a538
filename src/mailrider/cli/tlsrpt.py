"""`mailrider tlsrpt`: what TLS reports will say, what became of them, and sending them now (RFC 8460).

Safe while the daemon runs: everything goes through the store, and the daemon looks there every few seconds.
"""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING

import click

from mailrider.app.reports import reporter_of, store_of
from mailrider.cli.arguments import DOMAIN
from mailrider.clock import SystemClock
from mailrider.config import load
from mailrider.errors import ConfigError
from mailrider.model.text import json_line
from mailrider.report.lines import print_line
from mailrider.reporting.store import DeliveryState, EndpointKind
from mailrider.tlsrpt.report import build_report

if TYPE_CHECKING:
    from datetime import date

    from mailrider.model.domain import Domain
    from mailrider.reporting.settings import TLSRPTSettings
    from mailrider.reporting.store import ReportDelivery, ReportStore, StoredDay

DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def tlsrpt() -> None:
    """TLS reports: what was counted, what was sent, what waits."""


def _open(config: str | None) -> tuple[TLSRPTSettings, ReportStore]:
    configuration = load(config)
    settings = configuration.globals.tlsrpt
    if settings is None:
        raise ConfigError("no TLS reports are sent: there is no tlsrpt { } in the configuration")
    return settings, store_of(configuration, settings)


def _days(store: ReportStore, domain: Domain | None = None, day: date | None = None) -> list[StoredDay]:
    """What is kept; nothing where nothing was ever counted."""
    return store.days(None if domain is None else domain.ascii, day) if store.path.exists() else []


@tlsrpt.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per day and domain on standard output.")
@click.pass_obj
def list_command(config: str | None, as_json: bool) -> int:
    """Show each domain's days: what was counted, and what became of the report."""
    _, store = _open(config)
    days = _days(store)
    for each in days:
        if as_json:
            click.echo(json_line(_object(each)))
        else:
            print_line(_line(each))
    if not days and not as_json:
        click.echo(f"nothing was counted yet ({store.path})", err=True)
    return os.EX_OK


def _counted(each: StoredDay) -> tuple[int, int]:
    counts = each.counts.policies.values()
    return sum(it.successful for it in counts), sum(it.failed for it in counts)


def _line(each: StoredDay) -> str:
    good, bad = _counted(each)
    if each.ended is None:
        state = f"report is due {each.due:%Y-%m-%d %H:%M} UTC"
    else:
        sent = [f"{it.kind} {_word(it)}{f' ({it.note})' if it.note else ''}" for it in each.deliveries]
        state = "; ".join(sent) or each.ended
    return f"{each.day}  {each.domain}  {good} good, {bad} failed: {state}"


def _word(told: ReportDelivery) -> str:
    """What became of it; a report by mail is the queue's from then on, and `mailrider trace` tells the rest."""
    is_queued = told.kind is EndpointKind.MAIL and told.state is DeliveryState.DELIVERED
    return "queued" if is_queued else told.state


def _object(each: StoredDay) -> dict[str, object]:
    good, bad = _counted(each)
    return {
        "day": each.day.isoformat(),
        "domain": each.domain,
        "successful": good,
        "failed": bad,
        "due": each.due.isoformat(),
        "ended": each.ended,
        "report_id": each.report_id,
        "deliveries": [
            {
                "endpoint": it.kind.value,
                "target": it.target.split("\n"),
                "state": it.state.value,
                "tries": it.tries,
                "next": it.next.isoformat(),
                "note": it.note,
            }
            for it in each.deliveries
        ],
    }


@tlsrpt.command()
@click.argument("domain", type=DOMAIN)
@click.option("--day", type=DAY, help="The UTC day, as 2026-11-30; default: the last one with a report.")
@click.pass_obj
def show(config: str | None, domain: Domain, day: object) -> int:
    """Print the report of DOMAIN as it was sent, or waits to be."""
    _, store = _open(config)
    wanted = day.date() if hasattr(day, "date") else None
    for each in _days(store, domain, wanted):
        report = store.report(each.day, each.domain)
        if report is not None:
            click.echo(_line(each), err=True)
            click.echo(json.dumps(json.loads(gzip.decompress(report.body)), ensure_ascii=False, indent=2))
            return os.EX_OK
    click.echo(f"there is no report for {domain}; `mailrider tlsrpt list` shows what there is", err=True)
    return os.EX_UNAVAILABLE


@tlsrpt.command()
@click.argument("domain", type=DOMAIN)
@click.pass_obj
def preview(config: str | None, domain: Domain) -> int:
    """Print the report of DOMAIN about today, as it would be if the day ended now. Nothing is sent."""
    settings, store = _open(config)
    today = SystemClock().now().date()
    for each in _days(store, domain, today):
        report = build_report(each.domain, each.day, each.counts, reporter_of(settings), store.secret)
        click.echo(json.dumps(json.loads(gzip.decompress(report.body)), ensure_ascii=False, indent=2))
        return os.EX_OK
    click.echo(f"nothing was counted for {domain} today", err=True)
    return os.EX_UNAVAILABLE


@tlsrpt.command()
@click.argument("domain", type=DOMAIN)
@click.option("--now", is_flag=True, required=True, help="Do not wait for the moment that was drawn, or the next try.")
@click.pass_obj
def send(config: str | None, domain: Domain, now: bool) -> int:
    """Have the daemon send the reports of DOMAIN about past days that were not sent yet."""
    _, store = _open(config)
    count = store.make_due(domain.ascii, SystemClock().now()) if store.path.exists() else 0
    if not count:
        click.echo(f"no report to {domain} about a past day waits; today's is made when the UTC day is over", err=True)
        return os.EX_UNAVAILABLE
    click.echo(f"{count} to be sent; the daemon begins within some seconds")
    return os.EX_OK


@tlsrpt.command()
@click.pass_obj
def drop(config: str | None) -> int:
    """Give up all reports that wait to be sent; what is counted stays."""
    _, store = _open(config)
    click.echo(f"{store.drop() if store.path.exists() else 0} dropped")
    return os.EX_OK
