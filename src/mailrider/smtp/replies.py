"""Replies: read from a server and written as one (RFC 5321 4.2), and which of them a server gives.

`ReplyParser` takes bytes as they come. Lines and replies have caps; a reply whose lines carry different codes, a NUL, a
bare LF, or a code outside 200 to 599 is a violation, after which the parser refuses to go on. Two exceptions, since
nobody gains from strictness there: see `Tolerance`.

A server has a usual reply to each command (`usual_reply`), unless the protocol refuses it (`protocol_refusal`).
Enhanced codes stand on every reply but the greeting and those to HELO and EHLO (RFC 2034 4).
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mailrider.errors import PeerError
from mailrider.model.reply import Reply, clean_text
from mailrider.smtp.capabilities import Capabilities, ehlo_reply
from mailrider.smtp.commands import (
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Connect,
    Data,
    Ehlo,
    EndOfData,
    Helo,
    Help,
    Lhlo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTLS,
    Vrfy,
)
from mailrider.smtp.server_states import ON_CONSENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mailrider.smtp.server_states import ServerDialogue

# RFC 5321 4.5.3.1.5 gives 512 octets to a reply line; servers send more, so four times that.
MAX_LINE = 2048
# Sendmail's help is the longest known reply with some 30 lines; an endless one must end somewhere.
MAX_LINES = 100
# The same behind the end of a message: what is not believed there is delivered again. The text beyond is dropped.
MAX_FINAL_LINES = 1000
# Octets of several lines whose meaning is remembered: servers say the same to everybody, EHLO's reply has some 300.
MAX_REMEMBERED = 1024
# Octets of what a server said in place of a reply that our errors repeat.
MAX_WORDS = 80

# A code that a reply can have, and that the line does not go on from as if it were a longer number.
_LEGIBLE = re.compile(rb"[2-5][0-9][0-9](?:[ -]|\Z)")
# The same in a line that was not ended: of a code alone it is not certain that it is whole.
_LEGIBLE_UNENDED = re.compile(rb"[2-5][0-9][0-9][ -]")
# The same behind the end of a message, where it may stand and end in another way: ` 250 ok`, `250\tok`, `250: ok`.
_LEGIBLE_AT_LAST = re.compile(rb"[ \t]*([2-5][0-9][0-9])(?![0-9])([ -]?)")
# A whole reply of one line in which nothing has to be tolerated.
_SINGLE = re.compile(rb"[2-5][0-9][0-9](?: [^\0\r\n]*+)?\r\n")


class ReplyViolation(PeerError):
    """The server's bytes are not an SMTP reply."""


class Tolerance(enum.IntEnum):
    """What a parser bears that is not a well-formed reply.

    `NONE`: nothing. With pipelining a line that is skipped would give each later command the reply of another one.
    `WORDS`, before pipelining is known: lines without a code, empty ones too, are skipped, as Postfix does. `FRAMING`,
    behind the end of a message: any legible code counts, whatever its lines end in, how long they are and what they
    hold; of several codes in one reply the last. To refuse it would deliver the message again at each retry.
    """

    NONE = 0
    WORDS = 1
    FRAMING = 2


class ReplyParser:
    """Parses a server's bytes into replies.

    `tolerance` may be changed at any time. `skipped`: what the first line said that was no reply and was skipped;
    `is_irregular`: True once a reply behind the end of a message was not well-formed.
    """

    __slots__ = ("_broken", "_buffer", "_code", "_lines", "_skipped", "is_irregular", "skipped", "tolerance")

    def __init__(self) -> None:
        self._buffer = b""
        self._code = 0
        self._lines: list[str] = []
        self._broken = False
        self._skipped = 0
        self.tolerance = Tolerance.NONE
        self.skipped = ""
        self.is_irregular = False

    @property
    def is_empty(self) -> bool:
        """True between replies: no byte of a further one has been received."""
        return not self._buffer and not self._lines

    def receive(self, data: bytes) -> Iterable[Reply]:
        """The replies that `data` completes, in order; to be exhausted.

        Raises `ReplyViolation` behind the last good one; then the connection is worthless.
        """
        between_replies = not self._buffer and not self._lines and not self._broken
        if between_replies and len(data) <= MAX_REMEMBERED:
            if data.count(b"\n") > 1:
                remembered = _parse_whole(data)
                if remembered is not None:
                    return remembered
            elif _SINGLE.fullmatch(data):
                return (_parse_single(data[:-2]),)
        return self._parse(data)

    def end(self) -> Reply | None:
        """The reply that was not ended, now that nothing more comes: behind the end of a message its code counts."""
        if self.tolerance is not Tolerance.FRAMING or self._broken:
            return None
        self.is_irregular = True
        lines = list(self._lines)
        if _LEGIBLE_UNENDED.match(self._buffer):
            self._code, _, text = _parse_line(self._buffer.rstrip(b"\r").replace(b"\0", b" "))
            lines.append(text)
        self._buffer, self._lines = b"", []
        return Reply.from_lines(self._code, tuple(lines[:MAX_LINES])) if lines else None

    def _parse(self, data: bytes) -> Iterator[Reply]:
        if self._broken:
            raise ReplyViolation("the server broke the protocol before")
        pieces = ((self._buffer + data) if self._buffer else data).split(b"\n")
        self._buffer = pieces.pop()
        self._broken = True  # until all of it turned out well
        for piece in pieces:
            reply = self._take_line(self._without_end(piece))
            if reply is not None:
                yield reply
        if len(self._buffer) >= MAX_LINE:
            if self.tolerance is not Tolerance.FRAMING:
                raise ReplyViolation(f"reply line longer than {MAX_LINE} octets: {_words(self._buffer)}")
            line, self._buffer = self._without_end(self._buffer), b""
            reply = self._take_line(line)
            if reply is not None:
                yield reply
        self._broken = False

    def _without_end(self, piece: bytes) -> bytes:
        """A line without its CRLF."""
        well_formed = piece[-1:] == b"\r" and len(piece) < MAX_LINE
        if well_formed and (
            self.tolerance is not Tolerance.FRAMING
            or (piece[-2:-1] != b"\r" and b"\0" not in piece and _LEGIBLE.match(piece[:-1]))
        ):
            return piece[:-1]
        if self.tolerance is Tolerance.FRAMING:
            line = _with_code_as_usual(piece[:MAX_LINE].rstrip(b"\r").replace(b"\0", b" "))
            self.is_irregular = self.is_irregular or line != piece[:-1]
            return line
        if len(piece) >= MAX_LINE:
            raise ReplyViolation(f"reply line longer than {MAX_LINE} octets: {_words(piece)}")
        if self.tolerance is Tolerance.NONE or _has_code(piece):
            raise ReplyViolation(f"reply line ends in a bare LF: {_words(piece)}")
        return piece

    def _take_line(self, line: bytes) -> Reply | None:
        if self._is_borne(line):
            self._skip(line)
            return None
        if not self._lines and line[3:4] != b"-":
            return _parse_single(line)
        code, is_last, text = _parse_line(line)
        if self._lines and code != self._code:
            if self.tolerance is not Tolerance.FRAMING:
                raise ReplyViolation(f"reply changes its code from {self._code} to {code}: {_words(line)}")
            self.is_irregular = True
        self._code = code
        self._lines.append(text if len(self._lines) < MAX_LINES else "")
        if not is_last:
            if len(self._lines) >= MAX_LINES:
                self._check_line_count(line)
            return None
        lines, self._lines = tuple(self._lines[:MAX_LINES]), []
        return Reply.from_lines(code, lines)

    def _check_line_count(self, line: bytes) -> None:
        most = MAX_FINAL_LINES if self.tolerance is Tolerance.FRAMING else MAX_LINES
        if len(self._lines) >= most:
            raise ReplyViolation(f"reply has more than {most} lines: {_words(line)}")
        self.is_irregular = True

    def _is_borne(self, line: bytes) -> bool:
        """True for a line that is no reply and may be skipped."""
        if self.tolerance is Tolerance.FRAMING:
            return not _LEGIBLE.match(line)
        # A NUL is no text: whoever sends one speaks something else than SMTP.
        return self.tolerance is Tolerance.WORDS and not _has_code(line) and b"\0" not in line

    def _skip(self, line: bytes) -> None:
        self._skipped += 1
        if self._skipped > MAX_LINES:
            raise ReplyViolation(f"more than {MAX_LINES} lines that are no reply: {_words(line)}")
        self.skipped = self.skipped or _words(line)
        self.is_irregular = self.is_irregular or self.tolerance is Tolerance.FRAMING


def _with_code_as_usual(line: bytes) -> bytes:
    """The line with its code at the beginning, and a space or a hyphen behind it, if it has one that is legible."""
    match = _LEGIBLE_AT_LAST.match(line)
    if match is None or _LEGIBLE.match(line):
        return line
    return match[1] + (match[2] or b" ") + line[match.end() :]


def _has_code(line: bytes) -> bool:
    return len(line) >= 3 and line[:3].isdigit()


def _words(line: bytes) -> str:
    """What a server said, for an error: it stands behind a colon, without control characters."""
    return clean_text(line[:MAX_WORDS].decode("utf-8", "backslashreplace")) or "(an empty line)"


@lru_cache(maxsize=512)
def _parse_single(line: bytes) -> Reply:
    code, _, text = _parse_line(line)
    return Reply.from_lines(code, (text,))


def _parse_line(line: bytes) -> tuple[int, bool, str]:
    """Code, whether it is the reply's last line, text."""
    if not _LEGIBLE.match(line):
        raise ReplyViolation(f"not a reply line: {_words(line)}")
    if b"\0" in line:
        raise ReplyViolation(f"NUL in a reply line: {_words(line)}")
    # Text is for people (RFC 6531 3.7.4.2 allows UTF-8): undecodable octets must not hide the code.
    return int(line[:3]), line[3:4] != b"-", line[4:].decode("utf-8", "backslashreplace")


@lru_cache(maxsize=512)
def _parse_whole(data: bytes) -> tuple[Reply, ...] | None:
    """The replies that `data` is, if it is whole and right: what servers say to EHLO and to MAIL, RCPT and DATA."""
    parser = ReplyParser()
    try:
        replies = tuple(parser._parse(data))
    except ReplyViolation:
        return None
    return replies if parser.is_empty else None


# Written --------------------------------------------------------------------------------------------------------------


def encode_reply(reply: Reply) -> bytes:
    """A reply as a server sends it; the enhanced code stands on every line (RFC 2034 4)."""
    prefix = f"{reply.enhanced} " if reply.enhanced else ""
    *first, last = reply.lines
    lines = [f"{reply.code}-{prefix}{line}\r\n" for line in first]
    lines.append(f"{reply.code} {prefix}{last}\r\n")
    return "".join(lines).encode("utf-8")


# What a server says ---------------------------------------------------------------------------------------------------


_USUAL: Final[dict[type[Command], Reply]] = {
    Mail: Reply.make(250, "2.1.0", "Sender ok"),
    Rcpt: Reply.make(250, "2.1.5", "Recipient ok"),
    Data: Reply.make(354, None, "Send the message, and a lone dot behind it"),
    Bdat: Reply.make(250, "2.0.0", "Chunk ok"),
    EndOfData: Reply.make(250, "2.0.0", "Message accepted"),
    Rset: Reply.make(250, "2.0.0", "Forgotten"),
    Noop: Reply.make(250, "2.0.0", "Ok"),
    Quit: Reply.make(221, "2.0.0", "Good bye"),
    StartTLS: Reply.make(220, "2.0.0", "Ready for TLS"),
    Help: Reply.make(214, "2.0.0", "See RFC 5321"),
    Vrfy: Reply.make(252, "2.1.5", "Send some mail, and it will be tried"),  # RFC 5321 7.3
    Auth: Reply.make(535, "5.7.8", "Authentication failed"),
    AuthResponse: Reply.make(535, "5.7.8", "Authentication failed"),
}
_HELLOS = (Ehlo, Helo, Lhlo)
_ACCEPTED = _USUAL[EndOfData]
_NO_RECIPIENTS = Reply.make(554, "5.5.1", "No valid recipients")
_CANCELLED = Reply.make(501, "5.7.0", "Authentication cancelled")  # RFC 4954 4

# The octets of those that are there as long as the process, by their identity.
_READY: Final = {id(reply): encode_reply(reply) for reply in (*_USUAL.values(), _NO_RECIPIENTS, _CANCELLED)}


def encoded(reply: Reply) -> bytes:
    """A reply as it is sent."""
    return _READY.get(id(reply)) or encode_reply(reply)


def usual_reply(machine: ServerDialogue, command: Command, hostname: str) -> Reply:
    """The reply of a server that welcomes everything it can; AUTH fails."""
    match command:
        case Mail() | Rcpt():  # most of what is asked
            return _USUAL[type(command)]
        case Connect():
            return Reply.make(220, None, f"{hostname} {'LMTP' if machine.lmtp else 'ESMTP'}")
        case Ehlo() | Lhlo():
            return ehlo_reply(hostname, machine.offer)
        case Helo():
            return Reply.make(250, None, hostname)
        case Data() | EndOfData() if not machine.recipients:
            return _NO_RECIPIENTS
        case Bdat(last=True):
            return _ACCEPTED
        case AuthResponse(response="*"):
            return _CANCELLED
        case _:
            return _USUAL[type(command)]


# What the protocol refuses --------------------------------------------------------------------------------------------


def protocol_refusal(machine: ServerDialogue, command: Command) -> Reply | None:
    """What the protocol has against the command now; None if the application may judge it."""
    kind = type(command)
    if kind in _HELLOS and (kind is Lhlo) is not machine.lmtp:
        return Reply.make(500, "5.5.1", f"This is {'LMTP, say LHLO' if machine.lmtp else 'SMTP, say EHLO'}")
    if machine.state not in ON_CONSENT[kind]:
        return out_of_order(machine, command)
    match command:
        case Mail():
            return _mail_refusal(command, machine.extensions)
        case Rcpt():
            return _recipient_refusal(machine, command)
        case Data() if machine.lmtp and not machine.recipients:
            return _NO_RECIPIENTS  # RFC 2033 4.2: here it must not be granted
        case StartTLS() if not machine.offer.starttls:
            return Reply.make(502, "5.5.1", "STARTTLS is not offered")
        case Auth():
            return _auth_refusal(machine, command)
        case _:
            return None


def chunk_refusal(machine: ServerDialogue) -> Reply | None:
    """The refusal of a chunk, whose octets are taken in any case; None if it is welcome."""
    if not machine.extensions.chunking:
        return Reply.make(502, "5.5.1", "BDAT is not offered")
    if machine.state in ON_CONSENT[Rcpt] and not machine.recipients:
        return _NO_RECIPIENTS
    if machine.state not in ON_CONSENT[Bdat]:
        return out_of_order(machine, Bdat(0, last=False))
    return None


def out_of_order(machine: ServerDialogue, command: Command) -> Reply:
    """A 503 that says what was out of order."""
    return Reply.make(503, "5.5.1", f"{type(command).__name__.upper()} is out of order: {machine.state.value}")


def too_large(offer: Capabilities) -> Reply:
    """552 for content (RFC 1870 6.1)."""
    return Reply.make(552, "5.3.4", f"The message is larger than {offer.max_size} octets")


def dubious_end(reason: str) -> Reply:
    """554 for content of which others may see the end elsewhere (`smtp.data`)."""
    return Reply.make(554, "5.6.0", f"Not accepted, others may see its end elsewhere: {reason}")


def _not_offered(parameter: str) -> Reply:
    return Reply.make(555, "5.5.4", f"{parameter} is not offered")


def _mail_refusal(command: Mail, extensions: Capabilities) -> Reply | None:
    if command.size is not None and not extensions.size:
        return _not_offered("SIZE")
    if command.body is not None and not extensions.eight_bit_mime:
        return _not_offered("BODY")
    if command.smtputf8 and not extensions.smtputf8:
        return _not_offered("SMTPUTF8")
    if command.requiretls and not extensions.requiretls:
        return _not_offered("REQUIRETLS")
    if command.ret is not None and not extensions.dsn:
        return _not_offered("RET")
    if command.envid is not None and not extensions.dsn:
        return _not_offered("ENVID")
    if command.auth is not None and not extensions.auth:
        return _not_offered("AUTH")
    if command.size is not None and extensions.max_size is not None and command.size > extensions.max_size:
        return too_large(extensions)
    return None


def _recipient_refusal(machine: ServerDialogue, command: Rcpt) -> Reply | None:
    if not machine.extensions.dsn and (command.notify is not None or command.original is not None):
        return _not_offered("DSN")
    if not command.mailbox.is_ascii and not (machine.mail is not None and machine.mail.smtputf8):
        return Reply.make(553, "5.6.7", "A non-ASCII recipient needs SMTPUTF8")  # RFC 6531 3.5
    if machine.asked >= (machine.offer.max_recipients or machine.limits.max_recipients):
        return Reply.make(452, "4.5.3", "Too many recipients")  # RFC 5321 4.5.3.1.10, RFC 9422 4.2
    return None


def _auth_refusal(machine: ServerDialogue, command: Auth) -> Reply | None:
    if machine.is_authenticated:
        return Reply.make(503, "5.5.1", "You are authenticated already")  # RFC 4954 4
    if command.mechanism in machine.offer.auth:
        return None
    if machine.offer.auth:
        return Reply.make(504, "5.5.4", "This mechanism is not offered")
    if machine.offer.starttls:
        return Reply.make(538, "5.7.11", "AUTH is offered under TLS only")
    return Reply.make(502, "5.5.1", "AUTH is not offered")
