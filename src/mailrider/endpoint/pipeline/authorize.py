"""The check `authorize_sender`: who has logged in sends under addresses of his own only (RFC 6409 6.1).

Looked at are the sender of the envelope and everybody whom the fields From and Sender name: a recipient sees those, and
DKIM signs them. What always holds:

- nobody who has not logged in gets through, but clients of a trusted network (`endpoint.trust`);
- a user whose name is a mail address may use that address; everything else has to be given;
- a message has one From field and at most one Sender field (RFC 5322 3.6), and it is certain whom they name: what one
  reader takes for this address, and another one for that (`header.addresses`), is refused;
- the null reverse-path is everybody's: it names nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mailrider.endpoint.pipeline.check import PASSED, CheckAction, CheckResult
from mailrider.endpoint.user_names import login_name
from mailrider.errors import InvalidValue
from mailrider.header.addresses import parse_authors
from mailrider.model.address import Mailbox
from mailrider.model.reply import Reply
from mailrider.model.text import without_case
from mailrider.settings.directive import Settings, directive, settings
from mailrider.settings.pipeline import MATCH, Match
from mailrider.settings.types import BOOLEAN, ValueType, Words, many

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mailrider.endpoint.pipeline.check import Arrival
    from mailrider.model.envelope import Envelope
    from mailrider.settings.directive import Setting
    from mailrider.smtp.content import Content

ANYBODY: Final = "*"

LOGIN_FIRST: Final = Reply.make(530, "5.7.0", "Authentication required")  # RFC 4954 6
_NAME: Final = "authorize_sender"


@dataclass(frozen=True, slots=True)
class Rights:
    """Under which addresses a user may send; `anybody`: under all."""

    user: str
    own: tuple[Match, ...] = ()
    anybody: bool = False

    def covers(self, mailbox: Mailbox) -> bool:
        """True if it is one of them."""
        return self.anybody or any(each.fits(mailbox) for each in self.own)


def _rights(value: Rights | str) -> Rights:
    if isinstance(value, Rights):
        return value
    user, *words = value.split()
    if not words:
        raise ValueError
    own = tuple(MATCH.accept(word) for word in words if word != ANYBODY)
    return Rights(user, own, ANYBODY in words)


RIGHTS: Final = ValueType(
    "NAME ADDRESS|DOMAIN|*...",
    "a user and the addresses or domains that are his, or * for all",
    _rights,
    words=Words.LINE,
)


@settings
class AuthorizeSettings(Settings):
    """Ties users to the addresses that they send under: that of the envelope, and those in From and Sender.

    A user whose name is a mail address may always use it.
    """

    user: Setting[tuple[Rights, ...], Iterable[Rights | str]] = directive(
        many(RIGHTS),
        default=(),
        repeatable=True,
        doc="Further addresses of a user, or all of a domain, or (`*`) every address: `user alice alice@example.org "
        "example.net`. Long lists may stand in a file of their own: `import senders.conf`.",
    )
    check_header: Setting[bool, bool | str] = directive(
        BOOLEAN,
        default=True,
        doc="Whether From and Sender are looked at. With `no` the envelope alone is, and a user may write as anybody.",
    )


class AuthorizeSender:
    """The check `authorize_sender`; see `Check`."""

    def __init__(self, given: AuthorizeSettings) -> None:
        self._check_header = given.check_header
        self._rights: dict[str, list[Rights]] = {}
        for each in given.user:
            self._rights.setdefault(login_name(each.user), []).append(each)

    async def examine(self, envelope: Envelope, content: Content, arrival: Arrival) -> CheckResult:
        """See `Check`."""
        user = arrival.user
        if user is None and arrival.trusted:
            return PASSED  # who is trusted by its address has senders of its own: see `endpoint.trust`
        if user is None:
            return CheckResult(CheckAction.REJECT, _NAME, "nobody has logged in", LOGIN_FIRST)
        try:
            named = named_in(envelope, content, check_header=self._check_header)
            foreign = next((each for each in named if not self._may(user, each)), None)
        except InvalidValue as error:
            return refused(user, str(error))
        return PASSED if foreign is None else refused(user, f"{user} may not send as {foreign}")

    def _may(self, user: str, mailbox: Mailbox) -> bool:
        if any(each.covers(mailbox) for each in self._rights.get(login_name(user), ())):
            return True
        return without_case(str(mailbox)) == _address(user)


def named_in(envelope: Envelope, content: Content, *, check_header: bool = True) -> Iterator[Mailbox]:
    """Everybody that a message says it is from. Raises `InvalidValue` if that cannot be read."""
    if envelope.sender.mailbox is not None:
        yield envelope.sender.mailbox
    if check_header:
        yield from _authors(content)


def _address(user: str) -> str | None:
    """The address that a user's name is, if it is one."""
    try:
        return without_case(str(Mailbox.parse(user))) if "@" in user else None
    except InvalidValue:
        return None


def _authors(content: Content) -> Iterator[Mailbox]:
    if (fault := content.header_fault()) is not None:
        raise InvalidValue(f"this is no message: {fault}")
    for name, least in (("From", 1), ("Sender", 0)):
        values = content.header_fields(name)
        if not least <= len(values) <= 1:
            raise InvalidValue(f"the message has {len(values) or 'no'} {name} field{'s' * bool(values)}")
        try:
            yield from (mailbox for value in values for mailbox in parse_authors(value))
        except InvalidValue as error:
            raise InvalidValue(f"the field {name} cannot be read: {error}") from error


def refused(user: str, reason: str) -> CheckResult:
    """A message that names somebody whom this user, or client, is not."""
    return CheckResult(CheckAction.REJECT, _NAME, f"{user}: {reason}", Reply.make(550, "5.7.1", reason))  # RFC 6409 6.1
