"""The states of a server's session, and every transition between them (RFC 5321 4.1.4, 2920, 3030, 3207, 4954).

Two rules for this file: all transitions stand in its tables, and only `ServerMachine._move` applies them.

Theory of operation. The state says which commands may come. A reply moves it: `ON_CONSENT` for a reply that grants
what was asked for (2xx, for DATA 3xx), `ON_REFUSAL` for any other; what has no entry there moves nothing. A command
that the state does not allow is answered 503 and never reaches the application; in FRESH it ends the session.

    CONNECTED --greeting--> FRESH --EHLO--> READY --MAIL--> MAIL --RCPT--> RCPT --DATA--> DATA --EndOfData--> READY
                                              |                              '---BDAT--> CHUNKS --BDAT LAST--> READY
                                              |--AUTH/334--> CHALLENGE --AuthResponse--> READY or CHALLENGE
                                              '--STARTTLS/220--> HANDSHAKE --tls_established()--> FRESH

EHLO (again) and RSET end a transaction and lead back to READY. NOOP, HELP and VRFY move nothing. A 421 to anything, and
QUIT, lead to CLOSED, which is the end. A greeting of 5xx leaves nothing but QUIT.

BDAT's octets follow the command whatever the state and the answer (RFC 3030 2), so they are always taken, and dropped
where they have no place.

Some commands end a group of pipelined ones, because their reply decides what comes next (`ENDS_GROUP`). What stands
behind one of them before it is answered was sent by somebody who talks to nobody: an HTTP client, a bot, or one who
injects text in front of STARTTLS. The session ends there.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.model.reply import Reply
    from mailrider.smtp.capabilities import Capabilities


class ServerState(enum.Enum):
    """Which commands may come; the words follow "... is out of order:" in a reply."""

    CONNECTED = "wait for the greeting"
    REFUSING = "only QUIT is accepted"
    FRESH = "introduce yourself first"
    READY = "there is no transaction"
    MAIL = "the transaction has no recipient"
    RCPT = "there is a transaction already"
    DATA = "content is awaited"
    CHUNKS = "further chunks of the message are awaited"
    CHALLENGE = "the AUTH exchange is not finished"
    HANDSHAKE = "the TLS handshake is due"
    CLOSED = "the session is over"

    __hash__ = object.__hash__  # that of Enum is written in Python, and asked for at each step


@dataclass(slots=True)
class ContentChunk:
    """Some octets of the message, as they were before dot-stuffing; bare line ends are not mended."""

    octets: bytes


@dataclass(slots=True)
class Rejected:
    """What the machine has refused by itself, and how. `command` None: a line that is none; `said` is for the log.

    A refused message has the `mail` and `recipients` of its transaction, which is over then.
    """

    command: Command | None
    reply: Reply
    said: str = ""
    mail: Mail | None = None
    recipients: Sequence[Rcpt] = ()


Event = Command | ContentChunk | Rejected


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may cost us.

    `max_recipients`: RCPTs in a transaction, where the offer names no RCPTMAX. `max_errors`: lines that make no sense.
    `max_commands`: commands since a message was accepted, but for the RCPTs of an open transaction. `strict_groups`:
    who does not wait for the reply that ends a group of commands is sent away.
    """

    max_recipients: int = 1000  # RFC 5321 4.5.3.1.8 asks for at least 100
    max_errors: int = 20
    max_commands: int = 5000  # a refused MAIL may have thousands of pipelined RCPTs behind it
    strict_groups: bool = True


class ServerDialogue(Protocol):
    """What replies depend on: where the dialogue with a client stands."""

    lmtp: bool
    limits: Limits
    state: ServerState
    mail: Mail | None
    asked: int
    is_authenticated: bool

    @property
    def recipients(self) -> Sequence[Rcpt]: ...
    @property
    def offer(self) -> Capabilities: ...
    @property
    def extensions(self) -> Capabilities: ...


_COMMANDS = (ServerState.FRESH, ServerState.READY, ServerState.MAIL, ServerState.RCPT, ServerState.CHUNKS)

# In these a transaction is open.
IN_TRANSACTION: Final = frozenset({ServerState.MAIL, ServerState.RCPT, ServerState.DATA, ServerState.CHUNKS})

# command -> state that allows it -> state once it is granted.
ON_CONSENT: Final[dict[type[Command], dict[ServerState, ServerState]]] = {
    Connect: {ServerState.CONNECTED: ServerState.FRESH},
    Ehlo: dict.fromkeys(_COMMANDS, ServerState.READY),
    Lhlo: dict.fromkeys(_COMMANDS, ServerState.READY),
    Helo: dict.fromkeys(_COMMANDS, ServerState.READY),
    StartTLS: {ServerState.READY: ServerState.HANDSHAKE},
    Auth: {ServerState.READY: ServerState.READY},
    AuthResponse: {ServerState.CHALLENGE: ServerState.READY},
    Mail: {ServerState.READY: ServerState.MAIL},
    Rcpt: {ServerState.MAIL: ServerState.RCPT, ServerState.RCPT: ServerState.RCPT},
    # RFC 2920 3.1: DATA behind nothing but refused RCPTs may be granted; then its end is refused.
    Data: {ServerState.MAIL: ServerState.DATA, ServerState.RCPT: ServerState.DATA},
    EndOfData: {ServerState.DATA: ServerState.READY},
    Bdat: {ServerState.RCPT: ServerState.CHUNKS, ServerState.CHUNKS: ServerState.CHUNKS},  # but LAST: READY
    Rset: {**dict.fromkeys(_COMMANDS, ServerState.READY), ServerState.FRESH: ServerState.FRESH},
    Noop: {state: state for state in _COMMANDS},
    Help: {state: state for state in _COMMANDS},
    Vrfy: {state: state for state in _COMMANDS},
    Quit: dict.fromkeys((*_COMMANDS, ServerState.REFUSING), ServerState.CLOSED),
}

ON_REFUSAL: Final[dict[type[Command], ServerState]] = {
    Connect: ServerState.REFUSING,  # RFC 5321 3.1
    AuthResponse: ServerState.READY,  # RFC 4954 4
    EndOfData: ServerState.READY,
    Bdat: ServerState.READY,  # RFC 3030 2: the message has failed
}

# RFC 5321 4.1.4: what may come before the client has introduced itself. Whoever says anything else first is no SMTP
# client, but a browser that a web page has sent here, for example; the session ends before its lines get better.
ANY_TIME: Final = frozenset({"EHLO", "HELO", "LHLO", "NOOP", "HELP", "EXPN", "VRFY", "RSET", "QUIT"})

# RFC 2920 3.1; AUTH: RFC 4954 4; the greeting: RFC 5321 3.1.
ENDS_GROUP: Final = frozenset({Connect, Ehlo, Helo, Lhlo, StartTLS, Data, Auth, AuthResponse})
