"""One connection to an MX host of the lab: the server machine, played by a script.

What the client said and heard is kept (`transcript`, in clear and from inside TLS alike), and so is every command that
made sense. A task of its own plays the script; the channel tells it what arrives.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mailrider.errors import NetworkError
from mailrider.lab.mx_script import (
    Action,
    Close,
    DelayedReply,
    EndlessOutput,
    ExtraOctets,
    Raw,
    Silence,
    SlowReply,
    Stage,
    Stall,
    TLSFault,
    parse_reply,
    stage_of,
)
from mailrider.model.address import NULL_PATH
from mailrider.model.reply import Reply
from mailrider.smtp.commands import Command, Mail, Rcpt
from mailrider.smtp.replies import encode_reply, usual_reply
from mailrider.smtp.server import ServerMachine
from mailrider.smtp.server_states import ContentChunk, Event, Rejected, ServerState

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from mailrider.lab.mx import LabMX
    from mailrider.lab.mx_script import MXScript
    from mailrider.model.domain import NextHop
    from mailrider.model.security import TLSEvidence
    from mailrider.net.channel import Channel

MAX_TRANSCRIPT = 256 * 1024  # octets kept of a connection; what goes beyond is counted only
MAX_ENDLESS = 64 * 1024 * 1024  # octets after which even endless replies end: nobody should have read that much
_AT_ONCE = 16 * 1024  # octets of endless replies in one write
_HANDSHAKE_FAILURE = bytes.fromhex("15 0303 0002 02 28")  # RFC 8446 6: a fatal alert, in clear
_NOT_TLS = b"454 4.7.0 On second thoughts, no TLS\r\n"


@dataclass(frozen=True, slots=True)
class DialogueOctets:
    """Some octets of the dialogue: who wrote them, `C`lient or `S`erver, and whether TLS hid them."""

    who: str
    octets: bytes
    secure: bool


@dataclass(frozen=True, slots=True)
class LabMessage:
    """An accepted message, as it arrived. `content` is empty where the host was told not to keep it."""

    mail: Mail
    recipients: tuple[Rcpt, ...]
    content: bytes
    size: int
    sha256: str
    connection: LabConnection

    @property
    def sender(self) -> str:
        """The reverse-path, empty for the null path."""
        return str(self.mail.sender)

    @property
    def addresses(self) -> list[str]:
        """The recipients' addresses."""
        return [str(recipient.mailbox) for recipient in self.recipients]


class LabConnection:
    """A connection, open or closed; a receiver of its channel."""

    def __init__(self, host: LabMX, script: MXScript, channel: Channel, number: int) -> None:
        self.number = number
        """Counted from 1, over all connections to the host."""
        self.transcript: list[DialogueOctets] = []
        self.octets = {"C": 0, "S": 0}
        """How much was written in all, by client and server."""
        self.commands: list[Command] = []
        """Every command that made sense, granted or not."""
        self.rejected: list[Rejected] = []
        self.tls: TLSEvidence | None = None
        """What the client proved, and the name that it asked for (`sni`)."""
        self.tls_error: Exception | None = None
        self.is_open = True
        self.error: Exception | None = None
        """Why it ended, if not in order."""
        implicit = script.tls is not None and script.tls.implicit
        self._host = host
        self._script = script
        self._channel = channel
        self._machine = ServerMachine(script.offered(secure=implicit), script.limits, lmtp=script.lmtp, secure=implicit)
        self._changed = asyncio.Event()
        self._deaf = False
        self._paused = False
        self._content: list[bytes] = []
        self._digest = hashlib.sha256()
        self._size = 0

    # What the client said ---------------------------------------------------------------------------------------------

    @property
    def client_address(self) -> str:
        """Where the client connected from."""
        return self._channel.peer_address

    async def close(self) -> None:
        """Close it now, whatever the script says."""
        await self._channel.close()

    @property
    def sni(self) -> str | None:
        """The name that the client asked for in TLS."""
        return None if self.tls is None else self.tls.sni

    @property
    def client_name(self) -> NextHop | None:
        """What the client called itself last."""
        return self._machine.client_name

    def said(self, who: str = "C", *, secure: bool | None = None) -> bytes:
        """All that one side wrote; with `secure` only what was hidden by TLS, or what was not."""
        return b"".join(said.octets for said in self.transcript if said.who == who and secure in (None, said.secure))

    def dialogue(self) -> str:
        """The transcript for people."""
        lines = [
            f"{said.who}{'*' if said.secure else ':'} {line.decode('utf-8', 'backslashreplace').rstrip()}"
            for said in self.transcript
            for line in said.octets.splitlines(keepends=True)
        ]
        return "\n".join(lines)

    def _note_command(self, command: Command) -> None:
        self.commands.append(command)
        self._host.command_received()

    def _note(self, who: str, octets: bytes) -> None:
        room = MAX_TRANSCRIPT - self.octets["C"] - self.octets["S"]
        self.octets[who] += len(octets)
        if room > 0:
            self.transcript.append(DialogueOctets(who, octets[:room], self._machine.is_secure))

    # The channel's side -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._note("C", data)
        if not self._deaf:
            self._machine.receive(data)
            if self._machine.is_full:
                self._paused = True
                self._channel.pause_reading()
        self._changed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self.error = error
        self._changed.set()
        self._host.connection_ended()

    # The script's side ------------------------------------------------------------------------------------------------

    def play(self) -> Coroutine[Any, Any, None]:
        """Begin now; the rest of the dialogue is to be awaited. It ends with the connection, or with the script."""
        return self._play(self._start_tls() if self._machine.is_secure else None)

    async def _play(self, handshake: Coroutine[Any, Any, None] | None) -> None:
        try:
            if handshake is not None:
                await handshake
            while self.is_open:
                await self._round()
        except (_ScriptEnded, NetworkError):
            pass  # NetworkError: the client has gone; connection_lost tells
        finally:
            self._channel.abort()

    async def _round(self) -> None:
        machine = self._machine
        event = machine.next_event()
        if event is not None:
            await self._take(event)
            return
        self._flush()
        if machine.state is ServerState.CLOSED:
            await self._channel.close()
        elif machine.state is ServerState.HANDSHAKE:
            await self._start_tls()
            machine.tls_established(self._script.offered(secure=True))
        else:
            self._read_on()
            await self._news()

    async def _take(self, event: Event) -> None:
        machine = self._machine
        if isinstance(event, ContentChunk):
            await self._take_content(event.octets)
        elif isinstance(event, Rejected):
            self.rejected.append(event)
            if event.command is not None:
                self._note_command(event.command)
        else:
            self._note_command(event)
            while machine.answers_due:
                stage, address = self._where(event)
                await self._perform(event, self._host.next_action(self._script, event, stage, address))
        if machine.mail is None and self._size:
            self._content = []
            self._digest = hashlib.sha256()
            self._size = 0

    def _where(self, command: Command) -> tuple[Stage, str | None]:
        """The stage, and the address that it is about."""
        stage = stage_of(command)
        if stage is Stage.EHLO and self._machine.is_secure and Stage.EHLO_IN_TLS in self._script.replies:
            return Stage.EHLO_IN_TLS, None
        if isinstance(command, Rcpt):
            return stage, str(command.mailbox)
        if stage is Stage.END and self._script.lmtp:
            return stage, self._message().addresses[0]
        return stage, None

    # Content ----------------------------------------------------------------------------------------------------------

    async def _take_content(self, octets: bytes) -> None:
        before = self._size
        self._size += len(octets)
        self._digest.update(octets)
        if self._host.keeps_content:
            self._content.append(octets)
        if self._script.content is not None and before <= self._script.content_after < self._size:
            self._flush()
            await self._interrupt(self._script.content)

    async def _interrupt(self, action: Action) -> None:
        """Something happens while the client sends content."""
        match action:
            case str() | Reply():
                self._write(_encode(action))
                await self._fail(Silence())
            case Raw(octets) | ExtraOctets(octets):
                self._write(octets)
            case SlowReply() | DelayedReply():
                raise ValueError(f"content has no reply that could come late: {action}")
            case _:
                await self._fail(action)

    def _message(self) -> LabMessage:
        """The message whose end is to be answered; in LMTP for one recipient after the other."""
        machine = self._machine
        recipients = machine.recipients
        if self._script.lmtp:
            recipients = [recipients[len(recipients) - machine.answers_due]]
        content = b"".join(self._content)
        mail = machine.mail or Mail(NULL_PATH)
        return LabMessage(mail, tuple(recipients), content, self._size, self._digest.hexdigest(), self)

    # Actions ----------------------------------------------------------------------------------------------------------

    async def _perform(self, command: Command, action: Action | None) -> None:
        machine = self._machine
        usual = usual_reply(machine, command, self._script.hostname)
        match action:
            case None:
                self._answer(command, usual)
            case str() | Reply():
                self._answer(command, _reply(action))
            case Raw(octets):
                self._flush()
                self._answer(command, usual)
                machine.take_output()
                self._write(octets)
            case ExtraOctets(octets):
                self._answer(command, usual)
                self._write(machine.take_output() + octets)
            case SlowReply(reply, seconds):
                self._flush()
                self._answer(command, parse_reply(reply) if reply else usual)
                await self._send_slowly(machine.take_output(), seconds)
            case DelayedReply(seconds, reply):
                self._flush()
                await self._host.clock.sleep(seconds)
                self._answer(command, parse_reply(reply) if reply else usual)
            case _:
                if stage_of(command) is Stage.END:
                    self._host.message_unanswered(self._message())
                self._flush()
                await self._fail(action)

    def _answer(self, command: Command, reply: Reply) -> None:
        if stage_of(command) is Stage.END and reply.is_positive:
            self._host.message_accepted(self._message())
        self._machine.answer(reply)

    async def _fail(self, fault: Close | Silence | Stall | EndlessOutput) -> NoReturn:
        """Nothing sensible comes after this."""
        channel = self._channel
        match fault:
            case Close(reply, abrupt):
                if reply:
                    self._write(_encode(reply))
                if abrupt:
                    channel.abort()
                else:
                    await channel.close()
            case Silence():
                self._deaf = True
                self._read_on()
                await self._end()
            case Stall():
                channel.pause_reading()
                await self._end()
            case EndlessOutput(octets):
                self._deaf = True
                self._read_on()
                many = octets * (_AT_ONCE // len(octets) + 1)
                while not channel.is_closed and self.octets["S"] < MAX_ENDLESS:
                    self._write(many)
                    if channel.needs_drain:
                        await channel.drain()
        raise _ScriptEnded

    async def _send_slowly(self, octets: bytes, seconds: float) -> None:
        for octet in octets:
            if not self.is_open:
                raise _ScriptEnded
            self._write(bytes([octet]))
            await self._host.clock.sleep(seconds)

    def _write(self, octets: bytes) -> None:
        if octets:
            self._note("S", octets)
            self._channel.write(octets)

    def _flush(self) -> None:
        self._write(self._machine.take_output())

    def _read_on(self) -> None:
        if self._paused:
            self._paused = False
            self._channel.resume_reading()

    async def _end(self) -> None:
        while self.is_open:
            await self._news()

    async def _news(self) -> None:
        """Wait until something arrives, or the connection ends."""
        self._changed.clear()
        await self._changed.wait()

    # TLS --------------------------------------------------------------------------------------------------------------

    def _start_tls(self) -> Coroutine[Any, Any, None]:
        """What arrives from now on is the handshake; how it goes is to be awaited."""
        tls = self._script.tls
        if tls is None or tls.fault not in (None, TLSFault.REJECTS_LATE):
            self._deaf = True
            return self._break_tls(None if tls is None else tls.fault)
        return self._finish_tls(self._channel.start_tls_server(self._host.context_of(tls)))

    async def _finish_tls(self, handshake: Coroutine[Any, Any, TLSEvidence]) -> None:
        try:
            self.tls = await handshake
        except NetworkError as error:
            self.tls_error = error
            raise

    async def _break_tls(self, fault: TLSFault | None) -> NoReturn:
        """A fault, or a script that granted STARTTLS without having any TLS."""
        if fault is not None:
            await self._news()  # what the handshake begins with
        match fault:
            case TLSFault.GARBAGE:
                self._write(_NOT_TLS)
                await self._end()
            case TLSFault.ALERT:
                self._write(_HANDSHAKE_FAILURE)
                await self._channel.close()
            case TLSFault.SILENCE:
                await self._end()
            case _:
                await self._channel.close()
        raise _ScriptEnded


class _ScriptEnded(Exception):
    """The script has nothing more to say on this connection."""


def _reply(given: str | Reply) -> Reply:
    return parse_reply(given) if isinstance(given, str) else given


def _encode(given: str | Reply) -> bytes:
    return encode_reply(_reply(given))
