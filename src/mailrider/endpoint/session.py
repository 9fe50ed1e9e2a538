"""One client of an endpoint: the server machine over a channel, and what the endpoint has to say.

Commands are answered where they arrive; what has to be waited for (the end of a message, a password, TLS, a client that
does not read) is the business of a task that each connection has, and nothing else is answered meanwhile. What always
holds:

- 250 to the end of data is said only after the sink has taken responsibility; whatever goes wrong before that is a 4xx;
- one timer a connection cuts off who is silent, who sends one octet a second, and who does not read our replies. Each
  command has `read_timeout` in all, and so has every 64 KiB of content; while *we* work the timer rests;
- reading stops while the machine has enough to do, so that a client can fill no memory;
- who closes his half of the connection in clear gets the replies to what he has said before, and then we close;
- nothing is accepted from a client that has to log in and has not; on a unix socket the system says who it is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from mailrider.endpoint.aliases import MAX_ADDRESSES, AliasFault
from mailrider.endpoint.headers import (
    ReceivedDetail,
    ReceivedInfo,
    count_received,
    message_id_of,
    received_field,
    submitted_header,
)
from mailrider.endpoint.intake import DISK, NO_MEMORY, Intake, Memory, Room
from mailrider.endpoint.logins import HELD_BACK, Logins
from mailrider.endpoint.pipeline.check import Arrival
from mailrider.endpoint.recipients import ROUTE, distinct, forward, is_route
from mailrider.endpoint.trust import NOT_TRUSTED
from mailrider.endpoint.user_names import login_name
from mailrider.errors import InvalidValue, NetworkError
from mailrider.model.address import NULL_PATH
from mailrider.model.domain import AddressLiteral
from mailrider.model.endpoint_event import (
    AliasUnusable,
    ClientCutOff,
    ClientLeft,
    ClientRefused,
    LoginFailed,
    LoginHeldBack,
    MailMended,
    MailRefused,
    MailTaken,
)
from mailrider.model.envelope import Envelope, Notify, Recipient, Ret
from mailrider.model.event import Bug
from mailrider.model.ip import client_key
from mailrider.model.outcome import Delivered, Failed
from mailrider.model.reply import Reply
from mailrider.model.value import value
from mailrider.smtp.commands import Auth, AuthResponse, Bdat, Command, Data, EndOfData, Mail, Rcpt
from mailrider.smtp.content import CHUNK
from mailrider.smtp.header import MAX_LINES, header_fault, is_too_long
from mailrider.smtp.mend import mend_header
from mailrider.smtp.parse import NO_COMMAND
from mailrider.smtp.sasl import SERVERS, Challenge
from mailrider.smtp.server import ServerMachine
from mailrider.smtp.server_replies import FULL_OFFER, usual_reply
from mailrider.smtp.server_states import ContentChunk, Limits, Rejected, ServerState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from pathlib import Path

    from mailrider.clock import Clock, Timer
    from mailrider.endpoint.aliases import Aliases, AliasMember
    from mailrider.endpoint.pipeline.check import Forwarding
    from mailrider.endpoint.trust import Trust
    from mailrider.model.address import Mailbox, ReversePath
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit
    from mailrider.model.outcome import AttemptReport, Outcome
    from mailrider.model.security import TLSEvidence
    from mailrider.net.tls import ServerContext
    from mailrider.smtp.capabilities import Capabilities
    from mailrider.smtp.content import Content
    from mailrider.smtp.sasl import Credentials, ServerExchange

HANDSHAKE: Final = 60.0  # seconds for TLS; longer only who does nothing takes
MAX_LOGINS: Final = 3  # wrong passwords on a connection
WRONG_LOGIN: Final = 2.0  # seconds that a wrong password waits for its reply: guessing shall be slow
FEW: Final = 10  # recipients of a message that count for nothing
RECIPIENT: Final = 512  # octets in memory that a recipient counts for until its message is through
LIMITS: Final = Limits(max_commands=1000)
# A program of this machine may write a whole dialogue into a pipe (`sendmail -bs`); nobody else can get at the socket.
LOCAL_LIMITS: Final = replace(LIMITS, strict_groups=False)
MAX_QUOTED: Final = 400  # characters of another server's reply that our name for the message is added to
MAX_MENDED: Final = 5000  # lines of a header that is mended: some milliseconds

# The states in which the task goes on.
_FOR_THE_TASK: Final = (ServerState.CLOSED, ServerState.HANDSHAKE)

_GOING_DOWN: Final = Reply.make(421, "4.3.2", "Shutting down; good bye")
_TOO_SLOW: Final = Reply.make(421, "4.4.2", "You took too long; good bye")
_LOGGED_IN: Final = Reply.make(235, "2.7.0", "Welcome")
_WRONG: Final = Reply.make(535, "5.7.8", "Wrong user name or password")
_TOO_MANY_LOGINS: Final = Reply.make(421, "4.7.0", "Too many wrong passwords; good bye")
_MALFORMED: Final = Reply.make(501, "5.5.2", "That is no right response")
_LOGIN_FIRST: Final = Reply.make(530, "5.7.0", "Authentication required")  # RFC 4954 6
_TLS_FIRST: Final = Reply.make(530, "5.7.0", "Say STARTTLS first")  # RFC 3207 4
_FAILED: Final = Reply.make(451, "4.3.0", "Internal error, try again later")
_BROKEN: Final = Reply.make(421, "4.3.0", "Internal error, try again later")
_TOO_LONG: Final = Reply.make(552, "5.3.4", f"The header has more than {MAX_LINES} lines")
_NEEDS_QUEUE: Final = Reply.make(451, "4.3.5", "An alias with several addresses needs a queue")
_ON_ITS_OWN: Final = Reply.make(452, "4.5.3", "Send it to this alias in a transaction of its own")
_LOOP: Final = Reply.make(554, "5.4.6", "Too many hops: this message goes round in circles")


@value
class MessageName:
    """How a message is called: by us, and in its own header."""

    id: str = ""
    message_id: str = ""


NO_NAME: Final = MessageName()


class MessageSink(Protocol):
    """Takes responsibility for messages: what it reports as delivered is durable."""

    async def deliver(self, envelope: Envelope, content: Content, arrival: Arrival) -> AttemptReport:
        """One outcome for each recipient, in the envelope's order. The content is readable until it returns."""


class Authenticator(Protocol):
    """Knows passwords."""

    async def verify(self, credentials: Credentials) -> bool | Reply:
        """True if they are right; a reply if that cannot be found out now."""


@dataclass(frozen=True, slots=True)
class Service:
    """What all connections of an endpoint share.

    `new_id` names a message of so many recipients, `forget_id` is called with the name when it is dealt with. `judge`
    decides on a recipient before the content is there, and beside the first one that the transaction has:
    None if the sink will take it. `authenticator` None: nobody can log in; `logins` says who may try now;
    `needs_login`: nothing is accepted before. `tls` None: there is no STARTTLS. `origin`, which submission has: the
    domain of addresses without one, and sloppy clients are welcome. `postmaster`: whom `RCPT TO:<postmaster>` means;
    `aliases`: whom other names of `origin` stand for; `trust`: which clients need no login. `memory` and `disk` are
    what unfinished messages from the network may take; those that come over unix sockets have `local_memory` and
    `local_disk`: the network cannot keep the programs of this machine from sending.
    """

    name: str
    hostname: Domain
    sink: MessageSink
    judge: Callable[[ReversePath, Mailbox, Mailbox | None], Reply | None]
    clock: Clock
    emit: Emit
    new_id: Callable[[int], str]
    memory: Memory
    tls: ServerContext | None = None
    authenticator: Authenticator | None = None
    needs_login: bool = False
    is_submission: bool = False
    origin: Domain | None = None
    postmaster: Callable[[ReversePath], Mailbox] | None = None
    aliases: Aliases | None = None
    trust: Trust | None = None
    is_lmtp: bool = False
    max_size: int = 32 << 20
    max_header: int = 1 << 20
    max_recipients: int = 1000
    max_received: int = 100
    read_timeout: float = 300.0
    spool: Path | None = None
    disk: Memory = field(default_factory=lambda: Memory(DISK))
    local_memory: Memory = field(default_factory=Memory)
    local_disk: Memory = field(default_factory=lambda: Memory(DISK))
    logins: Logins | None = None
    received: ReceivedDetail = ReceivedDetail.FULL
    forget_id: Callable[[str], object] = lambda _: None


class Wire(Protocol):
    """What a session needs of a `net.channel.Channel`."""

    peer_address: str
    needs_drain: bool
    on_end: Callable[[], None] | None
    tls: TLSEvidence | None

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...
    async def drain(self) -> None: ...
    async def close(self) -> None: ...
    def start_tls_server(
        self, context: ServerContext, deadline: float | None = None
    ) -> Coroutine[Any, Any, TLSEvidence]: ...


class ClientSession:
    """One connection; a receiver of its channel. `local`: nobody beyond this machine can be at its other end."""

    __slots__ = (
        "_busy",
        "_channel",
        "_client",
        "_deadline",
        "_exchange",
        "_expanded",
        "_failed_logins",
        "_has_erred",
        "_input_ended",
        "_intake",
        "_is_dismissed",
        "_key",
        "_leaving",
        "_local",
        "_machine",
        "_name",
        "_open",
        "_paused",
        "_pending",
        "_progress",
        "_recipients_room",
        "_room",
        "_service",
        "_timed_out",
        "_timer",
        "_trusted",
        "_uid",
        "_user",
        "_waiter",
        "_why",
    )

    def __init__(
        self,
        service: Service,
        channel: Wire,
        *,
        local: bool,
        implicit_tls: bool = False,
        uid: int | None = None,
        trusted: bool = False,
    ) -> None:
        """`uid`: whose process it is, where the system knows. `trusted`: it needs no login, because of its address."""
        self._service = service
        self._channel = channel
        self._local = local
        self._client = channel.peer_address
        self._uid = uid
        self._trusted = trusted
        self._key = client_key(self.client)
        memory, disk = (service.memory, service.disk) if self._client else (service.local_memory, service.local_disk)
        self._room = Room(memory, disk, service.spool)
        self._recipients_room = 0  # octets of the memory that the recipients of the transaction have
        self._expanded: dict[
            Mailbox, Sequence[AliasMember]
        ] = {}  # of the transaction, whom the aliases in it stand for
        self._machine = ServerMachine(
            self._offer(secure=implicit_tls),
            LIMITS if uid is None else LOCAL_LIMITS,
            lmtp=service.is_lmtp,
            secure=implicit_tls,
            origin=service.origin,
        )
        self._open = True
        self._input_ended = False  # nothing more will be said, and our replies are heard
        channel.on_end = self._end_input
        self._paused = False
        self._pending: EndOfData | Bdat | Auth | AuthResponse | None = None  # what the task is to take first
        self._busy = False  # we work, the client waits
        self._leaving = False
        self._is_dismissed = False
        self._has_erred = False
        self._timed_out = False
        self._why = ""
        self._user = ""
        self._exchange: tuple[ServerExchange, str] | None = None
        self._failed_logins = 0
        self._intake: Intake | None = None
        self._name = NO_NAME
        self._progress = 0  # octets of content since the timer was set
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: Timer | None = None

    def _offer(self, *, secure: bool) -> Capabilities:
        return offer(self._service, secure=secure, local=self._local)

    @property
    def key(self) -> str:
        """Whom it counts for where each client has a share."""
        return self._key

    @property
    def client(self) -> str:
        """Who it is, for people."""
        if self._client:
            return self._client
        return "local" if self._uid is None else f"uid {self._uid}"

    # The channel's side -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        machine, waiter = self._machine, self._waiter
        machine.receive(data)
        if waiter is not None and not waiter.done():
            try:
                if not (self._timed_out or self._leaving or self._answer_at_once()):
                    return
                waiter.set_result(None)
            except Exception as error:
                waiter.set_exception(error)
        # The task is at work, or will be, and takes it up; until then there is an end to what waits for it.
        if machine.is_full:
            self._paused = True
            self._channel.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._open = False
        if error is not None and not self._why:
            self._why = str(error)
        self._wake()

    def _end_input(self) -> None:
        self._input_ended = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # The endpoint's side ----------------------------------------------------------------------------------------------

    def begin(self) -> Coroutine[Any, Any, None]:
        """Begin now, with TLS if that comes first; the rest is to be awaited, in a task of its own."""
        handshake = self._start_tls() if self._machine.is_secure else None
        return self._run(handshake)

    def leave(self) -> None:
        """Say good bye as soon as no message is under way."""
        self._leaving = True
        self._wake()

    def dismiss(self) -> bool:
        """Say 421 now, in the middle of whatever it is (RFC 5321 3.8); False if nothing can be said: in a handshake.

        The work under way is to be cancelled then: the client has had its last reply.
        """
        self._why = self._why or "shut down in the middle of it"
        if not self._can_speak:
            return False
        self._machine.leave(_GOING_DOWN)
        self._channel.write(self._machine.take_output())
        self._is_dismissed = True
        return True

    @property
    def _can_speak(self) -> bool:
        machine = self._machine
        if machine.state in _FOR_THE_TASK:
            return False
        return not machine.is_secure or self._channel.tls is not None

    def abort(self) -> None:
        """End at once."""
        self._why = self._why or "shut down in the middle of it"
        self._channel.abort()

    async def _run(self, handshake: Coroutine[Any, Any, TLSEvidence] | None) -> None:
        try:
            if handshake is not None:
                await self._handshake("TLS", handshake)
            self._rest()
            while self._open:
                await self._next_step()
        except asyncio.CancelledError:
            if not self._is_dismissed:
                raise
            await self._channel.close()
        except NetworkError as error:
            self._why = self._why or str(error)
        except Exception as error:
            self._service.emit(Bug(f"endpoint {self._service.name}", error))
            self._why = "a bug"
            self._machine.leave(_BROKEN)
            self._channel.write(self._machine.take_output())
            await self._channel.close()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._forget()
            self._channel.abort()
            self._service.emit(ClientLeft(self._service.name, self.client, self._why))

    def _answer_at_once(self) -> bool:
        """Take what need not be waited for; True if there is something for the task."""
        machine, channel = self._machine, self._channel
        has_answered = False
        while (event := machine.next_event()) is not None:
            match event:
                case Mail() | Rcpt() | Data():  # most of what is asked
                    machine.answer(self._reply(event))
                case ContentChunk():
                    self._take_content(event.octets)
                    continue
                case EndOfData() | Bdat(last=True) | Auth() | AuthResponse():
                    self._pending = event
                    break
                case Rejected():
                    self._note_rejected(event)
                case _:
                    machine.answer(self._reply(event))
            has_answered = True
            if machine.mail is None:
                self._forget()
        if has_answered:
            self._rest()
        if self._pending is not None:
            return True
        if output := machine.take_output():
            channel.write(output)
        return machine.state in _FOR_THE_TASK or channel.needs_drain

    def _next_step(self) -> Awaitable[object]:
        """What the task has to await next: there is no more that can be done at once."""
        machine = self._machine
        if self._pending is None:
            if self._timed_out:
                machine.leave(_TOO_SLOW)
                self._cut_off("too slow")
            elif self._leaving and machine.mail is None:
                machine.leave(_GOING_DOWN)
            self._answer_at_once()
        event, self._pending = self._pending, None
        if event is not None:
            return self._log_in(event) if isinstance(event, Auth | AuthResponse) else self._finish()
        if machine.state is ServerState.CLOSED:
            self._open = False
            return self._channel.close()
        if machine.state is ServerState.HANDSHAKE:
            return self._begin_anew(self._start_tls())
        if self._channel.needs_drain and not self._timed_out:
            return self._channel.drain()
        if self._input_ended:
            self._open = False
            return self._channel.close()
        return self._read_on()

    def _read_on(self) -> asyncio.Future[None]:
        if self._paused:
            self._paused = False
            self._channel.resume_reading()
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter

    async def _begin_anew(self, handshake: Coroutine[Any, Any, TLSEvidence]) -> None:
        """Behind STARTTLS; see RFC 3207 4.2."""
        await self._handshake("STARTTLS", handshake)
        self._forget_login()
        self._machine.tls_established(self._offer(secure=True))
        self._rest()

    async def _handshake(self, command: str, shaking: Coroutine[Any, Any, TLSEvidence]) -> None:
        """Wait for TLS; a client that gets none (too old, or no TLS at all) has its line in the log."""
        try:
            await shaking
        except NetworkError as error:
            if not self._why:
                self._note_client_refused(command, str(error))
            raise

    def _start_tls(self) -> Coroutine[Any, Any, TLSEvidence]:
        """What arrives from now on is the handshake; the result is to be awaited."""
        service = self._service
        if service.tls is None:  # STARTTLS is not offered then, and implicit TLS not configured
            raise NetworkError("there is no certificate")
        seconds = min(HANDSHAKE, service.read_timeout)
        return self._channel.start_tls_server(service.tls, service.clock.monotonic() + seconds)

    def _cut_off(self, reason: str) -> None:
        self._why = reason
        self._service.emit(ClientCutOff(self._service.name, self.client, reason))

    def _go_on(self) -> None:
        """A command is answered: the next one has its own time, and a transaction that is over leaves nothing."""
        self._rest()
        if self._machine.mail is None:
            self._forget()

    # The timer --------------------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        """The client has got somewhere: its time begins anew."""
        service = self._service
        self._progress = 0
        self._deadline = service.clock.monotonic() + service.read_timeout
        if self._timer is None:
            self._timer = service.clock.call_at(self._deadline, self._look_at_clock)

    def _look_at_clock(self) -> None:
        service = self._service
        now = service.clock.monotonic()
        if self._busy:
            self._deadline = now + service.read_timeout
        if now < self._deadline:
            # One timer a connection: it was not moved for each command, and is set again only now.
            self._timer = service.clock.call_at(self._deadline, self._look_at_clock)
            return
        self._timed_out = True
        if self._channel.needs_drain:
            self._why = "does not read our replies"
            self._channel.abort()
        self._wake()

    # Events -----------------------------------------------------------------------------------------------------------

    def _reply(self, command: Command) -> Reply:
        match command:
            case Mail():
                refusal = self._sender_refusal(command.sender)
            case Rcpt():
                refusal = self._recipient_refusal(command)
            case _:
                refusal = None
        if refusal is None:
            return usual_reply(self._machine, command, self._service.hostname.ascii)
        self._note_refused(command, refusal, self._sender)
        return refusal

    @property
    def _sender(self) -> ReversePath:
        mail = self._machine.mail
        return NULL_PATH if mail is None else mail.sender

    def _sender_refusal(self, sender: ReversePath) -> Reply | None:
        # Whose process is at the other end of a unix socket the system knows better than any password.
        if self._machine.is_authenticated or self._uid is not None:
            return None
        service = self._service
        if service.trust is not None and self._trusted:
            return service.trust.sender_refusal(sender)
        if service.needs_login:
            return _LOGIN_FIRST if self._machine.offer.auth else _TLS_FIRST
        return None if service.trust is None or self._local else NOT_TRUSTED

    def _recipient_refusal(self, command: Rcpt) -> Reply | None:
        service, mailbox = self._service, command.mailbox
        if is_route(mailbox):
            is_known = service.is_submission or service.is_lmtp or self._machine.is_authenticated
            if not is_known and self._uid is None:
                return ROUTE
        if service.aliases is not None:
            try:
                members = service.aliases.members(mailbox)
            except AliasFault as fault:
                service.emit(AliasUnusable(service.name, str(mailbox), str(fault)))
                return fault.reply
            if members is not None:
                return self._alias_refusal(command, members)
        return service.judge(self._sender, self._meant(mailbox), self._first) or self._room_refusal(command)

    def _alias_refusal(self, command: Rcpt, members: Sequence[AliasMember]) -> Reply | None:
        """As for each of its addresses: if one of them is refused the alias is, so that its sender hears of it."""
        recipients, first = self._machine.recipients, self._first
        most = max(self._service.max_recipients, MAX_ADDRESSES)
        if recipients and len(recipients) + sum(map(len, self._expanded.values())) + len(members) > most:
            return _ON_ITS_OWN
        for each in members:
            refusal = self._service.judge(self._sender, each.mailbox, first)
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
        return mailbox if mailbox.domain is not None or find is None else find(self._sender)

    def _room_refusal(self, command: Rcpt, count: int = 1) -> Reply | None:
        """`count`: how many recipients it stands for."""
        if self._machine.asked + count - 1 <= FEW:
            return None
        octets = RECIPIENT * count if command.original is None else RECIPIENT * count + len(command.original.address)
        if not self._room.memory.take(octets, self._key):
            return NO_MEMORY
        self._recipients_room += octets
        return None

    def _note_rejected(self, event: Rejected) -> None:
        command, reply = event.command, event.reply
        said = event.said or (NO_COMMAND if command is None else type(command).__name__.upper())
        if self._machine.state is ServerState.CLOSED:
            self._cut_off(f"{said}: {reply.text}")
        elif isinstance(command, EndOfData | Bdat | Mail | Rcpt):
            sender = self._sender if event.mail is None else event.mail.sender
            self._note_refused(command, reply, sender, event.recipients)
        elif not self._has_erred:
            # One line a client: what follows is mostly the consequence.
            self._has_erred = True
            self._note_client_refused(said, str(reply))

    def _note_client_refused(self, command: str, reason: str) -> None:
        self._service.emit(ClientRefused(self._service.name, self.client, self._user, command, reason))

    def _note_refused(
        self, command: Command, reply: Reply, sender: ReversePath, recipients: Sequence[Rcpt] = ()
    ) -> None:
        """`recipients`: of a whole message that was refused."""
        service = self._service
        if isinstance(command, Mail):
            sender = command.sender
        about = (command,) if isinstance(command, Rcpt) else recipients
        recipient = str(about[0].mailbox) if len(about) == 1 else ""
        service.emit(MailRefused(service.name, self.client, self._user, str(sender), recipient, reply))

    # Content ----------------------------------------------------------------------------------------------------------

    def _take_content(self, octets: bytes) -> None:
        if self._intake is None:
            self._intake = self._new_intake()
        self._intake.feed(octets)
        self._progress += len(octets)
        if self._progress >= CHUNK:
            self._rest()

    def _new_intake(self) -> Intake:
        return Intake(self._room, self._service.max_header, self._key)

    async def _finish(self) -> None:
        """The message is complete: hand it over, and say what came of it, in LMTP for each recipient."""
        machine = self._machine
        if machine.recipients:
            intake = self._intake or self._new_intake()
            intake.finish()
            self._name = NO_NAME
            replies = self._content_refusal(intake) or await self._hand_over(intake)
            decided = worst(replies)
            self._note(intake.size, decided)
            for reply in replies if machine.lmtp else (decided,):
                if machine.answers_due:
                    machine.answer(reply)
        else:
            machine.answer(usual_reply(machine, EndOfData(), self._service.hostname.ascii))
        self._go_on()

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

    async def _hand_over(self, intake: Intake) -> Sequence[Reply]:
        service, (recipients, forwarding) = self._service, self._recipients()
        id = service.new_id(len(recipients))
        self._name = MessageName(id)
        try:
            info = self._received_info(id, recipients)
            header, between = self._submitted(intake.header, info) if service.is_submission else (intake.header, b"")
            self._name = MessageName(id, message_id_of(header))
            envelope = self._envelope(recipients)
            content = intake.content(received_field(info) + header, between)
            self._busy = True
            report = await service.sink.deliver(envelope, content, self._arrival(info, forwarding))
        except Exception as error:
            # Unknown is temporary; the client still has the message.
            service.emit(Bug(f"endpoint {service.name}", error, message=id))
            return [_FAILED] * len(self._machine.recipients)
        finally:
            self._busy = False
            service.forget_id(id)
        return self._replies(envelope, [named(reply_to(outcome), id) for outcome in report])

    def _replies(self, envelope: Envelope, replies: Sequence[Reply]) -> Sequence[Reply]:
        """One for each RCPT, as LMTP answers (RFC 2033 4.2), from one for each recipient."""
        if len(replies) == len(self._machine.recipients) or not self._machine.lmtp:
            return replies
        decided = dict(zip((each.mailbox for each in envelope.recipients), replies, strict=True))
        return [decided[self._meant(each.mailbox)] for each in self._machine.recipients]

    def _submitted(self, header: bytes, info: ReceivedInfo) -> tuple[bytes, bytes]:
        """The header as it goes on from a program, and what stood in it and belongs behind it.

        What had to be done to read it is logged.
        """
        between = b""
        if header and header_fault(header) is not None:
            service, mended = self._service, mend_header(header)
            sender, changes = str(self._sender), ", ".join(mended.changes)
            service.emit(MailMended(service.name, self.client, self._user, sender, changes, message=info.id))
            header, between = mended.header, mended.between
        return submitted_header(header, info, self._service.origin), between

    def _recipients(self) -> tuple[tuple[Recipient, ...], Forwarding | None]:
        """Whom the message goes to, each of them once."""
        is_known, forwarding = self._is_known, None
        named = [
            Recipient(
                each.mailbox if each.mailbox.domain is not None else self._meant(each.mailbox),
                each.notify if is_known or each.notify is None else each.notify & ~Notify.SUCCESS,
                each.original,
            )
            for each in self._machine.recipients
        ]
        if self._expanded:
            named, forwarding = forward(named, self._expanded, has_sender=self._sender.mailbox is not None)
        return tuple(distinct(named)), forwarding

    def _envelope(self, recipients: tuple[Recipient, ...]) -> Envelope:
        mail = self._machine.mail or Mail(NULL_PATH)
        return Envelope(
            mail.sender,
            recipients,
            smtputf8=mail.smtputf8,
            requiretls=mail.requiretls,
            ret=mail.ret if self._is_known or mail.ret is None else Ret.HEADERS,
            envid=mail.envid,
            client=self._client or None,
            id=self._name.id,
            message_id=self._name.message_id,
        )

    @property
    def _is_known(self) -> bool:
        """True if the sender can be held to be who it says: by a login, by the system, or as a program of this machine.

        From anybody else the sender may be forged, and what it asks for would be sent to a victim (RFC 3461 9.1): such
        a client may ask to hear of failures and delays, but not of success.
        """
        if self._machine.is_authenticated or self._uid is not None or self._trusted:
            return True
        return self._service.is_submission and self._local

    def _received_info(self, id: str, recipients: Sequence[Recipient]) -> ReceivedInfo:
        service, tls = self._service, self._channel.tls
        name = self._machine.client_name
        return ReceivedInfo(
            "unknown" if name is None else name.ascii,
            address_literal(self._client) if self._client else self.client,
            service.hostname,
            self._machine.protocol,
            id,
            service.clock.now(),
            self._named_for(recipients),
            f"using {tls.version} with cipher {tls.cipher}" if tls is not None else "",
            service.received,
        )

    def _named_for(self, recipients: Sequence[Recipient]) -> str:
        """Whom the Received field names: the one recipient, as the client named it; of several none.

        An alias that is not ASCII is not named: our field alone would keep the message from servers without SMTPUTF8.
        """
        if self._expanded:
            named = self._machine.recipients
            return str(named[0].mailbox) if len(named) == 1 and named[0].mailbox.is_ascii else ""
        return str(recipients[0].mailbox) if len(recipients) == 1 else ""

    def _arrival(self, info: ReceivedInfo, forwarding: Forwarding | None) -> Arrival:
        user = self._user or None
        return Arrival(self._client or None, info.name, user, info.hostname.ascii, info.id, forwarding, self._trusted)

    def _note(self, size: int, reply: Reply) -> None:
        service, machine, name = self._service, self._machine, self._name
        recipients, sender = machine.recipients, str(self._sender)
        if not reply.is_positive:
            recipient = str(recipients[0].mailbox) if len(recipients) == 1 else ""
            service.emit(
                MailRefused(
                    service.name,
                    self.client,
                    self._user,
                    sender,
                    recipient,
                    reply,
                    size,
                    message=name.id,
                    message_id=name.message_id,
                )
            )
            return
        service.emit(
            MailTaken(
                service.name,
                self.client,
                self._user,
                machine.protocol,
                sender,
                len(recipients) if len(recipients) < 2 else len({each.mailbox for each in recipients}),
                size,
                reply,
                message=name.id,
                message_id=name.message_id,
            )
        )

    def _forget(self) -> None:
        if self._recipients_room:
            self._room.memory.give_back(self._recipients_room, self._key)
            self._recipients_room = 0
        self._expanded = {}
        if self._intake is not None:
            self._intake.close()
            self._intake = None

    # Logging in -------------------------------------------------------------------------------------------------------

    async def _log_in(self, command: Auth | AuthResponse) -> None:
        self._machine.answer(await self._login_reply(command))
        self._go_on()

    async def _login_reply(self, command: Auth | AuthResponse) -> Reply:
        if isinstance(command, Auth):
            self._exchange = SERVERS[command.mechanism](), command.mechanism
            response = command.initial_response
        else:
            response = command.response
        if response == "*" or self._exchange is None:
            return usual_reply(self._machine, command, self._service.hostname.ascii)
        try:
            step = self._exchange[0].take(response)
        except InvalidValue as error:
            self._note_client_refused("AUTH", str(error))
            return _MALFORMED
        return Reply(334, None, (step.text,)) if isinstance(step, Challenge) else await self._verify(step)

    async def _verify(self, credentials: Credentials) -> Reply:
        service, authenticator = self._service, self._service.authenticator
        if authenticator is None:
            return _WRONG
        reply = _WRONG
        self._busy = True
        try:
            if service.logins is None:
                verdict = await authenticator.verify(credentials)
            else:
                verdict = await service.logins.verify(authenticator, self._key, credentials)
            if verdict is True:
                self._user = login_name(credentials.user)
                return _LOGGED_IN
            user = credentials.user[:100].encode("utf-8", "replace").decode("utf-8")  # it may be no UTF-8
            if verdict is HELD_BACK:
                service.emit(LoginHeldBack(service.name, self.client, user))
                reply = HELD_BACK
            elif isinstance(verdict, Reply):
                return verdict
            else:
                service.emit(LoginFailed(service.name, self.client, user))
                await service.clock.sleep(WRONG_LOGIN)
        finally:
            self._busy = False
        self._failed_logins += 1
        return _TOO_MANY_LOGINS if self._failed_logins >= MAX_LOGINS else reply

    def _forget_login(self) -> None:
        self._user = ""
        self._exchange = None


def offer(service: Service, *, secure: bool, local: bool) -> Capabilities:
    """What a client is offered now. Passwords go over TLS only, or never leave this machine."""
    may_log_in = service.authenticator is not None and (secure or local)
    return replace(
        FULL_OFFER,
        starttls=service.tls is not None and not secure,
        requiretls=secure,  # RFC 8689 3: offered under TLS only
        auth=frozenset(SERVERS) if may_log_in else frozenset(),
        max_size=service.max_size,
        max_recipients=service.max_recipients,
    )


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
    """The one reply for a message of several recipients.

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
