"""`mailrider queue`: look into a queue, change what is in it, and deliver what is due.

Safe while deliveries run in another process: everything goes through the store, what is being attempted is changed
when its attempt has ended, and those who deliver are told.

Called by root, a command becomes the user whom the queue belongs to before it opens it: see `cli.owner`.
"""

from __future__ import annotations

import os
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mailrider.app.queued import STATES, queue_filter
from mailrider.cli.arguments import SPAN, TEXT, ParsedType, readable, whole_number
from mailrider.cli.chosen_queue import ChosenQueue
from mailrider.cli.queue_run import run
from mailrider.cli.queue_show import (
    counted,
    entry_lines,
    message_text,
    recipients,
    stats_text,
    visible_content,
)
from mailrider.cli.say import say
from mailrider.cli.trace_text import done_lines
from mailrider.clock import SystemClock
from mailrider.errors import InvalidValue
from mailrider.model.domain import parse_next_hop
from mailrider.model.text import json_line
from mailrider.queue.history import ENDS
from mailrider.queue.ids import parse_id
from mailrider.queue.message import EVERYTHING, Stats
from mailrider.queue.sqlite.shards import PAGE, ShardsReader
from mailrider.queue.store import QueueCommand
from mailrider.report.queue import entry_object, message_object, stats_object
from mailrider.report.trace import fact_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.queue.history import Fact
    from mailrider.queue.message import Entry, Filter, StoredMessage
    from mailrider.queue.service import DeliveryQueue

T = TypeVar("T")

PIPE_WIDTH = 1000  # columns of a table that nobody looks at on a terminal
DESTINATIONS = 50  # that `stats` shows if nobody says otherwise


def _part(text: str) -> str:
    """An empty variable in a script must not mean everybody."""
    if not text:
        raise InvalidValue("expected a part of an address, not an empty text")
    return readable(text)


PART = ParsedType("text", _part)
NEXT_HOP = ParsedType("domain", lambda text: parse_next_hop(text).ascii)


@click.group()
@click.option("--queue", "name", metavar="NAME", help="The target.queue that is meant, if there are several.")
@click.pass_context
def queue(context: click.Context, name: str | None) -> None:
    """Look into a queue, change what is in it, deliver what is due.

    Called by root, a command goes on as the user whom the queue's directory belongs to.
    """
    context.obj = ChosenQueue(context.obj, name)


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which recipients are meant."""
    for option in (
        click.option("--in-doubt", is_flag=True, help="Those that a server may have already."),
        click.option("--older", type=SPAN, metavar="AGE", help="Queued longer ago than, as 4h or 2d."),
        click.option("--state", type=click.Choice(list(STATES)), help="In that state."),
        click.option("--domain", type=NEXT_HOP, metavar="DOMAIN", help="Of that recipient domain."),
        click.option("--to", "recipient", type=PART, metavar="TEXT", help="Whose address contains that."),
        click.option(
            "--from",
            "sender",
            type=TEXT,
            metavar="TEXT",
            help='Whose sender\'s address contains that; "" means notifications, which have no sender.',
        ),
    ):
        command = option(command)
    return command


def _id(text: str) -> int:
    try:
        return parse_id(text)
    except InvalidValue as error:
        raise click.UsageError(str(error)) from error


def _tell_unknown(id: str) -> None:
    say(f"no message {id} is queued; mailrider trace {id} says what became of it")


def _print(*lines: Any) -> None:
    from rich.console import Console  # for people; what programs read as JSON does without
    from rich.text import Text

    from mailrider.report.lines import print_line

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    for line in lines:
        if isinstance(line, str | Text):
            print_line(line, console)
        else:
            console.print(line, soft_wrap=True)


# --- Looking -------------------------------------------------------------------------------------


@queue.command("list")
@filters
@click.option("--limit", default=100, show_default=True, type=whole_number(0), help="The most; 0: all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per recipient.")
@click.pass_obj
def list_(chosen: ChosenQueue, /, limit: int, as_json: bool, **wanted: Any) -> int:
    """List queued recipients, the oldest messages first."""

    def show(entries: list[Entry]) -> None:
        if as_json:
            for entry in entries:
                click.echo(json_line(entry_object(entry)))
        else:
            now = SystemClock().now()
            _print(*(line for entry in entries for line in entry_lines(entry, now)))

    count, more = chosen.look(lambda reader: _pages(reader, queue_filter(**wanted), limit, show), (0, False))
    if more or not as_json:
        click.echo(f"{recipients(count)}{', and there are more: see --limit' if more else ''}", err=True)
    return os.EX_OK


async def _pages(
    reader: ShardsReader, wanted: Filter, limit: int, show: Callable[[list[Entry]], None]
) -> tuple[int, bool]:
    """Show page by page: memory does not grow with the queue. How many were shown, and whether there are more."""
    count = 0
    page: list[Entry] = []
    async with aclosing(reader.entries(wanted, limit + 1 if limit else None)) as entries:
        async for entry in entries:
            if limit and count + len(page) >= limit:
                show(page)
                return limit, True
            page.append(entry)
            if len(page) >= PAGE:
                show(page)
                count, page = count + len(page), []
    show(page)
    return count + len(page), False


@queue.command()
@click.option(
    "--content",
    is_flag=True,
    help="The message itself, on standard output: octet by octet, but on a terminal without control characters.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.argument("id")
@click.pass_obj
def show(chosen: ChosenQueue, id: str, content: bool, as_json: bool) -> int:
    """Show a message: its envelope, its recipients, and every attempt with what was learned in it."""
    number = _id(id)
    if content:
        octets = chosen.look(lambda reader: reader.octets(number), None)
        if octets is not None:
            if sys.stdout.isatty():
                click.echo(visible_content(octets), nl=False)
            else:
                sys.stdout.buffer.write(octets)
            return os.EX_OK
    else:
        nothing: tuple[StoredMessage | None, list[Fact]] = (None, [])
        message, facts = chosen.look(lambda reader: reader.find_with_history(number), nothing)
        done = [each for each in facts if each.kind in ENDS]
        if message is not None and as_json:
            click.echo(json_line(message_object(message) | {"done": [fact_object(each) for each in done]}))
            return os.EX_OK
        if message is not None:
            _print(*message_text(message, SystemClock().now()), *done_lines(done))
            return os.EX_OK
    _tell_unknown(id)
    return os.EX_UNAVAILABLE


@queue.command()
@click.option("--limit", default=DESTINATIONS, show_default=True, type=whole_number(1), help="Destinations.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def stats(chosen: ChosenQueue, limit: int, as_json: bool) -> int:
    """Count what is queued, by destination and age."""
    now = SystemClock().now()
    found = chosen.look(lambda reader: reader.stats(now, limit), Stats(0, 0, (), {}))
    if as_json:
        click.echo(json_line(stats_object(found)))
    else:
        _print(*stats_text(found, now))
    return os.EX_OK


queue.add_command(stats, "count")


# --- Changing ------------------------------------------------------------------------------------


_DONE = {
    QueueCommand.RETRY: "tried again now",
    QueueCommand.HOLD: "held",
    QueueCommand.RELEASE: "released",
    QueueCommand.REMOVE: "removed",
}


def _changes(command: QueueCommand, help: str) -> None:
    """Define a subcommand that changes recipients, by the ids of their messages or by what filters name."""

    @queue.command(command.value, help=help)
    @filters
    @click.option("--all", "everything", is_flag=True, help="Everything in the queue.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object.")
    @click.argument("ids", nargs=-1)
    @click.pass_obj
    def change(chosen: ChosenQueue, /, ids: tuple[str, ...], everything: bool, as_json: bool, **wanted: Any) -> int:
        meant = [queue_filter(**wanted, message=_id(id)) for id in ids] or [queue_filter(**wanted)]
        if meant == [EVERYTHING] and not everything:
            raise click.UsageError("say which: ids, filters, or --all")

        async def work(queue: DeliveryQueue) -> tuple[int, int, list[str]]:
            reader = ShardsReader(chosen.location, SystemClock())
            unknown = [id for id in ids if await reader.shard_of(_id(id)) is None]
            done = [await queue.command(command, each, chosen.operator) for each in meant]
            return sum(each.changed for each in done), sum(each.later for each in done), unknown

        changed, later, unknown = chosen.with_queue(work, (0, 0, list(ids)))
        if as_json:
            click.echo(json_line({"changed": changed, "later": later, "unknown": unknown}))
        else:
            waiting = f"; {later} when their attempt has ended" if later else ""
            click.echo(f"{recipients(changed)} {_DONE[command]}{waiting}")
        for id in unknown:
            _tell_unknown(id)
        return os.EX_UNAVAILABLE if unknown else os.EX_OK


_changes(QueueCommand.RETRY, "Try again now, whatever the schedule says; destinations that are down too.")
_changes(QueueCommand.HOLD, "Do not try any more, until it is released.")
_changes(QueueCommand.RELEASE, "Let go what was held.")
_changes(QueueCommand.REMOVE, "Remove from the queue. The sender is not told.")


@queue.command()
@click.pass_obj
def merge(chosen: ChosenQueue) -> int:
    """Move what all workers have queued into one store, as an older mailrider needs it; the daemon has to be stopped.

    Each worker of a daemon keeps its mail in a directory of its own below that of the queue, and fewer workers go on
    with what more of them left. A mailrider that knows no workers does not look there. Messages keep their ids.
    """
    import uvloop

    from mailrider.queue.sqlite.merge import merge_shards

    moved = uvloop.run(merge_shards(chosen.location, SystemClock()))
    shards = counted(len(moved), "shard", "shards")
    click.echo(f"{counted(sum(moved.values()), 'message', 'messages')} moved from {shards}")
    return os.EX_OK


queue.add_command(run)
