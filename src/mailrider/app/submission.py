"""What a program gives to be sent, as values: an envelope and a content; and results as it gets them.

Nothing raises for a mail reason; arguments that can never be right raise at once (`TypeError`, `ValueError`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from mailrider.app.originate import originate
from mailrider.app.python_message import needs_smtputf8, octets_of
from mailrider.clock import SystemClock
from mailrider.errors import InvalidValue
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Notify, OriginalRecipient, Recipient, Ret, check_envid
from mailrider.model.outcome import QUARANTINED, Status
from mailrider.model.reply import Reply
from mailrider.model.security import NO_SECURITY, Security
from mailrider.model.value import value
from mailrider.smtp.content import Content
from mailrider.smtp.data import sending_fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mailrider.model.domain import Domain
    from mailrider.model.outcome import Outcome, Try

_new_token = partial(secrets.token_hex, 12)


class MessageLike(Protocol):
    """A message that can be written: `email.message.Message`, what is derived from it, and what behaves like it."""

    def as_bytes(self) -> bytes:
        """The whole message."""
        ...


@value
class Result:
    """What became of one recipient. `recipient` as it was given; the rest as in `model.outcome`."""

    recipient: str
    status: Status
    reply: Reply
    mx: str | None = None
    address: str | None = None
    security: Security = NO_SECURITY
    in_doubt: bool = False
    attempts: tuple[Try, ...] = ()


@value
class Report:
    """One `Result` per recipient, in the order in which they were given."""

    results: tuple[Result, ...]

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> Result:
        return self.results[index]


@dataclass(frozen=True, slots=True)
class DSN:
    """What the sender wants to be told (RFC 3461), of all recipients alike.

    `notify` as in NOTIFY (`"FAILURE,DELAY"`, `"NEVER"`); where it is given, each recipient's address goes with it as
    ORCPT. `ret` is `"FULL"` or `"HDRS"`; `envid` up to 100 characters.
    """

    notify: str | None = None
    ret: str | None = None
    envid: str | None = None

    def __post_init__(self) -> None:
        for name, text in (("notify", self.notify), ("ret", self.ret), ("envid", self.envid)):
            if text is not None and not isinstance(text, str):
                raise TypeError(f"{name} is a string{_DSN_EXAMPLES[name]}, not {type(text).__name__}")
        if self.notify is not None:
            Notify.parse(self.notify)
        if self.ret is not None and not (self.ret.isascii() and self.ret.upper() in _RETS):
            raise InvalidValue(f"RET takes {' or '.join(_RETS)}, not {self.ret[:100]!r}")
        if self.envid is not None:
            check_envid(self.envid)


_DSN_EXAMPLES = {
    "notify": ' such as "FAILURE,DELAY" or "NEVER"',
    "ret": ', "FULL" or "HDRS"',
    "envid": " of up to 100 printable characters",
}
_RETS = [each.value for each in Ret]
_CLOCK = SystemClock()
NO_DSN = DSN()


@value
class Submission:
    """Arguments turned into values: an envelope if anything can be delivered, and results for what cannot.

    `places`: where in the envelope each recipient is that is not refused.
    """

    envelope: Envelope | None
    content: Content
    texts: tuple[str, ...]
    places: tuple[int, ...]
    refused: dict[int, Result]

    def report(self, outcomes: Sequence[Outcome]) -> Report:
        """Results in the order of the recipients, from the outcomes of the envelope's."""
        results: list[Result] = []
        places = iter(self.places)
        for index, text in enumerate(self.texts):
            results.append(self.refused.get(index) or _result(text, outcomes[next(places)]))
        return Report(tuple(results))


def prepare(
    message: bytes | MessageLike,
    sender: str,
    recipients: Sequence[str],
    *,
    requiretls: bool = False,
    quarantine: bool = False,
    smtputf8: bool | None = None,
    dsn: DSN = NO_DSN,
    host: Domain | None = None,
) -> Submission:
    """Parse what a caller gives. Raises for wrong types and an empty message; an address that is none becomes a result.

    `smtputf8` None: as the addresses need it, those in the fields of an `EmailMessage` too, or as its policy says. A
    message that starts here gets the Date and the Message-ID that it lacks, the latter of `host`, and loses its Bcc.
    """
    _check_options(requiretls=requiretls, quarantine=quarantine, smtputf8=smtputf8, dsn=dsn)
    texts = _texts(recipients)
    parsed, refused = _parse_recipients(texts, dsn)
    path, bad_sender = _parse_sender(sender)
    if smtputf8 is None:
        ascii_paths = (path is None or path.is_ascii) and all(each.mailbox.is_ascii for each in parsed)
        smtputf8 = not ascii_paths or (type(message) is not bytes and needs_smtputf8(message))
    octets = octets_of(message, utf8=smtputf8)
    fault = sending_fault(octets)
    content = originate(Content.inspect(octets), host, _CLOCK.now, _new_token)
    if fault:
        reply = Reply.make(554, "5.6.0", f"The message has {fault}: other servers may see its end there")
        refused = {index: Result(text, Status.FAILED, reply) for index, text in enumerate(texts)}
    if bad_sender is not None:
        refused = {index: Result(text, Status.FAILED, bad_sender) for index, text in enumerate(texts)}
    if quarantine:
        # That comes first, whatever else is wrong.
        refused = {index: Result(each.recipient, Status.FAILED, QUARANTINED) for index, each in refused.items()}
    if path is None or not parsed or fault:
        return Submission(None, content, texts, (), refused)
    distinct, places = _distinct(parsed)
    envelope = Envelope(
        path,
        distinct,
        smtputf8=smtputf8,
        requiretls=requiretls,
        quarantined=quarantine,
        ret=None if dsn.ret is None else Ret(dsn.ret.upper()),
        envid=dsn.envid,
    )
    return Submission(envelope, content, texts, places, refused)


def _distinct(parsed: Sequence[Recipient]) -> tuple[tuple[Recipient, ...], tuple[int, ...]]:
    """Who is named twice gets the message once: the recipients, and the place of each that was given among them."""
    if len(parsed) == 1:
        return tuple(parsed), (0,)
    distinct = {each: place for place, each in enumerate(dict.fromkeys(parsed))}
    return tuple(distinct), tuple([distinct[each] for each in parsed])


def _check_options(*, requiretls: bool, quarantine: bool, smtputf8: bool | None, dsn: DSN) -> None:
    """`quarantine="no"` would be a yes."""
    for name, flag in ("requiretls", requiretls), ("quarantine", quarantine), ("smtputf8", smtputf8):
        if flag is not True and flag is not False and not (name == "smtputf8" and flag is None):
            raise TypeError(f"{name} is True or False, not {type(flag).__name__}")
    if not isinstance(dsn, DSN):
        raise TypeError(f"dsn is mailrider.DSN(...), not {type(dsn).__name__}")


def _texts(recipients: Sequence[str]) -> tuple[str, ...]:
    if isinstance(recipients, str):
        raise TypeError("recipients is a list of addresses, not one string")
    if not hasattr(type(recipients), "__iter__"):
        raise TypeError(f"recipients is a list of addresses, and {type(recipients).__name__} is not iterable")
    texts = tuple(recipients)
    if not texts:
        raise ValueError("recipients is empty: there is nobody to send to")
    for text in texts:
        if not isinstance(text, str):
            given = type(recipients).__name__
            raise TypeError(
                f"recipients is a list of addresses: a recipient is a string, not {type(text).__name__}, in {given}"
            )
    return texts


def _parse_recipients(texts: Sequence[str], dsn: DSN) -> tuple[list[Recipient], dict[int, Result]]:
    notify = None if dsn.notify is None else Notify.parse(dsn.notify)
    parsed: list[Recipient] = []
    refused: dict[int, Result] = {}
    for index, text in enumerate(texts):
        try:
            mailbox = Mailbox.parse(text)
        except InvalidValue as error:
            reply = Reply.make(501, "5.1.3", str(error))
            refused[index] = Result(text, Status.FAILED, reply)
        else:
            # RFC 3461 5.2.1 c: who asks for notifications says to whom it was first addressed.
            original = OriginalRecipient("rfc822" if mailbox.is_ascii else "utf-8", str(mailbox)) if notify else None
            parsed.append(Recipient(mailbox, notify, original))
    return parsed, refused


def _parse_sender(sender: str) -> tuple[ReversePath | None, Reply | None]:
    """The sender, or why it is none."""
    if not isinstance(sender, str):
        raise TypeError(f"sender is a string, empty for the null reverse-path, not {type(sender).__name__}")
    try:
        return ReversePath.parse(sender), None
    except InvalidValue as error:
        return None, Reply.make(501, "5.1.7", f"The sender: {error}")


def _result(text: str, outcome: Outcome) -> Result:
    return Result(
        text,
        outcome.status,
        outcome.reply,
        outcome.mx,
        outcome.address,
        outcome.security,
        outcome.in_doubt,
        outcome.tries,
    )
