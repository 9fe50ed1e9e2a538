"""The server's side of an SMTP session, sans I/O (RFC 5321, 2920, 3030, 3207, 4954; LMTP: RFC 2033).

The machine turns bytes into the commands that a client may give now, and the application's replies into bytes. It
knows order, syntax, framing and limits; whether anything is welcome is the application's word. Four verbs:

- `receive(data)`: bytes from the client;
- `next_event()`: what happened, one thing at a time; None: more bytes, or an answer, must come first;
- `answer(reply)`: the application's reply to the command that `next_event` gave last (`usual_reply` has one for each);
- `take_output()`: the bytes to write. Called when `next_event` has run dry, it gives the replies to pipelined commands
  together (RFC 2920 3.2).

Events are the `Command` values that a client sends, beginning with `Connect`, which the greeting answers; `EndOfData`
and `Bdat` come when their content is complete. Each is to be answered, once (in LMTP the end of a message as often as
it has recipients: `answers_due`). Two events need no answer: `ContentChunk`, and `Rejected`, which tells what the
machine has refused by itself. `mail` and `recipients` are what was accepted of the transaction; once `mail` is None
again, the transaction is over, and the application forgets what it did not answer for.

After each round a driver looks at `state`: HANDSHAKE, start TLS and say `tls_established`; CLOSED, write the output and
close. It stops reading while `is_full`.

A line of HTTP ends the session, and so does anything before EHLO that RFC 5321 4.1.4 does not allow there: a web page
can have a browser send lines of its choice to a port on loopback, behind an HTTP request.

Three rules that every change must keep:

1. *One end.* CRLF.CRLF ends content, CRLF ends a command, and nothing else does (`smtp.data`, for chunks as well; a
   bare line end in a command is refused); or two servers see different messages in the same bytes.
2. *Nothing said in clear outlives STARTTLS.* Bytes behind the command are an attack (RFC 3207 6); after the handshake
   the session begins anew (RFC 3207 4.2).
3. *Bounded.* Lines, recipients, content and nonsense have limits, and nothing else is kept.

The states and all transitions stand in `smtp.server_states`, what is refused and why in `smtp.replies`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.errors import LocalError
from mailrider.model.reply import Reply
from mailrider.smtp.capabilities import NO_CAPABILITIES, Capabilities
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
    Lhlo,
    Mail,
    Rcpt,
    StartTLS,
)
from mailrider.smtp.data import ChunkInspector, DataDecoder
from mailrider.smtp.parse import CommandError, ForeignProtocol, parse_auth_response, parse_command, shown
from mailrider.smtp.replies import chunk_refusal, dubious_end, encoded, protocol_refusal, too_large
from mailrider.smtp.server_states import (
    ANY_TIME,
    ENDS_GROUP,
    IN_TRANSACTION,
    ON_CONSENT,
    ON_REFUSAL,
    ContentChunk,
    Event,
    Limits,
    Rejected,
    ServerState,
)

if TYPE_CHECKING:
    from mailrider.model.domain import Domain, NextHop

# RFC 5321 4.5.3.1.4 gives 512 octets to a command line, the extensions add some 1,200.
MAX_LINE: Final = 2048
MAX_AUTH_LINE: Final = 12288  # RFC 4954 4.5, where AUTH is offered
MAX_BACKLOG: Final = 65536  # octets that may wait: one read, and more than a group of commands ever has

_LIMITS: Final = Limits()
_TOO_LONG: Final = b"?"  # stands for a line that was dropped
_NOT_INTRODUCED: Final = Reply.make(421, "4.7.0", "Introduce yourself first; good bye")
_TOO_MANY_ERRORS: Final = Reply.make(421, "4.7.0", "Too many errors; good bye")


class ServerMachine:
    """The server's side of one session.

    `offer` is what EHLO announces: it decides which extensions are understood, and holds `max_size`, `max_recipients`
    and `max_transactions`; `extensions` is the same once EHLO was granted, nothing after HELO. `asked` counts the
    RCPTs of the transaction, granted or not. All of it is for the application to read, not to write.
    """

    __slots__ = (
        "_at",
        "_buffer",
        "_chunk",
        "_chunk_left",
        "_command",
        "_commands",
        "_content_size",
        "_decoder",
        "_errors",
        "_fault",
        "_inspector",
        "_origin",
        "_output",
        "_overlong",
        "_rejected",
        "_transactions",
        "answers_due",
        "asked",
        "client_name",
        "extensions",
        "is_authenticated",
        "is_secure",
        "limits",
        "lmtp",
        "mail",
        "offer",
        "recipients",
        "state",
    )

    def __init__(
        self,
        offer: Capabilities,
        limits: Limits = _LIMITS,
        *,
        lmtp: bool = False,
        secure: bool = False,
        origin: Domain | None = None,
    ) -> None:
        """`secure`: TLS came first (RFC 8314 3.3). `origin`: see `parse_command`."""
        self.limits = limits
        self._origin = origin
        self.lmtp = lmtp
        self.state = ServerState.CONNECTED
        self.mail: Mail | None = None
        self.recipients: list[Rcpt] = []
        self.asked = 0
        self.answers_due = 0
        self._command: Command = Connect()
        self._buffer = b""
        self._at = 0  # what stands before it in the buffer is done
        self._overlong = False  # the beginning of the line has been dropped already
        self._output: list[bytes] = []
        self._rejected: Rejected | None = None
        self._errors = 0
        self._commands = 0
        self._transactions = 0
        self._content_size = 0  # of all chunks of the transaction
        self._decoder = DataDecoder()
        self._inspector = ChunkInspector()  # of the transaction's chunks
        self._chunk: Bdat | None = None
        self._chunk_left = 0
        self._fault: Reply | None = None  # what the chunk under way will be refused with
        self._begin(offer, secure)

    def _begin(self, offer: Capabilities, secure: bool) -> None:
        self.offer = offer
        self.is_secure = secure
        self.is_authenticated = False
        self.client_name: NextHop | None = None
        self.extensions = NO_CAPABILITIES

    # Verbs ------------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the client; what is in them `next_event` tells."""
        if self.state is not ServerState.CLOSED:
            self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
            self._at = 0

    def next_event(self) -> Event | None:
        """What happened next; None if more bytes, or an answer, must come first."""
        if self._rejected is not None:
            rejected, self._rejected = self._rejected, None
            return rejected
        if self.answers_due or self.state is ServerState.CLOSED:
            return None
        if self._chunk is not None:
            return self._read_chunk(self._chunk)
        if self.state is ServerState.DATA:
            return self._read_data()
        if self.state is ServerState.CONNECTED:
            return self._read_command(Connect())
        if self.state is ServerState.HANDSHAKE:
            return self._dismiss(None) if self._at < len(self._buffer) else None
        return self._read_line() if self._at < len(self._buffer) else None

    def answer(self, reply: Reply) -> None:
        """Reply to the command that was given last."""
        if not self.answers_due:
            raise LocalError("nothing is to be answered")
        command = self._command
        if self._at < len(self._buffer) and self._talks_early(command):
            self.answers_due = 0
            self._rejected = self._dismiss(command)
            return
        self.answers_due -= 1
        octets = encoded(reply)
        if not octets.isascii() and not self._reads_utf8(command):
            octets = octets.decode().encode("ascii", "replace")
        self._output.append(octets)
        if reply.code == 421:  # RFC 5321 3.8
            self._enter(ServerState.CLOSED)
        elif not self.answers_due:
            self._move(command, reply)

    def _reads_utf8(self, command: Command) -> bool:
        """Whether the client takes text in UTF-8: only who said SMTPUTF8 in MAIL does (RFC 6531 3.7.4.2)."""
        mail = command if isinstance(command, Mail) else self.mail
        return mail is not None and mail.smtputf8

    def take_output(self) -> bytes:
        """The bytes to write now; empty if there are none."""
        output = self._output
        if len(output) == 1:
            return output.pop()
        self._output = []
        return b"".join(output)

    def tls_established(self, offer: Capabilities) -> None:
        """The handshake is done: the client has to introduce itself again (RFC 3207 4.2), and is offered `offer`."""
        if self.state is not ServerState.HANDSHAKE:
            raise LocalError(f"no TLS handshake is due: {self.state.value}")
        self._begin(offer, secure=True)
        self._enter(ServerState.FRESH)

    def leave(self, reply: Reply) -> None:
        """End the session whatever its state, with a 421 as the last word (RFC 5321 3.8)."""
        if self.state is not ServerState.CLOSED:
            self._output.append(encoded(reply))
            self._enter(ServerState.CLOSED)

    @property
    def is_full(self) -> bool:
        """True if no more should be read until `next_event` has run dry."""
        return len(self._buffer) - self._at >= MAX_BACKLOG

    @property
    def protocol(self) -> str:
        """The word for the `with` of a Received field (RFC 3848, RFC 6531 3.7.3)."""
        if self.lmtp:
            word = "LMTP"
        else:
            word = "SMTP" if self.extensions is NO_CAPABILITIES else "ESMTP"
        if self.mail is not None and self.mail.smtputf8:
            word = "UTF8" + word.removeprefix("E")
        return word + "S" * self.is_secure + "A" * self.is_authenticated

    # States -----------------------------------------------------------------------------------------------------------

    def _move(self, command: Command, reply: Reply) -> None:
        """The one place where a reply moves the state."""
        digit = reply.code // 100
        kind = type(command)
        if digit == 3 and kind in (Auth, AuthResponse):
            self._enter(ServerState.CHALLENGE)
        elif digit == (3 if kind is Data else 2):
            self._granted(command)
            last = type(command) is Bdat and command.last
            self._enter(ServerState.READY if last else ON_CONSENT[kind][self.state])
        else:
            self._enter(ON_REFUSAL.get(kind, self.state))

    def _granted(self, command: Command) -> None:
        match command:
            case Mail():
                self.mail = command
                self._transactions += 1
            case Rcpt():
                self.recipients.append(command)
            case Data():
                self._decoder = DataDecoder(self.offer.max_size)
            case EndOfData() | Bdat(last=True):
                self._commands = 0
            case Ehlo() | Lhlo() | Helo():
                self.client_name = command.name
                self.extensions = NO_CAPABILITIES if isinstance(command, Helo) else self.offer
            case Auth() | AuthResponse():
                self.is_authenticated = True
            case _:
                pass

    def _enter(self, state: ServerState) -> None:
        self.state = state
        if state not in IN_TRANSACTION:
            self._end_transaction()
        if state is ServerState.CLOSED:
            self._buffer = b""
            self._at = self.answers_due = 0

    def _end_transaction(self) -> None:
        self.mail = None
        self.asked = self._content_size = 0
        if self.recipients:
            self.recipients = []

    def _ask(self, command: Command, answers: int = 1) -> Event:
        self._command = command
        self.answers_due = answers
        return command

    def _talks_early(self, command: Command) -> bool:
        """True if what stands behind the command cannot be there yet."""
        if type(command) not in ENDS_GROUP:
            return False
        return self.limits.strict_groups or isinstance(command, StartTLS)  # RFC 3207 6: never there

    def _dismiss(self, command: Command | None) -> Rejected:
        return self._farewell(command, 554, "5.5.0", "You sent commands before my reply; good bye")

    # Refusals ---------------------------------------------------------------------------------------------------------

    def _refuse_early(self, command: Command, reply: Reply) -> Rejected:
        """Refuse a command by the protocol; before EHLO that is the end, but for another way to say EHLO."""
        if self.state is ServerState.FRESH and not isinstance(command, Ehlo | Helo | Lhlo):
            self.leave(_NOT_INTRODUCED)
            return Rejected(command, _NOT_INTRODUCED)
        return self._refuse(command, reply)

    def _refuse(self, command: Command, reply: Reply) -> Rejected:
        self._output.append(encoded(reply))
        return Rejected(command, reply)

    def _refuse_line(self, error: CommandError, line: bytes) -> Rejected:
        said = "AUTH" if self.state is ServerState.CHALLENGE else shown(line)
        if isinstance(error, ForeignProtocol):
            return self._part(error.reply, said)
        if self.state is ServerState.FRESH and line and said.partition(" ")[0].upper() not in ANY_TIME:
            return self._part(_NOT_INTRODUCED, said)
        if self.state is ServerState.CHALLENGE:
            self._enter(ServerState.READY)  # RFC 4954 4: the exchange has failed
        self._errors += 1
        if self._errors > self.limits.max_errors:
            return self._part(_TOO_MANY_ERRORS, said)
        self._output.append(encoded(error.reply))
        return Rejected(None, error.reply, said)

    def _part(self, reply: Reply, said: str) -> Rejected:
        self.leave(reply)
        return Rejected(None, reply, said)

    def _farewell(self, command: Command | None, code: int, enhanced: str, text: str) -> Rejected:
        reply = Reply.make(code, enhanced, text)
        self.leave(reply)
        return Rejected(command, reply)

    # Lines ------------------------------------------------------------------------------------------------------------

    def _read_line(self) -> Event | None:
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\n", at) + 1
        limit = MAX_AUTH_LINE if self.offer.auth else MAX_LINE
        if not end:
            if len(buffer) - at >= limit:
                self._overlong = True
                self._buffer, self._at = b"", 0
            return None
        self._at = end
        if self._overlong or end - at > limit:
            self._overlong = False
            return self._refuse_line(CommandError(500, "5.5.2", "Line too long"), _TOO_LONG)
        line = buffer[at : end - 2]
        if end - at < 2 or buffer[end - 2 : end] != b"\r\n":  # the CR may be the last octet of a chunk before it
            # Whoever ends lines there sees other commands than we do.
            return self._refuse_line(CommandError(500, "5.5.2", "Line ends in a bare LF"), buffer[at : end - 1])
        try:
            command = (
                parse_auth_response(line) if self.state is ServerState.CHALLENGE else parse_command(line, self._origin)
            )
        except CommandError as error:
            if line[:4].upper() == b"BDAT" and self.state is not ServerState.FRESH:
                # How many octets of content follow, before the next command, nobody knows.
                return self._farewell(None, error.code, error.enhanced, error.public)
            return self._refuse_line(error, line)
        return self._read_command(command)

    def _read_command(self, command: Command) -> Event | None:
        if type(command) is Bdat:
            return self._begin_chunk(command)
        if self._at < len(self._buffer) and self._talks_early(command):
            return self._dismiss(command)
        refusal = protocol_refusal(self, command)
        if refusal is None and type(command) is Rcpt:
            self.asked += 1
            return self._ask(command)
        self._commands += 1
        if self._commands > self.limits.max_commands:
            return self._farewell(command, 421, "4.7.0", "Too many commands without a message; good bye")
        if refusal is not None:
            return self._refuse_early(command, refusal)
        most = self.offer.max_transactions
        if most is not None and self._transactions >= most and isinstance(command, Mail):  # RFC 9422 4.1
            return self._farewell(command, 421, "4.7.0", "Too many messages on this connection; good bye")
        return self._ask(command)

    # Content ----------------------------------------------------------------------------------------------------------

    def _read_data(self) -> Event | None:
        decoder = self._decoder
        if not decoder.ended:
            if self._at >= len(self._buffer):
                return None
            content = decoder.feed(self._buffer[self._at :])
            self._buffer, self._at = decoder.trailing, 0
            if content:
                return ContentChunk(content)
            if not decoder.ended:
                return None
        command = EndOfData(len(self.recipients) if self.lmtp else 1)
        if decoder.dubious:
            return self._fail_content(command, dubious_end(decoder.dubious), command.replies)
        if decoder.is_oversize:
            return self._fail_content(command, too_large(self.offer), command.replies)
        return self._ask(command, command.replies)

    def _begin_chunk(self, command: Bdat) -> Event | None:
        if self.state is ServerState.FRESH:
            return self._refuse_early(command, _NOT_INTRODUCED)
        self._commands += not command.size
        if self._commands > self.limits.max_commands:
            return self._farewell(command, 421, "4.7.0", "Too many chunks without content; good bye")
        self._chunk = command
        self._chunk_left = command.size
        self._fault = chunk_refusal(self)
        if self._fault is None:
            if not self._content_size:
                self._inspector = ChunkInspector()
            self._content_size += command.size
            if self.offer.max_size is not None and self._content_size > self.offer.max_size:
                self._fault = too_large(self.offer)
        return self._read_chunk(command)

    def _read_chunk(self, command: Bdat) -> Event | None:
        if self._chunk_left:
            octets = self._buffer[self._at : self._at + self._chunk_left]
            self._at += len(octets)
            self._chunk_left -= len(octets)
            if octets and self._fault is None:
                self._inspector.feed(octets)
                if not self._inspector.dubious:
                    return ContentChunk(octets)
                self._fault = dubious_end(self._inspector.dubious)
            if self._chunk_left:
                return None
        self._chunk = None
        answers = len(self.recipients) if self.lmtp and command.last else 1
        if self._fault is None:
            return self._ask(command, answers)
        if self.state in ON_CONSENT[Bdat]:
            return self._fail_content(command, self._fault, answers)
        return self._refuse(command, self._fault)

    def _fail_content(self, command: Command, reply: Reply, answers: int) -> Rejected:
        self._output.extend([encoded(reply)] * answers)  # RFC 2033 4.2: one for each recipient
        refused = Rejected(command, reply, mail=self.mail, recipients=self.recipients)
        self._enter(ServerState.READY)
        return refused
