"""What was said on a connection, from the commands and answers themselves to a text. Pure.

While all goes well nothing is made of them: a connection only keeps what it has in hand anyway. A login and the content
of messages are never shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.model.reply import clean_text
from mailrider.model.transcript import OwnLines, Transcript
from mailrider.smtp.client import AnsweredCommand
from mailrider.smtp.commands import Auth, AuthResponse, Bdat, EndOfData, Quit, Rcpt
from mailrider.smtp.steps import SendChunk, SendCommands, SendContent, SendDot, SendQuit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mailrider.smtp.commands import Command
    from mailrider.smtp.steps import Step

    Plain = str | AnsweredCommand | Command
    DialoguePart = Plain | Step | list[AnsweredCommand]

MAX_OPENING: Final = 4096  # characters of replies up to the EHLO that a kept connection holds
_HIDDEN: Final = "(not shown)"


def shortened(said: Sequence[DialoguePart]) -> tuple[DialoguePart, ...]:
    """What was said up to EHLO, as it is held while the connection lives: servers may be long-winded."""
    length = sum(len(line) for each in said if isinstance(each, AnsweredCommand) for line in each.reply.lines)
    if length <= MAX_OPENING:
        return tuple(said)
    lines: list[str] = []
    for line in (line for each in _flat(said) for line in _lines(each)):
        length = sum(map(len, lines)) + len(line)
        if length > MAX_OPENING:
            break
        lines.append(line)
    return (*lines, "-- (the rest of the opening is left out)")


def transcript(said: Sequence[DialoguePart]) -> Transcript | None:
    """The dialogue; None if nothing was said."""
    pieces: list[str | OwnLines] = []
    common: list[str] = []
    own: dict[str, str] = {}
    accepted: list[str] = []
    finals = 0
    for each in _flat(said):
        mailbox = _mailbox(each)
        if isinstance(each, AnsweredCommand):
            if mailbox is not None and each.reply.is_positive:
                accepted.append(mailbox)
            if isinstance(each.command, EndOfData) and each.command.replies > 1 and finals < len(accepted):
                mailbox = accepted[finals]  # LMTP: a reply for each recipient (RFC 2033 4.2)
                finals += 1
        for line in _lines(each):
            if mailbox is None:
                if own:
                    pieces.append(OwnLines(own))
                    own = {}
                common.append(line)
                continue
            if common:
                pieces.append("\n".join(common))
                common = []
            own[mailbox] = f"{own[mailbox]}\n{line}" if mailbox in own else line
    if own:
        pieces.append(OwnLines(own))
    if common:
        pieces.append("\n".join(common))
    return Transcript(tuple(pieces)) if pieces else None


def _flat(said: Iterable[DialoguePart]) -> Iterator[Plain]:
    """Steps of a transaction as the commands that they are; answers one by one."""
    for each in said:
        if isinstance(each, AnsweredCommand | str):
            yield each
        elif isinstance(each, list):
            yield from each
        elif isinstance(each, SendCommands):
            yield from each.commands
        elif isinstance(each, SendContent | SendChunk):
            yield each.command
        elif isinstance(each, SendDot):
            yield EndOfData()
        elif isinstance(each, SendQuit):
            yield Quit()
        else:
            yield each


def _mailbox(each: Plain) -> str | None:
    command = each.command if isinstance(each, AnsweredCommand) else each
    return command.mailbox.text if isinstance(command, Rcpt) else None


def _lines(each: Plain) -> Iterator[str]:
    if isinstance(each, str):
        yield clean_text(each)
    elif isinstance(each, AnsweredCommand):
        yield from _answer_lines(each)
    elif isinstance(each, Auth):
        yield f"C: AUTH {each.mechanism} {_HIDDEN}"
    elif isinstance(each, AuthResponse):
        yield f"C: {_HIDDEN}"
    elif isinstance(each, EndOfData):
        yield "C: (the message and its final dot)"
    else:
        line = each.encode()
        if line:
            yield f"C: {line.decode('utf-8', 'backslashreplace').rstrip()}"
        if isinstance(each, Bdat):
            yield "C: (so much of the message)"


def _answer_lines(answer: AnsweredCommand) -> Iterator[str]:
    reply = answer.reply
    enhanced = f"{reply.enhanced} " if reply.enhanced is not None else ""
    if isinstance(answer.command, Auth | AuthResponse):
        yield f"S: {reply.code} {enhanced}{_HIDDEN}"
        return
    *former, last = reply.lines
    for line in former:
        yield f"S: {reply.code}-{enhanced}{line}"
    yield f"S: {reply.code} {enhanced}{last}".rstrip()
