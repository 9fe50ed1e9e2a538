"""`check { ... }` of an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mailrider.endpoint.pipeline.authorize import AuthorizeSettings
from mailrider.endpoint.pipeline.check import CheckAction, HeaderCheck
from mailrider.settings.directive import InvalidSetting, Section, Settings, block, directive, optional, settings
from mailrider.settings.types import TIMEOUT, Unacceptable, ValueType, Words, choice, many
from mailrider.signing.settings import FIELD_NAME, WORD

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mailrider.settings.directive import Duration, Maybe, Setting

MAX_PATTERN: Final = 1000  # characters

ACTION = choice(CheckAction, ignore=CheckAction.PASS)


def _header(value: HeaderCheck | str) -> HeaderCheck:
    if isinstance(value, HeaderCheck):
        return value
    field, _, rest = value.partition(" ")
    pattern, _, action = rest.rpartition(" ")
    if not 0 < len(pattern) <= MAX_PATTERN:
        raise ValueError
    if action not in (CheckAction.QUARANTINE.value, CheckAction.REJECT.value):
        raise Unacceptable(f"expected quarantine or reject at the end, not {action[:100]!r}")
    return HeaderCheck(FIELD_NAME.accept(field), pattern, CheckAction(action))


HEADER: Final = ValueType(
    "FIELD PATTERN quarantine|reject", "a field, a pattern and quarantine or reject", _header, words=Words.LINE
)


@settings
class RspamdOptions(Settings):
    """How rspamd is asked, and what follows from its actions: `pass`, `quarantine`, `defer` or `reject`."""

    timeout: Duration = directive(
        TIMEOUT, default=timedelta(seconds=10), doc="How long its answer may take, for one message."
    )
    reject_action: Setting[CheckAction, CheckAction | str] = directive(
        ACTION, default=CheckAction.REJECT, doc="What follows from its `reject` and `discard`."
    )
    soft_reject_action: Setting[CheckAction, CheckAction | str] = directive(
        ACTION, default=CheckAction.DEFER, doc="What follows from its `soft reject`."
    )
    greylist_action: Setting[CheckAction, CheckAction | str] = directive(
        ACTION, default=CheckAction.DEFER, doc="What follows from its `greylist`."
    )
    add_header_action: Setting[CheckAction, CheckAction | str] = directive(
        ACTION, default=CheckAction.QUARANTINE, doc="What follows from its `add header`: it is probably spam."
    )
    rewrite_subj_action: Setting[CheckAction, CheckAction | str] = directive(
        ACTION, default=CheckAction.QUARANTINE, doc="What follows from its `rewrite subject`."
    )
    io_error_action: Setting[CheckAction, CheckAction | str] = directive(
        ACTION,
        default=CheckAction.DEFER,
        doc="What happens to a message that it could not be asked about: it is down, slow, or answers nonsense.",
    )

    def _validate(self) -> None:
        if self.io_error_action is CheckAction.REJECT:
            raise InvalidSetting("io_error_action", "a failure of ours is no reason to reject for good; use defer")


@dataclass(frozen=True, slots=True)
class RspamdSettings:
    """Where rspamd is, and how it is asked."""

    url: str
    options: RspamdOptions


def _rspamd(value: object) -> RspamdSettings:
    match value:
        case RspamdSettings():
            return value
        case ((str() as url,), RspamdOptions() as options):
            return RspamdSettings(_url(url), options)
        case _:
            raise TypeError


def _url(text: str) -> str:
    from yarl import URL  # only who asks rspamd needs it

    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if (url.scheme == "http" and url.host) or (url.scheme == "unix" and text.startswith("unix:///")):
        return text.rstrip("/")
    raise Unacceptable(f"expected http://HOST:PORT or unix:///PATH, not {text[:100]!r}")


RSPAMD: Final = Section(
    "http://HOST:PORT { ... }",
    "the address of rspamd, such as http://127.0.0.1:11333, and a block",
    _rspamd,
    settings=RspamdOptions,
    arguments=WORD,
    bare=True,
)


@settings
class CheckSettings(Settings):
    """What is looked at before a message is accepted. The strictest answer counts: reject, defer, quarantine, pass."""

    authorize_sender: Maybe[AuthorizeSettings] = optional(
        block(AuthorizeSettings, bare=True),
        shown_default="users may send as anybody",
        doc="Users may send under their own addresses only. Who has not logged in is refused.",
    )
    header: Setting[tuple[HeaderCheck, ...], Iterable[HeaderCheck | str]] = directive(
        many(HEADER),
        default=(),
        repeatable=True,
        doc="Messages with a header field of which the whole value fits a pattern (`*`, `?`, `[abc]`; case does not "
        'matter) are quarantined or rejected: `header X-Spam-Flag YES quarantine`, `header Subject "*buy*" reject`.',
    )
    rspamd: Setting[tuple[RspamdSettings, ...], Iterable[RspamdSettings]] = directive(
        many(RSPAMD), default=(), repeatable=True, doc="Ask rspamd at this address."
    )
