"""`mailrider send`: deliver a message now, without a queue, and say what became of each recipient."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import uvloop
from rich.console import Console
from rich.text import Text

from mailrider.app.library import Queue, direct
from mailrider.app.submission import DSN
from mailrider.cli.say import say
from mailrider.cli.setup import choose_queue, choose_target, make_log
from mailrider.cli.streams import INPUT_IS_CLOSED
from mailrider.config import load, placed
from mailrider.delivery.settings import RemoteSettings
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.errors import InvalidValue
from mailrider.model.event import AddressFailed, CandidatesFound, ConnectionOpened
from mailrider.model.outcome import Status
from mailrider.model.reply import clean_text
from mailrider.model.text import json_line
from mailrider.report.lines import print_line
from mailrider.report.outcome import result_object
from mailrider.smtp.content import Content
from mailrider.smtp.data import sending_fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from mailrider.app.senders import Sender
    from mailrider.app.submission import Report, Result
    from mailrider.config import Configuration
    from mailrider.model.event import Emit, Event

PATIENCE = 1.0  # seconds until a person is told what takes so long

_COLOURS = {Status.DELIVERED: "green", Status.DEFERRED: "yellow", Status.FAILED: "red"}


@click.command()
@click.option("--from", "sender", required=True, metavar="ADDRESS", help='The sender; "" is the null reverse-path.')
@click.option("--to", "recipients", required=True, multiple=True, metavar="ADDRESS", help="A recipient; repeatable.")
@click.option("--target", metavar="NAME", help="The target to use, if several are configured.")
@click.option("--queue", "to_queue", is_flag=True, help="Give it to the queue (that of --target) and print its id.")
@click.option("--requiretls", is_flag=True, help="Send with REQUIRETLS (RFC 8689).")
@click.option("--quarantine", is_flag=True, help="Mark the message as quarantined: it is refused.")
@click.option("--notify", metavar="WHEN", help="DSNs that are asked for: NEVER, or of SUCCESS,FAILURE,DELAY.")
@click.option("--ret", type=click.Choice(["FULL", "HDRS"], case_sensitive=False), help="What a failure DSN returns.")
@click.option("--envid", metavar="TEXT", help="An id that DSNs repeat.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per recipient on standard output.")
@click.option("--debug", is_flag=True, help="The dialogue and every decision, on standard error.")
@click.argument("file", default="-", metavar="[FILE|-]")
@click.pass_obj
def send(
    config: str | None,
    sender: str,
    recipients: tuple[str, ...],
    target: str | None,
    to_queue: bool,
    requiretls: bool,
    quarantine: bool,
    notify: str | None,
    ret: str | None,
    envid: str | None,
    as_json: bool,
    debug: bool,
    file: str,
) -> int:
    """Deliver the message in FILE (or standard input) now, and report on each recipient."""
    try:
        dsn = DSN(notify, ret, envid)
    except InvalidValue as error:
        raise click.UsageError(str(error)) from error
    configuration = load(config)
    mail = {
        "sender": sender,
        "recipients": recipients,
        "requiretls": requiretls,
        "quarantine": quarantine,
        "dsn": dsn,
    }
    if to_queue:
        return _enqueue(configuration, target, file, mail, as_json)
    instance = choose_target(configuration, target)
    settings = instance.settings
    assert isinstance(settings, RemoteSettings | SmarthostSettings)  # noqa: S101 # they are of the kinds that deliver
    message = _read_message(file)
    debug = debug or bool(settings.debug)
    progress = _Progress(make_log(configuration, debug=debug, quiet=not as_json))
    chosen = direct(replace(settings, debug=debug), configuration.globals.dns, progress)
    with placed(instance):
        report = uvloop.run(_deliver(chosen, progress, message, mail))
    with _telling():
        _show(report, as_json)
    return exit_code(report)


def _show(report: Report, as_json: bool) -> None:
    for result in report:
        if as_json:
            click.echo(json_line(result_object(result)))
        else:
            print_line(as_text(result))


@contextmanager
def _telling() -> Iterator[None]:
    """Around what goes to standard output: what became of the message stands, whether or not that can be told."""
    try:
        yield
    except SystemExit:
        # This is how rich ends where nobody reads any more: whoever did has seen enough.
        return
    except OSError as error:
        # Nor may the rest be tried again at the exit of the interpreter.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            say(f"standard output cannot be written: {error.strerror}")


def _enqueue(
    configuration: Configuration, target: str | None, file: str, mail: Mapping[str, Any], as_json: bool
) -> int:
    """Accept it durably; whoever delivers from the queue is told."""
    settings = choose_queue(configuration, target, "--target")
    named = {name: each.settings for name, each in configuration.targets.items()}
    message = _read_message(file)

    async def submit() -> str:
        async with Queue(settings, named=named, deliver=False) as queue:
            return await queue.submit(message, **mail)

    try:
        id = uvloop.run(submit())
    except InvalidValue as error:
        return int(_give_up(os.EX_DATAERR, str(error)))
    with _telling():
        click.echo(json_line({"id": id}) if as_json else id)
    return os.EX_OK


async def _deliver(target: Sender, progress: _Progress, message: bytes, mail: Mapping[str, Any]) -> Report:
    async with target, progress.shown():
        return await target.send(message, **mail)


def _read_message(file: str) -> bytes:
    """The message, with a clear word if there is none."""
    if file == "-" and sys.stdin is None:
        _give_up(os.EX_NOINPUT, f"the message cannot be read: {INPUT_IS_CLOSED}")
    if file == "-" and sys.stdin.isatty():
        say("type the message, header first; Ctrl-D ends it")
    try:
        message = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        _give_up(os.EX_NOINPUT, f"the message cannot be read: {file}: {error.strerror}")
    except MemoryError:
        _give_up(os.EX_DATAERR, f"the message is too large for the memory that there is: {file}")
    if not message.strip():
        _give_up(os.EX_DATAERR, "the message is empty")
    fault = Content.inspect(message).header_fault() or sending_fault(message)
    if fault:
        _give_up(os.EX_DATAERR, f"this is no message: {fault}")
    return message


def _give_up(code: int, text: str) -> Any:
    say(text)
    raise click.exceptions.Exit(code)


def exit_code(report: Report) -> int:
    """What a report means to a shell: 69 if anything failed (65 if only for its address), else 75 if deferred."""
    failed = [result for result in report if result.status is Status.FAILED]
    if failed:
        # A server may say 501 as well, of what we took for an address.
        ours = all(result.reply.code == 501 and result.mx is None for result in failed)
        return os.EX_DATAERR if ours else os.EX_UNAVAILABLE
    deferred = any(result.status is Status.DEFERRED for result in report)
    return os.EX_TEMPFAIL if deferred else os.EX_OK


def as_text(result: Result) -> Text:
    """A result for a person: what, where to, how safe; then the words of whoever decided, and what else was tried."""
    status = (result.status.value, f"bold {_COLOURS[result.status]}")
    line = Text.assemble(clean_text(result.recipient), "  ", status, _whereabouts(result))
    line.append(f"\n    {result.reply}", style="dim" if result.status is Status.DELIVERED else "")
    if result.in_doubt:
        line.append("\n    the server may have the message all the same: it is in doubt", style="yellow")
    decisive = result.reply
    for attempt in result.attempts:
        if attempt.reply is not decisive:
            where = f"{attempt.mx} [{attempt.address}]" if attempt.address else attempt.mx
            line.append(f"\n    before: {where} {attempt.result.value}: {attempt.reply}", style="dim")
    return line


def _whereabouts(result: Result) -> str:
    if result.mx is None:
        return ""
    security = result.security
    address = f" [{result.address}]" if result.address else ""
    tls = security.tls_version or "no TLS"
    by = f" by {security.authenticated_by}" if security.authenticated_by else ""
    return f"  {result.mx}{address}  {tls}  tls={security.tls_level.word}{by} mx={security.mx_level.word}"


class _Progress:
    """Tells a person at a terminal what is being waited for, once it takes long; passes events on to the log."""

    def __init__(self, log: Emit) -> None:
        self._log = log
        self._console = Console(stderr=True)
        self._doing = "looking up mail servers"

    def __call__(self, event: Event) -> None:
        self._log(event)
        match event:
            case CandidatesFound(candidates):
                self._doing = f"connecting to the mail servers of {candidates.next_hop}"
            case AddressFailed(_, mx, address, stage):
                self._doing = f"{mx} [{address}] ended at {stage}, trying the next"
            case ConnectionOpened(mx, address):
                self._doing = f"talking to {mx} [{address}]"
            case _:
                pass

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """While this is entered, what takes long is shown, on a terminal only."""
        task = asyncio.create_task(self._show()) if self._console.is_terminal else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def _show(self) -> None:
        await asyncio.sleep(PATIENCE)
        with self._console.status(Text(self._doing)) as status:
            while True:
                await asyncio.sleep(0.2)
                status.update(Text(self._doing))
