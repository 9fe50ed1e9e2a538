"""`modify { dkim DOMAIN... SELECTOR { ... } }`: who signs, and with which key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from mailrider.dkim.fields import OVERSIGNED, SIGNED
from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.settings.directive import InvalidSetting, Section, Settings, directive, optional, settings
from mailrider.settings.types import BOOLEAN, DURATION, PATH, Unacceptable, ValueType, choice, many, show
from mailrider.x509.key_kind import KeyKind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mailrider.settings.directive import Duration, OptionalPath, Setting

_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")
_SELECTOR = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*", re.I | re.A)


def _field_name(value: str) -> str:
    if not _FIELD_NAME.fullmatch(value) or ";" in value or value.lower() == "dkim-signature":
        raise ValueError
    return value


WORD: Final = ValueType("word", "a word", str)
FIELD_NAME: Final = ValueType("field", "the name of a header field, such as Subject", _field_name)


@settings
class DKIMOptions(Settings):
    """Signs messages of a domain (RFC 6376). The key is made when it is first needed, and its DNS record logged."""

    newkey_algo: Setting[KeyKind, KeyKind | str] = directive(
        choice(KeyKind),
        default=KeyKind.RSA2048,
        doc="What a new key is. Not all receivers know `ed25519` yet: sign with an RSA key as well, by a second `dkim` "
        "with another selector.",
    )
    key_path: OptionalPath = optional(
        PATH,
        shown_default="`dkim_keys/DOMAIN_SELECTOR.key` in `state_dir`",
        doc="The private key, in PEM. The record for DNS is written beside a new one, in a file that ends in `.dns`.",
    )
    oversign_fields: Setting[tuple[str, ...], Iterable[str]] = directive(
        many(FIELD_NAME),
        default=OVERSIGNED,
        doc="Header fields that are signed one time more than they occur, so that nobody can add another one.",
    )
    sign_fields: Setting[tuple[str, ...], Iterable[str]] = directive(
        many(FIELD_NAME), default=SIGNED, doc="Further header fields, each signed as often as it occurs."
    )
    sig_expiry: Duration = directive(
        DURATION,
        default=timedelta(0),
        shown_default="`0`: never",
        doc="How long after signing a signature is valid. Give it more than `expire` of the queue.",
    )
    sign_subdomains: Setting[bool, bool | str] = directive(
        BOOLEAN, default=False, doc="Sign for authors of subdomains, too."
    )

    def _validate(self) -> None:
        if "from" not in map(str.lower, self.oversign_fields):
            raise InvalidSetting("oversign_fields", "From has to be among them (RFC 6376 5.4)")
        if self.key_path is not None and "{" in str(self.key_path):  # maddy's {domain} and {selector}
            raise InvalidSetting("key_path", "expected the path of one file; without it, DOMAIN_SELECTOR.key is used")


@dataclass(frozen=True, slots=True)
class DKIMSettings:
    """Signatures: for whom (each domain has a key of its own), under which selector, and how.

    `position`: where it stands in the configuration, for errors. `makes_key`: a key that is not there is made.
    """

    domains: tuple[Domain, ...]
    selector: str
    options: DKIMOptions = DKIMOptions()  # noqa: RUF009 # frozen
    position: Any = field(default=None, compare=False)
    makes_key: bool = True

    @classmethod
    def of(cls, domains: Iterable[Domain | str], selector: str, options: DKIMOptions | None = None) -> DKIMSettings:
        """Raises `InvalidValue`."""
        if not _SELECTOR.fullmatch(selector) or len(selector) > 63:
            raise InvalidValue(f"a selector is letters, digits, - and ., such as s2026a; not {selector[:80]!r}")
        parsed = (each if isinstance(each, Domain) else Domain.parse(each) for each in domains)
        once = tuple(dict.fromkeys(parsed))
        if len(once) > 1 and options is not None and options.key_path is not None:
            raise InvalidValue("key_path is for one domain; give each of them a dkim of its own")
        return cls(once, selector, options or DKIMOptions())


def _dkim(value: object) -> DKIMSettings:
    match value:
        case DKIMSettings():
            return value
        case (tuple() as words, DKIMOptions() as options):
            *domains, selector = words
            if not domains:
                raise Unacceptable(f"expected domains and a selector, not {show(selector)} alone")
            try:
                return DKIMSettings.of(domains, selector, options)
            except InvalidValue as error:
                raise Unacceptable(str(error)) from error
        case _:
            raise TypeError


DKIM: Final = Section(
    "DOMAIN... SELECTOR { ... }",
    "domains, a selector, and a block",
    _dkim,
    settings=DKIMOptions,
    arguments=WORD,
    bare=True,
)


@settings
class ModifySettings(Settings):
    """What is done to a message once it is accepted."""

    state_dir: Setting[Path | None, Path | str | None] = optional(PATH, only_global=True, doc="Where keys are made.")

    dkim: Setting[tuple[DKIMSettings, ...], Iterable[DKIMSettings]] = directive(
        many(DKIM),
        default=(),
        repeatable=True,
        doc="Sign messages of which the author (From) is of one of these domains. Each has a key of its own; its "
        "record, which has to be in DNS, is logged when it is made.",
    )
