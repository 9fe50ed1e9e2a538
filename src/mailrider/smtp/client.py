"""The client's side of an SMTP session, sans I/O (RFC 5321, 2920, 3030, 3207, 4954; LMTP: RFC 2033).

Two verbs: `send(command)` gives the bytes to write, `receive(data)` gives the replies that arrived, each with the
command that it answers. The machine pairs them, and knows when which command may be sent; it judges no mail.

Two rules that every change must keep:

1. *A reply is believed only where one is due.* A reply that nothing asked for is a violation, save a 421, with which
   a server may take its leave at any time (RFC 5321 3.8), and a refusal in the middle of the content.
2. *Nothing said in clear outlives STARTTLS.* Bytes behind the 220 are an attack (RFC 3207 6), and the capabilities
   are forgotten (RFC 3207 4.2).

Theory of operation. Commands wait in a queue for their replies. With PIPELINING several may wait, but some must be the
last of a group, because what comes next depends on their reply (RFC 2920 3.1): these are *barriers*. A reply moves the
state only where the table `_AFTER` says so:

    CONNECTED --greeting--> READY --DATA/354--> CONTENT --EndOfData--> READY
                              |---AUTH/334----> CHALLENGE --AuthResponse--> READY or CHALLENGE
                              |---STARTTLS/220--> HANDSHAKE --tls_established()--> READY
                              '---QUIT, 421----> CLOSED

After a violation the state is BROKEN and stays so.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from mailrider.errors import LocalError, PeerError
from mailrider.smtp.capabilities import NO_CAPABILITIES, Capabilities, parse_capabilities
from mailrider.smtp.commands import (
    Auth,
    AuthResponse,
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
from mailrider.smtp.replies import ReplyParser, ReplyViolation

if TYPE_CHECKING:
    from mailrider.model.reply import Reply


class State(enum.Enum):
    """What the client may do next."""

    CONNECTED = "connected: the greeting is awaited"
    READY = "ready for a command"
    CONTENT = "sending content"
    CHALLENGE = "answering an AUTH challenge"
    HANDSHAKE = "the TLS handshake is due"
    CLOSED = "no further command: the server takes its leave"
    BROKEN = "the server broke the protocol"


class InjectedPlaintext(PeerError):
    """Bytes behind the 220 to STARTTLS, sent in clear: somebody tries to smuggle text into the secured session."""

    enhanced = "4.7.5"


class Answer(NamedTuple):
    """A reply, and the command that it answers; None for a 421 that answers nothing."""

    command: Command | None
    reply: Reply


# Nothing may be sent behind these before their reply is read.
_BARRIERS = (Ehlo, Helo, Lhlo, StartTLS, Data, EndOfData, Auth, AuthResponse, Quit)

# These tell what the server offers; these may be answered by a challenge.
_HELLOS = (Ehlo, Lhlo, Helo)
_EXCHANGES = (Auth, AuthResponse)

# Which states allow a command; all that are not named need READY.
_ALLOWED: dict[type[Command], State] = {EndOfData: State.CONTENT, AuthResponse: State.CHALLENGE}

# (command, first digit of its reply) -> state; what is not here leads to READY.
_AFTER: dict[tuple[type[Command], int], State] = {
    (Data, 3): State.CONTENT,
    (Auth, 3): State.CHALLENGE,
    (AuthResponse, 3): State.CHALLENGE,
    (StartTLS, 2): State.HANDSHAKE,
    (Quit, 2): State.CLOSED,
}


class ClientMachine:
    """One session. `capabilities` are those of the latest EHLO, LHLO or HELO, in this security layer."""

    __slots__ = ("_parser", "_waiting", "capabilities", "state", "violation")

    def __init__(self) -> None:
        self._parser = ReplyParser()
        self._waiting: deque[Command] = deque([Connect()])
        self.state = State.CONNECTED
        self.capabilities: Capabilities = NO_CAPABILITIES
        self.violation: PeerError | None = None

    @property
    def outstanding(self) -> int:
        """How many replies are still due."""
        return len(self._waiting)

    def send(self, *commands: Command) -> bytes:
        """The bytes that send `commands`, as one group. Raises `LocalError` if the protocol does not allow them now."""
        before = self._waiting[-1] if self._waiting else None
        for command in commands:
            self._check_allowed(command, before)
            before = command
        for command in commands:
            if isinstance(command, EndOfData):
                self._waiting.extend((command,) * command.replies)
            else:
                self._waiting.append(command)
        return b"".join([command.encode() for command in commands])

    def _check_allowed(self, command: Command, before: Command | None) -> None:
        if self.state is not _ALLOWED.get(type(command), State.READY):
            raise LocalError(f"{type(command).__name__} cannot be sent now: {self.state.value}")
        if before is None:
            return
        if not self.capabilities.pipelining:
            raise LocalError("a command is still unanswered, and the server does not offer PIPELINING")
        if isinstance(before, _BARRIERS):
            raise LocalError(f"nothing may follow {type(before).__name__} before its reply")

    def receive(self, data: bytes) -> list[Answer]:
        """The answers that `data` completes.

        A violation does not undo the good replies before it: it is kept in `violation`, the state is BROKEN, and
        whatever comes later is not looked at.
        """
        answers: list[Answer] = []
        if self.state is State.BROKEN or not data:
            return answers
        try:
            if self._awaits_handshake:
                raise InjectedPlaintext("the server sent bytes in clear behind its 220 to STARTTLS")
            for reply in self._parser.receive(data):
                answers.append(self._take(reply))  # noqa: PERF401 (the answers before a violation count)
            # RFC 3207 6: the buffer must be empty when TLS begins.
            if self._awaits_handshake and not self._parser.is_empty:
                raise InjectedPlaintext("the server sent bytes in clear behind its 220 to STARTTLS")
        except PeerError as error:
            self.violation = error
            self.state = State.BROKEN
        return answers

    @property
    def _awaits_handshake(self) -> bool:
        return self.state is State.HANDSHAKE

    def _take(self, reply: Reply) -> Answer:
        if self.state is State.HANDSHAKE:
            raise InjectedPlaintext("the server sent a reply in clear behind its 220 to STARTTLS")
        if not self._waiting:
            return self._take_unasked(reply)
        command = self._waiting.popleft()
        self._check_sense(command, reply)
        if isinstance(command, _HELLOS):
            self.capabilities = _capabilities_after(command, reply)
        if reply.code == 421:
            self.state = State.CLOSED
        elif self.state is not State.CLOSED:
            self.state = _AFTER.get((type(command), reply.code // 100), State.READY)
        return Answer(command, reply)

    def _take_unasked(self, reply: Reply) -> Answer:
        if self.state is State.CONTENT and reply.code >= 400:
            # Too large, or out of disk: the server does not wait for the end. It takes its consent to DATA back.
            self.state = State.CLOSED
            return Answer(Data(), reply)
        if reply.code != 421 or self.state is State.CLOSED:
            # One farewell is enough: whoever says it for ever wants our memory.
            raise ReplyViolation(f"a reply that nothing asked for: {str(reply)[:80]}")
        self.state = State.CLOSED
        return Answer(None, reply)

    def _check_sense(self, command: Command, reply: Reply) -> None:
        """3xx only where there is an intermediate step; DATA is consented to by 3xx alone (RFC 5321 4.3.2)."""
        digit = reply.code // 100
        wrong = digit == 2 if isinstance(command, Data) else digit == 3 and not isinstance(command, _EXCHANGES)
        if wrong:
            raise ReplyViolation(f"{reply.code} is no answer to {type(command).__name__}")

    def tls_established(self) -> None:
        """The handshake is done: the session begins anew, without a greeting (RFC 3207 4.2)."""
        if self.state is not State.HANDSHAKE:
            raise LocalError(f"no handshake is due: {self.state.value}")
        self.capabilities = NO_CAPABILITIES
        self.state = State.READY


def _capabilities_after(command: Command, reply: Reply) -> Capabilities:
    if not reply.is_positive or isinstance(command, Helo):
        return NO_CAPABILITIES
    return parse_capabilities(reply)
