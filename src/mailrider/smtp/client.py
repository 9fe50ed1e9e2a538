"""The client's side of an SMTP session, sans I/O (RFC 5321, 2920, 3030, 3207, 4954; LMTP: RFC 2033).

Two verbs: `send(command)` gives the bytes to write, `receive(data)` gives the replies that arrived, each with the
command that it answers. The machine pairs them, and knows when which command may be sent; it judges no mail.

Two rules that every change must keep:

1. *A reply is believed only where one is due.* A reply that nothing asked for is a violation, save a 421, with which
   a server may take its leave at any time (RFC 5321 3.8; some say 221, which counts as 421 in place of a reply), and a
   refusal in the middle of the content. A reply that its command cannot have, or that nothing asked for, means that
   the session is out of step: which reply answers what is not known any more.
2. *Nothing said in clear outlives STARTTLS.* Bytes behind the 220 are an attack (RFC 3207 6), and the capabilities
   are forgotten (RFC 3207 4.2).

Theory of operation. Commands wait in a queue for their replies. With PIPELINING several may wait, but some must be the
last of a group, because what comes next depends on their reply (RFC 2920 3.1): these are *barriers*. A reply moves the
state where the table `_RULES` says so, and else to READY:

    CONNECTED --greeting--> READY --DATA/354--> CONTENT --EndOfData--> READY
                              |---AUTH/334----> CHALLENGE --AuthResponse--> READY or CHALLENGE
                              |---STARTTLS/220--> HANDSHAKE --tls_established()--> READY
                              '---QUIT, 421----> CLOSED

After a violation the state is BROKEN and stays so.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Final, NamedTuple

from mailrider.errors import LocalError, PeerError
from mailrider.model.reply import Reply
from mailrider.smtp.capabilities import NO_CAPABILITIES, Capabilities, parse_capabilities
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
    Quit,
    StartTLS,
)
from mailrider.smtp.replies import MAX_WORDS, ReplyParser, ReplyViolation, Tolerance


class ClientState(enum.Enum):
    """What the client may do next."""

    CONNECTED = "connected: the greeting is awaited"
    READY = "ready for a command"
    CONTENT = "sending content"
    CHALLENGE = "answering an AUTH challenge"
    HANDSHAKE = "the TLS handshake is due"
    CLOSED = "no further command: the server takes its leave"
    BROKEN = "the server broke the protocol"


# A member of an enumeration costs as much as a call each time that it is looked up; these are asked for at each reply.
_READY: Final = ClientState.READY
_CONTENT: Final = ClientState.CONTENT
_HANDSHAKE: Final = ClientState.HANDSHAKE
_CLOSED: Final = ClientState.CLOSED
_BROKEN: Final = ClientState.BROKEN
_NONE: Final = Tolerance.NONE
_FRAMING: Final = Tolerance.FRAMING


class InjectedPlaintext(PeerError):
    """Bytes behind the 220 to STARTTLS, sent in clear: somebody tries to smuggle text into the secured session."""

    enhanced = "4.7.5"


class OutOfStep(ReplyViolation):
    """A reply that is not one to the command whose turn it was: replies and commands no longer belong together."""


class AnsweredCommand(NamedTuple):
    """A reply, and the command that it answers; None for a 421 that answers nothing."""

    command: Command | None
    reply: Reply


class _Rule(NamedTuple):
    """What a kind of command means for the session.

    `needs`: the state that allows it. `is_barrier`: nothing may be sent behind it before its reply is read. `success`
    and `consent`: the states that 2xx and 3xx lead to, None where such a reply makes no sense; all others lead to
    READY. `is_hello`: its reply tells what the server offers. `tolerance`: how strictly its reply is read, and what
    comes behind it until the next command.
    """

    needs: ClientState = ClientState.READY
    is_barrier: bool = True
    success: ClientState | None = ClientState.READY
    consent: ClientState | None = None
    is_hello: bool = False
    tolerance: Tolerance = Tolerance.NONE


_CLOSING = 221  # RFC 5321 4.2.3: the server closes the connection
_ORDINARY = _Rule(is_barrier=False)
_RULES: dict[type[Command], _Rule] = {
    Ehlo: _Rule(is_hello=True, tolerance=Tolerance.WORDS),
    Lhlo: _Rule(is_hello=True, tolerance=Tolerance.WORDS),
    Helo: _Rule(is_hello=True, tolerance=Tolerance.WORDS),
    StartTLS: _Rule(success=ClientState.HANDSHAKE),
    # DATA is consented to by 3xx alone (RFC 5321 4.3.2).
    Data: _Rule(success=None, consent=ClientState.CONTENT),
    EndOfData: _Rule(needs=ClientState.CONTENT, tolerance=Tolerance.FRAMING),
    Auth: _Rule(consent=ClientState.CHALLENGE, tolerance=Tolerance.WORDS),
    AuthResponse: _Rule(needs=ClientState.CHALLENGE, consent=ClientState.CHALLENGE, tolerance=Tolerance.WORDS),
    Quit: _Rule(success=ClientState.CLOSED),
}


_NAMES: dict[type[Command], str] = {Connect: "the connection", EndOfData: "the final dot"}


class ClientMachine:
    """One session. `capabilities` are those of the latest EHLO, LHLO or HELO, in this security layer."""

    __slots__ = ("_parser", "_waiting", "capabilities", "outstanding", "state", "violation")

    def __init__(self) -> None:
        self._parser = ReplyParser()
        self._parser.tolerance = Tolerance.WORDS
        self._waiting: deque[Command] = deque([Connect()])
        self.outstanding = 1
        """How many replies are still due."""
        self.state = ClientState.CONNECTED
        self.capabilities: Capabilities = NO_CAPABILITIES
        self.violation: PeerError | None = None

    def send(self, *commands: Command) -> bytes:
        """The bytes that send `commands`, as one group. Raises `LocalError` if the protocol does not allow them now."""
        last_rule = self._check_allowed(commands)
        waiting = self._waiting
        octets = b""
        for command in commands:
            if type(command) is EndOfData:
                waiting.extend((command,) * command.replies)
            else:
                waiting.append(command)
            octets += command.encode()
        self.outstanding = len(waiting)
        last, parser = commands[-1], self._parser
        parser.tolerance = _FRAMING if type(last) is Bdat and last.last else last_rule.tolerance
        parser.skipped = ""
        return octets

    def end(self) -> list[AnsweredCommand]:
        """Nothing more comes. The answer that was not ended, if it is the one to a message and its code is legible."""
        reply = self._parser.end() if self._waiting and self.state is not _BROKEN else None
        if reply is None or 300 <= reply.code < 400:
            return []
        return [self._take(reply)]

    def _check_allowed(self, commands: tuple[Command, ...]) -> _Rule:
        """Raises `LocalError` if they are not; gives the rule of the last one."""
        before, state = self._waiting[-1] if self._waiting else None, self.state
        rule = _ORDINARY if before is None else _RULES.get(type(before), _ORDINARY)
        for command in commands:
            follows_barrier, rule = rule.is_barrier, _RULES.get(type(command), _ORDINARY)
            if state is not rule.needs:
                raise LocalError(f"{type(command).__name__} cannot be sent now: {state.value}")
            if before is not None:
                if not self.capabilities.pipelining:
                    raise LocalError("a command is still unanswered, and the server does not offer PIPELINING")
                if follows_barrier:
                    raise LocalError(f"nothing may follow {type(before).__name__} before its reply")
            before = command
        return rule

    def receive(self, data: bytes) -> list[AnsweredCommand]:
        """The answers that `data` completes.

        A violation does not undo the good replies before it: it is kept in `violation`, the state is BROKEN, and
        whatever comes later is not looked at.
        """
        answers: list[AnsweredCommand] = []
        if self.state is _BROKEN or not data:
            return answers
        try:
            parser = self._parser
            if self.state is _HANDSHAKE:
                raise InjectedPlaintext("the server sent bytes in clear behind its 220 to STARTTLS")
            for reply in parser.receive(data):
                answers.append(self._take(reply))  # noqa: PERF401 (the answers before a violation count)
            if not self._waiting and self.capabilities.pipelining:
                parser.tolerance = _NONE  # of what came behind EHLO's reply, and not in one piece with it
            # RFC 3207 6: the buffer must be empty when TLS begins.
            if self._awaits_handshake and not parser.is_empty:
                raise InjectedPlaintext("the server sent bytes in clear behind its 220 to STARTTLS")
        except PeerError as error:
            self.violation = error
            self.state = _BROKEN
        return answers

    @property
    def skipped_words(self) -> str:
        """What the server said, since something was sent to it, that was no reply and was skipped; empty if nothing."""
        return self._parser.skipped

    @property
    def _awaits_handshake(self) -> bool:
        return self.state is _HANDSHAKE

    def _take(self, reply: Reply) -> AnsweredCommand:
        if self.state is _HANDSHAKE:
            raise InjectedPlaintext("the server sent a reply in clear behind its 220 to STARTTLS")
        if not self._waiting:
            return self._take_unasked(reply)
        command = self._waiting.popleft()
        self.outstanding -= 1
        rule, code = _RULES.get(type(command), _ORDINARY), reply.code
        if code == _CLOSING and rule is _ORDINARY and type(command) is not Bdat:
            # An idle connection was being closed when the command came; 221 is an answer to nothing but QUIT.
            reply, code = Reply(421, None, reply.lines), 421
        state = rule.success if code < 300 else rule.consent if code < 400 else _READY
        if state is None:
            raise OutOfStep(f"{str(reply)[:MAX_WORDS]} is no answer to {_named(command)}")
        if rule.is_hello:
            self.capabilities = _capabilities_after(command, reply)
        if code == 421:
            self.state = _CLOSED
        elif self.state is not _CLOSED:
            self.state = state
        if not self._waiting and self._parser.tolerance is _FRAMING:
            # The message has its reply. Who frames that in a way of its own is not asked for anything else.
            self._parser.tolerance = _NONE
            if self._parser.is_irregular:
                self.state = _CLOSED
        return AnsweredCommand(command, reply)

    def _take_unasked(self, reply: Reply) -> AnsweredCommand:
        if self.state is _CONTENT and reply.code >= 400:
            # Too large, or out of disk: the server does not wait for the end. It takes its consent to DATA back.
            self.state = _CLOSED
            return AnsweredCommand(Data(), reply)
        if reply.code != 421 or self.state is _CLOSED:
            # One farewell is enough: whoever says it for ever wants our memory.
            raise OutOfStep(f"a reply that nothing asked for: {str(reply)[:MAX_WORDS]}")
        self.state = _CLOSED
        return AnsweredCommand(None, reply)

    def tls_established(self) -> None:
        """The handshake is done: the session begins anew, without a greeting (RFC 3207 4.2)."""
        if self.state is not _HANDSHAKE:
            raise LocalError(f"no handshake is due: {self.state.value}")
        self.capabilities = NO_CAPABILITIES
        self.state = _READY


def _named(command: Command) -> str:
    """What was answered, in the words of SMTP."""
    kind = type(command)
    return _NAMES.get(kind) or kind.__name__.upper()


def _capabilities_after(command: Command, reply: Reply) -> Capabilities:
    if not reply.is_positive or isinstance(command, Helo):
        return NO_CAPABILITIES
    return parse_capabilities(reply)
