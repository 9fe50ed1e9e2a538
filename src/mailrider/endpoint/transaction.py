"""The transaction of a client up to its content: who may send, who may be sent to, and whom that means.

Nothing is accepted from a client that has to log in and has not; on a unix socket the system says who it is. Recipients
count in the memory of the endpoint, beyond the first few; names of aliases become addresses here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.endpoint.aliases import MAX_ADDRESSES, AliasFault
from mailrider.endpoint.intake import NO_MEMORY
from mailrider.endpoint.pipeline.check import Forwarding
from mailrider.endpoint.trust import NOT_TRUSTED
from mailrider.errors import InvalidValue
from mailrider.model.address import NULL_PATH, Mailbox
from mailrider.model.domain import Domain
from mailrider.model.endpoint_event import AliasUnusable, MailRefused
from mailrider.model.envelope import Notify, Recipient
from mailrider.model.reply import Reply
from mailrider.settings.pipeline import decide
from mailrider.smtp.commands import Command, Mail, Rcpt
from mailrider.smtp.replies import usual_reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mailrider.endpoint.aliases import AliasMember
    from mailrider.endpoint.authentication import Client
    from mailrider.endpoint.intake import Memory
    from mailrider.endpoint.service import Service
    from mailrider.model.address import ReversePath
    from mailrider.model.envelope import Envelope
    from mailrider.settings.pipeline import PipelineSettings
    from mailrider.smtp.server import ServerMachine

FEW: Final = 10  # recipients of a message that count for nothing
RECIPIENT: Final = 512  # octets in memory that a recipient counts for until its message is through

_LOGIN_FIRST: Final = Reply.make(530, "5.7.0", "Authentication required")  # RFC 4954 6
_TLS_FIRST: Final = Reply.make(530, "5.7.0", "Say STARTTLS first")  # RFC 3207 4
_NEEDS_QUEUE: Final = Reply.make(451, "4.3.5", "An alias with several addresses needs a queue")
_ROUTE: Final = Reply.make(550, "5.7.1", "Addresses with a route in them are not taken")
_ROUTING: Final = frozenset("%!@")
_ON_ITS_OWN: Final = Reply.make(452, "4.5.3", "Send it to this alias in a transaction of its own")


class IncomingTransaction:
    """What stands in MAIL and RCPT, as the machine has it, and who is meant by the aliases in it."""

    __slots__ = ("_client", "_expanded", "_machine", "_memory", "_octets", "_service")

    def __init__(self, service: Service, client: Client, machine: ServerMachine, memory: Memory) -> None:
        self._service = service
        self._client = client
        self._machine = machine
        self._memory = memory
        self._octets = 0  # of the memory, which the recipients have
        self._expanded: dict[Mailbox, Sequence[AliasMember]] = {}  # whom the aliases in it stand for

    def forget(self) -> None:
        """The transaction is over."""
        if self._octets:
            self._memory.give_back(self._octets, self._client.key)
            self._octets = 0
        if self._expanded:
            self._expanded = {}

    # Commands ---------------------------------------------------------------------------------------------------------

    def reply(self, command: Command) -> Reply:
        """What a command is answered: a refusal, which is logged, or what servers usually say."""
        match command:
            case Mail():
                refusal = self._sender_refusal(command.sender)
            case Rcpt():
                refusal = self._recipient_refusal(command)
            case _:
                refusal = None
        if refusal is None:
            return usual_reply(self._machine, command, self._service.hostname.ascii)
        self.note_refused(command, refusal, self.sender)
        return refusal

    def note_refused(
        self, command: Command, reply: Reply, sender: ReversePath, recipients: Sequence[Rcpt] = ()
    ) -> None:
        """Tell the log of a refused command. `recipients`: of a whole message that was refused."""
        service = self._service
        if isinstance(command, Mail):
            sender = command.sender
        about = (command,) if isinstance(command, Rcpt) else recipients
        recipient = about[0].mailbox.text if len(about) == 1 else ""
        service.emit(MailRefused(service.name, self._client.name, self._client.user, sender.text, recipient, reply))

    def _sender_refusal(self, sender: ReversePath) -> Reply | None:
        # Whose process is at the other end of a unix socket the system knows better than any password.
        if self._machine.is_authenticated or self._client.uid is not None:
            return None
        service = self._service
        if service.trust is not None and self._client.is_trusted:
            return service.trust.sender_refusal(sender)
        if service.needs_login:
            return _LOGIN_FIRST if self._machine.offer.auth else _TLS_FIRST
        return None if service.trust is None or self._client.is_local else NOT_TRUSTED

    def _recipient_refusal(self, command: Rcpt) -> Reply | None:
        service, mailbox = self._service, command.mailbox
        if is_route(mailbox):
            is_known = service.is_submission or service.is_lmtp or self._machine.is_authenticated
            if not is_known and self._client.uid is None:
                return _ROUTE
        if service.aliases is not None:
            try:
                members = service.aliases.members(mailbox)
            except AliasFault as fault:
                service.emit(AliasUnusable(service.name, str(mailbox), str(fault)))
                return fault.reply
            if members is not None:
                return self._alias_refusal(command, members)
        return service.judge(self.sender, self._meant(mailbox), self._first) or self._room_refusal(command)

    def _alias_refusal(self, command: Rcpt, members: Sequence[AliasMember]) -> Reply | None:
        """As for each of its addresses: if one of them is refused the alias is, so that its sender hears of it."""
        recipients, first = self._machine.recipients, self._first
        most = max(self._service.max_recipients, MAX_ADDRESSES)
        if recipients and len(recipients) + sum(map(len, self._expanded.values())) + len(members) > most:
            return _ON_ITS_OWN
        for each in members:
            refusal = self._service.judge(self.sender, each.mailbox, first)
            if refusal is not None:
                # On its own it would be refused in the same way, again and again.
                return _NEEDS_QUEUE if refusal.code == _ON_ITS_OWN.code and not recipients else refusal
            first = first or each.mailbox
        refusal = self._room_refusal(command, len(members))
        if refusal is None:
            self._expanded[command.mailbox] = members
        return refusal

    @property
    def _first(self) -> Mailbox | None:
        """The first recipient that the transaction has."""
        recipients = self._machine.recipients
        if not recipients:
            return None
        members = self._expanded.get(recipients[0].mailbox)
        return members[0].mailbox if members else self._meant(recipients[0].mailbox)

    def _meant(self, mailbox: Mailbox) -> Mailbox:
        """Whom a recipient means; only the postmaster may come without a domain (RFC 5321 4.5.1)."""
        find = self._service.postmaster
        return mailbox if mailbox.domain is not None or find is None else find(self.sender)

    def _room_refusal(self, command: Rcpt, count: int = 1) -> Reply | None:
        """`count`: how many recipients it stands for."""
        if self._machine.asked + count - 1 <= FEW:
            return None
        octets = RECIPIENT * count if command.original is None else RECIPIENT * count + len(command.original.address)
        if not self._memory.take(octets, self._client.key):
            return NO_MEMORY
        self._octets += octets
        return None

    # The whole of it --------------------------------------------------------------------------------------------------

    @property
    def sender(self) -> ReversePath:
        """The sender; the null reverse-path where there is none."""
        mail = self._machine.mail
        return NULL_PATH if mail is None else mail.sender

    @property
    def is_known(self) -> bool:
        """True if the sender can be held to be who it says: by a login, by the system, or as a program of this machine.

        From anybody else the sender may be forged, and what it asks for would be sent to a victim (RFC 3461 9.1): such
        a client may ask to hear of failures and delays, but not of success.
        """
        if self._machine.is_authenticated or self._client.uid is not None or self._client.is_trusted:
            return True
        return self._service.is_submission and self._client.is_local

    def recipients(self) -> tuple[tuple[Recipient, ...], Forwarding | None]:
        """Whom the message goes to, each of them once."""
        is_known, forwarding = self.is_known, None
        named = [
            Recipient(
                each.mailbox if each.mailbox.domain is not None else self._meant(each.mailbox),
                each.notify if is_known or each.notify is None else each.notify & ~Notify.SUCCESS,
                each.original,
            )
            for each in self._machine.recipients
        ]
        if self._expanded:
            named, forwarding = forward(named, self._expanded, has_sender=self.sender.mailbox is not None)
        return tuple(distinct(named)), forwarding

    def named_for(self, recipients: Sequence[Recipient]) -> str:
        """Whom the Received field names: the one recipient, as the client named it; of several none.

        An alias that is not ASCII is not named: our field alone would keep the message from servers without SMTPUTF8.
        """
        if self._expanded:
            named = self._machine.recipients
            return named[0].mailbox.text if len(named) == 1 and named[0].mailbox.is_ascii else ""
        return recipients[0].mailbox.text if len(recipients) == 1 else ""

    def replies_of_each(self, envelope: Envelope, replies: Sequence[Reply]) -> Sequence[Reply]:
        """One for each RCPT, as LMTP answers (RFC 2033 4.2), from one for each recipient."""
        if len(replies) == len(self._machine.recipients):
            return replies
        decided = dict(zip((each.mailbox for each in envelope.recipients), replies, strict=True))
        return [decided[self._meant(each.mailbox)] for each in self._machine.recipients]


# Recipients: who they are, and who of them is taken from strangers ----------------------------------------------------


def is_route(mailbox: Mailbox) -> bool:
    """True for `a%b@x`, `x!a@b` and `"a@b"@x`: servers of old send that on to a place that x has not consented to."""
    return not _ROUTING.isdisjoint(mailbox.local_part)


def distinct(recipients: Sequence[Recipient]) -> Sequence[Recipient]:
    """Each of them once: who is named twice gets a message once, as he was named first."""
    if len(recipients) == 1:
        return recipients
    found: dict[Mailbox, Recipient] = {}
    for each in recipients:
        found.setdefault(each.mailbox, each)
    return tuple(found.values())


def forward(
    named: Sequence[Recipient], expanded: Mapping[Mailbox, Sequence[AliasMember]], *, has_sender: bool
) -> tuple[list[Recipient], Forwarding]:
    """Put the addresses of aliases in their places, with what RFC 3461 5.2.7 lets them have of the sender's wishes.

    - one address gets all of them (5.2.7.2);
    - several get all but SUCCESS, of which the sender is told now (5.2.7.3, the third way);
    - with an owner, who is the sender then, they get none (5.2.7.1). A notification has no sender, and gets none.
    """
    recipients: list[Recipient] = []
    owners: dict[Mailbox, ReversePath | None] = {}
    passed_on: list[Recipient] = []
    lists: list[Recipient] = []
    for each in named:
        members = expanded.get(each.mailbox)
        if members is None:
            owners.setdefault(each.mailbox, None)
            recipients.append(each)
            continue
        is_one = len(members) == 1
        for member in members:
            owner = None if is_one or not has_sender else member.owner
            owners.setdefault(member.mailbox, owner)
            notify = each.notify if is_one or each.notify is None else each.notify & ~Notify.SUCCESS
            wishes = Recipient(member.mailbox, notify, each.original)
            recipients.append(wishes if owner is None else Recipient(member.mailbox))
        if not is_one and each.notify is not None and Notify.SUCCESS in each.notify:
            has_owner = has_sender and all(member.owner is not None for member in members)
            (lists if has_owner else passed_on).append(each)
    with_owner = {mailbox: owner for mailbox, owner in owners.items() if owner is not None}
    return recipients, Forwarding(with_owner, tuple(passed_on), tuple(lists))


def postmaster_of(pipeline: PipelineSettings, hostname: Domain) -> Mailbox:
    """Whom `RCPT TO:<postmaster>` means (RFC 5321 4.5.1): the postmaster of the first domain that mail is taken for.

    A `destination postmaster` is for him as he was named; then comes our own name, then the domains of `destination`.
    """
    named = Mailbox("postmaster", None)
    explicit = any(match.fits(named) for rule in pipeline.destination for match in rule.matches)
    if explicit and not isinstance(decide(pipeline, named), Reply):
        return named
    own = Mailbox("postmaster", hostname)
    candidates = (Mailbox("postmaster", domain) for domain in (hostname, *_domains(pipeline)))
    return next((each for each in candidates if not isinstance(decide(pipeline, each), Reply)), own)


def _domains(pipeline: PipelineSettings) -> Iterator[Domain]:
    for rule in pipeline.destination:
        for match in rule.matches:
            try:
                yield Domain.parse(match.text.rpartition("@")[2])
            except InvalidValue:
                continue  # an address literal: it is nobody's domain
