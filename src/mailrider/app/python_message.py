"""Messages of Python's `email` package, and what else can write itself, as the octets of a message.

What a program has put into fields is written for everybody where that can be: names as encoded words (RFC 2047),
domains as A-labels. A local part has no such form, and needs SMTPUTF8 (RFC 6531). An encoded word may never stand in an
address (RFC 2047 5), but older Pythons write one there, and newer ones raise instead.

Fields that were parsed stay as they came, octet by octet: they may be signed.
"""

from __future__ import annotations

import re
from email.errors import MessageError
from email.generator import BytesGenerator
from email.headerregistry import Address, AddressHeader, Group
from email.message import Message
from email.policy import Compat32, EmailPolicy
from io import BytesIO
from typing import TYPE_CHECKING, Any

from mailrider.errors import InvalidValue
from mailrider.header.addresses import parse_addresses
from mailrider.header.mailboxes import compose_folded, mailbox, phrase, text
from mailrider.model.domain import Domain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_LINE = 998  # octets of a header line without its CRLF: RFC 5322 2.1.1
MAX_WORD = MAX_LINE - 98  # characters that stand on one line because nothing in them divides them: a long URL
_NAME = re.compile(r"[!-9;-~]{1,76}")
_FIELD = re.compile(rb"[!-9;-~]+:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*\r\n")

# RFC 5322 3.6.2, 3.6.3, 3.6.6
ADDRESS_FIELDS = frozenset(
    (
        *("from", "sender", "reply-to", "to", "cc", "bcc"),
        *("resent-from", "resent-sender", "resent-to", "resent-cc", "resent-bcc"),
    )
)


def needs_smtputf8(message: object) -> bool:
    """True if its policy asks for UTF-8 in the header, or a local part in a field that a program made needs it."""
    policy = getattr(message, "policy", None)
    if getattr(policy, "utf8", False):
        return True
    if not isinstance(message, Message) or not isinstance(policy, EmailPolicy):
        return False
    return any(not address.username.isascii() for address in _made_addresses(message))


def _made_addresses(message: Message) -> Iterator[Address]:
    for _, value in message.raw_items():
        yield from getattr(value, "addresses", ())


def octets_of(message: object, *, utf8: bool) -> bytes:
    """The message's octets; an `EmailMessage` with UTF-8 in its header only if `utf8` (RFC 6532).

    Raises `TypeError` for what is no message, and `ValueError` for an address that needs UTF-8 if it may not be there.
    """
    if isinstance(message, bytes):
        return message
    if isinstance(message, Message):
        return _written(message, utf8=utf8)
    write = getattr(message, "as_bytes", None)
    octets = write() if callable(write) and not isinstance(message, type) else None
    if not isinstance(octets, bytes):
        raise TypeError(f"message is bytes or an email.message.EmailMessage, not {type(message).__name__}")
    return octets


def _written(message: Message, *, utf8: bool) -> bytes:
    """A message of the standard library, or of a class derived from one.

    Its own `as_bytes` is not asked: Django's classes have one that takes other arguments.
    """
    policy = message.policy
    if isinstance(policy, EmailPolicy):
        if not utf8:
            _refuse_utf8(message)
        policy = _UnchangedFields(**vars(policy) | {"linesep": "\r\n", "utf8": utf8})
    else:
        if type(policy) is Compat32:
            policy = _OldPolicy(**vars(policy))
        # The policy of old folds what is longer than it is told, and this long must be folded.
        policy = policy.clone(linesep="\r\n", max_line_length=MAX_LINE)
    file = BytesIO()
    try:
        _Writer(file, mangle_from_=False, policy=policy).flatten(message)
    except MessageError as error:
        raise ValueError(f"the message cannot be written: {error}") from error
    except RecursionError as error:
        raise ValueError("the message cannot be written: its parts are nested too deeply") from error
    except AttributeError as error:
        raise TypeError(f"the message has a part that is neither text nor octets: {error}") from error
    return file.getvalue()


def _refuse_utf8(message: Message) -> None:
    for address in _made_addresses(message):
        if not address.username.isascii():
            raise ValueError(f"the message has the address {address.addr_spec} in its header, which needs smtputf8")


class _Writer(BytesGenerator):
    """Writes a multipart without parts as it came: Python raises for octets in it (python/cpython#88860)."""

    def _handle_multipart(self, part: Message) -> None:
        payload = vars(part)["_payload"]  # `get_payload` would lose the octets
        if isinstance(payload, str):
            self.write("\r\n".join(re.split(r"\r\n|\r|\n", payload)))
        else:
            super()._handle_multipart(part)  # type: ignore[misc] # typeshed does not know it


class _UnchangedFields(EmailPolicy):
    """Writes fields that were parsed as they are, in octets or as text; Python 3.13 encodes what is 8-bit in them."""

    def fold_binary(self, name: str, value: Any) -> bytes:
        """See `email.policy.Policy`; a field that a program made has a `name` of its own."""
        if hasattr(value, "name"):
            return self._made(name, value if self.utf8 else self._in_ascii(name, value))
        lines = re.split(r"\r\n|\r|\n", value)
        try:
            field = f"{name}: {self.linesep.join(lines)}{self.linesep}"
            return field.encode("utf-8" if self.utf8 else "ascii", "surrogateescape")
        except UnicodeEncodeError:  # parsed from text: there never were any octets
            return super().fold_binary(name, self.header_factory(name, "".join(lines)))

    def _made(self, name: str, value: Any) -> bytes:
        """A field that a program made, as Python writes it where that is right.

        Before 3.13.2 Python loses the quotes of a long name, and lets out what is a line end within an encoded word:
        whoever may choose a name or a subject could add addresses, fields and a body (python/cpython#80222, #121650).
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"not the name of a header field: {name[:100]!r}")
        field = super().fold_binary(name, value)
        if isinstance(value, AddressHeader):
            if not (_is_field(field) and _addresses_in(field) == [_spec(each) for each in value.addresses]):
                written = compose_folded(name, _pieces(name, value.groups, utf8=self.utf8))
                if not (self.utf8 or written.isascii()):
                    raise ValueError(
                        f"an address in the header field {name} has a domain that is none: {str(value)[:100]!r}"
                    )
                return written.encode()
        elif not _is_field(field) or _is_needlessly_encoded(field, str(value)):
            words = text(str(value), used=len(name) + 2, utf8=self.utf8, longest=MAX_WORD)
            return compose_folded(name, words).encode()
        return field

    def _in_ascii(self, name: str, value: Any) -> Any:
        """A field of addresses with A-labels; any other as it is."""
        if all(address.domain.isascii() for address in getattr(value, "addresses", ())):
            return value
        groups = [Group(each.display_name, tuple(map(_with_a_label, each.addresses))) for each in value.groups]
        return self.header_factory(name, groups)


class _OldPolicy(Compat32):
    """Encodes the names in fields of addresses; as it is in Python, the address becomes part of the encoded word."""

    def fold_binary(self, name: str, value: Any) -> bytes:
        """See `email.policy.Policy`."""
        if not (value is None or hasattr(value, "encode")):
            raise TypeError(f"the value of the header field {name!r} is a string, not {type(value).__name__}")
        if name.lower() in ADDRESS_FIELDS and isinstance(value, str) and _needs_words(value):
            modern = _UnchangedFields(linesep=self.linesep)
            field = modern.header_factory(name, "".join(value.splitlines()))
            if all(address.username.isascii() for address in field.addresses):
                return modern.fold_binary(name, field)
        written = super().fold_binary(name, value)
        if not _is_field(written) and isinstance(value, str) and not re.search(r"[\r\n](?![ \t\n])", value):
            # Python ends lines at control characters that end none in mail (U+000B, U+001C).
            lines = re.split(r"\r\n|\r|\n", value)
            written = f"{name}: {self.linesep.join(lines)}{self.linesep}".encode("utf-8", "surrogateescape")
        if not _is_field(written):
            raise ValueError(f"a line end within the header field {name!r} would begin another field, or the body")
        return written


def _is_needlessly_encoded(field: bytes, value: str) -> bool:
    """True if plain text became encoded words, as Python does with what is longer than a line (python/cpython#100991).

    Nobody decodes them in References, In-Reply-To or List-Unsubscribe, which hold ids and addresses (RFC 2047 5).
    """
    return b"=?" in field and value.isascii() and "=?" not in value


def _is_field(octets: bytes) -> bool:
    """True if it is one field, and all its further lines are continued ones."""
    return _FIELD.fullmatch(octets) is not None


def _addresses_in(field: bytes) -> list[str] | None:
    """The addresses that a reader finds in a field; None if it is unclear."""
    try:
        value = field.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "replace")
        return [each.text for each in parse_addresses(value)]
    except InvalidValue:
        return None


def _spec(address: Address) -> str:
    return address.addr_spec if address.username else ""


def _pieces(name: str, groups: Sequence[Group], *, utf8: bool) -> Iterator[str]:
    """The pieces of a field of addresses."""
    used = len(name) + 2
    for number, group in enumerate(groups, 1):
        pieces: list[str] = []
        if group.display_name is not None:
            pieces += [*phrase(group.display_name, used=used, utf8=utf8), ":"]
        for place, each in enumerate(group.addresses, 1):
            pieces += mailbox(each.display_name, _spec(each), used=used, utf8=utf8)
            pieces[-1] += "," if place < len(group.addresses) else ""
        pieces[-1] += ";" if group.display_name is not None else ""
        pieces[-1] += "," if number < len(groups) else ""
        yield from pieces


def _needs_words(value: str) -> bool:
    """True if it is text that is not ASCII; surrogates stand for octets that were parsed, and stay."""
    try:
        return not value.isascii() and bool(value.encode())
    except UnicodeEncodeError:
        return False


def _with_a_label(address: Address) -> Address:
    try:
        return Address(address.display_name, address.username, Domain.parse(address.domain).ascii)
    except InvalidValue:
        return address  # no domain at all, and nothing that we could make one of
