"""Talking SMTP over a channel: commands out, answers in, each step bounded (RFC 5321 4.5.3.2).

A `Conversation` joins a `Channel` and a `ClientMachine`. It waits for answers and for room to write, under one watchdog
timer that holds the deadline of the moment: no timer is made for a command. A deadline is for a whole reply, never for
a byte.

What it raises ends the conversation: `ConnectionLost`, `DeadlineExceeded`, `TLSFailed`, or what the machine calls a
violation. Answers that arrived before that are not lost: `take_answers` has them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from mailrider.clock import Alarm, Deadline
from mailrider.errors import ConnectionLost, DeadlineExceeded, NetworkError
from mailrider.model.event import Dialogue
from mailrider.smtp.client import AnsweredCommand, ClientMachine, ClientState
from mailrider.smtp.commands import Auth, AuthResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mailrider.clock import Clock
    from mailrider.delivery.connection.transcript import DialoguePart
    from mailrider.model.event import Emit
    from mailrider.model.security import TLSEvidence
    from mailrider.net.channel import Channel
    from mailrider.net.tls import ClientContext
    from mailrider.smtp.commands import Command


NEVER: Final = float("inf")
# A member of an enumeration costs as much as a call each time that it is looked up; these are asked for at each reply.
_READY: Final = ClientState.READY
_CLOSED: Final = ClientState.CLOSED


class Conversation:
    """The channel's receiver, and the only one that writes to it. `mx` names the peer in the dialogue's log."""

    __slots__ = (
        "_alarm",
        "_answers",
        "_clock",
        "_deadline",
        "_dialogue",
        "_is_draining",
        "_loop",
        "_mx",
        "_seconds",
        "_until",
        "_waiter",
        "bytes_received",
        "channel",
        "error",
        "machine",
        "said",
        "unexpected",
    )

    def __init__(self, channel: Channel, clock: Clock, mx: str, dialogue: Emit | None = None) -> None:
        self.channel = channel
        self.machine = ClientMachine()
        self.bytes_received = 0
        self.unexpected: Callable[[], object] | None = None
        """Called when something arrives, or the conversation ends, while nobody waits for it."""
        self.said: list[DialoguePart] | None = []
        """What was said until the connection was open; None from then on. See `said`."""
        self._clock = clock
        self._mx = mx
        self._dialogue = dialogue
        self._loop = asyncio.get_running_loop()
        self._answers: list[AnsweredCommand] = []
        self.error: Exception | None = None
        """What ended the conversation; None while it goes on."""
        self._waiter: asyncio.Future[None] | None = None
        self._deadline: float | None = None  # of the reply that is due next, while somebody waits for it
        self._seconds = 0.0
        self._until = NEVER
        self._is_draining = False
        self._alarm = Alarm(clock, self._watch)
        channel.receiver = self

    @property
    def has_answers(self) -> bool:
        """True if something arrived that nobody took yet."""
        return bool(self._answers)

    @property
    def server_name(self) -> str:
        """How the server named itself in its latest reply to EHLO; empty if it did not."""
        return self.machine.capabilities.greeting.partition(" ")[0]

    @property
    def is_at_rest(self) -> bool:
        """True if a command may be sent, and nothing is left of what went before."""
        machine = self.machine
        at_rest = machine.state is _READY and not machine.outstanding and not self._answers
        return at_rest and self.error is None and not self.channel.is_closed

    # The channel speaks ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """See `net.channel.Receiver`."""
        self.bytes_received += len(data)
        machine = self.machine
        answers = machine.receive(data)
        self._answers += answers
        if self.said is not None:
            self.said += answers
        if self._dialogue is not None:
            self._show_answers(answers)
        if machine.violation is not None:
            self._fail(machine.violation)
            self.channel.abort()
        elif self._is_draining and machine.state is _CLOSED:
            self.channel.abort()  # it refused the content in the middle, and need not read the rest
        elif not machine.outstanding or machine.state is _CLOSED:
            self._wake()
        elif answers and self._deadline is not None:
            # RFC 5321 4.5.3.2: each reply has its time; that of the next one begins now.
            self._deadline = min(self._clock.monotonic() + self._seconds, self._until)

    def connection_lost(self, error: Exception | None) -> None:
        """See `net.channel.Receiver`."""
        self._fail(error or ConnectionLost(f"{self._mx} closed the connection"))
        self._alarm.cancel()

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            answers = self.machine.end()
            self._answers += answers
            self._show_answers(answers)
            self._note(f"-- {error}")
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            if self.unexpected is not None:
                self.unexpected()
        elif not waiter.done():
            waiter.set_result(None)

    # We speak --------------------------------------------------------------------------------------------------------

    def send(self, *commands: Command) -> None:
        """Write a group of commands; after the end of the conversation it does nothing."""
        if self.said is not None:
            self.said += commands
        if self._dialogue is not None:
            self._show_commands(commands)
        octets = self.machine.send(*commands)
        if octets:
            self.channel.write(octets)

    def prepare(self, *commands: Command) -> bytes:
        """The octets that `send` would write, for the caller to write together with more."""
        if self._dialogue is not None:
            self._show_commands(commands)
        return self.machine.send(*commands)

    async def answers(self, seconds: float, until: float = NEVER) -> list[AnsweredCommand]:
        """The answers to all that was sent, or to as much as the server answers before it takes its leave.

        Each of them has so many `seconds`, from the one before; and all have to be there at the moment `until`.
        Raises what ended the conversation, if it ended before; then `take_answers` has those that came.
        """
        machine = self.machine
        if machine.outstanding and machine.state is not _CLOSED and self.error is None:
            self._waiter = waiter = self._loop.create_future()
            self._seconds = seconds
            self._until = until
            deadline = self._clock.monotonic() + seconds
            if until < deadline:
                deadline = until
            self._deadline = deadline
            if deadline < self._alarm.at:
                self._alarm.set(deadline)
            try:
                await waiter
            finally:
                self._deadline = None
                self._waiter = None
        if self.error is not None and (machine.outstanding or machine.violation is not None):
            raise self.error
        return self.take_answers()

    def monotonic(self) -> float:
        """The moment, as `until` has it."""
        return self._clock.monotonic()

    def take_answers(self) -> list[AnsweredCommand]:
        """The answers that came since the last call."""
        answers, self._answers = self._answers, []
        return answers

    async def drain(self, seconds: float) -> None:
        """Wait until the channel takes more. Raises as `answers` does."""
        self._is_draining = True
        try:
            async with Deadline(self._clock, self._clock.monotonic() + seconds):
                await self.channel.drain()
        except TimeoutError:
            text = f"{self._mx} did not take 64 KiB of content within {seconds:g} s"
            self._expire_now(text)
            raise DeadlineExceeded(text) from None
        except ConnectionLost:
            if self.error is not None:
                raise self.error from None
            raise
        finally:
            self._is_draining = False

    async def start_tls(self, context: ClientContext, server_name: str | None, seconds: float) -> TLSEvidence:
        """The handshake that is due after the 220, or at once. Raises `TLSFailed`."""
        if self.error is not None:
            raise self.error
        deadline = self._clock.monotonic() + seconds
        try:
            evidence = await self.channel.start_tls_client(context, server_name, deadline)
        except NetworkError as error:
            self._note(f"-- TLS: {error}")
            raise
        self._note(f"-- {evidence.version} {evidence.cipher}")
        if self.machine.state is ClientState.HANDSHAKE:
            self.machine.tls_established()
        return evidence

    def _note(self, text: str) -> None:
        if self.said is not None:
            self.said.append(text)

    def _watch(self) -> None:
        """The watchdog: most of the time the deadline that it was set for is long gone by."""
        if self._deadline is None:
            return
        if self._clock.monotonic() < self._deadline:
            self._alarm.set(self._deadline)
        else:
            self._expire_now(f"{self._mx} did not answer in time")

    def _expire_now(self, message: str) -> None:
        self._fail(DeadlineExceeded(message))
        self.channel.abort()

    # The log ---------------------------------------------------------------------------------------------------------

    def _show_answers(self, answers: Iterable[AnsweredCommand]) -> None:
        for _, reply in answers:
            for line in reply.lines:
                self._show("S", f"{reply.code} {reply.enhanced or ''} {line}".replace("  ", " "))

    def _show_commands(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if isinstance(command, Auth | AuthResponse):
                self._show("C", repr(command))
            elif line := command.encode():
                self._show("C", line.decode("utf-8", "backslashreplace").rstrip())

    def _show(self, direction: str, line: str) -> None:
        if self._dialogue is not None:
            self._dialogue(Dialogue(self._mx, self.channel.peer_address, direction, line))
