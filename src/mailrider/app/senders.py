"""What delivers messages at once: `Remote` and `Smarthost`, and the settings that they are made of."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mailrider.app.async_context import AsyncContext
from mailrider.app.submission import NO_DSN, prepare
from mailrider.delivery.settings import RemoteSettings, greeting_name
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.model.event import discard
from mailrider.model.text import few
from mailrider.settings.directive import directives_of
from mailrider.signing.settings import DKIMOptions, DKIMSettings, ModifySettings

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager, AsyncExitStack
    from typing import TypeAlias, Unpack

    from mailrider.app.assemble import Engine
    from mailrider.app.directives import RemoteDirectives, SmarthostDirectives
    from mailrider.app.submission import DSN, MessageLike, Report
    from mailrider.delivery.remote import RemoteDelivery
    from mailrider.delivery.smarthost import FixedDelivery
    from mailrider.dns.settings import DNSSettings
    from mailrider.model.event import Emit
    from mailrider.settings.directive import Settings

    Delivery: TypeAlias = RemoteDelivery | FixedDelivery

SettingsT = TypeVar("SettingsT", bound="Settings")


class Sender(AsyncContext["Delivery"]):
    """Something that delivers messages at once. Subclasses say what it is made of."""

    def __init__(self, settings: RemoteSettings | SmarthostSettings, dns: DNSSettings | None, on_event: Emit) -> None:
        super().__init__(dns, on_event)
        self._hostname = greeting_name(settings.hostname)

    @abstractmethod
    def _target(self, engine: Engine) -> AbstractAsyncContextManager[Delivery]:
        """The target, to be entered."""

    async def _open(self, stack: AsyncExitStack) -> Delivery:
        engine = await self._open_engine(stack, self._dns)
        return await stack.enter_async_context(self._target(engine))

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
        delivery = self._here()
        submission = prepare(
            message,
            sender,
            recipients,
            requiretls=requiretls,
            quarantine=quarantine,
            smtputf8=smtputf8,
            dsn=dsn,
            host=self._hostname,
        )
        if submission.envelope is None:
            return submission.report(())
        report = await delivery.deliver(submission.envelope, submission.content)
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
        self.settings = made_settings(RemoteSettings, settings, directives, dkim)
        super().__init__(self.settings, self.settings.dns, on_event)

    def _target(self, engine: Engine) -> AbstractAsyncContextManager[RemoteDelivery]:
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
        self.settings = made_settings(SmarthostSettings, settings, directives)
        super().__init__(self.settings, dns, on_event)

    def _target(self, engine: Engine) -> AbstractAsyncContextManager[FixedDelivery]:
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


def made_settings(
    cls: type[SettingsT],
    settings: SettingsT | None,
    directives: Mapping[str, Any],
    dkim: Iterable[DKIMSettings] = (),
) -> SettingsT:
    """The settings that were given, or made of directives. `dkim` is short for `modify=ModifySettings(dkim=...)`."""
    if isinstance(dkim, DKIMSettings) or not hasattr(type(dkim), "__iter__"):
        raise TypeError("dkim is a list of signatures: [DKIM(domain, selector, key_path=...)]")
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
