"""Django's mail, by mailrider: `mailrider.django.EmailBackend`.

Django 6.1 and later, in settings.py:

    MAILERS = {
        "default": {
            "BACKEND": "mailrider.django.EmailBackend",
            "OPTIONS": {"config": "/etc/mailrider/mailrider.conf", "target": "queue"},
        },
    }

Before that, the same options in `MAILRIDER`:

    EMAIL_BACKEND = "mailrider.django.EmailBackend"
    MAILRIDER = {"config": "/etc/mailrider/mailrider.conf", "target": "queue"}

`config` is a configuration file (without it, the one that `mailrider` finds), and `target` the name of a target in it.
A queue takes messages for the daemon to deliver; with `"deliver": True` this process delivers them itself, while it
lives. Without `config` and `target` the options are directives of `target.remote`: `{"hostname": "mx.example.org"}`
sends to the recipients' servers at once, and the request waits for them.

Each process has one target for the same options, in a thread that starts with the first message, after a fork too.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend

from mailrider import sync
from mailrider.errors import ConfigError, InvalidValue, MailriderError
from mailrider.header.addresses import parse_addresses
from mailrider.model.outcome import Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.core.mail import EmailMessage

    from mailrider.app.submission import Report

__all__ = ["EmailBackend", "NotDelivered"]


class NotDelivered(MailriderError):
    """A target that delivers at once did not deliver a message to all recipients; `report` says why, for each."""

    def __init__(self, report: Report) -> None:
        self.report = report
        missed = [each for each in report if each.status is not Status.DELIVERED]
        super().__init__("; ".join(f"{each.recipient}: {each.status}: {each.reply}" for each in missed))


class EmailBackend(BaseEmailBackend):  # type: ignore[misc] # Django comes without types
    """Hands Django's messages to a queue, or to a target that delivers at once."""

    def __init__(
        self,
        fail_silently: bool = False,
        *,
        alias: str | None = None,
        username: str | None = None,
        password: str | None = None,
        _ignore_unknown_kwargs: object = None,
        **options: Any,
    ) -> None:
        """`options` as in the module's text. `username` and `password` are what Django passes on of `send_mail`."""
        super().__init__(**({} if alias is None else {"alias": alias}))
        if username or password:
            raise ImproperlyConfigured("mailrider.django takes no username: a target's login is in its configuration")
        self.fail_silently = fail_silently
        self._options = {**({} if alias is not None else getattr(settings, "MAILRIDER", {})), **options}
        self._target = _target(self._options)

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Send each message; returns how many were taken: queued, or delivered to each of their recipients.

        All are tried. Then the error of the first that was not taken is raised, unless `fail_silently`; that of one
        which can never be sent (a line end in its subject) always is, and comes first.
        """
        taken, failed, wrong = 0, list[Exception](), list[Exception]()
        messages = [each for each in email_messages or () if each.recipients()]
        for message in messages:
            try:
                self._send(message)
            except MailriderError as error:
                failed.append(error)
            except (TypeError, ValueError) as error:  # as Django's own backend raises them
                wrong.append(error)
            else:
                taken += 1
        told = wrong if self.fail_silently else wrong + failed
        if told:
            told[0].add_note(f"{taken} of {len(messages)} messages were taken")
            raise told[0]
        return taken

    def _send(self, message: EmailMessage) -> None:
        """Raises `MailriderError` if it is not taken."""
        sender = _address(message.from_email)
        recipients = [_address(each) for each in message.recipients()]
        written = message.message()
        if isinstance(self._target, sync.Queue):
            self._target.submit(written, sender, recipients)
            return
        report = self._target.send(written, sender, recipients)
        if any(each.status is not Status.DELIVERED for each in report):
            raise NotDelivered(report)


def _address(text: object) -> str:
    """`a@b` of `Name <a@b>`. Raises `InvalidValue` unless it is one address."""
    given = str(text)  # it may be a text that is translated late
    try:
        found = parse_addresses(given)
    except InvalidValue as error:
        raise InvalidValue(f"{given[:100]!r} is no mail address: {error}") from error
    if len(found) != 1:
        raise InvalidValue(f"expected one mail address, not {given[:100]!r}")
    return found[0].text


_targets: dict[str, sync.Remote | sync.Smarthost | sync.Queue] = {}
_lock = threading.Lock()


def _target(options: Mapping[str, Any]) -> sync.Remote | sync.Smarthost | sync.Queue:
    """The target of this process for these options; Django makes a backend for every message."""
    key = repr(sorted(options.items()))
    with _lock:
        if key not in _targets:
            try:
                _targets[key] = _made(options)
            except (ConfigError, TypeError, ValueError) as error:
                raise ImproperlyConfigured(f"mailrider.django: {error}") from error
        return _targets[key]


def _made(options: Mapping[str, Any]) -> sync.Remote | sync.Smarthost | sync.Queue:
    """Raises `ConfigError`, `TypeError`, `ValueError`."""
    if "config" not in options and "target" not in options:
        return sync.Remote(**options)
    unknown = options.keys() - {"config", "target", "deliver"}
    if unknown:
        raise TypeError(
            f"unknown option {', '.join(sorted(unknown))}: with config or target, expected no other than deliver"
        )
    loaded = sync.load(options.get("config"))
    target = loaded.target(options.get("target", "queue"))
    if not isinstance(target, sync.Queue):
        if "deliver" in options:
            raise TypeError("deliver is an option of queues only")
        return target
    return loaded.queue(options.get("target", "queue"), deliver=options.get("deliver", False))
