"""A message of a client, from its first octet until the sink has taken responsibility for it.

`endpoint.intake` keeps the content while it arrives. Once it is complete it is looked at, gets its name, its Received
field and what submission adds, and is handed over. 250 is said only after the sink has reported that; whatever goes
wrong before is a 4xx.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mailrider.endpoint.intake import Intake, IntakeSpace
from mailrider.endpoint.pipeline.check import Arrival
from mailrider.header.fields import (
    MAX_LINES,
    ReceivedInfo,
    count_received,
    header_fault,
    is_too_long,
    message_id_of,
    received_field,
    submitted_header,
)
from mailrider.model.address import NULL_PATH
from mailrider.model.domain import AddressLiteral
from mailrider.model.endpoint_event import MailMended, MailRefused, MailTaken
from mailrider.model.envelope import Envelope, Ret
from mailrider.model.event import Bug
from mailrider.model.outcome import Delivered, Failed
from mailrider.model.reply import Reply
from mailrider.model.value import value
from mailrider.smtp.commands import Mail
from mailrider.smtp.mend_header import mend_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.endpoint.authentication import Client
    from mailrider.endpoint.pipeline.check import Forwarding
    from mailrider.endpoint.service import Service
    from mailrider.endpoint.transaction import IncomingTransaction
    from mailrider.model.envelope import Recipient
    from mailrider.model.outcome import Outcome
    from mailrider.model.security import TLSEvidence
    from mailrider.smtp.server import ServerMachine

MAX_QUOTED: Final = 400  # characters of another server's reply that our name for the message is added to
MAX_MENDED: Final = 5000  # lines of a header that is mended: some milliseconds

_FAILED: Final = Reply.make(451, "4.3.0", "Internal error, try again later")
_TOO_LONG: Final = Reply.make(552, "5.3.4", f"The header has more than {MAX_LINES} lines")
_LOOP: Final = Reply.make(554, "5.4.6", "Too many hops: this message goes round in circles")


@value
class MessageName:
    """How a message is called: by us, and in its own header."""

    id: str = ""
    message_id: str = ""


NO_NAME: Final = MessageName()


class IncomingMessage:
    """The content behind DATA or BDAT; one at a time, and one behind the other."""

    __slots__ = ("_client", "_intake", "_machine", "_name", "_room", "_service", "_transaction")

    def __init__(
        self,
        service: Service,
        client: Client,
        machine: ServerMachine,
        transaction: IncomingTransaction,
        room: IntakeSpace,
    ) -> None:
        self._service = service
        self._client = client
        self._machine = machine
        self._transaction = transaction
        self._room = room
        self._intake: Intake | None = None
        self._name = NO_NAME

    def feed(self, octets: bytes) -> None:
        """Take some octets of the content."""
        if self._intake is None:
            self._intake = self._new_intake()
        self._intake.feed(octets)

    def forget(self) -> None:
        """The transaction is over: nothing of it is kept."""
        if self._intake is not None:
            self._intake.close()
            self._intake = None

    def _new_intake(self) -> Intake:
        return Intake(self._room, self._service.max_header, self._client.key)

    async def finish(self, tls: TLSEvidence | None) -> Sequence[Reply]:
        """The message is complete: hand it over, and return what came of it, in LMTP for each recipient."""
        intake = self._intake or self._new_intake()
        intake.finish()
        self._name = NO_NAME
        replies = self._content_refusal(intake) or await self._hand_over(intake, tls)
        decided = worst(replies)
        self._note(intake.size, decided)
        return replies if self._machine.lmtp else (decided,)

    def _content_refusal(self, intake: Intake) -> Sequence[Reply] | None:
        service = self._service
        refusal = intake.fault
        header = intake.header
        if refusal is None and is_too_long(header):
            refusal = _TOO_LONG
        if refusal is None and count_received(header) > service.max_received:
            refusal = _LOOP
        may_mend = service.is_submission and header.count(b"\n") <= MAX_MENDED
        if refusal is None and header and not may_mend:
            fault = header_fault(header)
            if fault is not None:
                refusal = Reply.make(554, "5.6.0", f"This is no message: {fault}")
        return None if refusal is None else [refusal] * len(self._machine.recipients)

    async def _hand_over(self, intake: Intake, tls: TLSEvidence | None) -> Sequence[Reply]:
        service, transaction = self._service, self._transaction
        recipients, forwarding = transaction.recipients()
        id = service.new_id(len(recipients))
        self._name = MessageName(id)
        try:
            info = self._received_info(id, recipients, tls)
            header, between = self._submitted(intake.header, info) if service.is_submission else (intake.header, b"")
            self._name = MessageName(id, message_id_of(header))
            envelope = self._envelope(recipients)
            content = intake.content(received_field(info) + header, between)
            report = await service.sink.deliver(envelope, content, self._arrival(info, forwarding))
        except Exception as error:
            # Unknown is temporary; the client still has the message.
            service.emit(Bug(f"endpoint {service.name}", error, message=id))
            return [_FAILED] * len(self._machine.recipients)
        finally:
            service.forget_id(id)
        replies = [named(reply_to(outcome), id) for outcome in report.outcomes]
        return transaction.replies_of_each(envelope, replies) if self._machine.lmtp else replies

    def _submitted(self, header: bytes, info: ReceivedInfo) -> tuple[bytes, bytes]:
        """The header as it goes on from a program, and what stood in it and belongs behind it.

        What had to be done to read it is logged.
        """
        between = b""
        if header and header_fault(header) is not None:
            service, client, mended = self._service, self._client, mend_header(header)
            sender, changes = self._transaction.sender.text, ", ".join(mended.changes)
            service.emit(MailMended(service.name, client.name, client.user, sender, changes, message=info.id))
            header, between = mended.header, mended.between
        return submitted_header(header, info, self._service.origin), between

    def _envelope(self, recipients: tuple[Recipient, ...]) -> Envelope:
        client, mail = self._client, self._machine.mail or Mail(NULL_PATH)
        return Envelope(
            mail.sender,
            recipients,
            smtputf8=mail.smtputf8,
            requiretls=mail.requiretls,
            ret=mail.ret if mail.ret is None or self._transaction.is_known else Ret.HEADERS,
            envid=mail.envid,
            client=client.address or None,
            id=self._name.id,
            message_id=self._name.message_id,
        )

    def _received_info(self, id: str, recipients: Sequence[Recipient], tls: TLSEvidence | None) -> ReceivedInfo:
        service, client = self._service, self._client
        name = self._machine.client_name
        return ReceivedInfo(
            "unknown" if name is None else name.ascii,
            address_literal(client.address) if client.address else client.name,
            service.hostname,
            self._machine.protocol,
            id,
            service.clock.now(),
            self._transaction.named_for(recipients),
            f"using {tls.version} with cipher {tls.cipher}" if tls is not None else "",
            service.received,
        )

    def _arrival(self, info: ReceivedInfo, forwarding: Forwarding | None) -> Arrival:
        client = self._client
        user, hostname = client.user or None, info.hostname.ascii
        return Arrival(client.address or None, info.name, user, hostname, info.id, forwarding, client.is_trusted)

    def _note(self, size: int, reply: Reply) -> None:
        service, client, machine, name = self._service, self._client, self._machine, self._name
        recipients, sender = machine.recipients, self._transaction.sender.text
        if reply.is_positive:
            taken = MailTaken(
                service.name,
                client.name,
                client.user,
                machine.protocol,
                sender,
                len(recipients) if len(recipients) < 2 else len({each.mailbox for each in recipients}),
                size,
                reply,
                message=name.id,
                message_id=name.message_id,
            )
            service.emit(taken)
            return
        refused = MailRefused(
            service.name,
            client.name,
            client.user,
            sender,
            recipients[0].mailbox.text if len(recipients) == 1 else "",
            reply,
            size,
            message=name.id,
            message_id=name.message_id,
        )
        service.emit(refused)


def reply_to(outcome: Outcome) -> Reply:
    """What a client is told of a recipient: the reply that decided it, with a code that fits here.

    Another server's 421 is about its connection with us, not about ours with the client.
    """
    reply = outcome.reply
    if isinstance(outcome, Delivered):
        return reply if reply.code == 250 else Reply(250, None, reply.lines)
    if isinstance(outcome, Failed):
        return reply if reply.is_permanent else Reply(554, None, reply.lines)
    return reply if reply.is_transient and reply.code != 421 else Reply(451, None, reply.lines)


def named(reply: Reply, id: str) -> Reply:
    """A reply to a message that was taken, with our name for it, if that does not stand there already."""
    last = reply.lines[-1]
    if not reply.is_positive or id in last or len(last) > MAX_QUOTED:
        return reply
    return Reply(reply.code, reply.enhanced, (*reply.lines[:-1], f"{last} [{id}]"))


def worst(replies: Sequence[Reply]) -> Reply:
    """The one reply to a client whose message has several recipients.

    A temporary one goes before a permanent one: the client tries again, and nobody loses mail that could have been
    delivered.
    """
    if len(replies) == 1:
        return replies[0]
    return max(replies, key=lambda reply: (reply.is_transient, reply.is_permanent))


@lru_cache(maxsize=1024)
def address_literal(address: str) -> str:
    """An IP address as it stands in a Received field (RFC 5321 4.1.3); a link-local one without its zone."""
    bare = address.partition("%")[0]
    return str(AddressLiteral.parse(f"[IPv6:{bare}]" if ":" in bare else f"[{bare}]"))
