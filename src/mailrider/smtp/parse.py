"""Command lines to commands: what a client says, as a server understands it (RFC 5321 4.1, and the extensions).

`parse_command` takes one line without its CRLF and judges syntax alone: order and offers are the server machine's
business. What does not parse raises `CommandError`, which carries the reply. Arguments become the same validated
values that a client encodes (`smtp.commands`).

Liberal in two points where real clients are sloppy and nothing is at stake: a space behind `FROM:` and `TO:`, and an IP
address without its brackets behind EHLO. Strict in all that could be read in two ways: no control characters, no path
without angle brackets, no parameter twice, no recipient without a domain but the postmaster (RFC 5321 4.5.1).

Printers, scanners and scripts that submit mail are sloppier still, and known to us. For them, where an `origin` is
given, a path may have more spaces before it and lack its angle brackets, an address without a domain is of the origin,
and a client's name that is none counts as `UNKNOWN`. Nothing of this can be read in two ways, either.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from mailrider.errors import InvalidValue, PeerError
from mailrider.model.address import DOTS, NULL_PATH, TRAILING_DOT, Mailbox, ReversePath
from mailrider.model.domain import AddressLiteral, Domain, NextHop
from mailrider.model.envelope import Notify, Ret
from mailrider.model.reply import Reply
from mailrider.smtp.commands import (
    Auth,
    AuthResponse,
    Bdat,
    Body,
    Command,
    Data,
    Ehlo,
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
    decode_original_recipient,
    decode_xtext,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# RFC 5321 4.1.2: a path; within a quoted string anything may stand, the bracket too.
_PATH = re.compile(r'([A-Za-z]+): ?<((?:"(?:[^"\\]|\\.)*"|[^"<>\\ ])*)>(?: +(.*))?')
# The same as sloppy clients write it.
_SLOPPY_PATH = re.compile(
    r'([A-Za-z]+): *(?:< *((?:"(?:[^"\\]|\\.)*"|[^"<>\\ ])*) *>|((?:"(?:[^"\\]|\\.)*"|[^"<>\\ ])+))(?: +(.*))?'
)
# RFC 5321 4.1.2: esmtp-keyword; the value has no space, which has split the parameters already.
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=(.+))?")
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 4
_BDAT = re.compile(r"([0-9]{1,20})( +LAST)?", re.IGNORECASE | re.ASCII)  # RFC 3030 2
_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}")  # RFC 4422 3.1
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")

MAX_SHOWN = 100  # octets of a refused line in a log
NO_COMMAND = "(no command)"

# RFC 9110 9, RFC 5789, RFC 9113 3.4.
_HTTP_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PRI", "PUT", "TRACE"})

# Verbs that servers once knew, or that other servers know.
_NOT_IMPLEMENTED = frozenset({"EXPN", "TURN", "ETRN", "ATRN", "SEND", "SOML", "SAML", "XCLIENT", "XFORWARD", "BURL"})


UNKNOWN: Final = Domain("unknown")
"""What a client is called that names itself as nobody can be named: as Received fields say it."""
POSTMASTER: Final = "postmaster"


class CommandError(PeerError):
    """The line is no command that we understand; `reply` says so to the client."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text, code=code, enhanced=enhanced, public=text)
        self.reply = Reply.make(code, enhanced, text)


class ForeignProtocol(CommandError):
    """The line is HTTP. A web page can make a browser send it to a port on loopback, with SMTP commands behind it."""

    def __init__(self) -> None:
        super().__init__(421, "4.7.0", "This is no HTTP server; good bye")


def parse_command(line: bytes, origin: Domain | None = None) -> Command:
    """The command in a line without its CRLF. Raises `CommandError`.

    `origin`: the domain of addresses without one, where sloppy clients are welcome.
    """
    # Secrets must not stay in a cache.
    return _parse(line, origin) if line[:4].upper() == b"AUTH" else _parse_cached(line, origin)


def parse_auth_response(line: bytes) -> AuthResponse:
    """A line of an AUTH exchange: base64, nothing, or `*` (RFC 4954 4). Raises `CommandError`."""
    text = _decode(line)
    return AuthResponse(text if text == "*" else _base64(text))


def shown(line: bytes) -> str:
    """What a log may hold of a refused line: the beginning of a command, the method of HTTP, nothing of others.

    A line that is no command may be a password, sent when AUTH was not granted.
    """
    text = line[:MAX_SHOWN].decode("utf-8", "replace")
    verb = _upper(text.partition(" ")[0])
    if verb == "AUTH" or verb in _HTTP_METHODS:
        return verb
    return text if verb in _PARSERS or verb in _NOT_IMPLEMENTED else NO_COMMAND


def _upper(word: str) -> str:
    """A word of the protocol. Other alphabets have letters that would become ours: the Turkish i, the long s."""
    return word.upper() if word.isascii() else word


def _parse(line: bytes, origin: Domain | None) -> Command:
    is_hello = origin is not None and line[:4].upper() in (b"EHLO", b"HELO")
    verb, _, argument = _decode(line, "replace" if is_hello else "strict").rstrip(" ").partition(" ")
    verb = _upper(verb)
    if origin is not None and verb in _SLOPPY_PARSERS:
        return _SLOPPY_PARSERS[verb](argument.lstrip(" "), origin)
    parse = _PARSERS.get(verb)
    if parse is None:
        if verb in _HTTP_METHODS:
            raise ForeignProtocol
        if verb in _NOT_IMPLEMENTED:
            raise CommandError(502, "5.5.1", f"{verb} is not implemented")
        raise CommandError(500, "5.5.2", "Command not recognized")
    return parse(argument.lstrip(" "))


_parse_cached = lru_cache(maxsize=1024)(_parse)


def _decode(line: bytes, errors: str = "strict") -> str:
    try:
        text = line.decode("utf-8", errors)  # RFC 6531 3.3; where UTF-8 may stand is judged by what it stands in
    except UnicodeDecodeError:
        raise CommandError(500, "5.5.2", "Command is neither ASCII nor UTF-8") from None
    if _CONTROL.search(text):
        raise CommandError(500, "5.5.2", "Control character in a command")
    if "HTTP/1." in text:
        raise ForeignProtocol
    return text


def _syntax(form: str) -> CommandError:
    return CommandError(501, "5.5.4", f"Syntax: {form}")


def _alone(verb: str, command: Command) -> Callable[[str], Command]:
    def parse(argument: str) -> Command:
        if argument:
            raise CommandError(501, "5.5.4", f"{verb} takes no argument")
        return command

    return parse


def _hello(verb: str, kind: Callable[[NextHop], Command]) -> Callable[[str], Command]:
    def parse(argument: str) -> Command:
        try:
            return kind(_client_name(argument))
        except InvalidValue:
            raise _syntax(f"{verb} host.name") from None

    return parse


def _lenient_hello(kind: Callable[[NextHop], Command]) -> Callable[[str, Domain], Command]:
    def parse(argument: str, _origin: Domain) -> Command:
        try:
            return kind(_client_name(argument))
        except InvalidValue:
            return kind(UNKNOWN)

    return parse


def _client_name(text: str) -> NextHop:
    bare = text.removeprefix("[").removesuffix("]")
    if bare.replace(".", "").isdigit() or ":" in bare:
        # RFC 5321 4.1.3 wants brackets, and a tag for IPv6; many devices know neither.
        address = bare[5:] if bare[:5].lower() == "ipv6:" else bare
        return AddressLiteral.parse(f"[IPv6:{address}]" if ":" in address else f"[{address}]")
    return Domain.parse(text)


# MAIL and RCPT --------------------------------------------------------------------------------------------------------


def _mail(argument: str, origin: Domain | None = None) -> Mail:
    path, parameters = _path("FROM", argument, sloppy=origin is not None)
    values = _parameters(parameters, _MAIL_PARAMETERS)
    try:
        sender = ReversePath(_mailbox(path, origin)) if path else NULL_PATH
    except InvalidValue:
        raise CommandError(501, "5.1.7", f"Bad sender address syntax{_reason(path)}") from None
    if not sender.is_ascii and not values.get("smtputf8"):
        raise CommandError(553, "5.6.7", "A non-ASCII sender needs SMTPUTF8")  # RFC 6531 3.5
    return Mail(sender, **values)


def _rcpt(argument: str, origin: Domain | None = None) -> Rcpt:
    path, parameters = _path("TO", argument, sloppy=origin is not None)
    values = _parameters(parameters, _RCPT_PARAMETERS)
    try:
        mailbox = _mailbox(path, origin)
    except InvalidValue:
        raise CommandError(501, "5.1.3", f"Bad recipient address syntax{_reason(path)}") from None
    if mailbox.domain is None and mailbox.local_part.lower() != POSTMASTER:
        raise CommandError(501, "5.1.3", "A recipient needs a domain")
    return Rcpt(mailbox, **values)


def _reason(path: str) -> str:
    """What is wrong with an address, where many a client is wrong in the same way."""
    return f": {TRAILING_DOT}" if "@" in path and path.endswith(DOTS) else ""


def _mailbox(path: str, origin: Domain | None) -> Mailbox:
    mailbox = Mailbox.parse(path)
    return mailbox if mailbox.domain is not None or origin is None else Mailbox(mailbox.local_part, origin)


def _path(keyword: str, argument: str, *, sloppy: bool) -> tuple[str, str]:
    match = (_SLOPPY_PATH if sloppy else _PATH).fullmatch(argument)
    if match is None or match[1].upper() != keyword:
        raise _syntax(f"{'MAIL' if keyword == 'FROM' else 'RCPT'} {keyword}:<address>")
    path = match[2] if match[2] is not None else match[3]
    return path, match[match.re.groups] or ""


def _parameters(text: str, known: dict[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for word in filter(None, text.split(" ")):  # no other space divides them: one may stand in an address (RFC 6531)
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise CommandError(501, "5.5.4", "Malformed parameter")
        keyword, value = match[1].upper(), match[2]
        if keyword not in known:
            raise CommandError(555, "5.5.4", f"Parameter {keyword[:40]} not recognized")
        name, parse = known[keyword]
        if name in values:
            raise CommandError(501, "5.5.4", f"{keyword} is given twice")
        try:
            values[name] = parse(value or "")
        except ValueError:
            raise CommandError(501, "5.5.4", f"Bad value for {keyword}") from None
    return values


def _size(value: str) -> int:
    if not _SIZE.fullmatch(value):
        raise InvalidValue("SIZE takes a number of octets")
    return int(value)


def _flag(value: str) -> bool:
    if value:
        raise InvalidValue("this parameter takes no value")
    return True


def _envid(value: str) -> str:
    envid = decode_xtext(value)
    if not 0 < len(envid) <= 100:  # RFC 3461 4.4
        raise InvalidValue("ENVID has 1 to 100 characters")
    return envid


def _auth_mailbox(value: str) -> str:
    mailbox = decode_xtext(value)
    if mailbox != "<>":  # RFC 4954 5
        Mailbox.parse(mailbox)
    return mailbox


# The keyword, the field of the command, and what makes its value; a `ValueError` means that it is malformed.
_MAIL_PARAMETERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "SIZE": ("size", _size),
    "BODY": ("body", lambda value: Body(_upper(value))),
    "SMTPUTF8": ("smtputf8", _flag),
    "REQUIRETLS": ("requiretls", _flag),
    "RET": ("ret", lambda value: Ret(_upper(value))),
    "ENVID": ("envid", _envid),
    "AUTH": ("auth", _auth_mailbox),
}
_RCPT_PARAMETERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "NOTIFY": ("notify", Notify.parse),
    "ORCPT": ("original", decode_original_recipient),
}


# The others -----------------------------------------------------------------------------------------------------------


def _bdat(argument: str) -> Bdat:
    match = _BDAT.fullmatch(argument)
    if match is None:
        raise _syntax("BDAT octets [LAST]")
    return Bdat(int(match[1]), last=match[2] is not None)


def _auth(argument: str) -> Auth:
    mechanism, _, response = argument.partition(" ")
    if not _MECHANISM.fullmatch(mechanism):
        raise _syntax("AUTH mechanism")
    if response != "=":  # RFC 4954 4: an empty initial response
        _base64(response)
    return Auth(mechanism.upper(), response or None)


def _base64(text: str) -> str:
    if not _BASE64.fullmatch(text):
        raise CommandError(501, "5.5.2", "That is not base64")
    return text


def _vrfy(argument: str) -> Vrfy:
    try:
        return Vrfy(argument)
    except InvalidValue:
        raise _syntax("VRFY name") from None


def _help(argument: str) -> Help:
    try:
        return Help(argument)
    except InvalidValue:
        raise _syntax("HELP [topic]") from None


_PARSERS: dict[str, Callable[[str], Command]] = {
    "EHLO": _hello("EHLO", Ehlo),
    "HELO": _hello("HELO", Helo),
    "LHLO": _hello("LHLO", Lhlo),
    "MAIL": _mail,
    "RCPT": _rcpt,
    "DATA": _alone("DATA", Data()),
    "BDAT": _bdat,
    "RSET": _alone("RSET", Rset()),
    "NOOP": lambda _: Noop(),
    "QUIT": _alone("QUIT", Quit()),
    "STARTTLS": _alone("STARTTLS", StartTLS()),
    "AUTH": _auth,
    "VRFY": _vrfy,
    "HELP": _help,
}

_SLOPPY_PARSERS: dict[str, Callable[[str, Domain], Command]] = {
    "EHLO": _lenient_hello(Ehlo),
    "HELO": _lenient_hello(Helo),
    "MAIL": _mail,
    "RCPT": _rcpt,
}
