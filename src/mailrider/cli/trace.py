"""`mailrider trace`: what became of a message, or of the mail of an address."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from mailrider.cli.arguments import SPAN, TEXT, whole_number
from mailrider.cli.chosen_queue import ChosenQueue
from mailrider.cli.say import say
from mailrider.cli.trace_text import trace_lines
from mailrider.clock import SystemClock
from mailrider.config import load, queue_location, queues_of
from mailrider.errors import ConfigError, InvalidValue
from mailrider.model.text import json_line
from mailrider.queue.ids import parse_id
from mailrider.queue.sqlite.views import EPOCH, HistoryFilter
from mailrider.report.lines import print_line
from mailrider.report.trace import trace_object

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from mailrider.queue.sqlite.views import TracedMessage

MESSAGES = 100  # that are shown if nobody says otherwise


@click.command()
@click.option("--since", type=SPAN, metavar="AGE", help="Only what happened since then, as 4h or 2d.")
@click.option("--limit", default=MESSAGES, show_default=True, type=whole_number(1, 10_000), help="The most messages.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per message.")
@click.argument("what", type=TEXT, metavar="ID|MESSAGE-ID|ADDRESS")
@click.pass_obj
def trace(config: str | None, what: str, since: timedelta | None, limit: int, as_json: bool) -> int:
    """Tell what became of a message: when it was taken, each attempt, how it ended, whom we told.

    ID is that of the message, as it stands in log and Received; MESSAGE-ID has its angle brackets; ADDRESS is that of a
    sender or recipient, and means the newest messages. All queues of the configuration are looked into. Of mail that
    went to a target without a queue only the log knows.
    """
    wanted = history_filter(what, EPOCH if since is None else SystemClock().now() - since)
    found = False
    for chosen in every_queue(config):
        traced: list[TracedMessage] = chosen.look(lambda reader: reader.trace(wanted, limit), [])
        for number, message, facts in traced:
            found = True
            if as_json:
                click.echo(json_line(trace_object(number, message, facts)))
            else:
                for line in (*trace_lines(number, message, facts, SystemClock().now()), ""):
                    print_line(line)
    if not found:
        say(f"no queue knows of {what} (of mail to a target without a queue only the log tells)")
    return os.EX_OK if found else os.EX_UNAVAILABLE


@click.group()
def history() -> None:
    """What queues remember of mail that is done."""


@history.command()
@click.argument("what", type=TEXT, metavar="ADDRESS|ID")
@click.pass_obj
def drop(config: str | None, what: str) -> int:
    """Erase what is remembered of an address, or of a message.

    What is still queued is not changed: see `mailrider queue remove`. The log is not touched.
    """
    wanted = history_filter(what)
    dropped = sum(sum(chosen.with_stores(lambda store: store.drop_history(wanted))) for chosen in every_queue(config))
    click.echo(f"{dropped} {'event' if dropped == 1 else 'events'} erased")
    return os.EX_OK


def history_filter(what: str, since: datetime = EPOCH) -> HistoryFilter:
    """What a person means: something in angle brackets, an address, or an id."""
    if what.startswith("<"):
        return HistoryFilter(message_id=what, since=since)
    if "@" in what:
        return HistoryFilter(address=what, since=since)
    try:
        return HistoryFilter(parse_id(what), since=since)
    except InvalidValue as error:
        raise click.UsageError(f"expected an id, a Message-ID like <...>, or an address: {error}") from error


def every_queue(config: str | None) -> list[ChosenQueue]:
    """Each queue of the configuration. Raises `ConfigError` if there is none."""
    configuration = load(config)
    queues = [each.settings for each in queues_of(configuration)]
    if not queues:
        raise ConfigError("no target.queue is configured")
    beside = tuple(queue_location(each) for each in queues)
    return [ChosenQueue(config, None, given=each, beside=beside) for each in queues]
