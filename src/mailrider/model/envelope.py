"""The envelope: who sends what to whom, and with which wishes (RFC 5321 2.3.1, RFC 3461, RFC 6531, RFC 8689)."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mailrider.errors import InvalidValue
from mailrider.model.text import UNSAFE
from mailrider.model.value import value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.model.address import Mailbox, ReversePath

MAX_ENVID = 100  # characters before xtext: RFC 3461 4.4
MAX_ORCPT = 500  # characters: RFC 3461 4.2

_PRINTABLE = re.compile(r"[ -~]+")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,64}")  # those that are registered have up to seven


def check_envid(envid: str) -> None:
    """Raise `InvalidValue` for what cannot be an ENVID (RFC 3461 4.4)."""
    if len(envid) > MAX_ENVID or not _PRINTABLE.fullmatch(envid):
        raise InvalidValue(f"ENVID is 1 to {MAX_ENVID} printable ASCII characters: {envid[:120]!r}")


class Notify(enum.Flag):
    """When a sender wants a delivery status notification for a recipient (RFC 3461 4.1)."""

    NEVER = 0
    SUCCESS = 1
    FAILURE = 2
    DELAY = 4

    @property
    def words(self) -> str:
        """The value of the NOTIFY parameter, as `FAILURE,DELAY`."""
        if not self:
            return "NEVER"
        return ",".join(
            flag.name for flag in (Notify.SUCCESS, Notify.FAILURE, Notify.DELAY) if flag in self and flag.name
        )

    @classmethod
    def parse(cls, text: str) -> Notify:
        """The value of a NOTIFY parameter; NEVER stands alone (RFC 3461 4.1). Raises `InvalidValue`."""
        words = text.upper().split(",") if text.isascii() else []
        if words == ["NEVER"]:
            return cls.NEVER
        if not words or not {"SUCCESS", "FAILURE", "DELAY"}.issuperset(words):
            raise InvalidValue(f"NOTIFY takes NEVER, or SUCCESS, FAILURE, DELAY; not {text[:100]!r}")
        value = cls.NEVER
        for word in words:
            value |= cls[word]
        return value


class Ret(enum.Enum):
    """How much of the message a failure notification returns (RFC 3461 4.3)."""

    FULL = "FULL"
    HEADERS = "HDRS"


@dataclass(frozen=True, slots=True)
class OriginalRecipient:
    """The ORCPT of a recipient, decoded: the address that the message was first sent to (RFC 3461 4.2).

    Only the type utf-8 has characters beyond ASCII (RFC 6533 3).
    """

    address_type: str
    address: str

    def __post_init__(self) -> None:
        if not _ADDRESS_TYPE.fullmatch(self.address_type):
            raise InvalidValue(f"not an address type: {self.address_type[:100]!r}")
        if not 0 < len(self.address) <= MAX_ORCPT or UNSAFE.search(self.address):
            raise InvalidValue(f"not an original recipient: {self.address[:100]!r}")
        if self.address_type.lower() != "utf-8" and not self.address.isascii():
            raise InvalidValue(f"an original recipient of type {self.address_type} is ASCII: {self.address[:100]!r}")


@value
class Recipient:
    """One recipient and what the sender wants to be told about it; `notify` None means nothing was said."""

    mailbox: Mailbox
    notify: Notify | None = None
    original: OriginalRecipient | None = None

    def __str__(self) -> str:
        return str(self.mailbox)


@value
class Envelope:
    """One message's routing: `recipients` in the order in which their outcomes are reported.

    `smtputf8`: the message was submitted with SMTPUTF8 (its header may be UTF-8). `requiretls`: RFC 8689.
    `quarantined`: a check held it to be harmful; it is never sent on. `client`: IP address of who submitted it.
    `tls_report`: a TLS report of ours (RFC 8460), which no policy holds up, and nobody is notified about.

    `id` is the name of the message in log and Received, `origin` that of the message of which it is a further copy,
    `message_id` what its own header calls it, `signed` the domains and selectors of signatures that we gave it.
    They are names and no part of what is asked: envelopes that differ in them are equal.
    """

    sender: ReversePath
    recipients: tuple[Recipient, ...]
    smtputf8: bool = False
    requiretls: bool = False
    quarantined: bool = False
    ret: Ret | None = None
    envid: str | None = None
    client: str | None = None
    id: str = field(default="", kw_only=True, compare=False)
    origin: str = field(default="", kw_only=True, compare=False)
    message_id: str = field(default="", kw_only=True, compare=False)
    signed: tuple[str, ...] = field(default=(), kw_only=True, compare=False)
    tls_report: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not self.recipients:
            raise InvalidValue("an envelope needs at least one recipient")
        if self.envid is not None:
            check_envid(self.envid)

    def only(self, indices: Sequence[int]) -> Envelope:
        """The same with some of its recipients."""
        if len(indices) == len(self.recipients):
            return self
        return replace(self, recipients=tuple(self.recipients[index] for index in indices))

    def under_name(self, name: str, signed: tuple[str, ...] = ()) -> Envelope:
        """The same of a message of that name; what it was called before becomes its origin."""
        if self.id == name:
            return replace(self, signed=signed) if signed else self
        return replace(self, id=name, origin=self.id or self.origin, signed=signed)

    def facts(self, size: int) -> dict[str, Any]:
        """What is told of a message of so many octets with the end of each recipient: it is not there any more then."""
        told: dict[str, Any] = {"size": size}
        if self.message_id:
            told["message_id"] = self.message_id
        if self.origin:
            told["origin"] = self.origin
        if self.client is not None:
            told["client"] = self.client
        if self.signed:
            told["signed"] = self.signed
        return told
