"""A literal dialogue drives a `Transaction` through a `ClientMachine`, as a connection would.

    transact(offer("PIPELINING"), mail("b"), '''
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: DATA
        S: 250 OK
        S: <close>
    ''')

`C:` is what must be sent now, `S:` what the server says. `C: <content>` is the message behind DATA, `C: .` its final
dot, `C: <5 octets>` what stands behind a BDAT, `S: <close>` the loss of the connection. A server that speaks before the
final dot is heard before it is sent. All must be used up in the end, and the transaction over.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING

from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.reply import Reply
from mailrider.smtp.capabilities import Capabilities, parse_capabilities
from mailrider.smtp.client import ClientMachine, ClientState, OutOfStep
from mailrider.smtp.commands import Ehlo, EndOfData, Quit
from mailrider.smtp.steps import SendChunk, SendCommands, SendContent, SendDot, SendQuit, Step
from mailrider.smtp.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.model.domain import NextHop

CLOSE = "<close>"


def offer(*keywords: str) -> Capabilities:
    """The capabilities of a server that offers `keywords`."""
    return parse_capabilities(Reply.from_lines(250, ("mx.example.net", *keywords)))


def past_ehlo(name: NextHop, offered: Capabilities) -> ClientMachine:
    """A machine at the beginning of a transaction."""
    machine = ClientMachine()
    machine.receive(b"220 mx.example.net\r\n")
    machine.send(Ehlo(name))
    machine.receive(b"250 mx.example.net\r\n")
    machine.capabilities = offered
    return machine


class _Play:
    def __init__(self, transaction: Transaction, machine: ClientMachine, script: Sequence[str]) -> None:
        self.transaction = transaction
        self.machine = machine
        self.script = list(script)
        self.lost = False

    def client(self, *lines: str) -> None:
        for line in lines:
            expected = self.script.pop(0) if self.script else "the end"
            assert f"C: {line}" == expected

    @property
    def server_speaks(self) -> bool:
        return bool(self.script) and self.script[0].startswith("S: ")

    def hear(self) -> None:
        """Hand over what the server says, up to the next line of the client."""
        while self.server_speaks:
            line = self.script.pop(0).removeprefix("S: ")
            if line == CLOSE:
                self.lost = True
            for answer in self.machine.receive(b"" if self.lost else f"{line}\r\n".encode()):
                try:
                    self.transaction.take(answer)
                except OutOfStep as error:
                    self.machine.violation = error
        if self.machine.violation is not None:
            self.lost = True
        if isinstance(self.machine.violation, OutOfStep):
            self.transaction.out_of_step()
        elif self.lost:
            self.transaction.lost()
        else:
            assert not self.machine.outstanding or self.machine.state is ClientState.CLOSED, "the script owes a reply"

    def perform(self, step: Step) -> None:
        if isinstance(step, SendCommands):
            self.client(*self.machine.send(*step.commands).decode().splitlines())
        elif isinstance(step, SendContent):
            self.client("<content>")
            if not self.server_speaks:
                self.client(".")
                self.machine.send(step.command)
                self.transaction.sent_final()
        elif isinstance(step, SendDot):
            self.client(".")
            self.machine.send(EndOfData())
            return  # nobody waits for the reply
        elif isinstance(step, SendQuit):
            self.client(*self.machine.send(Quit()).decode().splitlines())
        else:
            assert isinstance(step, SendChunk)
            self.client(self.machine.send(step.command).decode().rstrip(), f"<{step.command.size} octets>")
            if step.command.last:
                self.transaction.sent_final()
        self.hear()


def play(transaction: Transaction, machine: ClientMachine, script: str) -> None:
    """Drive the transaction to its end."""
    stage = _Play(transaction, machine, [line for line in dedent(script).splitlines() if line])
    while (step := transaction.next()) is not None:
        stage.perform(step)
    assert stage.script == []


def fates(transaction: Transaction) -> dict[str, str]:
    """Recipients by their local parts, and what became of them: stage and reply, `overflow` or `undecided`."""
    fate = dict.fromkeys(range(len(transaction.recipients)), "")
    for index, decision in transaction.decisions.items():
        fate[index] += f"{decision.stage} {decision.reply}"
    for index in transaction.overflow:
        fate[index] += "overflow"
    for index in transaction.undecided:
        fate[index] += "undecided"
    return {recipient.mailbox.local_part: fate[index] for index, recipient in enumerate(transaction.recipients)}


@dataclass(frozen=True)
class Facts:
    """A message, as far as a transaction looks at it."""

    size: int = 10
    eight_bit: bool = False
    header_is_utf8: bool = False


def to(*names: str) -> tuple[Recipient, ...]:
    return tuple(Recipient(Mailbox.parse(f"{name}@example.net")) for name in names)


def mail(*names: str, sender: str = "a@example.org", smtputf8: bool = False, requiretls: bool = False) -> Envelope:
    return Envelope(ReversePath.parse(sender), to(*names), smtputf8=smtputf8, requiretls=requiretls)


def transact(
    offered: Capabilities,
    envelope: Envelope,
    script: str,
    *,
    facts: Facts = Facts(),
    strict_eight_bit: bool = False,
    lmtp: bool = False,
    used: bool = False,
    session_codes: frozenset[int] = frozenset(),
) -> Transaction:
    """Play `script` with a server that offered that much."""
    transaction = Transaction(
        envelope,
        envelope.recipients,
        facts,
        offered,
        strict_eight_bit=strict_eight_bit,
        lmtp=lmtp,
        used=used,
        session_codes=session_codes,
    )
    play(transaction, past_ehlo(Domain("mx.example.org"), offered), script)
    return transaction
