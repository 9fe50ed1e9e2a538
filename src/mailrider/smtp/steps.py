"""What a transaction knows of a content, asks its driver to do, and decides; and what a decision is worth. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mailrider.model.outcome import TryResult
from mailrider.model.reply import EnhancedCode, Reply
from mailrider.model.value import value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.model.envelope import Recipient
    from mailrider.smtp.commands import Bdat, Command, EndOfData


class ContentFacts(Protocol):
    """What a transaction must know of a message's content: `size` in octets as it will be sent, before dot-stuffing."""

    @property
    def size(self) -> int: ...
    @property
    def eight_bit(self) -> bool: ...
    @property
    def header_is_utf8(self) -> bool: ...


@value
class Decision:
    """What this server decided about a recipient: its reply, and the stage that it answers.

    `is_ours`: the reply is our own, since the server's capabilities left no other choice.
    """

    stage: TryResult
    reply: Reply
    is_ours: bool = False

    @property
    def may_try_another(self) -> bool:
        """True for a 4xx before the end of data: another candidate may think otherwise (RFC 5321 4.2.1)."""
        return self.reply.is_transient and self.stage is not TryResult.FINAL

    def wants_proof(self, envelope_in_step: bool) -> bool:
        """True for a refusal for good that may be the answer to something else. `envelope_in_step`: 354 came."""
        is_proved = envelope_in_step and self.stage is not TryResult.FINAL
        return self.reply.is_permanent and not self.is_ours and not is_proved

    def may_be_displaced(self, envelope_in_step: bool, *, lmtp: bool) -> bool:
        """True if it may rest on the answer to something else, as a surplus reply came.

        An acceptance behind 354 stands: it came first, and the surplus reply behind it.
        """
        if self.stage is TryResult.FINAL:
            return lmtp or not (envelope_in_step and self.reply.is_positive)
        return not (self.is_ours or envelope_in_step)


@value
class SendCommands:
    """Write these as one group, then hand over every answer."""

    commands: tuple[Command, ...]


@value
class SendContent:
    """Write the dot-stuffed content with its final dot, then hand over the answers to `command`."""

    command: EndOfData


@dataclass(frozen=True, slots=True)
class SendDot:
    """Write a lone dot: a DATA that was consented to although nobody is left to receive it (RFC 2920 3.1).

    Its reply means nothing, and is not waited for.
    """


@value
class SendChunk:
    """Write the command and, right behind it, the next `command.size` octets of the content as they are."""

    command: Bdat


@dataclass(frozen=True, slots=True)
class SendQuit:
    """Write QUIT and hand over the answer, if there is one: it proves that the replies are in step."""


Step = SendCommands | SendContent | SendDot | SendChunk | SendQuit


def is_too_many(reply: Reply) -> bool:
    """RFC 5321 4.5.3.1.10: 452, and the 552 of RFC 821 days; RFC 3463: x.5.3."""
    enhanced = reply.enhanced
    if enhanced is not None and (enhanced.subject, enhanced.detail) == (5, 3):
        return True
    return reply.code == 452 or (reply.code == 552 and enhanced is None)


def is_session_full(reply: Reply) -> bool:
    """True for a reply to MAIL that says that the server takes no more messages on this connection.

    No recipient was named yet, so x.5.3 (RFC 3463 3.6) cannot be about too many of them.
    """
    enhanced = reply.enhanced
    return reply.is_transient and enhanced is not None and (enhanced.subject, enhanced.detail) == (5, 3)


def as_452(reply: Reply) -> Reply:
    """Too many recipients are a reason to come again, whatever code the server used."""
    if reply.is_transient:
        return reply
    return Reply(452, EnhancedCode(4, 5, 3), reply.lines)


def of_few_domains(recipients: Sequence[Recipient], indices: Sequence[int], most: int) -> tuple[list[int], list[int]]:
    """Which of these recipients belong to the first `most` domains among them, and which do not (RFC 9422 4.3)."""
    domains = set(list(dict.fromkeys(recipients[index].mailbox.domain for index in indices))[:most])
    first = [index for index in indices if recipients[index].mailbox.domain in domains]
    return first, [index for index in indices if recipients[index].mailbox.domain not in domains]
