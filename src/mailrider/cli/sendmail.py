"""`mailrider sendmail`, and `sendmail` itself: takes a message on standard input to the daemon.

The daemon listens on a unix socket, that of its `submission` endpoint, and knows from the kernel who is there; neither
a password nor the right to read the queue is needed. What a message lacks is the daemon's to add: Date, Message-ID, the
domain of addresses without one (`origin`); so is the removal of Bcc. Exit codes are those of sysexits(3), and of
sendmail where the two differ: 0 the message is in the queue, 64 usage, 65 bad address or message, 66 standard input is
closed, 67 a recipient was refused, 69 refused otherwise, 75 try again later (the daemon is down, or has no room), 77
the socket may not be used. If any recipient is refused nothing is sent, so that a failure means one thing.

With `-bs` it speaks SMTP on standard input and output: what is said goes to the daemon, and its replies come back.

As `sendmail` it reads /etc/mailrider/mailrider.conf only, never a file in the current directory: it runs wherever the
program happens to be that calls it.
"""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mailrider.cli.sendmail_message import from_field, read_message, recipients_in
from mailrider.cli.sendmail_options import Mode, Options, parse_options
from mailrider.cli.streams import INPUT_IS_CLOSED, command_line, occupy_standard_streams
from mailrider.config import default_runtime_dir, find_config, load
from mailrider.config.loader import SEARCHED, own_name
from mailrider.config.settings import SYSTEM_CONFIG, SYSTEM_RUNTIME_DIR
from mailrider.endpoint.settings import SubmissionSettings
from mailrider.errors import ConfigError, InvalidValue, MailriderError
from mailrider.header.addresses import parse_addresses
from mailrider.model.address import NULL_PATH, Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import OriginalRecipient, Recipient
from mailrider.model.text import visible
from mailrider.settings.socket_address import SENDMAIL_SOCKET
from mailrider.smtp.capabilities import Capabilities, parse_capabilities
from mailrider.smtp.commands import Body, Data, Ehlo, Mail, Quit, Rcpt, Rset
from mailrider.smtp.content import CHUNK, Content
from mailrider.smtp.replies import ReplyParser
from mailrider.smtp.transaction import MAX_RECIPIENTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from mailrider.config import Configuration
    from mailrider.model.reply import Reply

MAX_MESSAGE: Final = 256 * 1024 * 1024  # octets held in memory; the daemon's own limit is far below
PATIENCE: Final = 300.0  # seconds for a reply: the daemon answers once the message is on disk
FAREWELL: Final = 5.0  # seconds for the last replies


class _Stop(Exception):
    """The end, with an exit code and a sentence."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Daemon:
    """Where the daemon is, and what this machine calls itself."""

    sockets: tuple[Path, ...]
    hostname: Domain


class _UnparsedCommand(click.Command):
    """Takes the words as they are: click would drop a `--`, and read an address that begins with `-` as an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args == ["--help"]:
            return super().parse_args(ctx, args)
        ctx.params["arguments"] = tuple(args)
        return []


@click.command(cls=_UnparsedCommand, context_settings={"help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1)
@click.pass_obj
def sendmail(config: str | None, arguments: tuple[str, ...]) -> int:
    """Hand the message on standard input to the daemon, as sendmail(8): -t -i -f FROM [RECIPIENT...].

    \b
    -t          Recipients are also those in To, Cc and Bcc.
    -i, -oi     A line of a single dot is no end of the message.
    -f ADDRESS  The sender; default: who calls. -r is the same.
    -F NAME     The sender's name, where the message has no From.
    -N WHEN     Notifications: never, or of success,failure,delay.
    -R WHAT     What they return: full or hdrs.
    -V ID       An id that they repeat.
    -bs         Speak SMTP on standard input and output.
    -bp         Show the queue.
    -q          Try now what is in the queue.

    Options that concern another program's queue and files (-odq -oem -B8BITMIME -G -v and so on) are taken, and change
    nothing.

    Ends with 75 if the daemon is down, with 64 for an option that is not known.
    """
    here = find_config(SEARCHED[:1])
    return run(arguments, config or (str(here) if here else None))


def main() -> None:
    """The entry point of the program that can be installed as /usr/sbin/sendmail, mailq and newaliases."""
    occupy_standard_streams()
    sys.exit(run(command_line(), None, Path(sys.argv[0]).name))


def run(arguments: Sequence[str], config: str | None, name: str = "sendmail") -> int:
    """All of it; returns the exit code. `name`: what the program was called by."""
    try:
        options = _options(arguments, name)
        match options.mode:
            case Mode.DELIVER:
                _hand_over(options, _daemon(config))
            case Mode.SPEAK_SMTP:
                _speak(_daemon(config))
            case Mode.LIST_QUEUE:
                return _ask_queue(config, "list")
            case Mode.RUN_QUEUE:
                with contextlib.redirect_stdout(io.StringIO()):  # as silent as sendmail is
                    return _ask_queue(config, "retry", "--all")
            case Mode.NOTHING:
                pass
    except _Stop as stop:
        click.echo(f"{name}: {visible(str(stop))}", err=True)
        return stop.code
    return os.EX_OK


def _options(arguments: Sequence[str], name: str) -> Options:
    try:
        return parse_options(arguments, name)
    except InvalidValue as error:
        raise _Stop(os.EX_USAGE, str(error)) from error


def _ask_queue(config: str | None, *arguments: str) -> int:
    """`mailrider queue`, for whoever may read the queue's files."""
    from mailrider.cli.queue import queue  # with asyncio and SQLite: only a few calls of sendmail are about the queue

    try:
        return int(queue.main(arguments, "mailrider queue", standalone_mode=False, obj=config or str(SYSTEM_CONFIG)))
    except ConfigError as error:
        raise _Stop(os.EX_CONFIG, str(error)) from error
    except PermissionError as error:
        raise _Stop(os.EX_NOPERM, f"the queue may not be read: {error.strerror}: {error.filename}") from error
    except (OSError, MailriderError) as error:
        raise _Stop(os.EX_TEMPFAIL, f"the queue cannot be read: {error}") from error


def _daemon(config: str | None) -> _Daemon:
    """From the configuration; without a readable one from where things usually are."""
    try:
        found = load(config or SYSTEM_CONFIG)
    except ConfigError as error:
        if config is not None:
            raise _Stop(os.EX_CONFIG, str(error)) from error
        directories = dict.fromkeys((SYSTEM_RUNTIME_DIR, default_runtime_dir()))
        return _Daemon(tuple(each / SENDMAIL_SOCKET for each in directories), Domain(own_name()))
    return _Daemon(_sockets(found), found.globals.hostname or Domain(own_name()))


def _sockets(configuration: Configuration) -> tuple[Path, ...]:
    """Where the daemon's submission endpoints listen for programs of this machine, the usual place first."""
    usual = configuration.globals.runtime_dir / SENDMAIL_SOCKET
    endpoints = (each.settings for each in configuration.endpoints if isinstance(each.settings, SubmissionSettings))
    paths = [address.path for endpoint in endpoints for address in endpoint.listen if address.path is not None]
    return tuple(sorted(paths, key=lambda path: path != usual)) or (usual,)


def _hand_over(options: Options, daemon: _Daemon) -> None:
    try:
        octets = _input().buffer.read(MAX_MESSAGE + 1)
    except OSError as error:
        raise _Stop(os.EX_NOINPUT, f"standard input cannot be read: {error.strerror}") from error
    if len(octets) > MAX_MESSAGE:
        raise _Stop(os.EX_DATAERR, f"the message is larger than {MAX_MESSAGE} octets")
    content = read_message(octets, dot_ends=options.dot_ends)
    sender = _sender(options)
    recipients = _recipients(options, content)
    added = from_field(content.header, "MAILER-DAEMON" if sender is None else str(sender), options.full_name)
    if added:
        content = Content.inspect(added + b"".join(content.chunks()))
    with _connect(daemon.sockets) as connection:
        _Dialogue(connection, daemon.hostname, options, sender, content).submit(recipients)


def _input() -> TextIO:
    if sys.stdin is None:
        raise _Stop(os.EX_NOINPUT, INPUT_IS_CLOSED)
    return sys.stdin


def _sender(options: Options) -> Mailbox | None:
    """None: the null sender."""
    given = _user() if options.sender is None else options.sender
    if given in ("", "<>"):
        return None
    try:
        mailbox, *others = _mailboxes(given)
    except InvalidValue as error:
        raise _Stop(os.EX_DATAERR, f"the sender: {error}") from error
    if others:
        raise _Stop(os.EX_DATAERR, f"the sender: expected one address, not {given[:300]!r}")
    return mailbox


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _recipients(options: Options, content: Content) -> list[Recipient]:
    try:
        wanted = [mailbox for word in options.recipients for mailbox in _mailboxes(word)]
        if options.recipients_from_header:
            wanted += map(Mailbox.parse, recipients_in(content.header))
    except InvalidValue as error:
        raise _Stop(os.EX_DATAERR, f"a recipient: {error}") from error
    if not wanted:
        raise _Stop(os.EX_USAGE, "no recipient: name one, or say -t and have To, Cc or Bcc in the message")
    return [_recipient(each, options) for each in dict.fromkeys(wanted)]


def _mailboxes(text: str) -> list[Mailbox]:
    """The addresses of a word: `a@x,b@y`, `<b@x>`, `Bob <b@x>`, `root`; at least one. Raises `InvalidValue`."""
    found = [Mailbox.parse(each.text) for each in parse_addresses(text)]
    if not found:
        raise InvalidValue(f"no address in {text[:100]!r}")
    return found


def _recipient(mailbox: Mailbox, options: Options) -> Recipient:
    is_plain = mailbox.is_ascii and mailbox.domain is not None
    original = OriginalRecipient("rfc822", str(mailbox)) if options.notify is not None and is_plain else None
    return Recipient(mailbox, options.notify, original)


def _speak(daemon: _Daemon) -> None:
    """SMTP between standard input and output, and the daemon."""
    source = _input().fileno()
    try:
        connection = _connect(daemon.sockets)
    except _Stop as stop:
        _write_out(b"421 4.3.2 " + str(stop).encode("ascii", "replace") + b"\r\n")
        raise
    with connection:
        connection.settimeout(None)  # the daemon ends a session that says nothing
        # It may stand in a read for ever; the end of the connection is the end of the program.
        threading.Thread(target=_pass_on, args=(source, connection), daemon=True).start()
        try:
            while octets := connection.recv(CHUNK):
                _write_out(octets)
        except OSError as error:
            raise _Stop(os.EX_TEMPFAIL, f"the connection was lost: {error.strerror or error}") from error


def _write_out(octets: bytes) -> None:
    sys.stdout.buffer.write(octets)
    sys.stdout.buffer.flush()


def _pass_on(source: int, connection: socket.socket) -> None:
    """What is said on standard input; behind its end the daemon answers what it has heard, and closes."""
    with contextlib.suppress(OSError):
        while octets := os.read(source, CHUNK):
            connection.sendall(octets)
        connection.shutdown(socket.SHUT_WR)


def _connect(paths: Sequence[Path]) -> socket.socket:
    # `os.path.exists`: a folder that we may not look into is no reason to fail before the others are tried.
    path = next((each for each in paths if os.path.exists(each)), paths[0])
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    try:
        connection.connect(str(path))
    except PermissionError as error:
        connection.close()
        raise _Stop(os.EX_NOPERM, f"{path} may not be used: {error.strerror}") from error
    except OSError as error:
        connection.close()
        raise _Stop(os.EX_TEMPFAIL, f"the daemon does not answer at {path}: {error.strerror or error}") from error
    return connection


class _Dialogue:
    """One message, command by command: all of it stays on this machine. `sender` None: the null sender."""

    def __init__(
        self, connection: socket.socket, hostname: Domain, options: Options, sender: Mailbox | None, content: Content
    ) -> None:
        self._connection = connection
        self._hostname = hostname
        self._options = options
        self._sender = sender
        self._content = content
        self._parser = ReplyParser()
        self._replies: list[Reply] = []

    def submit(self, recipients: Sequence[Recipient]) -> None:
        """Returns once the daemon has taken the message. Raises `_Stop` if it does not."""
        try:
            self._expect(self._reply(), os.EX_UNAVAILABLE)
            offered = parse_capabilities(self._expect(self._say(Ehlo(self._hostname).encode()), os.EX_UNAVAILABLE))
            most = offered.max_recipients or MAX_RECIPIENTS
            self._send([recipients[at : at + most] for at in range(0, len(recipients), most)], offered)
        except (OSError, MailriderError) as error:
            raise _Stop(os.EX_TEMPFAIL, f"the daemon went away: {getattr(error, 'strerror', '') or error}") from error
        try:
            self._connection.settimeout(FAREWELL)
            self._say(Quit().encode())
        except (OSError, MailriderError):
            pass  # it has the message

    def _send(self, batches: Sequence[Sequence[Recipient]], offered: Capabilities) -> None:
        """RFC 5321 4.5.3.1.10: more recipients than a transaction takes have one transaction after the other."""
        if len(batches) > 1:
            # All are asked for before anybody gets the message.
            for batch in batches:
                self._envelope(batch, offered)
                self._say(Rset().encode())
        taken = 0
        for batch in batches:
            try:
                self._transaction(batch, offered)
            except _Stop as stop:
                if not taken:
                    raise
                raise _Stop(stop.code, f"{taken} recipients will get it, the others not: {stop}") from stop
            taken += len(batch)

    def _transaction(self, recipients: Sequence[Recipient], offered: Capabilities) -> None:
        self._envelope(recipients, offered)
        self._expect(self._say(Data().encode()), os.EX_UNAVAILABLE)
        for piece in self._content.stuffed():
            self._connection.sendall(piece)
        self._expect(self._reply(), os.EX_UNAVAILABLE)

    def _envelope(self, recipients: Sequence[Recipient], offered: Capabilities) -> None:
        self._expect(self._say(self._mail(recipients, offered)), os.EX_UNAVAILABLE)
        for each in recipients:
            rcpt = Rcpt(each.mailbox, each.notify, each.original) if offered.dsn else Rcpt(each.mailbox)
            self._expect(self._say(rcpt.encode()), os.EX_NOUSER, str(each))

    def _mail(self, recipients: Sequence[Recipient], offered: Capabilities) -> bytes:
        sender, content = self._sender, self._content
        # Of addresses only: a header that is 8-bit goes as it always went, so that no server is asked for too much.
        international = not all(each is None or each.is_ascii for each in (sender, *(to.mailbox for to in recipients)))
        is_whole = sender is None or sender.domain is not None
        line = Mail(
            ReversePath(sender) if is_whole else NULL_PATH,
            size=content.size if offered.size else None,
            body=Body.EIGHT_BIT_MIME if content.eight_bit and offered.eight_bit_mime else None,
            smtputf8=international and offered.smtputf8,
            ret=self._options.ret if offered.dsn else None,
            envid=self._options.envid if offered.dsn else None,
        ).encode()
        # The daemon completes the name of a user; a `Mail` must have a domain, or nobody.
        return line if is_whole else line.replace(b"<>", f"<{sender}>".encode(), 1)

    def _expect(self, reply: Reply, refused: int, what: str = "") -> Reply:
        """The reply, unless it is a refusal."""
        if reply.code < 400:
            return reply
        code = os.EX_TEMPFAIL if reply.is_transient else os.EX_DATAERR if reply.code == 501 else refused
        raise _Stop(code, f"{what}: {reply}" if what else str(reply))

    def _say(self, line: bytes) -> Reply:
        self._connection.sendall(line)
        return self._reply()

    def _reply(self) -> Reply:
        while not self._replies:
            octets = self._connection.recv(65536)
            if not octets:
                raise ConnectionError("the connection was closed")
            self._replies += self._parser.receive(octets)
        return self._replies.pop(0)
