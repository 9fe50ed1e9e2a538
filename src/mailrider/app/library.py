"""mailrider as a library: `Queue` keeps messages, and a configuration file becomes targets.

`Remote` and `Smarthost`, which send messages at once, stand in `app.senders`. Wrong settings raise `ConfigError`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from random import SystemRandom
from typing import TYPE_CHECKING, TypeVar, overload
from weakref import WeakKeyDictionary

from mailrider.app.async_context import AsyncContext, own_limits
from mailrider.app.queued import queue_filter, queued_message, queued_recipient
from mailrider.app.senders import Remote, Smarthost, made_settings
from mailrider.app.submission import NO_DSN, prepare
from mailrider.clock import SystemClock
from mailrider.config import load as load_configuration
from mailrider.config import queue_location
from mailrider.delivery.settings import RemoteSettings
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.errors import ConfigError, InvalidValue
from mailrider.model.event import discard
from mailrider.queue.ids import format_id, parse_id
from mailrider.queue.message import Filter
from mailrider.queue.settings import QueueSettings
from mailrider.queue.store import QueueCommand
from mailrider.settings.pipeline import TargetRef

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AsyncExitStack
    from datetime import timedelta
    from typing import TypeAlias, Unpack

    from mailrider.app.directives import QueueDirectives
    from mailrider.app.queued import QueuedMessage, QueuedRecipient
    from mailrider.app.submission import DSN, MessageLike
    from mailrider.config import Configuration
    from mailrider.delivery.limits.shares import Shares
    from mailrider.dns.settings import DNSSettings
    from mailrider.model.event import Emit
    from mailrider.queue.service import DeliveryQueue
    from mailrider.queue.sqlite.shards import ShardsReader
    from mailrider.settings.directive import Settings
    from mailrider.signing.settings import DKIMSettings

    Found: TypeAlias = list[QueuedRecipient]  # in Queue `list` is its own

TargetT = TypeVar("TargetT", bound="Remote | Smarthost | Queue")


class Queue(AsyncContext["DeliveryQueue"]):
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
        self.settings = made_settings(QueueSettings, settings, directives, dkim)
        if deliver and self.settings.target is None:
            raise ConfigError("a queue needs a target, which delivers its mail")
        super().__init__(dns, on_event)
        self._named = named or {}
        self._deliver = deliver

    async def _open(self, stack: AsyncExitStack) -> DeliveryQueue:
        from mailrider.app.targets import Targets, make_queue

        target = self._target()
        if not self._deliver:
            queue = make_queue(self.settings, None, SystemClock(), SystemRandom(), self._emit, target=target)
            return await stack.enter_async_context(queue)
        engine = await self._open_engine(stack, self._dns or getattr(self.settings.target, "dns", None))
        targets = await stack.enter_async_context(Targets(engine, self._named))
        return await targets.open_queue(self.settings)

    def _target(self) -> Settings | None:
        target = self.settings.target
        return self._named.get(target.name) if isinstance(target, TargetRef) else target

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
        queue = self._here()
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
        return await self._here().cancel(parse_id(id))

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
        if limit is not None and not isinstance(limit, int):
            raise TypeError(f"limit is a whole number or None, not {type(limit).__name__}")
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

    async def idle(self) -> None:
        """Wait until nothing is due any more, but for destinations that are down."""
        await self._here().idle()

    async def drain(self) -> None:
        """Wait until what is due now is done, here or by another process; from now on nothing that comes is taken."""
        await self._here().drain()


@dataclass(frozen=True, slots=True)
class LoadedConfiguration:
    """A configuration file as a program uses it.

    Its targets share its named `limits`, as long as they are used in one event loop.
    """

    configuration: Configuration
    _limits: WeakKeyDictionary[asyncio.AbstractEventLoop, Shares] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def _limits_here(self) -> Shares:
        loop = asyncio.get_running_loop()
        if loop not in self._limits:
            self._limits[loop] = own_limits()
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
            target.limits_here = self._limits_here
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
        queue.limits_here = self._limits_here
        return queue


def direct(settings: Settings, dns: DNSSettings, on_event: Emit) -> Remote | Smarthost:
    """The target with these settings, if it is one that delivers at once. Raises `ConfigError`."""
    match settings:
        case RemoteSettings():
            return Remote(settings, on_event=on_event)
        case SmarthostSettings():
            return Smarthost(settings, dns=dns, on_event=on_event)
        case _:
            raise ConfigError(f"{type(settings).__name__} is not the settings of a target that delivers at once")


def load(path: str | os.PathLike[str] | None = None) -> LoadedConfiguration:
    """The configuration in a file, or the one that is found; `ConfigError` with all that is wrong with it."""
    return LoadedConfiguration(load_configuration(path))
