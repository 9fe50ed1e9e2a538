"""mailrider as a library: `Remote` and `Smarthost` send messages, `Queue` keeps them.

Strings and messages become values here, and results become something to look at. Nothing raises for a mail reason;
wrong arguments raise at once (`TypeError`, `ValueError`), wrong settings `ConfigError`.

What delivers is imported when a target is entered: a program that only may send starts without it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from inspect import iscoroutinefunction
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, overload
from weakref import WeakKeyDictionary

from mailrider.app.originate import originate
from mailrider.app.python_message import needs_smtputf8, octets_of
from mailrider.app.queued import queue_filter, queued_message, queued_recipient
from mailrider.clock import SystemClock
from mailrider.config import load as load_configuration
from mailrider.config import queue_location
from mailrider.delivery.settings import RemoteSettings
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.dns.settings import DNSSettings
from mailrider.errors import ConfigError, InvalidValue
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Notify, OriginalRecipient, Recipient, Ret, check_envid
from mailrider.model.event import discard
from mailrider.model.outcome import QUARANTINED, Status
from mailrider.model.reply import Reply
from mailrider.model.security import NO_SECURITY, Security
from mailrider.model.text import few
from mailrider.model.value import value
from mailrider.queue.ids import format_id, parse_id
from mailrider.queue.message import Filter
from mailrider.queue.settings import QueueSettings
from mailrider.queue.store import QueueCommand
from mailrider.settings.directive import directives_of
from mailrider.settings.pipeline import TargetRef
from mailrider.signing.settings import DKIMOptions, DKIMSettings, ModifySettings
from mailrider.smtp.content import Content

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta
    from typing import TypeAlias, Unpack

    from mailrider.app.assemble import Engine
    from mailrider.app.directives import QueueDirectives, RemoteDirectives, SmarthostDirectives
    from mailrider.app.queued import QueuedMessage, QueuedRecipient
    from mailrider.config import Configuration
    from mailrider.delivery.limits.shares import LocalShares
    from mailrider.delivery.remote import RemoteDelivery
    from mailrider.delivery.smarthost import FixedDelivery
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit, Event
    from mailrider.model.outcome import Outcome, Try
    from mailrider.queue.service import DeliveryQueue
    from mailrider.queue.sqlite.shards import ShardsReader
    from mailrider.settings.directive import Settings

    Found: TypeAlias = list[QueuedRecipient]  # in Queue `list` is its own

SettingsT = TypeVar("SettingsT", bound="Settings")
TargetT = TypeVar("TargetT", bound="Remote | Smarthost | Queue")

_new_token = partial(secrets.token_hex, 12)
BAD_SENDER = Reply.make(501, "5.1.7", "The sender is not a mail address")


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
    """What the sender wants to be told (RFC 3461): `notify` and `original` for every recipient, the rest once.

    `notify` as in NOTIFY (`"FAILURE,DELAY"`, `"NEVER"`); `ret` `"FULL"` or `"HDRS"`; `envid` up to 100 characters.
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
        if self.ret is not None and self.ret.upper() not in _RETS:
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
    path = _parse_sender(sender)
    if smtputf8 is None:
        ascii_paths = (path is None or path.is_ascii) and all(each.mailbox.is_ascii for each in parsed)
        smtputf8 = not ascii_paths or (type(message) is not bytes and needs_smtputf8(message))
    content = Content.inspect(octets_of(message, utf8=smtputf8))
    content = originate(content, host, _CLOCK.now, _new_token)
    if path is None:
        refused = {index: Result(text, Status.FAILED, BAD_SENDER) for index, text in enumerate(texts)}
    if quarantine:
        # That comes first, whatever else is wrong.
        refused = {index: Result(each.recipient, Status.FAILED, QUARANTINED) for index, each in refused.items()}
    if path is None or not parsed:
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
            parsed.append(Recipient(mailbox, notify, _original(mailbox) if notify else None))
    return parsed, refused


def _original(mailbox: Mailbox) -> OriginalRecipient:
    """RFC 3461 5.2.1 c: who asks for notifications says to whom it was first addressed."""
    return OriginalRecipient("rfc822" if mailbox.is_ascii else "utf-8", str(mailbox))


def _parse_sender(sender: str) -> ReversePath | None:
    if not isinstance(sender, str):
        raise TypeError(f"sender is a string, empty for the null reverse-path, not {type(sender).__name__}")
    try:
        return ReversePath.parse(sender)
    except InvalidValue:
        return None


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


def _harmless(on_event: Emit) -> Emit:
    """A listener as an `Emit`, which never fails: its exceptions are told to the event loop's handler, not to us.

    From a thread, where there is no loop, they go where that handler sends them unless told otherwise: to the log. Even
    a `CancelledError` of its own is none of ours: whoever wants to cancel a delivery cancels its task.
    """
    if not callable(on_event):
        raise TypeError(f"on_event is a function that takes an event, not {type(on_event).__name__}")
    if iscoroutinefunction(on_event) or iscoroutinefunction(type(on_event).__call__):
        raise TypeError("on_event is an ordinary function, not an async one: it is called, and nobody awaits it")
    if on_event is discard:
        return discard

    def emit(event: Event) -> None:
        try:
            on_event(event)
        except (Exception, asyncio.CancelledError) as error:
            text = f"on_event raised for {type(event).__name__}"
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                logging.getLogger("mailrider").error(text, exc_info=error)
            else:
                loop.call_exception_handler({"message": text, "exception": error})

    return emit


def _check_loop(entered: object, loop: asyncio.AbstractEventLoop | None) -> None:
    """Its connections and timers belong to the loop in which it was entered; in another one nothing would ever wake."""
    if asyncio.get_running_loop() is not loop:
        name = type(entered).__name__
        raise RuntimeError(f"this {name} was entered in another event loop; enter one of its own in each")


def _own_limits() -> LocalShares:
    from mailrider.delivery.limits.shares import LocalShares

    return LocalShares(SystemClock())


class Sender(ABC):
    """Something that delivers messages at once; use it with `async with`. What it is made of, its heirs say.

    `LoadedConfiguration` gives it a `_limits_here` that is shared with others.
    """

    def __init__(self, dns: DNSSettings | None, on_event: Emit) -> None:
        if dns is not None and not isinstance(dns, DNSSettings):
            raise TypeError(f"dns is mailrider.DNSSettings(...), not {type(dns).__name__}")
        self._dns = dns or DNSSettings()
        self._emit = _harmless(on_event)
        self._limits_here: Callable[[], LocalShares] = _own_limits
        self._stack = AsyncExitStack()
        self._delivery: RemoteDelivery | FixedDelivery | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    @abstractmethod
    def hostname(self) -> Domain | None:
        """Our name, in greetings and message ids."""

    @abstractmethod
    def _open(self, engine: Engine) -> AbstractAsyncContextManager[RemoteDelivery | FixedDelivery]:
        """The target, to be entered."""

    async def __aenter__(self) -> Self:
        if self._delivery is not None:
            raise RuntimeError(f"this {type(self).__name__} is entered already")
        from mailrider.app.assemble import open_engine

        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(open_engine(self._dns, self._emit, shares=self._limits_here()))
            self._delivery = await stack.enter_async_context(self._open(engine))
            self._loop = asyncio.get_running_loop()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._delivery = None
        await self._stack.aclose()

    async def send(
        self,
        message: bytes | MessageLike,
        sender: str,
        recipients: Sequence[str],
        *,
        requiretls: bool = False,
        quarantine: bool = False,
        smtputf8: bool | None = None,
        dsn: DSN = NO_DSN,
    ) -> Report:
        """One attempt to deliver `message` (bytes or `EmailMessage`); one result per recipient, in order.

        `sender` empty is the null reverse-path. `requiretls`: RFC 8689. `quarantine`: refused for everybody.
        Raises `TypeError` and `ValueError` for arguments that can never be right, and nothing for mail reasons.
        """
        if self._delivery is None:
            raise RuntimeError(f"use `async with {type(self).__name__}(...) as target`")
        _check_loop(self, self._loop)
        submission = prepare(
            message,
            sender,
            recipients,
            requiretls=requiretls,
            quarantine=quarantine,
            smtputf8=smtputf8,
            dsn=dsn,
            host=self.hostname,
        )
        if submission.envelope is None:
            return submission.report(())
        report = await self._delivery.deliver(submission.envelope, submission.content)
        return submission.report(report.outcomes)


class Remote(Sender):
    """Sends messages to the recipients' own mail servers; use it with `async with`.

    Keyword arguments are the directives of `target.remote` (`delivery.settings.RemoteSettings`): `hostname`,
    `mx_auth=[Dane(), LocalPolicy()]`, `connect_timeout=30`, ... Without `mx_auth` it is `[MTASTS(cache="ram"), Dane(),
    DNSSEC()]`; None and [] turn them off. `dkim=[DKIM(...)]` signs what is sent. `on_event` is called with every event.
    """

    def __init__(
        self,
        settings: RemoteSettings | None = None,
        *,
        on_event: Emit = discard,
        dkim: Iterable[DKIMSettings] = (),
        **directives: Unpack[RemoteDirectives],
    ) -> None:
        self.settings = _settings(RemoteSettings, settings, directives, dkim)
        if self.settings.hostname is None:
            raise ConfigError("hostname is required: the name that we greet other servers with (EHLO)")
        super().__init__(self.settings.dns, on_event)

    @property
    def hostname(self) -> Domain | None:
        """See `Sender`."""
        return self.settings.hostname

    def _open(self, engine: Engine) -> AbstractAsyncContextManager[RemoteDelivery]:
        from mailrider.app.assemble import open_remote

        return open_remote(self.settings, engine)


class Smarthost(Sender):
    """Sends messages to fixed servers, which take them on from there; use it with `async with`.

    Keyword arguments are the directives of `target.smtp` (`delivery.smarthost_settings.SmarthostSettings`):
    `host=["tls://smtp.example.org:465"]`, `auth=["plain", user, password]`, `hostname`, ... `LMTPSettings` given as
    `settings` make it speak LMTP, as `target.lmtp` does. `dns` is how the servers' addresses are looked up.
    """

    def __init__(
        self,
        settings: SmarthostSettings | None = None,
        *,
        dns: DNSSettings | None = None,
        on_event: Emit = discard,
        **directives: Unpack[SmarthostDirectives],
    ) -> None:
        self.settings = _settings(SmarthostSettings, settings, directives)
        if self.settings.hostname is None:
            raise ConfigError("hostname is required: the name that we greet other servers with (EHLO)")
        super().__init__(dns, on_event)

    @property
    def hostname(self) -> Domain | None:
        """See `Sender`."""
        return self.settings.hostname

    def _open(self, engine: Engine) -> AbstractAsyncContextManager[FixedDelivery]:
        from mailrider.app.assemble import open_smarthost

        return open_smarthost(self.settings, engine)


def DKIM(
    domain: str, selector: str, *, key_path: str | os.PathLike[str] | None = None, **options: Any
) -> DKIMSettings:  # as MTASTS, Dane
    """A signature: `Remote(dkim=[DKIM("example.org", "s2026", key_path="s2026.key")])`; also for `Queue`.

    `options` are the directives of `dkim { }` (`signing.settings.DKIMOptions`): `sig_expiry`, `sign_subdomains`, ...
    Without `key_path` the key is where `mailrider dkim new` puts it; one that is not there is a `ConfigError`, since
    nobody would have its record.
    """
    path = None if key_path is None else Path(key_path)
    return replace(DKIMSettings.of([domain], selector, DKIMOptions(key_path=path, **options)), makes_key=False)


def _settings(
    cls: type[SettingsT],
    settings: SettingsT | None,
    directives: Mapping[str, Any],
    dkim: Iterable[DKIMSettings] = (),
) -> SettingsT:
    """The settings that were given, or made of directives. `dkim` is short for `modify=ModifySettings(dkim=...)`."""
    signatures = tuple(dkim)
    if signatures:
        if settings is not None or "modify" in directives:
            raise TypeError("give either dkim, or modify or settings with it, not both")
        directives = {**directives, "modify": ModifySettings(dkim=signatures)}
    if settings is None:
        known = directives_of(cls)
        for name in directives:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; it may be one of {few(known)}"
                raise TypeError(f"unknown directive {name!r}{hint}")
        return cls(**directives)
    if directives:
        raise TypeError("give either settings or directives, not both")
    if not isinstance(settings, cls):
        raise TypeError(f"settings are {cls.__name__}(...), not {type(settings).__name__}")
    return settings


class Queue:
    """A durable queue: what it has accepted is delivered, tried again, or bounced. Use it with `async with`.

    Keyword arguments are the directives of `target.queue` (`queue.settings.QueueSettings`): `target` (the settings of
    what delivers, such as `RemoteSettings`), `location`, `hostname`, `expire=86400`, ... `named` are targets that
    settings refer to by name. `on_event` is called with every event; what became of each message is among them.
    With `deliver=False` messages are only taken in, for another process to deliver.
    """

    def __init__(
        self,
        settings: QueueSettings | None = None,
        *,
        named: Mapping[str, Settings] | None = None,
        dns: DNSSettings | None = None,
        deliver: bool = True,
        on_event: Emit = discard,
        dkim: Iterable[DKIMSettings] = (),
        **directives: Unpack[QueueDirectives],
    ) -> None:
        self.settings = _settings(QueueSettings, settings, directives, dkim)
        if deliver and self.settings.target is None:
            raise ConfigError("a queue needs a target: what delivers")
        self._named = named or {}
        self._dns = dns
        self._deliver = deliver
        self._emit = _harmless(on_event)
        self._limits_here: Callable[[], LocalShares] = _own_limits
        self._stack = AsyncExitStack()
        self._queue: DeliveryQueue | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        if self._queue is not None:
            raise RuntimeError("this Queue is entered already")
        from mailrider.app.assemble import open_engine
        from mailrider.app.targets import Targets, make_queue

        async with AsyncExitStack() as stack:
            if self._deliver:
                dns = self._dns or getattr(self.settings.target, "dns", None) or DNSSettings()
                engine = await stack.enter_async_context(open_engine(dns, self._emit, shares=self._limits_here()))
                targets = await stack.enter_async_context(Targets(engine, self._named))
                self._queue = await targets.open_queue(self.settings)
            else:
                target = self._target()
                queue = make_queue(self.settings, None, SystemClock(), SystemRandom(), self._emit, target=target)
                self._queue = await stack.enter_async_context(queue)
            self._loop = asyncio.get_running_loop()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._queue = None
        await self._stack.aclose()

    def _target(self) -> Settings | None:
        target = self.settings.target
        return self._named.get(target.name) if isinstance(target, TargetRef) else target

    @property
    def opened(self) -> DeliveryQueue:
        """The queue itself, while it is entered."""
        if self._queue is None:
            raise RuntimeError("use `async with Queue(...) as queue`")
        return self._queue

    async def submit(
        self,
        message: bytes | MessageLike,
        sender: str,
        recipients: Sequence[str],
        *,
        requiretls: bool = False,
        quarantine: bool = False,
        smtputf8: bool | None = None,
        dsn: DSN = NO_DSN,
        id: str | None = None,
    ) -> str:
        """Accept a message; returns its id once it is durable. Arguments as in `Remote.send`; `id`: one of `new_id`.

        A call that is cancelled (by a time-out, say) may have accepted the message all the same. To be certain, take
        the id before:

            id = queue.new_id()
            try:
                async with asyncio.timeout(5):
                    await queue.submit(message, sender=a, recipients=[b], id=id)
            except TimeoutError:
                taken_back = await queue.cancel(id)

        Raises `ValueError` if the sender or a recipient is not a mail address, since nobody could be told later, and
        `MailriderError` (with the reply for a submitter) if the queue cannot take anything now.
        """
        queue = self.opened
        _check_loop(self, self._loop)
        submission = prepare(
            message,
            sender,
            recipients,
            requiretls=requiretls,
            quarantine=quarantine,
            smtputf8=smtputf8,
            dsn=dsn,
            host=self.settings.hostname or getattr(self._target(), "hostname", None),
        )
        if submission.envelope is None or submission.refused:
            refused = next(iter(submission.refused.values()))
            raise InvalidValue(refused.reply.text, code=refused.reply.code, enhanced=str(refused.reply.status))
        number = None if id is None else parse_id(id)
        return format_id(await queue.submit(submission.envelope, submission.content, id=number))

    def new_id(self) -> str:
        """The id of a message that is submitted with it later: whatever becomes of `submit`, `cancel` knows it."""
        return format_id(self.opened.new_id())

    async def cancel(self, id: str) -> bool:
        """Take a message back. True: it is certain that nobody has it or gets it, and it is not in the queue any more.

        False: it is too late for at least one recipient, who has the message, may have it, or is being given it; or the
        id does not come from `new_id` of this queue. What is still queued is removed in any case.
        """
        return await self.opened.cancel(parse_id(id))

    async def list(
        self,
        *,
        sender: str | None = None,
        recipient: str | None = None,
        domain: str | None = None,
        state: str | None = None,
        older: timedelta | float | str | None = None,
        limit: int | None = 100,
    ) -> Sequence[QueuedRecipient]:
        """The recipients who wait, those of the oldest messages first; `limit` None: all of them.

        `sender` and `recipient` are parts of an address, an empty `sender` is the null reverse-path; `domain` is the
        recipient's; `state` "queued", "active" or "held"; `older`: queued longer ago than so many seconds, or "4h".
        """
        found: Found = []
        wanted = queue_filter(sender, recipient, domain, state, older)
        if limit is not None and limit <= 0:
            return found
        async with aclosing(self._reader().entries(wanted, limit)) as entries:
            async for entry in entries:
                found.append(queued_recipient(entry))
                if len(found) == limit:
                    break
        return found

    async def show(self, id: str) -> QueuedMessage | None:
        """A message with the recipients who wait, and each try that there was; None if it is not in the queue."""
        message = await self._reader().find(parse_id(id))
        return None if message is None else queued_message(message)

    async def retry(self, id: str) -> int:
        """Try a message again now, whatever the schedule says; for how many recipients. 0: it is not in the queue.

        Who is being tried at the moment counts, too, and is tried again after that.
        """
        done = await self._here().command(QueueCommand.RETRY, Filter(message=parse_id(id)))
        return done.changed + done.later

    def _reader(self) -> ShardsReader:
        """A look into the whole queue, from the loop in which it was entered."""
        from mailrider.queue.sqlite.shards import ShardsReader

        self._here()
        return ShardsReader(queue_location(self.settings), SystemClock())

    def _here(self) -> DeliveryQueue:
        """The queue, for a call from the loop in which it was entered."""
        queue = self.opened
        _check_loop(self, self._loop)
        return queue

    async def idle(self) -> None:
        """Wait until nothing is due any more, but for destinations that are down."""
        queue = self.opened
        _check_loop(self, self._loop)
        await queue.idle()

    async def drain(self) -> None:
        """Wait until what is due now is done, here or by another process; from now on nothing that comes is taken."""
        await self.opened.drain()


@dataclass(frozen=True, slots=True)
class LoadedConfiguration:
    """A configuration file as a program uses it.

    Its targets share its named `limits`, as long as they are used in one event loop.
    """

    configuration: Configuration
    _limits: WeakKeyDictionary[asyncio.AbstractEventLoop, LocalShares] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def _limits_here(self) -> LocalShares:
        loop = asyncio.get_running_loop()
        if loop not in self._limits:
            self._limits[loop] = _own_limits()
        return self._limits[loop]

    @overload
    def target(self, name: str, *, on_event: Emit = discard) -> Remote | Smarthost | Queue: ...

    @overload
    def target(self, name: str, kind: type[TargetT], *, on_event: Emit = discard) -> TargetT: ...

    def target(
        self, name: str, kind: type[TargetT] | None = None, *, on_event: Emit = discard
    ) -> Remote | Smarthost | Queue:
        """The target of that name, to be entered with `async with`; `ConfigError` if there is none.

        Whether it is a `Remote`, a `Smarthost` or a `Queue` stands in the file, where no type checker looks: `kind` is
        the class that the program counts on, and `ConfigError` says if it is another.
        """
        instance = self.configuration.target(name)
        settings = instance.settings
        target: Remote | Smarthost | Queue
        if isinstance(settings, QueueSettings):
            target = self.queue(name, on_event=on_event)
        else:
            target = direct(settings, self.configuration.globals.dns, on_event)
            target._limits_here = self._limits_here
        if kind is not None and not isinstance(target, kind):
            raise ConfigError(f"{instance.label} is a {type(target).__name__}, not a {kind.__name__}")
        return target

    def queue(self, name: str = "queue", *, deliver: bool = True, on_event: Emit = discard) -> Queue:
        """The queue of that name, to be entered with `async with`; `ConfigError` if there is none."""
        instance = self.configuration.target(name)
        if not isinstance(instance.settings, QueueSettings):
            raise ConfigError(f"{instance.label} is no target.queue")
        named = {name: each.settings for name, each in self.configuration.targets.items()}
        dns = self.configuration.globals.dns
        queue = Queue(instance.settings, named=named, dns=dns, deliver=deliver, on_event=on_event)
        queue._limits_here = self._limits_here
        return queue


def direct(settings: Settings, dns: DNSSettings, on_event: Emit) -> Remote | Smarthost:
    """The target with these settings, if it is one that delivers at once. Raises `ConfigError`."""
    match settings:
        case RemoteSettings():
            return Remote(settings, on_event=on_event)
        case SmarthostSettings():
            return Smarthost(settings, dns=dns, on_event=on_event)
        case _:
            raise ConfigError(f"{type(settings).__name__} delivers nothing at once")


def load(path: str | os.PathLike[str] | None = None) -> LoadedConfiguration:
    """The configuration in a file, or the one that is found; `ConfigError` with all that is wrong with it."""
    return LoadedConfiguration(load_configuration(path))
