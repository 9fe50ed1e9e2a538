"""One client of an endpoint: the server machine over a channel, and who answers what.

Commands are answered where they arrive; what has to be waited for (the end of a message, a password, TLS, a client that
does not read) is the business of a task that each connection has, and nothing else is answered meanwhile. MAIL and RCPT
are a matter of `endpoint.transaction`, content of `endpoint.message`, AUTH of `endpoint.authentication`, and the time
that a client may take of `clock.Patience`. What always holds:

- reading stops while the machine has enough to do, so that a client can fill no memory;
- who closes his half of the connection in clear gets the replies to what he has said before, and then we close.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from mailrider.clock import Patience
from mailrider.endpoint.authentication import Authentication
from mailrider.endpoint.intake import IntakeSpace
from mailrider.endpoint.message import IncomingMessage
from mailrider.endpoint.service import offer
from mailrider.endpoint.transaction import IncomingTransaction
from mailrider.errors import NetworkError
from mailrider.model.endpoint_event import ClientCutOff, ClientLeft, ClientRefused
from mailrider.model.event import Bug
from mailrider.model.reply import Reply
from mailrider.smtp.commands import Auth, AuthResponse, Bdat, Data, EndOfData, Mail, Rcpt
from mailrider.smtp.parse import NO_COMMAND
from mailrider.smtp.replies import usual_reply
from mailrider.smtp.server import ServerMachine
from mailrider.smtp.server_states import ContentChunk, Limits, Rejected, ServerState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from mailrider.endpoint.authentication import Client
    from mailrider.endpoint.service import Service
    from mailrider.model.security import TLSEvidence
    from mailrider.net.channel import Channel

HANDSHAKE: Final = 60.0  # seconds for TLS; longer only who does nothing takes
LIMITS: Final = Limits(max_commands=1000)
# A program of this machine may write a whole dialogue into a pipe (`sendmail -bs`); nobody else can get at the socket.
LOCAL_LIMITS: Final = replace(LIMITS, strict_groups=False)

# The states in which the task goes on.
_FOR_THE_TASK: Final = (ServerState.CLOSED, ServerState.HANDSHAKE)

_GOING_DOWN: Final = Reply.make(421, "4.3.2", "Shutting down; good bye")
_TOO_SLOW: Final = Reply.make(421, "4.4.2", "You took too long; good bye")
_BROKEN: Final = Reply.make(421, "4.3.0", "Internal error, try again later")
_CUT_SHORT: Final = "shut down in the middle of it"


class ClientSession:
    """One connection; a receiver of its channel."""

    __slots__ = (
        "_authentication",
        "_channel",
        "_has_erred",
        "_input_ended",
        "_is_dismissed",
        "_leaving",
        "_machine",
        "_message",
        "_open",
        "_patience",
        "_paused",
        "_pending",
        "_service",
        "_transaction",
        "_waiter",
        "_why",
        "client",
    )

    def __init__(self, service: Service, channel: Channel, client: Client, *, implicit_tls: bool = False) -> None:
        self._service = service
        self._channel = channel
        self.client = client
        """Who is at the other end."""
        self._machine = ServerMachine(
            offer(service, secure=implicit_tls, local=client.is_local),
            LIMITS if client.uid is None else LOCAL_LIMITS,
            lmtp=service.is_lmtp,
            secure=implicit_tls,
            origin=service.origin,
        )
        room = _room(service, client)
        self._transaction = IncomingTransaction(service, client, self._machine, room.memory)
        self._message = IncomingMessage(service, client, self._machine, self._transaction, room)
        self._authentication = Authentication(service, client, self._machine)
        self._patience = Patience(service.clock, service.read_timeout, self._end_of_patience)
        self._open = True
        self._input_ended = False  # nothing more will be said, and our replies are heard
        channel.on_end = self._end_input
        self._paused = False
        self._pending: EndOfData | Bdat | Auth | AuthResponse | None = None  # what the task is to take first
        self._leaving = False
        self._is_dismissed = False
        self._has_erred = False
        self._why = ""
        self._waiter: asyncio.Future[None] | None = None

    # The channel's side -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        machine, waiter = self._machine, self._waiter
        machine.receive(data)
        if waiter is not None and not waiter.done():
            try:
                if not (self._patience.is_over or self._leaving or self._answer_at_once()):
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
        self._why = self._why or _CUT_SHORT
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
        self._why = self._why or _CUT_SHORT
        self._channel.abort()

    # The task ---------------------------------------------------------------------------------------------------------

    async def _run(self, handshake: Coroutine[Any, Any, TLSEvidence] | None) -> None:
        try:
            if handshake is not None:
                await self._handshake("TLS", handshake)
            self._patience.restart()
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
            self._patience.stop()
            self._forget()
            self._channel.abort()
            self._service.emit(ClientLeft(self._service.name, self.client.name, self._why))

    def _answer_at_once(self) -> bool:
        """Take what need not be waited for; True if there is something for the task."""
        machine, channel = self._machine, self._channel
        has_answered = False
        while (event := machine.next_event()) is not None:
            match event:
                case Mail() | Rcpt() | Data():  # most of what is asked
                    machine.answer(self._transaction.reply(event))
                case ContentChunk():
                    self._message.feed(event.octets)
                    self._patience.note_content(len(event.octets))
                    continue
                case EndOfData() | Bdat(last=True) | Auth() | AuthResponse():
                    self._pending = event
                    break
                case Rejected():
                    self._note_rejected(event)
                case _:
                    machine.answer(self._transaction.reply(event))
            has_answered = True
            if machine.mail is None:
                self._forget()
        if has_answered:
            self._patience.restart()
        if self._pending is not None:
            return True
        if output := machine.take_output():
            channel.write(output)
        return machine.state in _FOR_THE_TASK or channel.needs_drain

    def _next_step(self) -> Awaitable[object]:
        """What the task has to await next: there is no more that can be done at once."""
        machine = self._machine
        if self._pending is None:
            if self._patience.is_over:
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
        if self._channel.needs_drain and not self._patience.is_over:
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

    async def _finish(self) -> None:
        """The message is complete: hand it over, and say what came of it, in LMTP for each recipient."""
        machine = self._machine
        if machine.recipients:
            self._patience.is_working = True
            try:
                replies = await self._message.finish(self._channel.tls)
            finally:
                self._patience.is_working = False
            for reply in replies:
                if machine.answers_due:
                    machine.answer(reply)
        else:
            machine.answer(usual_reply(machine, EndOfData(), self._service.hostname.ascii))
        self._go_on()

    async def _log_in(self, command: Auth | AuthResponse) -> None:
        self._patience.is_working = True
        try:
            reply = await self._authentication.reply(command)
        finally:
            self._patience.is_working = False
        self._machine.answer(reply)
        self._go_on()

    def _go_on(self) -> None:
        """A command is answered: the next one has its own time, and a transaction that is over leaves nothing."""
        self._patience.restart()
        if self._machine.mail is None:
            self._forget()

    def _forget(self) -> None:
        self._transaction.forget()
        self._message.forget()

    def _end_of_patience(self) -> None:
        if self._channel.needs_drain:
            self._why = "does not read our replies"
            self._channel.abort()
        self._wake()

    # TLS --------------------------------------------------------------------------------------------------------------

    async def _begin_anew(self, handshake: Coroutine[Any, Any, TLSEvidence]) -> None:
        """Behind STARTTLS; see RFC 3207 4.2."""
        await self._handshake("STARTTLS", handshake)
        self._authentication.forget()
        self._machine.tls_established(offer(self._service, secure=True, local=self.client.is_local))
        self._patience.restart()

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

    # The log ----------------------------------------------------------------------------------------------------------

    def _cut_off(self, reason: str) -> None:
        self._why = reason
        self._service.emit(ClientCutOff(self._service.name, self.client.name, reason))

    def _note_rejected(self, event: Rejected) -> None:
        command, reply = event.command, event.reply
        said = event.said or (NO_COMMAND if command is None else type(command).__name__.upper())
        if self._machine.state is ServerState.CLOSED:
            self._cut_off(f"{said}: {reply.text}")
        elif isinstance(command, EndOfData | Bdat | Mail | Rcpt):
            sender = self._transaction.sender if event.mail is None else event.mail.sender
            self._transaction.note_refused(command, reply, sender, event.recipients)
        elif not self._has_erred:
            # One line a client: what follows is mostly the consequence.
            self._has_erred = True
            self._note_client_refused(said, str(reply))

    def _note_client_refused(self, command: str, reason: str) -> None:
        self._service.emit(ClientRefused(self._service.name, self.client.name, self.client.user, command, reason))


def _room(service: Service, client: Client) -> IntakeSpace:
    """What messages of the client may take: the network cannot keep the programs of this machine from sending."""
    if client.address:
        return IntakeSpace(service.memory, service.disk, service.spool)
    return IntakeSpace(service.local_memory, service.local_disk, service.spool)
