"""What a server says: its EHLO, the usual reply to each command, and what the protocol itself refuses.

Enhanced codes stand on every reply but the greeting and those to HELO and EHLO (RFC 2034 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from mailrider.model.reply import Reply
from mailrider.smtp.capabilities import Capabilities
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
from mailrider.smtp.replies import encode_reply
from mailrider.smtp.server_states import ON_CONSENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.smtp.server_states import Limits, ServerState


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


# All that a server on this machine understands, apart from what needs settings: STARTTLS, AUTH, REQUIRETLS, limits.
FULL_OFFER: Final = Capabilities(
    keywords={"ENHANCEDSTATUSCODES": ""},
    pipelining=True,
    eight_bit_mime=True,
    smtputf8=True,
    chunking=True,
    dsn=True,
    size=True,
)

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


def ehlo_reply(hostname: str, offer: Capabilities) -> Reply:
    """The reply to EHLO that announces `offer`; the inverse of `parse_capabilities`."""
    limits = {"MAILMAX": offer.max_transactions, "RCPTMAX": offer.max_recipients}
    words = {
        "PIPELINING": offer.pipelining,
        f"SIZE {offer.max_size or ''}": offer.size,
        "8BITMIME": offer.eight_bit_mime,
        "SMTPUTF8": offer.smtputf8,
        "CHUNKING": offer.chunking,
        "DSN": offer.dsn,
        "STARTTLS": offer.starttls,
        "REQUIRETLS": offer.requiretls,
        f"AUTH {' '.join(sorted(offer.auth))}": offer.auth,
        f"LIMITS {' '.join(f'{name}={limit}' for name, limit in limits.items() if limit)}": any(limits.values()),
    }
    lines = [line.strip() for line, offered in words.items() if offered]
    known = {line.partition(" ")[0] for line in words}
    lines += [f"{word} {text}".strip() for word, text in offer.keywords.items() if word not in known]
    return Reply(250, None, (hostname, *lines))


# Refusals -------------------------------------------------------------------------------------------------------------


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
    """The same for a chunk, whose octets are taken in any case."""
    if not machine.extensions.chunking:
        return Reply.make(502, "5.5.1", "BDAT is not offered")
    if machine.state in ON_CONSENT[Rcpt] and not machine.recipients:
        return _NO_RECIPIENTS
    if machine.state not in ON_CONSENT[Bdat]:
        return out_of_order(machine, Bdat(0, last=False))
    return None


def out_of_order(machine: ServerDialogue, command: Command) -> Reply:
    """503, and why."""
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
