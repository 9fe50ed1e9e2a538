"""The names of users who may log in: what they are, and how they are compared."""

import unicodedata
from typing import Final

from mailrider.errors import InvalidValue
from mailrider.model.text import UNSAFE

MAX_NAME: Final = 255  # octets of a user name


def check_name(name: str) -> str:
    """A user name as the file can keep it. Raises `InvalidValue`."""
    if not name or ":" in name or name.startswith("#") or name != name.strip() or UNSAFE.search(name):
        raise InvalidValue(
            f"a user name is printable, without colon and not with # or spaces around it: {name[:100]!r}"
        )
    if len(name.encode()) > MAX_NAME:
        raise InvalidValue(f"a user name has at most {MAX_NAME} octets")
    return name


def composed(text: str) -> str:
    """The text as it is compared: some devices send an umlaut in one piece, others a letter and its dots (RFC 8265)."""
    return unicodedata.normalize("NFC", text)


def login_name(name: str) -> str:
    """A user name as it is compared: where it is a mail address, its domain has no case (RFC 5321 2.4)."""
    name = composed(name)
    local, at, domain = name.rpartition("@")
    return local + at + domain.lower() if at else name
