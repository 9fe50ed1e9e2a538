"""`mailrider sendmail`, and `sendmail` itself: takes a message on standard input to the daemon.

The daemon listens on a unix socket, that of its `submission` endpoint, and knows from the kernel who is there; neither
a password nor the right to read the queue is needed. Date, Message-ID and the removal of Bcc are the daemon's. Exit
codes are those of sysexits(3), and of sendmail where the two differ: 0 the message is in the queue, 64 usage, 65 bad
address or message, 67 a recipient was refused, 69 refused otherwise, 75 try again later (the daemon is down, or has no
room), 77 the socket may not be used. If any recipient is refused nothing is sent, so that a failure means one thing.

As `sendmail` it reads /etc/mailrider/mailrider.conf only, never a file in the current directory: it runs wherever the
program happens to be that calls it.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mailrider.cli.sendmail_message import from_field, read_message, recipients_in
from mailrider.cli.sendmail_options import Mode, Options, parse_options
from mailrider.config import default_runtime_dir, find_config, load
from mailrider.config.loader import SEARCHED, own_name
from mailrider.config.settings import SYSTEM_CONFIG, SYSTEM_RUNTIME_DIR
from mailrider.endpoint.settings import SubmissionSettings
from mailrider.errors import ConfigError, InvalidValue, MailriderError
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import OriginalRecipient, Recipient
from mailrider.model.socket_address import SENDMAIL_SOCKET
from mailrider.smtp.capabilities import Capabilities, parse_capabilities
from mailrider.smtp.commands import Body, Data, Ehlo, Mail, Quit, Rcpt
from mailrider.smtp.content import Content
from mailrider.smtp.replies import ReplyParser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.config import Configuration
    from mailrider.model.reply import Reply

MAX_MESSAGE: Final = 256 * 1024 * 1024  # octets held in memory; the daemon's own limit is far below
PATIENCE: Final = 300.0  # seconds for a reply: the daemon answers once the message is on disk
FAREWELL: Final = 5.0  # seconds for the reply to QUIT


class _Stop(Exception):
    """The end, with an exit code and a sentence."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the daemon is, and what this machine calls itself."""

    sockets: tuple[Path, ...]
    hostname: Domain


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": ["--help"]}
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def sendmail(config: str | None, arguments: tuple[str, ...]) -> int:
    """Hand the message on standard input to the daemon, as sendmail(8): -t -i -f FROM [RECIPIENT...]."""
    here = find_config(SEARCHED[:1])
    return run(arguments, config or (str(here) if here else None))


def main() -> None:
    """The entry point of the program that can be installed as /usr/sbin/sendmail."""
    if Path(sys.argv[0]).name == "newaliases":
        sys.exit(os.EX_OK)
    sys.exit(run(sys.argv[1:], None))


def run(arguments: Sequence[str], config: str | None) -> int:
    """All of it; returns the exit code."""
    try:
        options = _options(arguments)
        if options.mode is Mode.DELIVER:
            _hand_over(options, _place(config))
    except _Stop as stop:
        click.echo(f"sendmail: {stop}", err=True)
        return stop.code
    return os.EX_OK


def _options(arguments: Sequence[str]) -> Options:
    try:
        return parse_options(arguments)
    except InvalidValue as error:
        raise _Stop(os.EX_USAGE, str(error)) from error


def _place(config: str | None) -> _Place:
    """From the configuration; without a readable one from where things usually are."""
    try:
        found = load(config or SYSTEM_CONFIG)
    except ConfigError as error:
        if config is not None:
            raise _Stop(os.EX_CONFIG, str(error)) from error
        directories = dict.fromkeys((SYSTEM_RUNTIME_DIR, default_runtime_dir()))
        return _Place(tuple(each / SENDMAIL_SOCKET for each in directories), Domain(own_name()))
    return _Place(_sockets(found), found.globals.hostname or Domain(own_name()))


def _sockets(configuration: Configuration) -> tuple[Path, ...]:
    """Where the daemon's submission endpoints listen for programs of this machine, the usual place first."""
    usual = configuration.globals.runtime_dir / SENDMAIL_SOCKET
    doors = (each.settings for each in configuration.endpoints if isinstance(each.settings, SubmissionSettings))
    paths = [address.path for door in doors for address in door.listen if address.path is not None]
    return tuple(sorted(paths, key=lambda path: path != usual)) or (usual,)


def _hand_over(options: Options, place: _Place) -> None:
    octets = sys.stdin.buffer.read(MAX_MESSAGE + 1)
    if len(octets) > MAX_MESSAGE:
        raise _Stop(os.EX_DATAERR, f"the message is larger than {MAX_MESSAGE} octets")
    content = read_message(octets, dot_ends=options.dot_ends)
    sender = _sender(options, place.hostname)
    recipients = _recipients(options, content, place.hostname)
    author = str(sender) or f"MAILER-DAEMON@{place.hostname.ascii}"
    added = from_field(content.header, author, options.full_name)
    if added:
        content = Content.inspect(added + b"".join(content.chunks()))
    with _connect(place.sockets) as connection:
        _Dialogue(connection, place.hostname).submit(options, sender, recipients, content)


def _sender(options: Options, hostname: Domain) -> ReversePath:
    given = _user() if options.sender is None else options.sender
    try:
        return ReversePath.parse("" if not given else str(_qualified(given, hostname)))
    except InvalidValue as error:
        raise _Stop(os.EX_DATAERR, f"the sender: {error}") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _recipients(options: Options, content: Content, hostname: Domain) -> list[Recipient]:
    wanted = list(options.recipients)
    if options.recipients_from_header:
        wanted += _recipients_in(content.header)
    if not wanted:
        raise _Stop(os.EX_USAGE, "no recipient: name one, or say -t and have To, Cc or Bcc in the message")
    try:
        mailboxes = dict.fromkeys(_qualified(each, hostname) for each in wanted)
        return [_recipient(each, options) for each in mailboxes]
    except InvalidValue as error:
        raise _Stop(os.EX_DATAERR, f"a recipient: {error}") from error


def _recipients_in(header: bytes) -> list[str]:
    try:
        return recipients_in(header)
    except InvalidValue as error:
        raise _Stop(os.EX_DATAERR, f"the recipients in To, Cc and Bcc: {error}") from error


def _recipient(mailbox: Mailbox, options: Options) -> Recipient:
    original = OriginalRecipient("rfc822", str(mailbox)) if options.notify is not None and mailbox.is_ascii else None
    return Recipient(mailbox, options.notify, original)


def _qualified(text: str, hostname: Domain) -> Mailbox:
    """An address; one without a domain (`root`) is of this machine."""
    mailbox = Mailbox.parse(text)
    return mailbox if mailbox.domain is not None else Mailbox(mailbox.local_part, hostname)


def _connect(paths: Sequence[Path]) -> socket.socket:
    path = next((each for each in paths if each.exists()), paths[0])
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
    """One transaction, command by command: all of it stays on this machine."""

    def __init__(self, connection: socket.socket, hostname: Domain) -> None:
        self._connection = connection
        self._hostname = hostname
        self._parser = ReplyParser()
        self._replies: list[Reply] = []

    def submit(self, options: Options, sender: ReversePath, recipients: Sequence[Recipient], content: Content) -> None:
        """Returns once the daemon has taken the message. Raises `_Stop` if it does not."""
        try:
            self._expect(self._reply(), os.EX_UNAVAILABLE)
            offered = parse_capabilities(self._expect(self._say(Ehlo(self._hostname).encode()), os.EX_UNAVAILABLE))
            self._envelope(options, sender, recipients, content, offered)
            self._expect(self._say(Data().encode()), os.EX_UNAVAILABLE)
            for piece in content.stuffed():
                self._connection.sendall(piece)
            self._expect(self._reply(), os.EX_UNAVAILABLE)
        except (OSError, MailriderError) as error:
            raise _Stop(os.EX_TEMPFAIL, f"the daemon went away: {error}") from error
        try:
            self._connection.settimeout(FAREWELL)
            self._say(Quit().encode())
        except (OSError, MailriderError):
            pass  # it has the message

    def _envelope(
        self,
        options: Options,
        sender: ReversePath,
        recipients: Sequence[Recipient],
        content: Content,
        offered: Capabilities,
    ) -> None:
        international = not all(
            (sender.is_ascii, content.header_is_ascii, *(each.mailbox.is_ascii for each in recipients))
        )
        mail = Mail(
            sender,
            size=content.size if offered.size else None,
            body=Body.EIGHT_BIT_MIME if content.eight_bit and offered.eight_bit_mime else None,
            smtputf8=international and offered.smtputf8,
            ret=options.ret if offered.dsn else None,
            envid=options.envid if offered.dsn else None,
        )
        self._expect(self._say(mail.encode()), os.EX_UNAVAILABLE)
        for each in recipients:
            rcpt = Rcpt(each.mailbox, each.notify, each.original) if offered.dsn else Rcpt(each.mailbox)
            self._expect(self._say(rcpt.encode()), os.EX_NOUSER, str(each))

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
