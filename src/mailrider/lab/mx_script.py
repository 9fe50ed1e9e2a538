"""What an MX host of the lab says and does, as values; a script reads like a specification.

    MXScript()                                                    # takes everything, in clear
    MXScript(tls=MXTLS(ca.issue(["mx.good.test"])))               # offers STARTTLS
    MXScript(replies={Stage.MAIL: "451 4.7.1 Greylisted"})        # always
    MXScript(replies={Stage.CONNECT: [Close()]})                  # the first time, then as usual
    MXScript(recipients={"nobody@good.test": "550 5.1.1 Nobody"})
    MXScript(replies={Stage.END: Close("250 2.0.0 Ok")})          # a reply, then the end
    MXScript(content=Stall(), content_after=100_000)              # stops reading in the middle

What happens at a stage is an `Action`: a reply as text (or as `Reply`), a fault, or None for what is usual. A *step* is
an action for each time, a list of them (and as usual when it is used up; counted over all connections), or a function
of the command.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from mailrider.model.reply import Reply
from mailrider.smtp import commands
from mailrider.smtp.capabilities import FULL_OFFER
from mailrider.smtp.commands import Bdat, Command
from mailrider.smtp.server_states import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.lab.ca import LabCertificate
    from mailrider.smtp.capabilities import Capabilities


class Stage(enum.Enum):
    """The moments at which a host says something."""

    CONNECT = commands.Connect
    EHLO = commands.Ehlo
    EHLO_IN_TLS = "EHLO in TLS"  # where a script has no entry for it, that of EHLO counts
    HELO = commands.Helo
    LHLO = commands.Lhlo
    STARTTLS = commands.StartTLS
    AUTH = commands.Auth
    AUTH_RESPONSE = commands.AuthResponse
    MAIL = commands.Mail
    RCPT = commands.Rcpt
    DATA = commands.Data
    BDAT = commands.Bdat  # a chunk that is not the last
    END = commands.EndOfData  # the final dot, or the last chunk
    RSET = commands.Rset
    NOOP = commands.Noop
    VRFY = commands.Vrfy
    HELP = commands.Help
    QUIT = commands.Quit


def stage_of(command: Command) -> Stage:
    """The stage at which a command, EHLO in clear, is answered."""
    return Stage.END if isinstance(command, Bdat) and command.last else Stage(type(command))


# Actions --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection, with or without a last word. `abrupt`: without an orderly end of TLS."""

    reply: str = ""
    abrupt: bool = False


@dataclass(frozen=True, slots=True)
class Silence:
    """Say nothing more; what arrives is read and ignored."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Say nothing more, and read nothing more, so that not even the connection's end is noticed."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Write these octets, whatever they are, in place of the usual reply, and go on as if they had been it."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class ExtraOctets:
    """Write these octets, too, behind the reply and together with it. Behind the 220 to STARTTLS: an injection."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class SlowReply:
    """The reply (the usual one if there is none here), an octet at a time."""

    reply: str = ""
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class DelayedReply:
    """The reply (the usual one if there is none here), after some time."""

    seconds: float
    reply: str = ""


@dataclass(frozen=True, slots=True)
class EndlessOutput:
    """Write these octets again and again, until the client has had enough."""

    octets: bytes = b"250-and furthermore\r\n"


Action: TypeAlias = str | Reply | Close | Silence | Stall | Raw | ExtraOctets | SlowReply | DelayedReply | EndlessOutput
Step: TypeAlias = Action | Sequence[Action | None] | Callable[[Command], Action | None]

# Replies that are none (RFC 5321 4.2), for any stage.
MIXED_CODES = Raw(b"250-One thing\r\n550 and another\r\n")
BARE_LF = Raw(b"250 Ok\n")
NUL = Raw(b"250 O\0k\r\n")
OVERLONG = Raw(b"250 " + b"x" * 5000 + b"\r\n")
GARBAGE = Raw(b"\x16\x03\x01\x00\xff\xfe HTTP/1.1 400 Bad Request\r\n\r\n")
NO_REPLY_CODE = Raw(b"199 Almost\r\n")


def parse_reply(text: str) -> Reply:
    """A reply as a script has it: `550 5.1.1 Nobody`, further lines behind `\\n`, without their codes."""
    return Reply.from_lines(int(text[:3]), tuple(text[4:].split("\n")))


# TLS ------------------------------------------------------------------------------------------------------------------


class TLSFault(enum.StrEnum):
    """What a host does when the client begins the handshake."""

    GARBAGE = "garbage"
    """Answers with something that is not TLS."""
    ALERT = "alert"
    """Answers with a fatal alert."""
    CLOSE = "close"
    SILENCE = "silence"
    REJECTS_LATE = "rejects-late"
    """Demands a client certificate. In TLS 1.3 the client learns that it was rejected when it thinks all is done."""


@dataclass(frozen=True, slots=True)
class MXTLS:
    """How a host does TLS: what it shows, and `by_name` to those who ask for that name (SNI)."""

    certificate: LabCertificate | None = None  # None is good for faults that never show one
    by_name: Mapping[str, LabCertificate] = field(default_factory=dict)
    fault: TLSFault | None = None
    protocols: tuple[str, str] = ("tls1.2", "tls1.3")
    ciphers: tuple[str, ...] = ()
    implicit: bool = False
    """TLS at once, without STARTTLS (RFC 8314 3.3)."""
    client_ca: Path | None = None
    """Clients must show a certificate of these authorities (PEM)."""

    def __post_init__(self) -> None:
        if self.certificate is None and self.fault in (None, TLSFault.REJECTS_LATE):
            raise ValueError("TLS needs a certificate, unless it fails before one is shown")


class PortState(enum.Enum):
    """What happens to those who connect."""

    OPEN = "open"
    CLOSED = "closed"
    """Refused: nobody listens."""
    UNANSWERED = "unanswered"
    """Nothing at all, as behind a firewall; the client's own time-out ends it."""


# The script -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MXScript:
    """How a host behaves; where nothing is said it takes everything.

    `offer` is what EHLO announces, and what is held to: SIZE, RCPTMAX, MAILMAX, CHUNKING, SMTPUTF8 and so on.
    STARTTLS is offered where there is `tls`; REQUIRETLS and AUTH in TLS only, where there is any. `recipients` are
    steps for RCPT by address; `finals` the same for the end of data in LMTP. `content` happens once, when
    `content_after` octets of a message have come; a reply there is written at once, and the rest of what the client
    sends is ignored.
    """

    hostname: str = "mx.lab.test"
    offer: Capabilities = FULL_OFFER
    tls: MXTLS | None = None
    hides_starttls: bool = False
    replies: Mapping[Stage, Step] = field(default_factory=dict)
    recipients: Mapping[str, Step] = field(default_factory=dict)
    finals: Mapping[str, Step] = field(default_factory=dict)
    content: Action | None = None
    content_after: int = 0
    lmtp: bool = False
    limits: Limits = field(default_factory=Limits)

    def offered(self, *, secure: bool) -> Capabilities:
        """What is announced in clear, or in TLS."""
        if secure:
            return replace(self.offer, starttls=False)
        if self.tls is None:
            return self.offer
        return replace(self.offer, starttls=not self.hides_starttls, requiretls=False, auth=frozenset())
