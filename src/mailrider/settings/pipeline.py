"""Where a message goes: the routing part of a pipeline, as settings and as a pure decision.

A pipeline is what stands in `bounce { }`, and in an endpoint: for each recipient it names a target, or refuses.
Addresses are more special than domains; what no `destination` names is left to `default_destination`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mailrider.model.domain import Domain
from mailrider.model.reply import EnhancedCode, Reply
from mailrider.model.text import without_case
from mailrider.settings.directive import InvalidSetting, Section, Settings, block, directive, optional, settings
from mailrider.settings.types import ValueType, Words, many, parse_mailbox, parsed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mailrider.model.address import Mailbox
    from mailrider.settings.directive import Maybe, Setting

    Route = TypeVar("Route")
    Destinations = Setting[tuple["Rule", ...], Iterable["Rule" | tuple[Any, Route]]]

NOT_ACCEPTED: Final = Reply.make(550, "5.7.1", "Mail for this address is not accepted here")

NEVER_USED: Final = "{} would never be used: nothing in this block is delivered"


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TargetRef:
    """A target by its name in the configuration; which one that is, is found out when everything is put together."""

    name: str

    def __str__(self) -> str:
        return f"&{self.name}"


Target = TargetRef | Settings


@dataclass(frozen=True, slots=True)
class TargetType(ValueType[Any]):
    """The value type of a directive that names a target: `&NAME`, or a kind of target with a block."""


def _target(value: object) -> Target:
    if isinstance(value, TargetRef | Settings):
        return value
    raise TypeError


TARGET: Final = TargetType("&NAME | target block", "the settings of a target, such as RemoteSettings(...)", _target)


@dataclass(frozen=True, slots=True)
class Match:
    """A domain, or an address, that a recipient is compared with; both without regard to case."""

    text: str

    def fits(self, mailbox: Mailbox) -> bool:
        """True if it is this address, or of this domain; `postmaster` is the one who has no domain (RFC 5321 4.5.1)."""
        if "@" in self.text:
            return self.text == without_case(str(mailbox))
        if mailbox.domain is None:
            return self.text == mailbox.local_part.lower() == "postmaster"
        return self.text == mailbox.domain.ascii

    @property
    def is_address(self) -> bool:
        """True for a single address."""
        return "@" in self.text

    def __str__(self) -> str:
        return self.text


def _parse_match(text: str) -> Match:
    return Match(without_case(str(parse_mailbox(text))) if "@" in text else Domain.parse(text).ascii)


_match = parsed(Match, _parse_match)
MATCH: Final = ValueType("domain or address", "a domain or a mail address", _match)
NO_SENDER: Final = Match("")
"""The null reverse-path, as a sender."""


def _sender_match(value: Match | str) -> Match:
    return NO_SENDER if value == "" else _match(value)


SENDER_MATCH: Final = ValueType(
    'domain, address or ""', 'a domain, a mail address, or "" for the null reverse-path', _sender_match
)


def _reject(text: str) -> Reply:
    if not text:
        return NOT_ACCEPTED
    code, enhanced, *words = text.split(" ")
    if not re.fullmatch("[0-9]{3}", code):  # Python reads the digits of all alphabets, and `5_50`
        raise ValueError
    reply = Reply(int(code), EnhancedCode.parse(enhanced), (" ".join(words) or NOT_ACCEPTED.text,))
    if reply.code < 400:
        raise ValueError
    return reply


REJECT: Final = ValueType(
    "[CODE ENHANCED TEXT]",
    "a reply such as 550 5.7.1 No, or nothing",
    parsed(Reply, _reject),
    words=Words.LINE,
    alone=True,
)


@settings
class RouteSettings(Settings):
    """What is done with mail for some recipients: one of the two."""

    deliver_to: Maybe[Target] = optional(
        TARGET, doc="The target that gets the message: `&NAME`, or a block of its own."
    )
    reject: Setting[Reply | None, Reply | str | None] = optional(
        REJECT, doc="Refuse, with this reply; without one `550 5.7.1`."
    )

    def _validate(self) -> None:
        if self.deliver_to is not None and self.reject is not None:
            raise InvalidSetting("reject", "it contradicts deliver_to: only one of them can be done")


def refuse_repeated(name: str, matches: Sequence[Match]) -> None:
    """Raises `InvalidSetting` if two blocks are for the same domain or address: only one of them would be used."""
    seen: set[Match] = set()
    for match in matches:
        if match in seen:
            raise InvalidSetting(name, f'there are two blocks for "{match}"')
        seen.add(match)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done with mail for these recipients."""

    matches: tuple[Match, ...]
    route: RouteSettings


def destinations(of: type[RouteSettings]) -> Any:
    """The directive `destination` of a pipeline in which such blocks stand."""

    def rule(value: object) -> Rule:
        match value:
            case Rule(_, of()):
                return value
            case (matches, of() as route):
                return Rule(many(MATCH).accept(matches), route)
            case _:
                raise TypeError

    section = Section(
        "domain or address... { ... }",
        "domains or addresses, and a block",
        rule,
        settings=of,
        arguments=MATCH,
    )
    doc = "Mail for these domains or addresses. A block for an address counts before one for its domain."
    return directive(many(section), default=(), repeatable=True, doc=doc)


def default_destination(of: type[RouteSettings]) -> Any:
    """The directive `default_destination` of a pipeline in which such a block stands."""
    return optional(block(of), doc="Mail for everybody else.")


@settings
class PipelineSettings(Settings):
    """Where messages go, by recipient. Directives outside of a `destination` are for all others."""

    destination: Destinations[RouteSettings] = destinations(RouteSettings)
    default_destination: Maybe[RouteSettings] = default_destination(RouteSettings)
    deliver_to: Maybe[Target] = optional(
        TARGET, doc="The target for everybody else; the same as in `default_destination`."
    )
    reject: Setting[Reply | None, Reply | str | None] = optional(
        REJECT, doc="Refuse mail for everybody else; the same as in `default_destination`."
    )

    def _validate(self) -> None:
        given = [name for name in ("default_destination", "deliver_to", "reject") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InvalidSetting(given[1], f"it contradicts {given[0]}: only one of them can be done")
        refuse_repeated("destination", [match for rule in self.destination for match in rule.matches])

    @property
    def targets(self) -> tuple[Target, ...]:
        """All that it may deliver to."""
        found = [*(route.deliver_to for route in self.routes), self.deliver_to]
        return tuple(each for each in found if each is not None)

    @property
    def routes(self) -> tuple[Any, ...]:
        """The blocks in it, each for some recipients; of the class that the pipeline is made of."""
        default = () if self.default_destination is None else (self.default_destination,)
        return (*(rule.route for rule in self.destination), *default)


def fitting(rules: Sequence[tuple[Sequence[Match], T]], mailbox: Mailbox | None, others: T) -> T:
    """What stands beside the match that fits, an address before its domain; else `others`. None: the null sender."""
    if mailbox is None:
        return next((each for matches, each in rules if NO_SENDER in matches), others)
    for by_address in (True, False):
        for matches, each in rules:
            if any(match.is_address is by_address and match.fits(mailbox) for match in matches):
                return each
    return others


def route_of(pipeline: PipelineSettings, mailbox: Mailbox) -> RouteSettings | PipelineSettings:
    """The block that says what is done with mail for a recipient; the pipeline itself, if no block in it does."""
    rules = [(rule.matches, rule.route) for rule in pipeline.destination]
    return fitting(rules, mailbox, pipeline.default_destination or pipeline)


def outcome_of(route: RouteSettings | PipelineSettings) -> Target | Reply:
    """The target that such a block names, or the reply that refuses."""
    return route.deliver_to or route.reject or NOT_ACCEPTED


def decide(pipeline: PipelineSettings, mailbox: Mailbox) -> Target | Reply:
    """The target of a recipient, or the reply that refuses it."""
    return outcome_of(route_of(pipeline, mailbox))
