"""Literal dialogues for the server machine: `C:` what the client writes, `S:` what the server must answer.

    S: 220 mx.example.org ESMTP
    C: EHLO client.example
    S: 250 mx.example.org

Consecutive `C:` lines are one write. `C>` is a line without its CRLF; `\\r`, `\\n`, `\\0`, `\\\\` stand for themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailrider.smtp.capabilities import FULL_OFFER
from mailrider.smtp.commands import Bdat, Command, EndOfData, Mail, Rcpt
from mailrider.smtp.replies import usual_reply
from mailrider.smtp.server import ServerMachine
from mailrider.smtp.server_states import ContentChunk, Event, Limits, Rejected

if TYPE_CHECKING:
    from mailrider.model.reply import Reply
    from mailrider.smtp.capabilities import Capabilities

HOST = "mx.example.org"
EHLO = """
S: 220 mx.example.org ESMTP
C: EHLO client.example
S: 250-mx.example.org
S: 250-PIPELINING
S: 250-SIZE
S: 250-8BITMIME
S: 250-SMTPUTF8
S: 250-CHUNKING
S: 250-DSN
S: 250 ENHANCEDSTATUSCODES
"""
LAX = Limits(strict_groups=False)

_ESCAPES = {"\\r": "\r", "\\n": "\n", "\\0": "\0", "\\\\": "\\"}


@dataclass
class Message:
    """What the application was given, as it was given."""

    mail: Mail
    recipients: tuple[Rcpt, ...]
    content: bytes


@dataclass
class Application:
    """Answers what the machine asks: as `decide` says, or as usual."""

    machine: ServerMachine
    decide: Callable[[Command], Reply | None] = field(default=lambda _: None)
    messages: list[Message] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    content: bytes = b""

    def run(self) -> bytes:
        while (event := self.machine.next_event()) is not None:
            self.take(event)
        return self.machine.take_output()

    def take(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ContentChunk):
            assert event.octets
            self.content += event.octets
        elif not isinstance(event, Rejected):
            self.reply(event)
        if self.machine.mail is None:
            self.content = b""

    def reply(self, command: Command) -> None:
        mail, recipients = self.machine.mail, tuple(self.machine.recipients)
        reply = self.decide(command) or usual_reply(self.machine, command, HOST)
        if reply.is_positive and (isinstance(command, EndOfData) or (isinstance(command, Bdat) and command.last)):
            assert mail is not None
            self.messages.append(Message(mail, recipients, self.content))
        while self.machine.answers_due:
            self.machine.answer(reply)

    @property
    def rejected(self) -> list[Rejected]:
        return [event for event in self.events if isinstance(event, Rejected)]


Decide = Callable[[Command], "Reply | None"]


def as_usual(_: Command) -> None:
    """Everything is welcome."""


def turns(dialogue: str) -> Iterator[tuple[bytes, bytes]]:
    """Pairs of what the client writes and what the server answers."""
    client, server = b"", b""
    for line in filter(None, [line.lstrip(" ") for line in dialogue.split("\n")]):
        text = re.sub(r"\\[rn0\\]", lambda match: _ESCAPES[match[0]], line[3:]).encode()
        if line.startswith("S:"):
            server += text + b"\r\n"
            continue
        assert line.startswith(("C:", "C>")), line
        if server:
            yield client, server
            client, server = b"", b""
        client += text + (b"\r\n" if line.startswith("C:") else b"")
    yield client, server


def run(app: Application, dialogue: str, size: int = 1 << 20) -> None:
    """Have the dialogue, each of the client's writes in chunks of `size` octets."""
    for client, server in turns(dialogue):
        heard = app.run()
        for start in range(0, len(client), size):
            app.machine.receive(client[start : start + size])
            heard += app.run()
        assert heard == server, f"{client!r}\nwas answered\n{heard!r}\ninstead of\n{server!r}"


def converse(
    dialogue: str,
    decide: Decide = as_usual,
    *,
    offer: Capabilities = FULL_OFFER,
    limits: Limits = LAX,
    lmtp: bool = False,
) -> Application:
    """Have the dialogue whole, octet by octet, in one write (where limits are lax), and with more behind it."""
    app = Application(ServerMachine(offer, limits, lmtp=lmtp), decide)
    run(app, dialogue)
    by_octet = Application(ServerMachine(offer, limits, lmtp=lmtp), decide)
    run(by_octet, dialogue, size=1)
    assert by_octet.messages == app.messages
    if not limits.strict_groups:
        said, heard = (b"".join(side) for side in zip(*turns(dialogue), strict=True))
        at_once = Application(ServerMachine(offer, limits, lmtp=lmtp), decide)
        at_once.machine.receive(said + b"NOO")
        assert at_once.run().decode() == heard.decode()
        assert at_once.messages == app.messages
    return app


def machine_after(dialogue: str, *, offer: Capabilities = FULL_OFFER, limits: Limits = LAX) -> ServerMachine:
    """A machine that has had this dialogue."""
    app = Application(ServerMachine(offer, limits))
    run(app, dialogue)
    return app.machine
