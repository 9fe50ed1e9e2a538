"""SMTP commands as values (RFC 5321 4.1.1, and the extensions that add parameters).

Making a command validates it, so that no value here can carry a line end or an extra parameter onto the wire:
arguments are parsed values (`Mailbox`, `Domain`), and free text is refused unless it is printable. `encode` gives the
line with its CRLF. Client and server share these values.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.errors import InvalidValue
from mailrider.model.envelope import Notify, OriginalRecipient, Ret, check_envid
from mailrider.model.value import value

if TYPE_CHECKING:
    from mailrider.model.address import Mailbox, ReversePath
    from mailrider.model.domain import NextHop

_ARGUMENT = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_WORD = re.compile(r"[!-~]+")
_PRINTABLE = re.compile(r"[ -~]*")
_XTEXT_SPECIAL = re.compile(r"[^!-*,-<>-~]")
_UTF8_XTEXT_SPECIAL = re.compile(r"[^!-*,-<>-\[\]-~]")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_UTF8_ADDRESS_ESCAPE = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")


class Body(enum.Enum):
    """The BODY parameter of MAIL (RFC 6152)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"


def encode_xtext(text: str) -> str:
    """Printable ASCII in the form that parameters take (RFC 3461 4). Raises `InvalidValue` for all else."""
    if not _PRINTABLE.fullmatch(text):
        raise InvalidValue(f"xtext holds printable ASCII, not {text[:100]!r}")
    return _XTEXT_SPECIAL.sub(lambda match: f"+{ord(match[0]):02X}", text)


def decode_xtext(text: str) -> str:
    """The inverse of `encode_xtext`. Raises `InvalidValue` for what is no xtext or hides a control character."""
    if not _XTEXT.fullmatch(text):
        raise InvalidValue(f"not xtext: {text[:100]!r}")
    decoded = re.sub(r"\+([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), text)
    if not _PRINTABLE.fullmatch(decoded):
        raise InvalidValue(f"xtext hides a character that is not printable ASCII: {text[:100]!r}")
    return decoded


def encode_original_recipient(original: OriginalRecipient) -> str:
    """The value of ORCPT; type utf-8 in its 7-bit form, which any server may be given (RFC 6533 3)."""
    if original.address_type.lower() == "utf-8":
        address = _UTF8_XTEXT_SPECIAL.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", original.address)
    else:
        address = encode_xtext(original.address)
    return f"{original.address_type};{address}"


def decode_original_recipient(text: str) -> OriginalRecipient:
    """The inverse of `encode_original_recipient`; raw UTF-8 is taken as well. Raises `InvalidValue`."""
    address_type, semicolon, address = text.partition(";")
    if not semicolon:
        raise InvalidValue(f"ORCPT is TYPE;ADDRESS, not {text[:100]!r}")
    if address_type.lower() != "utf-8":
        return OriginalRecipient(address_type, decode_xtext(address))
    try:
        return OriginalRecipient(address_type, _UTF8_ADDRESS_ESCAPE.sub(lambda match: chr(int(match[1], 16)), address))
    except ValueError as error:
        raise InvalidValue(f"not a utf-8 address in ORCPT: {text[:100]!r}") from error


def _argument(text: str, verb: str) -> None:
    if not _ARGUMENT.fullmatch(text):
        raise InvalidValue(f"{verb} takes printable ASCII, not {text[:100]!r}")


def _word(text: str) -> None:
    if not _WORD.fullmatch(text):  # not shown: it may be a secret
        raise InvalidValue("AUTH takes words of printable ASCII")


class Command:
    """Anything that a server answers. No ABC: `isinstance` against one is slow, and asked for each reply."""

    __slots__ = ()

    def encode(self) -> bytes:
        """The command line with its CRLF; empty for what has no line of its own."""
        return b""


@dataclass(frozen=True, slots=True)
class Connect(Command):
    """The connection itself, which the greeting answers (RFC 5321 3.1)."""


@dataclass(frozen=True, slots=True)
class Ehlo(Command):
    """EHLO: opens a session, asks for the extensions."""

    name: NextHop

    def encode(self) -> bytes:
        return f"EHLO {self.name.ascii}\r\n".encode("ascii")


@dataclass(frozen=True, slots=True)
class Helo(Command):
    """HELO: opens a session with a server that knows no extensions."""

    name: NextHop

    def encode(self) -> bytes:
        return f"HELO {self.name.ascii}\r\n".encode("ascii")


@dataclass(frozen=True, slots=True)
class Lhlo(Command):
    """LHLO: EHLO of LMTP (RFC 2033 4.1)."""

    name: NextHop

    def encode(self) -> bytes:
        return f"LHLO {self.name.ascii}\r\n".encode("ascii")


@dataclass(frozen=True, slots=True)
class StartTLS(Command):
    """STARTTLS (RFC 3207)."""

    def encode(self) -> bytes:
        return b"STARTTLS\r\n"


@value
class Mail(Command):
    """MAIL FROM with its parameters; None and False mean that the parameter is not there.

    `size` in octets (RFC 1870), `envid` decoded (RFC 3461 4.4), `auth` as the mailbox of RFC 4954 5, "<>" if empty.
    """

    sender: ReversePath
    size: int | None = None
    body: Body | None = None
    smtputf8: bool = False
    requiretls: bool = False
    ret: Ret | None = None
    envid: str | None = None
    auth: str | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not 0 <= self.size < 10**20:  # RFC 1870 4: up to 20 digits
            raise InvalidValue(f"SIZE {self.size} is not a size")
        if not self.smtputf8 and not self.sender.is_ascii:
            raise InvalidValue(f"the sender {self.sender} needs SMTPUTF8")
        if self.envid is not None:
            check_envid(self.envid)
        if self.auth is not None:
            _argument(self.auth, "the parameter AUTH")

    def encode(self) -> bytes:
        words = [f"MAIL FROM:<{self.sender.text}>"]
        if self.size is not None:
            words.append(f"SIZE={self.size}")
        if self.body is not None:
            words.append(f"BODY={self.body.value}")
        if self.smtputf8:
            words.append("SMTPUTF8")
        if self.requiretls:
            words.append("REQUIRETLS")
        if self.ret is not None:
            words.append(f"RET={self.ret.value}")
        if self.envid is not None:
            words.append(f"ENVID={encode_xtext(self.envid)}")
        if self.auth is not None:
            words.append(f"AUTH={encode_xtext(self.auth)}")
        return (" ".join(words) + "\r\n").encode("utf-8")


@value
class Rcpt(Command):
    """RCPT TO with its DSN parameters (RFC 3461 4.1, 4.2)."""

    mailbox: Mailbox
    notify: Notify | None = None
    original: OriginalRecipient | None = None

    def encode(self) -> bytes:
        line = f"RCPT TO:<{self.mailbox.text}>"
        if self.notify is not None:
            line += f" NOTIFY={self.notify.words}"
        if self.original is not None:
            line += f" ORCPT={encode_original_recipient(self.original)}"
        return (line + "\r\n").encode("utf-8")


@dataclass(frozen=True, slots=True)
class Data(Command):
    """DATA: asks to send content, which ends with a lone dot."""

    def encode(self) -> bytes:
        return b"DATA\r\n"


@value
class EndOfData(Command):
    """The lone dot after DATA's content; no line of its own, the content's encoding brings it.

    `replies`: how many answer it; in LMTP as many as there are accepted recipients (RFC 2033 4.2).
    """

    replies: int = 1

    def __post_init__(self) -> None:
        if self.replies < 1:
            raise InvalidValue("the end of data is answered at least once")


@value
class Bdat(Command):
    """BDAT: `size` octets of content follow at once; `last` ends the message (RFC 3030 2)."""

    size: int
    last: bool

    def __post_init__(self) -> None:
        if self.size < 0:
            raise InvalidValue(f"a chunk cannot have {self.size} octets")

    def encode(self) -> bytes:
        return b"BDAT %d LAST\r\n" % self.size if self.last else b"BDAT %d\r\n" % self.size


@dataclass(frozen=True, slots=True)
class Rset(Command):
    """RSET: forgets the transaction."""

    def encode(self) -> bytes:
        return b"RSET\r\n"


@dataclass(frozen=True, slots=True)
class Noop(Command):
    """NOOP."""

    def encode(self) -> bytes:
        return b"NOOP\r\n"


@dataclass(frozen=True, slots=True)
class Quit(Command):
    """QUIT."""

    def encode(self) -> bytes:
        return b"QUIT\r\n"


@dataclass(frozen=True, slots=True)
class Vrfy(Command):
    """VRFY."""

    argument: str

    def __post_init__(self) -> None:
        _argument(self.argument, "VRFY")

    def encode(self) -> bytes:
        return f"VRFY {self.argument}\r\n".encode("ascii")


@dataclass(frozen=True, slots=True)
class Help(Command):
    """HELP, with or without a topic."""

    topic: str = ""

    def __post_init__(self) -> None:
        if self.topic:
            _argument(self.topic, "HELP")

    def encode(self) -> bytes:
        return f"HELP {self.topic}".rstrip().encode("ascii") + b"\r\n"


@dataclass(frozen=True, slots=True, repr=False)
class Auth(Command):
    """AUTH with its initial response in base64, if any (RFC 4954 4). Secrets stay out of `repr`."""

    mechanism: str
    initial_response: str | None = None

    def __post_init__(self) -> None:
        _word(self.mechanism)
        if self.initial_response is not None:
            _word(self.initial_response)

    def __repr__(self) -> str:
        return f"Auth({self.mechanism!r}, ...)"

    def encode(self) -> bytes:
        if self.initial_response is None:
            return f"AUTH {self.mechanism}\r\n".encode("ascii")
        return f"AUTH {self.mechanism} {self.initial_response}\r\n".encode("ascii")


@dataclass(frozen=True, slots=True, repr=False)
class AuthResponse(Command):
    """A line of an AUTH exchange, in base64, or `*` to give up (RFC 4954 4)."""

    response: str

    def __post_init__(self) -> None:
        if self.response:
            _word(self.response)

    def __repr__(self) -> str:
        return "AuthResponse(...)"

    def encode(self) -> bytes:
        return f"{self.response}\r\n".encode("ascii")
