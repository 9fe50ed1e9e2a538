"""Settings of TLS reporting: `tlsrpt { }`."""

from __future__ import annotations

import enum
from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.model.domain import Domain
from mailrider.settings.directive import InvalidSetting, Settings, directive, optional, settings
from mailrider.settings.pipeline import TARGET, TargetRef
from mailrider.settings.types import DURATION, MAILBOX, NETWORK, PATH, ValueType, choice, many, show_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mailrider.model.address import Mailbox
    from mailrider.settings.directive import Duration, Maybe, Paths, Setting
    from mailrider.settings.pipeline import Target
    from mailrider.settings.types import IPNetwork

MAX_ORGANIZATION = 255  # characters
LEAST_SPREAD, MOST_SPREAD = timedelta(minutes=5), timedelta(hours=20)


class ReportedDays(enum.StrEnum):
    """The days of which reports are sent."""

    ALL = "all"
    FAILURES = "failures"


def _organization(value: str) -> str:
    text = value.strip()
    if not 0 < len(text) <= MAX_ORGANIZATION or not text.isprintable():
        raise ValueError
    return text


ORGANIZATION = ValueType("text", f"a name of at most {MAX_ORGANIZATION} characters, in quotes", _organization)


@settings
class TLSRPTSettings(Settings):
    """TLS reports: the domains that mail is sent to, and that ask for it, learn each day what was seen of their TLS
    (RFC 8460)."""

    organization: Maybe[str] = optional(ORGANIZATION, required=True, doc="Who reports: the name of your organization.")
    contact: Setting[Mailbox | None, Mailbox | str | None] = optional(
        MAILBOX,
        required=True,
        doc="Whom to ask about reports, and the sender of those that go by mail. A `dkim` must sign for its domain, "
        "since reports by mail are never sent without a signature.",
    )
    through: Maybe[Target] = optional(
        TARGET, required=True, doc="The queue that reports by mail go through: `&NAME`. It should lead to a `remote`."
    )
    send: Setting[ReportedDays, ReportedDays | str] = directive(
        choice(ReportedDays),
        default=ReportedDays.ALL,
        doc="`all`: a report of every day on which mail was sent to a domain that asks. `failures`: only of days on "
        "which something failed.",
    )
    spread: Duration = directive(
        DURATION,
        default=timedelta(hours=4),
        doc="Each report is sent at a random moment from 5 minutes after midnight UTC until so long after it.",
    )
    retain: Duration = directive(
        DURATION, default=timedelta(days=7), doc="How long `mailrider tlsrpt` can show counts and sent reports."
    )
    root_ca: Paths = directive(
        many(PATH),
        default=(),
        shown_default="the system's",
        doc="PEM files with the authorities that hosts which take reports must be certified by, instead of the "
        "system's; for labs.",
    )
    allow_addresses: Setting[tuple[IPNetwork, ...], Iterable[IPNetwork | str]] = directive(
        many(NETWORK),
        default=(),
        shown_default="none",
        doc="Networks that reports may go to although they are no part of the public internet. Who a report goes to is "
        "a stranger's word, and must not lead into your network. Where the target behind `through` has "
        "`prohibited_addresses none`, as in labs, all is allowed.",
    )

    def _validate(self) -> None:
        missing = [name for name in ("organization", "contact", "through") if getattr(self, name) is None]
        if missing:
            *others, last = missing
            words = f"{', '.join(others)} and {last} are" if others else f"{last} is"
            raise InvalidSetting(missing[0], f"{words} required")
        if self.contact is not None and not isinstance(self.contact.domain, Domain):
            raise InvalidSetting("contact", "expected an address of a domain")
        if self.through is not None and not isinstance(self.through, TargetRef):
            raise InvalidSetting("through", "expected the name of a queue: &NAME")
        if not LEAST_SPREAD <= self.spread <= MOST_SPREAD:
            raise InvalidSetting("spread", f"expected 5m to 20h, not {show_duration(self.spread)}")
        if not timedelta(days=2) <= self.retain <= timedelta(days=90):
            raise InvalidSetting("retain", f"expected 2d to 90d, not {show_duration(self.retain)}")
