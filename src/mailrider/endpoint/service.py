"""What all connections of an endpoint share: its name and settings, and who takes messages, passwords and names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from mailrider.endpoint.intake import DISK, Memory
from mailrider.header.fields import ReceivedDetail
from mailrider.smtp.capabilities import FULL_OFFER
from mailrider.smtp.sasl import SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.endpoint.aliases import Aliases
    from mailrider.endpoint.logins import Logins
    from mailrider.endpoint.pipeline.check import Arrival
    from mailrider.endpoint.trust import Trust
    from mailrider.model.address import Mailbox, ReversePath
    from mailrider.model.domain import Domain
    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Emit
    from mailrider.model.outcome import AttemptReport
    from mailrider.model.reply import Reply
    from mailrider.net.tls import ServerContext
    from mailrider.smtp.capabilities import Capabilities
    from mailrider.smtp.content import Content
    from mailrider.smtp.sasl import Credentials


class MessageSink(Protocol):
    """Takes responsibility for messages: what it reports as delivered is durable."""

    async def deliver(self, envelope: Envelope, content: Content, arrival: Arrival) -> AttemptReport:
        """One outcome for each recipient, in the envelope's order. The content is readable until it returns."""


class Authenticator(Protocol):
    """Knows passwords."""

    async def verify(self, credentials: Credentials) -> bool | Reply:
        """True if they are right; a reply if that cannot be found out now."""


@dataclass(frozen=True, slots=True)
class Service:
    """What all connections of an endpoint share.

    `new_id` names a message of so many recipients, `forget_id` is called with the name when it is dealt with. `judge`
    decides on a recipient before the content is there, and beside the first one that the transaction has:
    None if the sink will take it. `authenticator` None: nobody can log in; `logins` says who may try now;
    `needs_login`: nothing is accepted before. `tls` None: there is no STARTTLS. `origin`, which submission has: the
    domain of addresses without one, and sloppy clients are welcome. `postmaster`: whom `RCPT TO:<postmaster>` means;
    `aliases`: whom other names of `origin` stand for; `trust`: which clients need no login. `memory` and `disk` are
    what unfinished messages from the network may take; those that come over unix sockets have `local_memory` and
    `local_disk`: the network cannot keep the programs of this machine from sending.
    """

    name: str
    hostname: Domain
    sink: MessageSink
    judge: Callable[[ReversePath, Mailbox, Mailbox | None], Reply | None]
    clock: Clock
    emit: Emit
    new_id: Callable[[int], str]
    memory: Memory
    tls: ServerContext | None = None
    authenticator: Authenticator | None = None
    needs_login: bool = False
    is_submission: bool = False
    origin: Domain | None = None
    postmaster: Callable[[ReversePath], Mailbox] | None = None
    aliases: Aliases | None = None
    trust: Trust | None = None
    is_lmtp: bool = False
    max_size: int = 32 << 20
    max_header: int = 1 << 20
    max_recipients: int = 1000
    max_received: int = 100
    read_timeout: float = 300.0
    spool: Path | None = None
    disk: Memory = field(default_factory=lambda: Memory(DISK))
    local_memory: Memory = field(default_factory=Memory)
    local_disk: Memory = field(default_factory=lambda: Memory(DISK))
    logins: Logins | None = None
    received: ReceivedDetail = ReceivedDetail.FULL
    forget_id: Callable[[str], object] = lambda _: None


def offer(service: Service, *, secure: bool, local: bool) -> Capabilities:
    """What a client is offered now. Passwords go over TLS only, or never leave this machine."""
    may_log_in = service.authenticator is not None and (secure or local)
    return _make_offer(secure, service.tls is not None, may_log_in, service.max_size, service.max_recipients)


@lru_cache(maxsize=64)
def _make_offer(secure: bool, has_tls: bool, may_log_in: bool, max_size: int, max_recipients: int) -> Capabilities:
    return replace(
        FULL_OFFER,
        starttls=has_tls and not secure,
        requiretls=secure,  # RFC 8689 3: offered under TLS only
        auth=frozenset(SERVERS) if may_log_in else frozenset(),
        max_size=max_size,
        max_recipients=max_recipients,
    )
