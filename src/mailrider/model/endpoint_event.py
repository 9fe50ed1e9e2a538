"""Events of the accepting side: who came, what was taken, what was refused."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, ClassVar

from mailrider.model.event import DEBUG, WARNING, Event, EventLevel
from mailrider.model.value import value

if TYPE_CHECKING:
    from mailrider.model.reply import Reply


@value
class ClientConnected(Event):
    """Somebody connected; `client` is an IP address, or `local` on a unix socket."""

    level: ClassVar[EventLevel] = DEBUG
    endpoint: str
    client: str


@value
class ClientLeft(Event):
    """A connection ended; `reason` is empty if it did so in order."""

    level: ClassVar[EventLevel] = DEBUG
    endpoint: str
    client: str
    reason: str


@value
class ClientTurnedAway(Event):
    """A connection was not served at all, and why. `is_repeated`: the same was told of that client a moment ago."""

    level: ClassVar[EventLevel] = WARNING
    endpoint: str
    client: str
    reason: str
    is_repeated: bool = False


@value
class ClientCutOff(Event):
    """A connection was ended by us, and why: too slow, too many errors, talks out of turn."""

    endpoint: str
    client: str
    reason: str


@value
class ClientRefused(Event):
    """TLS, or a command that is none of a transaction, was refused, and why; commands: the first of a connection.

    `command` is what was said, without secrets; `TLS` for a port where it comes first.
    """

    level: ClassVar[EventLevel] = WARNING
    endpoint: str
    client: str
    user: str
    command: str
    reason: str


@value
class LoginFailed(Event):
    """A wrong password, or a user that is not known."""

    level: ClassVar[EventLevel] = WARNING
    endpoint: str
    client: str
    user: str


@value
class LoginHeldBack(Event):
    """A password was not looked at: the client, or others for this user, have tried too many wrong ones."""

    level: ClassVar[EventLevel] = WARNING
    endpoint: str
    client: str
    user: str


@value
class MailTaken(Event):
    """A message was accepted.

    `message` is its id with us, `message_id` what its header calls it.
    """

    endpoint: str
    client: str
    user: str
    protocol: str
    sender: str
    recipients: int
    size: int
    reply: Reply
    message: str = field(default="", kw_only=True)
    message_id: str = field(default="", kw_only=True)


@value
class MailRefused(Event):
    """A sender, a recipient or a message was refused. `size`: of a message that arrived whole, None of others.

    `recipient` is empty if it is not about one. `message` and `message_id` as in `MailTaken`.
    """

    level: ClassVar[EventLevel] = WARNING
    endpoint: str
    client: str
    user: str
    sender: str
    recipient: str
    reply: Reply
    size: int | None = None
    message: str = field(default="", kw_only=True)
    message_id: str = field(default="", kw_only=True)


@value
class MailMended(Event):
    """A message that its author's program handed in was none, and was made one: `changes` in words."""

    endpoint: str
    client: str
    user: str
    sender: str
    changes: str
    message: str = field(default="", kw_only=True)


@value
class AliasUnusable(Event):
    """Mail for an alias was refused, or will be: what is wrong with it, with file and line."""

    level: ClassVar[EventLevel] = WARNING
    endpoint: str
    alias: str
    reason: str


@value
class AddressLeftOut(Event):
    """We do not listen at an address of the configuration, and go on without it."""

    level: ClassVar[EventLevel] = WARNING
    endpoint: str
    address: str
    reason: str


@value
class EndpointOpened(Event):
    """We listen."""

    endpoint: str
    address: str


@value
class EndpointClosed(Event):
    """We listen no more; so many connections were cut off in the middle of something."""

    endpoint: str
    address: str
    cut_off: int
