"""Checks: what may be said of a message before it is accepted, and what follows from it.

A check looks and says: pass, quarantine, defer or reject. The strictest word of all of them holds. No target sends a
quarantined message on, and its sender may be forged: so it is refused while the client is there (550 5.7.0), and never
bounced. What cannot be checked is deferred unless the
operator wants otherwise: a check that is down must neither lose mail nor let everything through.

Here are the protocol, the folding, and the check that needs nobody else: a header field against a pattern. Patterns
are those of file names (`*`, `?`, `[abc]`), without regard to case, for the whole value, however long it is. A long
header is looked at in a thread.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from mailrider.endpoint.pipeline.glob import Glob
from mailrider.header.words import decode_words
from mailrider.model.event import WARNING, Event, EventLevel
from mailrider.model.reply import Reply
from mailrider.model.value import value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mailrider.model.address import Mailbox, ReversePath
    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Emit
    from mailrider.smtp.content import Content

INLINE: Final = 16 * 1024  # octets of a header that is looked at on the event loop: about a millisecond

REFUSED: Final = Reply.make(550, "5.7.1", "The message was refused by a check")
QUARANTINED: Final = Reply.make(550, "5.7.0", "A check found the message harmful: it is not sent on")
NOT_NOW: Final = Reply.make(451, "4.7.1", "The message cannot be accepted now, try again later")


class CheckAction(enum.StrEnum):
    """What follows from a check, from the mildest to the strictest."""

    PASS = "pass"  # noqa: S105 # no password
    QUARANTINE = "quarantine"
    DEFER = "defer"
    REJECT = "reject"

    @property
    def rank(self) -> int:
        """How strict the action is."""
        return list(CheckAction).index(self)


@value
class Forwarding:
    """What aliases made of the recipients. `owners`: who hears of failures there, instead of the sender.

    `expanded` are recipients that several addresses stand for, whose sender wants to hear of success; `lists` are those
    of them that have an owner.
    """

    owners: Mapping[Mailbox, ReversePath]
    expanded: tuple[Recipient, ...] = ()
    lists: tuple[Recipient, ...] = ()


@value
class Arrival:
    """How a message came: what checks want to know beside the envelope. `id` is what we call it in our log.

    `forwarding`: what aliases made of its recipients. `trusted`: its client needs no login, because of its address.
    """

    client: str | None = None
    helo: str = ""
    user: str | None = None
    hostname: str = ""
    id: str = ""
    forwarding: Forwarding | None = None
    trusted: bool = False


@value
class CheckUnavailable(Event):
    """A check does not answer, so `action` is done with messages. Told once, until it answers again."""

    level: ClassVar[EventLevel] = WARNING
    check: str
    action: str
    reason: str


@value
class CheckAvailable(Event):
    """A check that did not answer does so again."""

    check: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check says. `reply` is for the client, `reason` for us; `news`: what is told of the check itself."""

    action: CheckAction
    check: str = ""
    reason: str = ""
    reply: Reply | None = None
    news: Event | None = None

    @property
    def refusal(self) -> Reply | None:
        """The reply that the message is refused with, if it is."""
        if self.action is CheckAction.REJECT:
            return self.reply or REFUSED
        if self.action is CheckAction.DEFER:
            return self.reply or NOT_NOW
        return QUARANTINED if self.action is CheckAction.QUARANTINE else None


PASSED: Final = CheckResult(CheckAction.PASS)


@value
class MessageChecked(Event):
    """A check found something."""

    message: str
    sender: str
    check: str
    action: str
    reason: str


class Check(Protocol):
    """Looks at messages; never raises for what it finds, or cannot find out."""

    async def examine(self, envelope: Envelope, content: Content, arrival: Arrival) -> CheckResult:
        """What it says of this one."""


def strictest(findings: Iterable[CheckResult]) -> CheckResult:
    """The strictest result, which holds; the first of equals."""
    return max(findings, key=lambda each: each.action.rank, default=PASSED)


async def examine(
    checks: Iterable[Check], envelope: Envelope, content: Content, arrival: Arrival, emit: Emit
) -> CheckResult:
    """What all checks say, asked in turn until one rejects."""
    findings: list[CheckResult] = []
    for check in checks:
        found = await check.examine(envelope, content, arrival)
        findings.append(found)
        if found.news is not None:
            emit(found.news)
        if found.action is not CheckAction.PASS:
            emit(MessageChecked(arrival.id, str(envelope.sender), found.check, found.action.value, found.reason))
        if found.action is CheckAction.REJECT:
            break
    return strictest(findings)


@dataclass(frozen=True, slots=True)
class HeaderCheck:
    """Does `action` if a field of that name fits the pattern."""

    field: str
    pattern: str
    action: CheckAction

    async def examine(self, envelope: Envelope, content: Content, arrival: Arrival) -> CheckResult:
        """See `Check`."""
        is_small = content.header_size <= INLINE
        if self._finds(content) if is_small else await _in_thread(self._finds, content):
            return CheckResult(self.action, "header", f"{self.field} fits {self.pattern}")
        return PASSED

    def _finds(self, content: Content) -> bool:
        return any(self.fits(value) for value in content.header_fields(self.field))

    def fits(self, value: bytes) -> bool:
        """True if the value fits, as it stands there or as people see it (RFC 2047)."""
        text = value.decode("utf-8", "replace")
        return any(Glob.of(self.pattern).fits(each) for each in dict.fromkeys((text, decode_words(text))))


async def _in_thread(finds: Callable[[Content], bool], content: Content) -> bool:
    import asyncio  # not for those who only read a configuration with a check in it

    return await asyncio.to_thread(finds, content)
